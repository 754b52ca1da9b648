//! The Worker actor: its messages, what Python is given, and what moves the worker along. What Python writes is in `receive`,
//! what becomes of calls that do not end in time in `timeouts`, the end of the worker in `exit`.

mod exit;
mod receive;
mod timeouts;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use actix::fut::{ActorFuture, ActorFutureExt, WrapFuture};
use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Recipient, Running};

use super::call::{PendingCall, Work};
use super::call_table::{CallTable, Given, MEMORY_INTERVAL, State};
use super::host::{HostCalls, HostFunctions};
use super::ids::{LeaseId, RequestId, WorkerId};
use super::life::{Life, Stop};
use super::messages::{
    BeginLease, BrokerDied, Credit, EndLease, GetLoad, Load, ReadyWorker, Run, Wake, WorkerEvent,
};
use crate::budget::FRAMES_PER_TURN;
use crate::error::CallError;
use crate::port::{Frame, Port, Trial, credit_frame};
use crate::supervisor::ChildContext;
use crate::timer::Timer;

/// How many turns the frames of an ended process are read at most: more than a socket's buffer can fill.
const TURNS_AFTER_END: usize = 1000;

/// Owns one port.
pub(crate) struct Worker {
    id: WorkerId,
    name: Arc<str>,
    context: ChildContext,
    port: Port,
    /// Of a forked worker, until it has answered a call.
    trial: Option<Trial>,
    /// How long Python may take to give up a call.
    cancel_grace: Duration,
    /// The broker of the worker's pool.
    pool: Recipient<WorkerEvent>,
    lease: Option<Lease>,
    calls: Arc<CallTable>,
    host_functions: HostFunctions,
    host_calls: HostCalls,
    life: Life,
    timer: Timer,
    sample_memory_at: Option<Instant>,
    /// The process was stopped when its memory was sampled last.
    found_stopped: bool,
    /// The exception of a stop hook.
    stop_failure: Option<String>,
    /// When one frame is read although too many bytes of streams are unread. `None` while reading is not held back.
    one_frame_at: Option<Instant>,
    /// For `one_frame_at`.
    reading_timer: Timer,
    /// The turns in which frames of an ended process are still read.
    turns_left: usize,
}

/// A lease that has the worker to itself.
struct Lease {
    id: LeaseId,
    /// Checked in while one of its calls still ran.
    is_over: bool,
}

/// How a worker treats its calls.
#[derive(Clone)]
pub(crate) struct Settings {
    /// How many calls Python has at most.
    pub(crate) in_flight: usize,
    /// How long Python may take to give up a call.
    pub(crate) cancel_grace: Duration,
    /// What Python may call here.
    pub(crate) host_functions: HostFunctions,
}

impl Worker {
    #[expect(clippy::too_many_arguments)]
    pub(crate) fn new(
        slot: u32,
        generation: u32,
        name: &str,
        mut port: Port,
        trial: Option<Trial>,
        settings: Settings,
        pool: Recipient<WorkerEvent>,
        context: ChildContext,
    ) -> Self {
        let Settings { in_flight, cancel_grace, host_functions } = settings;
        let calls = CallTable::new(port.take_writer(), in_flight, cancel_grace);
        Self {
            id: WorkerId { slot, generation, incarnation: context.incarnation() },
            name: name.into(),
            context,
            port,
            trial,
            cancel_grace,
            pool,
            lease: None,
            calls,
            host_functions,
            host_calls: HostCalls::default(),
            life: Life::new(),
            timer: Timer::new(),
            sample_memory_at: None,
            found_stopped: false,
            stop_failure: None,
            one_frame_at: None,
            reading_timer: Timer::new(),
            turns_left: TURNS_AFTER_END,
        }
    }

    fn tell(&self, event: WorkerEvent) {
        self.pool.do_send(event);
    }

    fn tell_freed(&self, request: RequestId, began: bool) {
        self.tell(WorkerEvent::Freed { worker: self.id, request, began });
    }

    fn tell_leaving(&self) {
        self.tell(WorkerEvent::Leaving { worker: self.id });
    }

    fn send(&mut self, frame: &Frame) {
        if self.life.writes()
            && let Err(error) = self.calls.send(frame)
        {
            self.write_failed(error);
        }
    }

    fn run(&mut self, call: PendingCall) {
        if self.life.stop() != Stop::No {
            return self.refuse_while_stopping(call);
        }
        let given = self.calls.with(|calls| calls.run(call));
        self.given(given);
    }

    /// Handles a call that Python did not get.
    fn given(&mut self, given: Given) {
        for (call, error) in given.refused {
            self.refuse(call, error);
        }
        if let Some(error) = given.failure {
            self.write_failed(error);
        }
    }

    /// Answers a call that Python does not get.
    fn refuse(&self, call: PendingCall, error: CallError) {
        if let Some(request) = call.request() {
            self.tell_freed(request, false);
        }
        call.fail(error);
    }

    /// Answers a call that comes after the worker was asked to stop. A lease ends with its worker. The pool's calls come here only
    /// when the pool ends as a whole.
    fn refuse_while_stopping(&self, call: PendingCall) {
        if call.request().is_none() && matches!(call.work, Work::Call { .. }) {
            drop(call); // which answers `WorkerDied`
        } else {
            self.refuse(call, CallError::Draining);
        }
    }

