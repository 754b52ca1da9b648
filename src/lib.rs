#![doc = include_str!("../README.md")]
//!
//! # Where to begin
//!
//! [`Pool::builder`] starts a pool, [`Pool::call`] calls a function, [`CallError`] says what can go wrong. Supervision of
//! your own actors is in [`supervisor`].

#[cfg(not(target_os = "linux"))]
compile_error!("hatchery needs Linux: pidfd and the lifeline have no equivalent elsewhere yet");

mod budget;
mod error;
mod pool;
mod port;
pub mod supervisor;
mod text;
mod timer;
mod worker;

pub use error::{
    CallContext, CallError, ConfigError, Direction, HostCallCause, Phase, StartPhase, UnavailableCause,
    WorkerStartError,
};
pub use pool::{
    Affinity, Call, CallStream, Checkout, Declaration, EndSession, GetStatus, HostCall, HostError, HostReply,
    Lease, Module, Pool, PoolActor, PoolBuilder, PoolStartError, PoolStatus, Progress, PythonInfo,
    ReloadError, ReloadWorkers, Request, Session, StartupFailure, WorkerState, WorkerStatus,
};
pub use port::{
    Array, Buffer, BufferMut, Codec, Element, Function, Memory, Parameter, ParameterKind, ShapeError,
};
pub use worker::{Placement, Reply, ZygoteState, ZygoteStatus};

/// For `fuzz/` only.
#[cfg(fuzzing)]
#[doc(hidden)]
pub use port::fuzzing;

/// The guides' snippets are compiled with the tests.
#[cfg(doctest)]
mod guides {
    #[doc = include_str!("../docs/getting-started.md")]
    struct GettingStarted;

    #[doc = include_str!("../docs/payloads.md")]
    struct Payloads;

    #[doc = include_str!("../docs/supervision.md")]
    struct Supervision;

    #[doc = include_str!("../docs/zygote.md")]
    struct Zygote;
}
