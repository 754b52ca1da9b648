//! Processes that are killed or stopped from outside: one worker, many under load, and the host itself.

mod host;
pub(crate) mod namespace;
mod storm;
mod worker;
