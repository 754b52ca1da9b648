//! The updates of one call on their way to its caller.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

use crate::port::Body;

/// How many updates wait for a caller; one more takes the place of the oldest, so that a slow caller bounds nothing
/// but itself, and still sees the newest.
const MOST_UPDATES: usize = 64;

#[derive(Default)]
struct Shared {
    updates: Mutex<VecDeque<Body>>,
    waker: AtomicWaker,
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
    pub(super) fn send(&self, update: Body) {
        let mut updates = self.0.updates.lock().unwrap_or_else(PoisonError::into_inner);
        if updates.len() == MOST_UPDATES {
            updates.pop_front();
        }
        updates.push_back(update);
        drop(updates);
        self.0.waker.wake();
    }
}

impl UpdateReceiver {
    /// The next update that is there.
    pub(crate) fn try_next(&mut self) -> Option<Body> {
        self.0.updates.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
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
        for update in 0..MOST_UPDATES + 10 {
            sender.send(body(update));
        }
        for update in 10..MOST_UPDATES + 10 {
            assert_eq!(receiver.try_next(), Some(body(update)));
        }
        assert_eq!(receiver.poll_next(&mut Context::from_waker(noop_waker_ref())), Poll::Pending);
    }
}
