//! A call, and how it is given to workers until it is answered.

use std::time::{Duration, Instant};

use actix::{Message, Recipient};
use serde::Serialize;
use tokio::sync::oneshot;

use super::progress::{Listener, Progress};
use crate::budget::FREE_ATTEMPTS;
use crate::error::{CallError, Direction, Phase};
use crate::pool::broker::{BrokerRef, Grant, QueueItem, Submission};
use crate::pool::core::{Affinity, SessionUse};
use crate::port::{self, Body, CallOptions};
use crate::timer;
use crate::worker::{Outcome, PendingCall, Reply, UpdateSender, Work};

/// How often an idempotent call is handed to a worker at most.
const IDEMPOTENT_ATTEMPTS: u32 = 2;

/// How many items of a stream are on their way at most, unless the call says otherwise.
const WINDOW: u32 = 32;

/// Call a function on any worker. Answered with the [`Reply`], or why there is none.
///
/// An actix actor sends this message to the pool's [`actor`](crate::Pool::actor). It is the same call as with a
/// [`Request`](crate::Request): the same options, retries and errors.
///
/// When the sender drops the future of the message, the call is given up. A message that was sent without interest in its
/// answer runs to its end. An answer that was sent counts as taken: a [`SessionLost`](CallError::SessionLost) that its sender
/// then drops is not told again.
///
/// A call that a host function sends as a message does not count as nested. Calls through
/// [`HostCall::pool`](crate::HostCall::pool) do.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::Call;
///
/// let reply = pool.actor().send(Call::new("price", ("pen",))?.idempotent()).await??;
/// let cents: u64 = reply.decode()?;
/// # Ok(()) }
/// ```
#[derive(Message, Debug, Clone)]
#[rtype(result = "Result<Reply, CallError>")]
#[must_use = "a call does nothing until it is sent"]
pub struct Call {
    pub(super) function: Box<str>,
    pub(super) body: Body,
    pub(super) timeout: Option<Duration>,
    pub(super) session: Option<SessionUse>,
    pub(super) depth: u32,
    pub(super) window: u32,
    progress: Option<Recipient<Progress>>,
    idempotent: bool,
    request_id: Option<Box<str>>,
    traceparent: Option<Box<str>>,
}

impl Call {
    /// A call of `function`, whose arguments are encoded here: when the queue is full, the call is rejected when it is sent. A
    /// tuple, an array or a `Vec` gives positional arguments, a map or struct gives keywords, `()` gives none.
    ///
    /// # Errors
    ///
    /// [`CallError::Encode`] when the arguments have no JSON form.
    pub fn new(function: &str, args: impl Serialize) -> Result<Self, CallError> {
        let mut call = Self::unencoded(function);
        call.encode(&args, None::<&()>)?;
        Ok(call)
    }

    /// A call whose arguments are still to be [encoded](Self::encode).
    pub(super) fn unencoded(function: &str) -> Self {
        Self {
            function: function.into(),
            body: Body::default(),
            timeout: None,
            session: None,
            depth: 0,
            window: WINDOW,
            progress: None,
            idempotent: false,
            request_id: None,
            traceparent: None,
        }
    }

    pub(super) fn encode(
        &mut self,
        args: &impl Serialize,
        kwargs: Option<&impl Serialize>,
    ) -> Result<(), CallError> {
        self.body =
            port::call_body(&self.function, args, kwargs).map_err(|error| self.named(error.into()))?;
        Ok(())
    }

    /// How long the call may take, waiting for a worker and further attempts included; for a stream, until its end. Each wait
    /// for a worker is limited by the pool's checkout timeout, too. Default: the pool's call timeout (30 s).
    ///
    /// Python can ask for it: `hatchery.deadline()`.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Running this call twice does no harm: if its worker dies, the call is given to another worker, once, within the same
    /// deadline. A worker whose process is found stopped (`SIGSTOP`) counts as dead here. Default: off. A stream is never
    /// sent twice.
    ///
    /// Any call whose worker died before the call began is given to another worker. If the call was the next one to be read,
    /// so that it may be the cause of the death, that happens at most three times; then the call fails with
    /// [`WorkerDied`](CallError::WorkerDied) and the cause of the last death.
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Makes it a call of this session. Default: of no session. See [`Session`](crate::Session).
    pub fn session(mut self, name: &str) -> Self {
        let affinity = self.session.map(|used| used.affinity).unwrap_or_default();
        self.session = Some(SessionUse { session: name.into(), affinity });
        self
    }

