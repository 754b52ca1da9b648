//! What the core was told, written down as plainly as possible, and what that allows it to say.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::super::{Command, Config, Core, Event, Rejection, RequestId, SlotState, WorkerId};
use super::world::World;

pub(super) type Verdict = Result<(), TestCaseError>;

/// What a request carries. Not `Clone`, so it cannot be doubled; the model sees when it is dropped.
#[derive(Debug)]
pub(super) struct Item {
    request: RequestId,
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

pub(super) struct Model {
    config: Config,
    slots: Vec<Slot>,
    /// Idle slots, the most recently used one last.
    idle: Vec<u32>,
    waiting: Vec<(RequestId, Instant)>,
    /// The items of those who wait.
    items: BTreeMap<RequestId, Weak<()>>,
    starting_up: bool,
    due: Option<Startup>,
    closed: bool,
    last_failure: Option<WorkerId>,
    /// The request that is being submitted.
    newcomer: Option<RequestId>,
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

    pub(super) fn submit(&mut self, request: RequestId, deadline: Instant) -> Event<Item, WorkerId> {
        let alive = Rc::new(());
        self.items.insert(request, Rc::downgrade(&alive));
        self.waiting.push((request, deadline));
        self.newcomer = Some(request);
        self.submitted += 1;
        Event::Submitted { request, deadline, item: Item { request, _alive: alive }, session: None }
    }

    /// Takes note of an event that the core is about to be told.
    pub(super) fn hear(&mut self, now: Instant, event: &Event<Item, WorkerId>) {
        match *event {
            Event::Abandoned { request } => self.abandon(now, request),
            Event::WorkerReady { worker, busy, .. } => self.hear_ready(worker, busy),
            Event::WorkerFreed { worker } => self.hear_freed(worker),
            Event::WorkerExited { worker, .. } => self.hear_end(worker, Told::Down),
            Event::StartFailed { slot, incarnation, .. } => {
                self.hear_end(WorkerId { slot, incarnation }, Told::Failed);
            }
            Event::Closed => {
                self.closed = true;
                self.startup_ends(Startup::Aborted);
            }
            Event::Submitted { .. } | Event::EndSession { .. } | Event::Tick => {}
        }
    }

    fn abandon(&mut self, now: Instant, request: RequestId) {
        let found = self.waiting.iter().position(|(id, deadline)| *id == request && *deadline > now);
        if let Some(at) = found {
            self.waiting.remove(at);
            self.ended += 1;
            self.seen.insert("abandoned");
        }
    }

    fn hear_ready(&mut self, worker: WorkerId, busy: bool) {
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
    }

    fn hear_freed(&mut self, worker: WorkerId) {
        let Some(it) = self.slots.get_mut(worker.slot as usize) else { return };
        if it.newest == worker.incarnation && it.told == Told::Busy {
            it.told = Told::Idle;
            self.idle.push(worker.slot);
        } else if it.newest < worker.incarnation {
            it.freed_early = worker.incarnation;
        } else {
            self.seen.insert("stale freed");
        }
    }

