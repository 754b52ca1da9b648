//! What Python says.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::Worker;
use crate::budget::{FRAME_UNIT_BYTES, HOST_CALLS, STREAM_BYTES, UNWRITTEN_BYTES};
use crate::error::{CallError, HostCallCause};
use crate::port::{
    Attachment, Body, ChannelError, Frame, FrameError, HostRequest, LogRecord, Reply, WorkerError,
    credit_frame, host_result_frame, python_record,
};
use crate::worker::dispatch::{Dispatch, StreamId, Work};
use crate::worker::host::{Ended, HostContext};
use crate::worker::in_flight::Current;

/// How long the host may read nothing from a worker that has other calls than the streams whose items are unread.
const LONGEST_WITHOUT_READING: Duration = Duration::from_secs(1);

/// How many frames of a turn this one counts as.
fn cost(frame: &Frame) -> usize {
    let inline: usize = frame.attachments.iter().map(Attachment::inline_bytes).sum();
    1 + (frame.body.len() + inline) / FRAME_UNIT_BYTES + frame.attachments.len()
}

impl Worker {
    /// Reads frames until the socket is empty or the turn is over.
    pub(super) fn hear(&mut self, turn: &mut usize, cx: &mut Context<'_>) {
        // Of a worker that is about to end only its end is of interest.
        while *turn > 0 && self.ending.is_none() && self.may_hear(cx) {
            let Poll::Ready(frame) = self.port.reader.poll_frame(cx) else { break };
            // What the frame is about may still lie at the desk.
            self.take_over();
            match frame {
                Ok(frame) => {
                    *turn = turn.saturating_sub(cost(&frame));
                    match Reply::from_frame(frame) {
                        Ok(reply) => self.told(reply),
                        Err(error) => self.protocol_broken(error.to_string()),
                    }
                }
                Err(error) => self.channel_failed(error),
            }
        }
    }

    /// Whether there is room for what the worker may say. What an ended process has left in the socket is always read.
    fn may_hear(&mut self, cx: &Context<'_>) -> bool {
        if self.port.process.has_ended() {
            return true;
        }
        // Answers that the worker does not read keep their places.
        if self.host_calls.len() >= 2 * HOST_CALLS {
            self.one_frame_at = None;
            return false;
        }
        if self.calls.poll_unread(cx) < STREAM_BYTES {
            self.one_frame_at = None;
            return true;
        }
        // The reader of the stream may wait for another call of this worker: let that get on, slowly.
        let now = Instant::now();
        if self.calls.are_others_than_unread() && self.one_frame_at.is_some_and(|at| at <= now) {
            self.one_frame_at = None;
            return true;
        }
        self.one_frame_at.get_or_insert(now + LONGEST_WITHOUT_READING);
        false
    }

    pub(super) fn told(&mut self, reply: Reply) {
        match reply {
            Reply::Result { call_id, body } => match self.take(call_id, false) {
                Some(current) => self.answered(current, Ok(body)),
                None => self.protocol_broken(format!("a result of the unknown call {call_id}")),
            },
            Reply::End { call_id } => match self.take(call_id, true) {
                Some(current) => self.answered(current, Ok(Body::default())),
                None => self.protocol_broken(format!("the end of the unknown stream {call_id}")),
            },
            Reply::Error { call_id: 0, error } => self.failed_as_a_whole(error),
            Reply::Error { call_id, error } => match self.calls.take(call_id) {
                Some(current) => {
                    let error = match error {
                        WorkerError::Cancelled if current.withdrawn => self.withdrawn(call_id),
                        error => error.into_call_error(),
                    };
                    self.answered(current, Err(error));
                }
                None => self.protocol_broken(format!("an error of the unknown call {call_id}")),
            },
            Reply::Chunk { call_id, body } => self.item(call_id, body),
            Reply::Progress { call_id, body } => {
                if let Some(current) = self.known(call_id)
                    && let Some(dispatch) = &current.dispatch
                {
                    dispatch.progress(body);
                }
            }
            Reply::Stack { call_id, text } => {
                if let Some(current) = self.known(call_id)
                    && current.call.awaits_stack()
                {
                    current.stack = Some(text);
                    self.stack_came(call_id);
                }
            }
            Reply::HostCall { id, request, attachments } => self.host_call(id, request, attachments),
            Reply::HostCancel { id } => self.calls.iter().for_each(|current| current.host_calls.abort(id)),
            Reply::Log { level, record } => self.log(level, &record),
            Reply::Ready(_) => self.protocol_broken("it was ready already".into()),
        }
    }

