//! The broker: a thin shell around [`Core`](super::core::Core).

use std::error::Error;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use actix::fut::{ActorFuture, WrapFuture};
use actix::{
    Actor, ActorFutureExt as _, Addr, AsyncContext, Context, Handler, MessageResult, ResponseFuture, Running,
    StreamHandler,
};
use tokio::sync::oneshot;

use super::answer::Answer;
use super::children::{self, child_id, slot_of, start_error};
use super::core::{self, Command, Core, Event, Rejection, RequestId, SessionEnd, SlotState, WorkerId};
use super::declared::Declaration;
use super::handle::Inner;
use super::inbox::{Collect, Inbox, Submitted};
use super::lease::{Lease, LeaseToken};
use super::messages::{Abandon, Call, Checkout, EndSession, GetStatus, Item, TellStartup};
use super::reload;
use super::request::fitting;
use super::status::{PoolStatus, PythonInfo, WorkerState, WorkerStatus};
use super::stream::Opened;
use crate::error::{CallError, Phase, UnavailableCause, WorkerStartError};
use crate::port::CallOptions;
use crate::supervisor::{
    Backoff, ChildContext, ChildError, ChildSpec, Report, ReportEvent, Reports, Shutdown, SupervisorRef,
};
use crate::timer::{LONGEST, Timer, deadline};
use crate::worker::{
    self, Attach, Attached, Desk, Dispatch, Grant, LeaseId, Order, Placement, Reply, ReplyTo, Run, Spawner,
    Work, Worker, WorkerEvent,
};

/// What a pool is made of, checked.
#[derive(Clone)]
pub(super) struct Config {
    pub(super) name: String,
    pub(super) core: core::Config,
    pub(super) max_frame_bytes: u32,
    pub(super) spawner: Spawner,
    pub(super) call_timeout: Duration,
    pub(super) checkout_timeout: Duration,
    pub(super) shutdown_timeout: Duration,
    pub(super) worker: worker::Settings,
    /// What the module's functions must be like.
    pub(super) declared: Arc<[Declaration]>,
    pub(super) hook_timeout: Duration,
    /// What the handles submit.
    pub(super) inbox: Arc<Inbox>,
    /// The handles' side, which a lease keeps alive; there once the start has succeeded.
    pub(super) handle: Arc<OnceLock<Weak<Inner>>>,
}

/// Why a worker could not start.
#[derive(Debug, Clone, thiserror::Error)]
#[error("worker {worker}: {cause}")]
#[non_exhaustive]
pub struct StartupFailure {
    /// The worker's name.
    pub worker: String,
    /// Why.
    pub cause: Arc<WorkerStartError>,
}

/// The broker's place in the pool's tree.
pub(super) fn child_spec(config: Config) -> ChildSpec {
    let begun = Arc::new(AtomicBool::new(false));
    ChildSpec::with_context("pool", move |context| {
        let (config, begun) = (config.clone(), begun.clone());
        async move { PoolActor::new(config, &begun, context).await }
    })
}

/// The pool's broker: gives requests to ready workers, first come, first served.
///
/// It is reached by [`Pool::actor`](super::Pool::actor) and takes [`Call`], [`Checkout`] and [`GetStatus`].
pub struct PoolActor {
    pub(super) config: Config,
    core: Core<Item, StartupFailure>,
    commands: Vec<Command<Item, StartupFailure>>,
    /// Empty, for its memory.
    submitted: Vec<Submitted>,
    pub(super) workers: SupervisorRef,
    reports: Option<Reports>,
    pub(super) slots: Vec<Slot>,
    pub(super) reload: Option<reload::Running>,
    startup: Startup,
    timer: Timer,
}

/// What the broker knows of a slot beyond the core.
pub(super) struct Slot {
    name: Arc<str>,
    /// How often its worker was replaced by a reload: each replacement is another child in the tree.
    pub(super) generation: u32,
    /// The worker that the core knows to live.
    pub(super) current: Option<Current>,
    restarts: u64,
    pub(super) last_exit: Option<String>,
}

