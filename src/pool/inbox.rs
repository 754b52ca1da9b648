//! What the handles submit, on its way to the broker.
//!
//! Requests that come faster than the broker looks are one message to it: whoever finds the inbox empty sends a
//! [`Collect`]. A message for each would cost memory that one thread takes and another gives back.
//!
//! A caller encodes its arguments before it submits a request, and they wait encoded. So that many callers cannot fill the
//! memory with arguments that are refused then, a caller first looks whether the queue or the inbox [is full](Inbox::is_full).
//! If so, it [announces](Entry::Announced) the request, and encodes nothing until the broker has admitted it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
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
    /// A request whose arguments are not encoded yet.
    Announced(RequestId, Item),
    /// The caller of this request has taken the answer that its session is lost. It stands in order with the caller's next
    /// request, which begins the session anew.
    LossHeard(RequestId),
}

/// In the order of their coming.
pub(super) struct Inbox {
    entries: Mutex<Vec<Entry>>,
    /// How many entries there are, and the bytes that they hold. They change under the lock, and are read without.
    len: AtomicUsize,
    bytes: AtomicU64,
    /// The broker refused every request when it looked last.
    refuses_all: AtomicBool,
    most: usize,
    most_bytes: u64,
}

impl Inbox {
    /// A caller announces a request first while `most` entries, or `most_bytes` bytes, are in the inbox.
    pub(super) fn new(most: usize, most_bytes: u64) -> Self {
        Self {
            entries: Mutex::default(),
            len: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            refuses_all: AtomicBool::new(false),
            most,
            most_bytes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request is to be announced before it is encoded.
    pub(super) fn is_full(&self) -> bool {
        self.refuses_all.load(Relaxed)
            || self.len.load(Relaxed) >= self.most
            || self.bytes.load(Relaxed) >= self.most_bytes
    }

    /// The broker says whether it would refuse every request now.
    pub(super) fn set_refuses_all(&self, refuses_all: bool) {
        // Callers read it at each call: it is written when it changes only.
        if self.refuses_all.load(Relaxed) != refuses_all {
            self.refuses_all.store(refuses_all, Relaxed);
        }
    }

    /// # Errors
    /// When there is no broker; it and what others submitted meanwhile is dropped then, and these ask for themselves why.
    pub(super) fn submit(
        self: &Arc<Self>,
        entry: Entry,
        broker: &ChildRef<PoolActor>,
    ) -> Result<(), SendError> {
        let bytes = match &entry {
            Entry::Submitted(submitted) => submitted.item.bytes(),
            Entry::Announced(..) | Entry::LossHeard(_) => 0,
        };
        let mut waiting = self.lock();
        let is_first = waiting.is_empty();
        waiting.push(entry);
        self.len.store(waiting.len(), Relaxed);
        if bytes > 0 {
            self.bytes.store(self.bytes.load(Relaxed).saturating_add(bytes), Relaxed);
        }
        drop(waiting);
        if is_first { broker.do_send(Collect(Some(self.clone()))) } else { Ok(()) }
    }

    /// Takes what is there. `into` is empty; the inbox goes on with its memory.
    pub(super) fn take(&self, into: &mut Vec<Entry>) {
        let mut waiting = self.lock();
        std::mem::swap(&mut *waiting, into);
        self.len.store(0, Relaxed);
        self.bytes.store(0, Relaxed);
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
