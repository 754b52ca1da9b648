//! How the pool is, as the broker knows it.

use std::time::Instant;

use actix::{Context, Handler, MessageResult};

use super::PoolActor;
use crate::pool::core::SlotState;
use crate::pool::messages::GetStatus;
use crate::pool::status::{PoolStatus, WorkerState, WorkerStatus};

impl PoolActor {
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

impl Handler<GetStatus> for PoolActor {
    type Result = MessageResult<GetStatus>;

    fn handle(&mut self, GetStatus: GetStatus, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.status())
    }
}
