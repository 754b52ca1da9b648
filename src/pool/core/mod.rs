//! The pool as a pure state machine: what happened goes in, what is to be done comes out.
//!
//! No clock, no I/O, no actor: time is an argument, so thousands of interleavings are tested in milliseconds. The
//! actor around it translates messages to [`Event`]s, carries out [`Command`]s, and wakes it at
//! [`Core::next_deadline`].
//!
//! ```text
//!            Event                     Core                      Command
//!   Submitted, Abandoned --> +-----------------------+
//!                            | queue     who waits,  | --> Assign, Reject
//!   Tick, Closed ----------> |           until when  |
//!                            | machine   the rules   | --> StartupSucceeded, StartupFailed, StartupAborted
//!   WorkerReady, -Freed, --> | slots     who serves  |
//!   WorkerExited,            |           and how     | --> StartSlot
//!   StartFailed              |                       |
//!                            | sessions  whose state | --> EndSession
//!   EndSession ------------> |           lives where |
//!                            | affinity  their rules |
//!                            +-----------------------+
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
//!
//! A session is bound to the worker that serves its first request, and to no other until it is over:
//!
//! ```text
//!    Submitted            Assign: New              WorkerExited
//!   ----------> Nowhere -------------> At its home -------------> Lost --+
//!                  |                     |                               | the next one who asks: SessionLost,
//!       all its    |                     | EndSession, expired,          | EndSession, expired, evicted
//!       waiters    |                     | evicted                       v
//!       gave up    `---------------------+---------------------------> unknown
//! ```
//!
//! One that is in use (a request of it waits or runs) neither expires nor is evicted. Whoever waits when its home dies
//! is the one who asks next; whoever waits when it is ended begins it anew.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod affinity;
mod machine;
mod message;
mod queue;
mod reload;
mod sessions;
mod slots;
mod status;

pub(crate) use machine::Core;
pub use message::Affinity;
pub(crate) use message::{Command, Config, Event, Rejection, RequestId, SessionEnd, SessionUse, WorkerId};
pub(crate) use reload::{Reload, ReloadFailure, ReloadStep};
pub(crate) use slots::SlotState;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
