//! Leases: exclusive use of a worker.

use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hatchery::{CallError, Phase, Pool};

use crate::support::{
    LONG_TIMEOUT, MODULE, SHORT_TIMEOUT, Seed, alone_test, is_alive, kill, lines, pids, pool_of,
    scratch_file, started, status_when, touch, wait_for_file, wait_until,
};

alone_test! {
    async fn leased_worker_serves_only_its_lease() {
        let pool = started(2).await;
        let lease = pool.checkout().await.expect("a worker is free");
        let second = pool.checkout().await.expect("another one is free");
        assert_ne!(lease.pid(), second.pid());
        assert_ne!(lease.worker(), second.worker());
        drop(second);
        for _ in 0..20 {
            assert_ne!(pool.call::<_, u32>("pid", ()).await.expect("the other one serves"), lease.pid());
        }
        for _ in 0..20 {
            assert_eq!(lease.call::<_, u32>("pid", ()).await.expect("the call succeeds"), lease.pid());
        }
        drop(lease);
        status_when(&pool, "the lease is returned", |status| status.idle == 2).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn calls_of_a_lease_share_module_state() {
        let pool = started(2).await;
        let (one, two) = (pool.checkout().await.expect("a worker is free"), pool.checkout().await.expect("a worker is free"));
        for expected in 1..=5 {
            assert_eq!(one.call::<_, u32>("count", ()).await.expect("the call succeeds"), expected);
        }
        assert_eq!(two.call::<_, u32>("count", ()).await.expect("the call succeeds"), 1);
        let error = one.call::<_, ()>("fail", ("no",)).await.expect_err("the function raises");
        assert!(matches!(error, CallError::Python { .. }));
        assert_eq!(one.call::<_, u32>("count", ()).await.expect("an exception ends no lease"), 6);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn lease_dropped_in_a_call_is_checked_in_after_it_ends() {
        let pool = pool_of(MODULE).size(1).cancel_grace(LONG_TIMEOUT).start().await.expect("the pool starts");
        let lease = pool.checkout().await.expect("a worker is free");
        let worker = lease.pid();
        let caller = actix::spawn(async move { lease.call::<_, u32>("leave", ("a",)).await });
        wait_for_file("a.began").await;
        caller.abort();
        assert!(caller.await.expect_err("call and lease are dropped").is_cancelled());
        wait_for_file("a.cancelled").await;
        let (ended, ()) = tokio::join!(pool.call::<_, bool>("exists", ("a.ended",)), async {
            let status = status_when(&pool, "the next one waits", |status| status.waiting == 1).await;
            assert_eq!((status.busy, status.idle), (1, 0));
            touch("a.go");
        });
        assert!(ended.expect("the call succeeds"), "the call of the dropped lease had ended by then");
        status_when(&pool, "all are idle", |status| status.idle == 1 && status.restarts == 0).await;
        assert_eq!(pids(&pool).await, [worker]);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn lease_dropped_in_a_stuck_call_kills_the_worker() {
        let pool = pool_of(MODULE).size(1).cancel_grace(SHORT_TIMEOUT).start().await.expect("the pool starts");
        let lease = pool.checkout().await.expect("a worker is free");
        let worker = lease.pid();
        let caller = actix::spawn(async move { lease.call::<_, u32>("stay", ("a",)).await });
        wait_for_file("a.began").await;
        caller.abort();
        assert_ne!(pool.call::<_, u32>("pid", ()).await.expect("another one serves"), worker);
        assert!(!is_alive(worker) && scratch_file("a.cancelled").exists());
        status_when(&pool, "all are idle", |status| status.idle == 1 && status.restarts == 1).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn calls_of_one_lease_run_in_order() {
        let pool = started(2).await;
        let lease = pool.checkout().await.expect("a worker is free");
        let held = lease.call::<_, u32>("hold", ("a",));
        let others = join_all((0..10).map(|number| lease.call::<_, ()>("append", ("order", number.to_string()))));
        let (held, others, ()) = tokio::join!(held, others, async {
            wait_for_file("a.began").await;
            assert!(lines("order").is_empty());
            touch("a.go");
        });
        held.expect("the held call returns");
        assert!(others.iter().all(Result::is_ok), "{others:?}");
        assert_eq!(lines("order"), (0..10).map(|number| number.to_string()).collect::<Vec<_>>());
        drop(lease);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn lease_call_waiting_for_another_has_a_deadline() {
        let pool = started(1).await;
        let lease = pool.checkout().await.expect("a worker is free");
        let (held, ()) = tokio::join!(lease.call::<_, u32>("hold", ("a",)), async {
            wait_for_file("a.began").await;
            let late = lease.request("append").args(("never", "x")).timeout(Duration::from_millis(100));
            let error = late.send::<()>().await.expect_err("the worker is held");
            assert!(matches!(error, CallError::Timeout { phase: Phase::Queue, .. }), "{error:?}");
            assert!(error.is_retryable() && error.attempts() == 0);
            touch("a.go");
        });
        held.expect("the held call returns");
        assert_eq!(lease.call::<_, u32>("count", ()).await.expect("the lease goes on"), 1);
        assert!(!scratch_file("never").exists());
        drop(lease);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn lease_fails_when_its_worker_dies() {
        let pool = started(2).await;
        let lease = pool.checkout().await.expect("a worker is free");
        let dying = lease.call::<_, ()>("die", (3,));
        // This call waits for the first one when the worker dies.
        let waiting = lease.call::<_, u32>("pid", ());
        let (dying, waiting) = tokio::join!(dying, waiting);
        let dying = dying.expect_err("the worker dies");
        assert!(
            matches!(dying, CallError::WorkerDied { started: true, exit: Some(3), attempts: 1, .. }),
            "{dying:?}"
        );
        let after = lease.call::<_, u32>("pid", ()).await;
        for answer in [waiting, after] {
            let error = answer.expect_err("its worker is dead");
            assert!(matches!(error, CallError::WorkerDied { started: false, .. }), "{error:?}");
            assert!(error.is_retryable() && error.attempts() == 0, "{error:?}");
        }
        let other = pool.checkout().await.expect("another worker is free");
        assert_eq!(other.call::<_, u32>("pid", ()).await.expect("the call succeeds"), other.pid());
        drop(lease);
        drop(other);
        let status = status_when(&pool, "all are idle", |status| status.idle == 2).await;
        assert_eq!(status.restarts, 1);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn lease_of_killed_idle_worker_ends() {
        let pool = started(1).await;
        let lease = pool.checkout().await.expect("a worker is free");
        kill(lease.pid());
        status_when(&pool, "its worker is replaced", |status| status.idle == 1).await;
        assert!(!is_alive(lease.pid()));
        let error = lease.call::<_, u32>("pid", ()).await.expect_err("its worker is dead");
        assert!(matches!(error, CallError::WorkerDied { started: false, .. }), "{error:?}");
        // Dropping the old lease must not check in the new worker.
        let next = pool.checkout().await.expect("the new one is free");
        drop(lease);
        let status = pool.status().await.expect("the pool runs");
        assert_eq!((status.busy, status.idle), (1, 0));
        assert_eq!(next.call::<_, u32>("pid", ()).await.expect("the call succeeds"), next.pid());
        drop(next);
        status_when(&pool, "the lease is returned", |status| status.idle == 1).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn timeout_of_cancellable_call_keeps_the_lease() {
        let pool = started(1).await;
        let lease = pool.checkout().await.expect("a worker is free");
        assert_eq!(lease.call::<_, u32>("count", ()).await.expect("the call succeeds"), 1);
        let late = lease.request("hold").args(("a",)).timeout(SHORT_TIMEOUT);
        let error = late.send::<u32>().await.expect_err("the call is held");
        assert!(matches!(error, CallError::Timeout { phase: Phase::Run, attempts: 1, .. }), "{error:?}");
        assert_eq!(lease.call::<_, u32>("count", ()).await.expect("the lease goes on"), 2);
        drop(lease);
        status_when(&pool, "the lease is returned", |status| status.idle == 1 && status.restarts == 0).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn timeout_of_call_that_ignores_cancel_ends_the_lease() {
        let pool = pool_of(MODULE).size(1).cancel_grace(Duration::from_millis(300)).start().await;
        let pool = pool.expect("the pool starts");
        let lease = pool.checkout().await.expect("a worker is free");
        let late = lease.request("stay").args(("a",)).timeout(SHORT_TIMEOUT);
        let error = late.send::<u32>().await.expect_err("the call never returns");
        assert!(matches!(error, CallError::Timeout { phase: Phase::Run, attempts: 1, .. }), "{error:?}");
        let error = lease.call::<_, u32>("pid", ()).await.expect_err("its worker is killed");
        assert!(matches!(error, CallError::WorkerDied { started: false, .. }), "{error:?}");
        drop(lease);
        pool.call::<_, u32>("pid", ()).await.expect("another one serves");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn lease_outlives_its_pool() {
        let pool = started(1).await;
        let lease = pool.checkout().await.expect("a worker is free");
        pool.shutdown().await;
        assert!(!is_alive(lease.pid()));
        let error = lease.call::<_, u32>("pid", ()).await.expect_err("the pool has ended");
        assert!(matches!(error, CallError::WorkerDied { started: false, .. }), "{error:?}");
        drop(pool);
        drop(lease);
    }
}

alone_test! {
    async fn worker_leased_to_a_dropped_caller_is_returned() {
        let seed = Seed::new();
        let mut random = seed.rng();
        let pool = started(2).await;
        for _ in 0..300 {
            let callers: Vec<_> = (0..4)
                .map(|_| {
                    let pool = pool.clone();
                    actix::spawn(async move { pool.checkout().await.map(|lease| lease.pid()) })
                })
                .collect();
            for caller in callers {
                for _ in 0..random.u32(0..4) {
                    tokio::task::yield_now().await;
                }
                if random.bool() {
                    caller.abort();
                }
                if let Ok(answer) = caller.await {
                    answer.expect("nobody keeps a worker");
                }
            }
        }
        let idle = |status: &hatchery::PoolStatus| status.idle == 2 && status.waiting == 0;
        let status = status_when(&pool, "all are idle again", idle).await;
        assert_eq!((status.restarts, status.submitted), (0, status.assigned + status.abandoned));
        let workers = pids(&pool).await;
        let (one, two) = (pool.checkout().await.expect("a worker is free"), pool.checkout().await.expect("a worker is free"));
        assert!(workers.contains(&one.pid()) && workers.contains(&two.pid()));
        drop((one, two));
        pool.shutdown().await;
    }
}

alone_test! {
    tokio async fn lease_can_be_dropped_on_any_thread() {
        let pool = started(1).await;
        let lease = pool.checkout().await.expect("a worker is free");
        std::thread::spawn(move || drop(lease)).join().expect("no panic");
        let lease = pool.checkout().await.expect("it was checked in");
        let pid = lease.pid();
        drop(pool);
        // The pool ends with its last lease.
        std::thread::spawn(move || drop(lease)).join().expect("no panic");
        wait_until("its worker is dead", LONG_TIMEOUT, || !is_alive(pid)).await;
    }
}

alone_test! {
    async fn lease_is_shared_by_callers_on_many_threads() {
        const CALLS: usize = 150;
        for in_flight in [1, 8] {
            let pool = pool_of(MODULE).size(1).in_flight(in_flight).start().await.expect("the pool starts");
            let lease = Arc::new(pool.checkout().await.expect("a worker is free"));
            let callers: Vec<_> = (0..4)
                .map(|thread| {
                    let lease = lease.clone();
                    on_a_thread(async move {
                        for number in 0..CALLS {
                            let path = format!("{in_flight}-{thread}");
                            // Two calls at once: the second one waits or uses other capacity of the worker.
                            let (one, two) = (2 * number, 2 * number + 1);
                            let one = lease.call::<_, ()>("append", (path.clone(), one.to_string()));
                            let two = lease.call::<_, ()>("append", (path, two.to_string()));
                            let (one, two) = tokio::join!(one, two);
                            one.and(two).expect("the call succeeds");
                        }
                    })
                })
                .collect();
            wait_until("all have their answers", LONG_TIMEOUT, || callers.iter().all(JoinHandle::is_finished)).await;
            for (thread, caller) in callers.into_iter().enumerate() {
                caller.join().expect("no call fails");
                let expected: Vec<_> = (0..2 * CALLS).map(|number| number.to_string()).collect();
                assert_eq!(lines(&format!("{in_flight}-{thread}")), expected, "in its own order");
            }
            drop(lease);
            status_when(&pool, "the lease is returned", |status| status.idle == 1 && status.restarts == 0).await;
            pool.shutdown().await;
        }
    }
}

alone_test! {
    async fn arguments_over_the_socket_buffer_arrive_in_order() {
        let pool = pool_of("def head(text): return [text[:1], len(text)]").size(1).in_flight(8);
        let pool = pool.start().await.expect("the pool starts");
        let lease = Arc::new(pool.checkout().await.expect("a worker is free"));
        let callers: Vec<_> = ["a", "b", "c"]
            .map(|letter| {
                let lease = lease.clone();
                on_a_thread(async move {
                    let long = letter.repeat(7_000_000);
                    let short = letter.repeat(10);
                    for _ in 0..5 {
                        let (long, short) = tokio::join!(
                            lease.call::<_, (String, usize)>("head", (&long,)),
                            lease.call::<_, (String, usize)>("head", (&short,)),
                        );
                        assert_eq!(long.expect("the call succeeds"), (letter.to_owned(), 7_000_000));
                        assert_eq!(short.expect("the call succeeds"), (letter.to_owned(), 10));
                    }
                })
            })
            .into();
        wait_until("all have their answers", LONG_TIMEOUT, || callers.iter().all(JoinHandle::is_finished)).await;
        for caller in callers {
            caller.join().expect("no call fails");
        }
        drop(lease);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn lease_call_dropped_at_any_moment_frees_the_worker() {
        let seed = Seed::new();
        let mut random = seed.rng();
        let pool = started(1).await;
        let lease = pool.checkout().await.expect("a worker is free");
        for round in 0..200 {
            {
                let mut held = std::pin::pin!(lease.call::<_, u32>("hold", ("a",)));
                assert!(std::future::poll_fn(|cx| Poll::Ready(held.as_mut().poll(cx).is_pending())).await);
                let until = Instant::now() + Duration::from_micros(random.u64(0..300));
                while Instant::now() < until {
                    std::hint::spin_loop();
                }
            }
            let next = tokio::time::timeout(LONG_TIMEOUT, lease.call::<_, u32>("pid", ())).await;
            assert_eq!(next.expect("the worker is free soon").expect("the call succeeds"), lease.pid(), "{round}");
        }
        drop(lease);
        let status = status_when(&pool, "the lease is returned", |status| status.idle == 1).await;
        assert_eq!(status.restarts, 0);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn lease_call_does_not_overtake_a_stream() {
        let source = "order = []\ndef items():\n    order.append('stream')\n    yield 1\n\ndef told():\n    order.append('call')\n    return order\n";
        let pool = pool_of(source).size(1).start().await.expect("the pool starts");
        for _ in 0..50 {
            let lease = pool.checkout().await.expect("the worker is free");
            let mut items = lease.stream::<u32>("items", ()).await.expect("it begins");
            let (told, item) = tokio::join!(lease.call::<_, Vec<String>>("told", ()), items.next());
            assert_eq!(item.expect("there is one").expect("it comes"), 1);
            let told = told.expect("the call succeeds");
            assert_eq!(told[told.len() - 2..], ["stream", "call"]);
        }
        pool.shutdown().await;
    }
}

alone_test! {
    async fn deadline_holds_for_a_call_on_an_idle_lease() {
        let pool = pool_of(MODULE).size(1).call_timeout(Duration::from_secs(100)).start().await;
        let pool = pool.expect("the pool starts");
        let lease = pool.checkout().await.expect("a worker is free");
        // The timer of the worker is set to a much later deadline.
        for _ in 0..5 {
            lease.call::<_, u32>("pid", ()).await.expect("the call succeeds");
        }
        for millis in [50, 20, 80] {
            let late = lease.request("hold").args(("a",)).timeout(Duration::from_millis(millis));
            let error = tokio::time::timeout(LONG_TIMEOUT, late.send::<u32>()).await.expect("it is told");
            assert!(matches!(error, Err(CallError::Timeout { .. })), "{error:?}");
            lease.call::<_, u32>("pid", ()).await.expect("the call succeeds");
        }
        drop(lease);
        pool.shutdown().await;
    }
}

/// Records the order of a session end and a lease call.
const VISITS: &str = r#"
import asyncio
import os
import time

import hatchery


def visit():
    hatchery.session()["seen"] = True


def one():
    return 1


def nap(seconds):
    open("nap.began", "a").close()
    time.sleep(seconds)


async def stay(name):
    open(name + ".began", "a").close()
    while not os.path.exists(name + ".go"):
        await asyncio.sleep(0.002)
    with open("order", "a") as order:
        order.write("call\n")


@hatchery.on_session_end
def ended(_name, _state):
    with open("order", "a") as order:
        order.write("end\n")
"#;

alone_test! {
    async fn session_hook_time_starts_after_the_lease_call() {
        let grace = Duration::from_millis(100);
        let pool = pool_of(VISITS).size(1).hook_timeout(SHORT_TIMEOUT).cancel_grace(grace).start().await;
        let pool = pool.expect("the pool starts");
        let session = pool.session("alice");
        session.call::<_, ()>("visit", ()).await.expect("the call succeeds");
        let lease = pool.checkout().await.expect("the worker is free");
        for _ in 0..3 {
            assert_eq!(lease.call::<_, u32>("one", ()).await.expect("the call succeeds"), 1);
        }
        // Longer than the hook timeout and the grace together.
        let nap = SHORT_TIMEOUT + 5 * grace;
        let (napped, ended) = tokio::join!(lease.call::<_, ()>("nap", (nap.as_secs_f64(),)), async {
            wait_for_file("nap.began").await;
            session.end().await
        });
        napped.expect("it is within its deadline");
        ended.expect("the hook timeout starts after the call");
        drop(lease);
        let status = status_when(&pool, "the lease is returned", |status| status.idle == 1).await;
        assert_eq!((status.restarts, lines("order")), (0, vec!["end".to_owned()]));
        pool.shutdown().await;
    }
}

alone_test! {
    async fn session_end_waits_for_its_lease_calls() {
        let pool = pool_of(VISITS).size(1).in_flight(4).start().await.expect("the pool starts");
        let session = pool.session("alice");
        let lease = session.checkout().await.expect("the worker is free");
        lease.call::<_, ()>("visit", ()).await.expect("the call succeeds");
        let (stayed, ended, ()) = tokio::join!(lease.call::<_, ()>("stay", ("a",)), session_end(&pool), async {
            status_when(&pool, "the end is on its way", |_| scratch_file("ending").exists()).await;
            // The status reply proves that the worker has handled earlier messages.
            pool.status().await.expect("the pool runs");
            touch("a.go");
        });
        stayed.expect("the held call returns");
        ended.expect("it ends");
        drop(lease);
        assert_eq!(lines("order"), ["call", "end"]);
        pool.shutdown().await;
    }
}

async fn session_end(pool: &Pool) -> Result<(), CallError> {
    wait_for_file("a.began").await;
    touch("ending");
    pool.session("alice").end().await
}

alone_test! {
    async fn dropped_pool_runs_no_stop_hooks() {
        let source = format!("{MODULE}\nimport hatchery\n@hatchery.on_stop\ndef over():\n    touch('stopped')\n");
        for _ in 0..20 {
            let pool = pool_of(&source).size(1).start().await.expect("the pool starts");
            let pid = pool.call::<_, u32>("pid", ()).await.expect("the call succeeds");
            drop(pool);
            wait_until("its worker is dead", LONG_TIMEOUT, || !is_alive(pid)).await;
            assert!(!scratch_file("stopped").exists());
        }
    }
}

/// Runs a future on a new thread with its own runtime.
fn on_a_thread(future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime can be built").block_on(future);
    })
}
