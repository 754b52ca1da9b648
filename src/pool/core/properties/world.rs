//! The truth: a supervisor that fills its slots again and again, and workers that serve one request at a time.

use super::super::{Event, WorkerId};
use super::model::Item;

/// What a worker or its supervisor reports. The cause of a failure is its incarnation.
#[derive(Clone, Copy, Debug)]
pub(super) enum News {
    Ready { worker: WorkerId, busy: bool },
    Freed { worker: WorkerId },
    Exited { worker: WorkerId },
    StartFailed { worker: WorkerId },
}

impl News {
    pub(super) fn event(self) -> Event<Item, WorkerId> {
        match self {
            Self::Ready { worker, busy } => Event::WorkerReady { worker, busy, sessions: Vec::new() },
            Self::Freed { worker } => Event::WorkerFreed { worker },
            Self::Exited { worker } => Event::WorkerExited { worker, cause: worker },
            Self::StartFailed { worker } => {
                Event::StartFailed { slot: worker.slot, incarnation: worker.incarnation, cause: worker }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Life {
    Absent,
    Starting,
    Alive { serves: bool },
}

/// The slots, each with its current incarnation.
pub(super) struct World {
    slots: Vec<(u64, Life)>,
}

impl World {
    pub(super) fn new(size: u32) -> Self {
        Self { slots: vec![(0, Life::Absent); size as usize] }
    }

    fn id(&self, slot: u32) -> WorkerId {
        WorkerId { slot, incarnation: self.slots[slot as usize].0 }
    }

    fn life(&mut self, slot: u32) -> &mut Life {
        &mut self.slots[slot as usize].1
    }

    /// False when the slot has been started already.
    pub(super) fn start(&mut self, slot: u32) -> bool {
        let absent = *self.life(slot) == Life::Absent;
        self.begin(slot);
        absent
    }

    fn begin(&mut self, slot: u32) {
        self.slots[slot as usize].0 += 1;
        *self.life(slot) = Life::Starting;
    }

    pub(super) fn start_succeeds(&mut self, slot: u32) -> Option<News> {
        if *self.life(slot) != Life::Starting {
            return None;
        }
        *self.life(slot) = Life::Alive { serves: false };
        Some(News::Ready { worker: self.id(slot), busy: false })
    }

    pub(super) fn start_fails(&mut self, slot: u32) -> Option<News> {
        if *self.life(slot) != Life::Starting {
            return None;
        }
        let worker = self.id(slot);
        self.begin(slot);
        Some(News::StartFailed { worker })
    }

    pub(super) fn finishes(&mut self, slot: u32) -> Option<News> {
        if *self.life(slot) != (Life::Alive { serves: true }) {
            return None;
        }
        *self.life(slot) = Life::Alive { serves: false };
        Some(News::Freed { worker: self.id(slot) })
    }

    pub(super) fn dies(&mut self, slot: u32) -> Option<News> {
        if !matches!(self.life(slot), Life::Alive { .. }) {
            return None;
        }
        let worker = self.id(slot);
        self.begin(slot);
        Some(News::Exited { worker })
    }

    /// A worker takes a request; false when it serves another one. What a dead worker is given is lost.
    pub(super) fn takes(&mut self, worker: WorkerId) -> bool {
        let free = !self.serves(worker);
        if self.id(worker.slot) == worker
            && let Life::Alive { serves } = self.life(worker.slot)
        {
            *serves = true;
        }
        free
    }

    pub(super) fn serves(&mut self, worker: WorkerId) -> bool {
        (worker.slot as usize) < self.slots.len()
            && self.id(worker.slot) == worker
            && *self.life(worker.slot) == (Life::Alive { serves: true })
    }

    /// The supervisor lost a slot that was starting.
    pub(super) fn forgets(&mut self, slot: u32) {
        if *self.life(slot) == Life::Starting {
            *self.life(slot) = Life::Absent;
        }
    }

    /// What the next pool actor finds: the slots that exist, and what the living workers answer to its attach.
    pub(super) fn attach(&self) -> (Vec<u32>, Vec<News>) {
        let slots = || (0..).zip(&self.slots);
        let existing = slots().filter(|(_, (_, life))| *life != Life::Absent).map(|(slot, _)| slot).collect();
        let news = slots().filter_map(|(slot, (incarnation, life))| match *life {
            Life::Alive { serves } => {
                let worker = WorkerId { slot, incarnation: *incarnation };
                Some(News::Ready { worker, busy: serves })
            }
            Life::Absent | Life::Starting => None,
        });
        (existing, news.collect())
    }
}
