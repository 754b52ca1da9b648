//! The queue: requests that wait, in order of arrival, for any worker or for one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use super::message::RequestId;
use super::sessions::SessionId;

/// The session that a request belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) session: SessionId,
    /// Only the session's own worker may serve it.
    pub(super) strict: bool,
}

/// A request that waits for a worker.
pub(super) struct QueuedRequest<T> {
    pub(super) request: RequestId,
    pub(super) deadline: Instant,
    pub(super) item: T,
    /// The bytes of its arguments.
    pub(super) bytes: u64,
    pub(super) claim: Option<Claim>,
    /// A checkout: it needs an idle worker, and all of its capacity.
    pub(super) exclusive: bool,
    /// The only slot whose worker may serve it; `None`: any.
    pub(super) pinned_to: Option<u32>,
}

/// The oldest request of a queue.
#[derive(Clone, Copy)]
pub(super) struct First {
    pub(super) ticket: u64,
    pub(super) claim: Option<Claim>,
    pub(super) exclusive: bool,
}

/// Tickets of requests, the oldest first.
type Tickets = BTreeSet<u64>;

/// First in, first out. Each request gets a ticket when it arrives; a lower ticket is older.
///
/// | queue | holds |
/// |---|---|
/// | shared | requests that any worker may serve |
/// | pinned, one per slot | requests that only this slot's worker may serve |
///
/// A worker takes the older of the first shared and its first pinned request. So it serves in order of arrival, and requests
/// for other workers are not in its way. When a session gets an owner, or loses it, its requests change queues and keep
/// their tickets. A request may leave from any position (abandoned, timed out): all indexes are trees or maps, every
/// operation is O(log n), and nothing stale stays behind.
pub(super) struct Queue<T> {
    next_ticket: u64,
    requests: BTreeMap<u64, QueuedRequest<T>>,
    shared: Tickets,
    /// By slot.
    pinned: Vec<Tickets>,
    of_session: HashMap<SessionId, Tickets>,
    deadlines: BTreeSet<(Instant, u64)>,
    tickets: HashMap<RequestId, u64>,
    /// The bytes of all requests.
    bytes: u64,
}

impl<T> Queue<T> {
    pub(super) fn new(size: u32) -> Self {
        Self {
            next_ticket: 0,
            requests: BTreeMap::new(),
            shared: Tickets::new(),
            pinned: (0..size).map(|_| Tickets::new()).collect(),
            of_session: HashMap::new(),
            deadlines: BTreeSet::new(),
            tickets: HashMap::new(),
            bytes: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// The bytes of all requests.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many requests are pinned to this slot.
    pub(super) fn pinned_len(&self, slot: u32) -> usize {
        self.pinned[slot as usize].len()
    }

    /// How many requests of this session wait.
    pub(super) fn len_of(&self, session: SessionId) -> usize {
        self.of_session.get(&session).map_or(0, Tickets::len)
    }

    pub(super) fn earliest_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    pub(super) fn push(&mut self, queued: QueuedRequest<T>) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.tickets_of(queued.pinned_to).insert(ticket);
        if let Some(claim) = queued.claim {
            self.of_session.entry(claim.session).or_default().insert(ticket);
        }
        self.deadlines.insert((queued.deadline, ticket));
        let doubled = self.tickets.insert(queued.request, ticket);
        debug_assert!(doubled.is_none(), "{:?} waits already", queued.request);
        self.bytes += queued.bytes;
        self.requests.insert(ticket, queued);
    }

    /// The oldest shared request.
    pub(super) fn first_shared(&self) -> Option<First> {
        self.first(&self.shared)
    }

    /// The oldest request that is pinned to this slot.
    pub(super) fn first_pinned(&self, slot: u32) -> Option<First> {
        self.first(&self.pinned[slot as usize])
    }

    fn first(&self, line: &Tickets) -> Option<First> {
        let ticket = *line.first()?;
        let QueuedRequest { claim, exclusive, .. } = self.requests.get(&ticket)?;
        Some(First { ticket, claim: *claim, exclusive: *exclusive })
    }

    /// Removes the oldest request.
    pub(super) fn pop(&mut self) -> Option<QueuedRequest<T>> {
        let ticket = *self.requests.keys().next()?;
        self.remove_ticket(ticket)
    }

    /// Removes the oldest request of the session.
    pub(super) fn pop_of(&mut self, session: SessionId) -> Option<QueuedRequest<T>> {
        let ticket = *self.of_session.get(&session)?.first()?;
        self.remove_ticket(ticket)
    }

    /// Removes the request with the earliest deadline, if that has come.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<QueuedRequest<T>> {
        let (_, ticket) = *self.deadlines.first().filter(|(deadline, _)| *deadline <= now)?;
        self.remove_ticket(ticket)
    }

