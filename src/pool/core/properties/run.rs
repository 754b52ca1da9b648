//! One run of a history.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use super::super::{Command, Config, Core, Event, RequestId, SessionUse, WorkerId};
use super::model::Verdict;
use super::model::{Item, Model};
use super::operation::{Operation, Post, SESSIONS, config, operation};
use super::simulator::{News, Simulator, heard};

struct Run {
    config: Config,
    now: Instant,
    core: Core<Item, WorkerId>,
    simulator: Simulator,
    model: Model,
    requests: u64,
    goes_unseen: bool,
    late: Vec<News>,
    sent: Vec<News>,
    seen: BTreeSet<&'static str>,
}

impl Run {
    fn start(config: Config) -> Result<Self, TestCaseError> {
        let (now, mut out) = (Instant::now(), Vec::new());
        let core = Core::start(now, config, &mut out);
        let mut run = Self {
            config,
            now,
            core,
            simulator: Simulator::new(config.size, config.in_flight),
            model: Model::new(config),
            requests: 0,
            goes_unseen: false,
            late: Vec::new(),
            sent: Vec::new(),
            seen: BTreeSet::new(),
        };
        run.starts_slots(&out, &(0..config.size).collect::<Vec<_>>())?;
        run.model.check_startup_commands(&out)?;
        Ok(run)
    }

    fn starts_slots(&mut self, said: &[Command<Item, WorkerId>], expected: &[u32]) -> Verdict {
        let mut started = Vec::new();
        for command in said {
            if let Command::StartSlot { slot } = command {
                prop_assert!(self.simulator.start(*slot), "slot {slot} started twice");
                started.push(*slot);
            }
        }
        prop_assert_eq!(&started, expected);
        Ok(())
    }

    fn step(&mut self, operation: Operation) -> Verdict {
        let size = self.config.size;
        match operation {
            Operation::Submit { timeout_ms, bytes, session, exclusive } => {
                self.requests += 1;
                let request = RequestId(self.requests);
                let deadline = self.now + Duration::from_millis(timeout_ms);
                let session = session
                    .map(|(name, affinity)| SessionUse { session: Arc::from(SESSIONS[name]), affinity });
                let item = self.model.item(request);
                self.tell(Event::Submitted { request, deadline, item, bytes, session, exclusive })
            }
            Operation::Announce => {
                self.requests += 1;
                let request = RequestId(self.requests);
                let item = self.model.item(request);
                self.tell(Event::Announced { request, item })
            }
            Operation::GoesUnseen => {
                self.goes_unseen = true;
                Ok(())
            }
            Operation::EndSession { session } => {
                self.requests += 1;
                let item = self.model.item(RequestId(self.requests));
                self.tell(Event::EndSession { session: Arc::from(SESSIONS[session]), item })
            }
            Operation::Abandon { request } => {
                // Mostly one of the last few, who may still wait; 0 was never submitted.
                let request = RequestId(self.requests.saturating_sub(request % 8));
                self.tell(Event::Abandoned { request })
            }
            Operation::LossHeard { which, leaves } => {
                let Some(request) = self.model.told_of_loss(which) else { return Ok(()) };
                self.tell(if leaves { Event::Abandoned { request } } else { Event::LossHeard { request } })
            }
            Operation::StartSucceeds { slot, post } => {
                let news = self.simulator.start_succeeds(slot % size);
                self.send(news, post)
            }
            Operation::StartFails { slot, post } => {
                let news = self.simulator.start_fails(slot % size);
                self.send(news, post)
            }
            Operation::Finishes { slot, which, dropped, post } => {
                let news = self.simulator.finishes(slot % size, which, dropped);
                self.send(news, post)
            }
            Operation::Leaves { slot, post } => {
                let news = self.simulator.leaves(slot % size);
                self.send(news, post)
            }
            Operation::Dies { slot, post } => {
                let news = self.simulator.dies(slot % size);
                self.send(news, post)
            }
            Operation::Reloads { slot } => {
                self.simulator.reloads(slot % size);
                Ok(())
            }
            Operation::SuccessorSucceeds { slot, post } => {
                let news = self.simulator.successor_succeeds(slot % size);
                self.send(news, post)
            }
            Operation::SuccessorFails { slot } => {
                self.simulator.successor_fails(slot % size);
                Ok(())
            }
            Operation::FormerGoesOn { former, dies, again, post } => {
                let news = self.simulator.former_goes_on(former, dies, again);
                self.send(news, post)
            }
            Operation::Arrives { letter } => {
                if self.late.is_empty() {
                    return Ok(());
                }
                let news = self.late.swap_remove(letter % self.late.len());
                self.deliver(news)
            }
            Operation::Repeats { letter } => {
                if self.sent.is_empty() {
                    return Ok(());
                }
                self.deliver(self.sent[letter % self.sent.len()].clone())
            }
            Operation::Stray { slot, incarnation, kind } => {
                let worker = WorkerId { slot, generation: u32::from(kind % 2), incarnation };
                self.deliver(match kind % 5 {
                    0 => News::Ready { worker },
                    1 => News::Freed { worker, request: RequestId(incarnation) },
                    2 => News::Exited { worker },
                    3 => News::Leaving { worker },
                    _ => News::StartFailed { worker },
                })
            }
            Operation::Waits { ms } => {
                self.now += Duration::from_millis(ms);
                Ok(())
            }
            Operation::Ticks => self.tell(Event::Tick),
            Operation::Sleeps => self.sleep(),
            Operation::Closes => self.tell(Event::Closed),
        }
    }

