//! The broker: the actor that gives requests to workers. It knows no handle: it answers a checkout with a [`Grant`], which the
//! client wraps.
//!
//! ```text
//!   callers --> inbox --> PoolActor --> Core (pure) --> commands: Run, BeginLease to a Worker; a rejection to a caller
//! ```

mod actor;
mod broker_ref;
mod declaration;
mod errors;
mod grant;
mod inbox;
mod messages;
mod reload;
mod slot;
mod status;
mod workers;

#[cfg(test)]
mod actor_tests;

pub use actor::PoolActor;
pub(crate) use actor::{Config, child_spec};
pub(crate) use broker_ref::{BrokerRef, CallDefaults, PoolShared, Submission};
pub use declaration::Declaration;
pub use errors::{ReloadError, StartupFailure};
pub(crate) use grant::{Grant, Opened};
pub(crate) use inbox::{Inbox, QueueItem};
pub use reload::ReloadWorkers;
pub use slot::PythonInfo;
pub use status::{PoolStatus, WorkerState, WorkerStatus};
