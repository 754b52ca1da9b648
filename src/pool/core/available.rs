//! The workers with free capacity, and which of them takes the next shared request.

use std::cmp::Reverse;
use std::collections::BTreeSet;

/// The order of workers: the least loaded first, among equals the one used last.
///
/// The worker used last has warm caches, and under light load the others stay idle, which shows how many workers are
/// needed. A worker that has not served yet comes last.
type Rank = (u32, Reverse<i64>, u32);

#[derive(Clone, Copy, Default)]
struct Entry {
    /// A number that grows with each use; the higher one was used later.
    turn: i64,
    /// The number of its calls; `None`: it has no free capacity.
    load: Option<u32>,
    /// The ticket of its first pinned request, if it has free capacity.
    own: Option<u64>,
    /// Its rank, while it is available.
    rank: Option<Rank>,
}

/// All workers with free capacity.
///
/// A worker is available to the shared queue unless its first pinned request is older than the first shared one. Such a
/// pinned request is exclusive, and waits until the worker is idle; the worker takes no shared request meanwhile.
pub(super) struct Available {
    entries: Vec<Entry>,
    /// The available workers but for `first`.
    open: BTreeSet<Rank>,
    /// The worker that ranks before all in `open`. Most changes concern it alone, and leave the tree as it is.
    first: Option<Rank>,
    /// The workers with free capacity and pinned requests, by the ticket of the first one.
    with_pinned: BTreeSet<(u64, u32)>,
    /// The ticket of the first shared request; `u64::MAX` when there is none.
    common: u64,
    last_turn: i64,
    first_turn: i64,
}

impl Available {
    pub(super) fn new(size: u32) -> Self {
        Self {
            entries: vec![Entry::default(); size as usize],
            open: BTreeSet::new(),
            first: None,
            with_pinned: BTreeSet::new(),
            common: u64::MAX,
            last_turn: 0,
            first_turn: 0,
        }
    }

    /// The slot's worker is used just now. An [`update`](Self::update) is to follow.
    pub(super) fn used(&mut self, slot: u32) {
        self.last_turn += 1;
        self.entries[slot as usize].turn = self.last_turn;
    }

    /// The slot's worker has never been used. An [`update`](Self::update) is to follow.
    pub(super) fn fresh(&mut self, slot: u32) {
        self.first_turn -= 1;
        self.entries[slot as usize].turn = self.first_turn;
    }

    /// `load`: the calls of the slot's worker, if it has free capacity. `own`: the ticket of its first pinned request.
    pub(super) fn update(&mut self, slot: u32, load: Option<u32>, own: Option<u64>) {
        let own = load.and(own);
        let entry = &mut self.entries[slot as usize];
        entry.load = load;
        let before = std::mem::replace(&mut entry.own, own);
        if before != own {
            before.map(|ticket| self.with_pinned.remove(&(ticket, slot)));
            self.with_pinned.extend(own.map(|ticket| (ticket, slot)));
        }
        self.rank(slot);
    }

    /// The shared queue begins with this ticket now. Slots whose first pinned request is older than it from now on are added to
    /// `dirty`: they may serve that request.
    pub(super) fn shared_queue_begins_with(&mut self, ticket: Option<u64>, dirty: &mut Vec<u32>) {
        let ticket = ticket.unwrap_or(u64::MAX);
        let before = std::mem::replace(&mut self.common, ticket);
        if before == ticket || self.with_pinned.is_empty() {
            return;
        }
        let passed = (before.min(ticket), 0)..(before.max(ticket), 0);
        let passed: Vec<u32> = self.with_pinned.range(passed).map(|(_, slot)| *slot).collect();
        for slot in passed {
            self.rank(slot);
            if before < ticket {
                dirty.push(slot);
            }
        }
    }

    /// The available worker to be used next; `alone`: only an idle one.
    pub(super) fn next(&self, alone: bool) -> Option<u32> {
        let (load, _, slot) = self.first.or_else(|| self.open.first().copied())?;
        (!alone || load == 0).then_some(slot)
    }

    /// Whether the slot's worker is available; `alone`: and idle.
    pub(super) fn is_available(&self, slot: u32, alone: bool) -> bool {
        self.entries[slot as usize].rank.is_some_and(|(load, ..)| !alone || load == 0)
    }

    fn rank(&mut self, slot: u32) {
        let entry = &mut self.entries[slot as usize];
        let is_available = entry.own.is_none_or(|own| self.common < own);
        let rank = entry.load.filter(|_| is_available).map(|load| (load, Reverse(entry.turn), slot));
        let before = std::mem::replace(&mut entry.rank, rank);
        if before == rank {
            return;
        }
        if let Some(before) = before {
            self.remove(before);
        }
        if let Some(rank) = rank {
            self.insert(rank);
        }
    }

    fn remove(&mut self, rank: Rank) {
        if self.first == Some(rank) {
            self.first = None;
        } else {
            self.open.remove(&rank);
        }
    }

    fn insert(&mut self, rank: Rank) {
        let is_first = match self.first {
            Some(first) => rank < first,
            None => self.open.first().is_none_or(|first| rank < *first),
        };
        if is_first {
            self.open.extend(self.first.replace(rank));
        } else {
            self.open.insert(rank);
        }
    }
}