    fn send(&mut self, news: Option<News>, post: Post) -> Verdict {
        let Some(news) = news else { return Ok(()) };
        self.sent.push(news.clone());
        match post {
            Post::AtOnce => self.deliver(news),
            Post::Late => {
                self.late.push(news);
                Ok(())
            }
            Post::Lost => Ok(()),
        }
    }

    fn deliver(&mut self, news: News) -> Verdict {
        self.tell(news.event())
    }

    fn tell(&mut self, event: Event<Item, WorkerId>) -> Verdict {
        let mut out = Vec::new();
        let heard = heard(&event);
        self.core.handle(self.now, event, &mut out);
        let unseen = out.iter().find_map(|command| match command {
            Command::Assign { worker, request, .. } if self.goes_unseen => Some((*worker, *request)),
            _ => None,
        });
        self.model.check(self.now, heard, out, unseen.map(|(_, request)| request), &mut self.simulator)?;
        self.model.check_state(&self.core)?;
        let Some((worker, request)) = unseen else { return Ok(()) };
        self.goes_unseen = false;
        self.tell(Event::Unassigned { worker, request })
    }

    fn sleep(&mut self) -> Verdict {
        let Some(deadline) = self.core.next_deadline() else { return Ok(()) };
        self.now = self.now.max(deadline);
        self.tell(Event::Tick)
    }

    /// When all news have arrived, every slot's worker is known. Everybody who still waits is sent away in time; and when all workers are dead, every session is forgotten in time.
    fn finish(mut self) -> Result<BTreeSet<&'static str>, TestCaseError> {
        prop_assert!(self.core.queue.is_consistent() && self.core.sessions.is_consistent());
        self.settle()?;
        self.sleep_on()?;
        prop_assert_eq!(self.core.counts().waiting, 0);
        for slot in 0..self.config.size {
            let worker = self.model.newest(slot);
            if self.model.is_alive(worker) {
                self.tell(Event::WorkerExited { worker, cause: worker })?;
            }
        }
        self.sleep_on()?;
        prop_assert!(self.model.knows_no_session());
        self.seen.append(&mut self.model.seen);
        Ok(self.seen)
    }

    /// What is late arrives, and once more that each slot's worker is ready: no slot is lost, whatever was.
    fn settle(&mut self) -> Verdict {
        for news in std::mem::take(&mut self.late) {
            self.deliver(news)?;
        }
        for slot in 0..self.config.size {
            self.simulator.start_succeeds(slot);
            let worker = self.simulator.id(slot);
            if let Some(news) = self.simulator.ready(slot) {
                self.tell(news.event())?;
                prop_assert_eq!(self.model.newest(slot), worker);
                prop_assert!(self.model.is_alive(worker), "{worker:?} is lost");
            }
        }
        Ok(())
    }

    fn sleep_on(&mut self) -> Verdict {
        while self.core.next_deadline().is_some() {
            self.sleep()?;
        }
        Ok(())
    }
}

#[test]
fn every_history_keeps_the_promises() {
    let mut settings = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        settings.cases = 1500;
    }
    let seed = match settings.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => fastrand::u64(..),
    };
    come_across(settings, seed);
}

/// Always the same ones: what random ones come across is a matter of chance.
#[test]
fn enough_histories_come_across_everything() {
    let settings = ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() };
    assert_eq!(come_across(settings, 1), EVERYTHING.into(), "the histories are too tame");
}

/// Runs histories of this seed; what they came across.
fn come_across(settings: ProptestConfig, seed: u64) -> BTreeSet<&'static str> {
    let settings = ProptestConfig { rng_seed: RngSeed::Fixed(seed), ..settings };
    let cases = settings.cases;
    let seen = RefCell::new(BTreeSet::new());
    let histories = (config(), prop::collection::vec(operation(), 1..100));
    let verdict = TestRunner::new(settings).run(&histories, |(config, history)| {
        let mut run = Run::start(config)?;
        for operation in history {
            run.step(operation)?;
        }
        seen.borrow_mut().append(&mut run.finish()?);
        Ok(())
    });
    if let Err(failure) = verdict {
        panic!("replay with PROPTEST_RNG_SEED={seed} PROPTEST_CASES={cases}\n{failure}");
    }
    seen.into_inner()
}

/// What enough histories must have come across.
const EVERYTHING: [&str; 54] = [
    "a call alone",
    "a call beside others",
    "a lease alone",
    "abandoned",
    "admitted",
    "assigned",
    "behind a lease",
    "draining",
    "dropped by its worker",
    "freed of all",
    "freed of one",
    "freed out of order",
    "freed while leaving",
    "leaving",
    "loss heard",
    "loss heard again",
    "loss not heard",
    "mark expired",
    "overloaded",
    "overloaded with bytes",
    "own line behind a lease",
    "ready",
    "refuses all",
    "replaced",
    "served when another one timed out",
    "session busy",
    "session elsewhere",
    "session ended",
    "session ended in use",
    "session ended when unknown",
    "session ended while one waits",
    "session evicted",
    "session expired",
    "session kept",
    "session lost",
    "session lost while one waits",
    "session lost with places",
    "session new",
    "session unbound",
    "sessions full",
    "stale end",
    "stale end after its successor",
    "stale freed",
    "stale ready",
    "stale ready after its successor",
    "startup aborted",
    "startup failed",
    "startup succeeded",
    "succeeded",
    "succeeded after a restart",
    "timed out",
    "unassigned",
    "unavailable",
    "unavailable after waiting",
];
