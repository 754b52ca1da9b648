//! What the core is told and what it answers.

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
    /// The session's own worker when it has a free place, else any other that has. The answer then says
    /// [`Placement::Elsewhere`]: for state that is a cache and can be made again.
    #[default]
    Hint,
    /// The session's own worker and no other: the call waits for it, up to its deadline, even while others are
    /// free. A session that begins takes the first worker that it gets.
    StrictQueue,
    /// The session's own worker and no other: when that has no free place, the call is refused at once. A session that
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
    /// Its user said so; or its own worker died, and the others that served it are to drop what they have of it.
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
    /// Requests that may wait at once; 0 refuses whatever no worker can take at once.
    pub(crate) queue_bound: usize,
    /// While the requests that wait hold so many bytes, or more, no other may wait; at least 1.
    pub(crate) queue_bytes: u64,
    /// A session that is not used for so long is over; more than zero.
    pub(crate) session_ttl: Duration,
    /// Sessions known at once, those included whose state is lost; 0 refuses all requests that belong to one.
    pub(crate) max_sessions: usize,
}

/// What happened. `T` is the item of a request, `C` the cause of a worker's failure.
///
/// Events may come late, twice or never: the core ignores whatever concerns an unknown request, an unknown slot or a
/// worker that has ended.
#[derive(Clone, Debug)]
pub(crate) enum Event<T, C> {
    /// A caller wants a place at a worker, for `session` if there is one, and waits for it until `deadline`.
    /// `exclusive`: it wants all of the worker, which then serves nothing beside it.
    /// `bytes`: what it holds while it waits.
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
    /// The caller went away. It has heard nothing.
    Abandoned { request: RequestId },
    /// The caller of a request that was rejected with [`Rejection::SessionLost`] has taken that answer.
    LossHeard { request: RequestId },
    /// Nothing of this assignment came to the worker's Python, since there was nobody any more to serve; told instead of
    /// `WorkerFreed`. It is as if the caller had left while it waited; only a call of its session that was assigned
    /// meanwhile has heard already where the session lives.
    Unassigned { worker: WorkerId, request: RequestId },
    /// The session is over. A call of it that runs goes on; one that waits begins it anew, as one that is yet to
    /// come does.
    EndSession { session: Arc<str>, item: T },
    /// A worker can serve. It serves nothing yet, and has state of no session.
    WorkerReady { worker: WorkerId },
    /// This call of the worker's, or its lease, is over.
    WorkerFreed { worker: WorkerId, request: RequestId },
    /// The worker takes no more. What it serves ends by `WorkerFreed`, or with the worker.
    WorkerLeaving { worker: WorkerId },
    /// A worker that had been ready ended; its supervisor will start the next one.
    WorkerExited { worker: WorkerId, cause: C },
    /// A start ended before its worker was ready; the supervisor will retry.
    StartFailed { worker: WorkerId, cause: C },
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
    /// Give the request to the worker, one of whose places it takes from now on, or all of them. `placement` is for a request of a session.
    Assign { worker: WorkerId, request: RequestId, item: T, placement: Option<Placement> },
    /// Tell these workers, perhaps none, that the session is over. `item` is the one of [`Event::EndSession`]; without
    /// it there is at least one worker.
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
        /// Which of these.
        cause: OverloadCause,
        /// Requests that wait.
        queue_len: usize,
        /// Bytes that they hold.
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
    /// The worker that held the session's state died. Every request of the session is told so until one of their callers
    /// has heard it ([`Event::LossHeard`]); the next request begins the session anew.
    SessionLost {
        /// Its name.
        session: Arc<str>,
    },
    /// The request would not wait, and the session's own worker has no free place, or owes it to somebody who waits.
    SessionBusy {
        /// Its name.
        session: Arc<str>,
        /// When to try again: the time that worker needs for what it has room for and for those who wait for it alone,
        /// at least 1 s.
        retry_after: Duration,
    },
}
