//! A call that is being put together.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::call::{Call, Target};
use super::lease::Lease;
use super::pool::Pool;
use super::progress::{Handle, Listener, Progress};
use super::stream::{CallStream, open};
use crate::error::CallError;
use crate::pool::core::{Affinity, SessionUse};
use crate::worker::Reply;

/// A call that is being put together; [`send`](Request::send) sends it.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), hatchery::CallError> {
/// use std::time::Duration;
/// let n: u64 = pool
///     .request("count_words")
///     .args(("to be or not to be",))
///     .timeout(Duration::from_secs(2))
///     .idempotent()
///     .send()
///     .await?;
/// # Ok(()) }
/// ```
///
/// `To` is where the call goes: to the [`Pool`], or to the worker of a [`Lease`]. `A` and `K` are the types of the arguments.
#[must_use = "a request does nothing until it is sent"]
pub struct Request<'a, To = Pool, A = (), K = ()> {
    to: &'a To,
    call: Call,
    args: A,
    kwargs: Option<K>,
    on_progress: Option<Handle>,
}

/// What takes calls: a [`Pool`] or a [`Lease`]. No other type can implement it.
///
/// ```no_run
/// use hatchery::{CallError, Callee, Request};
///
/// async fn count_words<To: Callee>(request: Request<'_, To>) -> Result<u64, CallError> {
///     request.args(("to be or not to be",)).send().await
/// }
/// # async fn example(pool: hatchery::Pool) -> Result<(), CallError> {
/// let by_any_worker = count_words(pool.request("count_words")).await?;
/// let by_this_worker = count_words(pool.checkout().await?.request("count_words")).await?;
/// # Ok(()) }
/// ```
pub trait Callee {
    #[doc(hidden)]
    fn target(&self) -> Target<'_>;

    #[doc(hidden)]
    fn pool(&self) -> &Pool;
}

impl Callee for Pool {
    fn target(&self) -> Target<'_> {
        Target::pool(self.broker())
    }

    fn pool(&self) -> &Pool {
        self
    }
}

impl Callee for Lease {
    fn target(&self) -> Target<'_> {
        Target { broker: self.pool().broker(), lease: Some(self.grant()) }
    }

    fn pool(&self) -> &Pool {
        self.pool()
    }
}

impl<'a, To: Callee> Request<'a, To> {
    pub(super) fn new(to: &'a To, session: Option<SessionUse>, function: &str) -> Self {
        let mut call = Call::unencoded(function);
        (call.depth, call.session) = (to.pool().depth(), session);
        Self { to, call, args: (), kwargs: None, on_progress: None }
    }
}

/// These make sense where the call may go to several workers. The calls of a lease belong to the session that it was checked
/// out in.
impl<A, K> Request<'_, Pool, A, K> {
    /// See [`Call::idempotent`].
    pub fn idempotent(mut self) -> Self {
        self.call = self.call.idempotent();
        self
    }

    /// See [`Call::session`].
    pub fn session(mut self, name: &str) -> Self {
        self.call = self.call.session(name);
        self
    }

    /// See [`Call::affinity`].
    pub fn affinity(mut self, affinity: Affinity) -> Self {
        self.call = self.call.affinity(affinity);
        self
    }
}

