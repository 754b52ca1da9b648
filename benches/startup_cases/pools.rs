//! What the library does.

use std::time::{Duration, Instant};

use actix_rt::System;
use hatchery::{CallError, GetStatus, Pool, PoolStatus};
use rustix::process::{Pid, Signal, kill_process};

use super::Subject;
use crate::measure::median;

/// How many deaths of a slot are replaced at once.
const FREE_RESTARTS: usize = 3;

/// Milliseconds until `start()` of a pool returns, which is when all workers are ready.
pub(crate) fn start_ms(subject: &Subject, workers: usize, zygote: bool) -> f64 {
    System::new().block_on(async {
        let start = Instant::now();
        let pool = subject.pool(workers, zygote).start().await.expect("the pool starts");
        let took = start.elapsed();
        check(&pool, zygote).await;
        pool.shutdown().await;
        took.as_secs_f64() * 1e3
    })
}

/// Milliseconds from the `kill -9` of the only worker to the first answer of its replacement; the median of those that
/// are free of a back-off.
pub(crate) fn restart_ms(subject: &Subject) -> f64 {
    System::new().block_on(async {
        let pool = subject.pool(1, true).start().await.expect("the pool starts");
        let mut times = Vec::new();
        for _ in 0..FREE_RESTARTS {
            let victim: i32 = pool.call("pid", ()).await.expect("it answers");
            let start = Instant::now();
            kill_process(Pid::from_raw(victim).expect("a process id"), Signal::KILL).expect("it lives");
            loop {
                match pool.call::<_, i32>("pid", ()).await {
                    Ok(pid) => {
                        assert_ne!(pid, victim, "it was killed");
                        break;
                    }
                    // It was given to the one that is dying.
                    Err(CallError::WorkerDied { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        check(&pool, true).await;
        pool.shutdown().await;
        median(&mut times)
    })
}

/// Milliseconds from the first ready worker to the last.
pub(crate) fn grow_ms(subject: &Subject, workers: usize) -> f64 {
    System::new().block_on(async {
        let pool = subject.pool(workers, true).min_ready(1).start().await.expect("the pool starts");
        let start = Instant::now();
        // The message, since the method looks at the memory of all.
        while (pool.actor().send(GetStatus).await.expect("the pool runs").ready as usize) < workers {
            actix_rt::time::sleep(Duration::from_micros(200)).await;
        }
        let took = start.elapsed();
        check(&pool, true).await;
        pool.shutdown().await;
        took.as_secs_f64() * 1e3
    })
}

/// The memory of all workers, and of the template, in megabytes (10^6 bytes), after one call each.
pub(crate) fn pss_mb(subject: &Subject, workers: usize, zygote: bool) -> f64 {
    System::new().block_on(async {
        let pool = subject.pool(workers, zygote).start().await.expect("the pool starts");
        let mut leases = Vec::new();
        for _ in 0..workers {
            let lease = pool.checkout().await.expect("each worker once");
            lease.call::<_, u32>("pid", ()).await.expect("it answers");
            leases.push(lease);
        }
        check(&pool, zygote).await;
        let status = status(&pool).await;
        let template = status.zygote.as_ref().map(|zygote| zygote.memory);
        let all = status.workers.iter().map(|worker| worker.memory).chain(template);
        let bytes: u64 = all.map(|memory| memory.expect("the kernel tells").pss_bytes).sum();
        drop(leases);
        pool.shutdown().await;
        bytes as f64 / 1e6
    })
}

/// That the figure is of what it says.
async fn check(pool: &Pool, zygote: bool) {
    let status = status(pool).await;
    assert!(
        status.workers.iter().all(|worker| worker.forked.is_none_or(|forked| forked == zygote)),
        "{status:?}"
    );
}

async fn status(pool: &Pool) -> PoolStatus {
    pool.status().await.expect("the pool runs")
}
