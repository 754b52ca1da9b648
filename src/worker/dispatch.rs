//! One call on its way through a worker.

use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::error::CallError;

/// What a call ends with: the result, still encoded.
pub(crate) type Outcome = Result<Bytes, CallError>;

/// A call that owes its caller an answer. Whatever becomes of it, the caller gets one: dropped without,
/// it answers `WorkerDied`.
pub(crate) struct Dispatch {
    /// Function and arguments, encoded.
    pub(crate) body: Bytes,
    /// When the caller's patience ends, waiting included.
    pub(crate) deadline: Instant,
    reply: Option<oneshot::Sender<Outcome>>,
    started: bool,
}

impl Dispatch {
    pub(crate) fn new(body: Bytes, deadline: Instant, reply: oneshot::Sender<Outcome>) -> Self {
        Self { body, deadline, reply: Some(reply), started: false }
    }

    /// Whether the caller has gone away.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// From here on the function may have run.
    pub(crate) fn mark_started(&mut self) {
        self.started = true;
    }

    pub(crate) fn started(&self) -> bool {
        self.started
    }

    /// Answers the caller. A caller that went away wants no answer.
    pub(crate) fn answer(mut self, outcome: Outcome) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(outcome);
        }
    }
}

impl Drop for Dispatch {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(Err(CallError::WorkerDied {
                started: self.started,
                exit: None,
                signal: None,
                max_rss_bytes: None,
                stderr_tail: String::new(),
                attempts: u32::from(self.started),
            }));
        }
    }
}
