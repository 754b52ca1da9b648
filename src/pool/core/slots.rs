//! Which workers there are and what each one does.

use std::time::{Duration, Instant};

use super::message::WorkerId;
use super::status::SlotStatus;

/// What a slot does. `C` is the cause of a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SlotState<C> {
    /// Its first start has not ended.
    Starting,
    /// Its worker is ready and has nothing to do.
    Idle,
    /// Its worker serves a call or lease. `adopted`: one that an earlier pool actor assigned, so that its beginning is
    /// not known.
    Busy { adopted: bool },
    /// Its worker ended after it had been ready; the restart has not ended.
    Down { cause: C },
    /// Its last start ended before the worker was ready. It stays so while a retry is under way.
    Failed { cause: C },
}

struct Slot<C> {
    /// The newest incarnation heard of; whatever concerns an older one is over.
    newest: Option<u64>,
    /// An incarnation that was freed before it was heard to be ready. The two facts may take different ways (the
    /// answer to an attach, and a message), and a worker whose end of work was missed would be busy for ever.
    freed_early: Option<u64>,
    state: SlotState<C>,
    since: Instant,
}

/// What the news that a worker is free was worth.
pub(super) enum Freed {
    /// It is stale or early: nothing changes now.
    Not,
    /// The worker is idle again; how long it was busy, where its beginning is known.
    Idle(Option<Duration>),
}

/// How many slots are in each state.
#[derive(Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) starting: u32,
    pub(super) idle: u32,
    pub(super) busy: u32,
    pub(super) down: u32,
    pub(super) failed: u32,
}

impl Tally {
    pub(super) fn ready(&self) -> u32 {
        self.idle + self.busy
    }

    fn of<C>(&mut self, state: &SlotState<C>) -> &mut u32 {
        match state {
            SlotState::Starting => &mut self.starting,
            SlotState::Idle => &mut self.idle,
            SlotState::Busy { .. } => &mut self.busy,
            SlotState::Down { .. } => &mut self.down,
            SlotState::Failed { .. } => &mut self.failed,
        }
    }
}

/// All slots of the pool. Its methods say whether an event was news; a stale one changes nothing.
pub(super) struct Slots<C> {
    slots: Vec<Slot<C>>,
    /// The idle slots; the one to hand out next is the last.
    ///
    /// The most recently used worker goes first: its caches, its interpreter's memory and the CPU's view of both are
    /// warm, and under light load the others stay untouched, which shows how many workers are really needed. A worker
    /// that has not served yet therefore goes to the far end.
    idle: Vec<u32>,
    tally: Tally,
}

impl<C> Slots<C> {
    pub(super) fn new(now: Instant, size: u32) -> Self {
        let fresh = || Slot { newest: None, freed_early: None, state: SlotState::Starting, since: now };
        Self {
            slots: (0..size).map(|_| fresh()).collect(),
            idle: Vec::with_capacity(size as usize),
            tally: Tally { starting: size, ..Tally::default() },
        }
    }

    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    pub(super) fn all_failed(&self) -> bool {
        self.tally.failed as usize == self.slots.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = SlotStatus<'_, C>> {
        (0..).zip(&self.slots).map(|(slot, it)| SlotStatus {
            slot,
            incarnation: it.newest,
            state: &it.state,
            since: it.since,
        })
    }

    pub(super) fn ready(&mut self, now: Instant, worker: WorkerId, busy: bool) -> bool {
        let WorkerId { slot, incarnation } = worker;
        let Some(it) = self.begin(slot, incarnation) else { return false };
        if busy && it.freed_early != Some(incarnation) {
            self.change(now, slot, SlotState::Busy { adopted: true });
        } else {
            self.change(now, slot, SlotState::Idle);
            self.idle.insert(0, slot);
        }
        true
    }

    /// An exit that comes before the news that its worker was ready counts as well: that news is stale from then on.
    pub(super) fn exited(&mut self, now: Instant, worker: WorkerId, cause: C) -> bool {
        let WorkerId { slot, incarnation } = worker;
        let news = self.is_alive(worker) || self.begin(slot, incarnation).is_some();
        if news {
            self.change(now, slot, SlotState::Down { cause });
        }
        news
    }

    pub(super) fn start_failed(&mut self, now: Instant, slot: u32, incarnation: u64, cause: C) -> bool {
        let news = self.begin(slot, incarnation).is_some();
        if news {
            self.change(now, slot, SlotState::Failed { cause });
        }
        news
    }

    pub(super) fn freed(&mut self, now: Instant, worker: WorkerId) -> Freed {
        let Some(it) = self.slots.get_mut(worker.slot as usize) else { return Freed::Not };
        if it.newest < Some(worker.incarnation) {
            it.freed_early = it.freed_early.max(Some(worker.incarnation));
            return Freed::Not;
        }
        let SlotState::Busy { adopted } = it.state else { return Freed::Not };
        if it.newest != Some(worker.incarnation) {
            return Freed::Not;
        }
        let ran = now.saturating_duration_since(it.since);
        self.change(now, worker.slot, SlotState::Idle);
        self.idle.push(worker.slot);
        Freed::Idle((!adopted).then_some(ran))
    }

    /// The idle worker to hand out next.
    pub(super) fn next_idle(&self) -> Option<WorkerId> {
        self.newest(*self.idle.last()?)
    }

    /// The slot's worker, if it is idle.
    pub(super) fn idle_at(&self, slot: u32) -> Option<WorkerId> {
        let is_idle = matches!(self.slots[slot as usize].state, SlotState::Idle);
        if is_idle { self.newest(slot) } else { None }
    }

    /// The newest incarnation of one of our slots; it need not be alive.
    pub(super) fn newest(&self, slot: u32) -> Option<WorkerId> {
        let incarnation = self.slots[slot as usize].newest?;
        Some(WorkerId { slot, incarnation })
    }

    /// Marks an idle worker as busy.
    pub(super) fn assigned(&mut self, now: Instant, worker: WorkerId) {
        self.change(now, worker.slot, SlotState::Busy { adopted: false });
    }

    fn is_alive(&self, worker: WorkerId) -> bool {
        self.slots.get(worker.slot as usize).is_some_and(|it| {
            it.newest == Some(worker.incarnation)
                && matches!(it.state, SlotState::Idle | SlotState::Busy { .. })
        })
    }

    /// The slot, moved on to an incarnation not heard of before; `None` when it is an old one or no slot of ours.
    fn begin(&mut self, slot: u32, incarnation: u64) -> Option<&Slot<C>> {
        let it = self.slots.get_mut(slot as usize).filter(|it| it.newest < Some(incarnation))?;
        it.newest = Some(incarnation);
        Some(it)
    }

    /// The one place where a state changes, so that the tally cannot drift. Entering `idle` is the caller's part,
    /// since it knows the end; leaving it is done here.
    fn change(&mut self, now: Instant, slot: u32, state: SlotState<C>) {
        let it = &mut self.slots[slot as usize];
        *self.tally.of(&it.state) -= 1;
        *self.tally.of(&state) += 1;
        let old = std::mem::replace(&mut it.state, state);
        it.since = now;
        if matches!(old, SlotState::Idle) {
            // Most assignments find their slot at once, at the end. A session's own worker and an idle worker's death
            // are searched for, which a pool of a thousand still does faster than a tree would.
            if let Some(at) = self.idle.iter().rposition(|idle| *idle == slot) {
                self.idle.remove(at);
            }
        }
    }
}