    pub(super) fn take(&mut self, call_id: u64, is_stream: bool) -> Option<Current> {
        let current = self.calls.get(call_id)?;
        if current.stream.is_some() != is_stream {
            return None;
        }
        self.calls.take(call_id)
    }

    /// The call of a frame that may come late, from a thread of the user's: one that is over is nobody's.
    fn known(&mut self, call_id: u64) -> Option<&mut Current> {
        if call_id > self.last_call_id {
            self.protocol_broken(format!("news of the unknown call {call_id}"));
        }
        self.calls.get(call_id)
    }

    fn answered(&mut self, current: Current, outcome: Result<Body, CallError>) {
        self.context.mark_settled();
        let is_call = matches!(&current.dispatch, Some(Dispatch { work: Work::Call { .. }, .. }));
        if is_call && !matches!(outcome, Err(CallError::Timeout { .. } | CallError::Cancelled)) {
            self.passed();
        }
        // The pool knows that the worker is free before the caller can ask for it again: a session's next call would
        // find its own worker busy.
        if let Some(request) = current.assigned {
            self.tell_freed(request, true);
        }
        self.next();
        self.offer();
        if let Some(dispatch) = current.dispatch {
            match outcome {
                Ok(body) => dispatch.succeed(body, &self.name),
                Err(error) => dispatch.fail(error.on_worker(&self.name)),
            }
        }
    }

    fn item(&mut self, call_id: u64, body: Body) {
        let Some(Current { stream: Some(stream), dispatch, .. }) = self.calls.get(call_id) else {
            return self.protocol_broken(format!("an item of the unknown stream {call_id}"));
        };
        let Some(left) = stream.credit.checked_sub(1) else {
            return self.protocol_broken("more items than it may send".into());
        };
        stream.credit = left;
        if let Some(dispatch) = dispatch {
            dispatch.item(stream.unread.count(body));
            self.passed();
        }
    }

    /// A caller got what it waited for.
    fn passed(&mut self) {
        if let Some(trial) = self.trial.take() {
            trial.passed();
        }
    }

    /// Python calls us, on behalf of one of its calls.
    fn host_call(&mut self, id: u64, request: HostRequest, attachments: Vec<Attachment>) {
        match self.calls.get(request.3.call) {
            Some(current) if current.dispatch.is_some() => {
                let deadline = current.call.deadline();
                let (worker, depth) = (self.name.clone(), current.depth + 1);
                let context = HostContext { worker, depth, deadline, attachments };
                self.host_calls.begin(&self.host_functions, id, request, context, &mut current.host_calls);
            }
            // Nobody waits for it any more.
            _ => self.host_calls.refuse(id, request.0, HostCallCause::Cancelled, "its call is over"),
        }
    }

    /// Hands Python the answers to its host calls, as far as it reads them. Whether there was one.
    pub(super) fn poll_host_calls(&mut self, cx: &mut Context<'_>) -> bool {
        let mut told = false;
        while self.host_calls.len() > 0
            && self.desk.unread_answers() < UNWRITTEN_BYTES
            && let Poll::Ready(Ended { id, body, failed }) = self.host_calls.poll_ended(cx)
        {
            self.tell_host_result(id, body, failed);
            told = true;
        }
        told
    }

    fn tell_host_result(&mut self, id: u64, body: Body, failed: bool) {
        self.calls.host_call_ended(id);
        if self.is_ending() {
            return;
        }
        match self.desk.answer(&host_result_frame(id, body, failed)) {
            Ok(()) => {}
            // Its memfds did not find their way, and within the frame they are too much.
            Err(ChannelError::Frame(error @ FrameError::TooLarge { .. })) => {
                self.host_calls.refuse(id, "call_host".into(), HostCallCause::Failed, &error.to_string());
            }
            Err(error) => self.writing_failed(error),
        }
    }

    /// A record of Python's `logging`.
    fn log(&self, level: u32, record: &LogRecord) {
        let level = match level {
            40.. => log::Level::Error,
            30.. => log::Level::Warn,
            20.. => log::Level::Info,
            10.. => log::Level::Debug,
            _ => log::Level::Trace,
        };
        let LogRecord { logger, message, request_id } = record;
        self.port.records.record(level, &python_record(logger, message, request_id.as_deref()));
    }

    pub(super) fn give_credit(&mut self, id: StreamId, items: u32) {
        let Some(Current { call_id, stream: Some(stream), .. }) = self.calls.by_stream(id) else { return };
        stream.credit = stream.credit.saturating_add(items);
        let frame = credit_frame(*call_id, items);
        self.send(&frame);
    }
}
