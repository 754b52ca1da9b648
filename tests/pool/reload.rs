//! Reload: new code in a running pool.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use hatchery::{CallError, Pool, ReloadError, StartPhase, WorkerStartError, WorkerState};

use crate::support::{
    LONG_TIMEOUT, MODULE, alone_test, fill_worker, is_alive, kill, pids, pool_of, python_module, scratch,
    status_when, touch, wait_for_file, wait_until,
};

/// The source of this version. Each version has a different length, because Python detects a changed file by its length and
/// its time in seconds.
fn source(version: u32) -> String {
    format!("{MODULE}\n\ndef version():\n    return {version}{}\n", " ".repeat(version as usize))
}

fn write(version: u32) {
    python_module(&scratch(), "subject", &source(version));
}

async fn version(pool: &Pool) -> u32 {
    pool.call("version", ()).await.expect("the call succeeds")
}

alone_test! {
    async fn reload_replaces_all_workers_with_new_code() {
        let pool = pool_of(&source(1)).size(3).start().await.expect("the pool starts");
        assert_eq!(version(&pool).await, 1);
        for to in 2..=3 {
            let before = pids(&pool).await;
            let template = pool.status().await.expect("the pool runs").zygote.and_then(|zygote| zygote.pid);
            write(to);
            pool.reload().await.expect("the code is good");
            let status = pool.status().await.expect("the pool runs");
            assert_eq!((status.size, status.ready, status.restarts), (3, 3, 0));
            assert!(status.workers.iter().all(|worker| worker.forked == Some(crate::ZYGOTE)), "{status:?}");
            assert!(before.iter().all(|&pid| !is_alive(pid)));
            if let Some(template) = template {
                assert_ne!(status.zygote.and_then(|zygote| zygote.pid), Some(template));
                wait_until("the old template is gone", LONG_TIMEOUT, || !is_alive(template)).await;
            }
            let mut leases = Vec::new();
            for _ in 0..3 {
                let lease = pool.checkout().await.expect("each once");
                assert_eq!(lease.call::<_, u32>("version", ()).await.expect("the call succeeds"), to);
                leases.push(lease);
            }
        }
        pool.shutdown().await;
    }
}

