//! The end of a worker.

use std::time::Instant;

use std::task::{Context, Poll};

use super::overdue::CLOSED_BY_CODE;
use super::{Ending, Worker};
use crate::budget::LOG_RECORD_BYTES;
use crate::error::{CallContext, CallError, ended_by};
use crate::port::{CLOSED_GRACE, ChannelError, Exit, WorkerError, shutdown_frame};
use crate::supervisor::ExitReason;
use crate::text::{beginning, escaped_lines, name};
use crate::worker::desk::Submitted;
use crate::worker::dispatch::Dispatch;

impl Worker {
    /// An error that is no call's.
    pub(super) fn failed_as_a_whole(&mut self, error: WorkerError) {
        match error {
            WorkerError::Stop { type_name, message, traceback } if self.exiting => {
                let text = escaped_lines(beginning(&traceback, LOG_RECORD_BYTES).0).into_owned();
                log::error!(target: "hatchery::worker", "{}: an on_stop hook failed: {text}", self.name);
                let (type_name, message) = (name(&type_name), beginning(&message, LOG_RECORD_BYTES).0);
                self.stop_failure = Some(format!("an on_stop hook failed: {type_name}: {message}"));
            }
            other => self.protocol_broken(other.into_detail()),
        }
    }

    pub(super) fn protocol_broken(&mut self, detail: String) {
        // None of those who are answered now is to be given this worker again.
        self.tell_leaving();
        for current in self.calls.drain() {
            if let Some(dispatch) = current.dispatch {
                dispatch.fail(CallError::protocol(detail.clone()).on_worker(&self.name));
            }
        }
        self.end(format!("protocol error: {detail}"));
    }

    /// Whether nothing more is said to Python.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.is_some() || self.deaf
    }

    /// Something could not be written. What Python had said before it closed its end may lie unread in ours: its answers are
    /// answers, and the reader sees the end after them.
    pub(super) fn writing_failed(&mut self, error: ChannelError) {
        match error {
            ChannelError::Closed if self.ending.is_none() => {
                self.deaf = true;
                self.kill_at.get_or_insert(Instant::now() + CLOSED_GRACE);
            }
            error => self.channel_failed(error),
        }
    }

    /// Nothing more can be read, or not be understood.
    pub(super) fn channel_failed(&mut self, error: ChannelError) {
        match error {
            ChannelError::Closed => {
                // The process has most likely ended, and its exit says why.
                if self.ending.is_none() {
                    let why = match self.exiting {
                        true => Some("asked to".to_owned()),
                        false => self.closed_by_code.then(|| CLOSED_BY_CODE.to_owned()),
                    };
                    self.ending = Some(Ending { why });
                    if !self.exiting {
                        self.kill_at.get_or_insert(Instant::now() + CLOSED_GRACE);
                    }
                }
            }
            ChannelError::Frame(error) => self.protocol_broken(error.to_string()),
            ChannelError::Io(error) => self.protocol_broken(format!("its channel failed: {error}")),
            ChannelError::Unread { .. } => {
                self.tell_leaving();
                self.end(error.to_string());
            }
        }
    }

    /// Writes what is queued as far as the socket takes it.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>) {
        if !self.is_ending()
            && let Poll::Ready(Err(error)) = self.desk.poll_flush(cx)
        {
            self.writing_failed(error);
        }
    }

    pub(super) fn end(&mut self, why: String) {
        self.ending.get_or_insert(Ending { why: Some(why) });
        self.port.process.kill();
    }

    pub(super) fn tell_python_to_exit(&mut self) {
        self.exiting = true;
        if self.desk.send(&shutdown_frame()).is_err() {
            self.end("asked to".into());
        }
    }

    /// The process has ended: answers whom it owes an answer.
    pub(super) fn process_ended(&mut self, exit: Exit, stderr_tail: String) {
        let begun = self.port.begun();
        let running = self.calls.drain().filter_map(|current| Some((current.call_id, current.dispatch?)));
        let (at_desk, written) = self.desk.close();
        let at_desk = at_desk.into_iter().map(|call| match call {
            Submitted::Sent(call_id, dispatch) => (call_id, dispatch),
            Submitted::Waits(dispatch) => (u64::MAX, dispatch),
        });
        let waiting = self.waiting.drain(..).map(|dispatch| (u64::MAX, dispatch));
        let owed: Vec<_> = running.chain(waiting).chain(at_desk).collect();
        // What the socket did not take whole, or Python had not begun with, did not run.
        let has_begun = |call_id: u64, dispatch: &Dispatch| {
            dispatch.has_arrived(written) && begun.as_ref().is_none_or(|begun| call_id <= begun.last)
        };
        // Python reads calls in order: of those that did not run only the first can have ended it.
        let unread = owed.iter().filter(|(id, dispatch)| dispatch.is_sent() && !has_begun(*id, dispatch));
        let first_unread = unread.map(|(call_id, _)| *call_id).min();
        for (call_id, dispatch) in owed {
            let started = has_begun(call_id, &dispatch);
            let may_be_the_cause = !started && first_unread == Some(call_id);
            dispatch.fail(
                CallError::WorkerDied {
                    started,
                    exit: exit.code,
                    signal: exit.signal,
                    max_rss_bytes: exit.max_rss_bytes,
                    stderr_tail: stderr_tail.clone(),
                    reason: self.ending.as_ref().and_then(|ending| ending.why.clone()),
                    attempts: u32::from(started),
                    context: Box::new(CallContext { may_be_the_cause, ..CallContext::default() }),
                }
                .on_worker(&self.name),
            );
        }
        self.ended = true;
        if let Some(failure) = self.stop_failure.take() {
            self.context.exit(ExitReason::Abnormal(failure));
        } else if !self.stopping {
            self.context.exit(ExitReason::Abnormal(self.reason(exit)));
        }
    }

    /// Why it ends, for the supervisor's report.
    pub(super) fn reason(&self, exit: Exit) -> String {
        let how = ended_by(exit.code, exit.signal);
        match self.ending.as_ref().and_then(|ending| ending.why.as_ref()) {
            Some(why) => format!("{how} ({why})"),
            None if self.exiting => format!("{how} (asked to)"),
            None => how,
        }
    }
}
