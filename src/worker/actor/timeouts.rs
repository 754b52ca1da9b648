//! Deadlines, cancelling, and what becomes of calls that do not end.

use std::task::{Context, Poll};
use std::time::Instant;

use super::{MEMORY_INTERVAL, Worker};
use crate::error::{CallError, Phase};
use crate::port::{CANCEL_SIGNAL, STACK_SIGNAL, cancel_frame, stack_frame};
use crate::timer::deadline;
use crate::worker::call::{PendingCall, Work};
use crate::worker::call_state::CallStep;
use crate::worker::call_table::ActiveCall;
use crate::worker::host::OnBehalf;
use crate::worker::life::LifeStep;

impl Worker {
    /// Handles callers that left and deadlines that passed. Returns whether there were any.
    pub(super) fn poll_time(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_acted = self.poll_calls(cx);
        loop {
            let next = self.next_deadline();
            let Poll::Ready(now) = self.timer.poll(next, cx) else { break };
            self.on_time(now);
            self.poll_calls(cx);
            has_acted = true;
        }
        has_acted | self.poll_one_frame(cx)
    }

    /// When the timer is due next. A lease that submits a call relies on it from now on.
    fn next_deadline(&mut self) -> Option<Instant> {
        self.calls.with(|calls| {
            if self.sample_memory_at.is_none() && !calls.active().is_empty() {
                self.sample_memory_at = Some(Instant::now() + MEMORY_INTERVAL);
            }
            let own = [self.sample_memory_at, self.life.next_deadline()];
            let next = own.into_iter().chain([calls.next_deadline()]).flatten().min();
            calls.set_wakes_at(next);
            next
        })
    }

    /// Whether it is time to read a frame although the items of streams are unread.
    fn poll_one_frame(&mut self, cx: &mut Context<'_>) -> bool {
        let at = self
            .one_frame_at
            .filter(|_| self.life.reads() && self.calls.with(|calls| calls.has_others_than_unread()));
        self.reading_timer.poll(at, cx).is_ready()
    }

    fn on_time(&mut self, now: Instant) {
        match self.life.tick(now) {
            Some(LifeStep::Kill) => self.port.process.kill(),
            Some(LifeStep::EndLeaving) => self.end_leaving(),
            None => {}
        }
        if self.sample_memory_at.is_some_and(|at| at <= now) {
            self.port.process.sample_memory();
            self.check_stopped();
            let is_idle = self.calls.with(|calls| calls.active().is_empty());
            self.sample_memory_at = (!is_idle).then_some(now + MEMORY_INTERVAL);
        }
        while let Some((call_id, step)) = self.calls.with(|calls| calls.tick(now)) {
            self.take_step(call_id, step);
        }
        for call in self.calls.with(|calls| calls.take_expired(now)) {
            self.refuse(call, CallError::timed_out_waiting());
        }
    }

    fn take_step(&mut self, call_id: u64, step: CallStep) {
        match step {
            CallStep::AskForStack => self.ask_for_stack(call_id),
            CallStep::TimeOut => self.time_out(call_id),
            CallStep::Cancel => self.cancel(call_id),
            CallStep::SignalAgain => self.signal(),
            CallStep::Kill => {
                self.must_go("a call did not give up in time");
                self.hung(call_id);
            }
        }
    }

    fn ask_for_stack(&mut self, call_id: u64) {
        if self.put_off(call_id) {
            return;
        }
        // A worker that is about to end says nothing.
        if !self.life.writes() {
            return self.stack_came(call_id);
        }
        // A call that has not begun may begin this moment. Once Python has taken it out, it is certain that it did not.
        if !self.has_begun(call_id) {
            self.with_active(call_id, |active| active.is_withdrawn = true);
            return self.cancel(call_id);
        }
        let others_await = self.calls.with(|calls| {
            calls.active().iter().any(|other| other.id != call_id && other.state.awaits_stack())
        });
        if !others_await {
            self.port.stacks.clear();
        }
        self.send(&stack_frame(call_id));
        self.port.process.signal(STACK_SIGNAL);
    }

    fn time_out(&mut self, call_id: u64) {
        let begun = self.has_begun(call_id);
        let writes = self.life.writes();
        // Unsent bytes may still be delivered unless the channel is closed.
        let timed_out = self.calls.with(|calls| {
            let written = if writes { u64::MAX } else { calls.written() };
            let active = calls.get(call_id)?;
            Some((active.call.take(), active.stack.take(), written))
        });
        let Some((call, stack, written)) = timed_out else { return };
        if let Some(call) = call {
            let stack = stack.or_else(|| self.port.process.stop_reason());
            let error = timeout(call.has_arrived(written) && begun, stack);
            call.fail(error.on_worker(&self.name));
        }
        self.cancel(call_id);
        if begun {
            self.hung(call_id);
        }
    }

    /// The time of a session's end counts from when Python begins with it. While a synchronous call runs before it, the end
    /// gets as long again, and once more when it has begun. Returns whether it does.
    fn put_off(&mut self, call_id: u64) -> bool {
        let Some(begun) = self.port.begun() else { return false };
        if !self.life.writes() {
            return false;
        }
        let has_begun = call_id <= begun.last && (begun.on_main == 0 || begun.on_main == call_id);
        let put_off = |active: &mut ActiveCall| match active.call.as_ref().map(|call| &call.work) {
            Some(Work::EndSession { timeout, .. }) => {
                active.state.put_off(has_begun, deadline(Instant::now(), *timeout))
            }
            _ => false,
        };
        self.with_active(call_id, put_off) == Some(true)
    }

