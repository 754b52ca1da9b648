//! The methods of a pool's handle.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::lease::{Lease, PendingCheckout};
use super::messages::GetStatus;
use super::pool::Pool;
use super::request::Request;
use super::session::Session;
use super::stream::CallStream;
use crate::error::{CallError, UnavailableCause};
use crate::pool::broker::{PoolActor, PoolStatus, ReloadError, ReloadWorkers};
use crate::supervisor::ChildRef;

impl Pool {
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
    /// has the call. Generators may be `async`. The call timeout (30 s) holds for the whole stream.
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
    pub fn request<'a>(&'a self, function: &str) -> Request<'a> {
        Request::new(self, None, function)
    }

    /// The session of this name, whose calls find the same state in Python. Nothing is sent by this.
    pub fn session(&self, name: &str) -> Session {
        Session::new(self.clone(), name)
    }

    /// A worker to yourself, waiting for one up to the pool's checkout timeout (5 s).
    ///
    /// # Errors
    ///
    /// [`Timeout`](CallError::Timeout) in the queue, [`Overloaded`](CallError::Overloaded),
    /// [`Unavailable`](CallError::Unavailable), [`Draining`](CallError::Draining).
    pub async fn checkout(&self) -> Result<Lease, CallError> {
        PendingCheckout::submit(self, None, None)?.lease(self.clone()).await
    }

    /// How the pool is now.
    ///
    /// # Errors
    ///
    /// [`Draining`](CallError::Draining) while the pool shuts down, [`Unavailable`](CallError::Unavailable) when it has ended or
    /// its broker is being restarted.
    pub async fn status(&self) -> Result<PoolStatus, CallError> {
        self.broker().send(GetStatus).await
    }

    /// Replaces all workers by new ones of the present code, one after the other, each when its successor is ready: no
    /// call fails because of it. With a [`zygote`](crate::PoolBuilder::zygote) a fresh template is made first.
    ///
    /// A worker finishes its call before it goes, and waits up to 30 s for a lease to be given back. Sessions whose state
    /// lives in a worker are lost with it, as when it dies. Dropping the future does not cancel a reload that has begun.
    ///
    /// # Errors
    ///
    /// [`ReloadError`]: when the new template or the first new worker cannot start, everything stays as it was.
    pub async fn reload(&self) -> Result<(), ReloadError> {
        self.broker().send(ReloadWorkers).await.unwrap_or_else(|error| match error {
            CallError::Unavailable { cause } => Err(ReloadError::Unavailable(cause)),
            _ => Err(ReloadError::Unavailable(UnavailableCause::Stopped)),
        })
    }

    /// The broker, for actors that would rather send it messages ([`Call`](crate::Call),
    /// [`Checkout`](crate::Checkout), [`GetStatus`]) than use this handle. It follows restarts, and keeps nothing
    /// alive.
    ///
    /// Of a pool in [your own tree](crate::PoolBuilder::child_spec), take it after the pool's first start: an earlier one
    /// reaches nobody.
    pub fn actor(&self) -> ChildRef<PoolActor> {
        self.broker().actor().unwrap_or_else(|| ChildRef::unbound(self.name()))
    }

    /// Waits until the pool has ended for good: by [`shutdown`](Pool::shutdown), because its supervisors gave up, or with the
    /// tree that it is in. A pool in [your own tree](crate::PoolBuilder::child_spec) that has not started yet is waited for.
    ///
    /// The handle keeps the pool alive meanwhile.
    ///
    /// ```no_run
    /// # async fn example(pool: hatchery::Pool) {
    /// tokio::select! {
    ///     () = pool.ended() => eprintln!("the pool has ended"),
    ///     _ = actix_rt::signal::ctrl_c() => pool.shutdown().await,
    /// }
    /// # }
    /// ```
    pub async fn ended(&self) {
        self.broker().ended().await;
    }

    /// Ends the pool: waiting requests get [`Draining`](CallError::Draining), calls that run may finish within
    /// the pool's shutdown timeout (5 s), the workers' Python exits as it does at the end of a script (`atexit`
    /// handlers run), remaining processes are killed, and the pool's own thread is joined.
    ///
    /// It may be called by several handles, at once or again: each returns when the pool has ended. A pool in [your own
    /// tree](crate::PoolBuilder::child_spec) is ended by its supervisor; then this does nothing.
    pub async fn shutdown(&self) {
        if let Some(runtime) = self.runtime() {
            self.broker().set_closing();
            runtime.shutdown().await;
        }
    }
}
