//! The broker: a thin shell around [`Core`](crate::core::Core).

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use actix::fut::ActorFuture;
use actix::{Actor, AsyncContext, Context, Handler, Running};
use tokio::sync::oneshot;

use super::broker_ref::{BrokerRef, PoolShared};
use super::declaration::Declaration;
use super::errors::StartupFailure;
use super::grant::{Grant, Opened};
use super::inbox::{Collect, Entry, QueueItem, Submitted};
use super::messages::{Abandon, TellStartup};
use super::slot::{RunningReload, Slot};
use crate::budget::LOG_RECORD_BYTES;
use crate::error::{CallError, UnavailableCause};
use crate::guard::guarded;
use crate::pool::core::{self, Command, Core, Event, Rejection, RequestId, SessionEnd, WorkerId};
use crate::port::Spawner;
use crate::supervisor::{Backoff, ChildContext, ChildSpec, Reports, SupervisorRef};
use crate::text;
use crate::timer::{LONGEST, Timer, deadline};
use crate::worker::{self, BeginLease, BrokerDied, LeaseId, PendingCall, Placement, Run, Work};

/// The checked settings of a pool.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) core: core::Config,
    pub(crate) spawner: Spawner,
    pub(crate) shutdown_timeout: Duration,
    /// When a worker is started again.
    pub(crate) backoff: Backoff,
    pub(crate) worker: worker::Settings,
    /// The declarations that the module's functions must match.
    pub(crate) declared: Arc<[Declaration]>,
    pub(crate) hook_timeout: Duration,
    pub(crate) shared: Arc<PoolShared>,
}

/// The broker as a child of the supervisor that has the workers' supervisor, too.
pub(crate) fn child_spec(config: Config) -> ChildSpec<PoolActor> {
    ChildSpec::with_context("pool", move |context| {
        let config = config.clone();
        async move { PoolActor::new(config, &context) }
    })
}

/// The pool's broker: gives requests to ready workers, first come, first served.
///
/// It is reached by [`Pool::actor`](crate::Pool::actor) and takes [`Call`](crate::Call), [`Checkout`](crate::Checkout) and
/// [`GetStatus`](crate::GetStatus).
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::supervisor::ChildRef;
/// use hatchery::{Call, PoolActor};
///
/// let broker: ChildRef<PoolActor> = pool.actor();
/// let reply = broker.send(Call::new("price", ("pen",))?).await??;
/// # Ok(()) }
/// ```
pub struct PoolActor {
    pub(super) config: Config,
    /// Reaches this actor, for the requests that come as messages.
    itself: BrokerRef,
    pub(super) core: Core<QueueItem, StartupFailure>,
    commands: Vec<Command<QueueItem, StartupFailure>>,
    /// Empty between messages; kept for its memory.
    entries: Vec<Entry>,
    pub(super) workers: SupervisorRef,
    reports: Option<Reports>,
    pub(super) slots: Vec<Slot>,
    pub(super) reload: Option<RunningReload>,
    startup: Startup,
    timer: Timer,
}

/// Who waits for the end of the start-up, or how it ended.
enum Startup {
    Awaited(Vec<oneshot::Sender<Result<(), StartupFailure>>>),
    Ended(Result<(), StartupFailure>),
}

