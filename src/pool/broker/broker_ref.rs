//! How callers reach the broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actix::{Handler, Message};
use tokio::sync::oneshot;

use super::actor::PoolActor;
use super::inbox::{Entry, Inbox, QueueItem, Submitted};
use super::messages::Abandon;
use crate::error::{CallError, UnavailableCause};
use crate::pool::core::{RequestId, SessionUse};
use crate::supervisor::{ChildRef, SendError};
use crate::timer;

/// What the callers of a pool share. It outlives restarts of the broker.
pub(crate) struct Shared {
    pub(crate) settings: CallDefaults,
    pub(super) inbox: Inbox,
    is_closing: AtomicBool,
}

/// What a caller must know of the pool's configuration.
#[derive(Debug, Clone)]
pub(crate) struct CallDefaults {
    pub(crate) pool: String,
    pub(crate) call_timeout: Duration,
    pub(crate) checkout_timeout: Duration,
    pub(crate) max_frame_bytes: u32,
}

impl Shared {
    pub(crate) fn new(settings: CallDefaults, inbox: Inbox) -> Arc<Self> {
        Arc::new(Self { settings, inbox, is_closing: AtomicBool::new(false) })
    }
}

/// Reaches the broker of one pool, also after the broker was restarted. It keeps nothing alive.
#[derive(Clone)]
pub(crate) struct BrokerRef {
    shared: Arc<Shared>,
    broker: ChildRef<PoolActor>,
}

impl BrokerRef {
    pub(crate) fn new(shared: Arc<Shared>, broker: ChildRef<PoolActor>) -> Self {
        Self { shared, broker }
    }

    pub(crate) fn settings(&self) -> &CallDefaults {
        &self.shared.settings
    }

    pub(crate) fn actor(&self) -> &ChildRef<PoolActor> {
        &self.broker
    }

    /// The pool's shutdown begins: callers are told of it from now on.
    pub(crate) fn set_closing(&self) {
        self.shared.is_closing.store(true, Ordering::Relaxed);
    }

    /// Asks the broker.
    pub(crate) async fn send<M>(&self, message: M) -> Result<M::Result, CallError>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        PoolActor: Handler<M>,
    {
        self.broker.send(message).await.map_err(|error| self.unavailable(error))
    }

    /// The error of a caller whose request was lost with its broker, perhaps before the broker had it.
    pub(crate) fn lost(&self) -> CallError {
        self.unavailable(self.broker.down().unwrap_or(SendError::Lost))
    }

    fn unavailable(&self, error: SendError) -> CallError {
        let cause = match error {
            SendError::Down => UnavailableCause::Stopped,
            SendError::Restarting | SendError::Lost if self.shared.is_closing.load(Ordering::Relaxed) => {
                return CallError::Draining;
            }
            SendError::Restarting | SendError::Lost => UnavailableCause::BrokerRestarting,
        };
        CallError::Unavailable { cause }
    }

    /// Waits until the broker has room for a request whose arguments are not encoded yet. While the queue is not full, it
    /// does not wait.
    ///
    /// # Errors
    /// The rejection that the request would get.
    pub(crate) async fn admitted(&self) -> Result<(), CallError> {
        while self.shared.inbox.is_full() {
            let (reply, answer) = oneshot::channel();
            self.put(Entry::Announced(RequestId::new(), QueueItem::Announced { reply }))?;
            answer.await.unwrap_or_else(|_| Err(self.lost()))?;
        }
        Ok(())
    }

    /// Submits a request that waits for a worker until `deadline`, and at most for the pool's checkout timeout.
    pub(crate) fn submit(
        &self,
        item: QueueItem,
        session: Option<SessionUse>,
        waits: Duration,
    ) -> Result<Submission, CallError> {
        let request = RequestId::new();
        let deadline = timer::deadline(Instant::now(), waits);
        self.put(Entry::Submitted(Submitted { request, deadline, session, item }))?;
        Ok(Submission { request, broker: self.clone(), is_answered: false })
    }

    /// How long a call of this deadline may wait for a worker.
    pub(crate) fn waits(&self, deadline: Instant) -> Duration {
        self.settings().checkout_timeout.min(deadline.saturating_duration_since(Instant::now()))
    }

    fn put(&self, entry: Entry) -> Result<(), CallError> {
        self.shared.put(entry, &self.broker).map_err(|error| self.unavailable(error))
    }
}

/// A submitted request. Dropped before it is [answered](Submission::answered), it tells the broker that the caller has left.
#[must_use]
pub(crate) struct Submission {
    request: RequestId,
    broker: BrokerRef,
    is_answered: bool,
}

impl Submission {
    /// Waits for the answer.
    pub(crate) async fn wait<T>(
        self,
        answer: oneshot::Receiver<Result<T, CallError>>,
    ) -> Result<T, CallError> {
        let answer = answer.await.unwrap_or_else(|_| Err(self.broker.lost()));
        self.answered(answer.as_ref().err());
        answer
    }

    /// The caller has its answer, with this error if there is one.
    pub(crate) fn answered(mut self, error: Option<&CallError>) {
        self.is_answered = true;
        if let Some(CallError::SessionLost { .. }) = error {
            // When it fails, the broker is gone, and what it knew of sessions with it.
            let _ = self.broker.put(Entry::LossHeard(self.request));
        }
    }
}

impl Drop for Submission {
    fn drop(&mut self) {
        if !self.is_answered {
            // When it fails, the queue is gone and the request with it.
            let _ = self.broker.broker.do_send(Abandon(self.request));
        }
    }
}