impl<'a, To: Callee, A: Serialize, K: Serialize> Request<'a, To, A, K> {
    /// The arguments: a tuple, an array or a `Vec` gives positional ones, a map or struct gives keywords, `()`
    /// gives none. Default: none.
    pub fn args<B: Serialize>(self, args: B) -> Request<'a, To, B, K> {
        let Self { to, call, kwargs, on_progress, .. } = self;
        Request { to, call, args, kwargs, on_progress }
    }

    /// Keyword arguments beside positional ones: a map or struct. Default: none.
    pub fn kwargs<L: Serialize>(self, kwargs: L) -> Request<'a, To, A, L> {
        let Self { to, call, args, on_progress, .. } = self;
        Request { to, call, args, kwargs: Some(kwargs), on_progress }
    }

    /// See [`Call::timeout`].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.call = self.call.timeout(timeout);
        self
    }

    /// Calls `handle` with each update that the function reports by `hatchery.progress(value)`, before the result, in the task
    /// that waits for the result or reads the stream. A task that is slower than the function misses older updates: the newest
    /// 64 are kept. Default: no updates are sent.
    pub fn on_progress(mut self, handle: impl FnMut(Progress) + Send + 'static) -> Self {
        self.on_progress = Some(Box::new(handle));
        self
    }

    /// See [`Call::window`].
    pub fn window(mut self, items: u32) -> Self {
        self.call = self.call.window(items);
        self
    }

    /// See [`Call::request_id`].
    pub fn request_id(mut self, id: impl Into<String>) -> Self {
        self.call = self.call.request_id(id);
        self
    }

    /// See [`Call::traceparent`].
    pub fn traceparent(mut self, traceparent: impl Into<String>) -> Self {
        self.call = self.call.traceparent(traceparent);
        self
    }

    /// Sends the call and waits for its result, decoded as `T`.
    ///
    /// Dropping the future gives the call up. A waiting call is taken out of the queue; a running call is cancelled:
    /// `hatchery.Cancelled` (in an `async` function, `asyncio.CancelledError`) is raised in it, and a worker that has
    /// not come back within the pool's cancel grace (2 s) is killed and replaced.
    ///
    /// # Errors
    ///
    /// Any [`CallError`].
    pub async fn send<T: DeserializeOwned>(self) -> Result<T, CallError> {
        let (call, reply) = self.run().await?;
        reply.decode().map_err(|error| call.named(error))
    }

    /// Like [`send`](Request::send), with the result left as it came, and with the worker that served it.
    ///
    /// # Errors
    ///
    /// Any [`CallError`] but [`Decode`](CallError::Decode).
    pub async fn send_raw(self) -> Result<Reply, CallError> {
        self.run().await.map(|(_, reply)| reply)
    }

    async fn run(self) -> Result<(Call, Reply), CallError> {
        let Self { to, mut call, args, kwargs, on_progress } = self;
        let target = to.target();
        let deadline = call.deadline(target.broker);
        let listener = on_progress.map(Listener::new);
        encode(&mut call, target, &args, kwargs.as_ref()).await?;
        call.complete(target, None, listener.is_some())?;
        let first = call.submit(target, deadline, listener.as_ref().map(Listener::sender));
        let reply = call.outcome(target, deadline, first, listener).await?;
        Ok((call, reply))
    }

    /// Sends the call of a generator, or of a function that returns another iterator, and returns its items as a
    /// stream as soon as a worker has it.
    ///
    /// ```no_run
    /// # async fn example(pool: hatchery::Pool) -> Result<(), hatchery::CallError> {
    /// let mut tokens = pool.request("generate").args(("once",)).stream::<String>().await?;
    /// while let Some(token) = tokens.next().await {
    ///     print!("{}", token?);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Encode`](CallError::Encode), [`FrameTooLarge`](CallError::FrameTooLarge), and those of waiting for a worker.
    /// What goes wrong in Python comes as an item. A function whose result is no iterator is an
    /// [`Encode`](CallError::Encode) error.
    pub async fn stream<T: DeserializeOwned>(self) -> Result<CallStream<T>, CallError> {
        let Self { to, mut call, args, kwargs, on_progress } = self;
        let target = to.target();
        let deadline = call.deadline(target.broker);
        encode(&mut call, target, &args, kwargs.as_ref()).await?;
        let listener = on_progress.map(Listener::new);
        open(call, target, deadline, listener)?.stream(to.pool().clone()).await
    }
}

/// Encodes the arguments once there is room for them. A lease's call does not wait in the queue.
async fn encode(
    call: &mut Call,
    target: Target<'_>,
    args: &impl Serialize,
    kwargs: Option<&impl Serialize>,
) -> Result<(), CallError> {
    if target.lease.is_none() {
        target.broker.admitted().await.map_err(|error| call.named(error))?;
    }
    call.encode(args, kwargs)
}
