//! One worker, killed or stopped.

use std::path::PathBuf;
use std::time::Duration;

use hatchery::{CallError, Phase, Pool, PoolStatus};
use serde_json::Value;

use crate::faults::pools::{pid, pool_of, serves, start, status};
use crate::support::{
    LONG_TIMEOUT, SHORT_TIMEOUT, alone_test, cont, is_alive, kill, scratch, state, status_when, stop,
    wait_until, zombies,
};

const SOURCE: &str = "
import os, time
def work(folder):
    # Says who works on it, and works until it may end.
    with open(f'{folder}/{os.getpid()}.tmp', 'w'):
        pass
    os.rename(f'{folder}/{os.getpid()}.tmp', f'{folder}/{os.getpid()}.works')
    while not os.path.exists(f'{folder}/go'):
        time.sleep(0.001)
    return os.getpid()
";

/// A folder for the calls of one case.
fn folder(name: &str) -> PathBuf {
    let folder = scratch().join(name);
    std::fs::create_dir(&folder).expect("the scratch folder is writable");
    folder
}

/// Whom it was given to, once Python has begun.
async fn worker_of(folder: &std::path::Path, but: Option<u32>) -> u32 {
    let mut found = None;
    let find = || {
        let names = std::fs::read_dir(folder).expect("it is there").flatten().map(|entry| entry.file_name());
        let mut pids = names.filter_map(|name| name.to_str()?.strip_suffix(".works")?.parse().ok());
        found = pids.find(|&pid| Some(pid) != but);
        found.is_some()
    };
    wait_until("a worker works", LONG_TIMEOUT, find).await;
    found.expect("it was waited for")
}

fn work(
    pool: &Pool,
    folder: &std::path::Path,
    idempotent: bool,
) -> tokio::task::JoinHandle<Result<u32, CallError>> {
    let (pool, folder) = (pool.clone(), folder.to_owned());
    tokio::spawn(async move {
        let call = pool.request("work").args((folder,));
        if idempotent { call.idempotent().send().await } else { call.send().await }
    })
}

/// The caller was told that its time was up; of a call that has not begun that is known where a worker has several.
fn assert_timed_out(outcome: Result<Value, CallError>, begun: bool) {
    let (phase, attempts) = if begun || crate::IN_FLIGHT == 1 { (Phase::Run, 1) } else { (Phase::Queue, 0) };
    let error = outcome.expect_err("a stopped process does nothing");
    let told = matches!(&error, CallError::Timeout { phase: told, .. } if *told == phase);
    assert!(told && error.attempts() == attempts, "{error:?}");
}

alone_test! {
    async fn killed_idle_worker_is_replaced() {
        let pool = start(pool_of(SOURCE).size(2)).await;
        let before = status(&pool).await;
        let victim = before.workers[1].pid.expect("it is ready");
        kill(victim);
        let after = status_when(&pool, "the worker is replaced", |status| status.restarts == 1 && status.idle == 2).await;
        assert_eq!(after.workers[0].pid, before.workers[0].pid, "the other one lives on");
        assert!(after.workers[1].pid.is_some_and(|pid| pid != victim));
        assert!(after.workers[1].last_exit.as_ref().is_some_and(|why| why.contains("signal 9")), "{after:?}");
        serves(&pool).await;
        pool.shutdown().await;
    }
}

const STARTS: &str = "
import subprocess
def begin():
    # One in the other, so that both are nobody's when the worker is dead.
    script = 'sleep 1000 & echo $!; wait'
    child = subprocess.Popen(['sh', '-c', script], stdout=subprocess.PIPE, text=True)
    return [child.pid, int(child.stdout.readline())]
";

alone_test! {
    /// They fall to this process, a subreaper, as to PID 1 of a container.
    async fn children_of_a_killed_worker_are_reaped() {
        let no_zombie = || zombies(std::process::id()) == 0;
        let pool = start(pool_of(STARTS).size(1)).await;
        let begun: Vec<u32> = pool.call("begin", ()).await.expect("it starts them");
        kill(status(&pool).await.workers[0].pid.expect("it is ready"));
        status_when(&pool, "the worker is replaced", |status| status.restarts == 1 && status.idle == 1).await;
        wait_until("the processes are dead", LONG_TIMEOUT, || !begun.iter().any(|&pid| is_alive(pid))).await;
        wait_until("no zombie is left", LONG_TIMEOUT, no_zombie).await;

        let begun: Vec<u32> = pool.call("begin", ()).await.expect("it starts them");
        drop(pool);
        wait_until("the processes are dead", LONG_TIMEOUT, || !begun.iter().any(|&pid| is_alive(pid))).await;
        wait_until("no zombie is left", LONG_TIMEOUT, no_zombie).await;
    }
}

