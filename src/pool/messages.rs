//! What may be said to a [`PoolActor`](super::PoolActor).
//!
//! [`Call`], [`Checkout`] and [`GetStatus`] are for everybody: an actix actor that has the pool's
//! [`ChildRef`](crate::supervisor::ChildRef) may send them like any message. The others are the handles' own.

use std::time::{Duration, Instant};

use actix::Message;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::core::RequestId;
use super::lease::{Lease, LeaseToken};
use super::status::PoolStatus;
use crate::error::CallError;
use crate::port;

/// Call a function on any worker. Answered with the [`Reply`], or why there is none.
///
/// One attempt; what [`Request`](super::Request) adds (retries of idempotent calls) belongs to the handle.
#[derive(Message, Debug, Clone)]
#[rtype(result = "Result<Reply, CallError>")]
pub struct Call {
    pub(super) body: Bytes,
    pub(super) timeout: Option<Duration>,
}

impl Call {
    /// A call of `function`. A tuple, an array or a `Vec` gives positional arguments, a map or struct gives
    /// keywords, `()` gives none.
    ///
    /// # Errors
    ///
    /// [`CallError::Encode`] when the arguments have no JSON form.
    pub fn new(function: &str, args: impl Serialize) -> Result<Self, CallError> {
        let body = port::call_body(function, &args, None::<&()>)?;
        Ok(Self { body, timeout: None })
    }

    /// How long it may take, waiting included. Default: the pool's call timeout.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

/// What a function returned, not decoded yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub(super) body: Bytes,
}

impl Reply {
    /// The result as a Rust value.
    ///
    /// # Errors
    ///
    /// [`CallError::Decode`] with the place where it does not fit.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        Ok(port::decode_result(&self.body)?)
    }

    /// The result as the JSON text that came from Python.
    pub fn as_json(&self) -> &[u8] {
        &self.body
    }
}

/// Ask for a worker of one's own. Answered with a [`Lease`], or why there is none.
#[derive(Message, Debug, Clone, Default)]
#[rtype(result = "Result<Lease, CallError>")]
pub struct Checkout {
    /// How long to wait for one. Default: the pool's checkout timeout.
    pub timeout: Option<Duration>,
}

/// Ask how the pool is.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "PoolStatus")]
pub struct GetStatus;

/// A request as the handles put it: the answer goes to a channel that the caller already waits on.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Submit {
    pub(super) request: RequestId,
    /// Until when it may wait for a worker.
    pub(super) deadline: Instant,
    pub(super) item: Item,
}

/// What waits in the queue.
pub(super) enum Item {
    /// Becomes a [`Dispatch`](crate::worker::Dispatch) when a worker gets it: before that, its end is no
    /// worker's death.
    Call {
        body: Bytes,
        deadline: Instant,
        reply: oneshot::Sender<Result<Bytes, CallError>>,
    },
    Checkout {
        reply: oneshot::Sender<Result<LeaseToken, CallError>>,
    },
}

impl Item {
    pub(super) fn refuse(self, error: CallError) {
        match self {
            Item::Call { reply, .. } => {
                let _ = reply.send(Err(error));
            }
            Item::Checkout { reply } => {
                let _ = reply.send(Err(error));
            }
        }
    }

    /// Whether the caller has gone away.
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Item::Call { reply, .. } => reply.is_closed(),
            Item::Checkout { reply } => reply.is_closed(),
        }
    }
}

/// The caller went away.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Abandon(pub(super) RequestId);

/// Tell when the start-up has ended.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct TellStartup(pub(super) oneshot::Sender<Result<(), super::actor::StartupFailure>>);
