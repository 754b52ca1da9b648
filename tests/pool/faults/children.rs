//! Processes and threads that user code starts.

use std::path::PathBuf;

use hatchery::CallError;
use serde_json::Value;

use super::pools::{pid, pool_of, serves, start, status};
use crate::support::{
    LONG_TIMEOUT, alone_test, is_alive, kill, pgid, scratch, status_when, terminate, wait_until,
};

const SOURCE: &str = "
import os, subprocess, threading, time

def fork_sleeper():
    pid = os.fork()
    if pid == 0:
        time.sleep(1000)
        os._exit(0)
    return pid

def start_sleeper(**options):
    return subprocess.Popen(['sleep', '1000'], **options).pid

def fork_and_return():
    # Both processes return from here: only one of them may answer.
    return 'child' if os.fork() == 0 else 'parent'

def fork_and_raise():
    if os.fork() == 0:
        raise RuntimeError('in the child')
    return 'parent'

def pool_of_processes():
    import multiprocessing
    with multiprocessing.get_context('fork').Pool(2) as pool:
        return pool.map(abs, [-1, -2, -3])

def run_on():
    def count():
        while True:
            counted[0] += 1
    threading.Thread(target=count, daemon=True).start()

kept = []
def make_shared_memory():
    from multiprocessing.shared_memory import SharedMemory
    kept.append(SharedMemory(create=True, size=4096))
    return '/dev/shm/' + kept[-1].name.lstrip('/')

def wait_for(path):
    open(path + '.began', 'w').close()
    while not os.path.exists(path):
        time.sleep(0.001)
    return 'finished'

counted = [0]
def count():
    return counted[0]

def exit_with(code):
    os._exit(code)
";

alone_test! {
    async fn children_of_a_worker_die_with_it() {
        let pool = start(pool_of(SOURCE)).await;
        for end in ["exit", "kill"] {
            let worker = pid(&pool).await;
            let mut children: Vec<u32> = Vec::new();
            for function in ["fork_sleeper", "start_sleeper"] {
                children.push(pool.call(function, ()).await.expect("the call succeeds"));
            }
            assert!(children.iter().all(|&child| is_alive(child) && pgid(child) == Some(worker)));
            let restarts = status(&pool).await.restarts;
            if end == "exit" {
                let error = pool.call::<_, Value>("exit_with", (3,)).await.expect_err("the worker dies");
                assert!(matches!(error, CallError::WorkerDied { exit: Some(3), .. }), "{error:?}");
            } else {
                kill(worker);
                status_when(&pool, "the worker is replaced", |status| status.restarts > restarts && status.ready == 1).await;
            }
            wait_until("its children are dead", LONG_TIMEOUT, || !children.iter().any(|&child| is_alive(child))).await;
            serves(&pool).await;
        }
        pool.shutdown().await;
    }
}

alone_test! {
    async fn children_of_workers_die_when_the_pool_ends() {
        let pool = start(pool_of(SOURCE)).await;
        let forked: u32 = pool.call("fork_sleeper", ()).await.expect("the call succeeds");
        let started: u32 = pool.call("start_sleeper", ()).await.expect("the call succeeds");
        assert!(is_alive(forked) && is_alive(started));
        pool.shutdown().await;
        wait_until("its children are dead", LONG_TIMEOUT, || !is_alive(forked) && !is_alive(started)).await;
    }
}

alone_test! {
    async fn child_outside_the_group_does_not_delay_the_pool() {
        let pool = start(pool_of(SOURCE)).await;
        // It holds standard output and error of the worker open; the documented escape.
        let escaped: u32 = pool.request("start_sleeper").kwargs(serde_json::json!({"start_new_session": true}))
            .send().await.expect("it runs");
        let error = pool.call::<_, Value>("exit_with", (3,)).await.expect_err("the worker dies");
        assert!(matches!(error, CallError::WorkerDied { exit: Some(3), .. }), "{error:?}");
        serves(&pool).await;
        pool.shutdown().await;
        assert!(is_alive(escaped));
        kill(escaped);
    }
}

alone_test! {
    async fn forked_child_does_not_answer_for_its_parent() {
        let pool = start(pool_of(SOURCE)).await;
        let worker = pid(&pool).await;
        for _ in 0..5 {
            assert_eq!(pool.call::<_, String>("fork_and_return", ()).await.expect("one answers"), "parent");
            serves(&pool).await;
            assert_eq!(pool.call::<_, String>("fork_and_raise", ()).await.expect("one answers"), "parent");
            serves(&pool).await;
        }
        assert_eq!((pid(&pool).await, status(&pool).await.restarts), (worker, 0));
        pool.shutdown().await;
    }
}

alone_test! {
    async fn multiprocessing_works_in_a_worker() {
        let pool = start(pool_of(SOURCE)).await;
        let mapped: Vec<u32> = pool.call("pool_of_processes", ()).await.expect("the call succeeds");
        assert_eq!(mapped, [1, 2, 3]);
        serves(&pool).await;
        assert_eq!(status(&pool).await.restarts, 0);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn shared_memory_ends_with_its_worker() {
        let pool = start(pool_of(SOURCE)).await;
        let killed: PathBuf = pool.call("make_shared_memory", ()).await.expect("the call succeeds");
        let restarts = status(&pool).await.restarts;
        kill(pid(&pool).await);
        wait_until("the tracker has removed it", LONG_TIMEOUT, || !killed.exists()).await;
        status_when(&pool, "the worker is replaced", |status| status.restarts > restarts && status.ready == 1).await;
        let kept: PathBuf = pool.call("make_shared_memory", ()).await.expect("the call succeeds");
        assert!(kept.exists());
        pool.shutdown().await;
        assert!(!kept.exists(), "an orderly end waits for the tracker");
    }
}

alone_test! {
    async fn sigterm_to_a_worker_does_not_stop_its_call() {
        let pool = start(pool_of(SOURCE)).await;
        let worker = pid(&pool).await;
        let go = scratch().join("go");
        let running = tokio::spawn({
            let (pool, go) = (pool.clone(), go.clone());
            async move { pool.call::<_, String>("wait_for", (go,)).await }
        });
        let began = scratch().join("go.began");
        wait_until("the call has started", LONG_TIMEOUT, || began.exists()).await;
        terminate(worker);
        std::fs::write(go, "").expect("the scratch folder is writable");
        assert_eq!(running.await.expect("no panic").expect("it is left alone"), "finished");
        terminate(worker);
        serves(&pool).await;
        assert_eq!((pid(&pool).await, status(&pool).await.restarts), (worker, 0));
        pool.shutdown().await;
    }
}

alone_test! {
    async fn thread_keeps_running_between_calls() {
        let pool = start(pool_of(SOURCE)).await;
        pool.call::<_, ()>("run_on", ()).await.expect("it only starts a thread");
        let first: u64 = pool.call("count", ()).await.expect("the call succeeds");
        let mut next = first;
        while next == first {
            next = pool.call("count", ()).await.expect("the call succeeds");
        }
        serves(&pool).await;
        pool.shutdown().await;
    }
}
