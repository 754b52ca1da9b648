//! A call with options.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use super::core::{Affinity, RequestId, SessionUse};
use super::handle::Inner;
use super::lease::LeaseToken;
use super::messages::Item;
use super::progress::{Handle, Listener, Progress};
use super::stream::{CallStream, Name, Opening};
use crate::budget::FREE_ATTEMPTS;
use crate::error::{CallError, Direction, Phase};
use crate::port::{Body, CallOptions};
use crate::worker::{ItemSender, Outcome, PendingCall, Reply, StreamId, Work};
use crate::{port, timer};

/// How often an idempotent call is handed to a worker at most.
const IDEMPOTENT_ATTEMPTS: u32 = 2;

/// How many items of a stream are on their way at most.
const WINDOW: u32 = 32;

/// A call being put together; [`send`](Request::send) sends it.
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
#[must_use = "a request does nothing until it is sent"]
pub struct Request<'a, A = (), K = ()> {
    call: Unsent<'a>,
    args: A,
    kwargs: Option<K>,
    on_progress: Option<Handle>,
}

/// A call without its arguments.
struct Unsent<'a> {
    pool: &'a Arc<Inner>,
    lease: Option<&'a LeaseToken>,
    function: &'a str,
    depth: u32,
    timeout: Duration,
    idempotent: bool,
    session: Option<SessionUse>,
    window: u32,
    request_id: Option<String>,
    traceparent: Option<String>,
}

impl<'a> Request<'a> {
    pub(super) fn new(
        pool: &'a Arc<Inner>,
        depth: u32,
        lease: Option<&'a LeaseToken>,
        session: Option<SessionUse>,
        function: &'a str,
    ) -> Self {
        let call = Unsent {
            pool,
            lease,
            function,
            depth,
            timeout: pool.settings.call_timeout,
            idempotent: false,
            session,
            window: WINDOW,
            request_id: None,
            traceparent: None,
        };
        Self { call, args: (), kwargs: None, on_progress: None }
    }
}

