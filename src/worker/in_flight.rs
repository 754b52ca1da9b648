//! The calls that a worker's Python has.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::dispatch::{Dispatch, StreamId, Work};
use super::host::OnBehalf;
use super::items::Unread;
use super::messages::RequestId;
use super::running::{Running, Step};

/// One of them.
pub(super) struct Current {
    pub(super) call_id: u64,
    pub(super) call: Running,
    /// When Python got it.
    pub(super) since: Instant,
    /// `None` when the caller has its answer, or has gone, and only Python's end of it is awaited.
    pub(super) dispatch: Option<Dispatch>,
    /// Of one that the pool counts: by this it waits to hear that its place is free.
    pub(super) assigned: Option<RequestId>,
    pub(super) session: Option<Arc<str>>,
    pub(super) stream: Option<Stream>,
    /// How many host calls it is nested in.
    pub(super) depth: u32,
    pub(super) host_calls: OnBehalf,
    /// Its deadline passed before it had begun: Python has been told to take it out, and says whether it could.
    pub(super) withdrawn: bool,
    /// What Python was doing at the deadline, as far as it is known.
    pub(super) stack: Option<String>,
}

pub(super) struct Stream {
    pub(super) id: StreamId,
    /// How many items Python may still send.
    pub(super) credit: u32,
    /// The items that nobody has taken yet.
    pub(super) unread: Unread,
}

impl Current {
    /// How many bytes of its items nobody has taken yet. Those of a stream that has ended cannot become more.
    fn unread_bytes(&self) -> u64 {
        match &self.stream {
            Some(stream) if self.dispatch.is_some() => stream.unread.bytes(),
            _ => 0,
        }
    }
}

/// In the order in which Python got them.
pub(super) struct InFlight {
    calls: Vec<Current>,
    most: usize,
}

impl InFlight {
    pub(super) fn new(most: usize) -> Self {
        Self { calls: Vec::with_capacity(most), most }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    pub(super) fn is_single(&self) -> bool {
        self.calls.len() == 1
    }

    /// How many more Python may get.
    pub(super) fn places(&self) -> usize {
        self.most.saturating_sub(self.calls.len())
    }

    /// Whether Python may get this now: there is a place, and of a session that is to end no call runs.
    pub(super) fn takes(&self, work: &Work) -> bool {
        self.places() > 0
            && match work {
                Work::EndSession { session, .. } => {
                    self.calls.iter().all(|current| current.session.as_ref() != Some(session))
                }
                Work::Call { .. } => true,
            }
    }

    pub(super) fn push(&mut self, current: Current) {
        self.calls.push(current);
    }

    pub(super) fn get(&mut self, call_id: u64) -> Option<&mut Current> {
        self.calls.iter_mut().find(|current| current.call_id == call_id)
    }

    pub(super) fn by_stream(&mut self, id: StreamId) -> Option<&mut Current> {
        self.calls.iter_mut().find(|current| current.stream.as_ref().is_some_and(|stream| stream.id == id))
    }

    /// A host call has ended.
    pub(super) fn host_call_ended(&mut self, id: u64) {
        let _ = self.calls.iter_mut().any(|current| current.host_calls.forget(id));
    }

    pub(super) fn take(&mut self, call_id: u64) -> Option<Current> {
        let at = self.calls.iter().position(|current| current.call_id == call_id)?;
        Some(self.calls.remove(at))
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = Current> + '_ {
        self.calls.drain(..)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Current> {
        self.calls.iter()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.calls.iter().filter_map(|current| current.call.next_deadline()).min()
    }

    /// The next thing that is due now, and for which call.
    pub(super) fn tick(&mut self, now: Instant) -> Option<(u64, Step)> {
        self.calls.iter_mut().find_map(|current| Some((current.call_id, current.call.tick(now)?)))
    }

    /// A call whose caller has gone away just now.
    pub(super) fn poll_left(
        &mut self,
        cx: &mut Context<'_>,
        now: impl Fn() -> Instant,
    ) -> Option<(u64, Step)> {
        self.calls.iter_mut().find_map(|current| {
            let left = current.dispatch.as_mut()?.poll_abandoned(cx);
            if left == Poll::Pending {
                return None;
            }
            current.dispatch = None;
            Some((current.call_id, current.call.caller_left(now())?))
        })
    }

    /// How many bytes of streams nobody has taken yet. The task is woken when somebody does.
    pub(super) fn poll_unread(&self, cx: &Context<'_>) -> u64 {
        if let Some(stream) = self.calls.iter().find_map(|current| current.stream.as_ref()) {
            stream.unread.register(cx); // one waker serves all streams of a worker
        }
        self.calls.iter().map(Current::unread_bytes).sum()
    }

    /// Whether there are calls beside the streams with items that nobody has taken yet.
    pub(super) fn are_others_than_unread(&self) -> bool {
        self.calls.iter().any(|current| current.unread_bytes() == 0)
    }

    /// Whether a stack that the process writes is awaited.
    pub(super) fn awaits_stack(&self) -> bool {
        self.calls.iter().any(|current| current.call.awaits_stack())
    }

    /// Whether all that is left has been given up by everybody but Python, and will not end.
    pub(super) fn is_hopeless(&self) -> bool {
        self.calls.iter().all(|current| current.call.is_killed())
    }
}
