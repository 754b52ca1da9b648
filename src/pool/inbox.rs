//! What the handles submit, on its way to the broker.
//!
//! Requests that come faster than the broker looks are one message to it: whoever finds the inbox empty sends a
//! [`Collect`]. A message for each would cost memory that one thread takes and another gives back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use actix::Message;

use super::actor::PoolActor;
use super::core::{RequestId, SessionUse};
use super::messages::Item;
use crate::supervisor::{ChildRef, SendError};

/// A request as the handles put it: the answer goes to a channel that the caller already waits on.
pub(super) struct Submitted {
    pub(super) request: RequestId,
    /// Until when it may wait for a worker.
    pub(super) deadline: Instant,
    pub(super) session: Option<SessionUse>,
    pub(super) item: Item,
}

/// What the handles say to the broker.
pub(super) enum Entry {
    Submitted(Submitted),
    /// The caller of this request has taken the answer that its session is lost. It stands in order with the caller's next
    /// request, which begins the session anew.
    LossHeard(RequestId),
}

/// In the order of their coming.
#[derive(Default)]
pub(super) struct Inbox(Mutex<Vec<Entry>>);

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// When there is no broker; it and what others submitted meanwhile is dropped then, and these ask for themselves why.
    pub(super) fn submit(
        self: &Arc<Self>,
        entry: Entry,
        broker: &ChildRef<PoolActor>,
    ) -> Result<(), SendError> {
        let mut waiting = self.lock();
        let is_first = waiting.is_empty();
        waiting.push(entry);
        drop(waiting);
        if is_first { broker.do_send(Collect(Some(self.clone()))) } else { Ok(()) }
    }

    /// Takes what is there. `into` is empty; the inbox goes on with its memory.
    pub(super) fn take(&self, into: &mut Vec<Entry>) {
        std::mem::swap(&mut *self.lock(), into);
    }
}

/// There is something in the inbox. Nobody else will say so until it is taken: should this message be lost with a
/// broker, so is what is there, and each caller hears that.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Collect(Option<Arc<Inbox>>);

impl Collect {
    /// It has been heard.
    pub(super) fn heard(mut self) {
        self.0 = None;
    }
}

impl Drop for Collect {
    fn drop(&mut self) {
        if let Some(inbox) = self.0.take() {
            let mut lost = Vec::new();
            inbox.take(&mut lost);
        }
    }
}
