//! The worker: an actor that owns one port and dies with it.
//!
//! ```text
//!         Run, Wake, Credit, BeginLease, EndLease               frames, signals
//!   Pool  ------------------------------------->  Worker  <------------->  python
//!         <-------------------------------------    |  stacks
//!                     WorkerEvent                   '--> the caller: items, progress, the outcome
//! ```
//!
//! A worker is ready from its first moment: its factory ends only when its Python has answered. It
//! never restarts anything: when its process ends, it answers whom it still owes an answer and ends too,
//! with the reason; its supervisor starts the next one.
//!
//! A lease writes its calls to Python itself, through the worker's `call_table`. `call_state` says, without I/O, when a call is
//! asked for its stack, cancelled and killed; `life` says the same of the worker.

mod actor;
mod call;
mod call_state;
mod call_table;
mod host;
mod ids;
mod items;
mod life;
mod messages;
mod progress;
mod reply;

pub(crate) use actor::{Settings, Worker};
pub(crate) use call::{ItemSender, Outcome, PendingCall, StreamId, Work};
pub(crate) use call_table::CallTable;
pub(crate) use host::{HostContext, HostFunction, HostFunctions, HostOutcome};
pub(crate) use ids::{LeaseId, RequestId, WorkerId};
pub(crate) use items::Item;
pub(crate) use messages::{
    BeginLease, BrokerDied, Credit, EndLease, GetLoad, Load, ReadyWorker, Run, Wake, WorkerEvent,
};
pub(crate) use progress::{UpdateReceiver, UpdateSender, updates};
pub use reply::{Placement, Reply};
