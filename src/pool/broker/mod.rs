//! The broker: the actor that gives requests to workers. It knows no handle: it answers a checkout with a [`Grant`], which the
//! client wraps.
//!
//! ```text
//!   callers --> inbox --> PoolActor --> Core (pure) --> commands: Run, BeginLease to a Worker; a rejection to a caller
//! ```

mod actor;
mod broker_ref;
mod declaration;
mod grant;
mod inbox;
mod messages;
mod reload;
mod status;
mod workers;

#[cfg(test)]
mod actor_tests;

pub(crate) use actor::{Config, child_spec};
pub use actor::{PoolActor, StartupFailure};
pub(crate) use broker_ref::{BrokerRef, CallDefaults, Shared, Submission};
pub use declaration::Declaration;
pub(crate) use grant::Grant;
pub(crate) use inbox::{Inbox, Opened, QueueItem};
pub use reload::{ReloadError, ReloadWorkers};
pub use status::{PoolStatus, PythonInfo, WorkerState, WorkerStatus};
