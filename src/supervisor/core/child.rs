//! One child, as the core sees it.

use std::{sync::Arc, time::Instant};

use super::{
    super::{ChildOptions, ExitReason, ReportEvent},
    event::Command,
};

/// A child of a supervisor. The order of keys is the start order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// Rises with each declaration.
    pub(super) order: u64,
    /// Where it is kept. Another child may come there later, with an order of its own.
    pub(super) place: u32,
}

/// Why a child is not running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Down {
    /// It was never started, or its group is being restarted.
    Idle,
    /// By `terminate_child`.
    Terminated,
    /// It ended by itself for good. A restart of its group leaves it alone.
    Finished,
    /// It declined to start.
    Declined,
}

/// Why a child is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopping {
    /// Its start was cancelled.
    Cancelled,
    /// It was asked.
    Asked,
    /// It was killed, as its specification says.
    Brutal,
    /// It did not stop when asked, and was then killed.
    TimedOut,
}

#[derive(Debug)]
pub(super) enum State {
    Down(Down),
    /// Its orphan lives: it is started when that has ended, and fails at the time of its timer.
    Blocked {
        incarnation: u64,
    },
    Starting {
        incarnation: u64,
    },
    Running {
        incarnation: u64,
    },
    /// It has ended, and the supervisor has yet to look at that.
    Dead {
        incarnation: u64,
        reason: ExitReason,
    },
    /// It waits for its next start, at the time of its timer.
    Restarting,
    Stopping {
        incarnation: u64,
        how: Stopping,
    },
}

/// A caller that waits for a child's first start.
#[derive(Debug)]
pub(super) struct Starter<C> {
    pub(super) caller: C,
    /// Whether the specification add_orphan a failure: true for `restart_child`.
    pub(super) keep: bool,
}

#[derive(Debug)]
pub(super) struct Child<T, C> {
    pub(super) key: Key,
    pub(super) options: ChildOptions,
    pub(super) payload: T,
    pub(super) state: State,
    pub(super) timer: Option<Instant>,
    /// Deaths and failed starts in a row, for the back-off.
    pub(super) deaths: u32,
    pub(super) up_since: Option<Instant>,
    pub(super) starts: u64,
    /// Whether the start in progress is a retry of the supervisor's own.
    pub(super) is_again: bool,
    pub(super) last_exit: Option<ExitReason>,
    pub(super) starter: Option<Starter<C>>,
}

impl<T, C> Child<T, C> {
    pub(super) fn new(key: Key, options: ChildOptions, payload: T) -> Self {
        Self {
            key,
            options,
            payload,
            state: State::Down(Down::Idle),
            timer: None,
            deaths: 0,
            up_since: None,
            starts: 0,
            is_again: false,
            last_exit: None,
            starter: None,
        }
    }

    /// A report on this child.
    pub(super) fn report(&self, event: impl FnOnce(Arc<str>) -> ReportEvent) -> Command<T, C> {
        Command::Report { event: event(self.options.id.clone()), child: Some(self.options.clone()) }
    }

    /// Whether a task of this child exists, its orphan not counted.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.state, State::Starting { .. } | State::Running { .. } | State::Stopping { .. })
    }

    /// Whether it has ended, or could not start, and its supervisor is about to start it.
    pub(super) fn is_restarting(&self) -> bool {
        matches!(self.state, State::Restarting | State::Dead { .. })
    }
}

/// The state of a child, for questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StateView {
    Down(Down),
    Starting,
    Running,
    Restarting,
    Stopping,
}

impl StateView {
    /// Whether the child counts as active: a start in progress does not.
    pub(crate) fn is_active(self) -> bool {
        matches!(self, StateView::Running | StateView::Stopping)
    }
}

/// A child, for questions.
#[derive(Debug)]
pub(crate) struct ChildView<'a> {
    pub(crate) options: &'a ChildOptions,
    pub(crate) state: StateView,
    pub(crate) incarnation: Option<u64>,
    pub(crate) restarts: u64,
    pub(crate) up_since: Option<Instant>,
    pub(crate) last_exit: Option<&'a ExitReason>,
}

impl<T, C> Child<T, C> {
    /// `orphan`: the incarnation of its orphan, if it has one.
    pub(super) fn view(&self, orphan: Option<u64>) -> ChildView<'_> {
        let (state, incarnation) = match &self.state {
            State::Down(_) if orphan.is_some() => (StateView::Stopping, orphan),
            State::Down(down) => (StateView::Down(*down), None),
            State::Starting { incarnation } if self.is_again => (StateView::Restarting, Some(*incarnation)),
            State::Starting { incarnation } => (StateView::Starting, Some(*incarnation)),
            State::Running { incarnation } => (StateView::Running, Some(*incarnation)),
            State::Dead { .. } | State::Restarting | State::Blocked { .. } => (StateView::Restarting, orphan),
            State::Stopping { incarnation, .. } => (StateView::Stopping, Some(*incarnation)),
        };
        ChildView {
            options: &self.options,
            state,
            incarnation,
            restarts: self.starts.saturating_sub(1),
            up_since: self.up_since.filter(|_| self.is_live()),
            last_exit: self.last_exit.as_ref(),
        }
    }
}
