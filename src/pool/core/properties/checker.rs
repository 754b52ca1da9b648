//! What the core may say, after what it was told.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::super::{
    Affinity, Command, Core, Event, Rejection, RequestId, SessionEnd, SessionUse, SlotState, WorkerId,
};
use super::model::{Item, Model, Outcome, Served, Slot, Startup, Told, Verdict, Waiting, nobody};
use super::operation::SESSIONS;
use super::sessions::End;
use super::simulator::{Heard, Simulator};
use crate::error::OverloadCause;
use crate::worker::Load;

impl Model {
    /// Checks what the core said to the last event. Whatever time has brought comes first.
    pub(super) fn check(
        &mut self,
        now: Instant,
        event: Heard,
        said: Vec<Command<Item, WorkerId>>,
        unseen: Option<RequestId>,
        simulator: &mut Simulator,
    ) -> Verdict {
        self.unseen = unseen;
        let waits = |model: &Self, id: RequestId| model.waiting.iter().any(|it| it.request == id);
        let mut startup = None;
        let mut said = said.into_iter().peekable();
        while let Some(command) = said.next_if(|command| match command {
            Command::Reject { request, reason: Rejection::TimedOut, .. } => waits(self, *request),
            Command::EndSession { cause, .. } => *cause == SessionEnd::Expired,
            _ => false,
        }) {
            self.check_command(now, command, &mut startup, simulator)?;
        }
        self.marks_expire(now);
        prop_assert!(self.waiting.iter().all(|it| now < it.deadline), "waits past its deadline");
        prop_assert!(self.next_expiry().is_none_or(|expiry| now < expiry), "a session lives on");
        // Whom that has made room for is served before a newcomer.
        while matches!(event, Event::Submitted { .. } | Event::Announced { .. })
            && (0..self.waiting.len()).any(|at| self.servers_of(at).next().is_some())
        {
            let Some(command) = said.next() else { return Err(TestCaseError::fail("nobody is served")) };
            prop_assert!(matches!(command, Command::Assign { .. }), "first comes whoever can be served");
            self.seen.insert("served when another one timed out");
            self.check_command(now, command, &mut startup, simulator)?;
        }
        if let Event::Unassigned { worker, request } = event
            && self.serves(worker, request).is_some()
            && simulator.heard_dropped(worker, request)
        {
            self.seen.insert("dropped by its worker");
        }
        self.hear(now, event);
        for command in said {
            self.check_command(now, command, &mut startup, simulator)?;
        }
        self.check_startup(startup)
    }

    fn check_command(
        &mut self,
        now: Instant,
        command: Command<Item, WorkerId>,
        startup: &mut Option<Startup>,
        simulator: &mut Simulator,
    ) -> Verdict {
        let ended = match command {
            Command::StartSlot { slot } => return Err(TestCaseError::fail(format!("start of {slot}"))),
            Command::Assign { worker, request, item, placement } => {
                prop_assert_eq!(item.request, request);
                let session = self.check_assign(now, worker, request, simulator)?;
                return self.check_placement(worker, session, placement, simulator);
            }
            Command::Admit { item } => return self.check_admit(item),
            Command::Reject { request, item, reason } => {
                prop_assert_eq!(item.request, request);
                return self.check_reject(now, request, reason);
            }
            Command::EndSession { workers, session, cause, item } => {
                let by_user = match item {
                    Some(item) => self.items.remove(&item.request).is_some(),
                    None => false,
                };
                return self.check_end(now, End { session, cause, workers, by_user }, simulator);
            }
            Command::StartupSucceeded => Startup::Succeeded,
            Command::StartupFailed { cause } => Startup::Failed(cause),
            Command::StartupAborted => Startup::Aborted,
        };
        prop_assert_eq!(startup.replace(ended), None, "the start-up ended twice");
        Ok(())
    }

    pub(super) fn check_startup_commands(&mut self, said: &[Command<Item, WorkerId>]) -> Verdict {
        let succeeded = said.iter().any(|command| matches!(command, Command::StartupSucceeded));
        self.check_startup(succeeded.then_some(Startup::Succeeded))
    }

