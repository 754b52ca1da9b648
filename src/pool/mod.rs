//! The pool: checkouts and calls over supervised Python workers.
//!
//! ```text
//!   Supervisor NAME (one_for_one)
//!    |- Zygote "zygote"             the template's owner, if there is one; its death touches no worker
//!    `- Supervisor "serving" (one_for_all)
//!        |- Supervisor "workers" (dynamic)
//!        |   |- Worker "1" - port - python process group
//!        |   `- Worker "n"
//!        `- PoolActor "pool"        the broker: queue, leases, status
//!
//!   a call:   Pool handle -> PoolActor (assign or queue) -> Worker -> Python -> Worker -> the caller
//!   a lease:  Pool::checkout -> PoolActor -> Lease; its calls go straight to the Worker; dropped = checked in
//! ```
//!
//! What decides is `core`, a state machine without clock or I/O; the actor around it only translates.
//! Arguments are encoded and results decoded in the caller's task, never on the pool's own thread.

mod actor;
mod answer;
mod builder;
mod core;
mod declared;
mod handle;
mod home;
mod host;
mod inbox;
mod lease;
mod messages;
mod progress;
mod reload;
mod request;
mod session;
mod status;
mod stream;

#[cfg(test)]
mod actor_tests;

pub use self::core::Affinity;
pub use actor::{PoolActor, StartupFailure};
pub use builder::{PoolBuilder, PoolStartError};
pub use declared::{Declaration, Module};
pub use handle::Pool;
pub use host::{HostCall, HostError, HostReply};
pub use lease::Lease;
pub use messages::{Call, Checkout, EndSession, GetStatus};
pub use progress::Progress;
pub use reload::{ReloadError, ReloadWorkers};
pub use request::Request;
pub use session::Session;
pub use status::{PoolStatus, PythonInfo, WorkerState, WorkerStatus};
pub use stream::CallStream;
