//! Pools over a module written by the test.

use hatchery::{CallError, Pool, PoolBuilder, PoolStartError, PoolStatus, WorkerStartError};

use crate::support::{builder, python_module, scratch};

/// A pool of one worker over a module of this source, which gets a function `ping` more.
pub(crate) fn pool_of(source: &str) -> PoolBuilder {
    write_module(source);
    pool_of_module()
}

/// As [`pool_of`], over the module that is there already.
pub(crate) fn pool_of_module() -> PoolBuilder {
    builder().module("faulty").path(scratch()).size(1)
}

pub(crate) fn write_module(source: &str) {
    python_module(&scratch(), "faulty", &format!("{source}\n\ndef ping():\n    return 'pong'\n"));
}

pub(crate) async fn start(builder: PoolBuilder) -> Pool {
    builder.start().await.unwrap_or_else(|error| panic!("the pool does not start: {error}"))
}

/// Why the worker of this pool does not start.
#[track_caller]
pub(crate) fn start_error(builder: PoolBuilder) -> impl Future<Output = WorkerStartError> {
    let caller = std::panic::Location::caller();
    async move {
        match builder.start().await {
            Err(PoolStartError::Worker(failure)) => {
                assert_eq!(failure.worker, "faulty-1");
                (*failure.cause).clone()
            }
            other => panic!("no worker that could not start: {other:?} (at {caller})"),
        }
    }
}

/// The pool serves the next call.
pub(crate) async fn serves(pool: &Pool) {
    let pong: Result<String, CallError> = pool.call("ping", ()).await;
    assert_eq!(pong.expect("the pool serves the next call"), "pong");
}

/// Whom the pool's workers are, with the number of those that had been ready and ended.
pub(crate) async fn status(pool: &Pool) -> PoolStatus {
    pool.status().await.expect("the pool lives")
}

/// The process id of the one worker.
pub(crate) async fn pid(pool: &Pool) -> u32 {
    status(pool).await.workers[0].pid.expect("the worker is ready")
}
