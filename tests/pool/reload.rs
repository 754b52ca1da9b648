//! New code in a running pool.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use hatchery::{Pool, ReloadError, StartPhase, WorkerStartError};

use crate::support::{
    MODULE, SOON, alone_test, in_all_places, is_alive, noted, pids, pool_of, python_module, scratch,
    status_when, touch, wait_until,
};

/// The module, of this version. Each is of another length: Python tells a changed file by that and by the second.
fn source(version: u32) -> String {
    format!("{MODULE}\n\ndef version():\n    return {version}{}\n", " ".repeat(version as usize))
}

fn write(version: u32) {
    python_module(&scratch(), "subject", &source(version));
}

async fn version(pool: &Pool) -> u32 {
    pool.call("version", ()).await.expect("it serves")
}

alone_test! {
    async fn a_reload_replaces_all_workers_by_the_present_code() {
        let pool = pool_of(&source(1)).size(3).start().await.expect("it starts");
        assert_eq!(version(&pool).await, 1);
        for to in 2..=3 {
            let before = pids(&pool).await;
            let template = pool.status().await.expect("it runs").zygote.and_then(|zygote| zygote.pid);
            write(to);
            pool.reload().await.expect("the code is good");
            let status = pool.status().await.expect("it runs");
            assert_eq!((status.size, status.ready, status.restarts), (3, 3, 0));
            assert!(status.workers.iter().all(|worker| worker.forked == Some(crate::ZYGOTE)), "{status:?}");
            assert!(before.iter().all(|&pid| !is_alive(pid)));
            if let Some(template) = template {
                assert_ne!(status.zygote.and_then(|zygote| zygote.pid), Some(template));
                wait_until("the old template is gone", SOON, || !is_alive(template)).await;
            }
            let mut leases = Vec::new();
            for _ in 0..3 {
                let lease = pool.checkout().await.expect("each once");
                assert_eq!(lease.call::<_, u32>("version", ()).await.expect("it serves"), to);
                leases.push(lease);
            }
        }
        pool.shutdown().await;
    }
}

alone_test! {
    async fn no_call_fails_during_a_reload() {
        let pool = pool_of(&source(1)).size(2).start().await.expect("it starts");
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
        assert_eq!(pool.status().await.expect("it runs").restarts, 0);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn code_that_does_not_start_changes_nothing() {
        let pool = pool_of(&source(1)).size(2).start().await.expect("it starts");
        let before = pids(&pool).await;
        python_module(&scratch(), "subject", "import no_such_module\n");
        let error = pool.reload().await.expect_err("the code is bad");
        let ReloadError::RolledBack { cause } = &error else { panic!("{error:?}") };
        assert!(matches!(&**cause, WorkerStartError::Python { phase: StartPhase::Import, .. }), "{error:?}");
        // It imports well, but no worker of it starts.
        let hook = "import hatchery\n\n@hatchery.on_start\ndef refuse():\n    raise OSError('no model')\n";
        python_module(&scratch(), "subject", &format!("{}{hook}", source(22)));
        let error = pool.reload().await.expect_err("the code is bad");
        let ReloadError::RolledBack { cause } = &error else { panic!("{error:?}") };
        assert!(matches!(&**cause, WorkerStartError::Python { phase: StartPhase::OnStart, .. }), "{error:?}");

        assert_eq!(pids(&pool).await, before);
        assert_eq!(version(&pool).await, 1);
        if crate::ZYGOTE {
            // The old template is the template again.
            crate::support::kill(before[0]);
            let status = status_when(&pool, "it is replaced", |it| it.restarts == 1 && it.idle == 2).await;
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
    async fn a_call_and_a_lease_are_waited_for() {
        let pool = pool_of(&source(1)).size(2).start().await.expect("it starts");
        let lease = pool.checkout().await.expect("it is free");
        let leased = lease.pid();
        let (held, ()) = tokio::join!(in_all_places::<u32>(&pool, "hold", ("a",)), async {
            noted("a.began").await;
            write(22);
            let reload = {
                let pool = pool.clone();
                tokio::spawn(async move { pool.reload().await })
            };
            // Both slots have busy workers: a successor of the first serves others meanwhile.
            let served = async {
                let mut new = pool.call::<_, u32>("version", ()).await;
                while !matches!(new, Ok(22)) {
                    new = pool.call("version", ()).await;
                }
            };
            tokio::time::timeout(SOON, served).await.expect("the successor serves");
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
    async fn a_pool_can_be_shut_down_in_the_middle_of_a_reload() {
        let pool = pool_of(&source(1)).size(1).start().await.expect("it starts");
        python_module(&scratch(), "subject", "import time\n\nopen('importing', 'w').close()\ntime.sleep(1000)\n");
        let reload = {
            let pool = pool.clone();
            tokio::spawn(async move { pool.reload().await })
        };
        noted("importing").await;
        assert_eq!(version(&pool).await, 1, "the old one serves");
        tokio::time::timeout(Duration::from_secs(10), pool.shutdown()).await.expect("it does not wait for it");
        assert!(matches!(reload.await.expect("no panic"), Err(ReloadError::Unavailable(_))));
    }
}
