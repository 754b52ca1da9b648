//! The pure heart of a supervisor: which children to stop and to start, in which order, and when.
//!
//! ```text
//!              +--------------------------- Core ----------------------------+
//!  Event  ---> | machine: one child's state   calls: start/terminate/...     | ---> Command
//!  (now)       | exits: restart or not        plan: serial stops and starts  |
//!              | shutdown: the way out        resize: partitions in use      |
//!              | former: the unkillable       intensity, backoff: the limits | ---> next_deadline()
//!              +-------------------------------------------------------------+
//! ```
//!
//! No clock, no I/O, no actors: time comes in with each event, and whatever is to be done goes out as a list of
//! commands. A start or stop is asynchronous: [`Command::Start`] is answered by `Started`, `StartFailed`,
//! `Declined` or `Ended`, [`Command::Stop`] by `Ended`. A static supervisor works on one [`plan`](plan::Plan)
//! at a time, as OTP's blocks in one operation at a time, and queues what arrives meanwhile; a dynamic one
//! never waits.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod calls;
mod child;
mod children;
mod event;
mod exits;
mod machine;
mod orphan;
mod plan;
mod resize;
mod shutdown;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use child::Down;
pub(crate) use child::{ChildView, Key, StateView};
pub(crate) use event::{Answer, Command, Ending, Event, Order};
pub(crate) use machine::Core;
