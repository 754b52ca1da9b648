// Where the front page's links lead in this documentation; of two definitions Markdown takes the first. See `guide.rs`.
//! [actix_web]: guide::examples::actix_web
//! [batching]: guide::batching
//! [benchmarks]: guide::benchmarks
//! [changelog]: guide::changelog
//! [deployment]: guide::deployment
//! [design]: guide::design
//! [errors]: guide::errors
//! [examples]: guide::examples
//! [faults]: guide::faults
//! [getting-started]: guide::getting_started
//! [otp-and-actix]: guide::otp_and_actix
//! [otp-cases]: guide::otp_cases
//! [payloads]: guide::payloads
//! [python-workers]: guide::python_workers
//! [security]: guide::security
//! [supervision]: guide::supervision
//! [when-not]: guide::when_not
//! [wire-protocol]: guide::wire_protocol
//! [zygote]: guide::zygote
//! [license-apache]: https://www.apache.org/licenses/LICENSE-2.0
//! [license-mit]: https://opensource.org/license/mit
#![doc = ""]
#![doc = include_str!("../README.md")]
//!
//! # Where to begin
//!
//! [`Pool::builder`] starts a pool, [`Pool::call`] calls a function, [`CallError`] says what can go wrong. Supervision of
//! your own actors is in [`supervisor`]. The guides are in [`guide`].

#[cfg(not(target_os = "linux"))]
compile_error!("hatchery needs Linux: pidfd and the parent-death signal have no equivalent elsewhere yet");

#[cfg(test)]
mod api_tests;
mod budget;
mod error;
#[cfg(any(doc, doctest))]
pub mod guide;
mod pool;
mod port;
pub mod supervisor;
mod text;
mod timer;
mod worker;

pub use error::{
    CallContext, CallError, ConfigError, Direction, HostCallCause, OverloadCause, Phase, StartPhase,
    UnavailableCause, WorkerStartError,
};
pub use pool::{
    Affinity, Call, CallStream, Callee, Checkout, Declaration, EndSession, GetStatus, HostCall, HostError,
    HostReply, Lease, Module, OpenStream, Pool, PoolActor, PoolBuilder, PoolStartError, PoolStatus, Progress,
    PythonInfo, ReloadError, ReloadWorkers, Request, Session, StartupFailure, WorkerState, WorkerStatus,
};
pub use port::{
    Array, Buffer, BufferMut, Codec, Element, Function, Memory, Parameter, ParameterKind, ShapeError,
    ZygoteState, ZygoteStatus,
};
pub use worker::{Placement, Reply};

/// For `fuzz/` only.
#[cfg(fuzzing)]
#[doc(hidden)]
pub use port::fuzzing;
