//! A pool of one worker that serves `served.py`, and the caller's thread.

use std::time::{Duration, Instant};

use actix_rt::{System, SystemRunner};
use hatchery::Pool;

use crate::floor::Payload;
use crate::library::Home;
use crate::measure::median;

/// A pool of one worker, and a System on this thread for its caller. Dropping it shuts the pool down, and fails if the
/// worker is not the one that it began with.
pub(crate) struct Served {
    system: SystemRunner,
    pub(super) pool: Pool,
    pid: u32,
}

impl Served {
    /// Starts the pool and has its worker answer some calls.
    pub(crate) fn start(home: Home) -> Served {
        let system = System::new();
        let pool = Pool::builder()
            .module("served")
            .path(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/streaming"))
            .size(1);
        let (pool, pid) = system.block_on(async {
            let pool = match home {
                Home::CallersArbiter => pool.on_current_arbiter(),
                Home::OwnThread => pool,
            };
            let pool = pool.start().await.expect("the pool starts");
            let pid = only_pid(&pool).await;
            (pool, pid)
        });
        let mut served = Served { system, pool, pid };
        served.call_latency_us(200);
        served
    }

    /// Runs a future in a task of its own on this thread, as an actor or a handler would.
    pub(super) fn run<T: 'static, F: Future<Output = T> + 'static>(&self, work: impl FnOnce(Pool) -> F) -> T {
        let task = work(self.pool.clone());
        self.system.block_on(async { actix_rt::spawn(task).await.expect("no caller panics") })
    }

    /// The median time of `calls` calls, in us.
    pub(crate) fn call_latency_us(&mut self, calls: usize) -> f64 {
        self.run(async move |pool| {
            let mut times = Vec::with_capacity(calls);
            for x in 0..calls as u64 {
                let start = Instant::now();
                call(&pool, x).await;
                times.push(us(start.elapsed()));
            }
            median(&mut times)
        })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let pid = self.pid;
        self.system.block_on(async {
            let found = only_pid(&self.pool).await;
            self.pool.shutdown().await;
            assert_eq!(found, pid, "the worker was replaced");
        });
    }
}

/// The worker's pid; it has never been restarted.
async fn only_pid(pool: &Pool) -> u32 {
    let status = pool.status().await.expect("the pool is up");
    assert_eq!(status.restarts, 0, "the worker was restarted: {:?}", status.workers);
    status.workers[0].pid.expect("the worker is up")
}

/// A small call, its answer checked.
pub(super) async fn call(pool: &Pool, x: u64) {
    let answer: Payload = pool.call("echo", (Payload { x },)).await.expect("the call succeeds");
    assert!(answer == Payload { x }, "a wrong answer");
}

pub(super) fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
