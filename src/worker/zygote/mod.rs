//! The zygote: where workers come from faster than by starting a Python.
//!
//! ```text
//!   a worker's factory -- start --> Spawner -- is there a template? -- no --> a cold start
//!                                      |                yes
//!                                      |                 v
//!                                      '-- order --> Zygote (actor) -- fork --> template -- fork --> worker
//! ```
//!
//! A worker and everything above it does not know how its process came to be. The zygote's end ends no worker.

mod actor;
mod spawner;
mod state;
mod trial;

pub(crate) use spawner::Spawner;
pub use state::{ZygoteState, ZygoteStatus};
pub(crate) use trial::Trial;
