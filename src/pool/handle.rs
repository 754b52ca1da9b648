//! The pool's handle.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Handler, Message};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::actor::PoolActor;
use super::builder::PoolBuilder;
use super::core::{RequestId, SessionUse};
use super::home::Home;
use super::inbox::{Entry, Inbox, Submitted};
use super::lease::Lease;
use super::messages::{Abandon, GetStatus, Item};
use super::reload::{ReloadError, ReloadWorkers};
use super::request::Request;
use super::session::Session;
use super::status::PoolStatus;
use super::stream::CallStream;
use crate::error::{CallError, UnavailableCause};
use crate::supervisor::{ChildRef, SendError};
use crate::timer;

/// A handle on a running pool of Python workers: cheap to clone, usable from any thread and any executor.
///
/// The pool ends when [`shutdown`](Pool::shutdown) is called, or when its last `Pool` and [`Lease`] are dropped:
/// then its workers are killed, without waiting.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::Pool;
///
/// let pool = Pool::builder().module("textstats").path("python").start().await?;
/// let words: u64 = pool.call("count_words", ("to be or not to be",)).await?;
/// pool.shutdown().await;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
    /// How many host calls its calls are nested in.
    depth: u32,
}

/// What the handles of one pool share.
pub(super) struct Inner {
    pub(super) settings: Settings,
    broker: ChildRef<PoolActor>,
    inbox: Arc<Inbox>,
    home: Home,
}

/// What a handle must know of the pool's configuration.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) name: String,
    pub(super) call_timeout: Duration,
    pub(super) checkout_timeout: Duration,
    pub(super) max_frame_bytes: u32,
}

impl Pool {
    /// A pool to be configured and started.
    pub fn builder() -> PoolBuilder {
        PoolBuilder::new()
    }

    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self::nested(inner, 0)
    }

    /// A handle for calls from within a host call.
    pub(super) fn nested(inner: Arc<Inner>, depth: u32) -> Self {
        Self { inner, depth }
    }

    /// The pool's name, as in the log and in [`PoolStatus`].
    pub fn name(&self) -> &str {
        &self.inner.settings.name
    }

    /// Calls a function of the module on any worker and waits for the result, with the pool's timeouts (30 s for
    /// the call, of which at most 5 s wait for a worker).
    ///
    /// `args`: a tuple, an array or a `Vec` gives positional arguments, a map or struct gives keywords, `()` gives
    /// none.
    ///
    /// ```no_run
    /// # async fn example(pool: hatchery::Pool) -> Result<(), hatchery::CallError> {
    /// let n: u64 = pool.call("count_words", ("to be or not to be",)).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Any [`CallError`]. See [`Request::send`] for what dropping the future does.
    pub async fn call<A: Serialize, T: DeserializeOwned>(
        &self,
        function: &str,
        args: A,
    ) -> Result<T, CallError> {
        self.request(function).args(args).send().await
    }

    /// Calls a generator, or a function that returns another iterator, on any worker, and returns its items as a stream as soon as a worker
    /// has it. Generators may be `async`. The call timeout (30 s) holds for all of it.
    ///
    /// ```no_run
    /// # async fn example(pool: hatchery::Pool) -> Result<(), hatchery::CallError> {
    /// let mut tokens = pool.stream::<String>("generate", ("once upon a time",)).await?;
    /// while let Some(token) = tokens.next().await {
    ///     print!("{}", token?);
    /// }
    /// # Ok(()) }
    /// ```
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

    /// A call with options: its own timeout, keyword arguments, idempotence, session, progress.
    pub fn request<'a>(&'a self, function: &'a str) -> Request<'a> {
        Request::new(&self.inner, self.depth, None, None, function)
    }

    /// The session of this name, whose calls find the same state in Python. Nothing is sent by this.
    pub fn session(&self, name: &str) -> Session {
        Session::new(self.inner.clone(), self.depth, name)
    }

    /// A worker to yourself, waiting for one up to the pool's checkout timeout (5 s).
    ///
    /// # Errors
    ///
    /// [`Timeout`](CallError::Timeout) in the queue, [`Overloaded`](CallError::Overloaded),
    /// [`Unavailable`](CallError::Unavailable), [`Draining`](CallError::Draining).
    pub async fn checkout(&self) -> Result<Lease, CallError> {
        Lease::checkout(&self.inner, self.depth, None).await
    }

    /// How the pool is now.
    ///
    /// # Errors
    ///
    /// [`Draining`](CallError::Draining) while the pool shuts down, [`Unavailable`](CallError::Unavailable) when it has ended or
    /// its broker is being restarted.
    pub async fn status(&self) -> Result<PoolStatus, CallError> {
        let mut status = self.inner.send(GetStatus).await?;
        status.look_at_memory();
        Ok(status)
    }

    /// Replaces all workers by new ones of the present code, one after the other, each when its successor is ready: no
    /// call fails by it. With a [`zygote`](PoolBuilder::zygote) a fresh template is made first.
    ///
    /// A worker finishes its call before it goes, and waits up to 30 s for a lease to be given back. Sessions whose state
    /// lives in a worker are lost with it, as when it dies. Once begun, a reload goes on though this future be dropped.
    ///
    /// # Errors
    ///
    /// [`ReloadError`]: when the new template or the first new worker cannot start, everything stays as it was.
    pub async fn reload(&self) -> Result<(), ReloadError> {
        self.inner.send(ReloadWorkers).await.unwrap_or_else(|error| match error {
            CallError::Unavailable { cause } => Err(ReloadError::Unavailable(cause)),
            _ => Err(ReloadError::Unavailable(UnavailableCause::Stopped)),
        })
    }

    /// The broker, for actors that would rather send it messages ([`Call`](super::Call),
    /// [`Checkout`](super::Checkout), [`GetStatus`]) than use this handle. It follows restarts, and keeps nothing
    /// alive.
    pub fn actor(&self) -> ChildRef<PoolActor> {
        self.inner.broker.clone()
    }

    /// Ends the pool: what waits is refused with [`Draining`](CallError::Draining), calls that run may finish within
    /// the pool's shutdown timeout (5 s), the workers' Python exits as it does at the end of a script (`atexit`
    /// handlers run), what has not ended by then is killed, and the pool's own thread is joined.
    ///
    /// It may be called by several handles, at once or again: each returns when the pool has ended.
    pub async fn shutdown(&self) {
        self.inner.home.shutdown().await;
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("name", &self.name()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.settings.name)
    }
}

