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
#![cfg_attr(feature = "python", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "python"),
    doc = "Supervision alone, without the `python` feature: see [`supervisor`]."
)]
//!
//! # Where to begin
//!
//! `Pool::builder` starts a pool, `Pool::call` calls a function, `CallError` says what can go wrong. Supervision of
//! your own actors is in [`supervisor`]. The guides are in `guide`.

#[cfg(all(feature = "python", not(target_os = "linux")))]
compile_error!(
    "hatchery's pools need Linux: pidfd and the parent-death signal have no equivalent elsewhere yet; \
     `default-features = false` gives supervision alone"
);

#[cfg(all(test, feature = "python"))]
mod api_tests;
#[cfg_attr(not(feature = "python"), allow(dead_code))] // most of it is for pools alone
mod budget;
#[cfg_attr(not(feature = "python"), allow(dead_code))] // parts of it are for pools alone
mod error;
mod guard;
#[cfg(all(feature = "python", any(doc, doctest)))]
pub mod guide;
#[cfg(feature = "python")]
mod pool;
#[cfg(feature = "python")]
mod port;
pub mod supervisor;
#[cfg_attr(not(feature = "python"), allow(dead_code))] // parts of it are for pools alone
mod text;
#[cfg_attr(not(feature = "python"), allow(dead_code))] // parts of it are for pools alone
mod timer;
#[cfg(feature = "python")]
mod worker;

#[cfg(feature = "python")]
pub use error::{
    CallContext, CallError, ConfigError, Direction, HostCallCause, OverloadCause, Phase, StartPhase,
    UnavailableCause, WorkerStartError,
};
#[cfg(feature = "python")]
pub use pool::{
    Affinity, Call, CallStream, Callee, Checkout, Declaration, EndSession, GetStatus, HostCall, HostError,
    HostReply, Lease, Module, OpenStream, Pool, PoolActor, PoolBuilder, PoolStartError, PoolStatus, Progress,
    PythonInfo, ReloadError, ReloadWorkers, Request, Session, StartupFailure, WorkerState, WorkerStatus,
};
#[cfg(feature = "python")]
pub use port::{
    Array, Buffer, BufferMut, Codec, Element, Function, Memory, Parameter, ParameterKind, ShapeError,
    ZygoteState, ZygoteStatus,
};
#[cfg(feature = "python")]
pub use worker::{Placement, Reply};

/// For `benches/core.rs` only.
#[cfg(feature = "python")]
#[doc(hidden)]
pub use pool::CoreBench;

/// For `fuzz/` only.
#[cfg(all(feature = "python", fuzzing))]
#[doc(hidden)]
pub use port::fuzzing;
