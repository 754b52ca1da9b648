//! The reload of a pool: new code, worker by worker, while the others serve.

use std::sync::Arc;
use std::time::Duration;

use actix::fut::{ActorFutureExt as _, WrapFuture as _};
use actix::{AsyncContext as _, Context, Handler, Message, ResponseFuture};
use tokio::sync::oneshot;

use super::actor::PoolActor;
use super::errors::ReloadError;
use super::slot::RunningReload;
use super::workers::{child_id, start_error};
use crate::error::{UnavailableCause, WorkerStartError};
use crate::guard::guarded;
use crate::pool::core::{Reload, ReloadFailure, ReloadStep};
use crate::supervisor::ChildError;
use crate::text::escaped_lines;
use crate::worker::{GetLoad, Load, ReadyWorker};

/// How long a reload waits for a lease to be given back before it ends the lease's worker.
const LEASE_TIMEOUT: Duration = Duration::from_secs(30);

/// Replace all workers by new ones of the present code. Answered when that is done.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::ReloadWorkers;
///
/// pool.actor().send(ReloadWorkers).await??;
/// # Ok(()) }
/// ```
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "Result<(), ReloadError>")]
pub struct ReloadWorkers;

impl Handler<ReloadWorkers> for PoolActor {
    type Result = ResponseFuture<Result<(), ReloadError>>;

    fn handle(&mut self, ReloadWorkers: ReloadWorkers, ctx: &mut Context<Self>) -> Self::Result {
        if self.reload.is_some() {
            return Box::pin(async { Err(ReloadError::Running) });
        }
        let (done, outcome) = oneshot::channel();
        self.reload = Some(RunningReload {
            order: Reload::of(self.config.core.size),
            done,
            former: None,
            freed: Arc::default(),
        });
        self.reload_step(ReloadStep::Renew, ctx);
        let lost = || Err(ReloadError::Unavailable(UnavailableCause::BrokerRestarting));
        Box::pin(async move { outcome.await.unwrap_or_else(|_| lost()) })
    }
}

impl PoolActor {
    fn reload_step(&mut self, step: ReloadStep<Arc<WorkerStartError>>, ctx: &mut Context<Self>) {
        match step {
            ReloadStep::Renew => {
                let spawner = self.config.spawner.clone();
                let renew = async move { spawner.renew().await };
                ctx.spawn(renew.into_actor(self).map(|renewed, act, ctx| {
                    let Some(reload) = &act.reload else { return };
                    let step = reload.order.renewed(renewed);
                    act.reload_step(step, ctx);
                }));
            }
            ReloadStep::Start { slot } => self.start_successor(slot, ctx),
            ReloadStep::Retire { slot, settles } => {
                if settles {
                    self.config.spawner.settle(true);
                }
                self.retire_former(slot, ctx);
            }
            ReloadStep::Over(outcome) => {
                let Some(reload) = self.reload.take() else { return };
                let outcome = outcome.map_err(|failure| match failure {
                    ReloadFailure::RolledBack { cause } => {
                        self.config.spawner.settle(false);
                        ReloadError::RolledBack { cause }
                    }
                    ReloadFailure::Partial { replaced, cause } => ReloadError::Partial { replaced, cause },
                });
                // A logger may panic: it is the user's.
                let _ = guarded(|| match &outcome {
                    Ok(()) => log::info!(target: "hatchery::pool", "{}: reloaded", self.config.name),
                    Err(error) => {
                        log::error!(target: "hatchery::pool", "{}: {}", self.config.name, escaped_lines(&format!("{error:#}")))
                    }
                });
                let _ = reload.done.send(outcome);
            }
        }
    }

    /// Starts a second worker for a slot, under an id of its own. It takes the slot over when it is ready.
    fn start_successor(&mut self, slot: u32, ctx: &mut Context<Self>) {
        let generation = self.slots[slot as usize].generation + 1;
        let (spec, workers) =
            (self.worker_spec(slot, generation, ctx.address().recipient()), self.workers.clone());
        let start = async move {
            let failed = match workers.start_child(spec).await {
                Ok(_) => return Ok(()),
                Err(ChildError::Start { cause, .. }) => start_error(&cause),
                Err(error) => Arc::new(WorkerStartError::Ended { reason: error.to_string() }),
            };
            // Its supervisor would try again and again.
            let _ = workers.terminate_child(&child_id(slot, generation)).await;
            Err(failed)
        };
        ctx.spawn(start.into_actor(self).map(move |started, act, ctx| {
            if let (Err(cause), Some(reload)) = (started, &act.reload) {
                let step = reload.order.started(Err(cause));
                act.reload_step(step, ctx);
            }
        }));
    }

    /// Makes the successor the slot's worker. The former one, if it lives, gets no more calls. Later events of the former
    /// generation are ignored.
    pub(super) fn successor_ready(&mut self, ready: ReadyWorker, ctx: &mut Context<Self>) {
        let slot = &mut self.slots[ready.worker.slot as usize];
        slot.generation = ready.worker.generation;
        let former = slot.current.take();
        self.take_in(ready, ctx);
        let Some(reload) = &mut self.reload else { return };
        reload.former = former;
        let step = reload.order.started(Ok(()));
        self.reload_step(step, ctx);
    }

    /// Ends the former worker of a slot, once it is idle.
    fn retire_former(&mut self, slot: u32, ctx: &mut Context<Self>) {
        let generation = self.slots[slot as usize].generation;
        let workers = self.workers.clone();
        let Some(reload) = &self.reload else { return };
        let (freed, addr) = (reload.freed.clone(), reload.former.as_ref().map(|former| former.addr.clone()));
        let retire = async move {
            if let Some(addr) = addr {
                let deadline = tokio::time::Instant::now() + LEASE_TIMEOUT;
                loop {
                    // The worker is asked each time, since a call may be on its way to it that the core has counted already.
                    match addr.send(GetLoad).await {
                        Ok(Load::Lease) => {
                            if tokio::time::timeout_at(deadline, freed.notified()).await.is_err() {
                                break;
                            }
                        }
                        // Calls have deadlines.
                        Ok(Load::Calls(1..)) => freed.notified().await,
                        // A worker that has ended is idle.
                        Ok(_) | Err(_) => break,
                    }
                }
            }
            let _ = workers.terminate_child(&child_id(slot, generation - 1)).await;
        };
        ctx.spawn(retire.into_actor(self).map(|(), act, ctx| {
            let Some(reload) = &mut act.reload else { return };
            reload.former = None;
            let step = reload.order.retired();
            act.reload_step(step, ctx);
        }));
    }
}