    fn hear_end(&mut self, worker: WorkerId, end: Told) {
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

    /// Checks what the core said to the last event.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        said: Vec<Command<Item, WorkerId>>,
        world: &mut World,
    ) -> Verdict {
        let mut startup = None;
        for command in said {
            let ended = match command {
                Command::StartSlot { slot } => return Err(TestCaseError::fail(format!("start of {slot}"))),
                Command::Assign { worker, request, item, .. } => {
                    prop_assert_eq!(item.request, request);
                    self.judge_assign(now, worker, request, world)?;
                    continue;
                }
                Command::Reject { request, item, reason } => {
                    prop_assert_eq!(item.request, request);
                    self.judge_reject(now, request, reason)?;
                    continue;
                }
                Command::EndSession { session, .. } => {
                    return Err(TestCaseError::fail(format!("end of {session}")));
                }
                Command::StartupSucceeded => Startup::Succeeded,
                Command::StartupFailed { cause } => Startup::Failed(cause),
                Command::StartupAborted => Startup::Aborted,
            };
            prop_assert_eq!(startup.replace(ended), None, "the start-up ended twice");
        }
        self.judge_startup(startup)
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
    ) -> Verdict {
        prop_assert!(world.takes(worker), "{worker:?} serves two");
        prop_assert_eq!(self.idle.pop(), Some(worker.slot), "not the most recently used idle worker");
        let slot = &mut self.slots[worker.slot as usize];
        prop_assert_eq!((slot.told, slot.newest), (Told::Idle, worker.incarnation));
        slot.told = Told::Busy;
        // Those past their deadline are sent away first, so the head of the line is the one to be served.
        let (first, deadline) = self.waiting.remove(0);
        prop_assert_eq!(first, request, "overtaken");
        prop_assert!(now < deadline, "assigned at its deadline");
        prop_assert!(!self.closed);
        self.ends(request, "assigned")
    }

    fn judge_reject(&mut self, now: Instant, request: RequestId, reason: Rejection<WorkerId>) -> Verdict {
        let at = self.waiting.iter().position(|(id, _)| *id == request);
        let Some(at) = at else { return Err(TestCaseError::fail(format!("{request:?} ended twice"))) };
        let newcomer = self.newcomer == Some(request);
        let (_, deadline) = self.waiting.remove(at);
        match reason {
            Rejection::TimedOut => {
                prop_assert!(deadline <= now, "timed out early");
                self.ends(request, "timed out")
            }
            Rejection::Overloaded { queue_len, retry_after } => {
                prop_assert!(newcomer && !self.closed && !self.all_failed() && self.idle.is_empty());
                prop_assert!(retry_after >= Duration::from_secs(1));
                prop_assert_eq!((queue_len, self.waiting.len()), (self.config.queue_bound, queue_len));
                self.ends(request, "overloaded")
            }
            Rejection::Unavailable { cause } => {
                prop_assert!(self.all_failed(), "unavailable with a slot that has not failed");
                prop_assert_eq!(Some(cause), self.last_failure);
                self.ends(request, if newcomer { "unavailable" } else { "unavailable after waiting" })
            }
            Rejection::Draining => {
                prop_assert!(self.closed);
                self.ends(request, "draining")
            }
            Rejection::SessionLost { session } | Rejection::SessionBusy { session, .. } => {
                Err(TestCaseError::fail(format!("{request:?} has no session, and not {session}")))
            }
        }
    }

    fn ends(&mut self, request: RequestId, how: &'static str) -> Verdict {
        prop_assert!(self.items.remove(&request).is_some(), "{request:?} ended twice");
        self.ended += 1;
        self.seen.insert(how);
        Ok(())
    }

    /// Checks what must hold between any two events.
    pub(super) fn judge_state(&mut self, now: Instant, core: &Core<Item, WorkerId>) -> Verdict {
        self.newcomer = None;
        prop_assert!(self.waiting.is_empty() || self.idle.is_empty(), "a waiter and an idle worker");
        prop_assert!(self.waiting.is_empty() || !(self.closed || self.all_failed()), "waits in vain");
        prop_assert!(self.waiting.len() <= self.config.queue_bound);
        prop_assert!(self.waiting.iter().all(|(_, deadline)| now < *deadline), "waits past its deadline");
        prop_assert_eq!(core.next_deadline(), self.waiting.iter().map(|(_, deadline)| *deadline).min());
        for (request, item) in &self.items {
            let waits = self.waiting.iter().any(|(id, _)| id == request);
            prop_assert_eq!(item.strong_count() == 1, waits, "item of {:?}", request);
        }
        let waiting = &self.waiting;
        self.items.retain(|request, _| waiting.iter().any(|(id, _)| id == request));
        prop_assert_eq!(self.submitted, self.ended + self.waiting.len() as u64);
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
