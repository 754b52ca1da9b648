//! What the core was told, written down as plainly as possible.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Instant;

use super::super::{Affinity, Config, Event, RequestId, SessionUse, WorkerId};
use super::sessions::Sessions;
use super::world::Heard;

/// What a request carries. Not `Clone`, so it cannot be doubled; the model sees when it is dropped.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) request: RequestId,
    _alive: Rc<()>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Told {
    Starting,
    Idle,
    Busy,
    Down,
    Failed,
}

#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub(super) told: Told,
    pub(super) newest: u64,
    freed_early: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Startup {
    Succeeded,
    Failed(WorkerId),
    Aborted,
}

pub(super) struct Waiting {
    pub(super) request: RequestId,
    pub(super) deadline: Instant,
    pub(super) session: Option<SessionUse>,
}

impl Waiting {
    pub(super) fn is_of(&self, session: &str) -> bool {
        self.session.as_ref().is_some_and(|it| *it.session == *session)
    }
}

/// What must become of the request that is being submitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Outcome {
    Accepted,
    TimedOut,
    Overloaded,
    Unavailable,
    Draining,
    SessionLost,
    SessionBusy,
}

pub(super) struct Model {
    pub(super) config: Config,
    pub(super) slots: Vec<Slot>,
    /// Idle slots, the most recently used one last.
    pub(super) idle: Vec<u32>,
    /// Those who wait, in order of arrival.
    pub(super) waiting: Vec<Waiting>,
    pub(super) sessions: Sessions,
    /// The items of those who wait, and of the session that is being ended.
    pub(super) items: BTreeMap<RequestId, Weak<()>>,
    starting_up: bool,
    pub(super) due: Option<Startup>,
    pub(super) closed: bool,
    pub(super) last_failure: Option<WorkerId>,
    /// The request that is being submitted.
    pub(super) newcomer: Option<(RequestId, Outcome)>,
    pub(super) submitted: u64,
    pub(super) ended: u64,
    /// The kinds of things that happened, to show that the histories reach them all.
    pub(super) seen: BTreeSet<&'static str>,
}

impl Model {
    pub(super) fn new(config: Config, starting_up: bool) -> Self {
        let fresh = Slot { told: Told::Starting, newest: 0, freed_early: 0 };
        let at_once = starting_up && config.min_ready == 0;
        Self {
            config,
            slots: vec![fresh; config.size as usize],
            idle: Vec::new(),
            waiting: Vec::new(),
            sessions: Sessions::default(),
            items: BTreeMap::new(),
            starting_up: starting_up && !at_once,
            due: at_once.then_some(Startup::Succeeded),
            closed: false,
            last_failure: None,
            newcomer: None,
            submitted: 0,
            ended: 0,
            seen: BTreeSet::new(),
        }
    }

    pub(super) fn item(&mut self, request: RequestId) -> Item {
        let alive = Rc::new(());
        self.items.insert(request, Rc::downgrade(&alive));
        Item { request, _alive: alive }
    }

    /// Takes note of an event that the core was told.
    pub(super) fn hear(&mut self, now: Instant, event: Heard) {
        match event {
            Event::Submitted { request, deadline, session, .. } => {
                self.submitted += 1;
                let outcome = self.outcome(now, deadline, session.as_ref());
                self.waiting.push(Waiting { request, deadline, session });
                self.newcomer = Some((request, outcome));
            }
            Event::Abandoned { request } => {
                if let Some(at) = self.waiting.iter().position(|it| it.request == request) {
                    self.leaves(now, at);
                    self.ended += 1;
                    self.seen.insert("abandoned");
                }
            }
            Event::EndSession { session, .. } => self.hear_end_of(&session),
            Event::WorkerReady { worker, busy, sessions } => self.hear_ready(now, worker, busy, sessions),
            Event::WorkerFreed { worker } => self.hear_freed(now, worker),
            Event::WorkerExited { worker, .. } => self.hear_end(now, worker, Told::Down),
            Event::StartFailed { slot, incarnation, .. } => {
                self.hear_end(now, WorkerId { slot, incarnation }, Told::Failed);
            }
            Event::Closed => {
                self.closed = true;
                self.startup_ends(Startup::Aborted);
            }
            Event::Tick => {}
        }
    }

