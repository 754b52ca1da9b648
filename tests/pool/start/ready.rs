//! Starts that succeed.

use std::time::Duration;

use hatchery::WorkerState;

use crate::support::{
    LONG_TIMEOUT, MODULE, alone_test, is_alive, kill, pids, pool_of, started, status_when, touch, wait_until,
};

/// The import waits for a file.
const GATED: &str = r#"
import os, time

while not os.path.exists("import.go"):
    time.sleep(0.002)


def pid():
    return os.getpid()
"#;

alone_test! {
    async fn start_with_min_ready_zero_queues_calls() {
        let pool = pool_of(GATED).size(2).min_ready(0).start().await.expect("the start does not wait for workers");
        let (answer, ()) = tokio::join!(pool.call::<_, u32>("pid", ()), async {
            let status = status_when(&pool, "the call is queued", |status| status.waiting == 1).await;
            assert_eq!(status.ready, 0);
            assert!(status.workers.iter().all(|worker| worker.state == WorkerState::Starting));
            assert!(status.workers.iter().all(|worker| worker.pid.is_none() && worker.restarts == 0));
            touch("import.go");
        });
        assert!(answer.is_ok(), "{answer:?}");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn shutdown_without_ready_workers_drains_the_queue() {
        let pool = pool_of(GATED).size(2).min_ready(0).start().await.expect("the start does not wait for workers");
        let (answer, ()) = tokio::join!(pool.call::<_, u32>("pid", ()), async {
            status_when(&pool, "the call is queued", |status| status.waiting == 1).await;
            pool.shutdown().await;
        });
        assert!(matches!(answer, Err(hatchery::CallError::Draining)), "{answer:?}");
    }
}

alone_test! {
    async fn calls_wait_while_a_worker_backs_off() {
        let pool = started(1).await;
        // The first three restarts are immediate; later ones wait for the back-off.
        for death in 1..=5 {
            let pid = pids(&pool).await[0];
            kill(pid);
            let gone = |status: &hatchery::PoolStatus| status.restarts == death;
            status_when(&pool, "the death of the worker is counted", gone).await;
            assert_ne!(pool.call::<_, u32>("pid", ()).await.expect("the call waits for the next one"), pid);
            assert!(!is_alive(pid));
        }
        let status = pool.status().await.expect("the pool runs");
        assert_eq!((status.restarts, status.unavailable, status.timed_out_waiting), (5, 0, 0));
        assert!(status.workers[0].last_exit.as_deref().is_some_and(|how| how.contains("signal 9")));
        pool.shutdown().await;
    }
}

alone_test! {
    async fn dropped_start_leaves_nothing_behind() {
        let start = pool_of(GATED).size(2).start();
        let gave_up = tokio::time::timeout(Duration::from_millis(300), start).await;
        assert!(gave_up.is_err());
        // The harness checks for leaked processes and threads.
    }
}

alone_test! {
    async fn two_pools_in_one_process_are_independent() {
        let first = started(1).await;
        let second = pool_of(MODULE).name("second").size(1).start().await.expect("the pool starts");
        assert_eq!((first.name(), second.name()), ("subject", "second"));
        assert_eq!(second.status().await.expect("the pool runs").workers[0].name, "second-1");
        first.shutdown().await;
        let one: u32 = second.call("add", (1, 0)).await.expect("pools are independent");
        assert_eq!(one, 1);
        second.shutdown().await;
        wait_until("nothing is left", LONG_TIMEOUT, || crate::support::descendants(std::process::id()).is_empty()).await;
    }
}