pub(super) struct Current {
    pub(super) worker: WorkerId,
    pub(super) addr: Addr<Worker>,
    desk: Arc<Desk>,
    pid: u32,
    forked: bool,
    python: Arc<PythonInfo>,
}

/// The end of the start-up, or who waits for it.
enum Startup {
    Awaited(Vec<oneshot::Sender<Result<(), StartupFailure>>>),
    Ended(Result<(), StartupFailure>),
}

impl PoolActor {
    async fn new(
        config: Config,
        begun: &AtomicBool,
        context: ChildContext,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let workers = context.parent().supervisor("workers")?;
        // In this order none is missed; one that is told twice does no harm.
        let reports = workers.subscribe();
        let children = workers.which_children().await?;
        let existing = children::existing(&workers, &children);
        let slots_there: Vec<u32> = existing.keys().copied().collect();
        let now = Instant::now();
        let mut commands = Vec::new();
        let (core, startup) = if begun.swap(true, Ordering::Relaxed) {
            (Core::rebuilt(now, config.core, &slots_there, &mut commands), Startup::Ended(Ok(())))
        } else {
            (Core::start(now, config.core, &mut commands), Startup::Awaited(Vec::new()))
        };
        let slots = (0..config.core.size)
            .map(|slot| Slot {
                name: format!("{}-{}", config.name, slot + 1).into(),
                generation: existing.get(&slot).copied().unwrap_or(0),
                current: None,
                restarts: 0,
                last_exit: None,
            })
            .collect();
        let reports = Some(reports);
        let (reload, timer) = (None, Timer::new());
        let submitted = Vec::new();
        Ok(Self { config, core, commands, submitted, workers, reports, slots, reload, startup, timer })
    }

    /// Tells the core what happened and does what it says.
    fn handle(&mut self, event: Event<Item, StartupFailure>, ctx: &mut Context<Self>) {
        self.core.handle(Instant::now(), event, &mut self.commands);
        self.carry_out(ctx);
    }

    /// Takes in what the handles have submitted.
    fn collect(&mut self, ctx: &mut Context<Self>) {
        let mut submitted = std::mem::take(&mut self.submitted);
        self.config.inbox.take(&mut submitted);
        for Submitted { request, deadline, session, item } in submitted.drain(..) {
            let exclusive = matches!(item, Item::Checkout { .. });
            self.handle(Event::Submitted { request, deadline, item, session, exclusive }, ctx);
        }
        self.submitted = submitted;
    }

    fn carry_out(&mut self, ctx: &mut Context<Self>) {
        while !self.commands.is_empty() {
            let mut commands = std::mem::take(&mut self.commands);
            for command in commands.drain(..) {
                match command {
                    Command::StartSlot { slot } => self.start_slot(slot, ctx),
                    Command::Assign { worker, request, item, placement } => {
                        self.assign(worker, request, item, placement);
                    }
                    Command::EndSession { workers, session, cause, item } => {
                        self.end_session(&workers, &session, cause, item);
                    }
                    Command::Reject { item, reason, .. } => item.refuse(rejected(reason)),
                    Command::StartupSucceeded => self.startup_ended(Ok(())),
                    Command::StartupFailed { cause } => self.startup_ended(Err(cause)),
                    // Whoever waits for the start sees this actor end.
                    Command::StartupAborted => {}
                }
            }
            if self.commands.is_empty() {
                // Keeps its memory for the next call.
                self.commands = commands;
                break;
            }
        }
    }

    fn assign(&mut self, worker: WorkerId, request: RequestId, item: Item, placement: Option<Placement>) {
        let slot = &self.slots[worker.slot as usize];
        match slot.current.as_ref().filter(|it| it.worker == worker) {
            Some(current) if !item.is_abandoned() => {
                let opened = || Opened { addr: current.addr.clone(), worker: slot.name.clone(), placement };
                match item {
                    Item::Call { order, opened: stream } => {
                        current.addr.do_send(Run(Dispatch::assigned(order, placement, request)));
                        if let Some(stream) = stream {
                            let _ = stream.send(opened());
                        }
                    }
                    Item::Checkout { session, reply } => {
                        let lease = LeaseId(request);
                        current.addr.do_send(Grant(lease));
                        let token =
                            LeaseToken::new(lease, opened(), current.desk.clone(), current.pid, session);
                        // A caller that is gone by now drops the token, which checks the worker in.
                        let _ = reply.send(Ok(token));
                    }
                    Item::EndSession { .. } => unreachable!("no worker is assigned for it"),
                }
            }
            _ => {
                let event = Event::Unassigned { worker, request };
                self.core.handle(Instant::now(), event, &mut self.commands);
            }
        }
    }

