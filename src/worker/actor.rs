//! The Worker actor.

use std::collections::{HashSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use actix::fut::{ActorFuture, ActorFutureExt, WrapFuture};
use actix::{Actor, ActorContext, AsyncContext, Context, Handler, MessageResult, Recipient, Running as Stay};

use super::dispatch::{Dispatch, StreamId, Work};
use super::host::{Ended, HostCalls, HostContext, HostFunctions, OnBehalf};
use super::in_flight::{Current, InFlight, Stream};
use super::messages::{Attach, Attached, Checkin, Credit, Grant, LeaseId, Load, RequestId, Run, WorkerEvent};
use super::running::{Running, Step};
use crate::error::{CallError, HostCallCause, Phase};
use crate::port::{
    Attachment, Body, CANCEL_SIGNAL, CLOSED_GRACE, ChannelError, Exit, FrameError, HostRequest, LogRecord,
    Port, Reply, STACK_SIGNAL, WorkerError, call_frame, cancel_frame, credit_frame, host_result_frame,
    session_end_frame, shutdown_frame, stack_frame,
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
    lease: Option<LeaseId>,
    /// The lease ended while one of its calls still ran.
    lease_over: bool,
    /// What Python has.
    calls: InFlight,
    host_functions: HostFunctions,
    host_calls: HostCalls,
    /// Calls of the lease that wait for a place, and ends of sessions that wait for their calls.
    waiting: VecDeque<Dispatch>,
    /// Those that have state here.
    sessions: HashSet<Arc<str>>,
    last_call_id: u64,
    timer: Timer,
    sample_memory_at: Option<Instant>,
    kill_at: Option<Instant>,
    /// A call did not give up: the others are awaited, none is taken any more.
    leaving: Option<Leaving>,
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
    pub(crate) fn new(slot: u32, name: &str, port: Port, settings: Settings, context: ChildContext) -> Self {
        let Settings { in_flight, cancel_grace, host_functions } = settings;
        Self {
            slot,
            name: name.into(),
            context,
            port,
            cancel_grace,
            pool: None,
            lease: None,
            lease_over: false,
            calls: InFlight::new(in_flight),
            host_functions,
            host_calls: HostCalls::default(),
            waiting: VecDeque::new(),
            sessions: HashSet::new(),
            last_call_id: 0,
            timer: Timer::new(),
            sample_memory_at: None,
            kill_at: None,
            leaving: None,
            ending: None,
            stopping: false,
            exiting: false,
            stop_failure: None,
            ended: false,
        }
    }

    fn run(&mut self, dispatch: Dispatch) {
        if self.stopping {
            self.refuse(dispatch, CallError::Draining);
        } else if !self.takes_calls() || !self.waiting.is_empty() || !self.calls.takes(&dispatch.work) {
            self.waiting.push_back(dispatch);
        } else {
            self.start(dispatch);
            self.next();
        }
    }

    /// Whether Python is given more to do.
    fn takes_calls(&self) -> bool {
        self.ending.is_none() && self.leaving.is_none()
    }

    /// Answers a call that Python does not get.
    fn refuse(&self, dispatch: Dispatch, error: CallError) {
        if let Some(request) = dispatch.assigned {
            self.tell_freed(request, false);
        }
        dispatch.fail(error);
    }

    /// Hands a call to Python, unless nobody waits for it any more.
    fn start(&mut self, mut dispatch: Dispatch) {
        let now = Instant::now();
        let timeout = CallError::Timeout { phase: Phase::Queue, stack: None, attempts: 0 };
        if dispatch.is_abandoned() || dispatch.deadline <= now {
            return self.refuse(dispatch, timeout);
        }
        self.last_call_id += 1;
        let call_id = self.last_call_id;
        if let Work::EndSession { timeout, .. } = dispatch.work {
            dispatch.deadline = deadline(now, timeout);
        }
        let allowed = u32::try_from((dispatch.deadline - now).as_millis()).unwrap_or(u32::MAX).max(1);
        let (mut opened, mut of_session, mut nested) = (None, None, 0);
        let frame = match &dispatch.work {
            Work::Call { body, session, stream, depth } => {
                nested = *depth;
                opened = stream.map(|(id, credit)| Stream { id, credit });
                if let Some(session) = session {
                    of_session = Some(session.clone());
                    if !self.sessions.contains(session) {
                        self.sessions.insert(session.clone());
                    }
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
            // Its memfds did not find their way, and within the frame they are too much.
            Err(ChannelError::Frame(FrameError::TooLarge { size, limit })) => {
                return self.refuse(dispatch, CallError::FrameTooLarge { size, limit: limit.into() });
            }
            // It is answered when the process has ended, which then is near: that tells why.
            Err(error) => self.channel_failed(error),
        }
        self.calls.push(Current {
            call_id,
            call: Running::new(dispatch.deadline, self.cancel_grace),
            assigned: dispatch.assigned,
            dispatch: Some(dispatch),
            session: of_session,
            stream: opened,
            depth: nested,
            host_calls: OnBehalf::default(),
            stack: None,
        });
        self.sample_memory_at.get_or_insert(now + MEMORY_INTERVAL);
    }

    /// After a call: the next ones that wait, the end of the lease, or of the worker.
    fn next(&mut self) {
        while self.takes_calls()
            && let Some(at) = self.next_waiting()
            && let Some(dispatch) = self.waiting.remove(at)
        {
            self.start(dispatch);
        }
        if self.leaving.is_some() && self.calls.is_hopeless() {
            self.leave();
        }
        if !self.calls.is_empty() || self.ending.is_some() {
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
    fn assigned(&self) -> u32 {
        let running = self.calls.iter().filter(|current| current.assigned.is_some()).count();
        let waiting = self.waiting.iter().filter(|dispatch| dispatch.assigned.is_some()).count();
        u32::try_from(running + waiting).unwrap_or(u32::MAX)
    }

    fn tell_freed(&self, request: RequestId, began: bool) {
        let (slot, incarnation) = (self.slot, self.context.incarnation());
        self.tell(WorkerEvent::Freed { slot, incarnation, request, began });
    }

    fn tell_leaving(&self) {
        self.tell(WorkerEvent::Leaving { slot: self.slot, incarnation: self.context.incarnation() });
    }

    fn tell(&self, event: WorkerEvent) {
        if let Some(pool) = &self.pool {
            pool.do_send(event);
        }
    }

    fn told(&mut self, reply: Reply) {
        match reply {
            Reply::Result { call_id, body } => match self.take(call_id, false) {
                Some(current) => self.answered(current, Ok(body)),
                None => self.protocol_broken(format!("a result of the unknown call {call_id}")),
            },
            Reply::End { call_id } => match self.take(call_id, true) {
                Some(current) => self.answered(current, Ok(Body::default())),
                None => self.protocol_broken(format!("the end of the unknown stream {call_id}")),
            },
            Reply::Error { call_id: 0, error } => self.failed_as_a_whole(error),
            Reply::Error { call_id, error } => match self.calls.take(call_id) {
                Some(current) => self.answered(current, Err(error.into_call_error())),
                None => self.protocol_broken(format!("an error of the unknown call {call_id}")),
            },
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
                    self.stack_came(call_id);
                }
            }
            Reply::HostCall { id, request, attachments } => self.host_call(id, request, attachments),
            Reply::HostCancel { id } => self.calls.iter().for_each(|current| current.host_calls.abort(id)),
            Reply::Log { level, record } => self.log(level, &record),
            Reply::Ready(_) => self.protocol_broken("it was ready already".into()),
        }
    }

    fn take(&mut self, call_id: u64, is_stream: bool) -> Option<Current> {
        let current = self.calls.get(call_id)?;
        if current.stream.is_some() != is_stream {
            return None;
        }
        self.calls.take(call_id)
    }

    /// The call of a frame that may come late, from a thread of the user's: one that is over is nobody's.
    fn known(&mut self, call_id: u64) -> Option<&mut Current> {
        if call_id > self.last_call_id {
            self.protocol_broken(format!("news of the unknown call {call_id}"));
        }
        self.calls.get(call_id)
    }

    fn answered(&mut self, current: Current, outcome: Result<Body, CallError>) {
        // The pool knows that the worker is free before the caller can ask for it again: a session's next call would
        // find its own worker busy.
        if let Some(request) = current.assigned {
            self.tell_freed(request, true);
        }
        self.next();
        if let Some(dispatch) = current.dispatch {
            match outcome {
                Ok(body) => dispatch.succeed(body, &self.name),
                Err(error) => dispatch.fail(error),
            }
        }
    }

    fn item(&mut self, call_id: u64, body: Body) {
        let Some(Current { stream: Some(stream), dispatch, .. }) = self.calls.get(call_id) else {
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

    /// Python calls us, on behalf of one of its calls.
    fn host_call(&mut self, id: u64, request: HostRequest, attachments: Vec<Attachment>) {
        match self.calls.get(request.3.call) {
            Some(current) if current.dispatch.is_some() => {
                let deadline = current.call.deadline();
                let (worker, depth) = (self.name.clone(), current.depth + 1);
                let context = HostContext { worker, depth, deadline, attachments };
                self.host_calls.begin(&self.host_functions, id, request, context, &mut current.host_calls);
            }
            // Nobody waits for it any more.
            _ => self.host_calls.refuse(id, request.0, HostCallCause::Cancelled, "its call is over"),
        }
    }

    fn tell_host_result(&mut self, id: u64, body: Body, failed: bool) {
        if self.ending.is_some() {
            return;
        }
        match self.port.channel.send(&host_result_frame(id, body, failed)) {
            Ok(()) => {}
            // Its memfds did not find their way, and within the frame they are too much.
            Err(ChannelError::Frame(error @ FrameError::TooLarge { .. })) => {
                self.host_calls.refuse(id, "call_host".into(), HostCallCause::Failed, &error.to_string());
            }
            Err(error) => self.channel_failed(error),
        }
    }

    /// A record of Python's `logging`.
    fn log(&self, level: u32, record: &LogRecord) {
        let level = match level {
            40.. => log::Level::Error,
            30.. => log::Level::Warn,
            20.. => log::Level::Info,
            10.. => log::Level::Debug,
            _ => log::Level::Trace,
        };
        let LogRecord { logger, message, request_id } = record;
        let target = format!("hatchery::python::{}", self.name);
        match request_id {
            Some(id) => log::log!(target: &target, level, "{logger}: {message} [request {id}]"),
            None => log::log!(target: &target, level, "{logger}: {message}"),
        }
    }

    fn give_credit(&mut self, id: StreamId, items: u32) {
        let Some(Current { call_id, stream: Some(stream), .. }) = self.calls.by_stream(id) else { return };
        stream.credit = stream.credit.saturating_add(items);
        let frame = credit_frame(*call_id, items);
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
        for current in self.calls.drain() {
            if let Some(dispatch) = current.dispatch {
                dispatch.fail(CallError::Protocol { detail: detail.clone() });
            }
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
        let waiting = self.waiting.iter().map(|dispatch| dispatch.deadline).min();
        let leave_at = self.leaving.as_ref().and_then(|leaving| leaving.at);
        [self.calls.next_deadline(), waiting, self.sample_memory_at, self.kill_at, leave_at]
            .into_iter()
            .flatten()
            .min()
    }

    fn on_time(&mut self, now: Instant) {
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            self.port.process.kill();
        }
        if self.leaving.as_ref().and_then(|leaving| leaving.at).is_some_and(|at| at <= now) {
            self.leave();
        }
        if self.sample_memory_at.is_some_and(|at| at <= now) {
            self.port.process.sample_memory();
            self.sample_memory_at = (!self.calls.is_empty()).then_some(now + MEMORY_INTERVAL);
        }
        while let Some((call_id, step)) = self.calls.tick(now) {
            self.take_step(call_id, step);
        }
        for dispatch in std::mem::take(&mut self.waiting) {
            if dispatch.deadline <= now {
                self.refuse(dispatch, CallError::Timeout { phase: Phase::Queue, stack: None, attempts: 0 });
            } else {
                self.waiting.push_back(dispatch);
            }
        }
    }

    fn take_step(&mut self, call_id: u64, step: Step) {
        match step {
            Step::AskForStack => {
                // One that has not begun, or of a worker that is about to end, has none.
                if self.ending.is_some() || !self.has_begun(call_id) {
                    return self.stack_came(call_id);
                }
                if !self.calls.iter().any(|other| other.call_id != call_id && other.call.awaits_stack()) {
                    self.port.stacks.clear();
                }
                self.send(&stack_frame(call_id));
                self.port.process.signal(STACK_SIGNAL);
            }
            Step::TimeOut => {
                let begun = self.has_begun(call_id);
                let Some(current) = self.calls.get(call_id) else { return };
                if let Some(dispatch) = current.dispatch.take() {
                    let started = dispatch.started() && begun;
                    dispatch.fail(CallError::Timeout {
                        phase: if started { Phase::Run } else { Phase::Queue },
                        stack: current.stack.take().filter(|stack| !stack.is_empty()),
                        attempts: u32::from(started),
                    });
                }
                self.cancel(call_id);
            }
            Step::Cancel => self.cancel(call_id),
            Step::SignalAgain => self.signal(),
            Step::Kill => self.gave_up(),
        }
    }

    /// Whether user code of this call may have run.
    fn has_begun(&self, call_id: u64) -> bool {
        self.port.begun().is_none_or(|begun| call_id <= begun.last)
    }

    fn stack_came(&mut self, call_id: u64) {
        let Some(current) = self.calls.get(call_id) else { return };
        if let Some(step) = current.call.stack_came(Instant::now()) {
            self.take_step(call_id, step);
        }
    }

    /// A call has not given up within its grace. The worker must go; its other calls get as long to end.
    fn gave_up(&mut self) {
        if self.leaving.is_none() {
            let why = "a call did not give up in time".to_owned();
            let at = Some(Instant::now() + self.cancel_grace);
            self.leaving = Some(Leaving { why, at });
            self.tell_leaving();
        }
        if self.calls.is_hopeless() {
            self.leave();
        }
    }

    /// Nothing is left to wait for.
    fn leave(&mut self) {
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

    /// Looks after callers that leave, and stacks that are awaited.
    fn poll_calls(&mut self, cx: &mut TaskContext<'_>) {
        while let Some((call_id, step)) = self.calls.poll_left(cx, Instant::now) {
            self.take_step(call_id, step);
        }
        while self.calls.awaits_stack()
            && let Poll::Ready(stack) = self.port.stacks.poll_stack(cx)
        {
            // It is the main thread's; of which call, only the worker knows when it has several. It does not know of an
            // async one that blocks the event loop: that is the one there is, if there is but one.
            let of_the_loop = !stack.is_waiting && self.calls.is_single();
            let on_main = self.port.begun().map(|begun| begun.on_main);
            let on_main = on_main.filter(|id| *id != 0 || !of_the_loop);
            let awaiting: Vec<u64> = self
                .calls
                .iter()
                .filter(|current| {
                    current.call.awaits_stack() && on_main.is_none_or(|id| id == current.call_id)
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
    }

    /// The process has ended: answers whom it owes an answer.
    fn process_ended(&mut self, exit: Exit, stderr_tail: String) {
        let begun = self.port.begun();
        let running = self.calls.drain().filter_map(|current| Some((current.call_id, current.dispatch?)));
        let waiting = self.waiting.drain(..).map(|dispatch| (u64::MAX, dispatch));
        for (call_id, dispatch) in running.chain(waiting) {
            let started = dispatch.started() && begun.is_none_or(|begun| call_id <= begun.last);
            dispatch.fail(CallError::WorkerDied {
                started,
                exit: exit.code,
                signal: exit.signal,
                max_rss_bytes: exit.max_rss_bytes,
                stderr_tail: stderr_tail.clone(),
                reason: self.ending.clone(),
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
            for dispatch in std::mem::take(&mut self.waiting) {
                self.refuse(dispatch, CallError::Draining);
            }
            if self.calls.is_empty() && self.ending.is_none() {
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
            act.poll_calls(cx);
            while let Poll::Ready(Ended { id, body, failed }) = act.host_calls.poll_ended(cx) {
                act.tell_host_result(id, body, failed);
            }
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

    fn handle(&mut self, Run(dispatch): Run, _: &mut Context<Self>) {
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
        if self.leaving.is_some() {
            self.tell_leaving();
        }
        MessageResult(Attached {
            incarnation: self.context.incarnation(),
            pid: self.port.process.pid(),
            ready: self.port.ready.clone(),
            forked: self.port.forked,
            load: match self.lease {
                Some(_) => Load::Lease,
                None => Load::Calls(self.assigned()),
            },
            sessions: self.sessions.iter().cloned().collect(),
        })
    }
}
