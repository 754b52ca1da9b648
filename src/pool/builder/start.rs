//! The start of a pool.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context};

use super::PoolBuilder;
use crate::error::{ConfigError, WorkerStartError};
use crate::pool::broker::{BrokerRef, Config, StartupFailure, child_spec};
use crate::pool::client::Pool;
use crate::pool::runtime::{PoolThread, Runtime};
use crate::supervisor::{
    ChildSpec, Declined, Shutdown, StartError, Strategy, Supervisor, SupervisorBuilder, SupervisorRef,
};

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
        let config = self.check()?;
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
        let broker = BrokerRef::new(config.shared.clone());
        let id = config.name.clone();
        match thread.run(move || tree(&id, config).start()).await {
            Some(Ok(root)) => Ok(Pool::owning(broker, Runtime::new(root, thread))),
            Some(Err(error)) => {
                thread.stop_and_join().await;
                let cause = error.cause.downcast_ref::<PoolStartError>().cloned();
                Err(cause.unwrap_or(PoolStartError::Tree(error)))
            }
            None => Err(PoolStartError::Stopped),
        }
    }

    /// The pool as a child of a supervisor of yours, and a handle on it.
    ///
    /// The child is a supervisor of this id, with all of the pool below it. It has started when `min_ready` workers are ready,
    /// so that siblings which are declared later find a pool that serves; a start that fails is a
    /// [`StartError`] whose cause is a [`PoolStartError`]. Your supervisor restarts it by its strategy, and stops it in order:
    /// calls that run may finish within the pool's shutdown timeout (5 s). It lives on the supervisor's arbiter, or on its own
    /// with [`on_dedicated_arbiter`](ChildSpec::on_dedicated_arbiter);
    /// [`on_current_arbiter`](PoolBuilder::on_current_arbiter) has no effect.
    ///
    /// The handle and its clones follow restarts, and do not keep the pool alive: only the supervisor ends it. Before the
    /// pool's first start, calls get [`Unavailable`](crate::CallError::Unavailable). The specification may be in one tree at a
    /// time: while the pool runs, another start of it fails.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use hatchery::{Pool, supervisor::Supervisor};
    ///
    /// let (spec, pool) = Pool::builder().module("textstats").path("python").child_spec("texts")?;
    /// let app = Supervisor::builder("app").child_spec(spec).start().await?;
    /// let words: u64 = pool.call("count_words", ("to be or not to be",)).await?;
    /// println!("{}", app.tree().await?);
    /// app.stop().await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// A setting that cannot be used. A wrong `id` is found by the supervisor.
    pub fn child_spec(self, id: impl AsRef<str>) -> Result<(ChildSpec<SupervisorRef>, Pool), ConfigError> {
        let config = self.check()?;
        let pool = Pool::of(BrokerRef::new(config.shared.clone()), 0);
        Ok((tree(id.as_ref(), config).into(), pool))
    }
}

/// The tree of a pool. See [`crate::pool`] for a picture.
fn tree(id: &str, config: Config) -> SupervisorBuilder {
    let (zygote, broker) = (config.spawner.zygote(), BrokerRef::new(config.shared.clone()));
    let serving = Supervisor::builder("serving")
        .strategy(Strategy::OneForAll)
        .supervisor("workers", Supervisor::dynamic("workers"))
        .child_spec(child_spec(config).shutdown(Shutdown::Timeout(Duration::from_secs(5))));
    let mut root = Supervisor::builder(id);
    if let Some(zygote) = zygote {
        root = root.child_spec(zygote);
    }
    root.supervisor("serving", serving).child_spec(startup(broker))
}

/// The actor of a child that never runs.
enum Never {}

impl Actor for Never {
    type Context = Context<Self>;
}

/// A child that has started when enough workers are ready. It declines to run then, since there is nothing left to do.
fn startup(broker: BrokerRef) -> ChildSpec<Never> {
    ChildSpec::new("startup", move || {
        let startup = broker.startup();
        async move {
            match startup.await {
                Ok(Ok(())) => Err::<Never, Box<dyn Error + Send + Sync>>(Declined.into()),
                Ok(Err(failure)) => Err(PoolStartError::Worker(failure).into()),
                // The broker has ended.
                Err(_) => Err(PoolStartError::Stopped.into()),
            }
        }
    })
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
