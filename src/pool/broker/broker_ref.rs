//! How callers reach the broker.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use actix::{Handler, Message};
use tokio::sync::{oneshot, watch};

use super::actor::PoolActor;
use super::errors::StartupFailure;
use super::inbox::{Collect, Entry, Inbox, QueueItem, Submitted};
use super::messages::{Abandon, TellStartup};
use crate::error::{CallError, UnavailableCause};
use crate::pool::core::{RequestId, SessionUse};
use crate::pool::runtime::Runtime;
use crate::supervisor::{ChildRef, SendError, SupervisorRef};
use crate::timer;

/// What the callers of a pool share. It outlives restarts of the broker.
pub(crate) struct PoolShared {
    settings: CallDefaults,
    pub(super) inbox: Arc<Inbox>,
    /// `None` until the pool starts for the first time.
    place: watch::Sender<Option<Place>>,
    /// The runtime of a pool that its handles own.
    runtime: OnceLock<Weak<Runtime>>,
    is_closing: AtomicBool,
}

/// The broker's place in a supervision tree.
struct Place {
    broker: ChildRef<PoolActor>,
    supervisor: SupervisorRef,
}

/// The part of the pool's configuration that callers need.
#[derive(Debug, Clone)]
pub(crate) struct CallDefaults {
    pub(crate) pool: String,
    pub(crate) call_timeout: Duration,
    pub(crate) checkout_timeout: Duration,
    pub(crate) max_frame_bytes: u32,
}

impl PoolShared {
    pub(crate) fn new(settings: CallDefaults, inbox: Inbox) -> Arc<Self> {
        let inbox = Arc::new(inbox);
        let (place, runtime, is_closing) =
            (watch::Sender::new(None), OnceLock::new(), AtomicBool::new(false));
        Arc::new(Self { settings, inbox, place, runtime, is_closing })
    }

    fn broker(&self) -> Option<ChildRef<PoolActor>> {
        self.place.borrow().as_ref().map(|place| place.broker.clone())
    }

    /// Sends the broker a message that needs no answer.
    pub(super) fn do_send<M>(&self, message: M) -> Result<(), SendError>
    where
        M: Message<Result = ()> + Send + 'static,
        PoolActor: Handler<M>,
    {
        self.broker().ok_or(SendError::Restarting)?.do_send(message)
    }
}

/// Reaches the broker of one pool, also after the broker was restarted. It keeps nothing alive.
#[derive(Clone)]
pub(crate) struct BrokerRef {
    shared: Arc<PoolShared>,
}

impl BrokerRef {
    pub(crate) fn new(shared: Arc<PoolShared>) -> Self {
        Self { shared }
    }

    pub(crate) fn settings(&self) -> &CallDefaults {
        &self.shared.settings
    }

    /// The broker; `None` until the pool starts for the first time.
    pub(crate) fn actor(&self) -> Option<ChildRef<PoolActor>> {
        self.shared.broker()
    }

    /// The runtime that the pool's handles own; `None` for a pool in a tree of the user's, and once the pool is ending.
    pub(crate) fn runtime(&self) -> Option<Arc<Runtime>> {
        self.shared.runtime.get()?.upgrade()
    }

    /// Handles own this runtime from now on. Called at most once.
    pub(crate) fn set_runtime(&self, runtime: &Arc<Runtime>) {
        let _ = self.shared.runtime.set(Arc::downgrade(runtime));
    }

    /// The broker of this pool starts, and has this place in a tree from now on.
    ///
    /// # Errors
    /// When the pool runs already: one specification was started twice.
    pub(super) fn bind(
        &self,
        broker: ChildRef<PoolActor>,
        supervisor: SupervisorRef,
    ) -> Result<(), AlreadyRuns> {
        let mut running = None;
        self.shared.place.send_if_modified(|place| {
            running = place
                .as_ref()
                .filter(|other| other.broker.addr().is_some())
                .map(|other| other.broker.path().to_owned());
            if running.is_none() {
                *place = Some(Place { broker, supervisor });
            }
            running.is_none()
        });
        match running {
            Some(path) => Err(AlreadyRuns { pool: self.shared.settings.pool.clone(), path }),
            None => Ok(()),
        }
    }

    /// Waits until no supervisor will start the broker again.
    pub(crate) async fn ended(&self) {
        let mut place = self.shared.place.subscribe();
        let started = place.wait_for(Option::is_some).await;
        let supervisor = started.ok().and_then(|place| Some(place.as_ref()?.supervisor.clone()));
        if let Some(supervisor) = supervisor {
            supervisor.ended().await;
        }
    }

    /// The pool's shutdown begins. From now on callers get `Draining`.
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
        let answer = self.actor().ok_or(SendError::Restarting).map(|broker| broker.send(message));
        let answer = match answer {
            Ok(answer) => answer.await,
            Err(error) => Err(error),
        };
        answer.map_err(|error| self.unavailable(error))
    }

    /// How the start-up of this incarnation of the broker ends; nothing comes when the broker ends before.
    pub(crate) fn startup(&self) -> oneshot::Receiver<Result<(), StartupFailure>> {
        let (tell, startup) = oneshot::channel();
        // Without a broker the message is dropped, and the receiver ends.
        let _ = self.shared.do_send(TellStartup(tell));
        startup
    }

    /// The error of a caller whose request was lost with its broker, perhaps before the broker had it.
    pub(crate) fn lost(&self) -> CallError {
        let down = self.actor().map_or(Some(SendError::Restarting), |broker| broker.down());
        self.unavailable(down.unwrap_or(SendError::Lost))
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
        let is_first = self.shared.inbox.push(entry);
        // When there is no broker, the message is dropped, and with it all entries of the inbox.
        let collect = || self.shared.do_send(Collect::new(self.shared.inbox.clone()));
        if is_first { collect().map_err(|error| self.unavailable(error)) } else { Ok(()) }
    }
}

/// Why a broker does not start: one specification of a pool is in a tree twice.
#[derive(Debug, thiserror::Error)]
#[error("pool {pool:?} runs already as {path:?}: a pool's specification can be in one tree at a time")]
pub(super) struct AlreadyRuns {
    pool: String,
    path: String,
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
            // Without a broker there are no sessions either.
            let _ = self.broker.put(Entry::LossHeard(self.request));
        }
    }
}

impl Drop for Submission {
    fn drop(&mut self) {
        if !self.is_answered {
            // Without a broker there is no queue, and the request is gone already.
            let _ = self.broker.shared.do_send(Abandon(self.request));
        }
    }
}
