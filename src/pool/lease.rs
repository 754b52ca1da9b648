//! A worker to oneself.

use std::fmt;
use std::sync::Arc;

use actix::Addr;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::core::SessionUse;
use super::handle::Inner;
use super::messages::Item;
use super::request::Request;
use super::stream::{CallStream, Opened};
use crate::error::CallError;
use crate::worker::{CallTable, Checkin, LeaseId, PendingCall, Placement, Wake, Worker};

/// One worker to yourself, from [`Pool::checkout`](super::Pool::checkout): calls on it go straight to that
/// worker, so that what one call leaves in Python's memory the next one finds.
///
/// Dropping it checks the worker in; a call of it that still runs is awaited first. Nothing ends a lease but
/// the drop and the worker's death: after that its calls fail with
/// [`WorkerDied`](CallError::WorkerDied)`{started: false}`, and another checkout gives another worker.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// let lease = pool.checkout().await?;
/// let _: () = lease.call("load", ("model.bin",)).await?;
/// let answer: String = lease.call("ask", ("to be?",)).await?;
/// drop(lease); // checked in
/// # Ok(()) }
/// ```
#[must_use = "dropping a lease checks its worker in"]
pub struct Lease {
    token: LeaseToken,
    pool: Arc<Inner>,
    depth: u32,
}

impl Lease {
    pub(super) fn new(token: LeaseToken, pool: Arc<Inner>, depth: u32) -> Self {
        Self { token, pool, depth }
    }

    pub(super) async fn checkout(
        pool: &Arc<Inner>,
        depth: u32,
        session: Option<SessionUse>,
    ) -> Result<Self, CallError> {
        let (reply, answer) = oneshot::channel();
        let item = Item::Checkout { session: session.as_ref().map(|used| used.session.clone()), reply };
        let token = pool.submit(item, session, pool.settings.checkout_timeout, answer).await?;
        Ok(Self::new(token, pool.clone(), depth))
    }

    /// The worker's name, as in the log and in [`PoolStatus`](super::PoolStatus).
    pub fn worker(&self) -> &str {
        &self.token.worker
    }

    /// The process id of its Python.
    pub fn pid(&self) -> u32 {
        self.token.pid
    }

    /// Of a lease in a session: whether it is the session's own worker.
    pub fn placement(&self) -> Option<Placement> {
        self.token.placement
    }

    /// Calls a function on this worker, with the pool's call timeout (30 s). See [`Pool::call`](super::Pool::call).
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

    /// Streams the items of a generator on this worker. See [`Pool::stream`](super::Pool::stream). A stream that
    /// outlives the lease goes on to its end, and the worker is not handed out before.
    ///
    /// # Errors
    ///
    /// See [`Request::stream`].
    pub async fn stream<T: DeserializeOwned>(
        &self,
        function: &str,
        args: impl Serialize,
    ) -> Result<CallStream<T>, CallError> {
        self.request(function).args(args).stream().await
    }

    /// A call with options. Calls of one lease run one after the other, or as many at once as
    /// [`in_flight`](super::PoolBuilder::in_flight) says; a retry makes no sense here, so
    /// [`idempotent`](Request::idempotent) changes nothing; nor does [`session`](Request::session), since a lease's calls
    /// belong to the session that it was checked out in, if any.
    pub fn request<'a>(&'a self, function: &'a str) -> Request<'a> {
        Request::new(&self.pool, self.depth, Some(&self.token), None, function)
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("worker", &self.worker()).field("pid", &self.pid()).finish()
    }
}

/// The right to a worker. It checks the worker in on drop, even if the caller never received it.
pub(super) struct LeaseToken {
    id: LeaseId,
    addr: Addr<Worker>,
    calls: Arc<CallTable>,
    worker: Arc<str>,
    pid: u32,
    pub(super) session: Option<Arc<str>>,
    placement: Option<Placement>,
}

impl LeaseToken {
    pub(super) fn new(
        id: LeaseId,
        opened: Opened,
        calls: Arc<CallTable>,
        pid: u32,
        session: Option<Arc<str>>,
    ) -> Self {
        let Opened { addr, worker, placement } = opened;
        Self { id, addr, calls, worker, pid, session, placement }
    }

    /// Gives the worker a call. A call to a worker that has ended answers by itself.
    pub(super) fn run(&self, call: PendingCall) -> OnLeave<'_> {
        if self.calls.submit(call.assigned(None, self.placement)) {
            self.addr.do_send(Wake);
        }
        OnLeave(self)
    }

    pub(super) fn opened(&self) -> Opened {
        Opened { addr: self.addr.clone(), worker: self.worker.clone(), placement: self.placement }
    }
}

impl Drop for LeaseToken {
    fn drop(&mut self) {
        self.addr.do_send(Checkin(self.id));
    }
}

/// Dropped while a call of a lease runs, it tells the worker, which may not know of the call yet.
pub(super) struct OnLeave<'a>(&'a LeaseToken);

impl OnLeave<'_> {
    /// There is nothing to tell any more.
    pub(super) fn answered(self) {
        std::mem::forget(self); // it holds nothing but a reference
    }
}

impl Drop for OnLeave<'_> {
    fn drop(&mut self) {
        self.0.addr.do_send(Wake);
    }
}
