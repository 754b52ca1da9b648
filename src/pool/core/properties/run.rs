//! Histories: what may happen, and one run of it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use super::super::{Affinity, Command, Config, Core, Event, RequestId, SessionUse, WorkerId};
use super::judge::Verdict;
use super::model::{Item, Model};
use super::world::{News, World, heard};

/// How news travel.
#[derive(Clone, Copy, Debug)]
enum Post {
    AtOnce,
    Late,
    Lost,
}

/// One step of a history. A slot, a request or a letter is named by a number taken modulo how many there are.
#[derive(Clone, Debug)]
enum Operation {
    Submit {
        timeout_ms: u64,
        session: Option<(usize, Affinity)>,
    },
    EndSession {
        session: usize,
    },
    Abandon {
        request: u64,
    },
    StartSucceeds {
        slot: u32,
        post: Post,
    },
    StartFails {
        slot: u32,
        post: Post,
    },
    Finishes {
        slot: u32,
        post: Post,
    },
    Dies {
        slot: u32,
        post: Post,
    },
    /// A late letter arrives, whatever was sent before or after it.
    Arrives {
        letter: usize,
    },
    /// Something once sent arrives again.
    Repeats {
        letter: usize,
    },
    /// News of a slot that never was.
    Stray {
        slot: u32,
        incarnation: u64,
        kind: u8,
    },
    /// Time passes, and nobody ticks.
    Waits {
        ms: u64,
    },
    Ticks,
    /// Time passes up to the next deadline, which is then ticked.
    Sleeps,
    /// The pool actor dies and another one takes over; one slot may be missing.
    Rebuilds {
        forgotten: u32,
    },
    Closes,
}

fn post() -> impl Strategy<Value = Post> {
    prop_oneof![6 => Just(Post::AtOnce), 3 => Just(Post::Late), 1 => Just(Post::Lost)]
}

const SESSIONS: [&str; 5] = ["a", "b", "c", "d", "e"];

fn session() -> impl Strategy<Value = Option<(usize, Affinity)>> {
    let affinity = prop_oneof![
        2 => Just(Affinity::Hint),
        2 => Just(Affinity::StrictQueue),
        1 => Just(Affinity::StrictFailFast)
    ];
    prop::option::weighted(0.7, (0..SESSIONS.len(), affinity))
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    let slot = || 0..4u32;
    prop_oneof![
        24 => (0..60u64, session()).prop_map(|(timeout_ms, session)| Submit { timeout_ms, session }),
        3 => (0..SESSIONS.len()).prop_map(|session| EndSession { session }),
        6 => any::<u64>().prop_map(|request| Abandon { request }),
        14 => (slot(), post()).prop_map(|(slot, post)| StartSucceeds { slot, post }),
        9 => (slot(), post()).prop_map(|(slot, post)| StartFails { slot, post }),
        16 => (slot(), post()).prop_map(|(slot, post)| Finishes { slot, post }),
        6 => (slot(), post()).prop_map(|(slot, post)| Dies { slot, post }),
        10 => any::<usize>().prop_map(|letter| Arrives { letter }),
        5 => any::<usize>().prop_map(|letter| Repeats { letter }),
        1 => (4..9u32, any::<u64>(), any::<u8>()).prop_map(|(slot, incarnation, kind)| Stray { slot, incarnation, kind }),
        6 => (0..20u64).prop_map(|ms| Waits { ms }),
        3 => Just(Ticks),
        3 => Just(Sleeps),
        2 => slot().prop_map(|forgotten| Rebuilds { forgotten }),
        1 => Just(Closes),
    ]
}

fn config() -> impl Strategy<Value = Config> {
    let max_sessions = prop_oneof![1 => Just(0), 20 => 1..=5usize];
    let session_ttl = (5..100u64).prop_map(Duration::from_millis);
    (1..=4u32, 0..=5usize, max_sessions, session_ttl).prop_flat_map(
        |(size, queue_bound, max_sessions, session_ttl)| {
            (0..=size).prop_map(move |min_ready| Config {
                size,
                min_ready,
                queue_bound,
                session_ttl,
                max_sessions,
            })
        },
    )
}

