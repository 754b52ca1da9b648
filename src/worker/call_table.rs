//! The call table of one worker: the calls that Python has, those that wait, and the channel that they are written to.
//!
//! ```text
//!   lease ---- submit -----> CallTable ---- frames ----> python
//!                               ^                           | results, items, errors
//!   pool ---- Run ----> Worker -'<--------------------------'
//! ```
//!
//! A lease calls [`CallTable::submit`] on its caller's thread: the table writes the frame and keeps the call, under one lock.
//! The worker's actor uses the same table. So a call of a lease wakes the pool's thread once, when the answer comes, and not
//! twice. The worker is woken only for what it would see too late: a deadline before its timer, a stream, bytes that the socket
//! did not take, a call that has to wait.
//!
//! Ids are given under the same lock, so calls reach Python in the order of their ids.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::task::AtomicWaker;

use super::call::{PendingCall, StreamId, Work};
use super::call_state::{CallState, CallStep};
use super::host::OnBehalf;
use super::ids::RequestId;
use super::items::Unread;
use crate::budget::UNWRITTEN_BYTES;
use crate::error::{CallError, Direction};
use crate::port::{ChannelError, Frame, FrameError, FrameWriter, Purpose};
use crate::timer::deadline;

pub(crate) struct CallTable(Mutex<State>);

/// How often the memory of a worker that runs a call is sampled.
pub(super) const MEMORY_INTERVAL: Duration = Duration::from_secs(1);

/// The state under the lock.
pub(super) struct State {
    /// `None` once the worker has ended.
    writer: Option<FrameWriter>,
    last_call_id: u64,
    /// What Python has, in the order in which it was written.
    active: Vec<ActiveCall>,
    /// Calls of a lease that wait for capacity, and ends of sessions that wait for calls of the session.
    waiting: VecDeque<PendingCall>,
    /// How many calls Python has at most.
    capacity: usize,
    /// How long Python may take to give up a call.
    cancel_grace: Duration,
    /// Whether Python gets more calls.
    is_open: bool,
    /// When the worker's timer wakes it.
    wakes_at: Option<Instant>,
    /// Woken when somebody takes an item of one of the streams.
    takers: Arc<AtomicWaker>,
    /// Calls that are dropped when the lock is released, since their memory may run code of the user's.
    discarded: Vec<PendingCall>,
}

/// A call that Python has.
pub(super) struct ActiveCall {
    pub(super) id: u64,
    pub(super) state: CallState,
    /// When Python got the call.
    pub(super) since: Instant,
    /// `None` when the caller has its answer, or has gone, and only Python's end of the call is awaited.
    pub(super) call: Option<PendingCall>,
    /// The pool's name for the call. `None` when the pool does not count it.
    pub(super) request: Option<RequestId>,
    /// The session of a call; `None` for the end of a session.
    session: Option<Arc<str>>,
    pub(super) stream: Option<ActiveStream>,
    /// How many host calls the call is nested in.
    pub(super) depth: u32,
    pub(super) host_calls: OnBehalf,
    /// The deadline passed before the call began: Python was told to take it out, and answers whether it could.
    pub(super) is_withdrawn: bool,
    /// What Python was doing at the deadline, as far as it is known.
    pub(super) stack: Option<String>,
}

pub(super) struct ActiveStream {
    id: StreamId,
    /// How many items Python may still send.
    pub(super) credit: u32,
    /// Counts the items that the reader has not taken yet.
    pub(super) unread: Unread,
}

impl ActiveCall {
    /// The bytes of the items that the reader has not taken yet. A stream that has ended gets no more.
    fn unread_bytes(&self) -> u64 {
        match &self.stream {
            Some(stream) if self.call.is_some() => stream.unread.bytes(),
            _ => 0,
        }
    }
}

/// What became of calls that the worker wanted to give to Python.
#[derive(Default)]
pub(super) struct Given {
    /// Calls that Python does not get, and why.
    pub(super) refused: Vec<(PendingCall, CallError)>,
    /// The channel failed. The calls that it was to carry are answered when the process has ended.
    pub(super) failure: Option<ChannelError>,
}