impl<'a, A: Serialize, K: Serialize> Request<'a, A, K> {
    /// The arguments: a tuple, an array or a `Vec` gives positional ones, a map or struct gives keywords, `()`
    /// gives none. Default: none.
    pub fn args<B: Serialize>(self, args: B) -> Request<'a, B, K> {
        let Self { call, kwargs, on_progress, .. } = self;
        Request { call, args, kwargs, on_progress }
    }

    /// Keyword arguments beside positional ones: a map or struct. Default: none.
    pub fn kwargs<L: Serialize>(self, kwargs: L) -> Request<'a, A, L> {
        let Self { call, args, on_progress, .. } = self;
        Request { call, args, kwargs: Some(kwargs), on_progress }
    }

    /// How long the call may take, waiting for a worker and a second attempt included; of a stream, all of it. Each wait
    /// for a worker is limited by the pool's checkout timeout too. Default: the pool's call timeout (30 s).
    ///
    /// Python can ask for it: `hatchery.deadline()`.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.call.timeout = timeout;
        self
    }

    /// Running this call twice does no harm: if its worker dies, it is sent to another one, once, within the
    /// same deadline. A worker whose process is found stopped (`SIGSTOP`) counts as dead for it. Default: off. A stream is
    /// never sent twice.
    ///
    /// Any call whose worker died before the call began is given to another worker. Where the call was the next to be read,
    /// so that it may be the cause of the death, that happens at most three times; then it fails with
    /// [`WorkerDied`](CallError::WorkerDied) and the cause of the last death.
    pub fn idempotent(mut self) -> Self {
        self.call.idempotent = true;
        self
    }

    /// Makes it a call of this session. Default: of none. See [`Session`](super::Session).
    pub fn session(mut self, name: &str) -> Self {
        let affinity = self.call.session.map(|used| used.affinity).unwrap_or_default();
        self.call.session = Some(SessionUse { session: name.into(), affinity });
        self
    }

    /// How strongly the call is tied to its session's worker. Default: [`Affinity::Hint`]. Without a session it changes
    /// nothing.
    pub fn affinity(mut self, affinity: Affinity) -> Self {
        if let Some(used) = &mut self.call.session {
            used.affinity = affinity;
        }
        self
    }

    /// Has `handle` called with what the function says by `hatchery.progress(value)`, in the task that waits for the
    /// result (or reads the stream), each before the result. A task that is slower than the function misses older updates: the
    /// newest 64 are kept. Default: nobody listens, and none are sent.
    pub fn on_progress(mut self, handle: impl FnMut(Progress) + Send + 'static) -> Self {
        self.on_progress = Some(Box::new(handle));
        self
    }

    /// How many items of a stream may be on their way, at least 1: the generator stops there until some are taken.
    /// Default: 32.
    pub fn window(mut self, items: u32) -> Self {
        self.call.window = items.max(1);
        self
    }

    /// Names the request: in the log records of Python's `logging` that come of it, and to Python as
    /// `hatchery.request_id()`. Default: none.
    pub fn request_id(mut self, id: impl Into<String>) -> Self {
        self.call.request_id = Some(id.into());
        self
    }

    /// The W3C trace context that the call belongs to, for Python: `hatchery.traceparent()`. Default: none.
    pub fn traceparent(mut self, traceparent: impl Into<String>) -> Self {
        self.call.traceparent = Some(traceparent.into());
        self
    }

    /// Sends the call and waits for its result, decoded as `T`.
    ///
    /// Dropping the future gives the call up. One that waits is taken out of the queue; one that runs is cancelled:
    /// `hatchery.Cancelled` (in an `async` function, `asyncio.CancelledError`) is raised in it, and a worker that has
    /// not come back within the pool's cancel grace (2 s) is killed and replaced.
    ///
    /// # Errors
    ///
    /// Any [`CallError`].
    pub async fn send<T: DeserializeOwned>(self) -> Result<T, CallError> {
        let (function, request_id) = (self.call.function, self.call.request_id.clone());
        let reply = self.send_raw().await?;
        reply.decode().map_err(|error| error.of_call(function, request_id.as_deref()))
    }

    /// Like [`send`](Request::send), with the result left as it came, and with the worker that served it.
    ///
    /// # Errors
    ///
    /// Any [`CallError`] but [`Decode`](CallError::Decode).
    pub async fn send_raw(self) -> Result<Reply, CallError> {
        let Self { call, args, kwargs, on_progress } = self;
        let deadline = timer::deadline(Instant::now(), call.timeout);
        call.admitted().await?;
        let mut listener = on_progress.map(Listener::new);
        let body = call.encode(&args, kwargs.as_ref(), None, listener.is_some());
        let body = body.map_err(|error| call.named(error))?;
        let (mut attempts, mut free_attempts) = (0, 0);
        loop {
            let progress = listener.as_ref().map(Listener::sender);
            let attempt = call.attempt(body.clone(), deadline, progress);
            let error = match Listener::during(&mut listener, attempt).await {
                Ok(reply) => return Ok(reply),
                Err(error) if call.lease.is_some() => return Err(call.named(error)),
                Err(error) => error,
            };
            let again = match &error {
                // The call had surely not begun: another worker gets it. A call that may itself be what kills them is given
                // up after a few.
                CallError::WorkerDied { started: false, context, .. } => {
                    free_attempts += u32::from(context.may_be_the_cause);
                    free_attempts <= FREE_ATTEMPTS
                }
                CallError::WorkerDied { .. } => {
                    attempts += 1;
                    call.idempotent && attempts < IDEMPOTENT_ATTEMPTS
                }
                CallError::Timeout { phase: Phase::Queue, .. } => false,
                _ => {
                    attempts += 1;
                    false
                }
            };
            if !again || Instant::now() >= deadline {
                return Err(call.named(error.with_attempts(attempts)));
            }
        }
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
        let Self { call, args, kwargs, on_progress } = self;
        let deadline = timer::deadline(Instant::now(), call.timeout);
        call.admitted().await?;
        let listener = on_progress.map(Listener::new);
        let body = call.encode(&args, kwargs.as_ref(), Some(call.window), listener.is_some());
        let body = body.map_err(|error| call.named(error))?;
        let (reply, outcome) = oneshot::channel();
        let (sender, items) = mpsc::unbounded_channel();
        let (id, window) = (StreamId::new(), call.window);
        let mut pending = PendingCall::new(call.work(body, false), deadline, reply);
        pending.stream = Some(ItemSender { id, window, items: sender });
        pending.progress = listener.as_ref().map(Listener::sender);
        let name =
            Name { function: call.function.into(), request_id: call.request_id.as_deref().map(Into::into) };
        let opening = Opening { items, outcome, listener, id, window, name };
        if let Some(lease) = call.lease {
            lease.run(pending).answered(); // the worker is told of streams at once
            return Ok(opening.opened(lease.opened(), call.pool.clone()));
        }
        let (opened, on_opened) = oneshot::channel();
        let waits = call.pool.waits(deadline);
        let item = Item::Call { call: pending, opened: Some(opened) };
        let caller = call.pool.submitted(item, call.session.clone(), waits)?;
        match on_opened.await {
            Ok(opened) => {
                caller.answered(None);
                Ok(opening.opened(opened, call.pool.clone()))
            }
            Err(_) => {
                let error = opening.refused(call.pool).await;
                caller.answered(Some(&error));
                Err(call.named(error))
            }
        }
    }
}

