//! Reports: the actions of a supervisor, as typed events.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::Stream;
use tokio::sync::mpsc;

use super::{Cause, ChildOptions, ExitReason};
use crate::error::report::human;

/// Something that a supervisor did or saw.
///
/// ```no_run
/// # async fn example(app: hatchery::supervisor::Supervisor) -> Result<(), Box<dyn std::error::Error>> {
/// let mut reports = app.subscribe();
/// while let Some(report) = reports.recv().await {
///     println!("{}: {:?}", report.supervisor, report.event);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Report {
    /// The path of the supervisor, from the root ("app/pools").
    pub supervisor: Arc<str>,
    /// The settings of the child that it is about, which may be gone for good by now. (OTP: `offender`.) `None` when a
    /// supervisor shuts down because it was asked to, or killed.
    pub child: Option<ChildOptions>,
    /// What happened.
    pub event: ReportEvent,
}

/// The event of a [`Report`].
///
/// Every [`Started`](Self::Started) is followed by exactly one of [`ChildTerminated`](Self::ChildTerminated),
/// [`Stopped`](Self::Stopped), [`ShutdownError`](Self::ShutdownError) of the same incarnation, always before
/// the next `Started` of that child, unless the supervisor is dropped with its arbiter. An
/// [`Unkillable`](Self::Unkillable) child's end is reported when it comes, unless its supervisor has ended before.
///
/// ```no_run
/// # async fn example(app: hatchery::supervisor::Supervisor) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::supervisor::ReportEvent;
///
/// let mut reports = app.subscribe();
/// while let Some(report) = reports.recv().await {
///     if let ReportEvent::ChildTerminated { .. } = report.event {
///         println!("{report}");
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ReportEvent {
    /// A child is up. (OTP: progress.)
    Started {
        /// The child.
        id: Arc<str>,
        /// Rises with every start of that child, also over restarts of its supervisor.
        incarnation: u64,
    },
    /// A child could not start. (OTP: start_error.)
    StartFailed {
        /// The child.
        id: Arc<str>,
        /// Which start of it, the failed ones counted.
        incarnation: u64,
        /// What its factory returned.
        cause: Cause,
        /// When it is tried again; `None`: never.
        retry_in: Option<Duration>,
    },
    /// A child declined to start.
    Declined {
        /// The child.
        id: Arc<str>,
    },
    /// A child ended without being asked to.
    ChildTerminated {
        /// The child.
        id: Arc<str>,
        /// The incarnation that ended.
        incarnation: u64,
        /// Why.
        reason: ExitReason,
    },
    /// A child ended as the supervisor had asked.
    Stopped {
        /// The child.
        id: Arc<str>,
        /// The incarnation that ended.
        incarnation: u64,
    },
    /// A child was asked to stop and ended otherwise: it had to be killed, or failed on the way.
    ShutdownError {
        /// The child.
        id: Arc<str>,
        /// The incarnation that ended.
        incarnation: u64,
        /// How it ended.
        reason: ExitReason,
    },
    /// A child was killed but has not ended: it blocks its thread, and may live on. The supervisor does not wait for it any more, and
    /// nothing is started in its place before it has ended.
    Unkillable {
        /// The child.
        id: Arc<str>,
        /// The incarnation.
        incarnation: u64,
    },
    /// The supervisor ends.
    Shutdown {
        /// Why.
        cause: ShutdownCause,
    },
}

/// Why a supervisor ends.
///
/// ```no_run
/// # async fn example(app: hatchery::supervisor::Supervisor) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::supervisor::{ReportEvent, ShutdownCause};
///
/// let mut reports = app.subscribe();
/// while let Some(report) = reports.recv().await {
///     if let ReportEvent::Shutdown { cause: ShutdownCause::IntensityExceeded { .. }, .. } = report.event {
///         println!("too many restarts: {report}");
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShutdownCause {
    /// It was asked to.
    Requested,
    /// It was killed, or its last handle was dropped.
    Killed,
    /// A child could not start while the supervisor started.
    StartFailed {
        /// The child.
        id: Arc<str>,
    },
    /// Children died more often than the intensity allows.
    IntensityExceeded {
        /// The child that died last.
        id: Arc<str>,
    },
    /// A significant child ended, and auto-shutdown says so.
    AutoShutdown {
        /// The child that ended last.
        id: Arc<str>,
    },
}