    /// Tells workers that a session is over, and whoever asked for that how it went.
    fn end_session(
        &mut self,
        workers: &[WorkerId],
        session: &Arc<str>,
        cause: SessionEnd,
        item: Option<Item>,
    ) {
        let (timeout, never) = (self.config.hook_timeout, deadline(Instant::now(), LONGEST));
        let mut answers = Vec::with_capacity(workers.len());
        for worker in workers {
            let current = self.slots[worker.slot as usize].current.as_ref();
            let Some(current) = current.filter(|it| it.worker == *worker) else { continue };
            let (reply, answer) = oneshot::channel();
            let work = Work::EndSession { session: session.clone(), cause: cause.as_str(), timeout };
            let order = Order { work, deadline: never, reply: ReplyTo::once(reply) };
            current.addr.do_send(Run(Dispatch::new(order, None)));
            answers.push(answer);
        }
        let session = session.clone();
        actix_rt::spawn(async move {
            let mut result = Ok(());
            for answer in answers {
                match answer.await {
                    // One that died on the way has no state left either.
                    Ok(Ok(_) | Err(CallError::WorkerDied { .. } | CallError::Draining)) | Err(_) => {}
                    Ok(Err(error)) if item.is_some() => result = result.and(Err(error)),
                    Ok(Err(error)) => {
                        log::error!(target: "hatchery::pool", "the end of session {session:?}: {error}");
                    }
                }
            }
            if let Some(Item::EndSession { reply }) = item {
                let _ = reply.send(result);
            }
        });
    }

    /// A slot's worker as a child of the workers' supervisor.
    pub(super) fn worker_spec(&self, slot: u32, generation: u32) -> ChildSpec {
        let (spawner, name) = (self.config.spawner.clone(), self.slots[slot as usize].name.clone());
        let (settings, declared) = (self.config.worker.clone(), self.config.declared.clone());
        ChildSpec::with_context(child_id(slot, generation), move |context| {
            let (spawner, name, settings, declared) =
                (spawner.clone(), name.clone(), settings.clone(), declared.clone());
            async move {
                let port = spawner.start(&name).await?;
                for declaration in declared.iter() {
                    let checked = declaration.check(&port.ready.functions);
                    checked
                        .map_err(|problem| Arc::new(WorkerStartError::Declaration(problem.to_string())))?;
                }
                Ok::<_, Arc<WorkerStartError>>(Worker::new(slot, generation, &name, port, settings, context))
            }
        })
        .shutdown(Shutdown::Timeout(self.config.shutdown_timeout))
        .backoff(Backoff::default())
    }

    fn start_slot(&mut self, slot: u32, ctx: &mut Context<Self>) {
        let spec = self.worker_spec(slot, self.slots[slot as usize].generation);
        let workers = self.workers.clone();
        let start = async move { workers.start_child(spec).await };
        ctx.spawn(start.into_actor(self).map(move |started, _, _| match started {
            // How it goes is reported, this start like every later one.
            Ok(_) | Err(ChildError::Start { .. } | ChildError::Cancelled | ChildError::SupervisorDown) => {}
            Err(error) => {
                log::error!(target: "hatchery::pool", "cannot ask for worker {}: {error}", slot + 1)
            }
        }));
    }

    fn startup_ended(&mut self, end: Result<(), StartupFailure>) {
        if let Startup::Awaited(waiters) = std::mem::replace(&mut self.startup, Startup::Ended(end.clone())) {
            for waiter in waiters {
                let _ = waiter.send(end.clone());
            }
        }
    }

