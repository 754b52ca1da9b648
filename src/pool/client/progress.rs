//! How far a call has come, as its function says.

use std::fmt;
use std::pin::pin;
use std::task::{Context, Poll};

use actix::Message;
use serde::de::DeserializeOwned;

use crate::budget::UPDATES_PER_POLL;
use crate::error::CallError;
use crate::port::{self, Body};
use crate::worker::{UpdateReceiver, UpdateSender, updates};

/// An update from `hatchery.progress(value)`, not decoded yet.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// let trained: f64 = pool
///     .request("train")
///     .args((10,))
///     .on_progress(|progress| println!("{}", String::from_utf8_lossy(progress.as_json())))
///     .send()
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Message, Debug, Clone, PartialEq, Eq)]
#[rtype(result = "()")]
pub struct Progress {
    body: Body,
}

impl Progress {
    /// The value as a Rust value.
    ///
    /// # Errors
    ///
    /// [`CallError::Decode`] with the place where it does not fit.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        Ok(port::decode_result(&self.body)?)
    }

    /// The value as the JSON text that came from Python. Where bytes are in it, something else stands for them: decode it
    /// instead.
    pub fn as_json(&self) -> &[u8] {
        &self.body.json
    }
}

/// The caller's handler of updates.
pub(super) type Handle = Box<dyn FnMut(Progress) + Send>;

/// Hands the updates of one call to its handler, in the task that waits for the call.
pub(super) struct Listener {
    sender: UpdateSender,
    updates: UpdateReceiver,
    handle: Handle,
}

impl Listener {
    pub(super) fn new(handle: Handle) -> Self {
        let (sender, updates) = updates();
        Self { sender, updates, handle }
    }

    pub(super) fn sender(&self) -> UpdateSender {
        self.sender.clone()
    }

    /// Handles the updates that have come, at most [`UPDATES_PER_POLL`], and wakes the task again if there may be more.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        for _ in 0..UPDATES_PER_POLL {
            let Poll::Ready(body) = self.updates.poll_next(cx) else { return };
            (self.handle)(Progress { body });
        }
        cx.waker().wake_by_ref();
    }

    /// Waits for an answer. Updates that came before it are handled before it.
    pub(super) async fn during<T>(listener: &mut Option<Self>, answer: impl Future<Output = T>) -> T {
        let Some(listener) = listener else { return answer.await };
        let mut answer = pin!(answer);
        std::future::poll_fn(|cx| {
            let answer = answer.as_mut().poll(cx);
            listener.poll(cx);
            answer
        })
        .await
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, OnceLock};

    use futures_util::task::noop_waker_ref;

    use super::*;

    #[test]
    fn handler_slower_than_its_function_gives_its_task_back() {
        let update = || Body::from(bytes::Bytes::from_static(b"1"));
        let handled = Arc::new(AtomicUsize::new(0));
        let sender = Arc::new(OnceLock::<UpdateSender>::new());
        let (count, more) = (handled.clone(), sender.clone());
        // While one update is handled, the next one comes.
        let mut listener = Listener::new(Box::new(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            // Ends this test if the poll does not end.
            assert!(count.load(Ordering::Relaxed) <= UPDATES_PER_POLL * 2);
            more.get().expect("it is set").send(update());
        }));
        listener.sender().send(update());
        sender.set(listener.sender()).ok().expect("it is set once");
        for polls in 1..=2 {
            listener.poll(&mut Context::from_waker(noop_waker_ref()));
            assert_eq!(handled.load(Ordering::Relaxed), polls * UPDATES_PER_POLL);
        }
    }
}