impl Inner {
    pub(super) fn new(
        settings: Settings,
        broker: ChildRef<PoolActor>,
        inbox: Arc<Inbox>,
        home: Home,
    ) -> Self {
        Self { settings, broker, inbox, home }
    }

    /// Asks the broker.
    pub(super) async fn send<M>(&self, message: M) -> Result<M::Result, CallError>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        PoolActor: Handler<M>,
    {
        self.broker.send(message).await.map_err(|error| self.unavailable(error))
    }

    /// How long a call of this deadline may wait for a worker.
    pub(super) fn waits(&self, deadline: Instant) -> Duration {
        self.settings.checkout_timeout.min(deadline.saturating_duration_since(Instant::now()))
    }

    /// Submits a request and waits for what it is answered with. If the caller goes away meanwhile, the broker is
    /// told.
    pub(super) async fn submit<T>(
        &self,
        item: Item,
        session: Option<SessionUse>,
        waits: Duration,
        answer: oneshot::Receiver<Result<T, CallError>>,
    ) -> Result<T, CallError> {
        let caller = self.submitted(item, session, waits)?;
        let answer = answer.await.unwrap_or_else(|_| Err(self.lost()));
        caller.answered(answer.as_ref().err());
        answer
    }

    /// What a caller gets whose request went down with its broker, perhaps before that had it.
    pub(super) fn lost(&self) -> CallError {
        self.unavailable(self.broker.down().unwrap_or(SendError::Lost))
    }

    /// Why there is no broker.
    fn unavailable(&self, error: SendError) -> CallError {
        let cause = match error {
            SendError::Down => UnavailableCause::Stopped,
            // Its workers are ending.
            SendError::Restarting | SendError::Lost if self.home.is_closing() => return CallError::Draining,
            SendError::Restarting | SendError::Lost => UnavailableCause::BrokerRestarting,
        };
        CallError::Unavailable { cause }
    }

    /// Waits until the broker has room for a request whose arguments are yet to be encoded. Where the queue is not full,
    /// that is at once.
    ///
    /// # Errors
    /// What the request would be refused with.
    pub(super) async fn admitted(&self) -> Result<(), CallError> {
        while self.inbox.is_full() {
            let (reply, answer) = oneshot::channel();
            let entry = Entry::Announced(RequestId::new(), Item::Announced { reply });
            self.inbox.submit(entry, &self.broker).map_err(|error| self.unavailable(error))?;
            answer.await.unwrap_or_else(|_| Err(self.lost()))?;
        }
        Ok(())
    }

    /// Submits a request. Dropping the result before it is [answered](Caller::answered) takes the request out of the queue.
    pub(super) fn submitted(
        &self,
        item: Item,
        session: Option<SessionUse>,
        waits: Duration,
    ) -> Result<Caller<'_>, CallError> {
        let request = RequestId::new();
        let deadline = timer::deadline(Instant::now(), waits);
        let submitted = Submitted { request, deadline, session, item };
        let entry = Entry::Submitted(submitted);
        self.inbox.submit(entry, &self.broker).map_err(|error| self.unavailable(error))?;
        Ok(Caller { request, pool: self, waits: true })
    }
}

/// A caller that waits. Dropped before it is answered, it tells the broker that the caller has left.
pub(super) struct Caller<'a> {
    request: RequestId,
    pool: &'a Inner,
    waits: bool,
}

impl Caller<'_> {
    /// The caller has its answer, with this error if there is one.
    pub(super) fn answered(mut self, error: Option<&CallError>) {
        self.waits = false;
        if let Some(CallError::SessionLost { .. }) = error {
            // When it fails, the broker is gone, and what it knew of sessions with it.
            let _ = self.pool.inbox.submit(Entry::LossHeard(self.request), &self.pool.broker);
        }
    }
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        if self.waits {
            // When it fails, the queue is gone and the request with it.
            let _ = self.pool.broker.do_send(Abandon(self.request));
        }
    }
}
