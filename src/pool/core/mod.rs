//! The pool as a pure state machine: what happened goes in, what is to be done comes out.
//!
//! No clock, no I/O, no actor: time is an argument, so thousands of interleavings are tested in milliseconds. The
//! actor around it translates messages to [`Event`]s, carries out [`Command`]s, and wakes it at
//! [`Core::next_deadline`].
//!
//! ```text
//!            Event                     Core                       Command
//!   Submitted, Abandoned --> +------------------------+
//!                            | queue      requests    |
//!   Tick, Closed ----------> | machine    the rules   | --> Reject, Admit
//!                            | slots      workers     | --> StartupSucceeded, StartupFailed, StartupAborted
//!   WorkerReady, -Freed, --> | available  workers     |
//!   -Leaving, -Exited,       |            with free   | --> StartSlot
//!   StartFailed              |            capacity    |
//!   Unassigned ------------> | dispatch   who serves  | --> Assign
//!                            |            which       |
//!   EndSession ------------> | sessions, affinity     | --> EndSession
//!                            +------------------------+
//! ```
//!
//! # The rules of the queue
//!
//! 1. A worker has capacity for `in_flight` calls. A checkout is *exclusive*: it takes all capacity of an idle worker.
//! 2. A request goes to the least loaded worker with free capacity, among equals to the one used last.
//! 3. A request that gets no worker waits: in the *shared queue*, or, if only one worker may serve it, in that worker's *pinned
//!    queue*. Older requests have lower tickets.
//! 4. A worker takes the oldest request that it may serve: the older of the first shared and its first pinned request.
//! 5. If that request is exclusive and the worker is not idle, the worker takes nothing until it is idle. So checkouts do not
//!    starve, however many calls come; their deadlines bound the wait.
//! 6. While the last start of every slot has failed, requests are rejected as unavailable. In all other states they wait.
//!
//! # Slots
//!
//! A slot is the place of one worker; its supervisor fills it again and again, each time with a new incarnation:
//!
//! ```text
//!                     WorkerReady          Assign               WorkerLeaving
//!   Starting ----------------+-----> Idle <------> Busy ---+------------------> Leaving
//!      |                     |         |   Freed           |                       |
//!      | StartFailed         |         +------+------------+-----------------------+
//!      v                     |                | WorkerExited
//!   Failed ------------------+                v
//!      ^                     +------------- Down
//!      +------------ StartFailed -------------+
//! ```
//!
//! A reload starts a worker of the next generation beside the slot's own. The core hears of it when it is ready: one more
//! WorkerReady. From then on events of an older generation are stale, see [`WorkerId`].
//!
//! # Sessions
//!
//! The worker that serves the first request of a session is its owner until the session is over:
//!
//! ```text
//!    Submitted            Assign: New              WorkerExited
//!   ----------> Nowhere -------------> At its owner ------------> Lost --+
//!                  |                     |                               | the next request: SessionLost,
//!     all requests |                     | EndSession, expired,          | EndSession, expired, evicted
//!     abandoned    |                     | evicted                       v
//!                  `---------------------+---------------------------> unknown
//! ```
//!
//! A session in use (a request of it waits or runs) neither expires nor is evicted. Requests that wait when the owner dies get
//! SessionLost; requests that wait when the session is ended begin it anew.
//!
//! An assignment that never reached the worker's Python is undone, and a session that was to begin with it has not begun. A
//! call that Python has but never runs counts as one that ran: the next request finds the session kept, and empty.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod affinity;
mod available;
pub mod bench;
mod dispatch;
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
