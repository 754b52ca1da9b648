//! Information about a supervisor's children.

use std::{fmt, time::Instant};

use serde::Serialize;

use super::{
    ChildOptions, ExitReason,
    core::{ChildView, StateView},
};

/// A child, as its supervisor sees it.
///
/// ```no_run
/// # async fn example(app: hatchery::supervisor::Supervisor) -> Result<(), Box<dyn std::error::Error>> {
/// for child in app.which_children().await? {
///     println!("{}: {:?}, restarted {} times", child.options.id, child.state, child.restarts);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ChildInfo {
    /// Its plain settings, with its id.
    pub options: ChildOptions,
    /// Its state.
    pub state: ChildState,
    /// The incarnation that is starting, running or stopping, or was given up as unkillable and lives.
    pub incarnation: Option<u64>,
    /// How often its supervisor has started it, less the first time. A restarted supervisor counts anew.
    pub restarts: u64,
    /// Since when it has been up.
    pub up_since: Option<Instant>,
    /// How its last incarnation under this supervisor ended.
    pub last_exit: Option<ExitReason>,
}

/// The state of a child.
///
/// ```no_run
/// # async fn example(app: hatchery::supervisor::Supervisor) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::supervisor::ChildState;
///
/// let children = app.which_children().await?;
/// let all_up = children.iter().all(|child| child.state == ChildState::Running);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ChildState {
    /// Its factory, or its actor's `started`, runs, for the first time or because a caller asked for it.
    Starting,
    /// It is up.
    Running,
    /// It ended, could not start, or could not be killed, and its supervisor will start it again, or does so now.
    Restarting,
    /// It has been told to end, and lives; also when it is unkillable.
    Stopping,
    /// It is not up and is not started by itself: it has ended for good, was terminated, or declined to start.
    Down,
}

impl fmt::Display for ChildState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChildState::Starting => "starting",
            ChildState::Running => "running",
            ChildState::Restarting => "restarting",
            ChildState::Stopping => "stopping",
            ChildState::Down => "down",
        })
    }
}

impl From<StateView> for ChildState {
    fn from(state: StateView) -> Self {
        match state {
            StateView::Down(_) => ChildState::Down,
            StateView::Starting => ChildState::Starting,
            StateView::Running => ChildState::Running,
            StateView::Restarting => ChildState::Restarting,
            StateView::Stopping => ChildState::Stopping,
        }
    }
}

impl From<ChildView<'_>> for ChildInfo {
    fn from(view: ChildView<'_>) -> Self {
        Self {
            options: view.options.clone(),
            state: view.state.into(),
            incarnation: view.incarnation,
            restarts: view.restarts,
            up_since: view.up_since,
            last_exit: view.last_exit.cloned(),
        }
    }
}

/// How many children a supervisor has.
///
/// ```no_run
/// # async fn example(app: hatchery::supervisor::Supervisor) -> Result<(), Box<dyn std::error::Error>> {
/// let count = app.count_children().await?;
/// println!("{} of {} children run", count.active, count.specs);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChildCount {
    /// Specifications, running or not.
    pub specs: usize,
    /// Children that are up: running, or stopping.
    pub active: usize,
    /// Nested supervisors, running or not.
    pub supervisors: usize,
    /// Actors, running or not.
    pub workers: usize,
}
