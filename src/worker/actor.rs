//! The Worker actor: its state, its messages, and what moves it along. What Python is given (`giving`), what it says (`hearing`), what
//! becomes of calls that do not end in time (`overdue`), and its end (`ending`) are told apart.

mod ending;
mod giving;
mod hearing;
mod overdue;

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use actix::fut::{ActorFuture, ActorFutureExt, WrapFuture};
use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Recipient, Running as Stay};
use futures_util::task::AtomicWaker;

use super::desk::{Desk, Submitted};
use super::dispatch::Dispatch;
use super::host::{HostCalls, HostFunctions};
use super::in_flight::InFlight;
use super::messages::{
    BrokerDied, Checkin, Credit, GetLoad, Grant, LeaseId, Load, Look, ReadyWorker, RequestId, Run,
    WorkerEvent, WorkerId,
};
use super::zygote::Trial;
use crate::budget::FRAMES_PER_TURN;
use crate::port::{Frame, Port};
use crate::supervisor::ChildContext;
use crate::timer::Timer;

/// How often the memory of a worker that runs a call is looked at.
pub(super) const MEMORY_INTERVAL: Duration = Duration::from_secs(1);

/// More turns than a socket's buffer can fill.
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
    lease: Option<LeaseId>,
    /// The lease ended while one of its calls still ran.
    lease_over: bool,
    /// What Python has.
    calls: InFlight,
    host_functions: HostFunctions,
    host_calls: HostCalls,
    /// Calls of the lease that wait for a place, and ends of sessions that wait for their calls.
    waiting: VecDeque<Dispatch>,
    /// Where Python is spoken to.
    desk: Arc<Desk>,
    /// The largest id of a call that it knows of.
    last_call_id: u64,
    /// Empty, for its memory.
    submitted: Vec<Submitted>,
    timer: Timer,
    /// For `one_frame_at`.
    reading_timer: Timer,
    sample_memory_at: Option<Instant>,
    /// Its process was stopped when it was looked at last.
    found_stopped: bool,
    kill_at: Option<Instant>,
    /// It was killed since its connection was closed and its process went on.
    closed_by_code: bool,
    /// A call did not give up: the others are awaited, none is taken any more.
    leaving: Option<Leaving>,
    /// It is about to end.
    ending: Option<Ending>,
    /// Python takes no more, since its end of the channel is closed. What it had said before is still read.
    deaf: bool,
    /// Asked to stop: it finishes what runs, then tells Python to exit.
    stopping: bool,
    /// Python has been told to exit.
    exiting: bool,
    /// What a stop hook raised.
    stop_failure: Option<String>,
    /// Nothing is read, since too many bytes of streams are unread. One frame is, from then on.
    one_frame_at: Option<Instant>,
    /// Woken when somebody takes an item of a stream.
    takers: Arc<AtomicWaker>,
    /// The turns in which frames of an ended process are still read.
    turns_left: usize,
    ended: bool,
}

struct Ending {
    /// Why, when that is our doing, or the process does not end by itself.
    why: Option<String>,
}

struct Leaving {
    why: String,
    /// When the others must have ended; `None` once that is over.
    at: Option<Instant>,
}

/// How a worker treats its calls.
#[derive(Clone)]
pub(crate) struct Settings {
    /// How many Python has at most.
    pub(crate) in_flight: usize,
    /// How long Python may take to give up a call.
    pub(crate) cancel_grace: Duration,
    /// What Python may call here.
    pub(crate) host_functions: HostFunctions,
}

