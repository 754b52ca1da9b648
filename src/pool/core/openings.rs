//! The workers that have a free place, and who of them takes the next request.

use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Where a worker stands among the others: the least loaded first, among equals the one used last.
///
/// The most recently used worker goes first: its caches, its interpreter's memory and the CPU's view of both are warm,
/// and under light load the others stay untouched, which shows how many workers are really needed. A worker that has
/// not served yet therefore comes last.
type Rank = (u32, Reverse<i64>, u32);

#[derive(Clone, Copy, Default)]
struct Entry {
    /// When the worker was used last, as a number that grows.
    turn: i64,
    /// What it serves; `None`: it has no free place.
    load: Option<u32>,
    /// The first ticket of its own line, if it has a free place.
    own: Option<u64>,
    /// Its rank, while it is open.
    rank: Option<Rank>,
}

/// All workers with a free place.
///
/// One is open if whoever is first in the common line comes before whoever is first in its own. One that is not owes
/// its places to its own line, whose first wants it alone: it empties, and takes nobody from the common line meanwhile.
pub(super) struct Openings {
    entries: Vec<Entry>,
    /// The open ones, but for `first`.
    open: BTreeSet<Rank>,
    /// One that ranks before all in `open`. Most workers come and go here, and the tree is left alone.
    first: Option<Rank>,
    /// Those with a free place that have an own line, by its first ticket: open or not.
    with_line: BTreeSet<(u64, u32)>,
    /// The first ticket of the common line; when it is empty, one beyond all.
    common: u64,
    last_turn: i64,
    first_turn: i64,
}

impl Openings {
    pub(super) fn new(size: u32) -> Self {
        Self {
            entries: vec![Entry::default(); size as usize],
            open: BTreeSet::new(),
            first: None,
            with_line: BTreeSet::new(),
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

    /// `load`: what the slot's worker serves, if it has a free place. `own`: the first ticket of its own line.
    pub(super) fn update(&mut self, slot: u32, load: Option<u32>, own: Option<u64>) {
        let own = load.and(own);
        let entry = &mut self.entries[slot as usize];
        entry.load = load;
        let before = std::mem::replace(&mut entry.own, own);
        if before != own {
            before.map(|ticket| self.with_line.remove(&(ticket, slot)));
            self.with_line.extend(own.map(|ticket| (ticket, slot)));
        }
        self.rank(slot);
    }

    /// The common line begins with this ticket now. Whose own line comes first from now on is added to `owing`: it may
    /// serve it.
    pub(super) fn common_line_begins_with(&mut self, ticket: Option<u64>, owing: &mut Vec<u32>) {
        let ticket = ticket.unwrap_or(u64::MAX);
        let before = std::mem::replace(&mut self.common, ticket);
        if before == ticket || self.with_line.is_empty() {
            return;
        }
        let passed = (before.min(ticket), 0)..(before.max(ticket), 0);
        let passed: Vec<u32> = self.with_line.range(passed).map(|(_, slot)| *slot).collect();
        for slot in passed {
            self.rank(slot);
            if before < ticket {
                owing.push(slot);
            }
        }
    }

    /// The open worker to be used next; `alone`: only one that serves nothing.
    pub(super) fn next(&self, alone: bool) -> Option<u32> {
        let (load, _, slot) = self.first.or_else(|| self.open.first().copied())?;
        (!alone || load == 0).then_some(slot)
    }

    /// Whether the slot's worker is open; `alone`: and serves nothing.
    pub(super) fn is_open(&self, slot: u32, alone: bool) -> bool {
        self.entries[slot as usize].rank.is_some_and(|(load, ..)| !alone || load == 0)
    }

    fn rank(&mut self, slot: u32) {
        let entry = &mut self.entries[slot as usize];
        let is_open = entry.own.is_none_or(|own| self.common < own);
        let rank = entry.load.filter(|_| is_open).map(|load| (load, Reverse(entry.turn), slot));
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
