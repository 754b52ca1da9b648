//! The events and commands of the core.

use std::sync::Arc;

use super::{
    super::{Cause, ChildError, ChildOptions, ExitReason, ReportEvent},
    child::Key,
};

/// What has happened, or what a caller wants. `T` is the shell's data of a child, `C` a caller.
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
    /// It was not started, since an orphan of an earlier supervisor lives. `Ended` will report the orphan's end.
    StillRuns {
        child: Key,
        incarnation: u64,
        orphan: u64,
    },
    /// The incarnation has done its work: its back-off starts afresh.
    Settled {
        child: Key,
        incarnation: u64,
    },
    /// The child's future has ended or was dropped.
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
    /// Use this many of the partitions.
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

/// What the shell shall do.
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
    /// The child could not be killed: it gets no more messages, and nothing takes its place while it lives.
    GaveUp {
        child: Key,
        incarnation: u64,
    },
    /// The supervisor will not start this child by itself.
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

/// The answer of a successful call.
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
