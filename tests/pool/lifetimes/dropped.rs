//! Pools that are dropped.

use std::io::{BufRead, BufReader, Write};

use actix::System;
use futures_util::future::poll_immediate;
use hatchery::Call;

use super::executors::block_on;
use crate::support::{
    LONG_TIMEOUT, alone_test, is_alive, pids, role, start_role, started, test_path, touch, wait_for_file,
    wait_for_file_blocking, wait_until, wait_until_blocking,
};

alone_test! {
    async fn last_drop_kills_the_workers_without_waiting() {
        let pool = started(1).await;
        let worker = pids(&pool).await[0];
        // A message keeps no pool alive.
        let running = actix::spawn(pool.actor().send(Call::new("sleep", (60,)).expect("a number")));
        let waiting = actix::spawn(pool.actor().send(Call::new("pid", ()).expect("no arguments")));
        wait_for_file("sleeping").await;
        drop(pool);
        // Had the drop waited for the call, this would be its result.
        let running = running.await.expect("no panic");
        assert!(!matches!(running, Ok(Ok(_))), "{running:?}");
        let waiting = waiting.await.expect("no panic");
        assert!(!matches!(waiting, Ok(Ok(_))), "{waiting:?}");
        wait_until("the worker is dead", LONG_TIMEOUT, || !is_alive(worker)).await;
    }
}

alone_test! {
    tokio async fn pool_lives_until_its_last_handle_is_dropped() {
        let pool = started(1).await;
        let clones: Vec<_> = (0..10).map(|_| pool.clone()).collect();
        drop(pool);
        for clone in clones {
            assert_eq!(clone.call::<_, u64>("add", (1, 2)).await.expect("the call succeeds"), 3);
        }
    }
}

alone_test! {
    async fn lease_keeps_its_pool_alive() {
        let pool = started(2).await;
        let workers = pids(&pool).await;
        let lease = pool.checkout().await.expect("a worker is free");
        drop(pool);
        for expected in 1..=3 {
            assert_eq!(lease.call::<_, u32>("count", ()).await.expect("the call succeeds"), expected);
        }
        assert!(workers.iter().all(|&pid| is_alive(pid)));
        drop(lease);
        wait_until("all workers are dead", LONG_TIMEOUT, || !workers.iter().any(|&pid| is_alive(pid))).await;
    }
}

alone_test! {
    async fn running_call_keeps_its_pool_alive() {
        let pool = started(1).await;
        let caller = actix::spawn({
            let pool = pool.clone();
            async move { pool.call::<_, u32>("hold", ("a",)).await }
        });
        wait_for_file("a.began").await;
        drop(pool);
        touch("a.go");
        caller.await.expect("no panic").expect("it ends well");
    }
}

alone_test! {
    tokio async fn pool_can_be_dropped_in_a_task_or_on_another_thread() {
        let pool = started(1).await;
        tokio::spawn(async move { drop(pool) }).await.expect("no panic");
        let pool = started(1).await;
        std::thread::spawn(move || drop(pool)).join().expect("no panic");
    }
}

alone_test! {
    async fn pool_on_the_current_arbiter_can_be_dropped_there() {
        let pool = crate::support::pool_of(crate::support::MODULE).size(1).on_current_arbiter();
        let pool = pool.start().await.expect("the pool starts");
        let worker = pids(&pool).await[0];
        drop(pool);
        wait_until("the worker is dead", LONG_TIMEOUT, || !is_alive(worker)).await;
    }
}

alone_test! {
    fn pool_can_be_dropped_without_a_runtime() {
        let pool = block_on(started(2));
        let workers = block_on(pids(&pool));
        drop(pool);
        wait_until_blocking("all are dead", LONG_TIMEOUT, || !workers.iter().any(|&pid| is_alive(pid)));
    }
}

alone_test! {
    async fn pool_dropped_during_its_shutdown_is_killed() {
        let pool = started(1).await;
        let worker = pids(&pool).await[0];
        let broker = pool.actor();
        let running = actix::spawn(broker.send(Call::new("sleep", (60,)).expect("a number")));
        wait_for_file("sleeping").await;
        {
            let shutdown = pool.shutdown();
            let mut shutdown = std::pin::pin!(shutdown);
            assert!(poll_immediate(shutdown.as_mut()).await.is_none());
        }
        drop(pool);
        let answer = running.await.expect("no panic");
        assert!(!matches!(answer, Ok(Ok(_))), "{answer:?}");
        wait_until("the worker is dead", LONG_TIMEOUT, || !is_alive(worker)).await;
    }
}

/// Runs `main` in a second process, which prints its worker's process id, and checks that neither is left.
fn assert_nothing_is_left_by(test: &str, main: impl FnOnce()) {
    if role().is_some() {
        return main();
    }
    let mut host = start_role(test, "host");
    let lines = BufReader::new(host.stdout.take().expect("a pipe")).lines();
    let worker =
        lines.map_while(Result::ok).find_map(|line| line.strip_prefix("worker ")?.parse::<u32>().ok());
    let worker = worker.expect("it had a worker");
    wait_for_file_blocking("sleeping");
    let status = host.wait().expect("the process is our child");
    assert!(status.success(), "{status}");
    wait_until_blocking("the worker is dead", LONG_TIMEOUT, || !is_alive(worker));
}

/// Starts a pool whose worker is in a call that does not end.
async fn busy_pool() -> hatchery::Pool {
    let pool = started(1).await;
    pool.actor().do_send(Call::new("sleep", (600,)).expect("a number")).expect("the broker is up");
    wait_for_file("sleeping").await;
    println!("worker {}", pids(&pool).await[0]);
    std::io::stdout().flush().expect("the test reads");
    pool
}

alone_test! {
    fn main_that_returns_without_shutdown_leaves_nothing() {
        assert_nothing_is_left_by(test_path!(main_that_returns_without_shutdown_leaves_nothing), || {
            System::new().block_on(async {
                let _pool = busy_pool().await;
            });
        });
    }
}

alone_test! {
    fn main_that_exits_leaves_nothing() {
        assert_nothing_is_left_by(test_path!(main_that_exits_leaves_nothing), || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            let _pool = runtime.block_on(busy_pool());
            std::process::exit(0);
        });
    }
}

alone_test! {
    fn main_that_forgets_its_pool_leaves_nothing() {
        assert_nothing_is_left_by(test_path!(main_that_forgets_its_pool_leaves_nothing), || {
            System::new().block_on(async { std::mem::forget(busy_pool().await) });
        });
    }
}

alone_test! {
    async fn message_to_a_dropped_pool_is_refused() {
        let pool = started(1).await;
        let broker = pool.actor();
        drop(pool);
        wait_until("it has ended", LONG_TIMEOUT, || broker.addr().is_none()).await;
        let answer = broker.send(Call::new("pid", ()).expect("no arguments")).await;
        assert!(answer.is_err(), "{answer:?}");
    }
}
