//! What Python is given to do.

use std::time::Instant;

use super::{MEMORY_INTERVAL, Worker};
use crate::error::{CallError, Direction};
use crate::port::{ChannelError, FrameError};
use crate::timer::deadline;
use crate::worker::desk::{Desk, Submitted};
use crate::worker::dispatch::{Dispatch, Work};
use crate::worker::host::OnBehalf;
use crate::worker::in_flight::{Current, Stream};
use crate::worker::items::Unread;
use crate::worker::messages::LeaseId;
use crate::worker::running::Running;

impl Worker {
    pub(super) fn run(&mut self, dispatch: Dispatch) {
        if self.stopping {
            self.refuse_at_the_end(dispatch);
        } else if self.takes_calls() && self.waiting.is_empty() && self.calls.takes(&dispatch.work) {
            self.start(dispatch);
            self.next();
        } else {
            self.waiting.push_back(dispatch);
            // What waits before it may be the end of a session, which holds up that session's calls alone.
            self.next();
        }
    }

    /// Whether Python is given more to do.
    fn takes_calls(&self) -> bool {
        !self.is_ending() && self.leaving.is_none()
    }

    /// Answers a call that Python does not get.
    pub(super) fn refuse(&self, dispatch: Dispatch, error: CallError) {
        if let Some(request) = dispatch.assigned {
            self.tell_freed(request, false);
        }
        dispatch.fail(error);
    }

    /// The same, since the worker has been asked to end. A lease is one worker's, and ends with it; the pool's calls come here
    /// only when it ends as a whole.
    pub(super) fn refuse_at_the_end(&self, dispatch: Dispatch) {
        if dispatch.assigned.is_none() && matches!(dispatch.work, Work::Call { .. }) {
            drop(dispatch); // which answers `WorkerDied`
        } else {
            self.refuse(dispatch, CallError::Draining);
        }
    }

    /// Hands a call to Python, unless nobody waits for it any more.
    fn start(&mut self, mut dispatch: Dispatch) {
        let now = Instant::now();
        let timeout = CallError::timed_out_waiting();
        if dispatch.is_abandoned() || dispatch.deadline <= now {
            return self.refuse(dispatch, timeout);
        }
        if let Work::EndSession { timeout, .. } = dispatch.work {
            dispatch.deadline = deadline(now, timeout);
        }
        let (call_id, sent) = self.desk.queue_call(&dispatch, now);
        match sent {
            Ok(end) => dispatch.mark_sent(end),
            // Its memfds did not find their way, and within the frame they are too much.
            Err(ChannelError::Frame(FrameError::TooLarge { size, limit })) => {
                return self.refuse(dispatch, CallError::too_large(Direction::Arguments, size, limit));
            }
            // It is answered when the process has ended, which then is near: that tells why.
            Err(error) => self.writing_failed(error),
        }
        self.accept(call_id, dispatch, now);
    }

    /// Python has it.
    fn accept(&mut self, call_id: u64, dispatch: Dispatch, now: Instant) {
        self.last_call_id = self.last_call_id.max(call_id);
        let (mut opened, mut of_session, mut nested) = (None, None, 0);
        match &dispatch.work {
            Work::Call { session, stream, depth, .. } => {
                nested = *depth;
                opened = stream.map(|(id, credit)| Stream { id, credit, unread: Unread::new(&self.takers) });
                of_session = session.clone();
            }
            Work::EndSession { .. } => {}
        }
        self.calls.push(Current {
            call_id,
            call: Running::new(dispatch.deadline, self.cancel_grace),
            since: now,
            assigned: dispatch.assigned,
            dispatch: Some(dispatch),
            session: of_session,
            stream: opened,
            depth: nested,
            host_calls: OnBehalf::default(),
            withdrawn: false,
            stack: None,
        });
        self.sample_memory_at.get_or_insert(now + MEMORY_INTERVAL);
    }

    /// Takes over what the lease has left at the desk.
    pub(super) fn take_over(&mut self) {
        self.take_from(Desk::take);
    }

    /// The same; and until the next [`offer`](Self::offer) the lease has to ask before Python gets anything.
    pub(super) fn withdraw(&mut self) {
        self.take_from(Desk::withdraw);
    }

    fn take_from(&mut self, take: impl FnOnce(&Desk, &mut Vec<Submitted>)) {
        if self.lease.is_none() {
            return;
        }
        let mut submitted = std::mem::take(&mut self.submitted);
        take(&self.desk, &mut submitted);
        if !submitted.is_empty() {
            let now = Instant::now();
            for call in submitted.drain(..) {
                match call {
                    Submitted::Sent(call_id, dispatch) => self.accept(call_id, dispatch, now),
                    Submitted::Waits(dispatch) => self.run(dispatch),
                }
            }
        }
        self.submitted = submitted;
    }

    /// Says at the desk what the lease may hand to Python itself.
    pub(super) fn offer(&mut self) {
        if self.lease.is_none() {
            return;
        }
        let is_free = !self.lease_over && !self.stopping && self.takes_calls() && self.waiting.is_empty();
        let places = if is_free { self.calls.places() } else { 0 };
        self.desk.offer(places, self.timer.armed());
    }

    /// After a call: the next ones that wait, the end of the lease, or of the worker.
    pub(super) fn next(&mut self) {
        while self.takes_calls()
            && let Some(at) = self.next_waiting()
            && let Some(dispatch) = self.waiting.remove(at)
        {
            self.start(dispatch);
        }
        if self.leaving.is_some() && self.calls.is_hopeless() {
            self.leave();
        }
        if !self.calls.is_empty() || self.is_ending() {
            return;
        }
        if self.stopping {
            self.tell_python_to_exit();
        } else if self.lease_over {
            self.lease_over = false;
            if let Some(LeaseId(request)) = self.lease.take() {
                self.tell_freed(request, true);
            }
        }
    }

    /// The first of those that wait which Python may get now. Nothing overtakes the end of its session.
    fn next_waiting(&self) -> Option<usize> {
        (0..self.waiting.len()).find(|&at| {
            let work = &self.waiting[at].work;
            let ends_first = |before: &Dispatch| match &before.work {
                Work::EndSession { session, .. } => work.session() == Some(session),
                Work::Call { .. } => false,
            };
            self.calls.takes(work) && !self.waiting.range(..at).any(ends_first)
        })
    }

    /// How many places of the pool's it takes.
    pub(super) fn assigned(&self) -> u32 {
        let running = self.calls.iter().filter(|current| current.assigned.is_some()).count();
        let waiting = self.waiting.iter().filter(|dispatch| dispatch.assigned.is_some()).count();
        u32::try_from(running + waiting).unwrap_or(u32::MAX)
    }
}
