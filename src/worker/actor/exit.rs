//! The end of a worker.

use std::task::{Context, Poll};
use std::time::Instant;

use super::Worker;
use crate::budget::LOG_RECORD_BYTES;
use crate::error::{CallContext, CallError, ended_by};
use crate::port::{ChannelError, Exit, WorkerError, shutdown_frame};
use crate::supervisor::ExitReason;
use crate::text::{beginning, escaped_lines, name};
use crate::worker::call::PendingCall;
use crate::worker::call_table::State;
use crate::worker::life::Stop;

impl Worker {
    /// Python reports an error that belongs to no call.
    pub(super) fn failed_as_a_whole(&mut self, error: WorkerError) {
        match error {
            WorkerError::Stop { type_name, message, traceback } if self.life.stop() == Stop::Told => {
                let text = escaped_lines(beginning(&traceback, LOG_RECORD_BYTES).0).into_owned();
                log::error!(target: "hatchery::worker", "{}: an on_stop hook failed: {text}", self.name);
                let (type_name, message) = (name(&type_name), beginning(&message, LOG_RECORD_BYTES).0);
                self.stop_failure = Some(format!("an on_stop hook failed: {type_name}: {message}"));
            }
            other => self.protocol_broken(other.into_detail()),
        }
    }

    pub(super) fn protocol_broken(&mut self, detail: String) {
        // The pool is told first, so that callers that are answered now do not get this worker again.
        self.tell_leaving();
        self.close_table();
        for active in self.calls.with(State::take_all) {
            if let Some(call) = active.call {
                call.fail(CallError::protocol(detail.clone()).on_worker(&self.name));
            }
        }
        self.end(&format!("protocol error: {detail}"));
    }

    /// A write failed. Answers that Python wrote before it closed its end are still read.
    pub(super) fn write_failed(&mut self, error: ChannelError) {
        match error {
            ChannelError::Closed => {
                self.life.write_failed(Instant::now());
                self.close_table();
            }
            error => self.channel_failed(error),
        }
    }

    /// Reading has failed, or a frame breaks the protocol.
    pub(super) fn channel_failed(&mut self, error: ChannelError) {
        match error {
            ChannelError::Closed => {
                self.life.end_of_file(Instant::now());
                self.close_table();
            }
            ChannelError::Frame(error) => self.protocol_broken(error.to_string()),
            ChannelError::Io(error) => self.protocol_broken(format!("its channel failed: {error}")),
            ChannelError::Unread { .. } => {
                self.tell_leaving();
                self.end(&error.to_string());
            }
        }
    }

    /// Writes the queued frames as far as the socket takes them.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>) {
        if self.life.writes()
            && let Poll::Ready(Err(error)) = self.calls.poll_flush(cx)
        {
            self.write_failed(error);
        }
    }

    /// Python gets no more calls: a lease's calls wait in the table for the end of the worker.
    pub(super) fn close_table(&self) {
        self.calls.with(|calls| calls.set_open(false));
    }

    pub(super) fn end(&mut self, why: &str) {
        self.life.end(why);
        self.close_table();
        self.port.process.kill();
    }

    /// A leaving worker ends when its calls have ended.
    pub(super) fn end_leaving(&mut self) {
        if self.life.end_leaving() {
            self.port.process.kill();
        }
    }

    pub(super) fn tell_python_to_exit(&mut self) {
        self.life.advance_stop(Stop::Told);
        if self.calls.send(&shutdown_frame()).is_err() {
            self.end("asked to");
        }
    }

    /// The process has ended: answers the calls that have no answer yet.
    pub(super) fn process_ended(&mut self, exit: Exit, stderr_tail: String) {
        let begun = self.port.begun();
        let (calls, written) = self.calls.close();
        // A call did not run if the socket did not take it whole, or if Python had not begun with it.
        let has_begun = |call_id: Option<u64>, call: &PendingCall| {
            call.has_arrived(written)
                && begun.as_ref().is_none_or(|begun| call_id.is_some_and(|id| id <= begun.last))
        };
        // Python reads calls in order: of those that did not run only the first can have ended it.
        let unread = calls.iter().filter(|(id, call)| call.is_sent() && !has_begun(*id, call));
        let first_unread = unread.filter_map(|(call_id, _)| *call_id).min();
        for (call_id, call) in calls {
            let started = has_begun(call_id, &call);
            let may_be_the_cause = !started && call_id.is_some() && first_unread == call_id;
            call.fail(
                CallError::WorkerDied {
                    started,
                    exit: exit.code,
                    signal: exit.signal,
                    max_rss_bytes: exit.max_rss_bytes,
                    stderr_tail: stderr_tail.clone(),
                    reason: self.life.why().map(str::to_owned),
                    attempts: u32::from(started),
                    context: Box::new(CallContext { may_be_the_cause, ..CallContext::default() }),
                }
                .on_worker(&self.name),
            );
        }
        if let Some(failure) = self.stop_failure.take() {
            self.context.exit(ExitReason::Abnormal(failure));
        } else if self.life.stop() == Stop::No {
            self.context.exit(ExitReason::Abnormal(self.reason(exit)));
        }
        self.life.ended();
    }

    /// Why the worker ends, for the supervisor's report.
    pub(super) fn reason(&self, exit: Exit) -> String {
        let how = ended_by(exit.code, exit.signal);
        match self.life.why() {
            Some(why) => format!("{how} ({why})"),
            None => how,
        }
    }
}
