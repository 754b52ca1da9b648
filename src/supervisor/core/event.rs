//! What goes into the core and what comes out.

use std::sync::Arc;

use super::{
    super::{Cause, ChildError, ChildOptions, ExitReason, ReportEvent},
    child::Key,
};

/// What has happened, or what somebody wants. `T` is what the shell keeps with a child, `C` a caller.
#[derive(Debug)]
pub(crate) enum Event<T, C> {
    /// Start the declared children.
    Boot,
    Started {
        child: Key,
        incarnation: u64,
    },
    StartFailed {
        child: Key,
        incarnation: u64,
        cause: Cause,
    },
    Declined {
        child: Key,
        incarnation: u64,
    },
    /// It was not started, since an instance that an earlier supervisor has left behind lives. The end of that
    /// will be told by `Ended`.
    StillRuns {
        child: Key,
        incarnation: u64,
        former: u64,
    },
    /// The incarnation has done what it is for: its back-off starts afresh.
    Settled {
        child: Key,
        incarnation: u64,
    },
    /// The child's future is gone, whatever it was doing.
    Ended {
        child: Key,
        incarnation: u64,
        reason: ExitReason,
    },
    StartChild {
        options: ChildOptions,
        payload: T,
        caller: C,
    },
    TerminateChild {
        id: Arc<str>,
        caller: C,
    },
    RestartChild {
        id: Arc<str>,
        caller: C,
    },
    DeleteChild {
        id: Arc<str>,
        caller: C,
    },
    /// Use so many of the partitions.
    Resize {
        size: usize,
        caller: C,
    },
    /// A deadline has passed.
    Tick,
    /// End in order.
    Stop,
    /// End at once.
    Kill,
}

/// How a child's task is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// As by `ctx.stop()`.
    Ask,
    /// At once.
    Kill,
}

/// What the shell has to do.
#[derive(Debug)]
pub(crate) enum Command<T, C> {
    Start {
        child: Key,
        incarnation: u64,
    },
    Stop {
        child: Key,
        order: Order,
    },
    Reply {
        caller: C,
        result: Result<Answer, ChildError>,
    },
    Report {
        event: ReportEvent,
        /// The child that it is about, which may be gone.
        child: Option<ChildOptions>,
    },
    /// The child was killed in vain: no message should go there any more, and nothing takes its place while it lives.
    GaveUp {
        child: Key,
        incarnation: u64,
    },
    /// Nobody will start this child by itself.
    Down {
        child: Key,
    },
    /// The child's specification is gone, or was refused.
    Removed(T),
    /// The child has ended, and so will the supervisor.
    Done(T),
    /// So many partitions are in use.
    Resized(usize),
    /// All declared children are up.
    Booted,
    /// The supervisor has ended; nothing follows.
    Finished(Ending),
}

/// What a successful call gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Started { incarnation: u64 },
    Declined,
    Done,
    Resized { former: usize },
}

/// How a supervisor ends.
#[derive(Debug, Clone)]
pub(crate) enum Ending {
    /// After it had been up.
    Ended(ExitReason),
    /// While it started: the child that could not start, and why.
    NotStarted { id: Arc<str>, cause: Cause },
}
