//! OTP-style supervision for actix, and a pool of supervised Python workers.

mod error;
mod pool;
mod port;
pub mod supervisor;
mod timer;
mod worker;

pub use error::{CallError, ConfigError, Phase, StartPhase, UnavailableCause, WorkerStartError};
pub use pool::{
    Call, Checkout, GetStatus, Lease, Pool, PoolActor, PoolBuilder, PoolStartError, PoolStatus, PythonInfo, Reply,
    Request, StartupFailure, WorkerState, WorkerStatus,
};
pub use port::{Function, Parameter, ParameterKind};
