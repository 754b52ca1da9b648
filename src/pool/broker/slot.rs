//! What the broker knows of its workers beyond the core.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use serde::Serialize;
use tokio::sync::{Notify, oneshot};

use super::errors::ReloadError;
use crate::pool::core::{Reload, WorkerId};
use crate::port::{Function, Ready};
use crate::worker::{CallTable, Worker};

/// A slot as the broker knows it; the core knows its state.
pub(super) struct Slot {
    pub(super) name: Arc<str>,
    /// How often its worker was replaced by a reload: each replacement is another child in the tree.
    pub(super) generation: u32,
    /// The worker that the core knows to live.
    pub(super) current: Option<Current>,
    pub(super) restarts: u64,
    pub(super) last_exit: Option<String>,
}

pub(super) struct Current {
    pub(super) worker: WorkerId,
    pub(super) addr: Addr<Worker>,
    pub(super) calls: Arc<CallTable>,
    pub(super) pid: u32,
    pub(super) forked: bool,
    pub(super) python: Arc<PythonInfo>,
}

/// A reload that runs.
pub(super) struct RunningReload {
    pub(super) order: Reload,
    pub(super) done: oneshot::Sender<Result<(), ReloadError>>,
    /// The worker that is being replaced, if there is one.
    pub(super) former: Option<Current>,
    /// Notified when the worker that is being replaced has finished a call or a lease.
    pub(super) freed: Arc<Notify>,
}

impl RunningReload {
    /// A worker has finished a call or a lease, or has ended.
    pub(super) fn freed(&mut self, worker: WorkerId) {
        if self.former.as_ref().is_some_and(|former| former.worker == worker) {
            self.freed.notify_one();
        }
    }
}

/// What a worker's Python reports when it is ready.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// for worker in pool.status().await?.workers {
///     if let Some(python) = worker.python {
///         println!("Python {}, imported in {:?}", python.version, python.import_time);
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct PythonInfo {
    /// Its version, such as `3.11.7`.
    pub version: String,
    /// What can be called.
    pub functions: Vec<Function>,
    /// How long the module's import took.
    pub import_time: Duration,
    /// Its resident memory after the import, in bytes.
    pub baseline_rss_bytes: Option<u64>,
}

impl From<Ready> for PythonInfo {
    fn from(ready: Ready) -> Self {
        Self {
            version: ready.python,
            functions: ready.functions,
            import_time: Duration::try_from_secs_f64(ready.import_ms / 1e3).unwrap_or_default(),
            baseline_rss_bytes: ready.rss_bytes,
        }
    }
}
