//! The cost of one call through the core, for `benches/core.rs`. Not part of the public API.

use std::time::{Duration, Instant};

use super::{Affinity, Command, Config, Core, Event, RequestId, SessionUse, WorkerId};

/// A pool of two busy workers with a number of requests in its queue.
pub struct CoreBench {
    core: Core<(), ()>,
    now: Instant,
    /// The worker that serves the calls that are measured, and the call that it has.
    worker: WorkerId,
    running: u64,
    next: u64,
    commands: Vec<Command<(), ()>>,
}

impl CoreBench {
    /// `waiting` requests are queued: shared ones, or ones that are pinned to one busy session.
    pub fn new(now: Instant, waiting: u64, pinned: bool) -> Self {
        let config = Config {
            size: 2,
            min_ready: 0,
            in_flight: 1,
            queue_bound: usize::MAX,
            queue_bytes: u64::MAX,
            session_ttl: Duration::from_secs(3600),
            max_sessions: 10,
        };
        let mut commands = Vec::new();
        let core = Core::start(now, config, &mut commands);
        let worker = |slot| WorkerId { slot, generation: 0, incarnation: 1 };
        let mut bench = Self { core, now, worker: worker(1), running: 0, next: 0, commands };
        bench.handle(Event::WorkerReady { worker: worker(0) });
        bench.handle(Event::WorkerReady { worker: worker(1) });
        // The session's owner is busy from its first request on.
        let session = SessionUse { session: "busy".into(), affinity: Affinity::StrictQueue };
        bench.submit(Some(session.clone()));
        for request in &bench.commands {
            if let Command::Assign { worker, .. } = request {
                bench.worker.slot = 1 - worker.slot;
            }
        }
        bench.commands.clear();
        bench.running = bench.submit(None);
        for _ in 0..waiting {
            bench.submit(pinned.then(|| session.clone()));
        }
        bench.commands.clear();
        bench
    }

    /// One call: a request comes, the call that runs ends, and the oldest request gets the worker.
    pub fn call(&mut self) {
        let submitted = self.submit(None);
        let (worker, request) = (self.worker, RequestId(self.running));
        self.handle(Event::WorkerFreed { worker, request });
        let assigned = self.commands.iter().find_map(|command| match command {
            Command::Assign { request, .. } => Some(request.0),
            _ => None,
        });
        self.running = assigned.unwrap_or(submitted);
        self.commands.clear();
    }

    fn submit(&mut self, session: Option<SessionUse>) -> u64 {
        let request = self.next;
        self.next += 1;
        let deadline = self.now + Duration::from_secs(3600);
        let request_id = RequestId(request);
        self.handle(Event::Submitted {
            request: request_id,
            deadline,
            item: (),
            bytes: 0,
            session,
            exclusive: false,
        });
        request
    }

    fn handle(&mut self, event: Event<(), ()>) {
        self.now += Duration::from_nanos(100);
        self.core.handle(self.now, event, &mut self.commands);
    }
}
