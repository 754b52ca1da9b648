//! Callers on this thread, in an actix System.

use std::time::Instant;

use actix_rt::{System, SystemRunner};
use hatchery::Pool;

use super::bare;
use crate::floor::Payload;
use crate::measure::median;

/// Where the pool lives.
#[derive(Clone, Copy)]
pub(crate) enum Home {
    /// On the callers' arbiter.
    CallersArbiter,
    /// On a thread of its own, as by default.
    OwnThread,
}

/// A pool, and a System on this thread for those who call it. Dropping it shuts the pool down.
pub(crate) struct Callers {
    system: SystemRunner,
    pool: Pool,
}

impl Callers {
    /// Starts the pool and has each worker answer some calls.
    pub(crate) fn start(home: Home, workers: usize) -> Callers {
        let system = System::new();
        let pool = system.block_on(async {
            let pool = match home {
                Home::CallersArbiter => bare(workers).on_current_arbiter(),
                Home::OwnThread => bare(workers),
            };
            pool.start().await.expect("the pool starts")
        });
        let mut callers = Callers { system, pool };
        callers.rate(workers, 200);
        callers
    }

    /// The median time of `calls` calls of one caller, in us.
    pub(crate) fn latency_us(&mut self, calls: usize) -> f64 {
        let pool = self.pool.clone();
        let mut times = self.system.block_on(spawned(async move {
            let mut times = Vec::with_capacity(calls);
            for x in 0..calls as u64 {
                let start = Instant::now();
                call(&pool, x).await;
                times.push(start.elapsed().as_secs_f64() * 1e6);
            }
            times
        }));
        median(&mut times)
    }

    /// Calls per second of so many callers at once.
    pub(crate) fn rate(&mut self, callers: usize, calls_each: usize) -> f64 {
        let pool = self.pool.clone();
        let start = Instant::now();
        self.system.block_on(async move {
            let callers: Vec<_> = (0..callers)
                .map(|_| {
                    let pool = pool.clone();
                    actix_rt::spawn(async move {
                        for x in 0..calls_each as u64 {
                            call(&pool, x).await;
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
}

impl Drop for Callers {
    fn drop(&mut self) {
        self.system.block_on(self.pool.shutdown());
    }
}

async fn call(pool: &Pool, x: u64) {
    let answer: Payload = pool.call("echo", (Payload { x },)).await.expect("the call succeeds");
    assert!(answer == Payload { x }, "a wrong answer");
}

/// Runs a future in a task of its own, as an actor or a handler would.
async fn spawned<T: 'static>(future: impl Future<Output = T> + 'static) -> T {
    actix_rt::spawn(future).await.expect("no caller panics")
}
