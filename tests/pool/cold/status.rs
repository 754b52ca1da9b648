//! The pool status in each state of a worker.

use hatchery::WorkerState;

use crate::support::{MODULE, alone_test, kill, pool_of, status_when, touch, wait_for_file};

alone_test! {
    async fn status_reports_each_worker_state() {
        // Each import waits while there is a file `import.held`.
        let gated = format!(
            "import os, time\nwhile os.path.exists('import.held'):\n    time.sleep(0.002)\n{MODULE}"
        );
        touch("import.held");
        let pool = pool_of(&gated).name("states").size(3).min_ready(0).start().await.expect("the pool starts");
        let status = pool.status().await.expect("the pool runs");
        assert_eq!((status.name.as_str(), status.size, status.ready, status.draining), ("states", 3, 0, false));
        assert_eq!((status.mean_run, status.submitted), (None, 0));
        for (number, worker) in (1..).zip(&status.workers) {
            assert_eq!((worker.name.as_str(), worker.state), (format!("states-{number}").as_str(), WorkerState::Starting));
            assert_eq!((worker.pid, worker.restarts, worker.last_exit.as_deref()), (None, 0, None));
        }

        std::fs::remove_file(crate::support::scratch_file("import.held")).expect("it is there");
        let status = status_when(&pool, "all are ready", |status| status.idle == 3).await;
        assert_eq!((status.ready, status.busy, status.waiting), (3, 0, 0));
        assert!(status.workers.iter().all(|worker| worker.state == WorkerState::Idle && worker.pid.is_some()));

        let lease = pool.checkout().await.expect("a worker is free");
        let (held, ()) = tokio::join!(pool.call::<_, u32>("hold", ("a",)), async {
            wait_for_file("a.began").await;
            let status = pool.status().await.expect("the pool runs");
            assert_eq!((status.busy, status.idle, status.ready), (2, 1, 3));
            assert_eq!((status.submitted, status.assigned), (2, 2));
            let leased = status.workers.iter().find(|worker| worker.pid == Some(lease.pid())).expect("it lives");
            assert_eq!((leased.state, leased.name.as_str()), (WorkerState::Busy, lease.worker()));

            touch("import.held");
            let idle = status.workers.iter().find(|worker| worker.state == WorkerState::Idle).expect("the third");
            kill(idle.pid.expect("it is ready"));
            // The exit of the process is reported before the supervisor reports the restart.
            let restarting = |status: &hatchery::PoolStatus| {
                status.restarts > 0 && status.workers.iter().any(|worker| worker.state == WorkerState::Restarting)
            };
            let status = status_when(&pool, "the third is down", restarting).await;
            assert_eq!((status.ready, status.idle, status.busy, status.restarts), (2, 0, 2, 1));
            let down = status.workers.iter().find(|worker| worker.name == idle.name).expect("its place stays");
            assert_eq!((down.state, down.pid, down.restarts), (WorkerState::Restarting, None, 1));
            assert!(down.last_exit.as_deref().is_some_and(|how| how.contains("signal 9")));

            // Fill the capacity of the worker that holds a call.
            let queued_in_worker: Vec<_> = (1..crate::IN_FLIGHT)
                .map(|_| {
                    let pool = pool.clone();
                    actix::spawn(async move { pool.call::<_, u32>("hold", ("a",)).await })
                })
                .collect();
            let taken = |status: &hatchery::PoolStatus| status.in_flight as usize == 1 + crate::IN_FLIGHT;
            status_when(&pool, "the workers are full", taken).await;
            let (waited, ()) = tokio::join!(pool.call::<_, u32>("pid", ()), async {
                status_when(&pool, "one request is queued", |status| status.waiting == 1).await;
                std::fs::remove_file(crate::support::scratch_file("import.held")).expect("it is there");
            });
            waited.expect("served by the third, when it is back");
            touch("a.go");
            for call in queued_in_worker {
                call.await.expect("no panic").expect("the held call returns");
            }
        });
        held.expect("the held call returns");
        drop(lease);
        let status = status_when(&pool, "all are idle", |status| status.idle == 3).await;
        assert!(status.mean_run.is_some_and(|mean| !mean.is_zero()));
        let json = serde_json::to_value(&status).expect("the arguments can be encoded");
        assert_eq!((&json["idle"], &json["workers"][0]["state"]), (&3.into(), &"idle".into()));

        let pool = &pool;
        let (held, ()) = tokio::join!(pool.call::<_, u32>("hold", ("b",)), async {
            wait_for_file("b.began").await;
            tokio::join!(pool.shutdown(), async {
                // The broker ends first, so the status call may fail.
                if let Ok(status) = pool.status().await {
                    assert!(status.draining || status.busy == 1);
                }
                touch("b.go");
            });
        });
        held.expect("it may finish");
    }
}
