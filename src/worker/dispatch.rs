//! One call on its way through a worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::items::Item;
use super::messages::RequestId;
use super::progress::UpdateSender;
use super::reply::{Placement, Reply};
use crate::error::CallError;
use crate::port::{Body, Frame, call_frame, session_end_frame};

/// What a call ends with: the result, still encoded. Of a stream: nothing, or why it broke off.
pub(crate) type Outcome = Result<Reply, CallError>;

/// Names one stream, for its credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamId(u64);

impl StreamId {
    /// One that no other stream of this process has.
    pub(crate) fn new() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

/// What a worker is to do.
pub(crate) enum Work {
    Call {
        /// Function and arguments, encoded.
        body: Body,
        session: Option<Arc<str>>,
        /// Of a stream: its name, and how many items it may send for a start.
        stream: Option<(StreamId, u32)>,
        /// How many host calls it is nested in.
        depth: u32,
        /// Its caller gives it to another worker when this one ends.
        idempotent: bool,
    },
    EndSession {
        session: Arc<str>,
        cause: &'static str,
        /// From when the worker begins with it: whatever runs there is awaited first.
        timeout: Duration,
    },
}

impl Work {
    pub(super) fn session(&self) -> Option<&Arc<str>> {
        match self {
            Work::Call { session, .. } => session.as_ref(),
            Work::EndSession { session, .. } => Some(session),
        }
    }
}

/// Where the answer goes.
pub(crate) struct ReplyTo {
    pub(crate) outcome: oneshot::Sender<Outcome>,
    /// Of a stream. Bounded in number by its credit, in bytes by the worker.
    pub(crate) items: Option<mpsc::UnboundedSender<Item>>,
    pub(crate) progress: Option<UpdateSender>,
}

impl ReplyTo {
    /// For one result and nothing else.
    pub(crate) fn once(outcome: oneshot::Sender<Outcome>) -> Self {
        Self { outcome, items: None, progress: None }
    }
}

/// Work with its deadline and its caller, before a worker has it.
pub(crate) struct Order {
    pub(crate) work: Work,
    /// When the caller's patience ends, waiting included; of the end of a session, never.
    pub(crate) deadline: Instant,
    pub(crate) reply: ReplyTo,
}

/// An order that a worker has. Whatever becomes of it, the caller gets an answer: dropped without, it answers
/// `WorkerDied`.
pub(crate) struct Dispatch {
    pub(super) work: Work,
    pub(super) deadline: Instant,
    /// Of one that the pool counts: by this it waits to hear that its place is free.
    pub(super) assigned: Option<RequestId>,
    placement: Option<Placement>,
    reply: Option<ReplyTo>,
    /// Where its frame ends in what is written to the worker, once it is on its way.
    sent: Option<u64>,
}

impl Dispatch {
    /// One that the pool does not count: a lease's, or the end of a session.
    pub(crate) fn new(order: Order, placement: Option<Placement>) -> Self {
        let Order { work, deadline, reply } = order;
        Self { work, deadline, assigned: None, placement, reply: Some(reply), sent: None }
    }

    /// One that the pool has a place for, and waits to hear that it is free again.
    pub(crate) fn assigned(order: Order, placement: Option<Placement>, request: RequestId) -> Self {
        let mut dispatch = Self::new(order, placement);
        dispatch.assigned = Some(request);
        dispatch
    }

    /// Whether its caller gives it to another worker when this one ends.
    pub(super) fn is_idempotent(&self) -> bool {
        matches!(self.work, Work::Call { idempotent: true, .. })
    }

    /// Whether the caller has gone away.
    pub(super) fn is_abandoned(&self) -> bool {
        self.reply.as_ref().is_none_or(|reply| reply.outcome.is_closed())
    }

    /// Ready once the caller has gone away.
    pub(super) fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.reply {
            Some(reply) => reply.outcome.poll_closed(cx),
            None => Poll::Ready(()),
        }
    }

    /// Its frame, under this id.
    pub(super) fn frame(&self, call_id: u64, now: Instant) -> Frame {
        let left = self.deadline.saturating_duration_since(now);
        let allowed = u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1);
        match &self.work {
            Work::Call { body, .. } => call_frame(call_id, allowed, body.clone()),
            Work::EndSession { session, cause, .. } => session_end_frame(call_id, allowed, session, cause),
        }
    }

    /// From here on the function may have run: its frame, which ends there, is on its way.
    pub(super) fn mark_sent(&mut self, end: u64) {
        self.sent = Some(end);
    }

    pub(super) fn is_sent(&self) -> bool {
        self.sent.is_some()
    }

    /// Whether the worker may have got its frame, when the socket took so much before it failed.
    pub(super) fn has_arrived(&self, written: u64) -> bool {
        self.sent.is_some_and(|end| end <= written)
    }

    /// Hands the caller an item of its stream.
    pub(super) fn item(&self, item: Item) {
        if let Some(items) = self.reply.as_ref().and_then(|reply| reply.items.as_ref()) {
            let _ = items.send(item);
        }
    }

    /// Hands the caller an update, if it listens.
    pub(super) fn progress(&self, body: Body) {
        if let Some(progress) = self.reply.as_ref().and_then(|reply| reply.progress.as_ref()) {
            progress.send(body);
        }
    }

    /// Answers the caller. A caller that went away wants no answer.
    pub(super) fn succeed(mut self, body: Body, worker: &Arc<str>) {
        let reply = Reply { body, worker: worker.clone(), placement: self.placement };
        self.answer(Ok(reply));
    }

    pub(super) fn fail(mut self, error: CallError) {
        self.answer(Err(error));
    }

    fn answer(&mut self, outcome: Outcome) {
        // Whoever has the answer finds what was sent closed, if nobody else holds it.
        if let Work::Call { body, .. } = &mut self.work {
            *body = Body::default();
        }
        if let Some(reply) = self.reply.take() {
            let _ = reply.outcome.send(outcome);
        }
    }
}

impl Drop for Dispatch {
    fn drop(&mut self) {
        let error = CallError::WorkerDied {
            started: self.is_sent(),
            exit: None,
            signal: None,
            max_rss_bytes: None,
            stderr_tail: String::new(),
            reason: None,
            attempts: u32::from(self.is_sent()),
            context: Box::default(),
        };
        self.answer(Err(error));
    }
}