    /// Makes itself known to a slot's present worker; it is handed out once it has answered.
    pub(super) fn attach(&mut self, slot: u32, ctx: &mut Context<Self>) {
        let id = child_id(slot, self.slots[slot as usize].generation);
        let Some(addr) = self.workers.child::<Worker>(&id).ok().and_then(|child| child.addr()) else {
            return;
        };
        let attach = addr.send(Attach(ctx.address().recipient()));
        ctx.spawn(attach.into_actor(self).map(move |attached, act, ctx| {
            // One that ended meanwhile is reported as ended.
            if let Ok(attached) = attached {
                act.attached(addr, attached, ctx);
            }
        }));
    }

    pub(super) fn attached(&mut self, addr: Addr<Worker>, attached: Attached, ctx: &mut Context<Self>) {
        let Attached { worker, pid, desk, ready, forked, load, sessions } = attached;
        // It is known already, or has ended or been replaced while its answer was on the way.
        if !self.core.is_news(worker) {
            return;
        }
        let python = Arc::new(ready.into());
        let current = Current { worker, addr, desk, pid, forked, python };
        self.slots[worker.slot as usize].current = Some(current);
        self.handle(Event::WorkerReady { worker, load, sessions }, ctx);
    }

    /// The worker that a child of this id is, be it its slot's or not.
    fn worker_of(&self, id: &str, incarnation: u64) -> Option<WorkerId> {
        let (slot, generation) = slot_of(id)?;
        ((slot as usize) < self.slots.len()).then_some(WorkerId { slot, generation, incarnation })
    }

    /// Whether it is neither a worker that a reload has replaced, nor one that shall replace its slot's.
    fn is_of_slot(&self, worker: WorkerId) -> bool {
        self.slots[worker.slot as usize].generation == worker.generation
    }

    fn reported(&mut self, event: ReportEvent, ctx: &mut Context<Self>) {
        match event {
            ReportEvent::Started { id, incarnation } => {
                if let Some(worker) = self.worker_of(&id, incarnation)
                    && self.is_of_slot(worker)
                {
                    self.attach(worker.slot, ctx);
                }
            }
            ReportEvent::StartFailed { id, incarnation, cause, .. } => {
                if let Some(worker) = self.worker_of(&id, incarnation)
                    && self.is_of_slot(worker)
                {
                    let cause = self.ended(worker, start_error(&cause));
                    self.handle(Event::StartFailed { worker, cause }, ctx);
                }
            }
            ReportEvent::ChildTerminated { id, incarnation, reason } => {
                let Some(worker) = self.worker_of(&id, incarnation) else { return };
                self.slots[worker.slot as usize].restarts += u64::from(self.is_of_slot(worker));
                self.worker_ended(worker, reason.to_string(), ctx);
            }
            _ => {}
        }
    }

    pub(super) fn worker_ended(&mut self, worker: WorkerId, reason: String, ctx: &mut Context<Self>) {
        let generation = self.slots[worker.slot as usize].generation;
        if let Some(reload) = &mut self.reload {
            reload.freed(worker);
            if worker.generation > generation {
                return reload.successor_ended(worker, reason);
            }
        }
        if worker.generation == generation {
            let cause = self.ended(worker, Arc::new(WorkerStartError::Ended { reason }));
            self.handle(Event::WorkerExited { worker, cause }, ctx);
        }
    }

    /// A worker of a slot's present generation has ended, or could not start. Whatever came before it is no more either.
    fn ended(&mut self, worker: WorkerId, cause: Arc<WorkerStartError>) -> StartupFailure {
        let entry = &mut self.slots[worker.slot as usize];
        entry.current.take_if(|current| current.worker <= worker);
        entry.last_exit = Some(cause.to_string());
        StartupFailure { worker: entry.name.to_string(), cause }
    }

