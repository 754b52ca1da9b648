//! What the core was told, written down as plainly as possible, and what that allows it to say.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::super::{
    Affinity, Command, Config, Core, Event, Rejection, RequestId, SessionEnd, SessionUse, SlotState, WorkerId,
};
use super::sessions::{End, Sessions};
use super::world::{Heard, World};

pub(super) type Verdict = Result<(), TestCaseError>;

/// What a request carries. Not `Clone`, so it cannot be doubled; the model sees when it is dropped.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) request: RequestId,
    _alive: Rc<()>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Told {
    Starting,
    Idle,
    Busy,
    Down,
    Failed,
}

#[derive(Clone, Copy)]
struct Slot {
    told: Told,
    newest: u64,
    freed_early: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Startup {
    Succeeded,
    Failed(WorkerId),
    Aborted,
}

pub(super) struct Waiting {
    pub(super) request: RequestId,
    deadline: Instant,
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
    slots: Vec<Slot>,
    /// Idle slots, the most recently used one last.
    pub(super) idle: Vec<u32>,
    /// Those who wait, in order of arrival.
    pub(super) waiting: Vec<Waiting>,
    pub(super) sessions: Sessions,
    /// The items of those who wait, and of the session that is being ended.
    items: BTreeMap<RequestId, Weak<()>>,
    starting_up: bool,
    due: Option<Startup>,
    closed: bool,
    last_failure: Option<WorkerId>,
    /// The request that is being submitted.
    newcomer: Option<(RequestId, Outcome)>,
    submitted: u64,
    ended: u64,
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
    fn hear(&mut self, now: Instant, event: Heard) {
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
    fn leaves(&mut self, now: Instant, at: usize) -> Waiting {
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
        for session in sessions {
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

    fn count(&self, told: Told) -> u32 {
        self.slots.iter().map(|slot| u32::from(slot.told == told)).sum()
    }

    fn all_failed(&self) -> bool {
        self.count(Told::Failed) == self.config.size
    }

    /// Checks what the core said to the last event. Whatever time has brought comes first.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        event: Heard,
        said: Vec<Command<Item, WorkerId>>,
        world: &mut World,
    ) -> Verdict {
        let waits = |model: &Self, id: RequestId| model.waiting.iter().any(|it| it.request == id);
        let mut startup = None;
        let mut said = said.into_iter().peekable();
        while let Some(command) = said.next_if(|command| match command {
            Command::Reject { request, reason: Rejection::TimedOut, .. } => waits(self, *request),
            Command::EndSession { cause, .. } => *cause == SessionEnd::Expired,
            _ => false,
        }) {
            self.judge_command(now, command, &mut startup, world)?;
        }
        self.marks_expire(now);
        prop_assert!(self.waiting.iter().all(|it| now < it.deadline), "waits past its deadline");
        prop_assert!(self.next_expiry().is_none_or(|expiry| now < expiry), "a session lives on");
        self.hear(now, event);
        for command in said {
            self.judge_command(now, command, &mut startup, world)?;
        }
        self.judge_startup(startup)
    }

    fn judge_command(
        &mut self,
        now: Instant,
        command: Command<Item, WorkerId>,
        startup: &mut Option<Startup>,
        world: &mut World,
    ) -> Verdict {
        let ended = match command {
            Command::StartSlot { slot } => return Err(TestCaseError::fail(format!("start of {slot}"))),
            Command::Assign { worker, request, item, placement } => {
                prop_assert_eq!(item.request, request);
                let session = self.judge_assign(now, worker, request, world)?;
                return self.judge_placement(worker, session, placement, world);
            }
            Command::Reject { request, item, reason } => {
                prop_assert_eq!(item.request, request);
                return self.judge_reject(now, request, reason);
            }
            Command::EndSession { workers, session, cause, item } => {
                let by_user = match item {
                    Some(item) => self.items.remove(&item.request).is_some(),
                    None => false,
                };
                return self.judge_end(now, End { session, cause, workers, by_user }, world);
            }
            Command::StartupSucceeded => Startup::Succeeded,
            Command::StartupFailed { cause } => Startup::Failed(cause),
            Command::StartupAborted => Startup::Aborted,
        };
        prop_assert_eq!(startup.replace(ended), None, "the start-up ended twice");
        Ok(())
    }

    pub(super) fn judge_startup_commands(&mut self, said: &[Command<Item, WorkerId>]) -> Verdict {
        let succeeded = said.iter().any(|command| matches!(command, Command::StartupSucceeded));
        self.judge_startup(succeeded.then_some(Startup::Succeeded))
    }

    fn judge_startup(&mut self, said: Option<Startup>) -> Verdict {
        prop_assert_eq!(said, self.due.take(), "end of the start-up");
        if let Some(how) = said {
            self.seen.insert(match how {
                Startup::Succeeded => "startup succeeded",
                Startup::Failed(_) => "startup failed",
                Startup::Aborted => "startup aborted",
            });
        }
        Ok(())
    }

    fn judge_assign(
        &mut self,
        now: Instant,
        worker: WorkerId,
        request: RequestId,
        world: &mut World,
    ) -> Result<Option<SessionUse>, TestCaseError> {
        let first = self.waiting.iter().position(|it| self.may_run(it.session.as_ref(), worker.slot));
        let Some(at) = first else { return Err(TestCaseError::fail("nobody waits for this one")) };
        let Waiting { request: first, deadline, session } = self.waiting.remove(at);
        prop_assert_eq!(first, request, "overtaken");
        prop_assert!(now < deadline, "assigned at its deadline");
        prop_assert!(!self.closed);
        if let Some((newcomer, outcome)) = self.newcomer
            && newcomer == request
        {
            prop_assert_eq!(outcome, Outcome::Accepted);
        }
        let home = session.as_ref().and_then(|it| self.home_of(&it.session));
        let idle = home.and_then(|home| self.idle.iter().position(|slot| *slot == home));
        let Some(idle) = idle.or(self.idle.len().checked_sub(1)) else {
            return Err(TestCaseError::fail("nobody is idle"));
        };
        let chosen = self.idle.remove(idle);
        prop_assert_eq!(chosen, worker.slot, "neither its own nor the most recently used idle worker");
        prop_assert!(world.takes(worker, session.as_ref().map(|it| &it.session)), "{worker:?} serves two");
        let slot = &mut self.slots[worker.slot as usize];
        prop_assert_eq!((slot.told, slot.newest), (Told::Idle, worker.incarnation));
        slot.told = Told::Busy;
        self.ends(request, "assigned")?;
        Ok(session)
    }

    fn judge_reject(&mut self, now: Instant, request: RequestId, reason: Rejection<WorkerId>) -> Verdict {
        let at = self.waiting.iter().position(|it| it.request == request);
        let Some(at) = at else { return Err(TestCaseError::fail(format!("{request:?} ended twice"))) };
        let outcome = self.newcomer.filter(|(newcomer, _)| *newcomer == request).map(|(_, outcome)| outcome);
        let newcomer = outcome.is_some();
        // One that is refused has never used its session.
        let Waiting { deadline, session, .. } =
            if newcomer { self.waiting.remove(at) } else { self.leaves(now, at) };
        let name = session.map(|it| it.session);
        let (refused, how) = match reason {
            Rejection::TimedOut => {
                prop_assert!(deadline <= now, "timed out early");
                (Outcome::TimedOut, "timed out")
            }
            Rejection::Overloaded { queue_len, retry_after } => {
                prop_assert!(newcomer && retry_after >= Duration::from_secs(1));
                prop_assert_eq!(queue_len, self.waiting.len());
                (Outcome::Overloaded, "overloaded")
            }
            Rejection::Unavailable { cause } => {
                prop_assert!(self.all_failed(), "unavailable with a slot that has not failed");
                prop_assert_eq!(Some(cause), self.last_failure);
                (Outcome::Unavailable, if newcomer { "unavailable" } else { "unavailable after waiting" })
            }
            Rejection::Draining => {
                prop_assert!(self.closed);
                (Outcome::Draining, "draining")
            }
            Rejection::SessionLost { session } => {
                prop_assert_eq!(Some(session), name);
                let told = newcomer || self.sessions.losing.remove(&request);
                prop_assert!(told, "its session is not lost");
                (Outcome::SessionLost, if newcomer { "session lost" } else { "session lost while one waits" })
            }
            Rejection::SessionBusy { session, retry_after } => {
                prop_assert!(newcomer && retry_after >= Duration::from_secs(1));
                prop_assert_eq!(Some(session), name);
                (Outcome::SessionBusy, "session busy")
            }
        };
        prop_assert_eq!(outcome.unwrap_or(refused), refused);
        self.ends(request, how)
    }

    fn ends(&mut self, request: RequestId, how: &'static str) -> Verdict {
        prop_assert!(self.items.remove(&request).is_some(), "{request:?} ended twice");
        self.ended += 1;
        self.seen.insert(how);
        Ok(())
    }

    /// Checks what must hold between any two events.
    pub(super) fn judge_state(&mut self, core: &Core<Item, WorkerId>) -> Verdict {
        if let Some((request, outcome)) = self.newcomer.take()
            && self.waiting.iter().any(|it| it.request == request)
        {
            prop_assert_eq!(outcome, Outcome::Accepted, "it waits");
        }
        for waiter in &self.waiting {
            let served = self.idle.iter().find(|slot| self.may_run(waiter.session.as_ref(), **slot));
            prop_assert_eq!(served, None, "could serve {:?}", waiter.request);
        }
        prop_assert!(self.waiting.is_empty() || !(self.closed || self.all_failed()), "waits in vain");
        prop_assert!(self.waiting.len() <= self.config.queue_bound);
        let deadlines = self.waiting.iter().map(|it| it.deadline).chain(self.next_expiry());
        prop_assert_eq!(core.next_deadline(), deadlines.min());
        for (request, item) in &self.items {
            let waits = self.waiting.iter().any(|it| it.request == *request);
            prop_assert_eq!(item.strong_count() == 1, waits, "item of {:?}", request);
        }
        let waiting = &self.waiting;
        self.items.retain(|request, _| waiting.iter().any(|it| it.request == *request));
        prop_assert_eq!(self.submitted, self.ended + self.waiting.len() as u64);
        self.judge_sessions(&core.counts())?;
        self.judge_counts(core)
    }

    fn judge_counts(&self, core: &Core<Item, WorkerId>) -> Verdict {
        let counts = core.counts();
        prop_assert_eq!(counts.starting, self.count(Told::Starting));
        prop_assert_eq!(counts.idle, self.count(Told::Idle));
        prop_assert_eq!(counts.busy, self.count(Told::Busy));
        prop_assert_eq!(counts.down, self.count(Told::Down));
        prop_assert_eq!(counts.failed, self.count(Told::Failed));
        prop_assert_eq!(counts.waiting, self.waiting.len());
        let it = counts.totals;
        prop_assert_eq!(it.submitted, self.submitted);
        let refused = it.overloaded + it.timed_out + it.unavailable + it.draining;
        let refused = refused + it.session_lost + it.session_busy;
        prop_assert_eq!(it.assigned + refused + it.abandoned, self.ended);
        for (status, slot) in core.slots().zip(&self.slots) {
            let told = match status.state {
                SlotState::Starting => Told::Starting,
                SlotState::Idle => Told::Idle,
                SlotState::Busy { .. } => Told::Busy,
                SlotState::Down { .. } => Told::Down,
                SlotState::Failed { .. } => Told::Failed,
            };
            prop_assert_eq!((told, status.incarnation.unwrap_or(0)), (slot.told, slot.newest));
        }
        Ok(())
    }
}