impl PoolActor {
    fn new(config: Config, context: &ChildContext) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let workers = context.parent().supervisor("workers")?;
        let itself = BrokerRef::new(config.shared.clone());
        itself.bind(context.parent().child(context.id())?, context.parent())?;
        let reports = Some(workers.subscribe());
        let mut commands = Vec::new();
        let core = Core::start(Instant::now(), config.core, &mut commands);
        let slots = (0..config.core.size)
            .map(|slot| Slot {
                name: format!("{}-{}", config.name, slot + 1).into(),
                generation: 0,
                current: None,
                restarts: 0,
                last_exit: None,
            })
            .collect();
        let (reload, timer, entries) = (None, Timer::new(), Vec::new());
        let startup = Startup::Awaited(Vec::new());
        Ok(Self { config, itself, core, commands, entries, workers, reports, slots, reload, startup, timer })
    }

    /// Reaches this actor.
    pub(crate) fn itself(&self) -> &BrokerRef {
        &self.itself
    }

    /// Tells the core what happened and does what it says.
    pub(super) fn handle(&mut self, event: Event<QueueItem, StartupFailure>, ctx: &mut Context<Self>) {
        self.core.handle(Instant::now(), event, &mut self.commands);
        self.config.shared.inbox.set_rejects_all(self.core.refuses_all().is_some());
        self.carry_out(ctx);
    }

    /// Tells the core of a request.
    fn submit(&mut self, submitted: Submitted, ctx: &mut Context<Self>) {
        let Submitted { request, deadline, session, item } = submitted;
        let (bytes, exclusive) = (item.bytes(), matches!(item, QueueItem::Checkout { .. }));
        self.handle(Event::Submitted { request, deadline, item, bytes, session, exclusive }, ctx);
    }

    /// Ends a session on behalf of a caller.
    pub(crate) fn end_session(
        &mut self,
        session: Arc<str>,
        reply: oneshot::Sender<Result<(), CallError>>,
        ctx: &mut Context<Self>,
    ) {
        self.handle(Event::EndSession { session, item: QueueItem::EndSession { reply } }, ctx);
    }

    /// Takes the entries out of the inbox. Each message of a caller does this first, so that requests and messages are handled
    /// in the order in which they were sent.
    pub(crate) fn collect(&mut self, ctx: &mut Context<Self>) {
        let mut entries = std::mem::take(&mut self.entries);
        self.config.shared.inbox.take(&mut entries);
        for entry in entries.drain(..) {
            match entry {
                Entry::Submitted(submitted) => {
                    // The caller's own `Abandon` comes behind all requests submitted meanwhile. Until then the request would
                    // take up room in the queue.
                    let (request, has_left) = (submitted.request, submitted.item.is_abandoned());
                    self.submit(submitted, ctx);
                    if has_left {
                        self.handle(Event::Abandoned { request }, ctx);
                    }
                }
                Entry::Announced(request, item) => self.handle(Event::Announced { request, item }, ctx),
                Entry::LossHeard(request) => self.handle(Event::LossHeard { request }, ctx),
            }
        }
        self.entries = entries;
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
                        self.end_session_at(&workers, &session, cause, item);
                    }
                    Command::Admit { item } => {
                        if let QueueItem::Announced { reply } = item {
                            let _ = reply.send(Ok(()));
                        }
                    }
                    Command::Reject { item, reason, .. } => item.reject(rejected(reason)),
                    Command::StartupSucceeded => self.startup_ended(Ok(())),
                    Command::StartupFailed { cause } => self.startup_ended(Err(cause)),
                    // This actor ends, and with it the channels of those who wait for the start.
                    Command::StartupAborted => {}
                }
            }
            if self.commands.is_empty() {
                // The memory is used again for the next call.
                self.commands = commands;
                break;
            }
        }
    }

    fn assign(
        &mut self,
        worker: WorkerId,
        request: RequestId,
        item: QueueItem,
        placement: Option<Placement>,
    ) {
        let slot = &self.slots[worker.slot as usize];
        let current = slot.current.as_ref().filter(|current| current.worker == worker);
        let Some(current) = current.filter(|_| !item.is_abandoned()) else {
            let event = Event::Unassigned { worker, request };
            return self.core.handle(Instant::now(), event, &mut self.commands);
        };
        match item {
            QueueItem::Call { call, opened } => {
                current.addr.do_send(Run(call.assigned(Some(request), placement)));
                if let Some(opened) = opened {
                    let (addr, worker) = (current.addr.clone(), slot.name.clone());
                    let _ = opened.send(Opened { addr, worker, placement });
                }
            }
            QueueItem::Checkout { session, reply } => {
                let id = LeaseId(request);
                current.addr.do_send(BeginLease(id));
                let grant = Grant {
                    id,
                    addr: current.addr.clone(),
                    calls: current.calls.clone(),
                    worker: slot.name.clone(),
                    pid: current.pid,
                    session,
                    placement,
                };
                // A caller that is gone by now drops the grant, which checks the worker in.
                let _ = reply.send(Ok(grant));
            }
            QueueItem::EndSession { .. } | QueueItem::Announced { .. } => {
                unreachable!("no worker is assigned for it")
            }
        }
    }

    /// Tells workers that a session is over, and answers the caller that ended it, if there is one.
    fn end_session_at(
        &mut self,
        workers: &[WorkerId],
        session: &Arc<str>,
        cause: SessionEnd,
        item: Option<QueueItem>,
    ) {
        let (timeout, never) = (self.config.hook_timeout, deadline(Instant::now(), LONGEST));
        let mut answers = Vec::with_capacity(workers.len());
        for worker in workers {
            let current = self.slots[worker.slot as usize].current.as_ref();
            let Some(current) = current.filter(|it| it.worker == *worker) else { continue };
            let (reply, answer) = oneshot::channel();
            let work = Work::EndSession { session: session.clone(), cause: cause.as_str(), timeout };
            current.addr.do_send(Run(PendingCall::new(work, never, reply).assigned(None, None)));
            answers.push(answer);
        }
        let session = session.clone();
        actix_rt::spawn(async move {
            let mut result = Ok(());
            for answer in answers {
                match answer.await {
                    // A dead worker has no state of the session.
                    Ok(Ok(_) | Err(CallError::WorkerDied { .. } | CallError::Draining)) | Err(_) => {}
                    Ok(Err(error)) if item.is_some() => result = result.and(Err(error)),
                    Ok(Err(error)) => {
                        log_failed_end(&session, &error);
                    }
                }
            }
            if let Some(QueueItem::EndSession { reply }) = item
                && let Err(Err(error)) = reply.send(result)
            {
                log_failed_end(&session, &error);
            }
        });
    }

    fn startup_ended(&mut self, end: Result<(), StartupFailure>) {
        if let Startup::Awaited(waiters) = std::mem::replace(&mut self.startup, Startup::Ended(end.clone())) {
            for waiter in waiters {
                let _ = waiter.send(end.clone());
            }
        }
    }
}

