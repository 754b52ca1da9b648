//! The deadline of a call: the caller gets the Python stack, the call is cancelled, and a worker that ignores the
//! cancellation is killed.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hatchery::{CallError, Phase, Pool};

use super::{HANGS, read};
use crate::support::{
    LONG_TIMEOUT, MODULE, SHORT_TIMEOUT, Seed, alone_test, assert_workers_kept, is_alive, pids, pool_with,
    scratch_file, status_when, stop, touch, wait_for_file, wait_until,
};

const SOURCE: &str = r#"
import hatchery


def left():
    return hatchery.deadline() - time.monotonic()


async def async_left():
    await asyncio.sleep(0)
    return left()


def lefts():
    yield left()
    yield left()


def nap(seconds, answer):
    time.sleep(seconds)
    return answer


async def async_nap(seconds, answer):
    await asyncio.sleep(seconds)
    return answer
"#;

/// Functions that end when they are cancelled.
const CANCELLABLE: [&str; 7] =
    ["sleeping", "looping", "locking", "receiving", "running_a_process", "awaiting", "gathering"];

fn source() -> String {
    [HANGS, SOURCE].concat()
}

/// The stack line at which the function hangs.
fn line_of(function: &str) -> String {
    let (source, mark) = ([MODULE, &source()].concat(), format!("  # {function}"));
    let line = source.lines().position(|line| line.ends_with(&mark)).expect("it is marked");
    format!("subject.py\", line {}, in {function}", line + 1)
}

/// Calls a hanging function until its timeout, and returns the reported stack.
async fn time_out(pool: &Pool, function: &str, timeout: Duration) -> Option<String> {
    let request = pool.request(function).timeout(timeout);
    match request.send::<()>().await {
        Err(CallError::Timeout { phase: Phase::Run, attempts: 1, stack, .. }) => stack,
        other => panic!("{function}: {other:?}"),
    }
}

alone_test! {
    async fn timeout_shows_the_stack_and_keeps_the_worker() {
        let pool = pool_with(&source()).size(CANCELLABLE.len()).cancel_grace(LONG_TIMEOUT).start().await.expect("the pool starts");
        let workers = pids(&pool).await;
        let mut missing: Vec<&str> = CANCELLABLE.into();
        for round in 1.. {
            let stacks = join_all(missing.iter().map(|function| time_out(&pool, function, SHORT_TIMEOUT))).await;
            // A call that waits behind a cancelled call may start too late.
            assert_workers_kept(&pool, &workers).await;
            // On a busy machine the stack may arrive too late.
            let mut shown = stacks.iter().map(Option::as_deref);
            missing.retain(|function| !shown.next().flatten().is_some_and(|stack| stack.contains(&line_of(function))));
            if missing.is_empty() {
                break;
            }
            assert!(round < 10, "{missing:?}: {stacks:#?}");
        }
        pool.shutdown().await;
    }
}

alone_test! {
    within 90 seconds:
    async fn timeout_is_reported_before_the_worker_is_killed() {
        const FUNCTIONS: [&str; 2] = ["waiting_in_c", "blocking"];
        let pool = pool_with(&source()).size(FUNCTIONS.len()).cancel_grace(SHORT_TIMEOUT);
        let pool = pool.start().await.expect("the pool starts");
        let mut missing: Vec<&str> = FUNCTIONS.into();
        for round in 1.. {
            let workers = pids(&pool).await;
            let before = pool.status().await.expect("the pool runs").restarts;
            let stacks = join_all(FUNCTIONS.map(|function| async {
                let stack = time_out(&pool, function, SHORT_TIMEOUT).await;
                let status = pool.status().await.expect("the pool runs");
                assert_eq!(status.restarts, before, "the caller is answered before the kill");
                stack
            }));
            let stacks = stacks.await;
            assert!(workers.iter().all(|pid| is_alive(*pid)));
            let replaced = |it: &hatchery::PoolStatus| it.restarts == before + 2 && it.idle == 2;
            let status = status_when(&pool, "they are replaced", replaced).await;
            for worker in &status.workers {
                let how = worker.last_exit.as_deref().expect("one has ended");
                assert!(how.contains("did not give up in time"), "{how}");
            }
            assert!(workers.iter().all(|pid| !is_alive(*pid)));
            assert_eq!(pool.call::<_, u32>("add", (1, 2)).await.expect("they serve"), 3);
            // On a busy machine the stack may arrive too late.
            for (function, stack) in FUNCTIONS.into_iter().zip(&stacks) {
                if stack.as_ref().is_some_and(|stack| stack.contains(&line_of(function))) {
                    missing.retain(|it| *it != function);
                }
            }
            if missing.is_empty() {
                break;
            }
            assert!(round < 5, "{missing:?}: {stacks:#?}");
        }
        pool.shutdown().await;
    }
}