    /// How strongly the call is tied to its session's worker. Default: [`Affinity::Hint`]. Without a session it changes
    /// nothing.
    pub fn affinity(mut self, affinity: Affinity) -> Self {
        if let Some(used) = &mut self.session {
            used.affinity = affinity;
        }
        self
    }

    /// Sends this actor each update that the function reports by `hatchery.progress(value)`, before the result. An actor whose
    /// mailbox is full misses updates. Default: no updates are sent.
    pub fn progress_to(mut self, recipient: Recipient<Progress>) -> Self {
        self.progress = Some(recipient);
        self
    }

    /// How many items of a stream may be on their way, at least 1: the generator stops there until some are taken.
    /// Default: 32.
    pub fn window(mut self, items: u32) -> Self {
        self.window = items.max(1);
        self
    }

    /// Names the request. The name is in the log records of Python's `logging` made during the call, and Python reads it by
    /// `hatchery.request_id()`. Default: none.
    pub fn request_id(mut self, id: impl Into<String>) -> Self {
        self.request_id = Some(id.into().into());
        self
    }

    /// The W3C trace context that the call belongs to, for Python: `hatchery.traceparent()`. Default: none.
    pub fn traceparent(mut self, traceparent: impl Into<String>) -> Self {
        self.traceparent = Some(traceparent.into().into());
        self
    }

    /// Has an error say which call it is about.
    pub(super) fn named(&self, error: CallError) -> CallError {
        error.of_call(&self.function, self.request_id.as_deref())
    }

    /// When the caller stops waiting.
    pub(super) fn deadline(&self, broker: &BrokerRef) -> Instant {
        timer::deadline(Instant::now(), self.timeout.unwrap_or(broker.settings().call_timeout))
    }

    /// The listener for the actor that wants the updates.
    pub(super) fn listener(&mut self) -> Option<Listener> {
        let recipient = self.progress.take()?;
        Some(Listener::new(Box::new(move |progress| {
            let _ = recipient.try_send(progress);
        })))
    }

    /// Appends the options to the body, and checks that it fits into a frame. `credit`: the window of a stream.
    pub(super) fn complete(
        &mut self,
        target: Target<'_>,
        credit: Option<u32>,
        progress: bool,
    ) -> Result<(), CallError> {
        let session = match target {
            Target { lease: Some(grant), .. } => grant.session.as_deref(),
            Target { lease: None, .. } => self.session.as_ref().map(|used| &*used.session),
        };
        let options = CallOptions {
            session,
            credit,
            progress,
            request_id: self.request_id.as_deref(),
            traceparent: self.traceparent.as_deref(),
            depth: self.depth,
        };
        let body = options.append_to(std::mem::take(&mut self.body));
        let max_frame_bytes = target.broker.settings().max_frame_bytes;
        // A worker could only be ended for a body that fits no frame, so it must not get one.
        let too_large = |size| CallError::too_large(Direction::Arguments, size as u64, max_frame_bytes);
        self.body = body.fitting(max_frame_bytes).map_err(|size| self.named(too_large(size)))?;
        Ok(())
    }

    /// One attempt of a complete call.
    pub(super) fn pending(
        &self,
        target: Target<'_>,
        deadline: Instant,
        may_repeat: bool,
    ) -> (PendingCall, oneshot::Receiver<Outcome>) {
        // A lease's calls belong to the session that the lease was checked out in.
        let session = match target {
            Target { lease: Some(grant), .. } => grant.session.clone(),
            Target { lease: None, .. } => self.session.as_ref().map(|used| used.session.clone()),
        };
        let idempotent = self.idempotent && may_repeat && target.lease.is_none();
        let (reply, outcome) = oneshot::channel();
        let work = Work::Call { body: self.body.clone(), session, depth: self.depth, idempotent };
        (PendingCall::new(work, deadline, reply), outcome)
    }

