//! The state of a pool at one moment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::actor::PoolActor;
use super::slot::PythonInfo;
use crate::pool::core::SlotState;
use crate::port::{Memory, ZygoteStatus};

/// A pool at one moment, from [`Pool::status`](crate::Pool::status).
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// let status = pool.status().await?;
/// println!("{} of {} workers are ready, {} requests wait", status.ready, status.size, status.waiting);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct PoolStatus {
    /// The pool's name.
    pub name: String,
    /// Workers wanted.
    pub size: u32,
    /// Workers that can serve: `idle + busy`.
    pub ready: u32,
    /// Ready workers with nothing to do.
    pub idle: u32,
    /// Ready workers with a call or a lease.
    pub busy: u32,
    /// Workers that take no more calls because one of theirs did not give up in time. They end after the others.
    pub leaving: u32,
    /// Calls and leases that workers serve.
    pub in_flight: u32,
    /// Requests that wait for a worker.
    pub waiting: usize,
    /// Requests that came, since the broker started.
    pub submitted: u64,
    /// Requests that got a worker.
    pub assigned: u64,
    /// Requests refused because the queue was full.
    pub overloaded: u64,
    /// Requests whose deadline passed while they waited.
    pub timed_out_waiting: u64,
    /// Requests whose caller went away, or whose time was up on the way, before a worker's Python had them.
    pub abandoned: u64,
    /// Requests refused because no worker could start.
    pub unavailable: u64,
    /// Requests refused because their session's worker had died.
    pub session_lost: u64,
    /// Requests of strict sessions refused because their worker had no free place.
    pub session_busy: u64,
    /// Sessions that are known.
    pub sessions: usize,
    /// How long a worker has one call or lease, the recent ones weighing more. `None` before the first. Which one of
    /// several calls in a worker has ended is not looked at: it is taken to be the first that it got.
    pub mean_run: Option<Duration>,
    /// Workers that had been ready and ended since the broker started, each one replaced by its supervisor.
    pub restarts: u64,
    /// The shutdown has begun.
    pub draining: bool,
    /// One entry a worker, in order.
    pub workers: Vec<WorkerStatus>,
    /// The zygote, if there is one.
    pub zygote: Option<ZygoteStatus>,
}

impl PoolStatus {
    /// Reads the memory of all processes, on a thread that may block: it takes the kernel up to a millisecond for each.
    pub(crate) async fn with_memory(self) -> Self {
        let mut read = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            read.read_memory();
            read
        });
        read.await.unwrap_or(self)
    }

    fn read_memory(&mut self) {
        for worker in &mut self.workers {
            worker.memory = worker.pid.and_then(Memory::of);
        }
        if let Some(zygote) = &mut self.zygote {
            zygote.memory = zygote.pid.and_then(Memory::of);
        }
    }
}

/// One worker of a pool.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// for worker in pool.status().await?.workers {
///     println!("{}: {:?}, restarted {} times", worker.name, worker.state, worker.restarts);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// Its name, as in the log: the pool's name and a number from 1.
    pub name: String,
    /// What it does.
    pub state: WorkerState,
    /// For how long.
    pub for_time: Duration,
    /// Which start in this place it is, failed ones counted; it grows, with gaps. `None` before the first has ended. A
    /// reload's worker was started before those that have replaced the former one meanwhile.
    pub incarnation: Option<u64>,
    /// The process id of its Python, when it is ready.
    pub pid: Option<u32>,
    /// Whether it was forked of the zygote's template, when it is ready.
    pub forked: Option<bool>,
    /// Its memory, when it is ready. Only [`Pool::status`](crate::Pool::status) looks; the
    /// [`GetStatus`](crate::GetStatus) message does not.
    pub memory: Option<Memory>,
    /// What its Python said of itself, when it is ready.
    pub python: Option<Arc<PythonInfo>>,
    /// Workers in this place that had been ready and ended.
    pub restarts: u64,
    /// Why the last one in this place ended, or could not start.
    pub last_exit: Option<String>,
}

/// What a worker does.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::WorkerState;
///
/// let workers = pool.status().await?.workers;
/// let failed = workers.iter().filter(|worker| worker.state == WorkerState::Failed).count();
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WorkerState {
    /// Its first start has not ended.
    Starting,
    /// Ready, with nothing to do.
    Idle,
    /// Ready, with calls or a lease. It may have room for more calls.
    Busy,
    /// A call did not give up in time: the worker takes no more, and ends when the others have ended or had their time. Or it broke
    /// the protocol, and ends at once.
    Leaving,
    /// It ended after it had been ready; the next one is on its way.
    Restarting,
    /// Its last start failed; the supervisor tries again.
    Failed,
}

impl PoolActor {
    /// The state of the pool, without the memory of its processes.
    pub(crate) fn status(&self) -> PoolStatus {
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
