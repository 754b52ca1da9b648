//! The Worker actor.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use actix::fut::{ActorFuture, ActorFutureExt, WrapFuture};
use actix::{
    Actor, ActorContext, AsyncContext, Context, Handler, Message, MessageResult, Recipient, Running,
};

use super::dispatch::Dispatch;
use crate::error::{CallError, Phase};
use crate::port::{CLOSED_GRACE, ChannelError, Exit, Port, Ready, Reply, call_frame, shutdown_frame};
use crate::supervisor::{ChildContext, ExitReason};
use crate::timer::Timer;

/// How often the memory of a worker that runs a call is looked at.
const MEMORY_INTERVAL: Duration = Duration::from_secs(1);

/// Names one lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeaseId(pub(crate) u64);

/// Run a call. Only an idle worker, or one whose lease the caller holds, gets it.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Run(pub(crate) Dispatch);

/// Serve this lease alone, until its [`Checkin`].
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Grant(pub(crate) LeaseId);

/// The lease is over; a call of it that still runs is awaited first.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Checkin(pub(crate) LeaseId);

/// Tell this pool from now on what happens here.
#[derive(Message)]
#[rtype(result = "Attached")]
pub(crate) struct Attach(pub(crate) Recipient<WorkerEvent>);

/// What a pool needs to know of a worker that it did not know before.
#[derive(Debug, Clone)]
pub(crate) struct Attached {
    pub(crate) incarnation: u64,
    pub(crate) pid: u32,
    pub(crate) ready: Ready,
    /// It serves a call or a lease that an earlier pool gave it.
    pub(crate) busy: bool,
}

/// What a worker tells its pool.
#[derive(Message, Debug, Clone, PartialEq, Eq)]
#[rtype(result = "()")]
pub(crate) enum WorkerEvent {
    /// The call or lease that it was given is over, and it can take another.
    Freed { slot: u32, incarnation: u64 },
    /// Its process has ended. Told before its callers are answered, so that none of them can be given this worker
    /// again; its supervisor reports the end of the actor later.
    Ended { slot: u32, incarnation: u64, reason: String },
}

/// Owns one port.
pub(crate) struct Worker {
    slot: u32,
    context: ChildContext,
    port: Port,
    pool: Option<Recipient<WorkerEvent>>,
    lease: Option<LeaseId>,
    /// The lease ended while one of its calls still ran.
    lease_over: bool,
    running: Option<Current>,
    /// Calls of the lease that wait for the one before them.
    waiting: VecDeque<Dispatch>,
    last_call_id: u64,
    timer: Timer,
    sample_memory_at: Option<Instant>,
    kill_at: Option<Instant>,
    /// Why it is about to end, when that is our doing.
    ending: Option<String>,
    /// Asked to stop: it finishes what runs, then tells Python to exit.
    stopping: bool,
    ended: bool,
}

struct Current {
    call_id: u64,
    dispatch: Dispatch,
}

impl Worker {
    pub(crate) fn new(slot: u32, port: Port, context: ChildContext) -> Self {
        Self {
            slot,
            context,
            port,
            pool: None,
            lease: None,
            lease_over: false,
            running: None,
            waiting: VecDeque::new(),
            last_call_id: 0,
            timer: Timer::new(),
            sample_memory_at: None,
            kill_at: None,
            ending: None,
            stopping: false,
            ended: false,
        }
    }

    fn run(&mut self, dispatch: Dispatch) {
        if self.running.is_some() || self.ending.is_some() {
            self.waiting.push_back(dispatch);
        } else if self.stopping {
            dispatch.answer(Err(CallError::Draining));
        } else {
            self.start(dispatch);
            self.next();
        }
    }

    /// Hands a call to Python, unless nobody waits for it any more.
    fn start(&mut self, mut dispatch: Dispatch) {
        let now = Instant::now();
        if dispatch.is_abandoned() {
            return;
        }
        if dispatch.deadline <= now {
            dispatch.answer(Err(CallError::Timeout { phase: Phase::Queue, stack: None, attempts: 0 }));
            return;
        }
        self.last_call_id += 1;
        let allowed = u32::try_from((dispatch.deadline - now).as_millis()).unwrap_or(u32::MAX).max(1);
        let frame = call_frame(self.last_call_id, allowed, dispatch.body.clone());
        match self.port.channel.send(&frame) {
            Ok(()) => dispatch.mark_started(),
            // It is answered when the process has ended, which then is near: that tells why.
            Err(error) => self.channel_failed(error),
        }
        self.running = Some(Current { call_id: self.last_call_id, dispatch });
        self.sample_memory_at.get_or_insert(now + MEMORY_INTERVAL);
    }

    /// After a call: the next one of the lease, the end of the lease, or of the worker.
    fn next(&mut self) {
        while self.running.is_none() && self.ending.is_none() {
            match self.waiting.pop_front() {
                Some(dispatch) => self.start(dispatch),
                None => break,
            }
        }
        if self.running.is_some() || self.ending.is_some() {
            return;
        }
        if self.stopping {
            self.tell_python_to_exit();
        } else if self.lease.is_none() || self.lease_over {
            self.lease = None;
            self.lease_over = false;
            self.tell(WorkerEvent::Freed { slot: self.slot, incarnation: self.context.incarnation() });
        }
    }

    fn tell(&self, event: WorkerEvent) {
        if let Some(pool) = &self.pool {
            pool.do_send(event);
        }
    }