    /// What must become of a new request, and what that does to its session and others.
    fn outcome(&mut self, now: Instant, deadline: Instant, session: Option<&SessionUse>) -> Outcome {
        if self.closed {
            return Outcome::Draining;
        } else if deadline <= now {
            return Outcome::TimedOut;
        } else if self.all_failed() {
            return Outcome::Unavailable;
        } else if let Some(refused) = session.and_then(|it| self.refused_for_its_session(it)) {
            return refused;
        }
        let may_run = self.idle.iter().any(|slot| self.may_run(session, *slot));
        if !may_run && self.waiting.len() >= self.config.queue_bound {
            return Outcome::Overloaded;
        }
        if let Some(session) = session {
            self.enters(&session.session);
        }
        Outcome::Accepted
    }

    pub(super) fn may_run(&self, session: Option<&SessionUse>, slot: u32) -> bool {
        session.is_none_or(|it| {
            it.affinity == Affinity::Hint || self.home_of(&it.session).is_none_or(|home| home == slot)
        })
    }

    /// A waiter is no more, in whatever way but by an assignment.
    pub(super) fn leaves(&mut self, now: Instant, at: usize) -> Waiting {
        let waiter = self.waiting.remove(at);
        if let Some(SessionUse { session, .. }) = &waiter.session {
            self.rests(now, session);
        }
        waiter
    }

    pub(super) fn is_alive(&self, worker: WorkerId) -> bool {
        let it = self.slots[worker.slot as usize];
        it.newest == worker.incarnation && matches!(it.told, Told::Idle | Told::Busy)
    }

    pub(super) fn newest(&self, slot: u32) -> WorkerId {
        WorkerId { slot, incarnation: self.slots[slot as usize].newest }
    }

    fn hear_ready(&mut self, now: Instant, worker: WorkerId, busy: bool, sessions: Vec<Arc<str>>) {
        let Some(it) = self.slots.get_mut(worker.slot as usize) else { return };
        if worker.incarnation <= it.newest {
            self.seen.insert("stale ready");
            return;
        }
        if matches!(it.told, Told::Idle | Told::Busy) {
            self.seen.insert("replaced");
        }
        it.newest = worker.incarnation;
        let freed_early = it.freed_early == worker.incarnation;
        it.told = if busy && !freed_early { Told::Busy } else { Told::Idle };
        self.idle.retain(|slot| *slot != worker.slot);
        if it.told == Told::Idle {
            self.idle.insert(0, worker.slot);
        }
        match (busy, freed_early) {
            (true, true) => self.seen.insert("freed early"),
            (true, false) => self.seen.insert("adopted"),
            (false, _) => self.seen.insert("ready"),
        };
        if self.count(Told::Idle) + self.count(Told::Busy) >= self.config.min_ready {
            self.startup_ends(Startup::Succeeded);
        }
        self.worker_gone(now, worker.slot);
        let (known, new): (Vec<_>, Vec<_>) = sessions.into_iter().partition(|it| self.knows(it));
        for session in known.into_iter().chain(new) {
            self.adopts(now, worker, session);
        }
    }

    fn hear_freed(&mut self, now: Instant, worker: WorkerId) {
        let Some(it) = self.slots.get_mut(worker.slot as usize) else { return };
        if it.newest == worker.incarnation && it.told == Told::Busy {
            it.told = Told::Idle;
            self.idle.push(worker.slot);
            self.finishes(now, worker.slot);
        } else if it.newest < worker.incarnation {
            it.freed_early = worker.incarnation;
        } else {
            self.seen.insert("stale freed");
        }
    }

    fn hear_end(&mut self, now: Instant, worker: WorkerId, end: Told) {
        let Some(it) = self.slots.get_mut(worker.slot as usize) else { return };
        let alive = it.newest == worker.incarnation && matches!(it.told, Told::Idle | Told::Busy);
        if it.newest < worker.incarnation || (end == Told::Down && alive) {
            it.newest = worker.incarnation;
            it.told = end;
            self.idle.retain(|slot| *slot != worker.slot);
            if end == Told::Failed {
                self.last_failure = Some(worker);
            }
            self.startup_ends(Startup::Failed(worker));
            self.worker_gone(now, worker.slot);
        } else {
            self.seen.insert("stale end");
        }
    }

    fn startup_ends(&mut self, how: Startup) {
        if std::mem::take(&mut self.starting_up) {
            self.due = Some(how);
        }
    }

    pub(super) fn count(&self, told: Told) -> u32 {
        self.slots.iter().map(|slot| u32::from(slot.told == told)).sum()
    }

    pub(super) fn all_failed(&self) -> bool {
        self.count(Told::Failed) == self.config.size
    }
}
