//! Who waits, for which worker, in which order, and until when.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use super::message::RequestId;
use super::sessions::SessionId;

/// What a request has to do with a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) session: SessionId,
    /// Only the session's own worker may serve it.
    pub(super) strict: bool,
}

/// A request that waits.
pub(super) struct Waiter<T> {
    pub(super) request: RequestId,
    pub(super) deadline: Instant,
    pub(super) item: T,
    /// What it holds while it waits.
    pub(super) bytes: u64,
    pub(super) claim: Option<Claim>,
    /// It wants a worker to itself.
    pub(super) exclusive: bool,
    /// The slot whose worker alone may serve it; `None`: any.
    pub(super) only: Option<u32>,
}

/// Whoever has waited longest in a line.
#[derive(Clone, Copy)]
pub(super) struct First {
    pub(super) ticket: u64,
    pub(super) claim: Option<Claim>,
    pub(super) exclusive: bool,
}

/// The tickets of those who wait for the same, the longest waiting first.
type Line = BTreeSet<u64>;

/// First in, first out, with an exact view of the deadlines.
///
/// A waiter may leave from any place (abandoned, timed out), so all orders are trees keyed by the ticket drawn at the
/// entrance: every operation is O(log n), and nothing dead stays behind that would have to be swept up later.
///
/// Who may be served by any worker stands in the common line, who needs a certain one in that worker's own. A worker
/// takes the lower ticket of the two heads: so it serves in order of arrival, and nobody who waits for another one is in
/// its way. Only when a session gets a home, or loses it, do its waiters change lines, with their tickets.
pub(super) struct Queue<T> {
    next_ticket: u64,
    waiters: BTreeMap<u64, Waiter<T>>,
    for_any: Line,
    /// Each slot's own line.
    for_one: Vec<Line>,
    of_session: HashMap<SessionId, Line>,
    deadlines: BTreeSet<(Instant, u64)>,
    tickets: HashMap<RequestId, u64>,
    /// What all waiters hold.
    bytes: u64,
}

impl<T> Queue<T> {
    pub(super) fn new(size: u32) -> Self {
        Self {
            next_ticket: 0,
            waiters: BTreeMap::new(),
            for_any: Line::new(),
            for_one: (0..size).map(|_| Line::new()).collect(),
            of_session: HashMap::new(),
            deadlines: BTreeSet::new(),
            tickets: HashMap::new(),
            bytes: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    /// The bytes that the waiters hold.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Those who wait for this slot's worker alone.
    pub(super) fn len_for(&self, slot: u32) -> usize {
        self.for_one[slot as usize].len()
    }

    /// Those who wait for a worker to serve this session.
    pub(super) fn len_of(&self, session: SessionId) -> usize {
        self.of_session.get(&session).map_or(0, Line::len)
    }

    pub(super) fn earliest_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    pub(super) fn push(&mut self, waiter: Waiter<T>) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.line(waiter.only).insert(ticket);
        if let Some(claim) = waiter.claim {
            self.of_session.entry(claim.session).or_default().insert(ticket);
        }
        self.deadlines.insert((waiter.deadline, ticket));
        let doubled = self.tickets.insert(waiter.request, ticket);
        debug_assert!(doubled.is_none(), "{:?} waits already", waiter.request);
        self.bytes += waiter.bytes;
        self.waiters.insert(ticket, waiter);
    }

    /// The first of those whom any worker may serve.
    pub(super) fn first_for_any(&self) -> Option<First> {
        self.first(&self.for_any)
    }

    /// The first of those who wait for this slot's worker alone.
    pub(super) fn first_for(&self, slot: u32) -> Option<First> {
        self.first(&self.for_one[slot as usize])
    }

    fn first(&self, line: &Line) -> Option<First> {
        let ticket = *line.first()?;
        let Waiter { claim, exclusive, .. } = self.waiters.get(&ticket)?;
        Some(First { ticket, claim: *claim, exclusive: *exclusive })
    }

    /// The one that has waited longest.
    pub(super) fn pop(&mut self) -> Option<Waiter<T>> {
        let ticket = *self.waiters.keys().next()?;
        self.remove_ticket(ticket)
    }

    /// The one of the session that has waited longest.
    pub(super) fn pop_of(&mut self, session: SessionId) -> Option<Waiter<T>> {
        let ticket = *self.of_session.get(&session)?.first()?;
        self.remove_ticket(ticket)
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

    /// The session has found its home: whoever is strict about it waits for that slot's worker from now on.
    pub(super) fn bind(&mut self, session: SessionId, slot: u32) {
        for ticket in self.of_session.get(&session).cloned().unwrap_or_default() {
            let is_strict = |waiter: &Waiter<T>| waiter.claim.is_some_and(|claim| claim.strict);
            if self.waiters.get(&ticket).is_some_and(is_strict) {
                self.change_line(ticket, Some(slot));
            }
        }
    }

    /// The session has no home any more, and is to begin again: any worker may serve whoever waits.
    pub(super) fn unbind(&mut self, session: SessionId) {
        for ticket in self.of_session.get(&session).cloned().unwrap_or_default() {
            self.change_line(ticket, None);
        }
    }

    /// The session is over, and begins anew as `next` with those who wait: any worker may serve them.
    pub(super) fn begin_anew(&mut self, session: SessionId, next: SessionId) {
        let Some(tickets) = self.of_session.remove(&session) else { return };
        for ticket in &tickets {
            self.change_line(*ticket, None);
            if let Some(claim) = self.waiters.get_mut(ticket).and_then(|waiter| waiter.claim.as_mut()) {
                claim.session = next;
            }
        }
        self.of_session.insert(next, tickets);
    }

    fn change_line(&mut self, ticket: u64, only: Option<u32>) {
        let Some(waiter) = self.waiters.get_mut(&ticket) else { return };
        let before = std::mem::replace(&mut waiter.only, only);
        self.line(before).remove(&ticket);
        self.line(only).insert(ticket);
    }

    fn line(&mut self, only: Option<u32>) -> &mut Line {
        match only {
            Some(slot) => &mut self.for_one[slot as usize],
            None => &mut self.for_any,
        }
    }

    /// The one way out, so that no line keeps a ticket of somebody who left.
    pub(super) fn remove_ticket(&mut self, ticket: u64) -> Option<Waiter<T>> {
        let waiter = self.waiters.remove(&ticket)?;
        self.bytes -= waiter.bytes;
        self.line(waiter.only).remove(&ticket);
        if let Some(Claim { session, .. }) = waiter.claim
            && let Some(line) = self.of_session.get_mut(&session)
        {
            line.remove(&ticket);
            if line.is_empty() {
                self.of_session.remove(&session);
            }
        }
        self.deadlines.remove(&(waiter.deadline, ticket));
        self.tickets.remove(&waiter.request);
        Some(waiter)
    }

    /// Whether all views of the queue are of the same waiters, so that nothing stays behind.
    #[cfg(test)]
    pub(super) fn is_consistent(&self) -> bool {
        let in_lines = self.for_any.len() + self.for_one.iter().map(Line::len).sum::<usize>();
        let with_claim = self.waiters.values().filter(|waiter| waiter.claim.is_some()).count();
        let of_session: usize = self.of_session.values().map(Line::len).sum();
        [in_lines, self.deadlines.len(), self.tickets.len()] == [self.len(); 3]
            && self.bytes == self.waiters.values().map(|waiter| waiter.bytes).sum::<u64>()
            && of_session == with_claim
            && !self.of_session.values().any(Line::is_empty)
    }
}
