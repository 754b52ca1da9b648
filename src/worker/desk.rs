//! Where calls are handed to Python: by the worker, and by a lease itself, on whatever thread that is.
//!
//! ```text
//!   lease ---- frame ----> socket -----> python
//!     '------- call -----> Desk            | answer
//!                           ^------ Worker <
//! ```
//!
//! A lease writes the frame under the desk's lock and leaves the call there. The worker takes it over when it has
//! something to do anyway, at the latest when the answer comes; so a call wakes the pool's thread once and not
//! twice. Only what the worker must see to earlier (a deadline, what the socket did not take) needs a message.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use super::actor::MEMORY_INTERVAL;
use super::dispatch::{Dispatch, Work};
use crate::budget::UNWRITTEN_BYTES;
use crate::port::{ChannelError, Frame, FrameWriter, Purpose};

pub(crate) struct Desk(Mutex<State>);

struct State {
    /// `None` once the worker has ended.
    writer: Option<FrameWriter>,
    last_call_id: u64,
    /// How many calls the lease may hand to Python itself before it has to ask.
    places: usize,
    /// What the worker has not taken over yet.
    submitted: Vec<Submitted>,
    /// When the worker looks here of itself.
    looks_at: Option<Instant>,
}

/// A call of a lease.
pub(super) enum Submitted {
    /// Python has it, under this id.
    Sent(u64, Dispatch),
    /// It is for the worker to decide.
    Waits(Dispatch),
}

impl Desk {
    pub(super) fn new(writer: FrameWriter) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            writer: Some(writer),
            last_call_id: 0,
            places: 0,
            submitted: Vec::new(),
            looks_at: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a call of the lease, and hands it to Python where there is a place. Whether the worker must be told to
    /// look. The call of a worker that has ended answers by itself.
    pub(crate) fn submit(&self, mut dispatch: Dispatch) -> bool {
        let mut state = self.lock();
        let State { writer: Some(writer), last_call_id, places, submitted, looks_at } = &mut *state else {
            drop(state);
            return false;
        };
        let now = Instant::now();
        if *places > 0 && dispatch.deadline > now {
            let call_id = *last_call_id + 1;
            // Whatever goes wrong, the worker will meet it too.
            if writer.send(&dispatch.frame(call_id, now), Purpose::Call).is_ok() {
                let spent = writer.take_spent();
                *last_call_id = call_id;
                *places -= 1;
                dispatch.mark_sent(writer.end());
                let look_by = dispatch.deadline.min(now + MEMORY_INTERVAL);
                let will_look = looks_at.is_some_and(|at| now < at && at <= look_by);
                // The reader of a stream speaks to the worker, and leaves without a word.
                let is_stream = matches!(dispatch.work, Work::Call { stream: Some(_), .. });
                submitted.push(Submitted::Sent(call_id, dispatch));
                let look = is_stream || !will_look || !writer.is_flushed();
                drop(state);
                drop(spent);
                return look;
            }
        }
        *places = 0; // nothing overtakes it
        submitted.push(Submitted::Waits(dispatch));
        true
    }

    /// Takes over what the lease has left here, in its order. `into` is empty.
    pub(super) fn take(&self, into: &mut Vec<Submitted>) {
        std::mem::swap(&mut self.lock().submitted, into);
    }

    /// The same; from this moment on the lease has to ask.
    pub(super) fn withdraw(&self, into: &mut Vec<Submitted>) {
        let mut state = self.lock();
        state.places = 0;
        std::mem::swap(&mut state.submitted, into);
    }

    /// So many calls may the lease hand to Python, beside those that the worker knows; and when it looks of itself.
    pub(super) fn offer(&self, places: usize, looks_at: Option<Instant>) {
        let mut state = self.lock();
        let waits = state.submitted.iter().any(|call| matches!(call, Submitted::Waits(_)));
        state.places = if waits { 0 } else { places.saturating_sub(state.submitted.len()) };
        state.looks_at = looks_at;
    }

    /// Hands Python a call under the next id, at the next [`poll_flush`](Self::poll_flush): those that come together are written
    /// together. The id, and where its frame ends in what is written.
    pub(super) fn queue_call(&self, dispatch: &Dispatch, now: Instant) -> (u64, Result<u64, ChannelError>) {
        let mut state = self.lock();
        state.last_call_id += 1;
        let call_id = state.last_call_id;
        let queue = |writer: &mut FrameWriter| {
            writer.queue(&dispatch.frame(call_id, now), Purpose::Call)?;
            Ok(writer.end())
        };
        (call_id, to_writer(state, queue))
    }

    /// Sends the answer to a host call.
    pub(super) fn answer(&self, frame: &Frame) -> Result<(), ChannelError> {
        to_writer(self.lock(), |writer| writer.send(frame, Purpose::Answer))
    }

    /// How many bytes of answers the socket has not taken.
    pub(super) fn unread_answers(&self) -> u64 {
        self.lock().writer.as_ref().map_or(0, |writer| writer.unwritten(Purpose::Answer))
    }

    /// Sends any other frame.
    ///
    /// # Errors
    /// [`ChannelError::Unread`] when the worker has left too much of them unread.
    pub(super) fn send(&self, frame: &Frame) -> Result<(), ChannelError> {
        to_writer(self.lock(), |writer| {
            let bytes = writer.unwritten(Purpose::Other);
            if bytes > UNWRITTEN_BYTES {
                return Err(ChannelError::Unread { bytes });
            }
            writer.send(frame, Purpose::Other)
        })
    }

    /// Writes what is queued, and what the socket would not take; ready when nothing is left.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        let mut state = self.lock();
        let Some(writer) = &mut state.writer else { return Poll::Ready(Ok(())) };
        let (flushed, spent) = (writer.poll_flush(cx), writer.take_spent());
        drop(state);
        drop(spent);
        flushed
    }

    /// How much the socket has taken.
    pub(super) fn written(&self) -> u64 {
        self.lock().writer.as_ref().map_or(0, FrameWriter::written)
    }

    /// Takes no more, and returns what the worker has not taken over, and how much the socket has taken.
    pub(super) fn close(&self) -> (Vec<Submitted>, u64) {
        let mut state = self.lock();
        let writer = state.writer.take();
        let submitted = std::mem::take(&mut state.submitted);
        drop(state);
        (submitted, writer.map_or(0, |writer| writer.written()))
    }
}

fn to_writer<T>(
    mut state: MutexGuard<'_, State>,
    hand: impl FnOnce(&mut FrameWriter) -> Result<T, ChannelError>,
) -> Result<T, ChannelError> {
    let writer = state.writer.as_mut().ok_or(ChannelError::Closed)?;
    let (sent, spent) = (hand(writer), writer.take_spent());
    // Memory that a user owns may run code of the user's when it is let go.
    drop(state);
    drop(spent);
    sent
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