    /// Gives a complete call to a worker, or to the queue.
    pub(super) fn submit<'a>(
        &self,
        target: Target<'a>,
        deadline: Instant,
        progress: Option<UpdateSender>,
    ) -> Result<Attempt<'a>, CallError> {
        let Some(grant) = target.lease else {
            return self.submit_to_pool(target.broker, deadline, progress);
        };
        let (mut call, outcome) = self.pending(target, deadline, true);
        call.progress = progress;
        grant.run(call);
        Ok(Attempt { submitted: Submitted::ToLease(WakeOnDrop(grant)), outcome })
    }

    /// Gives a complete call to the queue.
    pub(super) fn submit_to_pool(
        &self,
        broker: &BrokerRef,
        deadline: Instant,
        progress: Option<UpdateSender>,
    ) -> Result<Attempt<'static>, CallError> {
        let (mut call, outcome) = self.pending(Target::pool(broker), deadline, true);
        call.progress = progress;
        let item = QueueItem::Call { call, opened: None };
        let submission = broker.submit(item, self.session.clone(), broker.waits(deadline))?;
        Ok(Attempt { submitted: Submitted::ToPool(submission), outcome })
    }

    /// Waits for the outcome, and submits the call again where that is allowed.
    pub(super) async fn outcome(
        &self,
        target: Target<'_>,
        deadline: Instant,
        first: Result<Attempt<'_>, CallError>,
        mut listener: Option<Listener>,
    ) -> Outcome {
        let (mut attempts, mut free_attempts) = (0, 0);
        let mut attempt = first;
        loop {
            let outcome = match attempt {
                Ok(attempt) => Listener::during(&mut listener, attempt.outcome()).await,
                Err(error) => Err(error),
            };
            let error = match outcome {
                Ok(reply) => return Ok(reply),
                Err(error) if target.lease.is_some() => return Err(self.named(error)),
                Err(error) => error,
            };
            let again = match &error {
                // The call had surely not begun: another worker gets it. A call that may itself be what kills the workers is
                // given up after a few attempts.
                CallError::WorkerDied { started: false, context, .. } => {
                    free_attempts += u32::from(context.may_be_the_cause);
                    free_attempts <= FREE_ATTEMPTS
                }
                CallError::WorkerDied { .. } => {
                    attempts += 1;
                    self.idempotent && attempts < IDEMPOTENT_ATTEMPTS
                }
                CallError::Timeout { phase: Phase::Queue, .. } => false,
                _ => {
                    attempts += 1;
                    false
                }
            };
            if !again || Instant::now() >= deadline {
                return Err(self.named(error.with_attempts(attempts)));
            }
            attempt = self.submit(target, deadline, listener.as_ref().map(Listener::sender));
        }
    }
}

/// Where a call goes: to the pool, or to the worker of a lease.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub(super) broker: &'a BrokerRef,
    pub(super) lease: Option<&'a Grant>,
}

impl<'a> Target<'a> {
    pub(super) fn pool(broker: &'a BrokerRef) -> Self {
        Self { broker, lease: None }
    }
}

/// One attempt of a call. Dropped before its outcome, it gives the call up.
pub(super) struct Attempt<'a> {
    submitted: Submitted<'a>,
    outcome: oneshot::Receiver<Outcome>,
}

enum Submitted<'a> {
    ToPool(Submission),
    ToLease(WakeOnDrop<'a>),
}

impl Attempt<'_> {
    async fn outcome(self) -> Outcome {
        match self.submitted {
            Submitted::ToPool(submission) => submission.wait(self.outcome).await,
            Submitted::ToLease(wake) => {
                let outcome = self.outcome.await.unwrap_or(Err(CallError::Draining));
                std::mem::forget(wake); // It holds nothing but a reference.
                outcome
            }
        }
    }
}

/// Dropped while a call of a lease runs, it wakes the worker, whose timer may not know of the call yet.
struct WakeOnDrop<'a>(&'a Grant);

impl Drop for WakeOnDrop<'_> {
    fn drop(&mut self) {
        self.0.wake();
    }
}