impl Unsent<'_> {
    /// Has an error say which call it is about.
    fn named(&self, error: CallError) -> CallError {
        error.of_call(self.function, self.request_id.as_deref())
    }

    /// Waits until there is room for the call's arguments. A lease's call does not wait in the queue.
    async fn admitted(&self) -> Result<(), CallError> {
        match self.lease {
            Some(_) => Ok(()),
            None => self.pool.admitted().await.map_err(|error| self.named(error)),
        }
    }

    /// The call's body, under the wire's rules and the frame limit.
    fn encode(
        &self,
        args: &impl Serialize,
        kwargs: Option<&impl Serialize>,
        credit: Option<u32>,
        progress: bool,
    ) -> Result<Body, CallError> {
        let body = port::call_body(self.function, args, kwargs)?;
        let session = match self.lease {
            Some(lease) => lease.session.as_deref(),
            None => self.session.as_ref().map(|used| &*used.session),
        };
        let options = CallOptions {
            session,
            credit,
            progress,
            request_id: self.request_id.as_deref(),
            traceparent: self.traceparent.as_deref(),
            depth: self.depth,
        };
        let body = options.append_to(body);
        fitting(body, self.pool.settings.max_frame_bytes)
    }

    fn work(&self, body: Body, idempotent: bool) -> Work {
        // A lease's calls belong to the session that the worker already knows from its checkout.
        let session = match self.lease {
            Some(lease) => lease.session.clone(),
            None => self.session.as_ref().map(|used| used.session.clone()),
        };
        Work::Call { body, session, depth: self.depth, idempotent }
    }

    async fn attempt(
        &self,
        body: Body,
        deadline: Instant,
        progress: Option<crate::worker::UpdateSender>,
    ) -> Outcome {
        let (reply, answer) = oneshot::channel();
        let work = self.work(body, self.idempotent && self.lease.is_none());
        let mut pending = PendingCall::new(work, deadline, reply);
        pending.progress = progress;
        if let Some(lease) = self.lease {
            let on_leave = lease.run(pending);
            let outcome = answer.await.unwrap_or(Err(CallError::Draining));
            on_leave.answered();
            return outcome;
        }
        let item = Item::Call { call: pending, opened: None };
        self.pool.submit(item, self.session.clone(), self.pool.waits(deadline), answer).await
    }
}

/// A body that fits no frame must not get to a worker, which could only be ended then.
pub(super) fn fitting(body: Body, max_frame_bytes: u32) -> Result<Body, CallError> {
    let too_large = |size| CallError::too_large(Direction::Arguments, size as u64, max_frame_bytes);
    body.fitting(max_frame_bytes).map_err(too_large)
}

impl RequestId {
    /// One that no other request of this process has.
    pub(super) fn new() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }
}