    fn status(&self) -> PoolStatus {
        let (now, counts) = (Instant::now(), self.core.counts());
        let workers = self.core.slots().map(|core| {
            let slot = &self.slots[core.slot as usize];
            WorkerStatus {
                name: slot.name.to_string(),
                state: match core.state {
                    SlotState::Starting => WorkerState::Starting,
                    SlotState::Idle => WorkerState::Idle,
                    SlotState::Busy(_) => WorkerState::Busy,
                    SlotState::Leaving(_) => WorkerState::Leaving,
                    SlotState::Down { .. } => WorkerState::Restarting,
                    SlotState::Failed { .. } => WorkerState::Failed,
                },
                for_time: now.saturating_duration_since(core.since),
                incarnation: core.worker.map(|worker| worker.incarnation),
                pid: slot.current.as_ref().map(|current| current.pid),
                forked: slot.current.as_ref().map(|current| current.forked),
                memory: None,
                python: slot.current.as_ref().map(|current| current.python.clone()),
                restarts: slot.restarts,
                last_exit: slot.last_exit.clone(),
            }
        });
        PoolStatus {
            name: self.config.name.clone(),
            size: counts.size,
            ready: counts.ready(),
            idle: counts.idle,
            busy: counts.busy,
            leaving: counts.leaving,
            in_flight: counts.in_flight,
            waiting: counts.waiting,
            submitted: counts.totals.submitted,
            assigned: counts.totals.assigned,
            overloaded: counts.totals.overloaded,
            timed_out_waiting: counts.totals.timed_out,
            abandoned: counts.totals.abandoned,
            unavailable: counts.totals.unavailable,
            session_lost: counts.totals.session_lost,
            session_busy: counts.totals.session_busy,
            sessions: counts.sessions,
            mean_run: counts.mean_run,
            restarts: self.slots.iter().map(|slot| slot.restarts).sum(),
            draining: counts.closed,
            workers: workers.collect(),
            zygote: self.config.spawner.status(),
        }
    }
}

fn rejected(reason: Rejection<StartupFailure>) -> CallError {
    match reason {
        Rejection::Overloaded { queue_len, retry_after } => CallError::Overloaded { queue_len, retry_after },
        Rejection::TimedOut => CallError::Timeout { phase: Phase::Queue, stack: None, attempts: 0 },
        Rejection::Unavailable { cause } => {
            CallError::Unavailable { cause: UnavailableCause::StartFailed(cause.cause) }
        }
        Rejection::SessionLost { session } => CallError::SessionLost { session: session.to_string() },
        Rejection::SessionBusy { session, retry_after } => {
            CallError::SessionBusy { session: session.to_string(), retry_after }
        }
        Rejection::Draining => CallError::Draining,
    }
}

impl Actor for PoolActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        // Callers bound themselves by the queue, not by the mailbox.
        ctx.set_mailbox_capacity(0);
        if let Some(reports) = self.reports.take() {
            ctx.add_stream(reports);
        }
        for slot in 0..self.config.core.size {
            self.attach(slot, ctx);
        }
        ctx.spawn(Deadlines);
        self.carry_out(ctx);
    }

    fn stopping(&mut self, ctx: &mut Context<Self>) -> Running {
        self.handle(Event::Closed, ctx);
        Running::Stop
    }
}

/// Tells the core when its next deadline has come.
struct Deadlines;

impl ActorFuture<PoolActor> for Deadlines {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        act: &mut PoolActor,
        ctx: &mut Context<PoolActor>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<()> {
        while act.timer.poll(act.core.next_deadline(), cx).is_ready() {
            act.handle(Event::Tick, ctx);
        }
        Poll::Pending
    }
}

impl StreamHandler<Report> for PoolActor {
    fn handle(&mut self, report: Report, ctx: &mut Context<Self>) {
        self.reported(report.event, ctx);
    }

    /// The workers' supervisor has ended: this actor's own supervisor restarts both.
    fn finished(&mut self, _: &mut Context<Self>) {}
}

impl Handler<WorkerEvent> for PoolActor {
    type Result = ();

    fn handle(&mut self, event: WorkerEvent, ctx: &mut Context<Self>) {
        match event {
            WorkerEvent::Freed { worker, request, began } => {
                self.reload.iter_mut().for_each(|reload| reload.freed(worker));
                self.handle(
                    if began {
                        Event::WorkerFreed { worker, request }
                    } else {
                        Event::Unassigned { worker, request }
                    },
                    ctx,
                );
            }
            WorkerEvent::Leaving { worker } => self.handle(Event::WorkerLeaving { worker }, ctx),
            WorkerEvent::Ended { worker, reason } => self.worker_ended(worker, reason, ctx),
        }
    }
}

