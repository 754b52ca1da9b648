//! `in_flight(n)`: up to n calls in one worker at once.

use std::time::Duration;

use futures_util::future::join_all;
use hatchery::{CallError, Phase, Pool};

use crate::support::{SHORT_TIMEOUT, alone_test, lines, pids, pool_with, status_when, touch, wait_for_file};

const SOURCE: &str = r#"
import asyncio, signal

at_once = 0
most = 0


async def together(name, all_of_them):
    """Wait until that many calls run at once, and return the number."""
    global at_once, most
    at_once += 1
    most = max(most, at_once)
    while most < all_of_them:
        await asyncio.sleep(0.001)
    at_once -= 1
    return name, most


def hold(name):
    append("order", name)
    wait_for(name + ".go")
    return name


async def hang(name):
    append(name, "began")
    try:
        await asyncio.sleep(1000)
    finally:
        append(name, "ended")


async def stubborn():
    append("stubborn", "began")
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            append("stubborn", "swallowed")


def fail(text):
    raise ValueError(text)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def pid():
    return os.getpid()


ran = set()


def spin(name, seconds):
    ran.add(name)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def which_ran():
    return sorted(ran)
"#;

async fn pool_with_in_flight(in_flight: usize) -> Pool {
    pool_with(SOURCE).size(1).in_flight(in_flight).start().await.expect("the pool starts")
}

alone_test! {
    async fn async_calls_run_concurrently_in_one_worker() {
        let pool = pool_with_in_flight(8).await;
        let answers = join_all((0..8).map(|n| pool.call::<_, (u32, u32)>("together", (n, 8)))).await;
        for (n, answer) in (0..).zip(answers) {
            assert_eq!(answer.expect("it ends when all are there"), (n, 8));
        }
        pool.shutdown().await;
    }
}

