//! The errors that are the broker's own.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::error::{UnavailableCause, WorkerStartError};

/// Why a worker could not start. `{}` writes one line, `{:#}` and `Debug` the whole report.
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
#[derive(Clone)]
#[non_exhaustive]
pub struct StartupFailure {
    /// The worker's name.
    pub worker: String,
    /// Why.
    pub cause: Arc<WorkerStartError>,
}

impl fmt::Display for StartupFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {} could not start: ", self.worker)?;
        fmt::Display::fmt(&self.cause, f)
    }
}

impl fmt::Debug for StartupFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:#}")
    }
}

impl Error for StartupFailure {}

/// Why a reload did not replace all workers. `{}` writes one line, `{:#}` and `Debug` the whole report.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::ReloadError;
///
/// match pool.reload().await {
///     Err(ReloadError::RolledBack { .. }) => println!("the new code does not start; the old code serves on"),
///     other => other?,
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum ReloadError {
    /// The new template, or the first new worker, could not start. Nothing has changed: the old workers serve on.
    RolledBack {
        /// Why.
        cause: Arc<WorkerStartError>,
    },
    /// A later worker could not start. Those that were replaced serve the new code, the others the old one.
    Partial {
        /// How many serve the new code.
        replaced: u32,
        /// Why the next one does not.
        cause: Arc<WorkerStartError>,
    },
    /// Another reload runs.
    Running,
    /// The pool has ended, or its broker was restarted meanwhile.
    Unavailable(UnavailableCause),
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RolledBack { cause } => {
                f.write_str("the new code does not start, the old workers serve on: ")?;
                fmt::Display::fmt(cause, f)
            }
            Self::Partial { replaced, cause } => {
                write!(f, "only {replaced} workers were replaced: ")?;
                fmt::Display::fmt(cause, f)
            }
            Self::Running => f.write_str("another reload runs"),
            Self::Unavailable(cause) => {
                f.write_str("the reload was cut short: ")?;
                fmt::Display::fmt(cause, f)
            }
        }
    }
}

impl fmt::Debug for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:#}")
    }
}

impl Error for ReloadError {}