    fn refuse_waiting(&mut self) {
        for call in self.calls.with(State::take_waiting) {
            self.refuse_while_stopping(call);
        }
    }

    /// After a call: gives Python the next ones, and ends the lease or the worker when its time has come.
    fn next(&mut self) {
        let given = self.calls.with(State::give);
        self.given(given);
        if self.life.is_leaving() && self.calls.with(|calls| calls.is_hopeless()) {
            self.end_leaving();
        }
        if !self.calls.with(|calls| calls.active().is_empty()) || !self.life.writes() {
            return;
        }
        match (self.life.stop(), &self.lease) {
            (Stop::Asked, _) => self.tell_python_to_exit(),
            (Stop::No, Some(Lease { id: LeaseId(request), is_over: true })) => {
                let request = *request;
                self.lease = None;
                self.tell_freed(request, true);
            }
            _ => {}
        }
    }

    fn give_credit(&mut self, Credit { stream, items }: Credit) {
        if let Some(call_id) = self.calls.with(|calls| calls.add_credit(stream, items)) {
            self.send(&credit_frame(call_id, items));
        }
    }
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.tell(WorkerEvent::Ready(ReadyWorker {
            worker: self.id,
            addr: ctx.address(),
            pid: self.port.process.pid(),
            calls: self.calls.clone(),
            ready: self.port.ready.clone(),
            forked: self.port.forked,
        }));
        ctx.spawn(Drive);
    }

    fn stopping(&mut self, _: &mut Context<Self>) -> Running {
        if self.life.has_ended() {
            return Running::Stop;
        }
        // A second request changes nothing. The supervisor's own deadline ends a worker that does not stop.
        if self.life.advance_stop(Stop::Asked) {
            self.close_table();
            self.refuse_waiting();
            if self.calls.with(|calls| calls.active().is_empty()) && self.life.reads() {
                self.tell_python_to_exit();
            }
        }
        Running::Continue
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // First of all: Python would take the end of its channel for an orderly stop, and begin with its hooks.
        self.port.process.kill();
        // The calls that have no answer yet answer by themselves.
        drop(self.calls.close());
    }
}

/// Moves the frames, the timer and the end of the process along.
struct Drive;

impl ActorFuture<Worker> for Drive {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        act: &mut Worker,
        ctx: &mut Context<Worker>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<()> {
        let mut turn = FRAMES_PER_TURN;
        // Each pass reads less than the turn has left, then sees to the time: a flood of frames holds up no deadline.
        loop {
            act.receive(&mut turn, cx);
            act.flush(cx);
            let has_answered = act.poll_host_calls(cx);
            // This may queue frames to write, and writing may make room for more.
            if !(act.poll_time(cx) | has_answered) {
                break;
            }
            act.flush(cx);
            if turn == 0 {
                break;
            }
        }
        if turn == 0 {
            // The other tasks of this thread come first, and its timers and sockets. Being dropped, it still wakes this task.
            let _ = pin!(tokio::task::yield_now()).poll(cx);
        }
        let Poll::Ready(exit) = act.port.process.poll_ended(cx) else { return Poll::Pending };
        // What Python wrote before its end counts. A process that it has left behind may write for ever.
        if turn == 0 && act.turns_left > 0 {
            act.turns_left -= 1;
            return Poll::Pending;
        }
        act.tell(WorkerEvent::Ended { worker: act.id, reason: act.reason(exit) });
        let rest = act.port.finish_capture();
        ctx.spawn(rest.into_actor(act).map(move |stderr_tail, act, ctx: &mut Context<Worker>| {
            act.process_ended(exit, stderr_tail);
            ctx.stop();
        }));
        Poll::Ready(())
    }
}

impl Handler<Run> for Worker {
    type Result = ();

    fn handle(&mut self, Run(call): Run, _: &mut Context<Self>) {
        self.run(call);
    }
}

impl Handler<Wake> for Worker {
    type Result = ();

    /// The message has woken the worker's task, which looks at the call table.
    fn handle(&mut self, Wake: Wake, _: &mut Context<Self>) {
        if self.life.stop() == Stop::No {
            self.next();
        } else {
            self.refuse_waiting();
        }
    }
}

impl Handler<Credit> for Worker {
    type Result = ();

    fn handle(&mut self, credit: Credit, _: &mut Context<Self>) {
        self.give_credit(credit);
    }
}

impl Handler<BeginLease> for Worker {
    type Result = ();

    fn handle(&mut self, BeginLease(id): BeginLease, _: &mut Context<Self>) {
        self.lease = Some(Lease { id, is_over: false });
    }
}

impl Handler<EndLease> for Worker {
    type Result = ();

    fn handle(&mut self, EndLease(id): EndLease, _: &mut Context<Self>) {
        if let Some(lease) = self.lease.as_mut().filter(|lease| lease.id == id) {
            lease.is_over = true;
            self.next();
        }
    }
}

impl Handler<GetLoad> for Worker {
    type Result = Load;

    fn handle(&mut self, GetLoad: GetLoad, _: &mut Context<Self>) -> Load {
        match self.lease {
            Some(_) => Load::Lease,
            None => Load::Calls(self.calls.with(|calls| u32::try_from(calls.counted()).unwrap_or(u32::MAX))),
        }
    }
}

impl Handler<BrokerDied> for Worker {
    type Result = ();

    fn handle(&mut self, BrokerDied: BrokerDied, _: &mut Context<Self>) {
        self.end("the pool's broker died");
    }
}
