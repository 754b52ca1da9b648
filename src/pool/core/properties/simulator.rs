//! The truth: a supervisor that fills its slots again and again, and workers that serve some requests at a time, or one
//! lease, and keep the state of sessions.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::{Event, RequestId, WorkerId};
use super::model::{Item, nobody};
use crate::worker::Load;

/// What a worker or its supervisor reports. The cause of a failure is its incarnation.
#[derive(Clone, Debug)]
pub(super) enum News {
    Ready { worker: WorkerId },
    Freed { worker: WorkerId, request: RequestId },
    Dropped { worker: WorkerId, request: RequestId },
    Leaving { worker: WorkerId },
    Exited { worker: WorkerId },
    StartFailed { worker: WorkerId },
}

impl News {
    pub(super) fn event(self) -> Event<Item, WorkerId> {
        match self {
            Self::Ready { worker } => Event::WorkerReady { worker },
            Self::Freed { worker, request } => Event::WorkerFreed { worker, request },
            Self::Dropped { worker, request } => Event::Unassigned { worker, request },
            Self::Leaving { worker } => Event::WorkerLeaving { worker },
            Self::Exited { worker } => Event::WorkerExited { worker, cause: worker },
            Self::StartFailed { worker } => Event::StartFailed { worker, cause: worker },
        }
    }
}

/// An event without its items: what the model hears of it.
pub(super) type Heard = Event<(), WorkerId>;

