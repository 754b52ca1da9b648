//! The pool's handle. Its methods are in `methods`.

use std::fmt;
use std::sync::Arc;

use crate::pool::broker::BrokerRef;
use crate::pool::runtime::Runtime;

/// A handle on a running pool of Python workers: cheap to clone, usable from any thread and any executor.
///
/// The pool ends when [`shutdown`](Pool::shutdown) is called, or when its last `Pool` and [`Lease`](crate::Lease) are dropped:
/// then its workers are killed, without waiting.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::Pool;
///
/// let pool = Pool::builder().module("textstats").path("python").start().await?;
/// let words: u64 = pool.call("count_words", ("to be or not to be",)).await?;
/// pool.shutdown().await;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Pool {
    broker: BrokerRef,
    /// The pool's tree and thread. `None` when a supervisor of the user's owns them.
    runtime: Option<Arc<Runtime>>,
    /// How many host calls the calls of this handle are nested in.
    depth: u32,
}

impl Pool {
    /// The handle of a started pool, which ends with its handles.
    pub(crate) fn owning(broker: BrokerRef, runtime: Runtime) -> Self {
        let runtime = Arc::new(runtime);
        broker.set_runtime(&runtime);
        Self { broker, runtime: Some(runtime), depth: 0 }
    }

    /// One more handle of this broker's pool. Its calls are nested in `depth` host calls.
    pub(crate) fn of(broker: BrokerRef, depth: u32) -> Self {
        let runtime = broker.runtime();
        Self { broker, runtime, depth }
    }

    pub(super) fn broker(&self) -> &BrokerRef {
        &self.broker
    }

    pub(super) fn runtime(&self) -> Option<&Arc<Runtime>> {
        self.runtime.as_ref()
    }

    pub(super) fn depth(&self) -> u32 {
        self.depth
    }

    /// The pool's name, as in the log and in [`PoolStatus`](crate::PoolStatus).
    pub fn name(&self) -> &str {
        &self.broker.settings().pool
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("name", &self.name()).finish_non_exhaustive()
    }
}
