//! Pools over a test module, and files that synchronize the test with its Python functions.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hatchery::{CallError, Pool, PoolBuilder, PoolStatus};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{python_module, scratch, wait_until, wait_until_blocking};

/// Longer than any awaited event takes, also on a busy machine.
pub(crate) const LONG_TIMEOUT: Duration = Duration::from_secs(30);

/// A timeout that a test lets expire. Long enough to start or cancel a call on a busy machine.
pub(crate) const SHORT_TIMEOUT: Duration = Duration::from_secs(3);

/// As [`SHORT_TIMEOUT`], for the start of a process.
pub(crate) const SHORT_START_TIMEOUT: Duration = Duration::from_secs(10);

/// The module of most tests. Its files are in the scratch folder, the current directory of the workers.
pub(crate) const MODULE: &str = r#"
import os
import time

calls = 0


def wait_for(path):
    end = time.monotonic() + 60
    while not os.path.exists(path):
        if time.monotonic() > end:
            raise TimeoutError(path)
        time.sleep(0.002)


def touch(path):
    open(path, "a").close()


def exists(path):
    return os.path.exists(path)


def append(path, line):
    with open(path, "a") as file:
        file.write(line + "\n")


def pid():
    return os.getpid()


def hold(name):
    """Write NAME.began, wait for NAME.go, write NAME.ended."""
    touch(name + ".began")
    wait_for(name + ".go")
    touch(name + ".ended")
    return os.getpid()


def leave(name):
    """Write NAME.began and run. When cancelled: write NAME.cancelled, wait for NAME.go, write NAME.ended."""
    try:
        touch(name + ".began")
        while True:
            time.sleep(0.002)
    finally:
        touch(name + ".cancelled")
        wait_for(name + ".go")
        touch(name + ".ended")


def stay(name):
    """Write NAME.began and run. When cancelled: write NAME.cancelled and continue."""
    while True:
        try:
            touch(name + ".began")
            while True:
                time.sleep(0.002)
        except BaseException:
            touch(name + ".cancelled")


def wait_in_c():
    """Wait forever for a locked mutex with the GIL held. No signal interrupts it."""
    import ctypes

    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):
        ctypes.PyDLL(None).pthread_mutex_lock(mutex)


def numbers(count, pause=0):
    for number in range(count):
        if pause:
            time.sleep(pause)
        yield number


def endless(name):
    """Append each number to NAME.items and yield it. At the end write the exception to NAME.closed."""
    number = 0
    try:
        while True:
            append(name + ".items", str(number))
            yield number
            number += 1
    except BaseException as error:
        append(name + ".closed", type(error).__name__)
        raise


def echo(*args, **kwargs):
    return [args, kwargs]


def add(a, b=10):
    return a + b


def count():
    global calls
    calls += 1
    return calls


def fail(message):
    append("failures", message)
    raise ValueError(message)


def sleep(seconds):
    touch("sleeping")
    time.sleep(seconds)


def die(code):
    append("deaths", str(code))
    os._exit(code)


def die_once(code):
    if not os.path.exists("deaths"):
        die(code)
    return "alive"
"#;

/// A pool builder with the zygote and the `in_flight` of this test binary.
///
/// Its timeouts are long, so only timeouts that the test sets expire on a busy machine.
pub(crate) fn builder() -> PoolBuilder {
    let builder = Pool::builder().in_flight(crate::IN_FLIGHT);
    let builder = builder
        .checkout_timeout(LONG_TIMEOUT)
        .cancel_grace(LONG_TIMEOUT)
        .hook_timeout(LONG_TIMEOUT)
        .shutdown_timeout(LONG_TIMEOUT);
    if crate::ZYGOTE { builder.zygote() } else { builder }
}

/// A pool builder over a module with this source.
pub(crate) fn pool_of(source: &str) -> PoolBuilder {
    python_module(&scratch(), "subject", source);
    builder().module("subject").path(scratch()).current_dir(scratch())
}

/// A pool builder over [`MODULE`] followed by this source.
pub(crate) fn pool_with(more: &str) -> PoolBuilder {
    pool_of(&[MODULE, more].concat())
}