impl Handler<Collect> for PoolActor {
    type Result = ();

    fn handle(&mut self, collect: Collect, ctx: &mut Context<Self>) {
        collect.heard();
        self.collect(ctx);
    }
}

impl Handler<Abandon> for PoolActor {
    type Result = ();

    fn handle(&mut self, Abandon(request): Abandon, ctx: &mut Context<Self>) {
        // Its own submission may be on its way still, with another caller's message.
        self.collect(ctx);
        self.handle(Event::Abandoned { request }, ctx);
    }
}

impl Handler<TellStartup> for PoolActor {
    type Result = ();

    fn handle(&mut self, TellStartup(tell): TellStartup, _: &mut Context<Self>) {
        match &mut self.startup {
            Startup::Awaited(waiters) => waiters.push(tell),
            Startup::Ended(end) => drop(tell.send(end.clone())),
        }
    }
}

impl Handler<GetStatus> for PoolActor {
    type Result = MessageResult<GetStatus>;

    fn handle(&mut self, GetStatus: GetStatus, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.status())
    }
}

/// What a caller gets whose request went down with the broker.
fn lost<T>(_: oneshot::error::RecvError) -> Result<T, CallError> {
    Err(CallError::Unavailable { cause: UnavailableCause::BrokerRestarting })
}

impl Handler<Call> for PoolActor {
    type Result = Answer<Result<Reply, CallError>>;

    fn handle(&mut self, call: Call, ctx: &mut Context<Self>) -> Self::Result {
        let request = RequestId::new();
        let Call { body, timeout, session } = call;
        let name = session.as_ref().map(|used| used.session.clone());
        let body = CallOptions { session: name.as_deref(), ..CallOptions::default() }.append_to(body);
        let body = match fitting(body, self.config.max_frame_bytes) {
            Ok(body) => body,
            Err(error) => return Answer { request, answer: Box::pin(async { Err(error) }) },
        };
        let (reply, answer) = oneshot::channel();
        let (now, timeout) = (Instant::now(), timeout.unwrap_or(self.config.call_timeout));
        let waits = deadline(now, timeout.min(self.config.checkout_timeout));
        let work = Work::Call { body, session: name, stream: None, depth: 0 };
        let order = Order { work, deadline: deadline(now, timeout), reply: ReplyTo::once(reply) };
        let item = Item::Call { order, opened: None };
        let exclusive = false;
        self.handle(Event::Submitted { request, deadline: waits, item, session, exclusive }, ctx);
        let answer = Box::pin(async { answer.await.unwrap_or_else(lost) });
        Answer { request, answer }
    }
}

impl Handler<Checkout> for PoolActor {
    type Result = Answer<Result<Lease, CallError>>;

    fn handle(&mut self, checkout: Checkout, ctx: &mut Context<Self>) -> Self::Result {
        let request = RequestId::new();
        let (reply, answer) = oneshot::channel();
        let timeout = checkout.timeout.unwrap_or(self.config.checkout_timeout);
        let item = Item::Checkout { session: None, reply };
        let deadline = deadline(Instant::now(), timeout);
        let (session, exclusive) = (None, true);
        self.handle(Event::Submitted { request, deadline, item, session, exclusive }, ctx);
        let handle = self.config.handle.clone();
        let answer = Box::pin(async move {
            let token = answer.await.unwrap_or_else(lost)?;
            // Without a handle left the pool is on its way out.
            let pool = handle.get().and_then(Weak::upgrade).ok_or(CallError::Draining)?;
            Ok(Lease::new(token, pool, 0))
        });
        Answer { request, answer }
    }
}

impl Handler<EndSession> for PoolActor {
    type Result = ResponseFuture<Result<(), CallError>>;

    fn handle(&mut self, EndSession(session): EndSession, ctx: &mut Context<Self>) -> Self::Result {
        let (reply, answer) = oneshot::channel();
        self.handle(Event::EndSession { session: session.into(), item: Item::EndSession { reply } }, ctx);
        Box::pin(async { answer.await.unwrap_or_else(lost) })
    }
}
