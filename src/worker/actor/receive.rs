//! What Python writes.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::Worker;
use crate::budget::{FRAME_UNIT_BYTES, HOST_CALLS, STREAM_BYTES, UNWRITTEN_BYTES};
use crate::error::{CallError, HostCallCause};
use crate::port::{
    Attachment, Body, ChannelError, Frame, FrameError, HostRequest, LogRecord, Reply, WorkerError,
    host_result_frame, python_record,
};
use crate::worker::call::Work;
use crate::worker::call_table::ActiveCall;
use crate::worker::host::{Ended, HostContext};

/// How long the host may read nothing from a worker that has other calls than the streams whose items are unread.
const LONGEST_WITHOUT_READING: Duration = Duration::from_secs(1);

/// How many frames of a turn this one counts as.
fn cost(frame: &Frame) -> usize {
    let inline: usize = frame.attachments.iter().map(Attachment::inline_bytes).sum();
    1 + (frame.body.len() + inline) / FRAME_UNIT_BYTES + frame.attachments.len()
}

impl Worker {
    /// Reads frames until the socket is empty or the turn is over.
    pub(super) fn receive(&mut self, turn: &mut usize, cx: &mut Context<'_>) {
        while *turn > 0 && self.life.reads() && self.may_read(cx) {
            let Poll::Ready(frame) = self.port.reader.poll_frame(cx) else { break };
            match frame {
                Ok(frame) => {
                    *turn = turn.saturating_sub(cost(&frame));
                    match Reply::from_frame(frame) {
                        Ok(reply) => self.received(reply),
                        Err(error) => self.protocol_broken(error.to_string()),
                    }
                }
                Err(error) => self.channel_failed(error),
            }
        }
    }

    /// Whether there is room for more frames of Python. The frames of a process that has ended are always read.
    fn may_read(&mut self, cx: &Context<'_>) -> bool {
        if self.port.process.has_ended() {
            return true;
        }
        // Host calls whose answers the worker does not read still count.
        if self.host_calls.len() >= 2 * HOST_CALLS {
            self.one_frame_at = None;
            return false;
        }
        let (unread, has_others) =
            self.calls.with(|calls| (calls.poll_unread(cx), calls.has_others_than_unread()));
        if unread < STREAM_BYTES {
            self.one_frame_at = None;
            return true;
        }
        // The consumer of the stream may wait for another call of this worker: let that call get on, slowly.
        let now = Instant::now();
        if has_others && self.one_frame_at.is_some_and(|at| at <= now) {
            self.one_frame_at = None;
            return true;
        }
        self.one_frame_at.get_or_insert(now + LONGEST_WITHOUT_READING);
        false
    }

    fn received(&mut self, reply: Reply) {
        match reply {
            Reply::Result { call_id, body } => match self.take(call_id, false) {
                Some(active) => self.answered(active, Ok(body)),
                None => self.protocol_broken(format!("a result of the unknown call {call_id}")),
            },
            Reply::End { call_id } => match self.take(call_id, true) {
                Some(active) => self.answered(active, Ok(Body::default())),
                None => self.protocol_broken(format!("the end of the unknown stream {call_id}")),
            },
            Reply::Error { call_id: 0, error } => self.failed_as_a_whole(error),
            Reply::Error { call_id, error } => match self.calls.with(|calls| calls.take(call_id)) {
                Some(active) => {
                    let error = match error {
                        WorkerError::Cancelled if active.is_withdrawn => self.withdrawn(call_id),
                        error => error.into_call_error(),
                    };
                    self.answered(active, Err(error));
                }
                None => self.protocol_broken(format!("an error of the unknown call {call_id}")),
            },
            Reply::Chunk { call_id, body } => self.item(call_id, body),
            Reply::Progress { call_id, body } => {
                let progress = |active: &mut ActiveCall| active.call.as_ref()?.progress.clone();
                if let Some(progress) = self.with_known(call_id, progress).flatten() {
                    progress.send(body);
                }
            }
            Reply::Stack { call_id, text } => {
                let is_awaited = |active: &mut ActiveCall| {
                    let is_awaited = active.state.awaits_stack();
                    if is_awaited {
                        active.stack = Some(text);
                    }
                    is_awaited
                };
                if self.with_known(call_id, is_awaited) == Some(true) {
                    self.stack_came(call_id);
                }
            }
            Reply::HostCall { id, request, attachments } => self.host_call(id, request, attachments),
            Reply::HostCancel { id } => {
                self.calls.with(|calls| calls.active().iter().for_each(|active| active.host_calls.abort(id)))
            }
            Reply::Log { level, record } => self.log(level, &record),
            Reply::Ready(_) => self.protocol_broken("it was ready already".into()),
        }
    }

