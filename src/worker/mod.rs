//! The worker: an actor that owns one port and dies with it.
//!
//! ```text
//!            Attach, Run, Grant, Checkin                  frames
//!   Pool  ----------------------------->  Worker  <------------------>  python
//!         <-----------------------------    |
//!                 WorkerEvent               '--> the caller's oneshot
//! ```
//!
//! A worker is ready from its first moment: its factory ends only when its Python has answered. It
//! never restarts anything: when its process ends, it answers whom it still owes an answer and ends too,
//! with the reason; its supervisor starts the next one.

mod actor;
mod dispatch;

pub(crate) use actor::{Attach, Attached, Checkin, Grant, LeaseId, Run, Worker, WorkerEvent};
pub(crate) use dispatch::Dispatch;