impl CallTable {
    pub(super) fn new(writer: FrameWriter, capacity: usize, cancel_grace: Duration) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            writer: Some(writer),
            last_call_id: 0,
            active: Vec::with_capacity(capacity),
            waiting: VecDeque::new(),
            capacity,
            cancel_grace,
            is_open: true,
            wakes_at: None,
            takers: Arc::default(),
            discarded: Vec::new(),
        })))
    }

    /// Runs `f` under the lock. What must be dropped without the lock is dropped after it.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let result = f(&mut state);
        let spent = state.writer.as_mut().map_or_else(Vec::new, FrameWriter::take_spent);
        let discarded = std::mem::take(&mut state.discarded);
        drop(state);
        drop::<(Vec<Bytes>, Vec<PendingCall>)>((spent, discarded));
        result
    }

    /// Takes a call of a lease, and writes it to Python if there is capacity. Returns whether the worker must be woken. A
    /// call to a worker that has ended answers by itself.
    pub(crate) fn submit(&self, call: PendingCall) -> bool {
        self.with(|state| state.submit(call))
    }

    /// Writes the queued frames; ready when the socket has taken all of them.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        self.with(|state| match &mut state.writer {
            Some(writer) => writer.poll_flush(cx),
            None => Poll::Ready(Ok(())),
        })
    }

    /// Sends the answer to a host call.
    pub(super) fn answer(&self, frame: &Frame) -> Result<(), ChannelError> {
        self.with(|state| state.writer()?.send(frame, Purpose::Answer))
    }

    /// How many bytes of answers to host calls the socket has not taken.
    pub(super) fn unread_answers(&self) -> u64 {
        self.with(|state| state.writer.as_ref().map_or(0, |writer| writer.unwritten(Purpose::Answer)))
    }

    /// Sends a frame that is neither a call nor an answer.
    ///
    /// # Errors
    /// [`ChannelError::Unread`] when the worker has left too many of their bytes unread.
    pub(super) fn send(&self, frame: &Frame) -> Result<(), ChannelError> {
        self.with(|state| {
            let writer = state.writer()?;
            let bytes = writer.unwritten(Purpose::Other);
            if bytes > UNWRITTEN_BYTES {
                return Err(ChannelError::Unread { bytes });
            }
            writer.send(frame, Purpose::Other)
        })
    }

    /// Ends the table: returns the calls that have no answer, the active ones with their ids, and how many bytes the socket has
    /// taken.
    pub(super) fn close(&self) -> (Vec<(Option<u64>, PendingCall)>, u64) {
        self.with(|state| {
            state.is_open = false;
            let active = state.active.drain(..).filter_map(|active| Some((Some(active.id), active.call?)));
            let calls = active.chain(state.waiting.drain(..).map(|call| (None, call))).collect();
            (calls, state.writer.take().map_or(0, |writer| writer.written()))
        })
    }
}

impl State {
    fn writer(&mut self) -> Result<&mut FrameWriter, ChannelError> {
        self.writer.as_mut().ok_or(ChannelError::Closed)
    }

    fn submit(&mut self, mut call: PendingCall) -> bool {
        let now = Instant::now();
        let has_room = self.is_open && self.waiting.is_empty() && self.active.len() < self.capacity;
        let Some(writer) = self.writer.as_mut() else {
            self.discarded.push(call);
            return false;
        };
        let call_id = self.last_call_id + 1;
        // When the frame cannot be written, the worker meets the same error and sees to it.
        if !has_room || call.deadline <= now || writer.send(&call.frame(call_id, now), Purpose::Call).is_err()
        {
            self.waiting.push_back(call);
            return true;
        }
        call.mark_sent(writer.end());
        let is_flushed = writer.is_flushed();
        let wake_by = call.deadline.min(now + MEMORY_INTERVAL);
        let wakes_in_time = self.wakes_at.is_some_and(|at| now < at && at <= wake_by);
        // The consumer of a stream speaks to the worker, and leaves without a word.
        let wake = call.stream.is_some() || !wakes_in_time || !is_flushed;
        self.activate(call_id, call, now);
        wake
    }