    /// Removes this request; `None` when it does not wait.
    pub(super) fn remove(&mut self, request: RequestId) -> Option<QueuedRequest<T>> {
        let ticket = *self.tickets.get(&request)?;
        self.remove_ticket(ticket)
    }

    /// The session has an owner now: its strict requests are pinned to that slot.
    pub(super) fn bind(&mut self, session: SessionId, slot: u32) {
        for ticket in self.of_session.get(&session).cloned().unwrap_or_default() {
            let is_strict = |queued: &QueuedRequest<T>| queued.claim.is_some_and(|claim| claim.strict);
            if self.requests.get(&ticket).is_some_and(is_strict) {
                self.move_to(ticket, Some(slot));
            }
        }
    }

    /// The session has no owner any more and begins again: any worker may serve its requests.
    pub(super) fn unbind(&mut self, session: SessionId) {
        for ticket in self.of_session.get(&session).cloned().unwrap_or_default() {
            self.move_to(ticket, None);
        }
    }

    /// The session is over. Its requests begin the session `next`: any worker may serve them.
    pub(super) fn begin_anew(&mut self, session: SessionId, next: SessionId) {
        let Some(tickets) = self.of_session.remove(&session) else { return };
        for ticket in &tickets {
            self.move_to(*ticket, None);
            if let Some(claim) = self.requests.get_mut(ticket).and_then(|queued| queued.claim.as_mut()) {
                claim.session = next;
            }
        }
        self.of_session.insert(next, tickets);
    }

    fn move_to(&mut self, ticket: u64, pinned_to: Option<u32>) {
        let Some(queued) = self.requests.get_mut(&ticket) else { return };
        let before = std::mem::replace(&mut queued.pinned_to, pinned_to);
        self.tickets_of(before).remove(&ticket);
        self.tickets_of(pinned_to).insert(ticket);
    }

    fn tickets_of(&mut self, pinned_to: Option<u32>) -> &mut Tickets {
        match pinned_to {
            Some(slot) => &mut self.pinned[slot as usize],
            None => &mut self.shared,
        }
    }

    /// The only way out of the queue, so that no index keeps a stale ticket.
    pub(super) fn remove_ticket(&mut self, ticket: u64) -> Option<QueuedRequest<T>> {
        let queued = self.requests.remove(&ticket)?;
        self.bytes -= queued.bytes;
        self.tickets_of(queued.pinned_to).remove(&ticket);
        if let Some(Claim { session, .. }) = queued.claim
            && let Some(line) = self.of_session.get_mut(&session)
        {
            line.remove(&ticket);
            if line.is_empty() {
                self.of_session.remove(&session);
            }
        }
        self.deadlines.remove(&(queued.deadline, ticket));
        self.tickets.remove(&queued.request);
        Some(queued)
    }

    /// Whether all indexes hold the same requests.
    #[cfg(test)]
    pub(super) fn is_consistent(&self) -> bool {
        let in_lines = self.shared.len() + self.pinned.iter().map(Tickets::len).sum::<usize>();
        let with_claim = self.requests.values().filter(|queued| queued.claim.is_some()).count();
        let of_session: usize = self.of_session.values().map(Tickets::len).sum();
        [in_lines, self.deadlines.len(), self.tickets.len()] == [self.len(); 3]
            && self.bytes == self.requests.values().map(|queued| queued.bytes).sum::<u64>()
            && of_session == with_claim
            && !self.of_session.values().any(Tickets::is_empty)
    }
}
