//! A pool that serves `served.py`, and the callers' thread.

use std::path::Path;
use std::time::Instant;

use actix_rt::{System, SystemRunner};
use hatchery::{CallError, HostCall, Pool, PoolBuilder};

use crate::floor::Payload;
use crate::measure::median;

/// A pool on a thread of its own, and a System on this thread for its callers. Dropping it shuts the pool down, and fails if
/// a worker was replaced.
pub(crate) struct Served {
    system: SystemRunner,
    pool: Pool,
}

impl Served {
    /// A pool of one worker.
    pub(crate) fn start() -> Served {
        Self::with(|pool| pool)
    }

    /// A pool of one worker of this interpreter.
    pub(crate) fn by(python: &Path) -> Served {
        Self::with(|pool| pool.python(python))
    }

    /// A pool that is configured further. Its workers have answered some calls.
    pub(crate) fn with(configure: impl FnOnce(PoolBuilder) -> PoolBuilder) -> Served {
        let pool = Pool::builder()
            .module("served")
            .path(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/payload_cases"))
            .size(1)
            .host_function("same", |call: HostCall| async move {
                let (payload,): (Payload,) = call.args()?;
                Ok::<_, CallError>(payload)
            });
        let system = System::new();
        let pool = system.block_on(async { configure(pool).start().await.expect("the pool starts") });
        let mut served = Served { system, pool };
        served.rate("echo", 4, 100);
        served
    }

    /// Runs a future in a task of its own on this thread, as an actor or a handler would.
    pub(super) fn run<T: 'static, F: Future<Output = T> + 'static>(&self, work: impl FnOnce(Pool) -> F) -> T {
        let task = work(self.pool.clone());
        self.system.block_on(async { actix_rt::spawn(task).await.expect("no caller panics") })
    }

    /// The median time of so many calls of a function that gives back what it gets, in us.
    pub(crate) fn call_us(&mut self, function: &'static str, calls: usize) -> f64 {
        self.run(async move |pool| {
            let mut times = Vec::with_capacity(calls);
            for x in 0..calls as u64 {
                let start = Instant::now();
                call(&pool, function, x).await;
                times.push(us(start));
            }
            median(&mut times)
        })
    }

    /// The same on a lease.
    pub(crate) fn lease_us(&mut self, calls: usize) -> f64 {
        self.run(async move |pool| {
            let lease = pool.checkout().await.expect("a worker is free");
            let mut times = Vec::with_capacity(calls);
            for x in 0..calls as u64 {
                let start = Instant::now();
                let answer: Payload = lease.call("echo", (Payload { x },)).await.expect("the call succeeds");
                assert!(answer == Payload { x }, "a wrong answer");
                times.push(us(start));
            }
            median(&mut times)
        })
    }

    /// Calls per second of so many callers at once.
    pub(crate) fn rate(&mut self, function: &'static str, callers: usize, calls_each: usize) -> f64 {
        let start = Instant::now();
        self.run(async move |pool| {
            let callers: Vec<_> = (0..callers)
                .map(|_| {
                    let pool = pool.clone();
                    actix_rt::spawn(async move {
                        for x in 0..calls_each as u64 {
                            call(&pool, function, x).await;
                        }
                    })
                })
                .collect();
            for caller in callers {
                caller.await.expect("no caller panics");
            }
        });
        (callers * calls_each) as f64 / start.elapsed().as_secs_f64()
    }

    /// Milliseconds until so many calls that sleep for 100 ms, made at once, are all answered.
    pub(crate) fn sleeps_ms(&mut self, calls: usize) -> f64 {
        let start = Instant::now();
        self.run(async move |pool| {
            let calls: Vec<_> = (0..calls)
                .map(|_| {
                    let pool = pool.clone();
                    actix_rt::spawn(async move {
                        pool.call::<_, ()>("sleep_async", ()).await.expect("the call succeeds");
                    })
                })
                .collect();
            for call in calls {
                call.await.expect("no caller panics");
            }
        });
        us(start) / 1e3
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.system.block_on(async {
            let status = self.pool.status().await.expect("the pool is up");
            self.pool.shutdown().await;
            assert_eq!(status.restarts, 0, "a worker was replaced");
        });
    }
}

async fn call(pool: &Pool, function: &str, x: u64) {
    let answer: Payload = pool.call(function, (Payload { x },)).await.expect("the call succeeds");
    assert!(answer == Payload { x }, "a wrong answer");
}

/// Microseconds since then.
pub(super) fn us(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e6
}
