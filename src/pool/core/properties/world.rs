//! The truth: a supervisor that fills its slots again and again, and workers that serve some requests at a time, or one
//! lease, and keep the state of sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::{Event, RequestId, WorkerId};
use super::model::Item;
use crate::worker::Load;

/// What a worker or its supervisor reports. The cause of a failure is its incarnation.
#[derive(Clone, Debug)]
pub(super) enum News {
    Ready { worker: WorkerId, load: Load, sessions: Vec<Arc<str>> },
    Freed { worker: WorkerId, request: RequestId },
    Dropped { worker: WorkerId, request: RequestId },
    Leaving { worker: WorkerId },
    Exited { worker: WorkerId },
    StartFailed { worker: WorkerId },
}

impl News {
    pub(super) fn event(self) -> Event<Item, WorkerId> {
        match self {
            Self::Ready { worker, load, sessions } => Event::WorkerReady { worker, load, sessions },
            Self::Freed { worker, request } => Event::WorkerFreed { worker, request },
            Self::Dropped { worker, request } => Event::Unassigned { worker, request },
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
        Event::WorkerFreed { worker, request } => Event::WorkerFreed { worker: *worker, request: *request },
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
    Alive { leaving: bool },
}

struct Slot {
    incarnation: u64,
    life: Life,
    /// What its worker serves.
    serving: Vec<RequestId>,
    /// That is a lease.
    lease: bool,
    /// The sessions that its worker has state of, in the eyes of somebody who has heard whatever was delivered, and how
    /// many calls have made it.
    states: BTreeMap<Arc<str>, u32>,
    /// The session of each request that it was given since it was attached.
    given: BTreeMap<RequestId, Option<Arc<str>>>,
    /// What it served when it was attached, unless its end was delivered.
    of_before: BTreeSet<RequestId>,
    /// Those of the others whose end was delivered.
    told: BTreeSet<RequestId>,
}

impl Slot {
    fn load(&self) -> Load {
        if self.lease { Load::Lease } else { Load::Calls(self.serving.len() as u32) }
    }
}

/// The slots, each with its current incarnation.
pub(super) struct World {
    slots: Vec<Slot>,
    in_flight: u32,
}

impl World {
    pub(super) fn new(size: u32, in_flight: u32) -> Self {
        let fresh = || Slot {
            incarnation: 0,
            life: Life::Absent,
            serving: Vec::new(),
            lease: false,
            states: BTreeMap::new(),
            given: BTreeMap::new(),
            of_before: BTreeSet::new(),
            told: BTreeSet::new(),
        };
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
        it.serving.clear();
        it.lease = false;
        it.states.clear();
        it.given.clear();
        it.of_before.clear();
        it.told.clear();
        it.life = Life::Starting;
    }

    pub(super) fn start_succeeds(&mut self, slot: u32) -> Option<News> {
        if self.slot(slot).life != Life::Starting {
            return None;
        }
        self.slot(slot).life = Life::Alive { leaving: false };
        Some(News::Ready { worker: self.id(slot), load: Load::Calls(0), sessions: Vec::new() })
    }

    pub(super) fn start_fails(&mut self, slot: u32) -> Option<News> {
        if self.slot(slot).life != Life::Starting {
            return None;
        }
        let worker = self.id(slot);
        self.begin(slot);
        Some(News::StartFailed { worker })
    }

    /// Something that it serves is over; `dropped`: before Python had it.
    pub(super) fn finishes(&mut self, slot: u32, which: usize, dropped: bool) -> Option<News> {
        let worker = self.id(slot);
        let it = self.slot(slot);
        let at = which.checked_rem(it.serving.len())?;
        let request = it.serving.remove(at);
        // What is said of a lease is its end, whatever was done with it.
        let lease = std::mem::take(&mut it.lease);
        let dropped = dropped && !lease;
        Some(if dropped { News::Dropped { worker, request } } else { News::Freed { worker, request } })
    }

    pub(super) fn leaves(&mut self, slot: u32) -> Option<News> {
        let Life::Alive { leaving } = &mut self.slot(slot).life else { return None };
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
    pub(super) fn takes(
        &mut self,
        worker: WorkerId,
        request: RequestId,
        session: Option<&Arc<str>>,
        exclusive: bool,
    ) -> bool {
        if !self.lives(worker) {
            return true;
        }
        let in_flight = self.in_flight;
        let it = self.slot(worker.slot);
        let free = match it.load() {
            Load::Lease => false,
            Load::Calls(calls) => calls == 0 || (calls < in_flight && !exclusive),
        };
        it.serving.push(request);
        it.lease = exclusive;
        it.given.insert(request, session.cloned());
        if let Some(session) = session {
            *it.states.entry(session.clone()).or_default() += 1;
        }
        free
    }

    /// Whether a letter that says that the worker is free of this may arrive: as long as it serves something from before
    /// a restart it says so once.
    pub(super) fn may_say_freed(&mut self, worker: WorkerId, request: RequestId) -> bool {
        if (worker.slot as usize) >= self.slots.len() || !self.lives(worker) {
            return true;
        }
        let it = self.slot(worker.slot);
        let given = it.given.contains_key(&request);
        it.of_before.remove(&request) || (given && (it.told.insert(request) || it.of_before.is_empty()))
    }

    /// It was heard that a request came to nothing; whether the worker had been given it.
    pub(super) fn heard_dropped(&mut self, worker: WorkerId, request: RequestId) -> bool {
        if !self.lives(worker) {
            return false;
        }
        let it = self.slot(worker.slot);
        let Some(session) = it.given.get(&request).cloned() else { return false };
        if let Some(session) = session {
            let times = it.states.get_mut(&session).expect("that one has made it");
            *times -= 1;
            if *times == 0 {
                it.states.remove(&session);
            }
        }
        true
    }

    /// A worker is told that a session is over; false when it has no state of it. A dead worker hears nothing.
    pub(super) fn ends(&mut self, worker: WorkerId, session: &str) -> bool {
        if !self.lives(worker) {
            return true;
        }
        let it = self.slot(worker.slot);
        // Those of it that run have no part in one of its name that begins after.
        it.given.values_mut().filter(|of| of.as_deref() == Some(session)).for_each(|of| *of = None);
        it.states.remove(session).is_some()
    }

    /// Whether this worker, and not one that came after it, has state of the session.
    pub(super) fn holds(&self, worker: WorkerId, session: &str) -> bool {
        self.lives(worker) && self.slots[worker.slot as usize].states.contains_key(session)
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
            let Life::Alive { leaving } = it.life else { continue };
            it.given.clear();
            it.of_before = it.serving.iter().copied().collect();
            it.states.values_mut().for_each(|times| *times = 1);
            let worker = WorkerId { slot, incarnation: it.incarnation };
            if leaving {
                news.push(News::Leaving { worker });
            }
            let sessions = it.states.keys().cloned().collect();
            news.push(News::Ready { worker, load: it.load(), sessions });
        }
        (existing, news)
    }
}
