//! The broker and its workers: how they come to be known, and how they end.

use std::sync::Arc;

use actix::fut::WrapFuture;
use actix::{ActorFutureExt as _, AsyncContext, Context, Handler, Recipient, StreamHandler};

use super::actor::PoolActor;
use super::errors::StartupFailure;
use super::slot::Current;
use crate::error::WorkerStartError;
use crate::guard::guarded;
use crate::pool::core::{Event, WorkerId};
use crate::supervisor::{Backoff, Cause, ChildError, ChildSpec, Report, ReportEvent, Shutdown};
use crate::worker::{ReadyWorker, Worker, WorkerEvent};

impl PoolActor {
    /// A slot's worker as a child of the workers' supervisor.
    pub(super) fn worker_spec(
        &self,
        slot: u32,
        generation: u32,
        pool: Recipient<WorkerEvent>,
    ) -> ChildSpec<Worker> {
        let (spawner, name) = (self.config.spawner.clone(), self.slots[slot as usize].name.clone());
        let (settings, declared) = (self.config.worker.clone(), self.config.declared.clone());
        ChildSpec::with_context(child_id(slot, generation), move |context| {
            let (spawner, name, declared) = (spawner.clone(), name.clone(), declared.clone());
            let (settings, pool) = (settings.clone(), pool.clone());
            async move {
                let port = spawner.start(&name).await?;
                for declaration in declared.iter() {
                    let checked = declaration.check(&port.ready.functions);
                    checked
                        .map_err(|problem| Arc::new(WorkerStartError::Declaration(problem.to_string())))?;
                }
                let trial = spawner.trial(&port);
                let worker = Worker::new(slot, generation, &name, port, trial, settings, pool, context);
                Ok::<_, Arc<WorkerStartError>>(worker)
            }
        })
        .shutdown(Shutdown::Timeout(self.config.shutdown_timeout))
        // A slot whose first start fails must stay.
        .backoff(Backoff { must_start: false, ..self.config.backoff })
    }

    pub(super) fn start_slot(&mut self, slot: u32, ctx: &mut Context<Self>) {
        let spec = self.worker_spec(slot, 0, ctx.address().recipient());
        let workers = self.workers.clone();
        let start = async move { workers.start_child(spec).await };
        ctx.spawn(start.into_actor(self).map(move |started, _, _| match started {
            // How it goes is reported, this start like every later one.
            Ok(_) | Err(ChildError::Start { .. } | ChildError::Cancelled | ChildError::SupervisorDown) => {}
            Err(error) => drop(guarded(
                || log::error!(target: "hatchery::pool", "cannot ask for worker {}: {error}", slot + 1),
            )),
        }));
    }

    /// A worker has started: by its slot's supervisor, or as the successor that a reload started.
    fn worker_ready(&mut self, ready: ReadyWorker, ctx: &mut Context<Self>) {
        let worker = ready.worker;
        if worker.generation > self.slots[worker.slot as usize].generation {
            return self.successor_ready(ready, ctx);
        }
        if !self.is_of_slot(worker) || !self.core.is_news(worker) {
            return;
        }
        self.take_in(ready, ctx);
    }

    /// Hands the worker out from now on.
    pub(super) fn take_in(&mut self, ready: ReadyWorker, ctx: &mut Context<Self>) {
        let ReadyWorker { worker, addr, pid, calls, ready, forked } = ready;
        let python = Arc::new(ready.into());
        let current = Current { worker, addr, calls, pid, forked, python };
        self.slots[worker.slot as usize].current = Some(current);
        self.handle(Event::WorkerReady { worker }, ctx);
    }

    /// The worker that a child of this id is, be it its slot's or not.
    fn worker_of(&self, id: &str, incarnation: u64) -> Option<WorkerId> {
        let (slot, generation) = slot_of(id)?;
        ((slot as usize) < self.slots.len()).then_some(WorkerId { slot, generation, incarnation })
    }

    /// Whether the worker is of its slot's present generation: a reload neither replaced it nor started it as a successor.
    fn is_of_slot(&self, worker: WorkerId) -> bool {
        self.slots[worker.slot as usize].generation == worker.generation
    }

    fn reported(&mut self, event: ReportEvent, ctx: &mut Context<Self>) {
        match event {
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
        }
        if worker.generation == generation {
            let cause = self.ended(worker, Arc::new(WorkerStartError::Ended { reason }));
            self.handle(Event::WorkerExited { worker, cause }, ctx);
        }
    }

    /// A worker of a slot's present generation has ended, or could not start. Earlier incarnations have ended, too.
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
            WorkerEvent::Ready(ready) => self.worker_ready(ready, ctx),
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

/// A worker's id in the tree: the slot, counted from 1, and after reloads a dot and the generation.
pub(super) fn child_id(slot: u32, generation: u32) -> String {
    let number = slot + 1;
    if generation == 0 { number.to_string() } else { format!("{number}.{generation}") }
}

/// The slot and the generation of a worker.
fn slot_of(id: &str) -> Option<(u32, u32)> {
    let (number, generation) = id.split_once('.').unwrap_or((id, "0"));
    Some((number.parse::<u32>().ok()?.checked_sub(1)?, generation.parse().ok()?))
}

/// Why a worker's factory failed.
pub(super) fn start_error(cause: &Cause) -> Arc<WorkerStartError> {
    match cause.downcast_ref::<Arc<WorkerStartError>>() {
        Some(cause) => cause.clone(),
        None => Arc::new(WorkerStartError::Ended { reason: cause.to_string() }),
    }
}
