//! The truth: a supervisor that fills its slots again and again, and workers that serve one request at a time and keep
//! the state of sessions.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::{Event, WorkerId};
use super::model::Item;

/// What a worker or its supervisor reports. The cause of a failure is its incarnation.
#[derive(Clone, Debug)]
pub(super) enum News {
    Ready { worker: WorkerId, busy: bool, sessions: Vec<Arc<str>> },
    Freed { worker: WorkerId },
    Exited { worker: WorkerId },
    StartFailed { worker: WorkerId },
}

impl News {
    pub(super) fn event(self) -> Event<Item, WorkerId> {
        match self {
            Self::Ready { worker, busy, sessions } => Event::WorkerReady { worker, busy, sessions },
            Self::Freed { worker } => Event::WorkerFreed { worker },
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
        Event::Submitted { request, deadline, session, .. } => {
            let (request, deadline, session) = (*request, *deadline, session.clone());
            Event::Submitted { request, deadline, item: (), session }
        }
        Event::Abandoned { request } => Event::Abandoned { request: *request },
        Event::EndSession { session, .. } => Event::EndSession { session: session.clone(), item: () },
        Event::WorkerReady { worker, busy, sessions } => {
            Event::WorkerReady { worker: *worker, busy: *busy, sessions: sessions.clone() }
        }
        Event::WorkerFreed { worker } => Event::WorkerFreed { worker: *worker },
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
    Alive { serves: bool },
}

/// The slots, each with its current incarnation.
pub(super) struct World {
    slots: Vec<(u64, Life)>,
    /// The sessions that each slot's worker has state of.
    states: Vec<BTreeSet<Arc<str>>>,
}

impl World {
    pub(super) fn new(size: u32) -> Self {
        let size = size as usize;
        Self { slots: vec![(0, Life::Absent); size], states: vec![BTreeSet::new(); size] }
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
        self.states[slot as usize].clear();
        *self.life(slot) = Life::Starting;
    }

    pub(super) fn start_succeeds(&mut self, slot: u32) -> Option<News> {
        if *self.life(slot) != Life::Starting {
            return None;
        }
        *self.life(slot) = Life::Alive { serves: false };
        Some(News::Ready { worker: self.id(slot), busy: false, sessions: Vec::new() })
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
    pub(super) fn takes(&mut self, worker: WorkerId, session: Option<&Arc<str>>) -> bool {
        let free = !self.serves(worker);
        if self.lives(worker) {
            *self.life(worker.slot) = Life::Alive { serves: true };
            self.states[worker.slot as usize].extend(session.cloned());
        }
        free
    }

    /// A worker is told that a session is over; false when it has no state of it. A dead worker hears nothing.
    pub(super) fn ends(&mut self, worker: WorkerId, session: &str) -> bool {
        !self.lives(worker) || self.states[worker.slot as usize].remove(session)
    }

    /// Whether this worker, and not one that came after it, has state of the session.
    pub(super) fn holds(&self, worker: WorkerId, session: &str) -> bool {
        self.lives(worker) && self.states[worker.slot as usize].contains(session)
    }

    pub(super) fn lives(&self, worker: WorkerId) -> bool {
        self.id(worker.slot) == worker && matches!(self.slots[worker.slot as usize].1, Life::Alive { .. })
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
                let sessions = self.states[slot as usize].iter().cloned().collect();
                Some(News::Ready { worker, busy: serves, sessions })
            }
            Life::Absent | Life::Starting => None,
        });
        (existing, news.collect())
    }
}
