//! How a worker ends: as a script does, or killed when it will not.

use std::time::Duration;

use hatchery::CallError;
use serde_json::Value;

use super::pools::{pid, pool_of, serves, start};
use crate::support::{
    LONG_TIMEOUT, alone_test, fill_worker, is_alive, logged, scratch, status_when, wait_until,
};

alone_test! {
    async fn shutdown_runs_exit_handlers() {
        let source = "
import atexit, sys
@atexit.register
def note():
    with open(folder[0] + '/ended', 'w') as file:
        file.write('in order')
    print('the handler has run')
    sys.stdout.write('not flushed, no end of line')
folder = ['']
def set_folder(path):
    folder[0] = path";
        let pool = start(pool_of(source)).await;
        pool.call::<_, ()>("set_folder", (scratch(),)).await.expect("the call succeeds");
        pool.shutdown().await;
        assert_eq!(std::fs::read_to_string(scratch().join("ended")).expect("the handler wrote it"), "in order");
        let logged = logged(log::Level::Info, "hatchery::python::faulty-1");
        assert_eq!(logged, ["the handler has run", "not flushed, no end of line"]);
    }
}

alone_test! {
    async fn worker_that_does_not_exit_is_killed() {
        let sources = [
            "import atexit, time\natexit.register(time.sleep, 1000)",
            "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()",
            "import signal\n[signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]\nimport atexit\natexit.register(signal.pause)",
            "import atexit\natexit.register(sum, range(10**12))",
        ];
        for source in sources {
            let pool = start(pool_of(source).shutdown_timeout(Duration::from_millis(300))).await;
            let worker = pid(&pool).await;
            serves(&pool).await;
            pool.shutdown().await;
            wait_until("the process is dead", LONG_TIMEOUT, || !is_alive(worker)).await;
        }
    }
}

alone_test! {
    async fn shutdown_awaits_running_call_until_the_timeout() {
        let source = "
import os, time
def wait_for(path):
    open(path + '.began', 'w').close()
    while not os.path.exists(path):
        time.sleep(0.001)
    return 'finished'";
        for finishes in [true, false] {
            let go = scratch().join(format!("go-{finishes}"));
            let timeout = Duration::from_millis(if finishes { 20_000 } else { 300 });
            let pool = start(pool_of(source).shutdown_timeout(timeout)).await;
            let running = tokio::spawn({
                let (pool, go) = (pool.clone(), go.clone());
                async move { fill_worker::<String>(&pool, "wait_for", (go,)).await }
            });
            let taken = |status: &hatchery::PoolStatus| status.in_flight as usize == crate::IN_FLIGHT;
            status_when(&pool, "the call runs", taken).await;
            let began = scratch().join(format!("go-{finishes}.began"));
            wait_until("the call has started", LONG_TIMEOUT, || began.exists()).await;
            let waiting = tokio::spawn({
                let pool = pool.clone();
                async move { pool.call::<_, Value>("ping", ()).await }
            });
            status_when(&pool, "a call waits", |status| status.waiting == 1).await;
            let shutdown = tokio::spawn({
                let pool = pool.clone();
                async move { pool.shutdown().await }
            });
            let refused = waiting.await.expect("no panic").expect_err("the pool shuts down");
            assert!(matches!(refused, CallError::Draining), "{refused:?}");
            if finishes {
                std::fs::write(go, "").expect("the scratch folder is writable");
            }
            let outcome = running.await.expect("no panic");
            shutdown.await.expect("no panic");
            if finishes {
                assert_eq!(outcome.expect("it may finish"), "finished");
            } else {
                let error = outcome.expect_err("the call never returns");
                assert!(matches!(error, CallError::WorkerDied { started: true, .. }), "{error:?}");
            }
            let late = pool.call::<_, Value>("ping", ()).await.expect_err("the pool has ended");
            assert!(!late.is_retryable(), "{late:?}");
        }
    }
}
