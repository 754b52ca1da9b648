//! What the core was told, written down as plainly as possible.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::test_runner::TestCaseError;

use super::super::{Affinity, Config, Event, RequestId, SessionUse, WorkerId};
use super::sessions::Sessions;
use super::simulator::Heard;
use crate::error::OverloadCause;

/// Whether a check holds.
pub(super) type Verdict = Result<(), TestCaseError>;

/// What a request carries. Not `Clone`, so it cannot be doubled; the model sees when it is dropped.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) request: RequestId,
    _alive: Rc<()>,
}

/// Before the first worker of a slot.
pub(super) fn nobody(slot: u32) -> WorkerId {
    WorkerId { slot, generation: 0, incarnation: 0 }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Told {
    Starting,
    Ready,
    Leaving,
    Down,
    Failed,
}

/// A request that a worker serves, and the session that it is of: its name, and which beginning of it.
pub(super) struct Served {
    pub(super) request: RequestId,
    pub(super) session: Option<(Arc<str>, u64)>,
}

pub(super) struct Slot {
    pub(super) told: Told,
    pub(super) newest: WorkerId,
    /// It serves a lease, and nothing else.
    pub(super) lease: bool,
    /// What it serves, the first assigned first.
    pub(super) serving: Vec<Served>,
    /// When it was used last.
    pub(super) turn: i64,
}

impl Slot {
    pub(super) fn load(&self) -> usize {
        self.serving.len()
    }

    pub(super) fn is_alive(&self) -> bool {
        matches!(self.told, Told::Ready | Told::Leaving)
    }
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
    pub(super) bytes: u64,
    pub(super) session: Option<SessionUse>,
    pub(super) exclusive: bool,
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
    Overloaded(OverloadCause),
    Unavailable,
    Draining,
    SessionLost,
    SessionBusy,
}

pub(super) struct Model {
    pub(super) config: Config,
    pub(super) slots: Vec<Slot>,
    pub(super) last_turn: i64,
    pub(super) first_turn: i64,
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
    /// The request whose caller has gone when it is assigned by this event.
    pub(super) unseen: Option<RequestId>,
    pub(super) submitted: u64,
    pub(super) ended: u64,
    pub(super) abandoned: u64,
    /// The kinds of things that happened, to show that the histories reach them all.
    pub(super) seen: BTreeSet<&'static str>,
}

impl Model {
    pub(super) fn new(config: Config) -> Self {
        let fresh = |slot| Slot {
            told: Told::Starting,
            newest: nobody(slot),
            lease: false,
            serving: Vec::new(),
            turn: 0,
        };
        let at_once = config.min_ready == 0;
        Self {
            config,
            slots: (0..config.size).map(fresh).collect(),
            last_turn: 0,
            first_turn: 0,
            waiting: Vec::new(),
            sessions: Sessions::default(),
            items: BTreeMap::new(),
            starting_up: !at_once,
            due: at_once.then_some(Startup::Succeeded),
            closed: false,
            last_failure: None,
            newcomer: None,
            unseen: None,
            submitted: 0,
            ended: 0,
            abandoned: 0,
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
            Event::Submitted { request, deadline, bytes, session, exclusive, .. } => {
                self.comes(now, Waiting { request, deadline, bytes, session, exclusive });
            }
            // Like any request, until it is admitted.
            Event::Announced { request, .. } => {
                let deadline = now + Duration::from_secs(1);
                self.comes(now, Waiting { request, deadline, bytes: 0, session: None, exclusive: false });
            }
            Event::Abandoned { request } => {
                if let Some(at) = self.waiting.iter().position(|it| it.request == request) {
                    self.leaves(now, at);
                    self.ended += 1;
                    self.abandoned += 1;
                    self.seen.insert("abandoned");
                }
                self.loss_not_heard(request);
            }
            Event::LossHeard { request } => self.loss_heard(request),
            Event::Unassigned { worker, request } => self.hear_unassigned(now, worker, request),
            Event::EndSession { session, .. } => self.hear_end_of(&session),
            Event::WorkerReady { worker } => self.hear_ready(now, worker),
            Event::WorkerFreed { worker, request } => self.hear_freed(now, worker, request),
            Event::WorkerLeaving { worker } => self.hear_leaving(worker),
            Event::WorkerExited { worker, .. } => self.hear_end(now, worker, Told::Down),
            Event::StartFailed { worker, .. } => self.hear_end(now, worker, Told::Failed),
            Event::Closed => {
                self.closed = true;
                self.startup_ends(Startup::Aborted);
            }
            Event::Tick => {}
        }
    }

    fn comes(&mut self, now: Instant, newcomer: Waiting) {
        self.submitted += 1;
        self.newcomer = Some((newcomer.request, self.outcome(now, &newcomer)));
        self.waiting.push(newcomer);
    }

    pub(super) fn waiting_bytes(&self) -> u64 {
        self.waiting.iter().map(|it| it.bytes).sum()
    }

    /// The bound of the queue that is reached, if one is.
    pub(super) fn full(&self) -> Option<OverloadCause> {
        if self.waiting.len() >= self.config.queue_bound {
            return Some(OverloadCause::QueueBound);
        }
        (self.waiting_bytes() >= self.config.queue_bytes).then_some(OverloadCause::QueueBytes)
    }

    /// What must become of a new request, and what that does to its session and others.
    fn outcome(&mut self, now: Instant, newcomer: &Waiting) -> Outcome {
        let Waiting { request, deadline, ref session, exclusive, .. } = *newcomer;
        let session = session.as_ref();
        let served = self.servers(self.waiting.len(), session, exclusive).next().is_some();
        if self.closed {
            return Outcome::Draining;
        } else if deadline <= now {
            return Outcome::TimedOut;
        } else if self.all_failed() {
            return Outcome::Unavailable;
        } else if let Some(refused) = session.and_then(|it| self.refused_for_its_session(request, it, served))
        {
            return refused;
        }
        if let Some(cause) = self.full().filter(|_| !served) {
            return Outcome::Overloaded(cause);
        }
        if let Some(session) = session {
            self.enters(&session.session);
        }
        Outcome::Accepted
    }

    pub(super) fn may_run(&self, session: Option<&SessionUse>, slot: u32) -> bool {
        session.is_none_or(|it| {
            it.affinity == Affinity::Hint || self.home_of(&it.session).is_none_or(|owner| owner == slot)
        })
    }

    /// The slots whose worker can serve, just now, such a request behind the first so many of those who wait.
    pub(super) fn servers(
        &self,
        behind: usize,
        session: Option<&SessionUse>,
        exclusive: bool,
    ) -> impl Iterator<Item = u32> {
        let session = session.cloned();
        (0..self.config.size).filter(move |slot| {
            let overtakes = |it: &Waiting| self.may_run(it.session.as_ref(), *slot);
            self.has_place(*slot, exclusive)
                && self.may_run(session.as_ref(), *slot)
                && !self.waiting[..behind].iter().any(overtakes)
        })
    }

    /// Those who can serve one who waits.
    pub(super) fn servers_of(&self, at: usize) -> impl Iterator<Item = u32> {
        let Waiting { session, exclusive, .. } = &self.waiting[at];
        self.servers(at, session.as_ref(), *exclusive)
    }

    pub(super) fn has_place(&self, slot: u32, exclusive: bool) -> bool {
        let it = &self.slots[slot as usize];
        let most = if exclusive { 1 } else { self.config.in_flight as usize };
        it.told == Told::Ready && !it.lease && it.load() < most
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
        let it = &self.slots[worker.slot as usize];
        it.newest == worker && it.is_alive()
    }

    pub(super) fn newest(&self, slot: u32) -> WorkerId {
        self.slots[slot as usize].newest
    }

    pub(super) fn startup_ends(&mut self, how: Startup) {
        if std::mem::take(&mut self.starting_up) {
            self.due = Some(how);
        }
    }

    pub(super) fn count(&self, is: impl Fn(&Slot) -> bool) -> u32 {
        self.slots.iter().map(|slot| u32::from(is(slot))).sum()
    }

    pub(super) fn all_failed(&self) -> bool {
        self.count(|it| it.told == Told::Failed) == self.config.size
    }
}
