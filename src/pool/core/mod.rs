//! The pool as a pure state machine: what happened goes in, what is to be done comes out.
//!
//! No clock, no I/O, no actor: time is an argument, so thousands of interleavings are tested in milliseconds. The
//! actor around it translates messages to [`Event`]s, carries out [`Command`]s, and wakes it at
//! [`Core::next_deadline`].
//!
//! ```text
//!            Event                     Core                      Command
//!   Submitted, Abandoned --> +-----------------------+
//!                            | queue     who waits,  | --> Reject
//!   Tick, Closed ----------> |           until when  |
//!                            | machine   the rules   | --> StartupSucceeded, StartupFailed, StartupAborted
//!   WorkerReady, -Freed, --> | slots     who serves  |
//!   -Leaving, -Exited,       |           and what    | --> StartSlot
//!   StartFailed              | openings  who can     |
//!                            |           serve more  |
//!   Unassigned ------------> | hand_out  who gets    | --> Assign
//!                            |           which       |
//!                            | sessions  whose state | --> EndSession
//!   EndSession ------------> |           lives where |
//!                            | affinity  their rules |
//!                            +-----------------------+
//! ```
//!
//! A slot is a place for one worker; the supervisor fills it again and again, each time with a new incarnation:
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
//! A reload starts a worker of the next generation beside the slot's own. Until that one is ready, nothing is heard of it
//! here, and the slot is served as ever; from then on, whatever is heard of an older generation is over, though its
//! supervisor may have started it later. To the core it is one more WorkerReady: see [`WorkerId`].
//!
//! While every slot is Failed, requests are refused as unavailable; in all other states they wait for a worker.
//!
//! # Who gets which worker
//!
//! A worker has `in_flight` places; a call takes one of them. A request goes to the least loaded worker that has a free
//! place, among equals to the one used last. One that is exclusive, a lease, takes a worker that serves nothing, and all
//! of its places. Whoever finds none waits: in the common line, or, if only one worker will do, in that one's own.
//!
//! A worker takes whoever has waited longest of all that it may serve, and nobody else. If that one is exclusive and the
//! worker is not empty, it takes nobody at all until it is. So while the first of the common line is exclusive, nobody
//! behind it is assigned, and all workers empty until one is; while the first of a worker's own line is, and has waited
//! longer than the first of the common line, that worker empties. That is the price of leases that do not starve,
//! however many calls come. Their deadlines send them away all the same.
//!
//! # Sessions
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
//!
//! A call that its worker drops before Python has it is taken back as if it had never been assigned, and a session that
//! was to begin with it has not begun. One that Python has but never runs counts as one that ran: whoever comes next is
//! told that the session was kept, and finds it empty.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod affinity;
mod hand_out;
mod machine;
mod message;
mod openings;
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
