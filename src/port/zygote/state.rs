//! The state of a zygote, shared by all threads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix::Addr;
use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::actor::Zygote;
use super::template::{Template, TemplateSpec};
use crate::error::WorkerStartError;
use crate::port::process::memory_use::Memory;
use crate::text::{escaped, escaped_lines};

/// After this many failures in a row the pool starts its workers cold.
const MOST_FAILURES: u32 = 3;
/// After this many hangs of forked workers that have not answered any call, the pool starts its workers cold.
const MOST_HANGS: u32 = 3;
/// How many workers are asked of a template at once, which forks one after the other. Each has twelve descriptors open
/// here until it is forked, or fourteen, and seven or eight after that.
const MOST_ORDERS: usize = 8;

/// A pool's zygote at one moment, in [`PoolStatus`](crate::PoolStatus).
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// if let Some(zygote) = pool.status().await?.zygote {
///     println!("{:?}: {} workers forked, {} forks failed", zygote.state, zygote.forked, zygote.failed_forks);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ZygoteStatus {
    /// What it does.
    pub state: ZygoteState,
    /// The template's process id, when it is ready.
    pub pid: Option<u32>,
    /// How long the imports took in it, `@on_preload` hooks included.
    pub import_time: Option<Duration>,
    /// Templates that had been ready and ended without being asked to.
    pub restarts: u64,
    /// Workers that were forked and became ready.
    pub forked: u64,
    /// Workers whose fork failed: they were killed, and started cold.
    pub failed_forks: u64,
    /// Why the last fork failed, or the last template ended or could not start.
    pub last_failure: Option<String>,
    /// Threads, open files and modules in the template that may not survive a fork.
    pub warnings: Vec<String>,
    /// The template's memory, when it is ready. Only [`Pool::status`](crate::Pool::status) looks.
    pub memory: Option<Memory>,
}

/// What a zygote does.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::ZygoteState;
///
/// if let Some(ZygoteState::Disabled { reason }) = pool.status().await?.zygote.map(|zygote| zygote.state) {
///     println!("workers are started cold: {reason}");
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ZygoteState {
    /// Its first template imports; workers wait for it.
    Starting,
    /// Workers are forked.
    Ready,
    /// The template ended, and the next one imports; workers are started cold meanwhile.
    Restarting,
    /// It failed too often, calls hang in forked workers, or this Python cannot fork workers. Workers are started cold until a [`reload`](crate::Pool::reload).
    Disabled {
        /// Why.
        reason: String,
    },
}

/// ZygoteInfo by the zygote's actor and all who want a worker of it.
pub(super) struct ZygoteInfo {
    pub(super) spec: TemplateSpec,
    facts: Mutex<Facts>,
    /// How the first template's start ended.
    first: watch::Sender<Option<Result<(), Arc<WorkerStartError>>>>,
    turns: Semaphore,
}

struct Facts {
    actor: Option<Addr<Zygote>>,
    status: ZygoteStatus,
    failures: u32,
    /// Which code the template has imported: a reload counts up.
    code: u64,
    /// A forked worker has answered a call: what this code imports survives a fork.
    proven: bool,
    hangs: u32,
    /// When the last hang was counted.
    hung_at: Option<Instant>,
}

