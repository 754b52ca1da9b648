//! Pools that are shut down.

use std::time::Duration;

use futures_util::future::{join_all, poll_immediate};
use hatchery::{CallError, Pool, UnavailableCause};

use super::executors::block_on;
use crate::support::{
    LONG_TIMEOUT, MODULE, alone_test, descendants, fill_worker, lines, pids, pool_of, scratch_file, started,
    status_when, touch, wait_for_file, wait_until,
};

/// That each use of the pool fails at once and for good.
pub(super) async fn assert_ended(pool: &Pool) {
    pool.ended().await;
    let errors = [
        pool.call::<_, u32>("pid", ()).await.expect_err("the pool has ended"),
        pool.request("pid").idempotent().send::<u32>().await.expect_err("the pool has ended"),
        pool.checkout().await.expect_err("the pool has ended"),
        pool.status().await.expect_err("the pool has ended"),
    ];
    for error in errors {
        assert!(matches!(error, CallError::Unavailable { cause: UnavailableCause::Stopped }), "{error:?}");
        assert!(!error.is_retryable() && error.attempts() == 0);
    }
}

alone_test! {
    async fn shutdown_ends_everything_before_it_returns() {
        let pools_threads = || {
            let mine = crate::support::threads(std::process::id()).into_values();
            mine.filter(|name| name.starts_with("actix-rt") || name == "hatchery-pool").collect::<Vec<_>>()
        };
        assert_eq!(pools_threads(), [""; 0]);
        let pool = started(2).await;
        assert_eq!(pools_threads().len(), 1);
        let workers = pids(&pool).await;
        pool.shutdown().await;
        assert!(!workers.iter().any(|&pid| crate::support::is_alive(pid)));
        assert!(descendants(std::process::id()).is_empty());
        // The kernel still lists a thread for a moment after it was joined.
        wait_until("its thread is gone", LONG_TIMEOUT, || pools_threads().is_empty()).await;
        assert_ended(&pool).await;
    }
}

alone_test! {
    tokio async fn shutdown_can_be_called_repeatedly_and_concurrently() {
        let pool = started(2).await;
        let callers = (0..8).map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                pool.shutdown().await;
                assert!(descendants(std::process::id()).is_empty(), "each returns when it has ended");
                assert_ended(&pool).await;
            })
        });
        for caller in join_all(callers).await {
            caller.expect("no panic");
        }
        pool.shutdown().await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn use_after_shutdown_fails_the_same_on_all_threads() {
        let pool = started(1).await;
        pool.shutdown().await;
        let callers: Vec<_> = (0..4)
            .map(|_| {
                let pool = pool.clone();
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
                    runtime.block_on(async {
                        for _ in 0..2000 {
                            assert_ended(&pool).await;
                        }
                    });
                })
            })
            .collect();
        for caller in callers {
            caller.join().expect("no panic");
        }
    }
}

