//! Deadlines, cancelling, and what becomes of calls that do not end.

use std::task::{Context, Poll};
use std::time::Instant;

use super::{Ending, Leaving, MEMORY_INTERVAL, Worker};
use crate::error::{CallError, Phase};
use crate::port::{CANCEL_SIGNAL, STACK_SIGNAL, cancel_frame, stack_frame};
use crate::timer::deadline;
use crate::worker::dispatch::{Dispatch, Work};
use crate::worker::host::OnBehalf;
use crate::worker::running::Step;

/// Why a worker is killed whose connection is closed, and whose process goes on.
pub(super) const CLOSED_BY_CODE: &str = "Python code closed its connection to the pool";

impl Worker {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let waiting = self.waiting.iter().map(|dispatch| dispatch.deadline).min();
        let leave_at = self.leaving.as_ref().and_then(|leaving| leaving.at);
        let calls = self.calls.next_deadline();
        [calls, waiting, self.sample_memory_at, self.kill_at, leave_at].into_iter().flatten().min()
    }

    /// Sees to callers that leave and to whatever is due. Whether there was anything.
    pub(super) fn poll_time(&mut self, cx: &mut Context<'_>) -> bool {
        let mut acted = self.poll_calls(cx);
        while let Poll::Ready(now) = self.timer.poll(self.next_deadline(), cx) {
            self.on_time(now);
            self.poll_calls(cx);
            acted = true;
        }
        acted | self.poll_one_frame(cx)
    }

    /// Whether it is time to read a frame though the items of streams are unread.
    fn poll_one_frame(&mut self, cx: &mut Context<'_>) -> bool {
        let at = self.one_frame_at.filter(|_| self.ending.is_none() && self.calls.are_others_than_unread());
        self.reading_timer.poll(at, cx).is_ready()
    }

    fn on_time(&mut self, now: Instant) {
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            // It was given time to end by itself. What it said before is still read.
            self.closed_by_code = true;
            if let Some(Ending { why: why @ None }) = &mut self.ending {
                *why = Some(CLOSED_BY_CODE.into());
            }
            self.port.process.kill();
        }
        if self.leaving.as_ref().and_then(|leaving| leaving.at).is_some_and(|at| at <= now) {
            self.leave();
        }
        if self.sample_memory_at.is_some_and(|at| at <= now) {
            self.port.process.sample_memory();
            self.look_whether_stopped();
            self.sample_memory_at = (!self.calls.is_empty()).then_some(now + MEMORY_INTERVAL);
        }
        while let Some((call_id, step)) = self.calls.tick(now) {
            self.take_step(call_id, step);
        }
        for dispatch in std::mem::take(&mut self.waiting) {
            if dispatch.deadline <= now {
                self.refuse(dispatch, CallError::timed_out_waiting());
            } else {
                self.waiting.push_back(dispatch);
            }
        }
    }

    fn take_step(&mut self, call_id: u64, step: Step) {
        match step {
            Step::AskForStack => {
                if self.put_off(call_id) {
                    return;
                }
                // A worker that is about to end says nothing.
                if self.is_ending() {
                    return self.stack_came(call_id);
                }
                // One that has not begun may do so this moment. That it did not is certain once Python has taken it out.
                if !self.has_begun(call_id) {
                    if let Some(current) = self.calls.get(call_id) {
                        current.withdrawn = true;
                    }
                    return self.cancel(call_id);
                }
                if !self.calls.iter().any(|other| other.call_id != call_id && other.call.awaits_stack()) {
                    self.port.stacks.clear();
                }
                self.send(&stack_frame(call_id));
                self.port.process.signal(STACK_SIGNAL);
            }
            Step::TimeOut => {
                let begun = self.has_begun(call_id);
                // Of what is still to be written the rest may be; but not any more when the channel is closed.
                let written = if self.is_ending() { self.desk.written() } else { u64::MAX };
                let Some(current) = self.calls.get(call_id) else { return };
                if let Some(dispatch) = current.dispatch.take() {
                    let stack = current.stack.take().or_else(|| self.port.process.stop_reason());
                    let error = timeout(dispatch.has_arrived(written) && begun, stack);
                    dispatch.fail(error.on_worker(&self.name));
                }
                self.cancel(call_id);
                if begun {
                    self.hung(call_id);
                }
            }
            Step::Cancel => self.cancel(call_id),
            Step::SignalAgain => self.signal(),
            Step::Kill => {
                self.must_go("a call did not give up in time");
                self.hung(call_id);
            }
        }
    }

    /// The end of a session has its time from when Python begins with it: while a synchronous call is before it, it gets as long
    /// again, and once more when it has begun. Whether it did.
    fn put_off(&mut self, call_id: u64) -> bool {
        let Some(begun) = self.port.begun() else { return false };
        let is_ending = self.is_ending();
        let has_begun = !(call_id > begun.last || (begun.on_main != 0 && begun.on_main != call_id));
        let Some(current) = self.calls.get(call_id) else { return false };
        match current.dispatch.as_ref().map(|dispatch| &dispatch.work) {
            Some(Work::EndSession { timeout, .. }) if !is_ending => {
                current.call.put_off(has_begun, deadline(Instant::now(), *timeout))
            }
            _ => false,
        }
    }

    /// What the caller of a call hears that Python took out, or ended, because its deadline had passed.
    pub(super) fn withdrawn(&self, call_id: u64) -> CallError {
        timeout(self.has_begun(call_id), None)
    }

    /// Whether user code of this call may have run.
    fn has_begun(&self, call_id: u64) -> bool {
        self.port.begun().is_none_or(|begun| call_id <= begun.last)
    }

    pub(super) fn stack_came(&mut self, call_id: u64) {
        let Some(current) = self.calls.get(call_id) else { return };
        if let Some(step) = current.call.stack_came(Instant::now()) {
            self.take_step(call_id, step);
        }
    }

    /// Somebody may have stopped the process. It is given nothing more then, and its idempotent calls go to another
    /// worker; the others wait for their deadlines.
    fn look_whether_stopped(&mut self) {
        let was_stopped = std::mem::replace(&mut self.found_stopped, self.port.process.is_stopped());
        if !(was_stopped && self.found_stopped) {
            return;
        }
        let why = "its process is stopped (state T)";
        if self.leaving.is_none() && !self.is_ending() {
            self.leaving = Some(Leaving { why: why.into(), at: None });
            self.withdraw();
            self.tell_leaving();
        }
        let idempotent = |dispatch: &Dispatch| dispatch.is_idempotent();
        let moving: Vec<u64> = self
            .calls
            .iter()
            .filter(|it| it.dispatch.as_ref().is_some_and(idempotent))
            .map(|it| it.call_id)
            .collect();
        for call_id in moving {
            let started = self.has_begun(call_id);
            let Some(dispatch) = self.calls.get(call_id).and_then(|current| current.dispatch.take()) else {
                continue;
            };
            dispatch.fail(
                CallError::WorkerDied {
                    started,
                    exit: None,
                    signal: None,
                    max_rss_bytes: None,
                    stderr_tail: String::new(),
                    reason: Some(why.into()),
                    attempts: u32::from(started),
                    context: Box::default(),
                }
                .on_worker(&self.name),
            );
            let step = self.calls.get(call_id).and_then(|current| current.call.caller_left(Instant::now()));
            if let Some(step) = step {
                self.take_step(call_id, step);
            }
        }
    }

    /// A call went on beyond its deadline, or its grace. Tells the zygote, if this worker was forked and never answered
    /// one; a worker without hope is replaced by a cold one.
    fn hung(&mut self, call_id: u64) {
        if self.found_stopped {
            return; // by somebody, and not by the fork
        }
        let (Some(trial), Some(current)) = (&self.trial, self.calls.get(call_id)) else { return };
        if trial.hung(&self.name, current.since) {
            self.must_go("calls hang in forked workers, which are replaced by cold ones");
        }
    }

    /// The worker takes no more calls and ends. Those that it has get the grace to end.
    fn must_go(&mut self, why: &str) {
        if self.leaving.is_none() {
            let at = Some(Instant::now() + self.cancel_grace);
            self.leaving = Some(Leaving { why: why.to_owned(), at });
            self.withdraw();
            self.tell_leaving();
        }
        if self.calls.is_hopeless() {
            self.leave();
        }
    }

    /// Nothing is left to wait for.
    pub(super) fn leave(&mut self) {
        if let Some(leaving) = &mut self.leaving {
            leaving.at = None;
            let why = leaving.why.clone();
            self.end(why);
        }
    }

    fn cancel(&mut self, call_id: u64) {
        if let Some(current) = self.calls.get(call_id) {
            current.host_calls = OnBehalf::default();
        }
        self.send(&cancel_frame(call_id));
        self.signal();
    }

    /// Tells Python to look at its frames. One that comes before the frame finds nothing, but makes room for it; it is
    /// repeated.
    fn signal(&self) {
        if self.ending.is_none() {
            self.port.process.signal(CANCEL_SIGNAL);
        }
    }

    /// Looks after callers that leave, and stacks that are awaited. Whether there was anything.
    fn poll_calls(&mut self, cx: &mut Context<'_>) -> bool {
        let mut acted = false;
        while let Some((call_id, step)) = self.calls.poll_left(cx, Instant::now) {
            self.take_step(call_id, step);
            acted = true;
        }
        while self.calls.awaits_stack()
            && let Poll::Ready(stack) = self.port.stacks.poll_stack(cx)
        {
            acted = true;
            // It is the main thread's; of which call, only the worker knows when it has several. It does not know of an
            // async one that blocks the event loop: that is the one there is, if there is but one.
            let of_the_loop = !stack.is_waiting && self.calls.is_single();
            let on_main = self.port.begun().map(|begun| begun.on_main);
            let on_main = on_main.filter(|id| *id != 0 || !of_the_loop);
            let awaiting: Vec<u64> = self
                .calls
                .iter()
                .filter(|current| {
                    current.call.awaits_stack()
                        && !current.withdrawn
                        && on_main.is_none_or(|id| id == current.call_id)
                })
                .map(|current| current.call_id)
                .collect();
            for call_id in awaiting {
                if let Some(current) = self.calls.get(call_id) {
                    current.stack = Some(stack.text.clone());
                }
                // Of an event loop that waits, the frame will say more.
                if !stack.is_waiting {
                    self.stack_came(call_id);
                }
            }
        }
        acted
    }
}

/// The deadline of a call has passed in Python.
fn timeout(started: bool, stack: Option<String>) -> CallError {
    CallError::Timeout {
        phase: if started { Phase::Run } else { Phase::Queue },
        stack: stack.filter(|stack| !stack.is_empty()),
        attempts: u32::from(started),
        context: Box::default(),
    }
}