alone_test! {
    async fn timeout_in_stopped_worker_reports_it_and_kills_it() {
        let pool = pool_with(&source()).size(1).cancel_grace(SHORT_TIMEOUT).start().await.expect("the pool starts");
        let worker = pids(&pool).await[0];
        let call = pool.request("sleeping").timeout(SHORT_TIMEOUT);
        let (answer, ()) = tokio::join!(call.send::<()>(), async {
            wait_for_file("sleeping.began").await;
            stop(worker);
        });
        assert!(is_alive(worker), "the caller is answered before the kill");
        let error = answer.expect_err("the call never returns");
        let CallError::Timeout { phase: Phase::Run, stack: Some(stack), attempts: 1, .. } = &error else {
            panic!("{error:?}")
        };
        assert!(stack.contains("stopped, state T"), "{stack}");
        assert_ne!(pool.call::<_, u32>("pid", ()).await.expect("another one serves"), worker);
        assert!(!is_alive(worker));
        pool.shutdown().await;
    }
}

alone_test! {
    async fn python_sees_the_deadline_including_queue_time() {
        let pool = pool_with(&source()).size(1).start().await.expect("the pool starts");
        let (timeout, waited) = (Duration::from_secs(60), Duration::from_millis(300));
        let all = 0.0..=timeout.as_secs_f64();
        for function in ["left", "async_left"] {
            let left: f64 = pool.request(function).timeout(timeout).send().await.expect("the call succeeds");
            assert!(all.contains(&left) && left > 30.0, "{function}: {left}");
        }
        let (lefts, error) = read(pool.request("lefts").timeout(timeout).stream::<f64>().await.expect("a worker is free")).await;
        assert!(error.is_none() && lefts.iter().all(|left| all.contains(left)), "{error:?}, {lefts:?}");
        assert!(lefts[0] > 30.0 && lefts[1] <= lefts[0], "{lefts:?}");
        let lease = pool.checkout().await.expect("a worker is free");
        let (left, ()) = tokio::join!(pool.request("left").timeout(timeout).send::<f64>(), async {
            let sent = Instant::now();
            status_when(&pool, "the request is queued", |status| status.waiting == 1).await;
            wait_until("some time has passed", LONG_TIMEOUT, || sent.elapsed() > waited).await;
            drop(lease);
        });
        let left = left.expect("it tells");
        assert!(0.0 < left && left <= (timeout - waited).as_secs_f64(), "{left}");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn result_at_the_deadline_arrives_at_most_once() {
        let seed = Seed::new();
        let mut random = seed.rng();
        let pool = pool_with(&source()).size(2).cancel_grace(LONG_TIMEOUT).start().await.expect("the pool starts");
        let workers = pids(&pool).await;
        for number in 0..400_u32 {
            let millis = random.u64(1..8);
            let function = if random.bool() { "nap" } else { "async_nap" };
            // Close to the deadline: the result or the timeout may come first.
            let seconds = (millis as f64 - random.f64() * 1.5).max(0.0) / 1e3;
            let request = pool.request(function).args((seconds, number)).timeout(Duration::from_millis(millis));
            match request.send::<u32>().await {
                Ok(answer) => assert_eq!(answer, number),
                Err(CallError::Timeout { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
            let sum: u32 = pool.call("add", (number, 1)).await.expect("the deadline affects no other call");
            assert_eq!(sum, number + 1);
        }
        assert_workers_kept(&pool, &workers).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn caller_gone_after_the_deadline_changes_nothing() {
        let pool = pool_with(&source()).size(1).cancel_grace(LONG_TIMEOUT).start().await.expect("the pool starts");
        let workers = pids(&pool).await;
        // The cancelled call ends slowly. Its caller has the timeout already when it is gone.
        let call = pool.request("leave").args(("a",)).timeout(SHORT_TIMEOUT);
        let error = call.send::<()>().await.expect_err("the call never returns");
        assert!(matches!(error, CallError::Timeout { phase: Phase::Run, .. }), "{error:?}");
        wait_for_file("a.cancelled").await;
        assert_eq!(pool.status().await.expect("the pool runs").busy, 1);
        touch("a.go");
        assert_workers_kept(&pool, &workers).await;
        assert!(scratch_file("a.ended").exists());
        pool.shutdown().await;
    }
}
