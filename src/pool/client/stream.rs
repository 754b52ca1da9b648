//! The items of a generator, one by one.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures_util::Stream;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use super::call::{Call, Target};
use super::pool::Pool;
use super::progress::Listener;
use crate::error::{CallError, UnavailableCause};
use crate::pool::broker::{Opened, QueueItem, Submission};
use crate::port::{self, Body};
use crate::worker::{Credit, Item, ItemSender, Outcome, Placement, StreamId};

/// The items that a Python generator or other iterator yields, from [`Pool::stream`](crate::Pool::stream).
///
/// A [`Stream`] of `Result<T, CallError>`; [`next`](CallStream::next) takes one item without any other crate. After
/// an error nothing follows. At most [`window`](crate::Request::window) items are on their way: a consumer that stops
/// reading stops the generator there, or earlier, when 64 MiB of items are unread: then nothing is read from the worker. The
/// deadline holds for the whole stream.
///
/// Dropping it cancels the generator: `Cancelled` is raised where it stands, so that its `finally` blocks run.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// let mut words = pool.stream::<String>("describe", ("pen",)).await?;
/// while let Some(word) = words.next().await {
///     println!("{}", word?);
/// }
/// # Ok(()) }
/// ```
#[must_use = "dropping a stream cancels it"]
pub struct CallStream<T> {
    items: mpsc::UnboundedReceiver<Item>,
    /// `None` once it has ended.
    outcome: Option<oneshot::Receiver<Outcome>>,
    listener: Option<Listener>,
    id: StreamId,
    opened: Opened,
    call: Call,
    /// Items taken since the last credit was given.
    taken: u32,
    /// Keeps the pool going.
    _pool: Pool,
    item: PhantomData<fn() -> T>,
}

/// A stream that was submitted and that no worker has yet.
pub(super) struct Opening {
    items: mpsc::UnboundedReceiver<Item>,
    outcome: oneshot::Receiver<Outcome>,
    listener: Option<Listener>,
    id: StreamId,
    call: Call,
    submitted: Submitted,
}

enum Submitted {
    ToPool(Submission, oneshot::Receiver<Opened>),
    ToLease(Opened),
}

/// Submits the call of a stream.
pub(super) fn open(
    mut call: Call,
    target: Target<'_>,
    deadline: Instant,
    listener: Option<Listener>,
) -> Result<Opening, CallError> {
    call.complete(target, Some(call.window), listener.is_some())?;
    let (sender, items) = mpsc::unbounded_channel();
    let (id, window) = (StreamId::new(), call.window);
    let (mut pending, outcome) = call.pending(target, deadline, false);
    // The arguments are the pending call's alone.
    call.body = Body::default();
    pending.stream = Some(ItemSender { id, window, items: sender });
    pending.progress = listener.as_ref().map(Listener::sender);
    let submitted = if let Some(grant) = target.lease {
        grant.run(pending);
        Submitted::ToLease(grant.opened())
    } else {
        let (opened, on_opened) = oneshot::channel();
        let item = QueueItem::Call { call: pending, opened: Some(opened) };
        let waits = target.broker.waits(deadline);
        let submission = target.broker.submit(item, call.session.clone(), waits);
        Submitted::ToPool(submission.map_err(|error| call.named(error))?, on_opened)
    };
    Ok(Opening { items, outcome, listener, id, call, submitted })
}

impl Opening {
    /// Waits until a worker has the stream.
    pub(super) async fn stream<T>(self, pool: Pool) -> Result<CallStream<T>, CallError> {
        let Self { items, outcome, listener, id, call, submitted } = self;
        let opened = match submitted {
            Submitted::ToLease(opened) => opened,
            Submitted::ToPool(submission, on_opened) => match on_opened.await {
                Ok(opened) => {
                    submission.answered(None);
                    opened
                }
                Err(_) => {
                    let error = match outcome.await {
                        Ok(Err(error)) => error,
                        Ok(Ok(_)) | Err(_) => pool.broker().lost(),
                    };
                    submission.answered(Some(&error));
                    return Err(call.named(error));
                }
            },
        };
        let (outcome, item) = (Some(outcome), PhantomData);
        Ok(CallStream { items, outcome, listener, id, opened, call, taken: 0, _pool: pool, item })
    }
}

/// The error of a stream whose broker died.
fn lost() -> CallError {
    CallError::Unavailable { cause: UnavailableCause::BrokerRestarting }
}

impl<T: DeserializeOwned> CallStream<T> {
    /// The next item; `None` at the end, and after an error, which is the last item: what Python raised, a passed deadline, the
    /// worker's death, or an item that does not decode as `T`.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<T, CallError>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, CallError>>> {
        let Some(outcome) = &mut self.outcome else { return Poll::Ready(None) };
        // The worker drops the sender of items together with its answer, so no item comes after the answer.
        if let Some(item) = ready!(self.items.poll_recv(cx)) {
            return Poll::Ready(Some(self.take(&item.take())));
        }
        let outcome = ready!(Pin::new(outcome).poll(cx)).unwrap_or_else(|_| Err(lost()));
        self.end();
        Poll::Ready(outcome.err().map(|error| Err(self.named(error))))
    }

    fn take(&mut self, body: &Body) -> Result<T, CallError> {
        self.taken += 1;
        // In halves of the window, so that the generator need not stop in between.
        if self.taken >= self.call.window.div_ceil(2) {
            self.opened.addr.do_send(Credit { stream: self.id, items: self.taken });
            self.taken = 0;
        }
        port::decode_result(body).map_err(|error| {
            self.end();
            self.named(CallError::from(error).on_worker(&self.opened.worker))
        })
    }
}

impl<T> CallStream<T> {
    fn named(&self, error: CallError) -> CallError {
        self.call.named(error)
    }

    /// The name of the worker that serves it.
    pub fn worker(&self) -> &str {
        &self.opened.worker
    }

    /// Of a stream in a session: whether it went to the session's own worker.
    pub fn placement(&self) -> Option<Placement> {
        self.opened.placement
    }

    /// Nothing follows; a generator that still runs is cancelled.
    fn end(&mut self) {
        self.outcome = None;
        self.items.close();
        while self.items.try_recv().is_ok() {}
    }
}

impl<T: DeserializeOwned> Stream for CallStream<T> {
    type Item = Result<T, CallError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let next = this.poll_item(cx);
        // Updates that came before the item are handled before it is returned.
        if let Some(listener) = &mut this.listener {
            listener.poll(cx);
        }
        next
    }
}

impl<T> fmt::Debug for CallStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallStream")
            .field("worker", &self.worker())
            .field("placement", &self.placement())
            .finish_non_exhaustive()
    }
}