    fn check_startup(&mut self, said: Option<Startup>) -> Verdict {
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

    fn check_assign(
        &mut self,
        now: Instant,
        worker: WorkerId,
        request: RequestId,
        simulator: &mut Simulator,
    ) -> Result<Option<SessionUse>, TestCaseError> {
        let first = self.waiting.iter().position(|it| self.may_run(it.session.as_ref(), worker.slot));
        let Some(at) = first else { return Err(TestCaseError::fail("nobody waits for this one")) };
        prop_assert_eq!(self.waiting[at].request, request, "overtaken");
        let servers: Vec<u32> = self.servers_of(at).collect();
        let Waiting { deadline, session, exclusive, .. } = self.waiting.remove(at);
        prop_assert!(now < deadline, "assigned at its deadline");
        prop_assert!(!self.closed);
        if let Some((newcomer, outcome)) = self.newcomer
            && newcomer == request
        {
            prop_assert_eq!(outcome, Outcome::Accepted);
        }
        let owner = session.as_ref().and_then(|it| self.home_of(&it.session));
        let rank = |slot: &u32| (self.slots[*slot as usize].load(), -self.slots[*slot as usize].turn);
        let chosen = owner.filter(|owner| servers.contains(owner));
        let chosen = chosen.or_else(|| servers.iter().copied().min_by_key(rank));
        prop_assert_eq!(chosen, Some(worker.slot), "neither its own nor the first in rank of {:?}", servers);
        if self.unseen != Some(request) {
            let name = session.as_ref().map(|it| &it.session);
            prop_assert!(simulator.takes(worker, request, name, exclusive), "{worker:?} has no place");
        }
        self.last_turn += 1;
        let slot = &mut self.slots[worker.slot as usize];
        prop_assert_eq!((slot.told, slot.newest), (Told::Ready, worker));
        slot.serving.push(Served { request, session: None });
        slot.lease = exclusive;
        slot.turn = self.last_turn;
        self.seen.insert(match (exclusive, slot.load()) {
            (true, _) => "a lease alone",
            (false, 1) => "a call alone",
            _ => "a call beside others",
        });
        self.ends(request, "assigned")?;
        Ok(session)
    }

    /// An announced request is to be submitted, or is perhaps never heard of again.
    fn check_admit(&mut self, Item { request, .. }: Item) -> Verdict {
        prop_assert_eq!(self.newcomer.take(), Some((request, Outcome::Accepted)));
        self.waiting.retain(|it| it.request != request);
        self.items.remove(&request);
        self.submitted -= 1;
        self.seen.insert("admitted");
        Ok(())
    }

    fn check_reject(&mut self, now: Instant, request: RequestId, reason: Rejection<WorkerId>) -> Verdict {
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
            Rejection::Overloaded { cause, queue_len, queue_bytes, retry_after } => {
                prop_assert!(newcomer && retry_after >= Duration::from_secs(1));
                prop_assert_eq!((queue_len, queue_bytes), (self.waiting.len(), self.waiting_bytes()));
                if cause == OverloadCause::QueueBytes {
                    self.seen.insert("overloaded with bytes");
                }
                (Outcome::Overloaded(cause), "overloaded")
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
    pub(super) fn check_state(&mut self, core: &Core<Item, WorkerId>) -> Verdict {
        if let Some((request, outcome)) = self.newcomer.take()
            && self.waiting.iter().any(|it| it.request == request)
        {
            prop_assert_eq!(outcome, Outcome::Accepted, "it waits");
        }
        for at in 0..self.waiting.len() {
            let waiter = &self.waiting[at];
            prop_assert_eq!(self.servers_of(at).next(), None, "could serve {:?}", waiter.request);
            let has_place = |slot: &u32| self.has_place(*slot, waiter.exclusive);
            let mine = |slot: &u32| self.may_run(waiter.session.as_ref(), *slot);
            if (0..self.config.size).any(|slot| has_place(&slot) && mine(&slot)) {
                let is_strict = !(0..self.config.size).all(|slot| mine(&slot));
                self.seen.insert(if is_strict { "own line behind a lease" } else { "behind a lease" });
            }
        }
        prop_assert!(self.waiting.is_empty() || !(self.closed || self.all_failed()), "waits in vain");
        prop_assert!(self.waiting.len() <= self.config.queue_bound);
        let last = self.waiting.last().map_or(0, |it| it.bytes);
        prop_assert!(self.waiting_bytes() - last < self.config.queue_bytes);
        self.check_early_refusal(core)?;
        let deadlines = self.waiting.iter().map(|it| it.deadline).chain(self.next_expiry());
        prop_assert_eq!(core.next_deadline(), deadlines.min());
        for (request, item) in &self.items {
            let waits = self.waiting.iter().any(|it| it.request == *request);
            prop_assert_eq!(item.strong_count() == 1, waits, "item of {:?}", request);
        }
        let waiting = &self.waiting;
        self.items.retain(|request, _| waiting.iter().any(|it| it.request == *request));
        prop_assert_eq!(self.submitted, self.ended + self.waiting.len() as u64);
        self.check_sessions(&core.counts())?;
        self.check_counts(core)
    }

    /// While the core refuses all, it accepts no request, of whatever session and kind.
    fn check_early_refusal(&mut self, core: &Core<Item, WorkerId>) -> Verdict {
        let full = self.full();
        let refuses = self.closed || self.all_failed() || full.is_some();
        if core.refuses_all().is_none() {
            let served = self.servers(self.waiting.len(), None, false).next().is_some();
            prop_assert!(!refuses || full.is_some() && served, "admits what it refuses");
            return Ok(());
        }
        prop_assert!(refuses, "refuses with room");
        if self.closed || self.all_failed() {
            return Ok(());
        }
        for name in SESSIONS {
            for affinity in [Affinity::Hint, Affinity::StrictQueue, Affinity::StrictFailFast] {
                let session = SessionUse { session: name.into(), affinity };
                for (session, exclusive) in [(Some(&session), false), (Some(&session), true), (None, true)] {
                    let server = self.servers(self.waiting.len(), session, exclusive).next();
                    prop_assert_eq!(server, None, "it could serve {:?}", session);
                }
            }
        }
        self.seen.insert("refuses all");
        Ok(())
    }

    fn check_counts(&self, core: &Core<Item, WorkerId>) -> Verdict {
        let counts = core.counts();
        prop_assert_eq!(counts.starting, self.count(|it| it.told == Told::Starting));
        let ready = |it: &Slot| it.told == Told::Ready;
        prop_assert_eq!(counts.idle, self.count(|it| ready(it) && it.load() == 0));
        prop_assert_eq!(counts.busy, self.count(|it| ready(it) && it.load() > 0));
        prop_assert_eq!(counts.leaving, self.count(|it| it.told == Told::Leaving));
        prop_assert_eq!(counts.down, self.count(|it| it.told == Told::Down));
        prop_assert_eq!(counts.failed, self.count(|it| it.told == Told::Failed));
        prop_assert_eq!(counts.in_flight as usize, self.slots.iter().map(Slot::load).sum::<usize>());
        prop_assert!(self.slots.iter().all(|it| it.load() <= self.config.in_flight as usize));
        prop_assert!(self.slots.iter().all(|it| !it.lease || it.load() == 1));
        prop_assert_eq!(counts.waiting, self.waiting.len());
        let it = counts.totals;
        prop_assert_eq!(it.submitted, self.submitted);
        let refused = it.overloaded + it.timed_out + it.unavailable + it.draining;
        let refused = refused + it.session_lost + it.session_busy;
        prop_assert_eq!(it.abandoned, self.abandoned);
        prop_assert_eq!(it.assigned + refused + it.abandoned, self.ended);
        for (status, slot) in core.slots().zip(&self.slots) {
            let load = |load: Load| match load {
                Load::Calls(calls) => (calls as usize, false),
                Load::Lease => (1, true),
            };
            let (told, (load, lease)) = match status.state {
                SlotState::Starting => (Told::Starting, (0, false)),
                SlotState::Idle => (Told::Ready, (0, false)),
                SlotState::Busy(it) => (Told::Ready, load(*it)),
                SlotState::Leaving(it) => (Told::Leaving, load(*it)),
                SlotState::Down { .. } => (Told::Down, (0, false)),
                SlotState::Failed { .. } => (Told::Failed, (0, false)),
            };
            prop_assert_eq!((told, status.worker.unwrap_or(nobody(status.slot))), (slot.told, slot.newest));
            prop_assert_eq!((load, lease), (slot.load(), slot.lease));
        }
        Ok(())
    }
}
