//! The truth: a supervisor that fills its slots again and again, and workers that serve some requests at a time, or one
//! lease, and keep the state of sessions.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::{Event, WorkerId};
use super::model::Item;
use crate::worker::Load;

/// What a worker or its supervisor reports. The cause of a failure is its incarnation.
#[derive(Clone, Debug)]
pub(super) enum News {
    Ready { worker: WorkerId, load: Load, sessions: Vec<Arc<str>> },
    Freed { worker: WorkerId },
    Leaving { worker: WorkerId },
    Exited { worker: WorkerId },
    StartFailed { worker: WorkerId },
}

impl News {
    pub(super) fn event(self) -> Event<Item, WorkerId> {
        match self {
            Self::Ready { worker, load, sessions } => Event::WorkerReady { worker, load, sessions },
            Self::Freed { worker } => Event::WorkerFreed { worker },
            Self::Leaving { worker } => Event::WorkerLeaving { worker },
            Self::Exited { worker } => Event::WorkerExited { worker, cause: worker },
            Self::StartFailed { worker } => {
                Event::StartFailed { slot: worker.slot, incarnation: worker.incarnation, cause: worker }
            }
        }
    }
}

/// An event without its items: what the model hears of it.
pub(super) type Heard = Event<(), WorkerId>;

pub(super) fn heard(event: &Event<Item, WorkerId>) -> Heard {
    match event {
        Event::Submitted { request, deadline, session, exclusive, .. } => {
            let (request, deadline, session, exclusive) = (*request, *deadline, session.clone(), *exclusive);
            Event::Submitted { request, deadline, item: (), session, exclusive }
        }
        Event::Abandoned { request } => Event::Abandoned { request: *request },
        Event::EndSession { session, .. } => Event::EndSession { session: session.clone(), item: () },
        Event::Unassigned { worker, request } => Event::Unassigned { worker: *worker, request: *request },
        Event::WorkerReady { worker, load, sessions } => {
            Event::WorkerReady { worker: *worker, load: *load, sessions: sessions.clone() }
        }
        Event::WorkerFreed { worker } => Event::WorkerFreed { worker: *worker },
        Event::WorkerLeaving { worker } => Event::WorkerLeaving { worker: *worker },
        Event::WorkerExited { worker, cause } => Event::WorkerExited { worker: *worker, cause: *cause },
        Event::StartFailed { slot, incarnation, cause } => {
            Event::StartFailed { slot: *slot, incarnation: *incarnation, cause: *cause }
        }
        Event::Closed => Event::Closed,
        Event::Tick => Event::Tick,
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Life {
    Absent,
    Starting,
    Alive { load: Load, leaving: bool },
}

fn count(load: Load) -> u32 {
    match load {
        Load::Calls(calls) => calls,
        Load::Lease => 1,
    }
}

struct Slot {
    incarnation: u64,
    life: Life,
    /// The sessions that its worker has state of.
    states: BTreeSet<Arc<str>>,
    /// How much it serves in the eyes of somebody who has heard whatever was delivered.
    told: u32,
}

/// The slots, each with its current incarnation.
pub(super) struct World {
    slots: Vec<Slot>,
    in_flight: u32,
}

impl World {
    pub(super) fn new(size: u32, in_flight: u32) -> Self {
        let fresh = || Slot { incarnation: 0, life: Life::Absent, states: BTreeSet::new(), told: 0 };
        Self { slots: (0..size).map(|_| fresh()).collect(), in_flight }
    }

    fn id(&self, slot: u32) -> WorkerId {
        WorkerId { slot, incarnation: self.slots[slot as usize].incarnation }
    }

    fn slot(&mut self, slot: u32) -> &mut Slot {
        &mut self.slots[slot as usize]
    }

    /// False when the slot has been started already.
    pub(super) fn start(&mut self, slot: u32) -> bool {
        let absent = self.slot(slot).life == Life::Absent;
        self.begin(slot);
        absent
    }

    fn begin(&mut self, slot: u32) {
        let it = self.slot(slot);
        it.incarnation += 1;
        it.states.clear();
        it.told = 0;
        it.life = Life::Starting;
    }

    pub(super) fn start_succeeds(&mut self, slot: u32) -> Option<News> {
        if self.slot(slot).life != Life::Starting {
            return None;
        }
        let load = Load::Calls(0);
        self.slot(slot).life = Life::Alive { load, leaving: false };
        Some(News::Ready { worker: self.id(slot), load, sessions: Vec::new() })
    }

    pub(super) fn start_fails(&mut self, slot: u32) -> Option<News> {
        if self.slot(slot).life != Life::Starting {
            return None;
        }
        let worker = self.id(slot);
        self.begin(slot);
        Some(News::StartFailed { worker })
    }

    pub(super) fn finishes(&mut self, slot: u32) -> Option<News> {
        let Life::Alive { load, .. } = &mut self.slot(slot).life else { return None };
        *load = Load::Calls(count(*load).checked_sub(1)?);
        Some(News::Freed { worker: self.id(slot) })
    }

    pub(super) fn leaves(&mut self, slot: u32) -> Option<News> {
        let Life::Alive { leaving, .. } = &mut self.slot(slot).life else { return None };
        *leaving = true;
        Some(News::Leaving { worker: self.id(slot) })
    }

    pub(super) fn dies(&mut self, slot: u32) -> Option<News> {
        if !matches!(self.slot(slot).life, Life::Alive { .. }) {
            return None;
        }
        let worker = self.id(slot);
        self.begin(slot);
        Some(News::Exited { worker })
    }

    /// A worker takes a request; false when it has no place for it. What a dead worker is given is lost.
    pub(super) fn takes(&mut self, worker: WorkerId, session: Option<&Arc<str>>, exclusive: bool) -> bool {
        if !self.lives(worker) {
            return true;
        }
        let in_flight = self.in_flight;
        let it = self.slot(worker.slot);
        let Life::Alive { load, .. } = &mut it.life else { return false };
        let free = match *load {
            Load::Lease => false,
            Load::Calls(calls) => calls == 0 || (calls < in_flight && !exclusive),
        };
        *load = if exclusive { Load::Lease } else { Load::Calls(count(*load) + 1) };
        it.states.extend(session.cloned());
        it.told += 1;
        free
    }

    /// Whether a letter that says that the worker is free of something may arrive: it does not say so more often than it
    /// is. One that is said to serve nothing may be said so again.
    pub(super) fn may_say_freed(&mut self, worker: WorkerId) -> bool {
        if (worker.slot as usize) >= self.slots.len() || !self.lives(worker) {
            return true;
        }
        let it = self.slot(worker.slot);
        let Life::Alive { load, .. } = it.life else { return true };
        let may = it.told == 0 || it.told > count(load);
        if may {
            it.told = it.told.saturating_sub(1);
        }
        may
    }

    /// A worker is told that a session is over; false when it has no state of it. A dead worker hears nothing.
    pub(super) fn ends(&mut self, worker: WorkerId, session: &str) -> bool {
        !self.lives(worker) || self.slot(worker.slot).states.remove(session)
    }

    /// Whether this worker, and not one that came after it, has state of the session.
    pub(super) fn holds(&self, worker: WorkerId, session: &str) -> bool {
        self.lives(worker) && self.slots[worker.slot as usize].states.contains(session)
    }

    pub(super) fn lives(&self, worker: WorkerId) -> bool {
        self.id(worker.slot) == worker && matches!(self.slots[worker.slot as usize].life, Life::Alive { .. })
    }

    /// The supervisor lost a slot that was starting.
    pub(super) fn forgets(&mut self, slot: u32) {
        if self.slot(slot).life == Life::Starting {
            self.slot(slot).life = Life::Absent;
        }
    }

    /// What the next pool actor finds: the slots that exist, and what the living workers tell it at its attach.
    pub(super) fn attach(&mut self) -> (Vec<u32>, Vec<News>) {
        let (mut existing, mut news) = (Vec::new(), Vec::new());
        for (slot, it) in (0..).zip(&mut self.slots) {
            if it.life != Life::Absent {
                existing.push(slot);
            }
            let Life::Alive { load, leaving } = it.life else { continue };
            it.told = count(load);
            let worker = WorkerId { slot, incarnation: it.incarnation };
            if leaving {
                news.push(News::Leaving { worker });
            }
            news.push(News::Ready { worker, load, sessions: it.states.iter().cloned().collect() });
        }
        (existing, news)
    }
}
