//! The broker and its workers: how they come to be known, and how they end.

use std::sync::Arc;

use actix::fut::WrapFuture;
use actix::{ActorFutureExt as _, Addr, AsyncContext, Context, Handler, StreamHandler};

use super::{PoolActor, StartupFailure};
use crate::error::WorkerStartError;
use crate::pool::children::{child_id, slot_of, start_error};
use crate::pool::core::{Event, WorkerId};
use crate::pool::status::PythonInfo;
use crate::supervisor::{Backoff, ChildError, ChildSpec, Report, ReportEvent, Shutdown};
use crate::worker::{Attach, Attached, Desk, Worker, WorkerEvent};

/// What the broker knows of a slot beyond the core.
pub(in crate::pool) struct Slot {
    pub(super) name: Arc<str>,
    /// How often its worker was replaced by a reload: each replacement is another child in the tree.
    pub(in crate::pool) generation: u32,
    /// The worker that the core knows to live.
    pub(in crate::pool) current: Option<Current>,
    pub(super) restarts: u64,
    pub(in crate::pool) last_exit: Option<String>,
}

pub(in crate::pool) struct Current {
    pub(in crate::pool) worker: WorkerId,
    pub(in crate::pool) addr: Addr<Worker>,
    pub(super) desk: Arc<Desk>,
    pub(super) pid: u32,
    pub(super) forked: bool,
    pub(super) python: Arc<PythonInfo>,
}

impl PoolActor {
    /// A slot's worker as a child of the workers' supervisor.
    pub(in crate::pool) fn worker_spec(&self, slot: u32, generation: u32) -> ChildSpec {
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
                let trial = spawner.trial(&port);
                let worker = Worker::new(slot, generation, &name, port, trial, settings, context);
                Ok::<_, Arc<WorkerStartError>>(worker)
            }
        })
        .shutdown(Shutdown::Timeout(self.config.shutdown_timeout))
        // A slot whose first start fails must stay.
        .backoff(Backoff { must_start: false, ..self.config.backoff })
    }

    pub(super) fn start_slot(&mut self, slot: u32, ctx: &mut Context<Self>) {
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

    /// Makes itself known to a slot's present worker; it is handed out once it has answered.
    pub(in crate::pool) fn attach(&mut self, slot: u32, ctx: &mut Context<Self>) {
        let id = child_id(slot, self.slots[slot as usize].generation);
        let Some(addr) = self.workers.child::<Worker>(&id).ok().and_then(|child| child.addr()) else {
            return;
        };
        let attach = addr.send(Attach(ctx.address().recipient()));
        ctx.spawn(attach.into_actor(self).map(move |attached, act, ctx| {
            // One that ended meanwhile is reported as ended.
            if let Ok(attached) = attached {
                act.attached(addr, attached, ctx);
                // It may have sessions, which expire, and `Deadlines` may have been polled before this: whatever is spawned has
                // all polled once more.
                ctx.spawn(std::future::ready(()).into_actor(act));
            }
        }));
    }

    pub(in crate::pool) fn attached(
        &mut self,
        addr: Addr<Worker>,
        attached: Attached,
        ctx: &mut Context<Self>,
    ) {
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

    pub(in crate::pool) fn worker_ended(
        &mut self,
        worker: WorkerId,
        reason: String,
        ctx: &mut Context<Self>,
    ) {
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
