//! Workers that import the module and become ready one by one.

use std::collections::BTreeSet;

use hatchery::WorkerState;

use crate::support::{alone_test, pids, pool_of, status_when, touch};

/// The import waits until three workers import.
const THREE_IMPORTS: &str = r#"
import os, time

open(f"importing.{os.getpid()}", "w").close()
end = time.monotonic() + 60
while sum(name.startswith("importing.") for name in os.listdir(".")) < 3:
    if time.monotonic() > end:
        raise TimeoutError("the others are not started")
    time.sleep(0.002)


def pid():
    return os.getpid()
"#;

/// The first worker is ready at once; the others wait for a file.
const ONE_AT_FIRST: &str = r#"
import os, time

try:
    os.close(os.open("first", os.O_CREAT | os.O_EXCL))
except FileExistsError:
    while not os.path.exists("others.go"):
        time.sleep(0.002)


def pid():
    return os.getpid()
"#;

alone_test! {
    async fn workers_start_in_parallel() {
        let pool = pool_of(THREE_IMPORTS).size(3).start().await.expect("all three import at once");
        let status = pool.status().await.expect("the pool runs");
        assert_eq!((status.size, status.ready, status.idle), (3, 3, 3));
        assert_eq!(pids(&pool).await.into_iter().collect::<BTreeSet<_>>().len(), 3);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn only_ready_workers_serve_calls() {
        let pool = pool_of(ONE_AT_FIRST).size(3).min_ready(1).start().await.expect("one is ready");
        let status = pool.status().await.expect("the pool runs");
        assert_eq!((status.ready, status.idle), (1, 1));
        let starting = status.workers.iter().filter(|worker| worker.state == WorkerState::Starting);
        assert_eq!(starting.count(), 2);
        let ready = pids(&pool).await;
        assert_eq!(ready.len(), 1);
        for _ in 0..20 {
            assert_eq!(pool.call::<_, u32>("pid", ()).await.expect("the ready one serves"), ready[0]);
        }
        let lease = pool.checkout().await.expect("the ready one");
        assert_eq!(lease.pid(), ready[0]);
        touch("others.go");
        // The first worker is leased, so only another worker can answer.
        let other: u32 = pool.call("pid", ()).await.expect("another one became ready");
        assert_ne!(other, ready[0]);
        drop(lease);
        status_when(&pool, "all are ready", |status| status.idle == 3).await;
        pool.shutdown().await;
    }
}
