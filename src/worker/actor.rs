//! The Worker actor.

use std::collections::{HashSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use actix::fut::{ActorFuture, ActorFutureExt, WrapFuture};
use actix::{Actor, ActorContext, AsyncContext, Context, Handler, MessageResult, Recipient, Running as Stay};

use super::dispatch::{Dispatch, StreamId, Work};
use super::messages::{Attach, Attached, Checkin, Credit, Grant, LeaseId, Run, WorkerEvent};
use super::running::{Running, Step};
use crate::error::{CallError, Phase};
use crate::port::{
    CANCEL_SIGNAL, CLOSED_GRACE, ChannelError, Exit, Port, Reply, STACK_SIGNAL, WorkerError, call_frame,
    cancel_frame, credit_frame, session_end_frame, shutdown_frame, stack_frame,
};
use crate::supervisor::{ChildContext, ExitReason};
use crate::timer::{Timer, deadline};

/// How often the memory of a worker that runs a call is looked at.
const MEMORY_INTERVAL: Duration = Duration::from_secs(1);

/// Owns one port.
pub(crate) struct Worker {
    slot: u32,
    name: Arc<str>,
    context: ChildContext,
    port: Port,
    /// How long Python may take to give up a call.
    cancel_grace: Duration,
    pool: Option<Recipient<WorkerEvent>>,
    /// The pool has given it a call, and waits to hear that it is free.
    assigned: bool,
    lease: Option<LeaseId>,
    /// The lease ended while one of its calls still ran.
    lease_over: bool,
    current: Option<Current>,
    /// Calls of the lease, and ends of sessions, that wait for what runs.
    waiting: VecDeque<Dispatch>,
    /// Those that have state here.
    sessions: HashSet<Arc<str>>,
    last_call_id: u64,
    timer: Timer,
    sample_memory_at: Option<Instant>,
    kill_at: Option<Instant>,
    /// Why it is about to end, when that is our doing.
    ending: Option<String>,
    /// Asked to stop: it finishes what runs, then tells Python to exit.
    stopping: bool,
    /// Python has been told to exit.
    exiting: bool,
    /// What a stop hook raised.
    stop_failure: Option<String>,
    ended: bool,
}

/// What Python is doing.
struct Current {
    call_id: u64,
    call: Running,
    /// `None` when the caller has its answer, or has gone, and only Python's end of it is awaited.
    dispatch: Option<Dispatch>,
    stream: Option<Stream>,
    /// What Python was doing at the deadline, as far as it is known.
    stack: Option<String>,
}

struct Stream {
    id: StreamId,
    /// How many items Python may still send.
    credit: u32,
}

impl Worker {
    pub(crate) fn new(
        slot: u32,
        name: &str,
        port: Port,
        cancel_grace: Duration,
        context: ChildContext,
    ) -> Self {
        Self {
            slot,
            name: name.into(),
            context,
            port,
            cancel_grace,
            pool: None,
            assigned: false,
            lease: None,
            lease_over: false,
            current: None,
            waiting: VecDeque::new(),
            sessions: HashSet::new(),
            last_call_id: 0,
            timer: Timer::new(),
            sample_memory_at: None,
            kill_at: None,
            ending: None,
            stopping: false,
            exiting: false,
            stop_failure: None,
            ended: false,
        }
    }

    fn run(&mut self, dispatch: Dispatch) {
        if self.stopping {
            dispatch.fail(CallError::Draining);
        } else if self.current.is_some() || self.ending.is_some() {
            self.waiting.push_back(dispatch);
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
            return dispatch.fail(CallError::Timeout { phase: Phase::Queue, stack: None, attempts: 0 });
        }
        self.last_call_id += 1;
        let call_id = self.last_call_id;
        if let Work::EndSession { timeout, .. } = dispatch.work {
            dispatch.deadline = deadline(now, timeout);
        }
        let allowed = u32::try_from((dispatch.deadline - now).as_millis()).unwrap_or(u32::MAX).max(1);
        let mut credit = None;
        let frame = match &dispatch.work {
            Work::Call { body, session, stream } => {
                credit = stream.map(|(id, credit)| Stream { id, credit });
                if let Some(session) = session
                    && !self.sessions.contains(session)
                {
                    self.sessions.insert(session.clone());
                }
                call_frame(call_id, allowed, body.clone())
            }
            Work::EndSession { session, cause, .. } => {
                self.sessions.remove(session);
                session_end_frame(call_id, allowed, session, cause)
            }
        };
        match self.port.channel.send(&frame) {
            Ok(()) => dispatch.mark_started(),
            // It is answered when the process has ended, which then is near: that tells why.
            Err(error) => self.channel_failed(error),
        }
        let call = Running::new(dispatch.deadline, self.cancel_grace);
        self.current = Some(Current { call_id, call, dispatch: Some(dispatch), stream: credit, stack: None });
        self.sample_memory_at.get_or_insert(now + MEMORY_INTERVAL);
    }

    /// After a call: the next one that waits, the end of the lease, or of the worker.
    fn next(&mut self) {
        while self.current.is_none() && self.ending.is_none() {
            match self.waiting.pop_front() {
                Some(dispatch) => self.start(dispatch),
                None => break,
            }
        }
        if self.current.is_some() || self.ending.is_some() {
            return;
        }
        if self.stopping {
            self.tell_python_to_exit();
        } else if self.assigned || self.lease_over {
            self.assigned = false;
            self.lease_over = false;
            self.lease = None;
            self.tell(WorkerEvent::Freed { slot: self.slot, incarnation: self.context.incarnation() });
        }
    }

    fn tell(&self, event: WorkerEvent) {
        if let Some(pool) = &self.pool {
            pool.do_send(event);
        }
    }

    fn told(&mut self, reply: Reply) {
        match reply {
            Reply::Result { call_id, body } => match self.take_current(call_id, false) {
                Some(current) => self.answered(current, Ok(body)),
                None => self.protocol_broken(format!("a result of the unknown call {call_id}")),
            },
            Reply::End { call_id } => match self.take_current(call_id, true) {
                Some(current) => self.answered(current, Ok(bytes::Bytes::new())),
                None => self.protocol_broken(format!("the end of the unknown stream {call_id}")),
            },
            Reply::Error { call_id: 0, error } => self.failed_as_a_whole(error),
            Reply::Error { call_id, error } => {
                match self.current.take_if(|current| current.call_id == call_id) {
                    Some(current) => self.answered(current, Err(error.into_call_error())),
                    None => self.protocol_broken(format!("an error of the unknown call {call_id}")),
                }
            }
            Reply::Chunk { call_id, body } => self.item(call_id, body),
            Reply::Progress { call_id, body } => {
                if let Some(current) = self.known(call_id)
                    && let Some(dispatch) = &current.dispatch
                {
                    dispatch.progress(body);
                }
            }
            Reply::Stack { call_id, text } => {
                if let Some(current) = self.known(call_id)
                    && current.call.awaits_stack()
                {
                    current.stack = Some(text);
                    let step = current.call.stack_came(Instant::now());
                    self.take_step(step);
                }
            }
            Reply::Ready(_) => self.protocol_broken("it was ready already".into()),
        }
    }

    fn take_current(&mut self, call_id: u64, is_stream: bool) -> Option<Current> {
        self.current.take_if(|current| current.call_id == call_id && current.stream.is_some() == is_stream)
    }

    /// The call of a frame that may come late, from a thread of the user's: one that is over is nobody's.
    fn known(&mut self, call_id: u64) -> Option<&mut Current> {
        if call_id > self.last_call_id {
            self.protocol_broken(format!("news of the unknown call {call_id}"));
        }
        self.current.as_mut().filter(|current| current.call_id == call_id)
    }

    fn answered(&mut self, current: Current, outcome: Result<bytes::Bytes, CallError>) {
        // The pool knows that the worker is free before the caller can ask for it again: a session's next call would
        // find its own worker busy.
        self.next();
        if let Some(dispatch) = current.dispatch {
            match outcome {
                Ok(body) => dispatch.succeed(body, &self.name),
                Err(error) => dispatch.fail(error),
            }
        }
    }

    fn item(&mut self, call_id: u64, body: bytes::Bytes) {
        let Some(Current { stream: Some(stream), dispatch, .. }) =
            self.current.as_mut().filter(|current| current.call_id == call_id)
        else {
            return self.protocol_broken(format!("an item of the unknown stream {call_id}"));
        };
        let Some(left) = stream.credit.checked_sub(1) else {
            return self.protocol_broken("more items than it may send".into());
        };
        stream.credit = left;
        if let Some(dispatch) = dispatch {
            dispatch.item(body);
        }
    }

    fn give_credit(&mut self, id: StreamId, items: u32) {
        let Some(current) = &mut self.current else { return };
        let Some(stream) = current.stream.as_mut().filter(|stream| stream.id == id) else { return };
        stream.credit = stream.credit.saturating_add(items);
        let frame = credit_frame(current.call_id, items);
        self.send(&frame);
    }

    /// An error that is no call's.
    fn failed_as_a_whole(&mut self, error: WorkerError) {
        match error {
            WorkerError::Stop { type_name, message, traceback } if self.exiting => {
                log::error!(target: "hatchery::worker", "{}: an on_stop hook failed: {traceback}", self.name);
                self.stop_failure = Some(format!("an on_stop hook failed: {type_name}: {message}"));
            }
            other => self.protocol_broken(other.into_call_error().to_string()),
        }
    }

    fn protocol_broken(&mut self, detail: String) {
        if let Some(dispatch) = self.current.take().and_then(|current| current.dispatch) {
            dispatch.fail(CallError::Protocol { detail: detail.clone() });
        }
        self.end(format!("protocol error: {detail}"));
    }

    fn send(&mut self, frame: &crate::port::Frame) {
        if self.ending.is_none()
            && let Err(error) = self.port.channel.send(frame)
        {
            self.channel_failed(error);
        }
    }

    fn channel_failed(&mut self, error: ChannelError) {
        match error {
            ChannelError::Closed => {
                if self.ending.is_none() {
                    let why = if self.exiting { "asked to" } else { "it closed its channel" };
                    self.ending = Some(why.into());
                    if !self.exiting {
                        self.kill_at = Some(Instant::now() + CLOSED_GRACE);
                    }
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
        self.exiting = true;
        if self.port.channel.send(&shutdown_frame()).is_err() {
            self.end("asked to".into());
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let current = self.current.as_ref().and_then(|current| current.call.next_deadline());
        let waiting = self.waiting.iter().map(|dispatch| dispatch.deadline).min();
        [current, waiting, self.sample_memory_at, self.kill_at].into_iter().flatten().min()
    }

    fn on_time(&mut self, now: Instant) {
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            self.port.process.kill();
        }
        if self.sample_memory_at.is_some_and(|at| at <= now) {
            self.port.process.sample_memory();
            self.sample_memory_at = self.current.is_some().then_some(now + MEMORY_INTERVAL);
        }
        let step = self.current.as_mut().and_then(|current| current.call.tick(now));
        self.take_step(step);
        for dispatch in std::mem::take(&mut self.waiting) {
            if dispatch.deadline <= now {
                dispatch.fail(CallError::Timeout { phase: Phase::Queue, stack: None, attempts: 0 });
            } else {
                self.waiting.push_back(dispatch);
            }
        }
    }

    fn take_step(&mut self, step: Option<Step>) {
        let (Some(step), Some(current)) = (step, &mut self.current) else { return };
        let call_id = current.call_id;
        match step {
            Step::AskForStack if self.ending.is_some() => {
                // It can say nothing any more.
                let step = current.call.stack_came(Instant::now());
                self.take_step(step);
            }
            Step::AskForStack => {
                self.port.stacks.clear();
                self.send(&stack_frame(call_id));
                self.port.process.signal(STACK_SIGNAL);
            }
            Step::TimeOut => {
                if let Some(dispatch) = current.dispatch.take() {
                    let started = dispatch.started();
                    dispatch.fail(CallError::Timeout {
                        phase: if started { Phase::Run } else { Phase::Queue },
                        stack: current.stack.take().filter(|stack| !stack.is_empty()),
                        attempts: u32::from(started),
                    });
                }
                self.cancel(call_id);
            }
            Step::Cancel => {
                current.dispatch = None;
                self.cancel(call_id);
            }
            Step::SignalAgain => self.signal(),
            Step::Kill => self.end("a call did not give up in time".into()),
        }
    }

    fn cancel(&mut self, call_id: u64) {
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

    /// Looks after a caller that leaves, and a stack that is awaited.
    fn poll_current(&mut self, cx: &mut TaskContext<'_>) {
        let Some(current) = &mut self.current else { return };
        if let Some(dispatch) = &mut current.dispatch
            && dispatch.poll_abandoned(cx).is_ready()
        {
            let step = current.call.caller_left(Instant::now());
            return self.take_step(step);
        }
        if current.call.awaits_stack()
            && let Poll::Ready(stack) = self.port.stacks.poll_stack(cx)
        {
            current.stack = Some(stack.text);
            // Of an event loop that waits, the frame will say more.
            if !stack.is_waiting {
                let step = current.call.stack_came(Instant::now());
                self.take_step(step);
            }
        }
    }

    /// The process has ended: answers whom it owes an answer.
    fn process_ended(&mut self, exit: Exit, stderr_tail: String) {
        let current = self.current.take().and_then(|current| current.dispatch);
        for dispatch in current.into_iter().chain(self.waiting.drain(..)) {
            let started = dispatch.started();
            dispatch.fail(CallError::WorkerDied {
                started,
                exit: exit.code,
                signal: exit.signal,
                max_rss_bytes: exit.max_rss_bytes,
                stderr_tail: stderr_tail.clone(),
                attempts: u32::from(started),
            });
        }
        self.ended = true;
        if let Some(failure) = self.stop_failure.take() {
            self.context.exit(ExitReason::Abnormal(failure));
        } else if !self.stopping {
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
            None if self.exiting => format!("{how} (asked to)"),
            None => how,
        }
    }
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.spawn(Drive);
    }

    fn stopping(&mut self, _: &mut Context<Self>) -> Stay {
        if self.ended {
            return Stay::Stop;
        }
        // Whoever asks twice in a hurry gets the same answer; the supervisor's own deadline ends a worker
        // that does not manage.
        if !std::mem::replace(&mut self.stopping, true) {
            for dispatch in self.waiting.drain(..) {
                dispatch.fail(CallError::Draining);
            }
            if self.current.is_none() && self.ending.is_none() {
                self.tell_python_to_exit();
            }
        }
        Stay::Continue
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
        loop {
            // Of a worker that is about to end only its end is of interest.
            while act.ending.is_none() {
                match act.port.channel.poll_frame(cx) {
                    Poll::Ready(Ok(frame)) => match Reply::from_frame(frame) {
                        Ok(reply) => act.told(reply),
                        Err(error) => act.protocol_broken(error.to_string()),
                    },
                    Poll::Ready(Err(error)) => act.channel_failed(error),
                    Poll::Pending => break,
                }
            }
            act.poll_current(cx);
            if let Poll::Ready(Err(error)) = act.port.channel.poll_flush(cx) {
                act.channel_failed(error);
            }
            // What is due may send frames and await others.
            let Poll::Ready(now) = act.timer.poll(act.next_deadline(), cx) else { break };
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

    fn handle(&mut self, Run { dispatch, assigned }: Run, _: &mut Context<Self>) {
        self.assigned |= assigned;
        self.run(dispatch);
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
            forked: self.port.forked,
            busy: self.assigned || self.lease.is_some(),
            leased: self.lease.is_some(),
            sessions: self.sessions.iter().cloned().collect(),
        })
    }
}
