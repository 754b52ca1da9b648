//! The pool as a pure state machine: what happened goes in, what is to be done comes out.
//!
//! No clock, no I/O, no actor: time is an argument, so thousands of interleavings are tested in milliseconds. The
//! actor around it translates messages to [`Event`]s, carries out [`Command`]s, and wakes it at
//! [`Core::next_deadline`].
//!
//! ```text
//!            Event                    Core                     Command
//!   Submitted, Abandoned --> +---------------------+
//!                            | queue    who waits, | --> Assign, Reject
//!   Tick, Closed ----------> |          until when |
//!                            | machine  the rules  | --> StartupSucceeded, StartupFailed, StartupAborted
//!   WorkerReady, -Freed, --> | slots    who serves |
//!   WorkerExited,            |          and how    | --> StartSlot
//!   StartFailed              +---------------------+
//! ```
//!
//! A slot is a place for one worker; the supervisor fills it again and again, each time with a new incarnation:
//!
//! ```text
//!                     WorkerReady          Assign
//!   Starting ----------------+-----> Idle <------> Busy
//!      |                     |         |   Freed     |
//!      | StartFailed         |         +------+------+
//!      v                     |                | WorkerExited
//!   Failed ------------------+                v
//!      ^                     +------------- Down
//!      +------------ StartFailed -------------+
//! ```
//!
//! While every slot is Failed, requests are refused as unavailable; in all other states they wait for a worker.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod machine;
mod message;
mod queue;
mod slots;
mod status;

pub(crate) use machine::Core;
pub(crate) use message::{Command, Config, Event, Rejection, RequestId, WorkerId};
pub(crate) use slots::SlotState;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
