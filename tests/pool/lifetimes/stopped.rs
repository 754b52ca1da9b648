//! Pools whose System or arbiter stops under them.

use actix::{Arbiter, System};
use hatchery::{Call, CallError, Lease, Pool};
use tokio::sync::oneshot;

use super::executors::block_on;
use super::shutdown::assert_ended;
use crate::support::{
    LONG_TIMEOUT, MODULE, alone_test, is_alive, pids, pool_of, scratch_file, started, wait_for_file,
    wait_until, wait_until_blocking,
};

/// A pool with a worker that has as many long calls as it takes, and a lease of the other one.
async fn busy_pool(on_current_arbiter: bool) -> (Pool, Lease) {
    let builder = pool_of(MODULE).size(2);
    let builder = if on_current_arbiter { builder.on_current_arbiter() } else { builder };
    let pool = builder.start().await.expect("the pool starts");
    let lease = pool.checkout().await.expect("a worker is free");
    // An earlier pool's says nothing of this one.
    let _ = std::fs::remove_file(scratch_file("sleeping"));
    for _ in 0..crate::IN_FLIGHT {
        pool.actor().do_send(Call::new("sleep", (600,)).expect("a number")).expect("the broker is up");
    }
    wait_for_file("sleeping").await;
    (pool, lease)
}

fn assert_gone(pool: &Pool, lease: &Lease, workers: &[u32]) {
    wait_until_blocking("the workers are dead", LONG_TIMEOUT, || !workers.iter().any(|&pid| is_alive(pid)));
    wait_until_blocking("the broker has ended", LONG_TIMEOUT, || pool.actor().addr().is_none());
    block_on(assert_ended(pool));
    let error = block_on(lease.call::<_, u32>("pid", ())).expect_err("its worker is dead");
    assert!(matches!(error, CallError::WorkerDied { started: false, .. }), "{error:?}");
    // A shutdown afterwards finds nothing to do.
    block_on(pool.shutdown());
}

alone_test! {
    fn stopped_system_ends_its_pools() {
        for on_current_arbiter in [false, true] {
            let system = System::new();
            let (pool, lease) = system.block_on(busy_pool(on_current_arbiter));
            let workers = system.block_on(pids(&pool));
            system.block_on(async { System::current().stop() });
            system.run().expect("it stops");
            assert_eq!(workers.len(), 2);
            assert_gone(&pool, &lease, &workers);
        }
    }
}

alone_test! {
    async fn stopped_arbiter_ends_its_pool() {
        let arbiter = Arbiter::new();
        let (give, take) = oneshot::channel();
        arbiter.spawn(async move {
            let (pool, lease) = busy_pool(true).await;
            let workers = pids(&pool).await;
            let _ = give.send((pool, lease, workers));
        });
        let (pool, lease, workers) = take.await.expect("no panic");
        // A caller that waits is told too.
        let waiting = actix::spawn({
            let pool = pool.clone();
            async move { pool.call::<_, u32>("pid", ()).await }
        });
        let broker = pool.actor();
        crate::support::status_when(&pool, "the request is queued", |status| status.waiting == 1).await;
        arbiter.stop();
        let answer = waiting.await.expect("no panic");
        assert!(answer.is_err(), "{answer:?}");
        wait_until("the broker has ended", LONG_TIMEOUT, || broker.addr().is_none()).await;
        arbiter.join().expect("no panic");
        assert_gone(&pool, &lease, &workers);
    }
}

alone_test! {
    async fn running_call_fails_when_its_arbiter_stops() {
        let arbiter = Arbiter::new();
        let (give, take) = oneshot::channel();
        arbiter.spawn(async move {
            let pool = pool_of(MODULE).size(1).on_current_arbiter().start().await.expect("the pool starts");
            let _ = give.send(pool);
        });
        let pool = take.await.expect("no panic");
        let running = actix::spawn({
            let pool = pool.clone();
            async move { pool.call::<_, u32>("hold", ("a",)).await }
        });
        wait_for_file("a.began").await;
        arbiter.stop();
        let error = running.await.expect("no panic").expect_err("it was ended");
        assert!(matches!(error, CallError::WorkerDied { started: true, attempts: 1, .. }), "{error:?}");
        arbiter.join().expect("no panic");
        assert_ended(&pool).await;
    }
}

alone_test! {
    fn system_stop_during_start_fails_the_start() {
        let source = "import time\nopen('importing', 'w').close()\ntime.sleep(600)\n";
        System::new().block_on(async {
            let start = actix::spawn(pool_of(source).size(1).start());
            wait_for_file("importing").await;
            System::current().stop();
            let started = start.await.expect("no panic");
            assert!(matches!(started, Err(hatchery::PoolStartError::Stopped)), "{started:?}");
        });
    }
}

alone_test! {
    fn dropped_system_ends_its_pools() {
        // It was never told to stop: the thread that ran it just went on to something else.
        let (pool, workers) = System::new().block_on(async {
            let pool = pool_of(MODULE).size(1).on_current_arbiter().start().await.expect("the pool starts");
            let workers = pids(&pool).await;
            (pool, workers)
        });
        wait_until_blocking("the workers are dead", LONG_TIMEOUT, || !workers.iter().any(|&pid| is_alive(pid)));
        block_on(assert_ended(&pool));
        let next = block_on(started(1));
        block_on(next.shutdown());
    }
}
