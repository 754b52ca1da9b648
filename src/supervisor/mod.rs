//! OTP supervision for any actix actor; knows nothing of Python.
//!
//! ```text
//!  Supervisor (root handle) --kills when dropped--+
//!  SupervisorRef ---- calls, questions ------+    |
//!                                            v    v          +--> child task: ContextFut of one actor
//!  Reports <---- events ------------- supervisor task --orders
//!                                     (core inside)  <--ends-+--> supervisor task of a nested one
//!  ChildRef ---- messages ---> slot ---> Addr of the incarnation that is up
//! ```
//!
//! A supervisor is a task that owns the tasks of its children. [`ChildSpec`] says how a child is started,
//! restarted and stopped; [`SupervisorBuilder`] puts children under a supervisor; [`Supervisor`] is the running
//! tree. [`ExitReason`] says what a panic, a stop or a kill means.

mod actor;
mod backoff;
mod builder;
mod child;
mod context;
mod control;
mod core;
mod error;
mod handle;
mod info;
mod intensity;
mod mailbox;
mod options;
mod partition;
mod reason;
mod registry;
mod report;
mod shared;
mod slot;
mod spec;
mod tree;

pub use backoff::Backoff;
pub use builder::SupervisorBuilder;
pub use context::ChildContext;
pub use error::{
    Cause, ChildError, Declined, LookupError, NameTaken, SendError, SpecError, StartError, StartFailure,
    StopTimedOut,
};
pub use handle::{Supervisor, SupervisorRef};
pub use info::{ChildCount, ChildInfo, ChildState};
pub use options::{AutoShutdown, ChildOptions, Kind, Restart, Shutdown, Strategy};
pub use partition::Partitions;
pub use reason::ExitReason;
pub use report::{Report, ReportEvent, Reports, ShutdownCause};
pub use slot::{ChildRecipient, ChildRef};
pub use spec::{ChildSpec, Supervised};
pub use tree::Tree;