impl Worker {
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
        let desk = Desk::new(port.take_writer());
        Self {
            id: WorkerId { slot, generation, incarnation: context.incarnation() },
            name: name.into(),
            context,
            port,
            trial,
            cancel_grace,
            pool,
            lease: None,
            lease_over: false,
            calls: InFlight::new(in_flight),
            host_functions,
            host_calls: HostCalls::default(),
            waiting: VecDeque::new(),
            desk,
            last_call_id: 0,
            submitted: Vec::new(),
            timer: Timer::new(),
            reading_timer: Timer::new(),
            sample_memory_at: None,
            found_stopped: false,
            kill_at: None,
            closed_by_code: false,
            leaving: None,
            ending: None,
            deaf: false,
            stopping: false,
            exiting: false,
            stop_failure: None,
            one_frame_at: None,
            takers: Arc::default(),
            turns_left: TURNS_AFTER_END,
            ended: false,
        }
    }

    fn tell_freed(&self, request: RequestId, began: bool) {
        self.tell(WorkerEvent::Freed { worker: self.id, request, began });
    }

    fn tell_leaving(&self) {
        self.tell(WorkerEvent::Leaving { worker: self.id });
    }

    fn tell(&self, event: WorkerEvent) {
        self.pool.do_send(event);
    }

    fn send(&mut self, frame: &Frame) {
        if !self.is_ending()
            && let Err(error) = self.desk.send(frame)
        {
            self.writing_failed(error);
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
            desk: self.desk.clone(),
            ready: self.port.ready.clone(),
            forked: self.port.forked,
        }));
        ctx.spawn(Drive);
    }

    fn stopping(&mut self, _: &mut Context<Self>) -> Stay {
        if self.ended {
            return Stay::Stop;
        }
        // Whoever asks twice in a hurry gets the same answer; the supervisor's own deadline ends a worker
        // that does not manage.
        if !std::mem::replace(&mut self.stopping, true) {
            self.withdraw();
            for dispatch in std::mem::take(&mut self.waiting) {
                self.refuse_at_the_end(dispatch);
            }
            if self.calls.is_empty() && self.ending.is_none() {
                self.tell_python_to_exit();
            }
        }
        Stay::Continue
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // First of all: Python would take the end of its channel for an orderly end, and begin with its hooks.
        self.port.process.kill();
        // What lies there answers by itself.
        drop(self.desk.close());
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
        act.take_over();
        let mut turn = FRAMES_PER_TURN;
        // Each pass hears less than the turn has left, then sees to the time: a flood holds up no deadline.
        loop {
            act.hear(&mut turn, cx);
            act.flush(cx);
            let told = act.poll_host_calls(cx);
            // What this does may be to be written, and what is written may free the way for more.
            if !(act.poll_time(cx) | told) {
                break;
            }
            act.flush(cx);
            if turn == 0 {
                break;
            }
        }
        act.offer();
        if turn == 0 {
            // The other tasks of this thread come first, and its timers and sockets. Being dropped, it still wakes this task.
            let _ = pin!(tokio::task::yield_now()).poll(cx);
        }
        let Poll::Ready(exit) = act.port.process.poll_ended(cx) else { return Poll::Pending };
        // What it said before its end counts; a process that it has left behind may go on for ever.
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

    fn handle(&mut self, Run(dispatch): Run, _: &mut Context<Self>) {
        // A session ends after its calls, wherever they came from.
        self.withdraw();
        self.run(dispatch);
    }
}

impl Handler<Look> for Worker {
    type Result = ();

    fn handle(&mut self, Look: Look, _: &mut Context<Self>) {
        self.take_over();
    }
}

impl Handler<Credit> for Worker {
    type Result = ();

    fn handle(&mut self, Credit { stream, items }: Credit, _: &mut Context<Self>) {
        self.give_credit(stream, items);
    }
}

impl Handler<Grant> for Worker {
    type Result = ();

    fn handle(&mut self, Grant(lease): Grant, _: &mut Context<Self>) {
        self.lease = Some(lease);
    }
}

impl Handler<Checkin> for Worker {
    type Result = ();

    fn handle(&mut self, Checkin(lease): Checkin, _: &mut Context<Self>) {
        if self.lease == Some(lease) {
            self.withdraw();
            self.lease_over = true;
            self.next();
        }
    }
}

impl Handler<GetLoad> for Worker {
    type Result = Load;

    fn handle(&mut self, GetLoad: GetLoad, _: &mut Context<Self>) -> Load {
        self.take_over();
        match self.lease {
            Some(_) => Load::Lease,
            None => Load::Calls(self.assigned()),
        }
    }
}

impl Handler<BrokerDied> for Worker {
    type Result = ();

    fn handle(&mut self, BrokerDied: BrokerDied, _: &mut Context<Self>) {
        self.end("the pool's broker died".into());
    }
}
