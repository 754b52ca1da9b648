//! A worker to oneself.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::pool::Pool;
use super::request::Request;
use super::stream::CallStream;
use crate::error::CallError;
use crate::pool::broker::{Grant, QueueItem, Submission};
use crate::pool::core::SessionUse;
use crate::worker::Placement;

/// One worker to yourself, from [`Pool::checkout`](crate::Pool::checkout): calls on it go straight to that
/// worker, so that the next call finds the state that one call left in Python's memory.
///
/// Dropping it checks the worker in, once calls that still run have ended. Nothing ends a lease but
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
    grant: Grant,
    pool: Pool,
}

/// A checkout that waits for a worker.
pub(super) struct PendingCheckout {
    submission: Submission,
    answer: oneshot::Receiver<Result<Grant, CallError>>,
}

impl PendingCheckout {
    pub(super) fn submit(
        pool: &Pool,
        session: Option<SessionUse>,
        timeout: Option<Duration>,
    ) -> Result<Self, CallError> {
        let (reply, answer) = oneshot::channel();
        let item = QueueItem::Checkout { session: session.as_ref().map(|used| used.session.clone()), reply };
        let timeout = timeout.unwrap_or(pool.broker().settings().checkout_timeout);
        Ok(Self { submission: pool.broker().submit(item, session, timeout)?, answer })
    }

    pub(super) async fn lease(self, pool: Pool) -> Result<Lease, CallError> {
        let grant = self.submission.wait(self.answer).await?;
        Ok(Lease { grant, pool })
    }
}

impl Lease {
    pub(super) fn grant(&self) -> &Grant {
        &self.grant
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The worker's name, as in the log and in [`PoolStatus`](crate::PoolStatus).
    pub fn worker(&self) -> &str {
        &self.grant.worker
    }

    /// The process id of its Python.
    pub fn pid(&self) -> u32 {
        self.grant.pid
    }

    /// Of a lease in a session: whether it is the session's own worker.
    pub fn placement(&self) -> Option<Placement> {
        self.grant.placement
    }

    /// Calls a function on this worker, with the pool's call timeout (30 s). See [`Pool::call`](crate::Pool::call).
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

    /// Streams the items of a generator on this worker. See [`Pool::stream`](crate::Pool::stream). A stream that
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
    /// [`in_flight`](crate::PoolBuilder::in_flight) says. They belong to the session that the lease was checked out in, if any.
    pub fn request<'a>(&'a self, function: &str) -> Request<'a, Lease> {
        Request::new(self, None, function)
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("worker", &self.worker()).field("pid", &self.pid()).finish()
    }
}
