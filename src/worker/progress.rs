//! The updates of one call on their way to its caller.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

use crate::budget::{UPDATE_BYTES, UPDATES};
use crate::port::Body;

#[derive(Default)]
struct Shared {
    updates: Mutex<Updates>,
    waker: AtomicWaker,
}

/// The newest updates, bounded in number and bytes: one more takes the place of the oldest. So a slow caller bounds nothing
/// but itself, and still sees the newest.
#[derive(Default)]
struct Updates {
    waiting: VecDeque<Body>,
    bytes: u64,
}

impl Updates {
    fn push(&mut self, update: Body) {
        self.bytes += update.held_bytes();
        self.waiting.push_back(update);
        while self.waiting.len() > UPDATES || (self.bytes > UPDATE_BYTES && self.waiting.len() > 1) {
            self.pop();
        }
    }

    fn pop(&mut self) -> Option<Body> {
        let update = self.waiting.pop_front()?;
        self.bytes -= update.held_bytes();
        Some(update)
    }
}

/// The worker's end.
#[derive(Clone)]
pub(crate) struct UpdateSender(Arc<Shared>);

/// The caller's end.
pub(crate) struct UpdateReceiver(Arc<Shared>);

pub(crate) fn updates() -> (UpdateSender, UpdateReceiver) {
    let shared = Arc::new(Shared::default());
    (UpdateSender(shared.clone()), UpdateReceiver(shared))
}

impl UpdateSender {
    pub(crate) fn send(&self, update: Body) {
        self.0.updates.lock().unwrap_or_else(PoisonError::into_inner).push(update);
        self.0.waker.wake();
    }
}

impl UpdateReceiver {
    /// The next update that is there.
    pub(crate) fn try_next(&mut self) -> Option<Body> {
        self.0.updates.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// The next update. It never ends: when the call does, no more will come.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Body> {
        self.0.waker.register(cx.waker());
        self.try_next().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker_ref;

    use super::*;

    fn body(update: usize) -> Body {
        bytes::Bytes::from(update.to_string()).into()
    }

    #[test]
    fn a_slow_caller_sees_the_newest_in_order() {
        let (sender, mut receiver) = updates();
        for update in 0..UPDATES + 10 {
            sender.send(body(update));
        }
        for update in 10..UPDATES + 10 {
            assert_eq!(receiver.try_next(), Some(body(update)));
        }
        assert_eq!(receiver.poll_next(&mut Context::from_waker(noop_waker_ref())), Poll::Pending);
    }

    #[test]
    fn large_updates_are_bounded_by_their_bytes() {
        let (sender, mut receiver) = updates();
        let large = |letter: u8| Body::from(bytes::Bytes::from(vec![letter; 3 * UPDATE_BYTES as usize / 4]));
        sender.send(large(1));
        sender.send(large(2));
        sender.send(body(3));
        assert_eq!(receiver.try_next(), Some(large(2)));
        assert_eq!(receiver.try_next(), Some(body(3)));
        let huge = Body::from(bytes::Bytes::from(vec![4; 2 * UPDATE_BYTES as usize]));
        sender.send(huge.clone());
        assert_eq!(receiver.try_next(), Some(huge), "the newest is kept, however large");
        assert_eq!(receiver.try_next(), None);
    }
}
