//! What the core tells about itself, for a status page.

use std::time::{Duration, Instant};

use super::message::WorkerId;
use super::slots::SlotState;

/// The pool in numbers. Reading it costs nothing: the core keeps them as it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Slots: `starting + idle + busy + leaving + down + failed`.
    pub(crate) size: u32,
    /// Slots whose first start has not ended.
    pub(crate) starting: u32,
    /// Ready workers with nothing to do.
    pub(crate) idle: u32,
    /// Ready workers that serve a call or lease.
    pub(crate) busy: u32,
    /// Workers that end what they serve, take no more, and will end.
    pub(crate) leaving: u32,
    /// Slots whose worker ended after it was ready, and is being replaced.
    pub(crate) down: u32,
    /// Slots whose last start failed.
    pub(crate) failed: u32,
    /// Calls and leases that workers serve.
    pub(crate) in_flight: u32,
    /// Requests in the queue.
    pub(crate) waiting: usize,
    /// Sessions whose state lives on a worker.
    pub(crate) sessions: usize,
    /// From assignment to end of work, the recent ones weighing more; `None` before the first one ended.
    pub(crate) mean_run: Option<Duration>,
    /// The shutdown has begun.
    pub(crate) closed: bool,
    /// Since this core was made.
    pub(crate) totals: Totals,
}

impl Counts {
    /// Workers that can serve: `idle + busy`.
    pub(crate) fn ready(&self) -> u32 {
        self.idle + self.busy
    }
}

/// What became of the requests: `submitted` is the sum of the others and of those that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// All that came.
    pub(crate) submitted: u64,
    /// Got a worker.
    pub(crate) assigned: u64,
    /// Refused, the queue being full.
    pub(crate) overloaded: u64,
    /// Waited until their deadline.
    pub(crate) timed_out: u64,
    /// Left by their caller, or late, before a worker's Python had them.
    pub(crate) abandoned: u64,
    /// Refused or sent away since no worker could start.
    pub(crate) unavailable: u64,
    /// Refused or sent away by the shutdown.
    pub(crate) draining: u64,
    /// Refused or sent away, the session's worker having died.
    pub(crate) session_lost: u64,
    /// Refused, the session's worker being busy.
    pub(crate) session_busy: u64,
}

/// One slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotStatus<'a, C> {
    /// Its place, `0..size`.
    pub(crate) slot: u32,
    /// The newest worker heard of; `None` before its first start ended.
    pub(crate) worker: Option<WorkerId>,
    /// What it does.
    pub(crate) state: &'a SlotState<C>,
    /// Since when it does that. A failure renewed by a retry counts from the retry.
    pub(crate) since: Instant,
}