alone_test! {
    async fn sync_calls_of_one_worker_run_in_order() {
        let pool = pool_with_in_flight(4).await;
        let calls = join_all(["a", "b", "c"].map(|name| pool.call::<_, String>("hold", (name,))));
        let (answers, ()) = tokio::join!(calls, async {
            status_when(&pool, "all are in the worker", |status| status.in_flight == 3).await;
            assert_eq!(pool.status().await.expect("the pool runs").waiting, 0);
            for name in ["a", "b", "c"] {
                crate::support::wait_until("it began", crate::support::LONG_TIMEOUT, || {
                    lines("order").last().is_some_and(|last| last == name)
                })
                .await;
                touch(&format!("{name}.go"));
            }
        });
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!(lines("order"), ["a", "b", "c"]);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn failed_or_cancelled_call_does_not_affect_others() {
        let pool = pool_with_in_flight(8).await;
        let before = pids(&pool).await;
        let hanging = actix::spawn({
            let pool = pool.clone();
            async move { pool.call::<_, ()>("hang", ("hang",)).await }
        });
        wait_for_file("hang").await;
        let error = pool.call::<_, ()>("fail", ("no",)).await.expect_err("the function raises");
        assert!(matches!(error, CallError::Python { .. }), "{error:?}");
        let leaving = actix::spawn({
            let pool = pool.clone();
            async move { pool.call::<_, ()>("hang", ("leave",)).await }
        });
        wait_for_file("leave").await;
        leaving.abort();
        status_when(&pool, "the dropped call has ended", |status| status.in_flight == 1).await;
        assert_eq!(lines("leave"), ["began", "ended"]);
        assert_eq!(lines("hang"), ["began"], "the other call continues");
        hanging.abort();
        status_when(&pool, "all are free", |status| status.in_flight == 0).await;
        assert_eq!(pids(&pool).await, before);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn session_end_does_not_delay_other_calls() {
        let pool = pool_with_in_flight(8).await;
        let session = pool.session("s");
        let stays = session.call::<_, (u32, u32)>("together", (1, 2));
        let comes = async {
            // The status reply proves that the worker has handled earlier messages.
            pool.status().await.expect("the pool runs");
            pool.call::<_, (u32, u32)>("together", (2, 2)).await
        };
        let (stayed, ended, came) = tokio::join!(biased; stays, session.end(), comes);
        assert_eq!(stayed.expect("both ran at once"), (1, 2));
        assert_eq!(came.expect("both ran at once"), (2, 2));
        ended.expect("it ends");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn unstarted_call_of_dead_worker_is_reassigned() {
        let pool = pool_with_in_flight(4).await;
        let before = pids(&pool).await;
        let (first, second) = tokio::join!(pool.call::<_, ()>("die", ()), pool.call::<_, u32>("pid", ()));
        let first = first.expect_err("it kills its worker");
        assert!(matches!(first, CallError::WorkerDied { started: true, signal: Some(9), .. }), "{first:?}");
        assert_ne!(second.expect("the call had not started"), before[0]);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn timeout_before_start_in_worker_reports_queue_phase() {
        let pool = pool_with_in_flight(4).await;
        let (held, late, ()) = tokio::join!(
            pool.call::<_, String>("hold", ("a",)),
            pool.request("pid").timeout(Duration::from_millis(500)).send::<u32>(),
            async {
                wait_for_file("order").await;
                status_when(&pool, "the late call has ended", |status| status.in_flight == 1).await;
                touch("a.go");
            }
        );
        held.expect("the held call returns");
        let late = late.expect_err("another call holds the worker");
        assert!(matches!(late, CallError::Timeout { phase: Phase::Queue, stack: None, attempts: 0, .. }), "{late:?}");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn queue_phase_timeout_means_the_function_never_ran() {
        let pool = pool_with_in_flight(8).await;
        let seed = 8;
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut queued, mut names) = (Vec::new(), 0..);
        for _ in 0..100 {
            let round: Vec<_> = (1..8)
                .map(|place| {
                    // Each call takes 1 ms, so this deadline is close to its start.
                    let timeout = Duration::from_micros(place * 1000 + random.u64(..1500));
                    (names.next().expect("there are more"), timeout)
                })
                .collect();
            let calls = round.into_iter().map(async |(name, timeout): (u32, _)| {
                match pool.request("spin").args((name, 0.001)).timeout(timeout).send::<()>().await {
                    Err(CallError::Timeout { phase: Phase::Queue, attempts: 0, .. }) => Some(name),
                    Ok(()) | Err(CallError::Timeout { phase: Phase::Run, attempts: 1, .. }) => None,
                    other => panic!("seed {seed}: {other:?}"),
                }
            });
            queued.extend(join_all(calls).await.into_iter().flatten());
        }
        let ran: Vec<u32> = pool.call("which_ran", ()).await.expect("the call succeeds");
        let both: Vec<_> = queued.iter().filter(|name| ran.contains(name)).collect();
        assert!(both.is_empty(), "seed {seed}: {both:?} ran, of {}", queued.len());
        pool.shutdown().await;
    }
}

alone_test! {
    async fn stuck_call_kills_worker_and_its_other_calls() {
        let pool = pool_with(SOURCE).size(1).in_flight(4).cancel_grace(SHORT_TIMEOUT).start().await.expect("the pool starts");
        let before = pids(&pool).await;
        let neighbour = actix::spawn({
            let pool = pool.clone();
            async move { pool.call::<_, ()>("hang", ("neighbour",)).await }
        });
        wait_for_file("neighbour").await;
        let stubborn = actix::spawn({
            let pool = pool.clone();
            async move { pool.call::<_, ()>("stubborn", ()).await }
        });
        wait_for_file("stubborn").await;
        stubborn.abort();
        let error = neighbour.await.expect("no panic").expect_err("its worker is killed");
        let CallError::WorkerDied { started: true, reason: Some(reason), .. } = &error else { panic!("{error:?}") };
        assert!(reason.contains("did not give up in time"), "{reason}");
        assert!(lines("stubborn").contains(&"swallowed".to_owned()));
        status_when(&pool, "the worker is replaced", |status| status.ready == 1 && status.restarts == 1).await;
        assert_ne!(pids(&pool).await, before);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn lease_has_exclusive_use_of_its_worker() {
        let pool = pool_with_in_flight(4).await;
        let lease = pool.checkout().await.expect("the worker is idle");
        let (waited, ()) = tokio::join!(pool.call::<_, u32>("pid", ()), async {
            status_when(&pool, "the request is queued", |status| status.waiting == 1).await;
            assert_eq!(lease.call::<_, u32>("pid", ()).await.expect("the call succeeds"), lease.pid());
            drop(lease);
        });
        waited.expect("the lease is over");
        pool.shutdown().await;
    }
}
