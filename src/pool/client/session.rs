//! Calls that belong together.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::lease::{Lease, PendingCheckout};
use super::messages::EndSession;
use super::pool::Pool;
use super::request::Request;
use super::stream::CallStream;
use crate::error::CallError;
use crate::pool::core::{Affinity, SessionUse};

/// A session by its name, from [`Pool::session`](crate::Pool::session): its calls find the same state in Python,
/// `hatchery.session()`, as long as they go to the same worker.
///
/// A session begins with its first call, on any worker, which is its own from then on. It ends by
/// [`end`](Session::end), when it has not been used for the pool's session TTL (1 h), or when the pool has too many
/// (10 000) and it is the one that has not been used for the longest time; `@on_session_end` then runs in Python. When
/// its worker dies, its state is gone: the next call gets [`SessionLost`](CallError::SessionLost), and the one after
/// that begins the session anew. A caller that leaves before it has taken that answer has not heard it.
///
/// Dropping this handle ends nothing, and a second one of the same name is the same session.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), hatchery::CallError> {
/// use hatchery::Affinity;
///
/// let alice = pool.session("alice").affinity(Affinity::StrictQueue);
/// let _: () = alice.call("remember", ("colour", "green")).await?;
/// let colour: String = alice.call("recall", ("colour",)).await?;
/// alice.end().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Session {
    pool: Pool,
    used: SessionUse,
}

impl Session {
    pub(super) fn new(pool: Pool, name: &str) -> Self {
        Self { pool, used: SessionUse { session: name.into(), affinity: Affinity::default() } }
    }

    /// How strongly the calls of this handle are tied to the session's worker. Default: [`Affinity::Hint`].
    #[must_use]
    pub fn affinity(mut self, affinity: Affinity) -> Self {
        self.used.affinity = affinity;
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.used.session
    }

    /// Calls a function in this session. See [`Pool::call`](crate::Pool::call).
    ///
    /// # Errors
    ///
    /// Any [`CallError`].
    pub async fn call<A: Serialize, T: DeserializeOwned>(
        &self,
        function: &str,
        args: A,
    ) -> Result<T, CallError> {
        self.request(function).args(args).send().await
    }

    /// Streams the items of a generator in this session. See [`Pool::stream`](crate::Pool::stream).
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

    /// A call with options in this session.
    pub fn request<'a>(&'a self, function: &str) -> Request<'a> {
        Request::new(&self.pool, Some(self.used.clone()), function)
    }

    /// The session's worker to yourself: the lease's calls belong to the session. See
    /// [`Pool::checkout`](crate::Pool::checkout).
    ///
    /// # Errors
    ///
    /// Those of waiting for a worker, [`SessionLost`](CallError::SessionLost) and
    /// [`SessionBusy`](CallError::SessionBusy) included.
    pub async fn checkout(&self) -> Result<Lease, CallError> {
        PendingCheckout::submit(&self.pool, Some(self.used.clone()), None)?.lease(self.pool.clone()).await
    }

    /// Ends the session: its state is dropped in every worker that has some, and the module's `@on_session_end` hooks
    /// run there, each within the pool's hook timeout (5 s). A call of the session that runs is awaited first; whether the session
    /// is known makes no difference. Which comes first, the end or a call that is made before the end is awaited, is open.
    ///
    /// # Errors
    ///
    /// [`Python`](CallError::Python) when a hook raised an exception, [`Timeout`](CallError::Timeout) when one took too long.
    /// The session has ended all the same.
    pub async fn end(&self) -> Result<(), CallError> {
        self.pool.broker().send(EndSession(self.name().to_owned())).await?
    }
}