    /// The error of a call that Python took out, or ended, because its deadline had passed.
    pub(super) fn withdrawn(&self, call_id: u64) -> CallError {
        timeout(self.has_begun(call_id), None)
    }

    /// Whether user code of this call may have run.
    fn has_begun(&self, call_id: u64) -> bool {
        self.port.begun().is_none_or(|begun| call_id <= begun.last)
    }

    fn with_active<R>(&self, call_id: u64, f: impl FnOnce(&mut ActiveCall) -> R) -> Option<R> {
        self.calls.with(|calls| calls.get(call_id).map(f))
    }

    pub(super) fn stack_came(&mut self, call_id: u64) {
        let step = self.with_active(call_id, |active| active.state.stack_came(Instant::now()));
        if let Some(step) = step.flatten() {
            self.take_step(call_id, step);
        }
    }

    /// Somebody may have stopped the process. Then it gets nothing more, and its idempotent calls go to another worker. The
    /// others wait for their deadlines.
    fn check_stopped(&mut self) {
        let was_stopped = std::mem::replace(&mut self.found_stopped, self.port.process.is_stopped());
        if !(was_stopped && self.found_stopped) {
            return;
        }
        let why = "its process is stopped (state T)";
        if self.life.leave(why, None) {
            self.close_table();
            self.tell_leaving();
        }
        let is_moving = |active: &&ActiveCall| active.call.as_ref().is_some_and(PendingCall::is_idempotent);
        let moving: Vec<u64> = self
            .calls
            .with(|calls| calls.active().iter().filter(is_moving).map(|active| active.id).collect());
        for call_id in moving {
            let started = self.has_begun(call_id);
            let Some(call) = self.with_active(call_id, |active| active.call.take()).flatten() else {
                continue;
            };
            call.fail(
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
            let step = self.with_active(call_id, |active| active.state.caller_left(Instant::now()));
            if let Some(step) = step.flatten() {
                self.take_step(call_id, step);
            }
        }
    }

    /// A call went on beyond its deadline, or its grace. If this worker was forked and has never answered a call, the zygote
    /// is told; a worker that cannot recover is replaced by a cold one.
    fn hung(&mut self, call_id: u64) {
        if self.found_stopped {
            return; // by somebody, and not by the fork
        }
        let since = self.with_active(call_id, |active| active.since);
        let (Some(trial), Some(since)) = (&self.trial, since) else { return };
        if trial.hung(&self.name, since) {
            self.must_go("calls hang in forked workers, which are replaced by cold ones");
        }
    }

    /// The worker takes no more calls and ends. The calls that it has get the grace to end.
    fn must_go(&mut self, why: &str) {
        if self.life.leave(why, Some(Instant::now() + self.cancel_grace)) {
            self.close_table();
            self.tell_leaving();
        }
        if self.calls.with(|calls| calls.is_hopeless()) {
            self.end_leaving();
        }
    }

    fn cancel(&mut self, call_id: u64) {
        // The host calls of the call are aborted.
        self.with_active(call_id, |active| active.host_calls = OnBehalf::default());
        self.send(&cancel_frame(call_id));
        self.signal();
    }

    /// Has Python look at its frames. A signal that comes before the frame finds nothing; it is repeated.
    fn signal(&self) {
        if self.life.reads() {
            self.port.process.signal(CANCEL_SIGNAL);
        }
    }

    /// Sees to callers that have left, and to stacks that are awaited. Returns whether there was anything.
    fn poll_calls(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_acted = false;
        while let Some((call_id, step)) = self.calls.with(|calls| calls.poll_left(cx)) {
            self.take_step(call_id, step);
            has_acted = true;
        }
        while self.calls.with(|calls| calls.awaits_stack())
            && let Poll::Ready(stack) = self.port.stacks.poll_stack(cx)
        {
            has_acted = true;
            // The stack is the main thread's. Of several calls only the start marker knows which one runs there. It does not
            // know of an async call that blocks the event loop: if there is one call only, the stack is that call's.
            let is_single = self.calls.with(|calls| calls.active().len() == 1);
            let on_main = self.port.begun().map(|begun| begun.on_main);
            let on_main = on_main.filter(|id| *id != 0 || stack.is_waiting || !is_single);
            let awaiting: Vec<u64> = self.calls.with(|calls| {
                let awaits = |active: &&ActiveCall| {
                    active.state.awaits_stack()
                        && !active.is_withdrawn
                        && on_main.is_none_or(|id| id == active.id)
                };
                calls.active().iter().filter(awaits).map(|active| active.id).collect()
            });
            for call_id in awaiting {
                self.with_active(call_id, |active| active.stack = Some(stack.text.clone()));
                // For an event loop that waits, the frame of the stack says more.
                if !stack.is_waiting {
                    self.stack_came(call_id);
                }
            }
        }
        has_acted
    }
}

/// The error of a call whose deadline passed in Python.
fn timeout(started: bool, stack: Option<String>) -> CallError {
    CallError::Timeout {
        phase: if started { Phase::Run } else { Phase::Queue },
        stack: stack.filter(|stack| !stack.is_empty()),
        attempts: u32::from(started),
        context: Box::default(),
    }
}