/// A started pool of [`MODULE`].
pub(crate) async fn started(size: usize) -> Pool {
    pool_of(MODULE).size(size).start().await.expect("the pool starts")
}

/// Calls a blocking function `IN_FLIGHT` times, so that one worker has no free capacity. Returns the first result.
///
/// Only one of these calls runs at a time.
pub(crate) async fn fill_worker<T: DeserializeOwned>(
    pool: &Pool,
    function: &str,
    args: impl Serialize,
) -> Result<T, CallError> {
    let calls = (0..crate::IN_FLIGHT).map(|_| pool.call::<_, T>(function, &args));
    let mut answers = join_all(calls).await;
    assert!(
        answers.iter().all(|answer| answer.is_ok() == answers[0].is_ok()),
        "all calls have the same outcome"
    );
    answers.swap_remove(0)
}

/// The calls that have not started: those in the queue and those behind another call in a worker.
pub(crate) fn pending_calls(status: &PoolStatus) -> usize {
    status.waiting + (status.in_flight - status.busy) as usize
}

/// Waits until the status of the pool meets the condition, and returns the status.
#[track_caller]
pub(crate) fn status_when(
    pool: &Pool,
    what: &str,
    mut wanted: impl FnMut(&PoolStatus) -> bool,
) -> impl Future<Output = PoolStatus> {
    let caller = std::panic::Location::caller();
    async move {
        let end = Instant::now() + LONG_TIMEOUT;
        loop {
            let status = pool.status().await;
            match status {
                Ok(status) if wanted(&status) => return status,
                status => {
                    assert!(Instant::now() < end, "never: {what} (waited for at {caller}); now {status:#?}")
                }
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Waits until these workers are idle and the queue is empty. Asserts that no worker was replaced and that each one serves
/// the next call.
#[track_caller]
pub(crate) fn assert_workers_kept(pool: &Pool, workers: &[u32]) -> impl Future<Output = PoolStatus> {
    let idle = status_when(pool, "all are idle", |status| {
        let all = status.idle as usize == workers.len() && status.waiting == 0;
        all || status.restarts > 0
    });
    let idle_again = status_when(pool, "all are idle again", |status| status.idle as usize == workers.len());
    async move {
        let status = idle.await;
        assert_eq!(status.restarts, 0, "a worker was replaced: {status:#?}");
        assert_eq!(pids(pool).await, workers);
        let sums = workers.iter().map(|&pid| async move {
            let lease = pool.checkout().await.expect("a worker is free");
            lease.call::<_, u32>("add", (pid, 1)).await.expect("the call succeeds")
        });
        let sums = futures_util::future::join_all(sums).await;
        assert!(sums.iter().zip(workers).all(|(sum, pid)| *sum == pid + 1), "{sums:?}");
        idle_again.await;
        status
    }
}

/// The process ids of the ready workers, in order.
pub(crate) async fn pids(pool: &Pool) -> Vec<u32> {
    let status = pool.status().await.expect("the pool runs");
    status.workers.iter().filter_map(|worker| worker.pid).collect()
}

/// A file in the scratch folder.
pub(crate) fn scratch_file(name: &str) -> PathBuf {
    scratch().join(name)
}

/// Creates a file that Python waits for.
pub(crate) fn touch(name: &str) {
    fs::write(scratch_file(name), "").expect("the scratch folder is there");
}

/// Waits for a file that Python creates.
pub(crate) async fn wait_for_file(name: &str) {
    let path = scratch_file(name);
    wait_until(name, LONG_TIMEOUT, || path.exists()).await;
}

/// As [`wait_for_file`], without a runtime.
pub(crate) fn wait_for_file_blocking(name: &str) {
    let path = scratch_file(name);
    wait_until_blocking(name, LONG_TIMEOUT, || path.exists());
}

/// The lines of a file that Python appends to. Empty when the file does not exist.
pub(crate) fn lines(name: &str) -> Vec<String> {
    fs::read_to_string(scratch_file(name)).unwrap_or_default().lines().map(str::to_owned).collect()
}