struct Run {
    config: Config,
    now: Instant,
    core: Core<Item, WorkerId>,
    world: World,
    model: Model,
    requests: u64,
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
            world: World::new(config.size),
            model: Model::new(config, true),
            requests: 0,
            late: Vec::new(),
            sent: Vec::new(),
            seen: BTreeSet::new(),
        };
        run.starts_slots(&out, &(0..config.size).collect::<Vec<_>>())?;
        run.model.judge_startup_commands(&out)?;
        Ok(run)
    }

    fn starts_slots(&mut self, said: &[Command<Item, WorkerId>], expected: &[u32]) -> Verdict {
        let mut started = Vec::new();
        for command in said {
            if let Command::StartSlot { slot } = command {
                prop_assert!(self.world.start(*slot), "slot {slot} started twice");
                started.push(*slot);
            }
        }
        prop_assert_eq!(&started, expected);
        Ok(())
    }

    fn step(&mut self, operation: Operation) -> Verdict {
        let size = self.config.size;
        match operation {
            Operation::Submit { timeout_ms, session } => {
                self.requests += 1;
                let request = RequestId(self.requests);
                let deadline = self.now + Duration::from_millis(timeout_ms);
                let session = session
                    .map(|(name, affinity)| SessionUse { session: Arc::from(SESSIONS[name]), affinity });
                let item = self.model.item(request);
                self.tell(Event::Submitted { request, deadline, item, session })
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
            Operation::StartSucceeds { slot, post } => {
                let news = self.world.start_succeeds(slot % size);
                self.send(news, post)
            }
            Operation::StartFails { slot, post } => {
                let news = self.world.start_fails(slot % size);
                self.send(news, post)
            }
            Operation::Finishes { slot, post } => {
                let news = self.world.finishes(slot % size);
                self.send(news, post)
            }
            Operation::Dies { slot, post } => {
                let news = self.world.dies(slot % size);
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
                let worker = WorkerId { slot, incarnation };
                self.deliver(match kind % 4 {
                    0 => News::Ready { worker, busy: kind >= 128, sessions: vec![Arc::from("a")] },
                    1 => News::Freed { worker },
                    2 => News::Exited { worker },
                    _ => News::StartFailed { worker },
                })
            }
            Operation::Waits { ms } => {
                self.now += Duration::from_millis(ms);
                Ok(())
            }
            Operation::Ticks => self.tell(Event::Tick),
            Operation::Sleeps => self.sleep(),
            Operation::Rebuilds { forgotten } => self.rebuild(forgotten % size),
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
        // The one promise of a worker: it does not say that it is free while it serves.
        if let News::Freed { worker } = news
            && self.world.serves(worker)
        {
            return Ok(());
        }
        self.tell(news.event())
    }

    fn tell(&mut self, event: Event<Item, WorkerId>) -> Verdict {
        let mut out = Vec::new();
        let heard = heard(&event);
        self.core.handle(self.now, event, &mut out);
        self.model.judge(self.now, heard, out, &mut self.world)?;
        self.model.judge_state(&self.core)
    }

    fn sleep(&mut self) -> Verdict {
        let Some(deadline) = self.core.next_deadline() else { return Ok(()) };
        self.now = self.now.max(deadline);
        self.tell(Event::Tick)
    }

    fn rebuild(&mut self, forgotten: u32) -> Verdict {
        self.world.forgets(forgotten);
        let (existing, attached) = self.world.attach();
        let missing: Vec<u32> = (0..self.config.size).filter(|slot| !existing.contains(slot)).collect();
        let mut out = Vec::new();
        self.core = Core::rebuilt(self.now, self.config, &existing, &mut out);
        self.seen.append(&mut self.model.seen);
        self.model = Model::new(self.config, false);
        self.starts_slots(&out, &missing)?;
        prop_assert_eq!(out.len(), missing.len());
        self.sent = attached.clone();
        self.late = attached;
        Ok(())
    }

    /// Everybody who still waits is sent away in time; and when all workers are dead, every session is forgotten in time.
    fn finish(mut self) -> Result<BTreeSet<&'static str>, TestCaseError> {
        prop_assert!(self.core.queue.is_consistent() && self.core.sessions.is_consistent());
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
    settings.rng_seed = RngSeed::Fixed(seed);
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
    if cases >= 1500 {
        assert_eq!(seen.into_inner(), EVERYTHING.into(), "histories too tame, seed {seed}");
    }
}

/// What enough histories must have come across.
const EVERYTHING: [&str; 34] = [
    "abandoned",
    "adopted",
    "assigned",
    "draining",
    "freed early",
    "mark expired",
    "overloaded",
    "ready",
    "replaced",
    "session adopted",
    "session adopted by those who wait",
    "session ended",
    "session ended in use",
    "session ended when unknown",
    "session ended while one waits",
    "session evicted",
    "session expired",
    "session kept",
    "session new",
    "session elsewhere",
    "session lost",
    "session lost with places",
    "session lost while one waits",
    "session busy",
    "sessions full",
    "stale end",
    "stale freed",
    "stale ready",
    "startup aborted",
    "startup failed",
    "startup succeeded",
    "timed out",
    "unavailable",
    "unavailable after waiting",
];
