//! What callers submit, on its way to the broker.
//!
//! A caller that finds the inbox empty sends a [`Collect`] message; requests that come before the broker takes it need no message
//! of their own. A message for each request would cost memory that one thread allocates and another frees.
//!
//! A caller encodes its arguments before it submits a request, and they wait encoded. So that many callers cannot fill the
//! memory with arguments that are rejected then, a caller first looks whether the queue or the inbox [is full](Inbox::is_full).
//! If so, it [announces](Entry::Announced) the request, and encodes nothing until the broker admits it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use actix::Message;
use tokio::sync::oneshot;

use super::grant::{Grant, Opened};
use crate::error::CallError;
use crate::pool::core::{RequestId, SessionUse};
use crate::worker::PendingCall;

/// A request that waits in the queue.
pub(crate) enum QueueItem {
    Call {
        call: PendingCall,
        /// For a stream: tells the caller which worker has it.
        opened: Option<oneshot::Sender<Opened>>,
    },
    Checkout {
        session: Option<Arc<str>>,
        reply: oneshot::Sender<Result<Grant, CallError>>,
    },
    /// A caller that is told whether to encode its arguments. It does not wait in the queue.
    Announced {
        reply: oneshot::Sender<Result<(), CallError>>,
    },
    /// It does not wait in the queue; it is here because the core hands it back.
    EndSession {
        reply: oneshot::Sender<Result<(), CallError>>,
    },
}

impl QueueItem {
    pub(super) fn reject(self, error: CallError) {
        match self {
            Self::Call { call, .. } => call.fail(error),
            Self::Checkout { reply, .. } => {
                let _ = reply.send(Err(error));
            }
            Self::EndSession { reply } | Self::Announced { reply } => {
                let _ = reply.send(Err(error));
            }
        }
    }

    /// The bytes that it holds while it waits.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Call { call, .. } => call.held_bytes(),
            Self::Checkout { .. } | Self::Announced { .. } | Self::EndSession { .. } => 0,
        }
    }

    /// Whether the caller has gone away.
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Self::Call { call, .. } => call.is_abandoned(),
            Self::Checkout { reply, .. } => reply.is_closed(),
            Self::EndSession { reply } | Self::Announced { reply } => reply.is_closed(),
        }
    }
}

/// A request as a caller submits it. The answer goes to a channel that the caller already waits on.
pub(super) struct Submitted {
    pub(super) request: RequestId,
    /// Until when it may wait for a worker.
    pub(super) deadline: Instant,
    pub(super) session: Option<SessionUse>,
    pub(super) item: QueueItem,
}

/// What callers put into the inbox.
pub(super) enum Entry {
    Submitted(Submitted),
    /// A request whose arguments are not encoded yet.
    Announced(RequestId, QueueItem),
    /// The caller of this request has taken the answer that its session is lost. It stands in order with the caller's next
    /// request, which begins the session anew.
    LossHeard(RequestId),
}

/// The entries in the order of their coming.
pub(crate) struct Inbox {
    entries: Mutex<Vec<Entry>>,
    /// How many entries there are, and the bytes that they hold. They change under the lock, and are read without.
    len: AtomicUsize,
    bytes: AtomicU64,
    /// Whether the broker would have rejected every request after the last event.
    rejects_all: AtomicBool,
    max_len: usize,
    max_bytes: u64,
}

impl Inbox {
    /// A caller announces a request first while `max_len` entries, or `max_bytes` bytes, are in the inbox.
    pub(crate) fn new(max_len: usize, max_bytes: u64) -> Self {
        Self {
            entries: Mutex::default(),
            len: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            rejects_all: AtomicBool::new(false),
            max_len,
            max_bytes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request is to be announced before it is encoded.
    pub(super) fn is_full(&self) -> bool {
        self.rejects_all.load(Relaxed)
            || self.len.load(Relaxed) >= self.max_len
            || self.bytes.load(Relaxed) >= self.max_bytes
    }

    /// The broker says whether it would reject every request now.
    pub(super) fn set_rejects_all(&self, rejects_all: bool) {
        // Callers read it at each call, so it is written only when it changes.
        if self.rejects_all.load(Relaxed) != rejects_all {
            self.rejects_all.store(rejects_all, Relaxed);
        }
    }

    /// Takes the entries. `into` is empty; the inbox goes on with its memory.
    pub(super) fn take(&self, into: &mut Vec<Entry>) {
        let mut entries = self.lock();
        std::mem::swap(&mut *entries, into);
        self.len.store(0, Relaxed);
        self.bytes.store(0, Relaxed);
    }

    /// Returns whether the entry is the first one.
    pub(super) fn push(&self, entry: Entry) -> bool {
        let bytes = match &entry {
            Entry::Submitted(submitted) => submitted.item.bytes(),
            Entry::Announced(..) | Entry::LossHeard(_) => 0,
        };
        let mut entries = self.lock();
        let is_first = entries.is_empty();
        entries.push(entry);
        self.len.store(entries.len(), Relaxed);
        if bytes > 0 {
            self.bytes.store(self.bytes.load(Relaxed).saturating_add(bytes), Relaxed);
        }
        is_first
    }
}

/// There are entries in the inbox. This message comes once until they are taken. When it is lost with a broker, the entries are
/// dropped, and their callers get an error.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Collect(Option<Arc<Inbox>>);

impl Collect {
    pub(super) fn new(inbox: Arc<Inbox>) -> Self {
        Self(Some(inbox))
    }

    pub(super) fn received(mut self) {
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
