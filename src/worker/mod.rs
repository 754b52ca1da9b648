//! The worker: an actor that owns one port and dies with it.
//!
//! ```text
//!         Run, Look, Credit, Grant, Checkin               frames, signals
//!   Pool  ------------------------------------->  Worker  <------------->  python
//!         <-------------------------------------    |  stacks
//!                     WorkerEvent                   '--> the caller: items, progress, the outcome
//! ```
//!
//! A worker is ready from its first moment: its factory ends only when its Python has answered. It
//! never restarts anything: when its process ends, it answers whom it still owes an answer and ends too,
//! with the reason; its supervisor starts the next one.
//!
//! A lease writes its calls to Python itself, at the worker's `desk`, and the worker learns of them there.
//!
//! `running` says, without I/O, when a call is asked for its stack, cancelled and killed.

mod actor;
mod desk;
mod dispatch;
mod host;
mod in_flight;
mod items;
mod messages;
mod progress;
mod reply;
mod running;
mod zygote;

pub(crate) use actor::{Settings, Worker};
pub(crate) use desk::Desk;
pub(crate) use dispatch::{Dispatch, Order, Outcome, ReplyTo, StreamId, Work};
pub(crate) use host::{HostContext, HostFunction, HostFunctions, HostOutcome};
pub(crate) use items::Item;
pub(crate) use messages::{
    BrokerDied, Checkin, Credit, GetLoad, Grant, LeaseId, Load, Look, ReadyWorker, RequestId, Run,
    WorkerEvent, WorkerId,
};
pub(crate) use progress::{UpdateReceiver, UpdateSender, updates};
pub use reply::{Placement, Reply};
pub(crate) use zygote::Spawner;
pub use zygote::{ZygoteState, ZygoteStatus};
