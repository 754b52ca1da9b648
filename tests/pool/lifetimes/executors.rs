//! The executors that a pool can be started and used from.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use actix::{Arbiter, System};
use tokio::sync::oneshot;

use crate::support::{MODULE, alone_test, pool_of, started, status_when};

/// Runs a future on this thread, without any runtime.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// Starts a pool here, uses it and ends it.
async fn use_a_pool() {
    let pool = started(2).await;
    let sum: u64 = pool.call("add", (1, 2)).await.expect("the call succeeds");
    let lease = pool.checkout().await.expect("a worker is free");
    assert_eq!((sum, lease.call::<_, u32>("pid", ()).await.expect("the call succeeds")), (3, lease.pid()));
    drop(lease);
    pool.shutdown().await;
}

fn current_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

alone_test! {
    async fn pool_on_its_own_arbiter_serves_in_a_system() {
        use_a_pool().await;
    }
}

alone_test! {
    async fn pool_on_the_current_arbiter_serves_in_a_system() {
        // One that closes descriptors comes and goes.
        let threads = || {
            let all = crate::support::threads(std::process::id()).into_values();
            all.filter(|name| !name.starts_with("hatchery-clos")).collect::<Vec<_>>()
        };
        let before = threads();
        let pool = pool_of(MODULE).size(1).on_current_arbiter().start().await.expect("the pool starts");
        assert_eq!(threads(), before, "it needs no thread");
        assert_eq!(pool.call::<_, u64>("add", (1, 2)).await.expect("the call succeeds"), 3);
        pool.shutdown().await;
        // The arbiter itself goes on.
        actix::spawn(async {}).await.expect("no panic");
        let pool = pool_of(MODULE).size(1).on_current_arbiter().start().await.expect("once more");
        assert_eq!(pool.call::<_, u64>("add", (1, 2)).await.expect("the call succeeds"), 3);
        pool.shutdown().await;
    }
}

alone_test! {
    tokio async fn pool_serves_under_multi_threaded_tokio() {
        use_a_pool().await;
        tokio::spawn(use_a_pool()).await.expect("no panic");
    }
}

alone_test! {
    fn pool_serves_under_single_threaded_tokio() {
        current_thread().block_on(use_a_pool());
    }
}

alone_test! {
    fn pool_serves_under_tokio_without_timers_or_io() {
        let bare = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        bare.block_on(use_a_pool());
    }
}

alone_test! {
    fn pool_serves_without_any_runtime() {
        block_on(use_a_pool());
    }
}

alone_test! {
    async fn pool_started_on_another_arbiter_serves_everywhere() {
        let arbiter = Arbiter::new();
        for on_current_arbiter in [false, true] {
            let (done, end) = oneshot::channel();
            arbiter.spawn(async move {
                let builder = pool_of(MODULE).size(1);
                let builder = if on_current_arbiter { builder.on_current_arbiter() } else { builder };
                let pool = builder.start().await.expect("the pool starts");
                assert_eq!(pool.call::<_, u64>("add", (1, 2)).await.expect("the call succeeds"), 3);
                let _ = done.send(pool);
            });
            let pool = end.await.expect("no panic");
            assert_eq!(pool.call::<_, u64>("add", (2, 2)).await.expect("it serves here too"), 4);
            pool.shutdown().await;
        }
        arbiter.stop();
        arbiter.join().expect("no panic");
    }
}

alone_test! {
    fn twenty_successive_systems_each_run_a_pool() {
        for round in 0..20 {
            System::new().block_on(async move {
                let pool = started(1).await;
                assert_eq!(pool.call::<_, u64>("add", (round, 1)).await.expect("the call succeeds"), round + 1);
                match round % 3 {
                    0 => pool.shutdown().await,
                    1 => drop(pool),
                    _ => System::current().stop(),
                }
            });
        }
    }
}

alone_test! {
    fn pool_started_outside_a_system_serves_inside_and_after() {
        let pool = block_on(started(1));
        for round in 0..3 {
            let pool = pool.clone();
            System::new().block_on(async move {
                assert_eq!(pool.call::<_, u64>("add", (round, 1)).await.expect("the call succeeds"), round + 1);
                System::current().stop();
            });
        }
        assert_eq!(block_on(pool.call::<_, u64>("add", (1, 1))).expect("it does not belong to them"), 2);
        block_on(pool.shutdown());
    }
}

alone_test! {
    tokio async fn many_pools_run_independently() {
        let mut pools = Vec::new();
        for number in 0..4 {
            let pool = pool_of(MODULE).name(format!("pool-{number}")).size(1).start().await;
            pools.push(pool.expect("the pool starts"));
        }
        for pool in &pools {
            assert_eq!(pool.call::<_, u32>("count", ()).await.expect("the call succeeds"), 1);
        }
        let last = pools.pop().expect("four");
        drop(pools);
        assert_eq!(last.call::<_, u32>("count", ()).await.expect("the others' end is not its own"), 2);
        status_when(&last, "its worker is free", |status| status.idle == 1).await;
        last.shutdown().await;
    }
}
