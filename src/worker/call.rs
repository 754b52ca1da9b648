//! A call, or the end of a session, on its way to a worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::ids::RequestId;
use super::items::Item;
use super::progress::UpdateSender;
use super::reply::{Placement, Reply};
use crate::error::CallError;
use crate::port::{Body, Frame, call_frame, session_end_frame};

/// A call's end: the encoded result, or an error. A stream's end has no result.
pub(crate) type Outcome = Result<Reply, CallError>;

/// Names one stream. No other stream of this process has the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamId(u64);

impl StreamId {
    pub(crate) fn new() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

/// What Python is asked to do.
pub(crate) enum Work {
    Call {
        /// Function and arguments, encoded.
        body: Body,
        session: Option<Arc<str>>,
        /// How many host calls the call is nested in.
        depth: u32,
        /// The caller gives the call to another worker when this one ends.
        idempotent: bool,
    },
    EndSession {
        session: Arc<str>,
        cause: &'static str,
        /// How long the hooks may take. It counts from when the worker begins with them.
        timeout: Duration,
    },
}

/// Where the items of a stream go.
pub(crate) struct ItemSender {
    pub(crate) id: StreamId,
    /// How many items Python may send before it gets credit.
    pub(crate) window: u32,
    /// Its credit bounds the number of items, and the worker bounds their bytes.
    pub(crate) items: mpsc::UnboundedSender<Item>,
}

/// A call with its deadline and its caller. It is answered exactly once: a call that was assigned to a worker and is
/// dropped answers `WorkerDied`; one that was not assigned closes the caller's channel.
pub(crate) struct PendingCall {
    pub(crate) work: Work,
    /// When the caller stops waiting. The end of a session has no deadline until it begins.
    pub(crate) deadline: Instant,
    pub(crate) stream: Option<ItemSender>,
    pub(crate) progress: Option<UpdateSender>,
    outcome: Option<oneshot::Sender<Outcome>>,
    /// The pool's name for the request, which the worker repeats in `Freed`. `None` for calls that the pool does not
    /// count: those of a lease, and ends of sessions.
    request: Option<RequestId>,
    placement: Option<Placement>,
    assigned: bool,
    /// Where the call's frame ends in the bytes written to the worker, once the frame is written.
    frame_end: Option<u64>,
}

impl PendingCall {
    pub(crate) fn new(work: Work, deadline: Instant, outcome: oneshot::Sender<Outcome>) -> Self {
        Self {
            work,
            deadline,
            stream: None,
            progress: None,
            outcome: Some(outcome),
            request: None,
            placement: None,
            assigned: false,
            frame_end: None,
        }
    }

    /// The pool gives the call to a worker. `request` is `None` when the pool does not count the call.
    #[must_use]
    pub(crate) fn assigned(mut self, request: Option<RequestId>, placement: Option<Placement>) -> Self {
        (self.request, self.placement, self.assigned) = (request, placement, true);
        self
    }

    pub(super) fn request(&self) -> Option<RequestId> {
        self.request
    }

    pub(super) fn session(&self) -> Option<&Arc<str>> {
        match &self.work {
            Work::Call { session, .. } => session.as_ref(),
            Work::EndSession { session, .. } => Some(session),
        }
    }

    /// The session that this ends, if it is the end of one.
    pub(super) fn ends_session(&self) -> Option<&Arc<str>> {
        match &self.work {
            Work::Call { .. } => None,
            Work::EndSession { session, .. } => Some(session),
        }
    }

    pub(super) fn is_idempotent(&self) -> bool {
        matches!(self.work, Work::Call { idempotent: true, .. })
    }

    /// The bytes that the encoded arguments hold.
    pub(crate) fn held_bytes(&self) -> u64 {
        match &self.work {
            Work::Call { body, .. } => body.held_bytes(),
            Work::EndSession { .. } => 0,
        }
    }

    /// Whether the caller has gone away.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.outcome.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Ready once the caller has gone away.
    pub(super) fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.outcome {
            Some(outcome) => outcome.poll_closed(cx),
            None => Poll::Ready(()),
        }
    }

    /// The frame that tells Python, under this id.
    pub(super) fn frame(&self, call_id: u64, now: Instant) -> Frame {
        let left = self.deadline.saturating_duration_since(now);
        let allowed = u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1);
        match &self.work {
            Work::Call { body, .. } => call_frame(call_id, allowed, body.clone()),
            Work::EndSession { session, cause, .. } => session_end_frame(call_id, allowed, session, cause),
        }
    }

    /// The frame is on its way, so the function may have run. `end`: where the frame ends in the written bytes.
    pub(super) fn mark_sent(&mut self, end: u64) {
        self.frame_end = Some(end);
    }

    pub(super) fn is_sent(&self) -> bool {
        self.frame_end.is_some()
    }

    /// Whether the worker may have received the frame, when the socket has taken `written` bytes.
    pub(super) fn has_arrived(&self, written: u64) -> bool {
        self.frame_end.is_some_and(|end| end <= written)
    }

    /// Answers the caller. A caller that has gone away gets nothing.
    pub(super) fn succeed(mut self, body: Body, worker: &Arc<str>) {
        let reply = Reply { body, worker: worker.clone(), placement: self.placement };
        self.answer(Ok(reply));
    }

    pub(crate) fn fail(mut self, error: CallError) {
        self.answer(Err(error));
    }

    fn answer(&mut self, outcome: Outcome) {
        // The arguments are closed before the caller has its answer, unless somebody else holds them.
        if let Work::Call { body, .. } = &mut self.work {
            *body = Body::default();
        }
        // The items end with the answer, and before it the consumer of a stream has all of them.
        self.stream = None;
        if let Some(reply) = self.outcome.take() {
            let _ = reply.send(outcome);
        }
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        if !self.assigned || self.outcome.is_none() {
            return;
        }
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
