//! What may be said to a [`PoolActor`](super::PoolActor).
//!
//! [`Call`], [`Checkout`], [`EndSession`] and [`GetStatus`] are for everybody: an actix actor that has the pool's
//! [`ChildRef`](crate::supervisor::ChildRef) may send them like any message. The others are the handles' own.

use std::sync::Arc;
use std::time::Duration;

use actix::Message;
use serde::Serialize;
use tokio::sync::oneshot;

use super::core::{Affinity, RequestId, SessionUse};
use super::lease::{Lease, LeaseToken};
use super::status::PoolStatus;
use super::stream::Opened;
use crate::error::CallError;
use crate::port::{self, Body};
use crate::worker::{PendingCall, Reply};

/// Call a function on any worker. Answered with the [`Reply`], or why there is none.
///
/// One attempt; what [`Request`](super::Request) adds (retries of idempotent calls, streams, progress) belongs to the
/// handle. Whoever drops the future of a message that was sent gives up the call, as with the handle; one that was sent
/// without interest in its answer runs to its end. An answer that was sent counts as taken: a
/// [`SessionLost`](CallError::SessionLost) that its sender then drops is not told again.
///
/// Nothing is known of where it comes from: sent by a host function, it does not count as nested. Calls through
/// [`HostCall::pool`](super::HostCall::pool) do.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::Call;
///
/// let reply = pool.actor().send(Call::new("price", ("pen",))?).await??;
/// let cents: u64 = reply.decode()?;
/// # Ok(()) }
/// ```
#[derive(Message, Debug, Clone)]
#[rtype(result = "Result<Reply, CallError>")]
pub struct Call {
    pub(super) body: Body,
    pub(super) timeout: Option<Duration>,
    pub(super) session: Option<SessionUse>,
}

impl Call {
    /// A call of `function`, whose arguments are encoded here: a full queue refuses the call only when it is sent. A tuple, an array or a `Vec` gives positional arguments, a map or struct gives
    /// keywords, `()` gives none.
    ///
    /// # Errors
    ///
    /// [`CallError::Encode`] when the arguments have no JSON form.
    pub fn new(function: &str, args: impl Serialize) -> Result<Self, CallError> {
        let body = port::call_body(function, &args, None::<&()>)?;
        Ok(Self { body, timeout: None, session: None })
    }

    /// How long it may take, waiting included. Default: the pool's call timeout (30 s).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Makes it a call of this session. Default: of none.
    #[must_use]
    pub fn session(mut self, name: &str, affinity: Affinity) -> Self {
        self.session = Some(SessionUse { session: name.into(), affinity });
        self
    }
}

/// Ask for a worker of one's own. Answered with a [`Lease`], or why there is none.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::Checkout;
/// use std::time::Duration;
///
/// let lease = pool.actor().send(Checkout { timeout: Some(Duration::from_secs(1)) }).await??;
/// let answer: String = lease.call("ask", ("to be?",)).await?;
/// # Ok(()) }
/// ```
#[derive(Message, Debug, Clone, Default)]
#[rtype(result = "Result<Lease, CallError>")]
pub struct Checkout {
    /// How long to wait for one. Default: the pool's checkout timeout (5 s).
    pub timeout: Option<Duration>,
}

/// End a session: its state is dropped in every worker that has some, and the module's `@on_session_end` hooks run
/// there. Answered when they have.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::EndSession;
///
/// pool.actor().send(EndSession("alice".into())).await??;
/// # Ok(()) }
/// ```
#[derive(Message, Debug, Clone)]
#[rtype(result = "Result<(), CallError>")]
pub struct EndSession(
    /// The session's name.
    pub String,
);

/// Ask how the pool is.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::GetStatus;
///
/// let status = pool.actor().send(GetStatus).await?;
/// # Ok(()) }
/// ```
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "PoolStatus")]
pub struct GetStatus;

/// What waits in the queue.
pub(super) enum Item {
    Call {
        call: PendingCall,
        /// Of a stream: who wants to know which worker has it.
        opened: Option<oneshot::Sender<Opened>>,
    },
    Checkout {
        session: Option<Arc<str>>,
        reply: oneshot::Sender<Result<LeaseToken, CallError>>,
    },
    /// Waits for nothing: a caller that is told whether to encode its arguments.
    Announced {
        reply: oneshot::Sender<Result<(), CallError>>,
    },
    /// Waits for nothing; it is here because the core hands it back.
    EndSession {
        reply: oneshot::Sender<Result<(), CallError>>,
    },
}

impl Item {
    pub(super) fn refuse(self, error: CallError) {
        match self {
            Item::Call { call, .. } => call.fail(error),
            Item::Checkout { reply, .. } => {
                let _ = reply.send(Err(error));
            }
            Item::EndSession { reply } | Item::Announced { reply } => {
                let _ = reply.send(Err(error));
            }
        }
    }

    /// The bytes that it holds while it waits.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Item::Call { call, .. } => call.held_bytes(),
            _ => 0,
        }
    }

    /// Whether the caller has gone away.
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Item::Call { call, .. } => call.is_abandoned(),
            Item::Checkout { reply, .. } => reply.is_closed(),
            Item::EndSession { reply } | Item::Announced { reply } => reply.is_closed(),
        }
    }
}

/// The caller went away.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Abandon(pub(super) RequestId);

/// The caller of this request has taken the answer that its session is lost.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct LossHeard(pub(super) RequestId);

/// Tell when the start-up has ended.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct TellStartup(pub(super) oneshot::Sender<Result<(), super::actor::StartupFailure>>);