alone_test! {
    async fn calls_during_reload_succeed() {
        let pool = pool_of(&source(1)).size(2).start().await.expect("the pool starts");
        let callers: Vec<_> = (0..6)
            .map(|_| {
                let pool = pool.clone();
                tokio::spawn(async move {
                    let mut seen = BTreeSet::new();
                    while !Path::new(&scratch().join("enough")).exists() {
                        seen.insert(version(&pool).await);
                    }
                    seen
                })
            })
            .collect();
        for to in 2..=4 {
            write(to);
            pool.reload().await.expect("the code is good");
        }
        assert_eq!(version(&pool).await, 4);
        touch("enough");
        for caller in callers {
            assert!(caller.await.expect("no call failed").len() > 1);
        }
        assert_eq!(pool.status().await.expect("the pool runs").restarts, 0);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn failed_reload_keeps_old_workers() {
        let pool = pool_of(&source(1)).size(2).start().await.expect("the pool starts");
        let before = pids(&pool).await;
        python_module(&scratch(), "subject", "import no_such_module\n");
        let error = pool.reload().await.expect_err("the code is bad");
        let ReloadError::RolledBack { cause } = &error else { panic!("{error:?}") };
        assert!(matches!(&**cause, WorkerStartError::Python { phase: StartPhase::Import, .. }), "{error:?}");
        // The import succeeds, but the start hook fails.
        let hook = "import hatchery\n\n@hatchery.on_start\ndef refuse():\n    raise OSError('no model')\n";
        python_module(&scratch(), "subject", &format!("{}{hook}", source(22)));
        let error = pool.reload().await.expect_err("the code is bad");
        let ReloadError::RolledBack { cause } = &error else { panic!("{error:?}") };
        assert!(matches!(&**cause, WorkerStartError::Python { phase: StartPhase::OnStart, .. }), "{error:?}");

        assert_eq!(pids(&pool).await, before);
        assert_eq!(version(&pool).await, 1);
        if crate::ZYGOTE {
            // The old template is used again.
            kill(before[0]);
            let status = status_when(&pool, "the worker is replaced", |it| it.restarts == 1 && it.idle == 2).await;
            assert_eq!(status.workers[0].forked, Some(true), "{status:?}");
            for _ in 0..8 {
                assert_eq!(version(&pool).await, 1);
            }
        }
        write(333);
        pool.reload().await.expect("the code is good again");
        assert_eq!(version(&pool).await, 333);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn reload_waits_for_running_call_and_lease() {
        let pool = pool_of(&source(1)).size(2).start().await.expect("the pool starts");
        let lease = pool.checkout().await.expect("the worker is free");
        let leased = lease.pid();
        let (held, ()) = tokio::join!(fill_worker::<u32>(&pool, "hold", ("a",)), async {
            wait_for_file("a.began").await;
            write(22);
            let reload = {
                let pool = pool.clone();
                tokio::spawn(async move { pool.reload().await })
            };
            // Both workers are busy; a new worker serves other calls.
            let served = async {
                let mut new = pool.call::<_, u32>("version", ()).await;
                while !matches!(new, Ok(22)) {
                    new = pool.call("version", ()).await;
                }
            };
            tokio::time::timeout(LONG_TIMEOUT, served).await.expect("the successor serves");
            assert!(matches!(pool.reload().await, Err(ReloadError::Running)));
            assert_eq!(lease.call::<_, u32>("version", ()).await.expect("the lease goes on"), 1);
            touch("a.go");
            drop(lease);
            reload.await.expect("no panic").expect("all are replaced");
        });
        let held = held.expect("it came to its end");
        assert!(!is_alive(held) && !is_alive(leased));
        pool.shutdown().await;
    }
}

alone_test! {
    async fn shutdown_during_reload_does_not_wait_for_the_start() {
        let pool = pool_of(&source(1)).size(1).start().await.expect("the pool starts");
        python_module(&scratch(), "subject", "import time\n\nopen('importing', 'w').close()\ntime.sleep(1000)\n");
        let reload = {
            let pool = pool.clone();
            tokio::spawn(async move { pool.reload().await })
        };
        wait_for_file("importing").await;
        assert_eq!(version(&pool).await, 1, "the old one serves");
        tokio::time::timeout(Duration::from_secs(10), pool.shutdown()).await.expect("it does not wait for it");
        assert!(matches!(reload.await.expect("no panic"), Err(ReloadError::Unavailable(_))));
    }
}

const STARTS: &str = "pass";
const FAILS: &str = "raise OSError('no model')";

/// The first process that starts writes "waiting", waits for "go" and runs `first`. Later processes run `others` at once.
fn first_waits(version: u32, first: &str, others: &str) {
    let hook = format!(
        r#"
import hatchery


@hatchery.on_start
def first_waits():
    try:
        open("waiting", "x").close()
    except FileExistsError:
        {others}
        return
    wait_for("go")
    {first}
"#
    );
    python_module(&scratch(), "subject", &(source(version) + &hook));
}

type Reload = tokio::task::JoinHandle<Result<(), ReloadError>>;

fn begin_reload(pool: &Pool) -> Reload {
    let pool = pool.clone();
    tokio::spawn(async move { pool.reload().await })
}

async fn reloaded(reload: Reload) -> Result<(), ReloadError> {
    tokio::time::timeout(LONG_TIMEOUT, reload).await.expect("it comes to its end").expect("no panic")
}

/// Asserts that every slot has a worker with this version and that no other worker exists.
async fn assert_served(pool: &Pool, size: usize, expected: u32) {
    let mut leases = Vec::new();
    for _ in 0..size {
        let lease = pool.checkout().await.expect("no slot is lost");
        assert_eq!(lease.call::<_, u32>("version", ()).await.expect("the call succeeds"), expected);
        leases.push(lease);
    }
    let mut leased: Vec<u32> = leases.iter().map(hatchery::Lease::pid).collect();
    let mut known = pids(pool).await;
    leased.sort_unstable();
    known.sort_unstable();
    assert_eq!(leased, known);
    drop(leases);
    status_when(pool, "all are idle", |status| status.idle as usize == size).await;
}

alone_test! {
    async fn old_worker_killed_during_reload_is_replaced_once() {
        let pool = pool_of(&source(1)).size(1).start().await.expect("the pool starts");
        let old = pids(&pool).await[0];
        first_waits(22, STARTS, STARTS);
        let reload = begin_reload(&pool);
        wait_for_file("waiting").await;
        kill(old);
        let status = status_when(&pool, "the worker is replaced", |it| it.restarts == 1 && it.ready == 1).await;
        let between = status.workers[0].pid.expect("it is ready");
        version(&pool).await;
        touch("go");
        reloaded(reload).await.expect("the code is good");
        assert_served(&pool, 1, 22).await;
        assert!(!is_alive(between));
        assert_eq!(pool.status().await.expect("the pool runs").restarts, 1);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn all_workers_killed_during_reload_serve_new_code() {
        let pool = pool_of(&source(1)).size(3).start().await.expect("the pool starts");
        let old = pids(&pool).await;
        first_waits(22, STARTS, STARTS);
        let reload = begin_reload(&pool);
        wait_for_file("waiting").await;
        old.into_iter().for_each(kill);
        status_when(&pool, "all are replaced", |it| it.restarts == 3 && it.ready == 3).await;
        touch("go");
        reloaded(reload).await.expect("the code is good");
        assert_served(&pool, 3, 22).await;
        write(333);
        pool.reload().await.expect("the code is good");
        assert_served(&pool, 3, 333).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn failed_restart_during_reload_leaves_slot_to_new_worker() {
        let pool = pool_of(&source(1)).size(1).start().await.expect("the pool starts");
        let old = pids(&pool).await[0];
        first_waits(22, STARTS, FAILS);
        let reload = begin_reload(&pool);
        wait_for_file("waiting").await;
        kill(old);
        status_when(&pool, "its restart fails", |it| it.workers[0].state == WorkerState::Failed).await;
        touch("go");
        reloaded(reload).await.expect("the first is good");
        assert_served(&pool, 1, 22).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn worker_death_during_failed_reload_is_replaced() {
        let pool = pool_of(&source(1)).size(1).start().await.expect("the pool starts");
        let old = pids(&pool).await[0];
        // A failed fork is repeated as a cold start.
        first_waits(22, FAILS, &format!("if exists('go'): {FAILS}"));
        let reload = begin_reload(&pool);
        wait_for_file("waiting").await;
        kill(old);
        status_when(&pool, "the worker is replaced", |it| it.restarts == 1 && it.ready == 1).await;
        touch("go");
        let error = reloaded(reload).await.expect_err("the first is not good");
        assert!(matches!(error, ReloadError::RolledBack { .. }), "{error:?}");
        assert_served(&pool, 1, 22).await;
        write(22);
        kill(pids(&pool).await[0]);
        status_when(&pool, "the worker is replaced again", |it| it.restarts == 2 && it.ready == 1).await;
        write(333);
        pool.reload().await.expect("the code is good");
        assert_served(&pool, 1, 333).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn death_of_draining_old_worker_ends_the_reload_wait() {
        let pool = pool_of(&source(1)).size(2).start().await.expect("the pool starts");
        let lease = pool.checkout().await.expect("the worker is free");
        let (held, ()) = tokio::join!(pool.call::<_, u32>("hold", ("a",)), async {
            wait_for_file("a.began").await;
            let old = pids(&pool).await;
            write(22);
            let reload = begin_reload(&pool);
            // The second worker is replaced after the first has ended.
            for (slot, &pid) in old.iter().enumerate() {
                status_when(&pool, "it has a successor", |it| it.workers[slot].pid.is_some_and(|it| it != pid)).await;
                assert!(is_alive(pid));
                kill(pid);
            }
            reloaded(reload).await.expect("all are replaced");
        });
        assert!(matches!(held, Err(CallError::WorkerDied { .. })), "{held:?}");
        let leased = lease.call::<_, u32>("version", ()).await;
        assert!(matches!(leased, Err(CallError::WorkerDied { .. })), "{leased:?}");
        drop(lease);
        assert_served(&pool, 2, 22).await;
        assert_eq!(pool.status().await.expect("the pool runs").restarts, 0, "they were replaced already");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn death_of_new_worker_while_old_drains_is_replaced() {
        let pool = pool_of(&source(1)).size(1).start().await.expect("the pool starts");
        let old = pids(&pool).await[0];
        let (held, ()) = tokio::join!(fill_worker::<u32>(&pool, "hold", ("a",)), async {
            wait_for_file("a.began").await;
            write(22);
            let reload = begin_reload(&pool);
            let status =
                status_when(&pool, "the successor is there", |it| it.workers[0].pid.is_some_and(|it| it != old));
            kill(status.await.workers[0].pid.expect("it is there"));
            status_when(&pool, "the worker is replaced", |it| it.restarts == 1 && it.ready == 1).await;
            assert_eq!(version(&pool).await, 22);
            touch("a.go");
            reloaded(reload).await.expect("all are replaced");
        });
        assert_eq!(held.expect("it came to its end"), old);
        assert!(!is_alive(old));
        assert_served(&pool, 1, 22).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn reload_replaces_a_worker_still_starting() {
        let builder = pool_of("").size(2).min_ready(1);
        first_waits(1, STARTS, STARTS);
        let pool = builder.start().await.expect("one is ready");
        wait_for_file("waiting").await;
        write(22);
        pool.reload().await.expect("the code is good");
        assert_served(&pool, 2, 22).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn shutdown_while_reload_waits_for_a_worker_ends_both() {
        let pool = pool_of(&source(1)).size(1).start().await.expect("the pool starts");
        let lease = pool.checkout().await.expect("the worker is free");
        write(22);
        let reload = begin_reload(&pool);
        let old = lease.pid();
        status_when(&pool, "the successor is there", |it| it.workers[0].pid.is_some_and(|it| it != old)).await;
        tokio::time::timeout(LONG_TIMEOUT, pool.shutdown()).await.expect("it does not wait for it");
        let outcome = reloaded(reload).await;
        assert!(matches!(outcome, Err(ReloadError::Unavailable(_))), "{outcome:?}");
        assert!(lease.call::<_, u32>("version", ()).await.is_err());
    }
}
