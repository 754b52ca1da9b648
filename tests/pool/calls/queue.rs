//! The queue: order, timeouts and refusals.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hatchery::{Call, CallError, Checkout, OverloadCause, Phase, Pool};

use crate::support::{
    LONG_TIMEOUT, MODULE, SHORT_TIMEOUT, alone_test, fill_worker, is_alive, lines, pids, pool_of,
    scratch_file, started, status_when, touch, wait_for_file,
};

/// The number of calls that fill one worker.
const IN_FLIGHT: u64 = crate::IN_FLIGHT as u64;

alone_test! {
    async fn queued_calls_run_in_order_of_arrival() {
        let pool = started(1).await;
        let first = actix::spawn({
            let pool = pool.clone();
            async move { fill_worker::<u32>(&pool, "hold", ("first",)).await }
        });
        wait_for_file("first.began").await;
        let calls = join_all((0..20).map(|number| pool.call::<_, ()>("append", ("order", number.to_string()))));
        let (answers, ()) = tokio::join!(calls, async {
            status_when(&pool, "all requests are queued", |status| status.waiting == 20).await;
            touch("first.go");
        });
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert!(first.await.expect("no panic").is_ok());
        assert_eq!(lines("order"), (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
        pool.shutdown().await;
    }
}

alone_test! {
    async fn full_queue_refuses_at_once() {
        let pool = pool_of(MODULE).size(1).queue_bound(2).start().await.expect("the pool starts");
        let (held, ..) = tokio::join!(
            fill_worker::<u32>(&pool, "hold", ("a",)),
            async { wait_for_file("a.began").await; pool.call::<_, u32>("pid", ()).await.expect("it waited") },
            async { wait_for_file("a.began").await; pool.call::<_, u32>("pid", ()).await.expect("it waited") },
            async {
                status_when(&pool, "two requests are queued", |status| status.waiting == 2).await;
                let refused = [
                    pool.call::<_, u32>("pid", ()).await.expect_err("no place for a call"),
                    pool.checkout().await.expect_err("nor for a checkout"),
                ];
                for error in refused {
                    let CallError::Overloaded { cause: OverloadCause::QueueBound, queue_len: 2, retry_after, .. } = error else {
                        panic!("{error:?}")
                    };
                    assert!(error.to_string().contains("2 requests wait, as many as `queue_bound` allows; try again in"));
                    assert!(retry_after >= Duration::from_secs(1));
                    assert!(error.is_retryable() && error.attempts() == 0);
                }
                touch("a.go");
            }
        );
        held.expect("the held call returns");
        let status = pool.status().await.expect("the pool runs");
        assert_eq!((status.overloaded, status.waiting), (2, 0));
        assert_eq!((status.submitted, status.assigned), (4 + IN_FLIGHT, 2 + IN_FLIGHT));
        pool.shutdown().await;
    }
}

/// How many callers may encode their arguments when 50 may wait: the queued calls and those sent while the queue fills.
const MOST_ENCODED: usize = 300;

/// An argument of 100 kB that counts how often it is encoded. It panics when the count exceeds [`MOST_ENCODED`].
struct Counted<'a>(&'a AtomicUsize);

impl serde::Serialize for Counted<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        assert!(before < MOST_ENCODED, "calls that will be refused encode their arguments");
        serializer.serialize_str(&"x".repeat(100_000))
    }
}

/// Sends 20 000 calls at once to a pool whose only worker is busy. Returns how many callers encoded their arguments.
async fn send_calls_and_count_encoded(pool: &Pool, waiting: usize, bound: OverloadCause) -> usize {
    let encoded = AtomicUsize::new(0);
    let (held, ()) = tokio::join!(fill_worker::<u32>(pool, "hold", ("a",)), async {
        wait_for_file("a.began").await;
        let calls = join_all((0..20_000).map(|_| pool.call::<_, bool>("exists", (Counted(&encoded),))));
        let (answers, ()) = tokio::join!(calls, async {
            let refused = 20_000 - waiting as u64;
            status_when(pool, "the others are refused", |status| status.overloaded == refused).await;
            assert_eq!(pool.status().await.expect("the pool runs").waiting, waiting);
            touch("a.go");
        });
        let served = answers.iter().filter(|answer| matches!(answer, Ok(false))).count();
        let refused = answers
            .iter()
            .filter(|it| matches!(it, Err(CallError::Overloaded { cause, .. }) if *cause == bound))
            .count();
        assert_eq!((served, refused), (waiting, 20_000 - waiting));
    });
    held.expect("the held call returns");
    encoded.load(Ordering::Relaxed)
}

