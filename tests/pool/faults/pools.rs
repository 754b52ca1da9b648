//! Pools over a module of the test.

use hatchery::{CallError, Pool, PoolBuilder, PoolStartError, PoolStatus, WorkerStartError};

use crate::support::{builder, python_module, scratch};

/// Python functions that write frames to the channel of the worker. Prepend them to a module.
pub(crate) const FRAMES: &str = r#"
import gc, select, struct
import os

def _channel():
    """The descriptor of the channel to the host."""
    from hatchery import _wire
    gc.unfreeze()  # the template freezes its objects
    return [it.fd for it in gc.get_objects() if isinstance(it, _wire.Channel) and it.fd >= 0][-1]

def _frame(kind, call_id, body=b'', codec=1, attachments=0, number=0):
    payload = struct.pack('>BBHIQI', kind, codec, attachments, number, call_id, len(body)) + body
    return struct.pack('>I', len(payload)) + payload
"#;

/// A pool builder for one worker and a module with this source and a function `ping`.
pub(crate) fn pool_of(source: &str) -> PoolBuilder {
    write_module(source);
    pool_of_module()
}

/// As [`pool_of`], with the existing module.
pub(crate) fn pool_of_module() -> PoolBuilder {
    builder().module("faulty").path(scratch()).size(1)
}

pub(crate) fn write_module(source: &str) {
    python_module(&scratch(), "faulty", &format!("{source}\n\ndef ping():\n    return 'pong'\n"));
}

pub(crate) async fn start(builder: PoolBuilder) -> Pool {
    builder.start().await.unwrap_or_else(|error| panic!("the pool does not start: {error}"))
}

/// The start error of the worker.
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

/// Asserts that the pool serves a call.
pub(crate) async fn serves(pool: &Pool) {
    let pong: Result<String, CallError> = pool.call("ping", ()).await;
    assert_eq!(pong.expect("the pool serves the next call"), "pong");
}

/// The status of the pool.
pub(crate) async fn status(pool: &Pool) -> PoolStatus {
    pool.status().await.expect("the pool lives")
}

/// The process id of the only worker.
pub(crate) async fn pid(pool: &Pool) -> u32 {
    status(pool).await.workers[0].pid.expect("the worker is ready")
}
