//! Many callers, as tasks and on threads.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::{MODULE, alone_test, pids, pool_of};

alone_test! {
    async fn ten_thousand_callers_are_served_by_two_workers() {
        const CALLS: usize = 10_000;
        let (pool, long) = (pool_of(MODULE).size(2).queue_bound(CALLS), Duration::from_secs(50));
        let pool = pool.checkout_timeout(long).call_timeout(long).start().await.expect("the pool starts");
        let workers: BTreeSet<u32> = pids(&pool).await.into_iter().collect();
        let callers: Vec<_> = (0..CALLS)
            .map(|_| {
                let pool = pool.clone();
                actix::spawn(async move { pool.call::<_, u32>("pid", ()).await })
            })
            .collect();
        let mut served = BTreeSet::new();
        for caller in callers {
            served.insert(caller.await.expect("no panic").expect("the call succeeds"));
        }
        assert_eq!(served, workers, "both workers serve and no other");
        let status = pool.status().await.expect("the pool runs");
        assert_eq!((status.restarts, status.submitted, status.assigned), (0, CALLS as u64, CALLS as u64));
        pool.shutdown().await;
    }
}

alone_test! {
    tokio async fn callers_on_all_runtime_threads_are_served() {
        let pool = pool_of(MODULE).size(3).queue_bound(10_000).start().await.expect("the pool starts");
        let tasks: Vec<_> = (0..16u64)
            .map(|task| {
                let pool = pool.clone();
                tokio::spawn(async move {
                    for call in 0..100 {
                        let sum: u64 = pool.call("add", (task, call)).await.expect("the call succeeds");
                        assert_eq!(sum, task + call);
                    }
                    let lease = pool.checkout().await.expect("the call succeeds");
                    assert_eq!(lease.call::<_, u32>("pid", ()).await.expect("the call succeeds"), lease.pid());
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic");
        }
        let status = pool.status().await.expect("the pool runs");
        assert_eq!((status.submitted, status.assigned, status.restarts), (1616, 1616, 0));
        pool.shutdown().await;
    }
}

alone_test! {
    fn threads_with_their_own_runtimes_are_served() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let pool = runtime().block_on(crate::support::started(2));
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let pool = pool.clone();
                scope.spawn(move || {
                    runtime().block_on(async move {
                        for call in 0..50 {
                            let sum: u64 = pool.call("add", (thread, call)).await.expect("the call succeeds");
                            assert_eq!(sum, thread + call);
                        }
                    });
                });
            }
        });
        runtime().block_on(pool.shutdown());
    }
}
