//! Modules whose calls hang in forked workers.

use std::time::Duration;

use hatchery::{CallError, Phase, Pool, ZygoteState, ZygoteStatus};

use crate::support::{LONG_TIMEOUT, alone_test, pool_with, status_when};

/// Waits for a thread that the fork did not copy. A signal interrupts the wait.
const LOST_THREAD: &str = "
from concurrent.futures import ThreadPoolExecutor
executor = ThreadPoolExecutor(1)
executor.submit(int).result()

def work(x=0):
    return executor.submit(lambda: x + 1).result()

async def later():
    import asyncio
    return await asyncio.wrap_future(executor.submit(int))

def items():
    yield executor.submit(int).result()
";

/// Waits in C, which no signal interrupts.
const LOST_LOCK: &str = "
imported = os.getpid()

def work(x=0):
    if os.getpid() != imported:
        wait_in_c()
    return x + 1
";

/// The number of hangs that disables the zygote, as documented.
const MAX_HANGS: usize = 3;
const SHORT: Duration = Duration::from_millis(300);

async fn pool_that(hangs: &str) -> Pool {
    pool_with(hangs)
        .size(1)
        .cancel_grace(SHORT)
        .checkout_timeout(LONG_TIMEOUT)
        .start()
        .await
        .expect("the pool starts")
}

async fn zygote(pool: &Pool) -> ZygoteStatus {
    pool.status().await.expect("the pool runs").zygote.expect("the pool has a zygote")
}

/// Asserts that a call hangs. It has a short timeout once a worker is idle.
async fn hangs(pool: &Pool, function: &str) {
    status_when(pool, "a worker is idle", |status| status.idle == 1).await;
    let outcome = pool.request(function).timeout(SHORT).send::<serde_json::Value>().await;
    assert!(matches!(outcome, Err(CallError::Timeout { phase: Phase::Run, .. })), "{outcome:?}");
}

/// Asserts that a cold worker serves the function.
async fn is_served_cold(pool: &Pool, function: &str) {
    let status = status_when(pool, "a cold worker is idle", |status| {
        status.idle == 1 && status.workers.iter().all(|worker| worker.forked == Some(false))
    })
    .await;
    let state = status.zygote.expect("the pool has a zygote").state;
    assert!(matches!(&state, ZygoteState::Disabled { reason } if reason.contains("hung")), "{state:?}");
    let answer: u32 = pool.call(function, ()).await.expect("a cold worker answers");
    assert!(answer <= 1);
}

alone_test! {
    async fn module_with_lost_thread_falls_back_to_cold_starts() {
        for function in ["work", "later"] {
            let pool = pool_that(LOST_THREAD).await;
            for hang in 0..MAX_HANGS {
                assert_eq!(zygote(&pool).await.state, ZygoteState::Ready, "before hang {hang}");
                hangs(&pool, function).await;
            }
            is_served_cold(&pool, function).await;
            pool.shutdown().await;
        }
    }
}

alone_test! {
    async fn module_with_lost_lock_falls_back_to_cold_starts() {
        let pool = pool_that(LOST_LOCK).await;
        for hang in 0..MAX_HANGS {
            assert_eq!(zygote(&pool).await.state, ZygoteState::Ready, "before hang {hang}");
            hangs(&pool, "work").await;
        }
        is_served_cold(&pool, "work").await;
        // New code may survive a fork, so a reload enables the zygote.
        pool.reload().await.expect("the code is sound");
        assert_eq!(zygote(&pool).await.state, ZygoteState::Ready);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn hang_after_a_first_answer_keeps_the_zygote() {
        let pool = pool_that(LOST_LOCK).await;
        assert_eq!(pool.call::<_, u32>("add", (1, 2)).await.expect("it is answered"), 3);
        for _ in 0..=MAX_HANGS {
            hangs(&pool, "work").await;
        }
        let status = status_when(&pool, "the worker is replaced", |status| status.idle == 1).await;
        assert_eq!(status.workers[0].forked, Some(true), "{status:?}");
        assert_eq!(zygote(&pool).await.state, ZygoteState::Ready);
        pool.shutdown().await;
    }
}
