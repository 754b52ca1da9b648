//! A worker to oneself.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use actix::Addr;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::handle::Inner;
use super::request::Request;
use crate::error::CallError;
use crate::worker::{Checkin, Dispatch, LeaseId, Run, Worker};

/// One worker to yourself, from [`Pool::checkout`](super::Pool::checkout): calls on it go straight to that
/// worker, so that what one call leaves in Python's memory the next one finds.
///
/// Dropping it checks the worker in; a call of it that still runs is awaited first. Nothing ends a lease but
/// the drop and the worker's death: after that its calls fail with
/// [`WorkerDied`](CallError::WorkerDied)`{started: false}`, and another checkout gives another worker.
#[must_use = "dropping a lease checks its worker in"]
pub struct Lease {
    token: LeaseToken,
    pool: Arc<Inner>,
}

impl Lease {
    pub(super) fn new(token: LeaseToken, pool: Arc<Inner>) -> Self {
        Self { token, pool }
    }

    /// The worker's name, as in the log and in [`PoolStatus`](super::PoolStatus).
    pub fn worker(&self) -> &str {
        &self.token.worker
    }

    /// The process id of its Python.
    pub fn pid(&self) -> u32 {
        self.token.pid
    }

    /// Calls a function on this worker, with the pool's call timeout. See [`Pool::call`](super::Pool::call).
    ///
    /// # Errors
    ///
    /// Any [`CallError`] but those of waiting for a worker.
    pub async fn call<A: Serialize, T: DeserializeOwned>(
        &self,
        function: &str,
        args: A,
    ) -> Result<T, CallError> {
        self.request(function).args(args).send().await
    }

    /// A call with options. Calls of one lease run one after the other; a retry makes no sense here, so
    /// [`idempotent`](Request::idempotent) changes nothing.
    pub fn request<'a>(&'a self, function: &'a str) -> Request<'a> {
        Request::new(&self.pool, Some(&self.token), function)
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("worker", &self.worker()).field("pid", &self.pid()).finish()
    }
}

/// The right to a worker. Whoever drops it, the caller who never took it included, checks the worker in.
pub(super) struct LeaseToken {
    id: LeaseId,
    addr: Addr<Worker>,
    worker: String,
    pid: u32,
}

impl LeaseToken {
    pub(super) fn new(id: LeaseId, addr: Addr<Worker>, worker: String, pid: u32) -> Self {
        Self { id, addr, worker, pid }
    }

    pub(super) async fn run(&self, body: bytes::Bytes, deadline: Instant) -> Result<bytes::Bytes, CallError> {
        let (reply, answer) = oneshot::channel();
        // A worker that has ended drops the dispatch, which then answers by itself.
        self.addr.do_send(Run(Dispatch::new(body, deadline, reply)));
        answer.await.unwrap_or(Err(CallError::Draining))
    }
}

impl Drop for LeaseToken {
    fn drop(&mut self) {
        self.addr.do_send(Checkin(self.id));
    }
}