pub(super) fn heard(event: &Event<Item, WorkerId>) -> Heard {
    match event {
        Event::Submitted { request, deadline, bytes, session, exclusive, .. } => {
            let (request, deadline, session, exclusive) = (*request, *deadline, session.clone(), *exclusive);
            Event::Submitted { request, deadline, item: (), bytes: *bytes, session, exclusive }
        }
        Event::Announced { request, .. } => Event::Announced { request: *request, item: () },
        Event::Abandoned { request } => Event::Abandoned { request: *request },
        Event::LossHeard { request } => Event::LossHeard { request: *request },
        Event::EndSession { session, .. } => Event::EndSession { session: session.clone(), item: () },
        Event::Unassigned { worker, request } => Event::Unassigned { worker: *worker, request: *request },
        Event::WorkerReady { worker } => Event::WorkerReady { worker: *worker },
        Event::WorkerFreed { worker, request } => Event::WorkerFreed { worker: *worker, request: *request },
        Event::WorkerLeaving { worker } => Event::WorkerLeaving { worker: *worker },
        Event::WorkerExited { worker, cause } => Event::WorkerExited { worker: *worker, cause: *cause },
        Event::StartFailed { worker, cause } => Event::StartFailed { worker: *worker, cause: *cause },
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

/// A start of a slot's worker, and whatever came of it.
struct Worker {
    id: WorkerId,
    life: Life,
    /// What it serves.
    serving: Vec<RequestId>,
    /// That is a lease.
    lease: bool,
    /// The sessions that it has state of, in the eyes of somebody who has heard whatever was delivered, and how many
    /// calls have made it.
    states: BTreeMap<Arc<str>, u32>,
    /// The session of each request that it was given.
    given: BTreeMap<RequestId, Option<Arc<str>>>,
}

impl Worker {
    fn new(id: WorkerId, life: Life) -> Self {
        Self { id, life, serving: Vec::new(), lease: false, states: BTreeMap::new(), given: BTreeMap::new() }
    }

    fn is_alive(&self) -> bool {
        matches!(self.life, Life::Alive { .. })
    }

    fn load(&self) -> Load {
        if self.lease { Load::Lease } else { Load::Calls(self.serving.len() as u32) }
    }

    fn ready(&self) -> News {
        News::Ready { worker: self.id }
    }

    fn finishes(&mut self, which: usize, dropped: bool) -> Option<News> {
        let worker = self.id;
        let at = which.checked_rem(self.serving.len())?;
        let request = self.serving.remove(at);
        // What is said of a lease is its end, whatever was done with it.
        let lease = std::mem::take(&mut self.lease);
        let dropped = dropped && !lease;
        Some(if dropped { News::Dropped { worker, request } } else { News::Freed { worker, request } })
    }
}

struct Slot {
    /// The one that the pool takes for the slot's.
    worker: Worker,
    /// The one that a reload starts beside it.
    successor: Option<WorkerId>,
}

/// The slots, and the workers that were succeeded in them and have not been ended.
pub(super) struct Simulator {
    slots: Vec<Slot>,
    formers: Vec<Worker>,
    /// Of all slots and generations, as one supervisor counts.
    last_incarnation: u64,
    in_flight: u32,
}

impl Simulator {
    pub(super) fn new(size: u32, in_flight: u32) -> Self {
        let fresh = |slot| Slot { worker: Worker::new(nobody(slot), Life::Absent), successor: None };
        let slots = (0..size).map(fresh).collect();
        Self { slots, formers: Vec::new(), last_incarnation: 0, in_flight }
    }

    pub(super) fn id(&self, slot: u32) -> WorkerId {
        self.slots[slot as usize].worker.id
    }

    fn worker(&mut self, slot: u32) -> &mut Worker {
        &mut self.slots[slot as usize].worker
    }

    /// This one, and not one that came after it, if it lives.
    fn living(&self, worker: WorkerId) -> Option<&Worker> {
        let present = self.slots.get(worker.slot as usize).map(|it| &it.worker);
        present.into_iter().chain(&self.formers).find(|it| it.id == worker && it.is_alive())
    }

    fn living_mut(&mut self, worker: WorkerId) -> Option<&mut Worker> {
        let present = self.slots.get_mut(worker.slot as usize).map(|it| &mut it.worker);
        present.into_iter().chain(&mut self.formers).find(|it| it.id == worker && it.is_alive())
    }

    /// False when the slot has been started already.
    pub(super) fn start(&mut self, slot: u32) -> bool {
        let absent = self.worker(slot).life == Life::Absent;
        self.begin(slot);
        absent
    }

    fn next(&mut self, slot: u32, generation: u32) -> WorkerId {
        self.last_incarnation += 1;
        WorkerId { slot, generation, incarnation: self.last_incarnation }
    }

    fn begin(&mut self, slot: u32) {
        let next = self.next(slot, self.id(slot).generation);
        *self.worker(slot) = Worker::new(next, Life::Starting);
    }

    pub(super) fn start_succeeds(&mut self, slot: u32) -> Option<News> {
        let it = self.worker(slot);
        if it.life != Life::Starting {
            return None;
        }
        it.life = Life::Alive { leaving: false };
        Some(it.ready())
    }

    pub(super) fn start_fails(&mut self, slot: u32) -> Option<News> {
        let worker = self.id(slot);
        if self.worker(slot).life != Life::Starting {
            return None;
        }
        self.begin(slot);
        Some(News::StartFailed { worker })
    }

    /// The news that the slot's worker is ready, once more.
    pub(super) fn ready(&self, slot: u32) -> Option<News> {
        let it = &self.slots[slot as usize].worker;
        it.is_alive().then(|| it.ready())
    }

    pub(super) fn reloads(&mut self, slot: u32) {
        if self.worker(slot).life != Life::Absent && self.slots[slot as usize].successor.is_none() {
            let generation = self.id(slot).generation + 1;
            self.slots[slot as usize].successor = Some(self.next(slot, generation));
        }
    }

    pub(super) fn successor_succeeds(&mut self, slot: u32) -> Option<News> {
        let it = &mut self.slots[slot as usize];
        let successor = Worker::new(it.successor.take()?, Life::Alive { leaving: false });
        let news = successor.ready();
        self.formers.push(std::mem::replace(&mut it.worker, successor));
        Some(news)
    }

    pub(super) fn successor_fails(&mut self, slot: u32) {
        self.slots[slot as usize].successor = None;
    }

    /// A former worker starts, ends something that it serves, or ends; its supervisor may start it again.
    pub(super) fn former_goes_on(&mut self, which: usize, dies: bool, again: bool) -> Option<News> {
        let at = which.checked_rem(self.formers.len())?;
        let it = &mut self.formers[at];
        let worker = it.id;
        if it.life == Life::Starting && !dies {
            it.life = Life::Alive { leaving: false };
            return Some(it.ready());
        }
        if !dies && let Some(news) = it.finishes(which, false) {
            return Some(news);
        }
        let ended = self.formers.swap_remove(at);
        if again {
            let next = self.next(worker.slot, worker.generation);
            self.formers.push(Worker::new(next, Life::Starting));
        }
        Some(if ended.is_alive() { News::Exited { worker } } else { News::StartFailed { worker } })
    }

    /// Something that it serves is over; `dropped`: before Python had it.
    pub(super) fn finishes(&mut self, slot: u32, which: usize, dropped: bool) -> Option<News> {
        self.worker(slot).finishes(which, dropped)
    }

    pub(super) fn leaves(&mut self, slot: u32) -> Option<News> {
        let it = self.worker(slot);
        let Life::Alive { leaving } = &mut it.life else { return None };
        *leaving = true;
        Some(News::Leaving { worker: it.id })
    }

    pub(super) fn dies(&mut self, slot: u32) -> Option<News> {
        let worker = self.id(slot);
        if !self.worker(slot).is_alive() {
            return None;
        }
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
        let in_flight = self.in_flight;
        let Some(it) = self.living_mut(worker) else { return true };
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

    /// It was heard that a request came to nothing; whether the worker had been given it.
    pub(super) fn heard_dropped(&mut self, worker: WorkerId, request: RequestId) -> bool {
        let Some(it) = self.living_mut(worker) else { return false };
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
        let Some(it) = self.living_mut(worker) else { return true };
        // Those of it that run have no part in one of its name that begins after.
        it.given.values_mut().filter(|of| of.as_deref() == Some(session)).for_each(|of| *of = None);
        it.states.remove(session).is_some()
    }

    /// Whether this worker, and not one that came after it, has state of the session.
    pub(super) fn holds(&self, worker: WorkerId, session: &str) -> bool {
        self.living(worker).is_some_and(|it| it.states.contains_key(session))
    }
}