    fn take(&mut self, call_id: u64, is_stream: bool) -> Option<ActiveCall> {
        self.calls.with(|calls| {
            let active = calls.get(call_id)?;
            if active.stream.is_some() == is_stream { calls.take(call_id) } else { None }
        })
    }

    /// The call of a frame that may come late, from a thread of the user's. `None` when the call is over.
    fn with_known<R>(&mut self, call_id: u64, f: impl FnOnce(&mut ActiveCall) -> R) -> Option<R> {
        let (was_written, result) =
            self.calls.with(|calls| (calls.was_written(call_id), calls.get(call_id).map(f)));
        if !was_written {
            self.protocol_broken(format!("news of the unknown call {call_id}"));
        }
        result
    }

    fn answered(&mut self, active: ActiveCall, outcome: Result<Body, CallError>) {
        self.context.mark_settled();
        let is_call = active.call.as_ref().is_some_and(|call| matches!(call.work, Work::Call { .. }));
        if is_call && !matches!(outcome, Err(CallError::Timeout { .. } | CallError::Cancelled)) {
            self.passed();
        }
        // The pool hears that the worker is free before the caller can ask for the worker again: otherwise the next call of a
        // session would find the session's worker busy.
        if let Some(request) = active.request {
            self.tell_freed(request, true);
        }
        self.next();
        if let Some(call) = active.call {
            match outcome {
                Ok(body) => call.succeed(body, &self.name),
                Err(error) => call.fail(error.on_worker(&self.name)),
            }
        }
    }

    fn item(&mut self, call_id: u64, body: Body) {
        // The consumer is woken without the lock.
        let sender = self.calls.with(|calls| {
            let active = calls.get(call_id);
            let Some(ActiveCall { stream: Some(stream), call, .. }) = active else {
                return Err(format!("an item of the unknown stream {call_id}"));
            };
            stream.credit = stream.credit.checked_sub(1).ok_or("more items than it may send")?;
            let items =
                call.as_ref().and_then(|call| call.stream.as_ref()).map(|stream| stream.items.clone());
            Ok(items.map(|items| (items, stream.unread.clone())))
        });
        match sender {
            Ok(Some((items, unread))) => {
                let _ = items.send(unread.count(body));
                self.passed();
            }
            Ok(None) => {}
            Err(broken) => self.protocol_broken(broken),
        }
    }

    /// A caller got what it waited for.
    fn passed(&mut self) {
        if let Some(trial) = self.trial.take() {
            trial.passed();
        }
    }

    /// Python calls the host, on behalf of one of its calls.
    fn host_call(&mut self, id: u64, request: HostRequest, attachments: Vec<Attachment>) {
        let Self { calls, host_calls, host_functions, name, .. } = self;
        let on_behalf_of = request.3.call;
        let waits = calls.with(|calls| {
            let active = calls.get(on_behalf_of).filter(|active| active.call.is_some())?;
            Some((active.state.deadline(), active.depth + 1))
        });
        let Some((deadline, depth)) = waits else {
            return host_calls.refuse(id, request.0, HostCallCause::Cancelled, "its call is over");
        };
        let context = HostContext { worker: name.clone(), depth, deadline, attachments };
        let Some(handle) = host_calls.begin(host_functions, id, request, context) else { return };
        calls.with(|calls| {
            if let Some(active) = calls.get(on_behalf_of) {
                active.host_calls.add(id, handle);
            }
        });
    }

    /// Writes the answers to host calls, as far as Python reads them. Returns whether there was one.
    pub(super) fn poll_host_calls(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_answered = false;
        while self.host_calls.len() > 0
            && self.calls.unread_answers() < UNWRITTEN_BYTES
            && let Poll::Ready(Ended { id, body, failed }) = self.host_calls.poll_ended(cx)
        {
            self.answer_host_call(id, body, failed);
            has_answered = true;
        }
        has_answered
    }

    fn answer_host_call(&mut self, id: u64, body: Body, failed: bool) {
        self.calls.with(|calls| calls.host_call_ended(id));
        if !self.life.writes() {
            return;
        }
        match self.calls.answer(&host_result_frame(id, body, failed)) {
            Ok(()) => {}
            // The memfds could not be passed, and within the frame their bytes are too many.
            Err(ChannelError::Frame(error @ FrameError::TooLarge { .. })) => {
                self.host_calls.refuse(id, "call_host".into(), HostCallCause::Failed, &error.to_string());
            }
            Err(error) => self.write_failed(error),
        }
    }

    /// Writes a record of Python's `logging` to the log.
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
}