    /// Takes a call of the pool, or the end of a session, and gives Python what it may get now.
    pub(super) fn run(&mut self, call: PendingCall) -> Given {
        self.waiting.push_back(call);
        self.give()
    }

    /// Gives Python the calls that wait, as far as there is capacity.
    pub(super) fn give(&mut self) -> Given {
        let mut given = Given::default();
        while self.is_open
            && given.failure.is_none()
            && let Some(at) = self.next_waiting()
            && let Some(call) = self.waiting.remove(at)
        {
            self.write(call, &mut given);
        }
        given
    }

    /// The first waiting call that Python may get now. The end of a session waits for the calls of the session, and no call of
    /// the session overtakes it.
    fn next_waiting(&self) -> Option<usize> {
        if self.active.len() >= self.capacity {
            return None;
        }
        (0..self.waiting.len()).find(|&at| {
            let call = &self.waiting[at];
            let ends = call.ends_session();
            let session_is_idle = ends
                .is_none_or(|ends| self.active.iter().all(|active| active.session.as_ref() != Some(ends)));
            let overtakes_end =
                |before: &PendingCall| before.ends_session().is_some_and(|ends| call.session() == Some(ends));
            session_is_idle && !self.waiting.range(..at).any(overtakes_end)
        })
    }

    /// Writes a call to Python, unless its caller has left. The frame is sent at the next flush, so that frames that
    /// come together are sent together.
    fn write(&mut self, mut call: PendingCall, given: &mut Given) {
        let now = Instant::now();
        if call.is_abandoned() || call.deadline <= now {
            return given.refused.push((call, CallError::timed_out_waiting()));
        }
        if let Work::EndSession { timeout, .. } = call.work {
            call.deadline = deadline(now, timeout);
        }
        let call_id = self.last_call_id + 1;
        let frame = call.frame(call_id, now);
        let written = self.writer().and_then(|writer| {
            writer.queue(&frame, Purpose::Call)?;
            Ok(writer.end())
        });
        match written {
            Ok(end) => call.mark_sent(end),
            // The memfds could not be passed, and within the frame their bytes are too many.
            Err(ChannelError::Frame(FrameError::TooLarge { size, limit })) => {
                let error = CallError::too_large(Direction::Arguments, size, limit);
                return given.refused.push((call, error));
            }
            // The process ends soon, and its exit then answers the call.
            Err(error) => given.failure = Some(error),
        }
        self.activate(call_id, call, now);
    }

    fn activate(&mut self, id: u64, call: PendingCall, now: Instant) {
        self.last_call_id = id;
        let (session, depth) = match &call.work {
            Work::Call { session, depth, .. } => (session.clone(), *depth),
            Work::EndSession { .. } => (None, 0),
        };
        let stream = call.stream.as_ref().map(|stream| ActiveStream {
            id: stream.id,
            credit: stream.window,
            unread: Unread::new(&self.takers),
        });
        self.active.push(ActiveCall {
            id,
            state: CallState::new(call.deadline, self.cancel_grace),
            since: now,
            request: call.request(),
            call: Some(call),
            session,
            stream,
            depth,
            host_calls: OnBehalf::default(),
            is_withdrawn: false,
            stack: None,
        });
    }

    /// Opens the table for calls, or closes it: calls that are submitted then wait.
    pub(super) fn set_open(&mut self, is_open: bool) {
        self.is_open = is_open;
    }

    /// Notes when the worker's timer wakes it.
    pub(super) fn set_wakes_at(&mut self, at: Option<Instant>) {
        self.wakes_at = at;
    }

    pub(super) fn active(&self) -> &[ActiveCall] {
        &self.active
    }

