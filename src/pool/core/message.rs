//! What the core is told and what it answers.

use std::time::{Duration, Instant};

/// Names one request. Unique among the requests that wait; chosen by whoever submits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RequestId(pub(crate) u64);

/// Names one worker: one incarnation of one slot. Within a slot, a later start has a larger incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct WorkerId {
    /// The place in the pool, `0..size`.
    pub(crate) slot: u32,
    /// Which of the slot's starts this is; it grows with each start, a failed one included.
    pub(crate) incarnation: u64,
}

/// How large the pool is. Validated before it gets here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    /// Number of slots, at least 1.
    pub(crate) size: u32,
    /// Ready workers that make the start-up a success, at most `size`; 0 succeeds at once.
    pub(crate) min_ready: u32,
    /// Requests that may wait at once; 0 refuses whatever no worker can take at once.
    pub(crate) queue_bound: usize,
}

/// What happened. `T` is the item of a request, `C` the cause of a worker's failure.
///
/// Events may come late, twice or never: whatever concerns an unknown request, an unknown slot or an incarnation that
/// is over is ignored. The one thing demanded is that a living worker says `WorkerFreed` once for each assignment,
/// since a second one could not be told from the end of the next assignment.
#[derive(Clone, Debug)]
pub(crate) enum Event<T, C> {
    /// A caller wants a worker, and waits for it until `deadline`.
    Submitted { request: RequestId, deadline: Instant, item: T },
    /// The caller went away.
    Abandoned { request: RequestId },
    /// A worker can serve. `busy`: it still serves a call or lease from before a restart of the pool actor, and is
    /// handed out only after its `WorkerFreed`.
    WorkerReady { worker: WorkerId, busy: bool },
    /// The worker's call or lease is over.
    WorkerFreed { worker: WorkerId },
    /// A worker that had been ready ended; its supervisor will start the next incarnation.
    WorkerExited { worker: WorkerId, cause: C },
    /// A start ended before its worker was ready; the supervisor will retry.
    StartFailed { slot: u32, incarnation: u64, cause: C },
    /// The pool shuts down: nothing is handed out any more.
    Closed,
    /// [`Core::next_deadline`](super::Core::next_deadline) has come.
    Tick,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command<T, C> {
    /// Ask the supervisor for the slot's worker. Said once per slot; restarts are the supervisor's.
    StartSlot { slot: u32 },
    /// Give the request to the worker, which is busy from now on.
    Assign { worker: WorkerId, request: RequestId, item: T },
    /// Tell the caller that it gets no worker.
    Reject { request: RequestId, item: T, reason: Rejection<C> },
    /// `min_ready` workers are ready: the start is complete.
    StartupSucceeded,
    /// A start failed, or a worker ended, before `min_ready` were ready: the pool is to be torn down.
    StartupFailed { cause: C },
    /// The pool was closed before its start-up had ended either way.
    StartupAborted,
}

/// Why a request got no worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rejection<C> {
    /// The queue is full.
    Overloaded {
        /// Requests that wait.
        queue_len: usize,
        /// When to try again: the time the ready workers need for the queue as it is, at least 1 s.
        retry_after: Duration,
    },
    /// The deadline of waiting passed.
    TimedOut,
    /// The last start of every slot failed.
    Unavailable {
        /// The most recent failure.
        cause: C,
    },
    /// The pool shuts down.
    Draining,
}
