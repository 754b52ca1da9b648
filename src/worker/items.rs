//! The items of streams on their way to their readers, and the bytes that the readers have not taken yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::task::AtomicWaker;

use crate::port::Body;

/// Counts the bytes of one stream's items that the reader has not taken.
#[derive(Clone)]
pub(super) struct Unread(Arc<Count>);

struct Count {
    bytes: AtomicU64,
    /// The worker's, for all of its streams.
    takers: Arc<AtomicWaker>,
}

/// An item of a stream. It counts as unread until it is taken or dropped.
pub(crate) struct Item {
    body: Body,
    counted: Counted,
}

struct Counted {
    unread: Unread,
    bytes: u64,
}

impl Unread {
    pub(super) fn new(takers: &Arc<AtomicWaker>) -> Self {
        Self(Arc::new(Count { bytes: AtomicU64::new(0), takers: takers.clone() }))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Acquire)
    }

    pub(super) fn count(&self, body: Body) -> Item {
        let bytes = body.held_bytes();
        self.0.bytes.fetch_add(bytes, Ordering::AcqRel);
        Item { body, counted: Counted { unread: self.clone(), bytes } }
    }
}

impl Item {
    pub(crate) fn take(self) -> Body {
        drop(self.counted);
        self.body
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.unread.0.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.unread.0.takers.wake();
    }
}