    fn answered(&mut self, reply: Reply) {
        let (call_id, outcome) = match reply {
            Reply::Result { call_id, body } => (call_id, Ok(body)),
            Reply::Error { call_id, error } => (call_id, Err(error.into_call_error())),
            Reply::Ready(_) => return self.protocol_broken("it was ready already".into()),
        };
        match self.running.take_if(|running| running.call_id == call_id) {
            Some(running) => {
                running.dispatch.answer(outcome);
                self.next();
            }
            None => self.protocol_broken(format!("an answer to the unknown call {call_id}")),
        }
    }

    fn protocol_broken(&mut self, detail: String) {
        if let Some(running) = self.running.take() {
            running.dispatch.answer(Err(CallError::Protocol { detail: detail.clone() }));
        }
        self.end(format!("protocol error: {detail}"));
    }

    fn channel_failed(&mut self, error: ChannelError) {
        match error {
            ChannelError::Closed => {
                if self.ending.is_none() {
                    self.ending = Some("it closed its channel".into());
                    self.kill_at = Some(Instant::now() + CLOSED_GRACE);
                }
            }
            ChannelError::Frame(error) => self.protocol_broken(error.to_string()),
            ChannelError::Io(error) => self.protocol_broken(format!("its channel failed: {error}")),
        }
    }

    fn end(&mut self, why: String) {
        self.ending.get_or_insert(why);
        self.port.process.kill();
    }

    fn tell_python_to_exit(&mut self) {
        self.ending = Some("asked to".into());
        if self.port.channel.send(&shutdown_frame()).is_err() {
            self.port.process.kill();
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let running = self.running.as_ref().map(|running| running.dispatch.deadline);
        let waiting = self.waiting.iter().map(|dispatch| dispatch.deadline).min();
        [running, waiting, self.sample_memory_at, self.kill_at].into_iter().flatten().min()
    }

    fn on_time(&mut self, now: Instant) {
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            self.port.process.kill();
        }
        if self.sample_memory_at.is_some_and(|at| at <= now) {
            self.port.process.sample_memory();
            self.sample_memory_at = self.running.is_some().then_some(now + MEMORY_INTERVAL);
        }
        if let Some(running) = self.running.take_if(|running| running.dispatch.deadline <= now) {
            let started = running.dispatch.started();
            let phase = if started { Phase::Run } else { Phase::Queue };
            let attempts = u32::from(started);
            running.dispatch.answer(Err(CallError::Timeout { phase, stack: None, attempts }));
            self.end("a call passed its deadline".into());
        }
        for dispatch in std::mem::take(&mut self.waiting) {
            if dispatch.deadline <= now {
                dispatch.answer(Err(CallError::Timeout { phase: Phase::Queue, stack: None, attempts: 0 }));
            } else {
                self.waiting.push_back(dispatch);
            }
        }
    }

    /// The process has ended: answers whom it owes an answer.
    fn process_ended(&mut self, exit: Exit, stderr_tail: String) {
        let running = self.running.take().map(|running| running.dispatch);
        for dispatch in running.into_iter().chain(self.waiting.drain(..)) {
            let started = dispatch.started();
            dispatch.answer(Err(CallError::WorkerDied {
                started,
                exit: exit.code,
                signal: exit.signal,
                max_rss_bytes: exit.max_rss_bytes,
                stderr_tail: stderr_tail.clone(),
                attempts: u32::from(started),
            }));
        }
        self.ended = true;
        if !self.stopping {
            self.context.exit(ExitReason::Abnormal(self.reason(exit)));
        }
    }

    /// Why it ends, for the supervisor's report.
    fn reason(&self, exit: Exit) -> String {
        let how = match (exit.code, exit.signal) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "unknown exit".into(),
        };
        match &self.ending {
            Some(why) => format!("{how} ({why})"),
            None => how,
        }
    }
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.spawn(Drive);
    }

    fn stopping(&mut self, _: &mut Context<Self>) -> Running {
        if self.ended {
            return Running::Stop;
        }
        // Whoever asks twice in a hurry gets the same answer; the supervisor's own deadline ends a worker
        // that does not manage.
        if !std::mem::replace(&mut self.stopping, true) {
            for dispatch in self.waiting.drain(..) {
                dispatch.answer(Err(CallError::Draining));
            }
            if self.running.is_none() && self.ending.is_none() {
                self.tell_python_to_exit();
            }
        }
        Running::Continue
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
        // Of a worker that is about to end only its end is of interest.
        while act.ending.is_none() {
            match act.port.channel.poll_frame(cx) {
                Poll::Ready(Ok(frame)) => match Reply::from_frame(frame) {
                    Ok(reply) => act.answered(reply),
                    Err(error) => act.protocol_broken(error.to_string()),
                },
                Poll::Ready(Err(error)) => {
                    act.channel_failed(error);
                    break;
                }
                Poll::Pending => break,
            }
        }
        if let Poll::Ready(Err(error)) = act.port.channel.poll_flush(cx) {
            act.channel_failed(error);
        }
        while let Poll::Ready(now) = act.timer.poll(act.next_deadline(), cx) {
            act.on_time(now);
        }
        let Poll::Ready(exit) = act.port.process.poll_ended(cx) else { return Poll::Pending };
        let (slot, incarnation) = (act.slot, act.context.incarnation());
        act.tell(WorkerEvent::Ended { slot, incarnation, reason: act.reason(exit) });
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
        self.run(dispatch);
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
            self.lease_over = true;
            self.next();
        }
    }
}

impl Handler<Attach> for Worker {
    type Result = MessageResult<Attach>;

    fn handle(&mut self, Attach(pool): Attach, _: &mut Context<Self>) -> Self::Result {
        self.pool = Some(pool);
        MessageResult(Attached {
            incarnation: self.context.incarnation(),
            pid: self.port.process.pid(),
            ready: self.port.ready.clone(),
            busy: self.running.is_some() || self.lease.is_some(),
        })
    }
}