alone_test! {
    async fn call_to_a_just_killed_worker_is_reassigned() {
        let pool = start(pool_of(SOURCE)).await;
        for restarts in 1..=3 {
            // The pool cannot know yet that it is dead; the call surely never began.
            kill(pid(&pool).await);
            let answer: Result<String, CallError> = pool.call("ping", ()).await;
            match answer {
                Ok(pong) => assert_eq!(pong, "pong"),
                // The dying process may still have taken the frame.
                Err(error) => {
                    let told = matches!(&error, CallError::WorkerDied { started: true, signal: Some(9), .. });
                    assert!(told, "{error:?}");
                }
            }
            let replaced = |status: &PoolStatus| status.restarts == restarts && status.ready == 1;
            status_when(&pool, "the worker is replaced", replaced).await;
        }
        serves(&pool).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn killed_busy_worker_fails_its_call() {
        let pool = start(pool_of(SOURCE)).await;
        let folder = folder("once");
        let call = work(&pool, &folder, false);
        let victim = worker_of(&folder, None).await;
        kill(victim);
        let error = call.await.expect("no panic").expect_err("its worker was killed");
        let told = matches!(&error, CallError::WorkerDied { started: true, exit: None, signal: Some(9), attempts: 1, .. });
        assert!(told && !error.is_retryable(), "{error:?}");
        serves(&pool).await;
        assert!(!is_alive(victim));
        assert_eq!(status(&pool).await.restarts, 1);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn idempotent_call_survives_one_kill_but_not_two() {
        let pool = start(pool_of(SOURCE).size(2)).await;
        let folder_of_one = folder("killed-once");
        let call = work(&pool, &folder_of_one, true);
        let victim = worker_of(&folder_of_one, None).await;
        kill(victim);
        let second = worker_of(&folder_of_one, Some(victim)).await;
        std::fs::write(folder_of_one.join("go"), "").expect("the scratch folder is writable");
        assert_eq!(call.await.expect("no panic").expect("the second worker lives"), second);

        let folder_of_two = folder("killed-twice");
        let call = work(&pool, &folder_of_two, true);
        let victim = worker_of(&folder_of_two, None).await;
        kill(victim);
        kill(worker_of(&folder_of_two, Some(victim)).await);
        let error = call.await.expect("no panic").expect_err("both workers were killed");
        assert!(matches!(error, CallError::WorkerDied { started: true, signal: Some(9), .. }), "{error:?}");
        assert_eq!(error.attempts(), 2);
        serves(&pool).await;
        status_when(&pool, "all are back", |status| status.restarts == 3 && status.ready == 2).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn stopped_worker_is_replaced_at_the_call_deadline() {
        let pool = start(pool_of(SOURCE).cancel_grace(Duration::from_millis(300))).await;
        for busy in [true, false] {
            let worker = pid(&pool).await;
            let folder = folder(if busy { "busy" } else { "idle" });
            if !busy {
                stop(worker);
                wait_until("the process is stopped", LONG_TIMEOUT, || state(worker) == Some('T')).await;
            }
            let call = pool.request("work").args((&folder,)).timeout(SHORT_TIMEOUT);
            let (outcome, ()) = tokio::join!(call.send::<Value>(), async {
                if busy {
                    stop(worker_of(&folder, None).await);
                }
            });
            assert_timed_out(outcome, busy);
            serves(&pool).await;
            assert!(!is_alive(worker));
        }
        assert_eq!(status(&pool).await.restarts, 2);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn stopped_worker_with_unread_large_call_is_replaced() {
        let pool = start(pool_of(SOURCE).cancel_grace(Duration::from_millis(300))).await;
        let worker = pid(&pool).await;
        stop(worker);
        wait_until("the process is stopped", LONG_TIMEOUT, || state(worker) == Some('T')).await;
        // Far more than the socket takes.
        let call = pool.request("work").args(("x".repeat(30_000_000),)).timeout(SHORT_TIMEOUT);
        assert_timed_out(call.send::<Value>().await, false);
        serves(&pool).await;
        assert!(!is_alive(worker));
        pool.shutdown().await;
    }
}

alone_test! {
    async fn stopped_worker_that_continues_finishes_its_call() {
        let pool = start(pool_of(SOURCE)).await;
        let worker = pid(&pool).await;
        let folder = folder("goes-on");
        let call = work(&pool, &folder, false);
        assert_eq!(worker_of(&folder, None).await, worker);
        stop(worker);
        std::fs::write(folder.join("go"), "").expect("the scratch folder is writable");
        wait_until("the process is stopped", LONG_TIMEOUT, || state(worker) == Some('T')).await;
        cont(worker);
        assert_eq!(call.await.expect("no panic").expect("it only took longer"), worker);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn stopped_worker_does_not_delay_the_shutdown() {
        let pool = start(pool_of(SOURCE).shutdown_timeout(Duration::from_millis(300))).await;
        let worker = pid(&pool).await;
        stop(worker);
        pool.shutdown().await;
        wait_until("the process is dead", LONG_TIMEOUT, || !is_alive(worker)).await;
    }
}

alone_test! {
    async fn dropped_pool_kills_stopped_and_busy_workers() {
        let pool = start(pool_of(SOURCE).size(2)).await;
        let folder = folder("dropped");
        let call = work(&pool, &folder, false);
        let busy = worker_of(&folder, None).await;
        let status = status(&pool).await;
        let idle = status.workers.iter().find_map(|it| it.pid.filter(|&pid| pid != busy)).expect("the other one");
        stop(idle);
        call.abort();
        let _ = call.await;
        drop(pool);
        wait_until("both are dead", LONG_TIMEOUT, || !is_alive(idle) && !is_alive(busy)).await;
    }
}

alone_test! {
    within 90 seconds:
    async fn slot_recovers_after_its_free_restarts_are_used_up() {
        const DEATHS: u64 = 6;
        let pool = start(pool_of(SOURCE)).await;
        for deaths in 1..=DEATHS {
            kill(pid(&pool).await);
            // Three are replaced at once, the next after 100 ms, 200 ms, 400 ms: calls wait meanwhile.
            status_when(&pool, "the death of the worker is counted", |status| status.restarts == deaths).await;
            serves(&pool).await;
        }
        assert_eq!(status(&pool).await.unavailable, 0);
        pool.shutdown().await;
    }
}