impl ZygoteInfo {
    pub(super) fn new(spec: TemplateSpec) -> Self {
        let status = ZygoteStatus {
            state: ZygoteState::Starting,
            pid: None,
            import_time: None,
            restarts: 0,
            forked: 0,
            failed_forks: 0,
            last_failure: None,
            warnings: Vec::new(),
            memory: None,
        };
        let facts = Mutex::new(Facts {
            actor: None,
            status,
            failures: 0,
            code: 0,
            proven: false,
            hangs: 0,
            hung_at: None,
        });
        Self { spec, facts, first: watch::Sender::new(None), turns: Semaphore::new(MOST_ORDERS) }
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn status(&self) -> ZygoteStatus {
        self.facts().status.clone()
    }

    pub(super) fn is_disabled(&self) -> bool {
        matches!(self.facts().status.state, ZygoteState::Disabled { .. })
    }

    /// The actor, in any state.
    pub(super) fn actor(&self) -> Option<Addr<Zygote>> {
        self.facts().actor.clone()
    }

    pub(super) fn set_actor(&self, actor: Option<Addr<Zygote>>) {
        self.facts().actor = actor;
    }

    /// The actor, if it has a template.
    pub(super) fn ready_actor(&self) -> Option<Addr<Zygote>> {
        let facts = self.facts();
        if facts.status.state == ZygoteState::Ready { facts.actor.clone() } else { None }
    }

    /// Waits until the first template's start has ended. An error for those who waited for one that failed: they
    /// would fail likewise, only later.
    pub(super) async fn first(&self) -> Result<(), Arc<WorkerStartError>> {
        let mut first = self.first.subscribe();
        if first.borrow().is_some() {
            return Ok(());
        }
        match first.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Err(cause))) => Err(cause.clone()),
            _ => Ok(()),
        }
    }

    /// Waits until a worker may be asked of the template.
    pub(super) async fn turn(&self) -> SemaphorePermit<'_> {
        self.turns.acquire().await.expect("nobody closes it")
    }

    /// Failures of the former code do not count against the present one.
    pub(super) fn forgive(&self) {
        let mut facts = self.facts();
        facts.failures = 0;
        facts.hangs = 0;
        facts.hung_at = None;
        facts.proven = false;
        facts.code += 1;
    }

    /// Which code workers are forked with now.
    pub(super) fn code(&self) -> u64 {
        self.facts().code
    }

    /// A worker that was forked with this code has answered a call.
    pub(super) fn answered(&self, code: u64) {
        let mut facts = self.facts();
        facts.proven |= facts.code == code;
    }

    /// A call hung in a worker that was forked with this code and has not answered any call. Returns whether such workers are to be
    /// replaced by cold ones.
    pub(super) fn hung(&self, code: u64, worker: &str, since: Instant) -> bool {
        let mut facts = self.facts();
        if matches!(facts.status.state, ZygoteState::Disabled { .. }) {
            return true;
        }
        // Calls that hang at the same time count as one hang, and so does a call that times out and is then killed.
        if facts.code != code || facts.proven || facts.hung_at.is_some_and(|at| since <= at) {
            return false;
        }
        facts.hangs += 1;
        facts.hung_at = Some(Instant::now());
        let why = format!("{worker}: a call hung, and no forked worker has answered a call yet");
        log::warn!(target: "hatchery::zygote", "{why}");
        facts.status.last_failure = Some(why);
        if facts.hangs < MOST_HANGS {
            return false;
        }
        let reason = format!(
            "{MOST_HANGS} calls in a row hung in forked workers, and none was answered: what the module imports or computes at the \
             import does not survive a fork"
        );
        facts.disable(&self.spec.name, reason);
        true
    }

    /// Workers are forked of this one now.
    pub(super) fn template_ready(&self, template: &Template) {
        let ready = template.ready();
        {
            let mut facts = self.facts();
            let status = &mut facts.status;
            status.state = ZygoteState::Ready;
            status.pid = Some(template.pid());
            status.import_time = Duration::try_from_secs_f64(ready.import_ms / 1e3).ok();
            status.warnings.clone_from(&ready.warnings);
        }
        for warning in &ready.warnings {
            log::warn!(target: "hatchery::zygote", "{}: {}", self.spec.name, escaped(warning));
        }
        self.first.send_if_modified(|first| first.is_none() && first.replace(Ok(())).is_none());
    }

    /// No worker can be forked of any template of this Python.
    pub(super) fn cannot_fork(&self, why: &str) {
        {
            let mut facts = self.facts();
            facts.status.last_failure = Some(why.to_owned());
            facts.disable(&self.spec.name, why.to_owned());
        }
        self.first.send_if_modified(|first| first.is_none() && first.replace(Ok(())).is_none());
    }

    /// A template could not start. Whether another one should be tried.
    pub(super) fn template_failed(&self, cause: &Arc<WorkerStartError>) -> bool {
        log::warn!(target: "hatchery::zygote", "{}: the template could not start: {}", self.spec.name, escaped_lines(&format!("{cause:#}")));
        let again = {
            let mut facts = self.facts();
            facts.status.last_failure = Some(format!("the template could not start: {cause}"));
            facts.status.state = ZygoteState::Restarting;
            facts.fail(&self.spec.name)
        };
        let failed = |first: &mut Option<_>| first.is_none() && first.replace(Err(cause.clone())).is_none();
        self.first.send_if_modified(failed);
        again
    }

    /// The template that workers were forked of has ended. Whether another one should be tried. `forking`: it was to
    /// fork, which counts as a failure: what it has imported may be why.
    pub(super) fn template_ended(&self, how: &str, forking: bool) -> bool {
        let mut facts = self.facts();
        let status = &mut facts.status;
        status.pid = None;
        status.restarts += 1;
        let when = if forking { ", while it was to fork" } else { "" };
        status.last_failure = Some(format!("the template ended: {how}{when}"));
        if status.state == ZygoteState::Ready {
            status.state = ZygoteState::Restarting;
        }
        !forking || facts.fail(&self.spec.name)
    }

    pub(super) fn forked(&self) {
        let mut facts = self.facts();
        facts.failures = 0;
        facts.status.forked += 1;
    }

    /// A forked worker did not become ready, though a cold one does. Whether more should be forked.
    pub(super) fn fork_failed(&self, worker: &str, why: &str) -> bool {
        log::warn!(target: "hatchery::zygote", "{worker}: {}; it was started cold", escaped_lines(why));
        let mut facts = self.facts();
        facts.status.failed_forks += 1;
        facts.status.last_failure = Some(format!("{worker}: {why}"));
        facts.fail(&self.spec.name)
    }
}

impl Facts {
    fn fail(&mut self, name: &str) -> bool {
        self.failures += 1;
        if self.failures < MOST_FAILURES {
            return true;
        }
        let last = self.status.last_failure.clone().unwrap_or_default();
        self.disable(name, format!("{} failures in a row, the last one: {last}", self.failures));
        false
    }

    fn disable(&mut self, name: &str, reason: String) {
        log::error!(target: "hatchery::zygote", "{name}: workers are started cold from now on: {}", escaped_lines(&reason.to_string()));
        self.status.state = ZygoteState::Disabled { reason };
        self.status.pid = None;
    }
}
