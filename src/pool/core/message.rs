//! The events and commands of the core.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::OverloadCause;
use crate::worker::Placement;

pub(crate) use crate::worker::{RequestId, WorkerId};

/// How strongly a session's calls are tied to the worker that holds its state.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::Affinity;
///
/// let alice = pool.session("alice").affinity(Affinity::StrictQueue);
/// let cart: Vec<String> = alice.call("add", ("pen",)).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Affinity {
    /// The session's own worker when it has free capacity, else any other. The answer of another worker says
    /// [`Placement::Elsewhere`]. For state that is a cache and can be made again.
    #[default]
    Hint,
    /// The session's own worker and no other: the call waits for it, up to its deadline, even while others are
    /// free. A session that begins takes the first worker that it gets.
    StrictQueue,
    /// The session's own worker and no other: when it has no free capacity, the call is rejected at once. A session that
    /// begins takes the first worker that it gets, and waits for one.
    StrictFailFast,
}

/// The session that a request belongs to.
#[derive(Clone, Debug)]
pub(crate) struct SessionUse {
    /// Its name.
    pub(crate) session: Arc<str>,
    /// How strongly the request is tied to its worker.
    pub(crate) affinity: Affinity,
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SessionEnd {
    /// A caller ended it; or its own worker died, and other workers drop their state of it.
    Ended,
    /// It was not used for its time to live.
    Expired,
    /// There were too many, and it was the one not used for longest.
    Evicted,
}

impl SessionEnd {
    /// As the wire has it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Expired => "expired",
            Self::Evicted => "evicted",
        }
    }
}

/// How large the pool is. Validated before it gets here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    /// Number of slots, at least 1.
    pub(crate) size: u32,
    /// Ready workers that make the start-up a success, at most `size`; 0 succeeds at once.
    pub(crate) min_ready: u32,
    /// Calls that a worker has at most, at least 1.
    pub(crate) in_flight: u32,
    /// Requests that may wait at once; with 0 a request that no worker can take at once is rejected.
    pub(crate) queue_bound: usize,
    /// While the requests that wait hold so many bytes, or more, no other may wait; at least 1.
    pub(crate) queue_bytes: u64,
    /// A session that is not used for so long is over; more than zero.
    pub(crate) session_ttl: Duration,
    /// Sessions known at once, lost ones included; with 0 every request of a session is rejected.
    pub(crate) max_sessions: usize,
}

/// What happened. `T` is the item of a request, `C` the cause of a worker's failure.
///
/// Events may come late, twice or never: the core ignores events of an unknown request, an unknown slot or a worker that
/// has ended.
#[derive(Clone, Debug)]
pub(crate) enum Event<T, C> {
    /// A caller wants a worker, for `session` if there is one, and waits until `deadline`.
    /// `exclusive`: a checkout, which needs all capacity of an idle worker.
    /// `bytes`: the size of its arguments.
    Submitted {
        request: RequestId,
        deadline: Instant,
        item: T,
        bytes: u64,
        session: Option<SessionUse>,
        exclusive: bool,
    },
    /// A caller has a request whose arguments it has not encoded yet, and asks whether there is room for it. The answer is
    /// [`Command::Admit`] or a rejection. It promises nothing: the request may still be rejected when it is submitted.
    Announced { request: RequestId, item: T },
    /// The caller left without an answer.
    Abandoned { request: RequestId },
    /// The caller of a request that was rejected with [`Rejection::SessionLost`] has taken that answer.
    LossHeard { request: RequestId },
    /// The assignment never reached the worker's Python, because its caller had left. It comes instead of `WorkerFreed`, and
    /// the request counts as abandoned in the queue. A call of the same session that was assigned meanwhile keeps its
    /// placement.
    Unassigned { worker: WorkerId, request: RequestId },
    /// The session is over. Its running calls go on; waiting and later ones begin the session anew.
    EndSession { session: Arc<str>, item: T },
    /// A worker is ready. It is idle, and has state of no session.
    WorkerReady { worker: WorkerId },
    /// This call or lease of the worker is over.
    WorkerFreed { worker: WorkerId, request: RequestId },
    /// The worker takes no more. Its calls end by `WorkerFreed`, or with the worker.
    WorkerLeaving { worker: WorkerId },
    /// A worker that had been ready ended; its supervisor will start the next one.
    WorkerExited { worker: WorkerId, cause: C },
    /// A start ended before its worker was ready; the supervisor will retry.
    StartFailed { worker: WorkerId, cause: C },
    /// The pool shuts down: nothing is dispatched any more.
    Closed,
    /// [`Core::next_deadline`](super::Core::next_deadline) has come.
    Tick,
}

/// What the broker shall do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command<T, C> {
    /// Ask the supervisor for the slot's worker. Said once per slot; restarts are the supervisor's.
    StartSlot { slot: u32 },
    /// Give the request to the worker. `placement` is for a request of a session.
    Assign { worker: WorkerId, request: RequestId, item: T, placement: Option<Placement> },
    /// Tell these workers, perhaps none, that the session is over. `item` comes from [`Event::EndSession`]; without it
    /// there is at least one worker.
    EndSession { workers: Vec<WorkerId>, session: Arc<str>, cause: SessionEnd, item: Option<T> },
    /// Tell the caller of an announced request to submit it.
    Admit { item: T },
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
    /// The queue is full; or the request begins a session, and all sessions that may be known are in use.
    Overloaded {
        /// Which bound was reached.
        cause: OverloadCause,
        /// Requests that wait.
        queue_len: usize,
        /// The bytes of their arguments.
        queue_bytes: u64,
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
    /// The worker that held the session's state died. Every request of the session gets this until one of their callers has
    /// heard it ([`Event::LossHeard`]); the next request begins the session anew.
    SessionLost {
        /// Its name.
        session: Arc<str>,
    },
    /// The request does not want to wait, and the session's own worker has no free capacity, or an older request for it.
    SessionBusy {
        /// Its name.
        session: Arc<str>,
        /// When to try again: the time that worker needs for its calls and its pinned requests, at least 1 s.
        retry_after: Duration,
    },
}