alone_test! {
    async fn full_queue_refuses_calls_before_encoding() {
        let pool = pool_of(MODULE).size(1).queue_bound(50).checkout_timeout(LONG_TIMEOUT).start().await.expect("the pool starts");
        let encoded = send_calls_and_count_encoded(&pool, 50, OverloadCause::QueueBound).await;
        assert!((50..=MOST_ENCODED).contains(&encoded), "{encoded}");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn full_queue_bytes_refuse_calls_before_encoding() {
        let pool = pool_of(MODULE).size(1).queue_bound(100_000).queue_bytes(5_000_000);
        let pool = pool.checkout_timeout(LONG_TIMEOUT).start().await.expect("the pool starts");
        // Each call is slightly larger than its argument, so the 50th call exceeds the bound.
        let encoded = send_calls_and_count_encoded(&pool, 50, OverloadCause::QueueBytes).await;
        assert!((50..=MOST_ENCODED).contains(&encoded), "{encoded}");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn full_queue_bytes_refuse_calls_sent_as_messages() {
        let pool = pool_of(MODULE).size(1).queue_bytes(1000).checkout_timeout(LONG_TIMEOUT).start().await.expect("the pool starts");
        let (held, served, ()) = tokio::join!(
            fill_worker::<u32>(&pool, "hold", ("a",)),
            async {
                wait_for_file("a.began").await;
                // Larger than the bound, but accepted because the queue is empty.
                pool.call::<_, bool>("exists", ("x".repeat(5000),)).await
            },
            async {
                status_when(&pool, "one request is queued", |status| status.waiting == 1).await;
                let call = Call::new("pid", ()).expect("the arguments can be encoded");
                let refused = pool.actor().send(call).await.expect("it is up").expect_err("the bytes are used up");
                let CallError::Overloaded { cause: OverloadCause::QueueBytes, queue_len: 1, queue_bytes, .. } = refused else {
                    panic!("{refused:?}")
                };
                assert!(queue_bytes > 5000 && refused.to_string().contains("as `queue_bytes` allows; try again in"));
                touch("a.go");
            }
        );
        held.expect("the held call returns");
        assert!(!served.expect("it waited"));
        pool.shutdown().await;
    }
}

alone_test! {
    async fn queue_bound_zero_refuses_calls_without_idle_worker() {
        let pool = pool_of(MODULE).size(1).queue_bound(0).start().await.expect("the pool starts");
        let (held, ()) = tokio::join!(fill_worker::<u32>(&pool, "hold", ("a",)), async {
            wait_for_file("a.began").await;
            let error = pool.call::<_, u32>("pid", ()).await.expect_err("nobody may wait");
            assert!(matches!(error, CallError::Overloaded { queue_len: 0, .. }), "{error:?}");
            touch("a.go");
        });
        held.expect("the held call returns");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn timeout_before_start_reports_queue_phase() {
        let pool = started(1).await;
        let (held, ()) = tokio::join!(fill_worker::<u32>(&pool, "hold", ("a",)), async {
            wait_for_file("a.began").await;
            let (began, timeout) = (Instant::now(), Duration::from_millis(100));
            let call = pool.request("append").args(("never", "x")).timeout(timeout);
            let error = call.send::<()>().await.expect_err("the worker is held");
            assert!(matches!(error, CallError::Timeout { phase: Phase::Queue, .. }), "{error:?}");
            assert!(error.is_retryable() && error.attempts() == 0);
            assert!(began.elapsed() >= timeout);
            touch("a.go");
        });
        held.expect("the held call returns");
        let status = status_when(&pool, "the worker is free", |status| status.idle == 1).await;
        assert_eq!((status.timed_out_waiting, status.restarts), (1, 0));
        pool.call::<_, u32>("pid", ()).await.expect("the call succeeds");
        assert!(!scratch_file("never").exists(), "a call that timed out in the queue is never run");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn timeout_of_cancellable_call_keeps_the_worker() {
        let pool = started(1).await;
        let before = pids(&pool).await[0];
        let call = pool.request("hold").args(("a",)).timeout(SHORT_TIMEOUT);
        let error = call.send::<u32>().await.expect_err("the call is held");
        assert!(matches!(error, CallError::Timeout { phase: Phase::Run, attempts: 1, .. }), "{error:?}");
        assert!(!error.is_retryable() && scratch_file("a.began").exists());
        assert_eq!(pool.call::<_, u32>("pid", ()).await.expect("it serves on"), before);
        assert!(!scratch_file("a.ended").exists());
        let status = pool.status().await.expect("the pool runs");
        assert_eq!((status.restarts, &status.workers[0].last_exit), (0, &None));
        pool.shutdown().await;
    }
}

alone_test! {
    async fn timeout_of_call_that_ignores_cancel_replaces_worker() {
        let pool = pool_of(MODULE).size(1).cancel_grace(SHORT_TIMEOUT).start().await;
        let pool = pool.expect("the pool starts");
        let before = pids(&pool).await[0];
        let call = pool.request("stay").args(("a",)).timeout(SHORT_TIMEOUT);
        let error = call.send::<u32>().await.expect_err("the call never returns");
        assert!(is_alive(before), "the caller is answered before the kill");
        assert!(matches!(error, CallError::Timeout { phase: Phase::Run, attempts: 1, .. }), "{error:?}");
        assert!(!error.is_retryable() && scratch_file("a.began").exists());
        let after: u32 = pool.call("pid", ()).await.expect("another one serves");
        assert_ne!(after, before);
        assert!(!is_alive(before) && scratch_file("a.cancelled").exists());
        let status = pool.status().await.expect("the pool runs");
        let how = status.workers[0].last_exit.clone().expect("it was replaced");
        assert!(status.restarts == 1 && how.contains("did not give up in time"), "{how}");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn time_in_the_queue_counts_toward_the_deadline() {
        let pool = started(1).await;
        let (held, error) = tokio::join!(
            async {
                let held = fill_worker::<u32>(&pool, "hold", ("a",)).await;
                wait_for_file("b.began").await;
                held
            },
            async {
                wait_for_file("a.began").await;
                let call = pool.request("hold").args(("b",)).timeout(SHORT_TIMEOUT);
                let (error, _) = tokio::join!(call.send::<u32>(), async {
                    status_when(&pool, "the request is queued", |status| status.waiting == 1).await;
                    touch("a.go");
                });
                error.expect_err("the call is held")
            }
        );
        held.expect("the held call returns");
        assert!(matches!(error, CallError::Timeout { phase: Phase::Run, .. }), "{error:?}");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn checkout_timeout_bounds_calls_and_checkouts() {
        let pool = pool_of(MODULE).size(1).checkout_timeout(SHORT_TIMEOUT).start().await.expect("the pool starts");
        let (held, ()) = tokio::join!(fill_worker::<u32>(&pool, "hold", ("a",)), async {
            wait_for_file("a.began").await;
            // The timeout of the call itself is 30 s, the default of the pool.
            let (lease, pid) = tokio::join!(pool.checkout(), pool.call::<_, u32>("pid", ()));
            for error in [lease.expect_err("the worker is held"), pid.expect_err("the worker is held")] {
                assert!(matches!(error, CallError::Timeout { phase: Phase::Queue, .. }), "{error:?}");
            }
            touch("a.go");
        });
        held.expect("the held call returns");
        drop(pool.checkout().await.expect("the worker is free"));
        pool.shutdown().await;
    }
}

alone_test! {
    async fn maximum_timeout_means_no_timeout() {
        let longest = Duration::MAX;
        let pool = pool_of(MODULE)
            .size(1)
            .spawn_timeout(longest)
            .checkout_timeout(longest)
            .call_timeout(longest)
            .shutdown_timeout(longest)
            .start()
            .await
            .expect("the pool starts");
        assert_eq!(pool.call::<_, u32>("add", (1, 2)).await.expect("the call succeeds"), 3);
        let sum: u32 = pool.request("add").args((1, 2)).timeout(longest).send().await.expect("the call succeeds");
        assert_eq!(sum, 3);
        let call = Call::new("add", (1, 2)).expect("the arguments can be encoded").timeout(longest);
        let reply = pool.actor().send(call).await.expect("the broker is up").expect("the call succeeds");
        assert_eq!(reply.decode::<u32>().expect("a number"), 3);
        let checkout = Checkout::new().timeout(longest);
        drop(pool.actor().send(checkout).await.expect("the broker is up").expect("a worker is free"));
        drop(pool.checkout().await.expect("a worker is free"));
        pool.shutdown().await;
    }
}
