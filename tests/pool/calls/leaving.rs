//! Callers that drop their call before its result.

use std::time::Duration;

use hatchery::{Call, Checkout, Pool};

use crate::support::{
    LONG_TIMEOUT, MODULE, alone_test, fill_worker, is_alive, lines, pending_calls, pids, pool_of,
    scratch_file, started, status_when, touch, wait_for_file,
};

fn spawn(pool: &Pool, function: &'static str, name: &'static str) -> actix_rt::task::JoinHandle<()> {
    let pool = pool.clone();
    actix::spawn(async move {
        let _ = pool.call::<_, u32>(function, (name,)).await;
    })
}

fn spawn_hold(pool: &Pool, name: &'static str) -> actix_rt::task::JoinHandle<()> {
    let pool = pool.clone();
    actix::spawn(async move {
        let _ = fill_worker::<u32>(&pool, "hold", (name,)).await;
    })
}

alone_test! {
    async fn call_dropped_in_the_queue_never_runs() {
        let pool = started(1).await;
        let held = spawn_hold(&pool, "a");
        wait_for_file("a.began").await;
        let leaving = spawn(&pool, "hold", "b");
        let leaving_checkout = actix::spawn({
            let pool = pool.clone();
            async move { pool.checkout().await.map(drop) }
        });
        status_when(&pool, "both requests are queued", |status| status.waiting == 2).await;
        leaving.abort();
        leaving_checkout.abort();
        let status = status_when(&pool, "the queue is empty", |status| status.waiting == 0).await;
        assert_eq!((status.abandoned, status.busy), (2, 1));
        touch("a.go");
        held.await.expect("no panic");
        status_when(&pool, "the worker is free", |status| status.idle == 1).await;
        assert_eq!(pool.call::<_, u32>("count", ()).await.expect("the call succeeds"), 1);
        assert!(!scratch_file("b.began").exists());
        pool.shutdown().await;
    }
}

alone_test! {
    async fn dropped_message_future_removes_the_queued_request() {
        let pool = started(1).await;
        let broker = pool.actor();
        let held = spawn_hold(&pool, "a");
        wait_for_file("a.began").await;
        let call = Box::pin(broker.send(Call::new("hold", ("b",)).expect("the arguments can be encoded")));
        let checkout = Box::pin(broker.send(Checkout::default()));
        // A message without a receiver for its result still runs.
        broker.do_send(Call::new("append", ("done", "x")).expect("the arguments can be encoded")).expect("it lives");
        status_when(&pool, "all requests are queued", |status| status.waiting == 3).await;
        drop((call, checkout));
        let status = status_when(&pool, "one request is queued", |status| status.waiting == 1).await;
        assert_eq!((status.abandoned, status.busy), (2, 1));
        touch("a.go");
        held.await.expect("no panic");
        status_when(&pool, "the worker is free", |status| status.idle == 1).await;
        assert_eq!(lines("done"), ["x"]);
        assert!(!scratch_file("b.began").exists());
        pool.shutdown().await;
    }
}

alone_test! {
    async fn dropped_call_keeps_worker_busy_until_cancelled() {
        let pool = pool_of(MODULE).size(1).cancel_grace(LONG_TIMEOUT).start().await.expect("the pool starts");
        let worker = pids(&pool).await;
        let leaving = spawn(&pool, "leave", "a");
        wait_for_file("a.began").await;
        leaving.abort();
        assert!(leaving.await.expect_err("it is gone").is_cancelled());
        wait_for_file("a.cancelled").await;
        let (ended, ()) = tokio::join!(pool.call::<_, bool>("exists", ("a.ended",)), async {
            let status = status_when(&pool, "the next one waits", |status| pending_calls(status) == 1).await;
            assert_eq!((status.busy, status.idle), (1, 0));
            touch("a.go");
        });
        assert!(ended.expect("the call succeeds"), "the abandoned call had ended by then");
        let status = pool.status().await.expect("the pool runs");
        assert_eq!((status.restarts, status.abandoned), (0, 0));
        assert_eq!(pids(&pool).await, worker);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn dropped_call_that_ignores_cancel_kills_the_worker() {
        let pool = pool_of(MODULE).size(1).cancel_grace(Duration::from_millis(300)).start().await;
        let pool = pool.expect("the pool starts");
        let worker = pids(&pool).await[0];
        let leaving = spawn(&pool, "stay", "a");
        wait_for_file("a.began").await;
        leaving.abort();
        assert_ne!(pool.call::<_, u32>("pid", ()).await.expect("another one serves"), worker);
        assert!(!is_alive(worker));
        let status = pool.status().await.expect("the pool runs");
        let how = status.workers[0].last_exit.clone().expect("it was replaced");
        assert!(status.restarts == 1 && how.contains("did not give up in time"), "{how}");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn call_never_awaited_is_never_sent() {
        let pool = started(1).await;
        drop(pool.call::<_, ()>("append", ("never", "x")));
        drop(pool.checkout());
        assert_eq!(pool.status().await.expect("the pool runs").submitted, 0);
        assert!(lines("never").is_empty());
        pool.shutdown().await;
    }
}