impl fmt::Display for ShutdownCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ShutdownCause::Requested => f.write_str("requested"),
            ShutdownCause::Killed => f.write_str("killed"),
            ShutdownCause::StartFailed { id } => write!(f, "`{id}` could not start"),
            ShutdownCause::IntensityExceeded { id } => {
                write!(f, "restart intensity exceeded by `{id}`")
            }
            ShutdownCause::AutoShutdown { id } => write!(f, "significant child `{id}` ended"),
        }
    }
}

/// `{}` writes the cause of a failed start as its own `{}` does, `{:#}` as its `{:#}`.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let supervisor = &self.supervisor;
        match &self.event {
            ReportEvent::Started { id, incarnation } => {
                write!(f, "{supervisor}/{id}: started (incarnation {incarnation})")
            }
            ReportEvent::StartFailed { id, cause, retry_in, .. } => {
                let next = match retry_in {
                    Some(Duration::ZERO) => "; trying again at once".to_owned(),
                    Some(delay) => format!("; trying again in {}", human(*delay)),
                    None => String::new(),
                };
                write!(f, "{supervisor}/{id}: could not start{next}: ")?;
                fmt::Display::fmt(cause, f)
            }
            ReportEvent::Declined { id } => write!(f, "{supervisor}/{id}: declined to start"),
            ReportEvent::ChildTerminated { id, incarnation, reason } => {
                write!(f, "{supervisor}/{id}: ended (incarnation {incarnation}): {reason}")
            }
            ReportEvent::Stopped { id, incarnation } => {
                write!(f, "{supervisor}/{id}: stopped (incarnation {incarnation})")
            }
            ReportEvent::ShutdownError { id, incarnation, reason } => {
                write!(f, "{supervisor}/{id}: did not stop as asked (incarnation {incarnation}): {reason}")
            }
            ReportEvent::Unkillable { id, incarnation } => {
                write!(f, "{supervisor}/{id}: cannot be killed (incarnation {incarnation})")
            }
            ReportEvent::Shutdown { cause } => write!(f, "{supervisor}: shuts down: {cause}"),
        }
    }
}

impl ReportEvent {
    /// The level at which the report is logged.
    pub(crate) fn level(&self) -> log::Level {
        match self {
            ReportEvent::ChildTerminated { reason, .. } if reason.is_normal() => log::Level::Info,
            ReportEvent::ChildTerminated { .. }
            | ReportEvent::StartFailed { .. }
            | ReportEvent::ShutdownError { .. } => log::Level::Warn,
            ReportEvent::Unkillable { .. }
            | ReportEvent::Shutdown {
                cause: ShutdownCause::IntensityExceeded { .. } | ShutdownCause::StartFailed { .. },
            } => log::Level::Error,
            ReportEvent::Started { .. } | ReportEvent::Declined { .. } | ReportEvent::Shutdown { .. } => {
                log::Level::Info
            }
            ReportEvent::Stopped { .. } => log::Level::Debug,
        }
    }
}

/// A subscription to the reports of a supervisor and of all below it, from
/// [`SupervisorRef::subscribe`](super::SupervisorRef::subscribe).
///
/// Unbounded: a reader that stops reading should drop it. It ends when the supervisor can never run again.
///
/// ```no_run
/// # async fn example(app: hatchery::supervisor::Supervisor) -> Result<(), Box<dyn std::error::Error>> {
/// let mut reports = app.subscribe();
/// while let Some(report) = reports.recv().await {
///     println!("{report}");
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Reports {
    receiver: mpsc::UnboundedReceiver<Report>,
}

impl Reports {
    pub(crate) fn new(receiver: mpsc::UnboundedReceiver<Report>) -> Self {
        Self { receiver }
    }

    /// The next report; `None` at the end.
    pub async fn recv(&mut self) -> Option<Report> {
        self.receiver.recv().await
    }

    /// The next report that has already been made, without waiting.
    pub fn try_recv(&mut self) -> Option<Report> {
        self.receiver.try_recv().ok()
    }
}

impl Stream for Reports {
    type Item = Report;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Report>> {
        self.receiver.poll_recv(cx)
    }
}