/// Logs the failed end of a session that no caller waits for.
fn log_failed_end(session: &str, error: &CallError) {
    let (name, error) = (text::name(session), format!("{error:#}"));
    let error = text::escaped_lines(text::beginning(&error, LOG_RECORD_BYTES).0);
    let _ = guarded(|| log::error!(target: "hatchery::pool", "the end of session {name:?}: {error}"));
}

fn rejected(reason: Rejection<StartupFailure>) -> CallError {
    match reason {
        Rejection::Overloaded { cause, queue_len, queue_bytes, retry_after } => {
            CallError::Overloaded { cause, queue_len, queue_bytes, retry_after }
        }
        Rejection::TimedOut => CallError::timed_out_waiting(),
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
        ctx.spawn(Deadlines);
        self.carry_out(ctx);
    }

    fn stopping(&mut self, ctx: &mut Context<Self>) -> Running {
        self.handle(Event::Closed, ctx);
        // Requests in the inbox are rejected like those in the queue.
        self.collect(ctx);
        Running::Stop
    }
}

impl Drop for PoolActor {
    /// The workers of a broker that dies of a bug end with it, since its knowledge of their calls and sessions is lost.
    fn drop(&mut self) {
        if self.core.counts().closed {
            return; // The workers end after it, in order.
        }
        let former = self.reload.iter().filter_map(|reload| reload.former.as_ref());
        for worker in self.slots.iter().filter_map(|slot| slot.current.as_ref()).chain(former) {
            worker.addr.do_send(BrokerDied);
        }
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

impl Handler<Collect> for PoolActor {
    type Result = ();

    fn handle(&mut self, collect: Collect, ctx: &mut Context<Self>) {
        collect.received();
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
