//! The pool: checkouts and calls over supervised Python workers.
//!
//! ```text
//!   Supervisor NAME (one_for_one)    the root, or a child in a tree of the user's
//!    |- Zygote "zygote"              the template's owner, if there is one; its death touches no worker
//!    |- Supervisor "serving" (one_for_all)
//!    |   |- Supervisor "workers" (dynamic)
//!    |   |   |- Worker "1" - port - python process group
//!    |   |   `- Worker "n"
//!    |   `- PoolActor "pool"         the broker: queue, leases, status
//!    `- "startup"                    waits until enough workers are ready, and declines to run
//!
//!   a call:   Pool handle -> PoolActor (assign or queue) -> Worker -> Python -> Worker -> the caller
//!   a lease:  Pool::checkout -> PoolActor -> Lease; its calls go straight to the Worker; dropped = checked in
//! ```
//!
//! What decides is `core`, a state machine without clock or I/O; the actor around it only translates.
//! Arguments are encoded and results decoded in the caller's task, never on the pool's own thread.

mod broker;
mod builder;
mod client;
mod core;
mod runtime;

pub use self::core::Affinity;
pub use self::core::bench::CoreBench;
pub use broker::{
    Declaration, PoolActor, PoolStatus, PythonInfo, ReloadError, ReloadWorkers, StartupFailure, WorkerState,
    WorkerStatus,
};
pub use builder::{PoolBuilder, PoolStartError};
pub use client::{
    Call, CallStream, Callee, Checkout, EndSession, GetStatus, HostCall, HostError, HostReply, Lease, Module,
    OpenStream, Pool, Progress, Request, Session,
};