alone_test! {
    async fn shutdown_finishes_running_calls_and_refuses_waiting() {
        let pool = started(2).await;
        let lease = pool.checkout().await.expect("a worker is free");
        let running = fill_worker::<u32>(&pool, "hold", ("a",));
        let leased = lease.call::<_, u32>("hold", ("b",));
        let waiting = join_all((0..3).map(|_| pool.call::<_, ()>("append", ("never", "x"))));
        let checkout = pool.checkout();
        let (running, leased, waiting, checkout, ()) =
            tokio::join!(running, leased, waiting, checkout, async {
                wait_for_file("a.began").await;
                wait_for_file("b.began").await;
                status_when(&pool, "four requests are queued", |status| status.waiting == 4).await;
                tokio::join!(pool.shutdown(), async {
                    wait_until("the broker has ended", LONG_TIMEOUT, || pool.actor().addr().is_none()).await;
                    let late = [
                        pool.call::<_, u32>("pid", ()).await.map(drop),
                        pool.stream::<u32>("numbers", (3,)).await.map(drop),
                        pool.checkout().await.map(drop),
                        pool.session("alice").end().await,
                        pool.status().await.map(drop),
                    ];
                    for answer in late {
                        let error = answer.expect_err("its workers are ending");
                        assert!(matches!(error, CallError::Draining), "{error:?}");
                    }
                    let (ended, ()) = tokio::join!(lease.call::<_, u32>("pid", ()), async {
                        touch("a.go");
                        touch("b.go");
                    });
                    // With room for it, the worker may still have got it.
                    assert!(crate::IN_FLIGHT > 1 || ended.is_err(), "{ended:?}");
                    let error = ended.err();
                    assert!(
                        matches!(error, None | Some(CallError::WorkerDied { started: false, .. })),
                        "a lease ends with its worker: {error:?}"
                    );
                });
            });
        running.expect("a running call may finish");
        leased.expect("that of a lease too");
        let refused = waiting.into_iter().map(|answer| answer.expect_err("never run"));
        for error in refused.chain([checkout.map(drop).expect_err("never granted")]) {
            assert!(matches!(error, CallError::Draining), "{error:?}");
            assert!(!error.is_retryable() && error.attempts() == 0);
        }
        assert!(!scratch_file("never").exists());
        drop(lease);
        assert_ended(&pool).await;
    }
}

alone_test! {
    async fn call_longer_than_the_shutdown_timeout_is_killed() {
        let pool = pool_of(MODULE).size(2).shutdown_timeout(Duration::from_millis(300));
        let pool = pool.start().await.expect("the pool starts");
        let (answer, ()) = tokio::join!(pool.call::<_, u32>("hold", ("a",)), async {
            wait_for_file("a.began").await;
            pool.shutdown().await;
        });
        let error = answer.expect_err("the call never returns");
        assert!(matches!(error, CallError::WorkerDied { started: true, attempts: 1, .. }), "{error:?}");
        assert!(!scratch_file("a.ended").exists());
        assert_ended(&pool).await;
    }
}

alone_test! {
    async fn shutdown_runs_atexit_in_each_worker() {
        let source = format!(
            "import atexit\n{MODULE}\natexit.register(lambda: append('exits', 'atexit'))\n"
        );
        let pool = pool_of(&source).size(3).start().await.expect("the pool starts");
        pool.call::<_, u32>("pid", ()).await.expect("the call succeeds");
        pool.shutdown().await;
        assert_eq!(lines("exits"), ["atexit"; 3]);
    }
}

alone_test! {
    async fn dropped_shutdown_is_continued_by_the_next_call() {
        let pool = started(1).await;
        let (held, ()) = tokio::join!(pool.call::<_, u32>("hold", ("a",)), async {
            wait_for_file("a.began").await;
            let half = tokio::time::timeout(Duration::from_millis(50), pool.shutdown()).await;
            assert!(half.is_err(), "the call still runs");
            touch("a.go");
            pool.shutdown().await;
            assert!(descendants(std::process::id()).is_empty());
        });
        held.expect("it may finish");
        assert_ended(&pool).await;
    }
}

alone_test! {
    async fn unpolled_shutdown_does_not_block_a_second_one() {
        let pool = started(1).await;
        let first = pool.shutdown();
        let mut first = std::pin::pin!(first);
        assert!(poll_immediate(first.as_mut()).await.is_none());
        // The first future lives but is not polled.
        pool.shutdown().await;
        assert!(descendants(std::process::id()).is_empty());
        first.await;
    }
}

alone_test! {
    fn shutdown_works_without_a_runtime() {
        let pool = block_on(started(2));
        block_on(pool.shutdown());
        assert!(descendants(std::process::id()).is_empty());
        block_on(assert_ended(&pool));
    }
}

alone_test! {
    async fn shutdown_on_the_pool_thread_does_not_deadlock() {
        let pool = pool_of(MODULE).size(1).on_current_arbiter().start().await.expect("the pool starts");
        let clone = pool.clone();
        actix::spawn(async move { clone.shutdown().await }).await.expect("no panic");
        assert_ended(&pool).await;
    }
}
