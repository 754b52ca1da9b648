//! Who waits, in which order, and until when.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use super::message::RequestId;

/// A request that waits.
pub(super) struct Waiter<T> {
    pub(super) request: RequestId,
    deadline: Instant,
    pub(super) item: T,
}

/// First in, first out, with an exact view of the deadlines.
///
/// A waiter may leave from any place (abandoned, timed out), so both orders are trees keyed by the ticket drawn at the
/// entrance: every operation is O(log n), and nothing dead stays behind that would have to be swept up later.
pub(super) struct Queue<T> {
    next_ticket: u64,
    waiters: BTreeMap<u64, Waiter<T>>,
    deadlines: BTreeSet<(Instant, u64)>,
    tickets: HashMap<RequestId, u64>,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self { next_ticket: 0, waiters: BTreeMap::new(), deadlines: BTreeSet::new(), tickets: HashMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn earliest_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    pub(super) fn push(&mut self, request: RequestId, deadline: Instant, item: T) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiters.insert(ticket, Waiter { request, deadline, item });
        self.deadlines.insert((deadline, ticket));
        let doubled = self.tickets.insert(request, ticket);
        debug_assert!(doubled.is_none(), "{request:?} waits already");
    }

    /// The one that has waited longest.
    pub(super) fn pop(&mut self) -> Option<Waiter<T>> {
        let (ticket, waiter) = self.waiters.pop_first()?;
        self.deadlines.remove(&(waiter.deadline, ticket));
        self.tickets.remove(&waiter.request);
        Some(waiter)
    }

    /// The one whose deadline is the earliest, if it is at or before `now`.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<Waiter<T>> {
        let (_, ticket) = *self.deadlines.first().filter(|(deadline, _)| *deadline <= now)?;
        self.remove_ticket(ticket)
    }

    /// `None` when the request does not wait.
    pub(super) fn remove(&mut self, request: RequestId) -> Option<Waiter<T>> {
        let ticket = *self.tickets.get(&request)?;
        self.remove_ticket(ticket)
    }

    fn remove_ticket(&mut self, ticket: u64) -> Option<Waiter<T>> {
        let waiter = self.waiters.remove(&ticket)?;
        self.deadlines.remove(&(waiter.deadline, ticket));
        self.tickets.remove(&waiter.request);
        Some(waiter)
    }
}
