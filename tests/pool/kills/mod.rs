//! Processes that are killed or stopped from outside: one worker, many workers under load, and the host.

mod host;
pub(crate) mod namespace;
mod storm;
mod worker;
