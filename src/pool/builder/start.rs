//! The start of a pool.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::oneshot;

use super::PoolBuilder;
use crate::error::{ConfigError, WorkerStartError};
use crate::pool::broker::{BrokerRef, Config, PoolActor, StartupFailure, TellStartup, child_spec};
use crate::pool::client::Pool;
use crate::pool::runtime::{self, PoolThread, Runtime};
use crate::supervisor::{ChildRef, Shutdown, StartError, Strategy, Supervisor};

impl PoolBuilder {
    /// Starts the pool. All workers start side by side; this returns when `min_ready` of them are ready.
    ///
    /// Without [`on_current_arbiter`](PoolBuilder::on_current_arbiter) it may be called from any executor: the pool
    /// gets a thread of its own, an arbiter where an actix System runs, else with a System of its own.
    ///
    /// # Errors
    ///
    /// [`PoolStartError`], after everything that had been started is ended: a setting that cannot be used, or the
    /// first worker that could not start, with Python's traceback or what it printed. With `min_ready(0)` failing
    /// workers are no error here: they are tried again and again, and calls get
    /// [`Unavailable`](crate::CallError::Unavailable) meanwhile.
    pub async fn start(self) -> Result<Pool, PoolStartError> {
        let weak = Arc::new(OnceLock::new());
        let config = self.check(&weak)?;
        let thread = if self.on_current_arbiter {
            PoolThread::current().ok_or_else(|| ConfigError {
                field: "on_current_arbiter",
                value: "set".into(),
                allowed: "only where an actix arbiter runs: in `#[actix::main]`, a System or an Arbiter",
            })?
        } else {
            let thread = PoolThread::new().map_err(|error| config.spawner.explained(error));
            thread.map_err(|error| PoolStartError::Thread(Arc::new(error)))?
        };
        let shared = config.shared.clone();
        let started = thread.run(move || start_tree(config)).await;
        let (root, broker) = match started {
            Some(Ok(started)) => started,
            Some(Err(error)) => {
                thread.stop_and_join().await;
                return Err(error);
            }
            None => return Err(PoolStartError::Stopped),
        };
        let (tell, startup) = oneshot::channel();
        // A broker that is gone drops it, and with it the other end.
        let _ = broker.do_send(TellStartup(tell));
        match startup.await {
            Ok(Ok(())) => {
                let pool = Pool::of_runtime(BrokerRef::new(shared, broker), Runtime::new(root, thread));
                let _ = weak.set(pool.downgrade());
                Ok(pool)
            }
            Ok(Err(cause)) => {
                runtime::end(root, thread).await;
                Err(PoolStartError::Worker(cause))
            }
            Err(_) => {
                runtime::end(root, thread).await;
                Err(PoolStartError::Stopped)
            }
        }
    }
}

/// Starts the pool's tree on this thread.
async fn start_tree(config: Config) -> Result<(Supervisor, ChildRef<PoolActor>), PoolStartError> {
    let (name, zygote) = (config.name.clone(), config.spawner.zygote());
    let serving = Supervisor::builder("serving")
        .strategy(Strategy::OneForAll)
        .supervisor("workers", Supervisor::dynamic("workers"))
        .child_spec(child_spec(config).shutdown(Shutdown::Timeout(Duration::from_secs(5))));
    let mut root = Supervisor::builder(name);
    if let Some(zygote) = zygote {
        root = root.child_spec(zygote);
    }
    let root = root.supervisor("serving", serving).start().await?;
    let broker = root.child("serving/pool").map_err(|_| PoolStartError::Stopped)?;
    Ok((root, broker))
}

/// Why a pool did not start. Nothing of it is left running.
///
/// `{}` writes one line, `{:#}` the whole report: traceback or what was printed, interpreter, search path. `Debug` writes the
/// report too, for a `main` that returns this error.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::{Pool, PoolStartError, StartupFailure};
///
/// match Pool::builder().module("shop").start().await {
///     Err(PoolStartError::Worker(StartupFailure { worker, cause, .. })) => println!("{worker}: {cause}"),
///     Err(error) => println!("{error}"),
///     Ok(pool) => pool.shutdown().await,
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PoolStartError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A worker could not start, or died, before `min_ready` workers were ready.
    #[error(transparent)]
    Worker(#[from] StartupFailure),
    /// The pool's own supervision tree could not start.
    #[error(transparent)]
    Tree(#[from] StartError),
    /// The pool's thread could not start.
    #[error("cannot start the pool's thread: {0}")]
    Thread(Arc<io::Error>),
    /// The arbiter or system that the pool was to live on stopped meanwhile.
    #[error("the arbiter or system stopped during the start")]
    Stopped,
}

impl fmt::Debug for PoolStartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:#}")
    }
}

impl PoolStartError {
    /// Why the worker could not start, when that was the cause.
    pub fn worker_error(&self) -> Option<&WorkerStartError> {
        match self {
            Self::Worker(failure) => Some(&failure.cause),
            _ => None,
        }
    }
}