    pub(super) fn get(&mut self, call_id: u64) -> Option<&mut ActiveCall> {
        self.active.iter_mut().find(|active| active.id == call_id)
    }

    pub(super) fn take(&mut self, call_id: u64) -> Option<ActiveCall> {
        let at = self.active.iter().position(|active| active.id == call_id)?;
        Some(self.active.remove(at))
    }

    pub(super) fn take_all(&mut self) -> Vec<ActiveCall> {
        self.active.drain(..).collect()
    }

    /// Whether a call of this id was ever written.
    pub(super) fn was_written(&self, call_id: u64) -> bool {
        call_id <= self.last_call_id
    }

    /// Gives a stream credit for more items; returns the id of its call.
    pub(super) fn add_credit(&mut self, id: StreamId, items: u32) -> Option<u64> {
        let active =
            self.active.iter_mut().find(|active| active.stream.as_ref().is_some_and(|it| it.id == id))?;
        let stream = active.stream.as_mut()?;
        stream.credit = stream.credit.saturating_add(items);
        Some(active.id)
    }

    /// A host call has ended.
    pub(super) fn host_call_ended(&mut self, id: u64) {
        let _ = self.active.iter_mut().any(|active| active.host_calls.forget(id));
    }

    /// How many calls and leases of the pool the worker has.
    pub(super) fn counted(&self) -> usize {
        let active = self.active.iter().filter(|active| active.request.is_some()).count();
        active + self.waiting.iter().filter(|call| call.request().is_some()).count()
    }

    pub(super) fn take_waiting(&mut self) -> Vec<PendingCall> {
        self.waiting.drain(..).collect()
    }

    /// Takes the waiting calls whose deadline has passed.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<PendingCall> {
        let (expired, waiting): (Vec<_>, Vec<_>) =
            self.waiting.drain(..).partition(|call| call.deadline <= now);
        self.waiting = waiting.into();
        expired
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let active = self.active.iter().filter_map(|active| active.state.next_deadline());
        active.chain(self.waiting.iter().map(|call| call.deadline)).min()
    }

    /// The next step that is due now, and of which call.
    pub(super) fn tick(&mut self, now: Instant) -> Option<(u64, CallStep)> {
        self.active.iter_mut().find_map(|active| Some((active.id, active.state.tick(now)?)))
    }

    /// A call whose caller has gone away since the last look.
    pub(super) fn poll_left(&mut self, cx: &mut Context<'_>) -> Option<(u64, CallStep)> {
        let discarded = &mut self.discarded;
        self.active.iter_mut().find_map(|active| {
            if active.call.as_mut()?.poll_abandoned(cx).is_pending() {
                return None;
            }
            discarded.extend(active.call.take());
            Some((active.id, active.state.caller_left(Instant::now())?))
        })
    }

    /// The bytes of stream items that no reader has taken yet. The task is woken when a reader takes some.
    pub(super) fn poll_unread(&self, cx: &Context<'_>) -> u64 {
        if self.active.iter().any(|active| active.stream.is_some()) {
            self.takers.register(cx.waker());
        }
        self.active.iter().map(ActiveCall::unread_bytes).sum()
    }

    /// Whether Python has calls beside the streams with untaken items.
    pub(super) fn has_others_than_unread(&self) -> bool {
        self.active.iter().any(|active| active.unread_bytes() == 0)
    }

    /// Whether a stack dump of the process is awaited.
    pub(super) fn awaits_stack(&self) -> bool {
        self.active.iter().any(|active| active.state.awaits_stack())
    }

    /// Whether the callers of all active calls have left, and each call has had its grace.
    pub(super) fn is_hopeless(&self) -> bool {
        self.active.iter().all(|active| active.state.is_killed())
    }

    /// How many bytes the socket has taken.
    pub(super) fn written(&self) -> u64 {
        self.writer.as_ref().map_or(0, FrameWriter::written)
    }
}

#[cfg(test)]
#[path = "call_table_tests.rs"]
mod tests;
