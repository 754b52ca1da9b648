//! The options of children and supervisors: plain data, without factories.

use std::{fmt, sync::Arc, time::Duration};

use serde::Serialize;

use super::Backoff;

/// Which children a supervisor restarts when one of them dies.
///
/// ```
/// use hatchery::supervisor::{Strategy, Supervisor};
///
/// let app = Supervisor::builder("app").strategy(Strategy::RestForOne);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Strategy {
    /// Only the dead child. The default.
    #[default]
    OneForOne,
    /// All children: the others are stopped, newest to oldest, then all are started, oldest to newest.
    OneForAll,
    /// The dead child and those declared after it.
    RestForOne,
}

/// Whether a child is started again after it has ended.
///
/// ```
/// # struct Db;
/// # impl actix::Actor for Db { type Context = actix::Context<Self>; }
/// use hatchery::supervisor::{ChildSpec, Restart};
/// use std::convert::Infallible;
///
/// let db = ChildSpec::new("db", || async { Ok::<_, Infallible>(Db) }).restart(Restart::Transient);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Restart {
    /// Always, also after a normal end. The default.
    #[default]
    Permanent,
    /// Unless it ended normally or by a requested shutdown; its specification is kept.
    Transient,
    /// Never; its specification goes with it.
    Temporary,
}

/// How a child is stopped.
///
/// ```
/// # struct Db;
/// # impl actix::Actor for Db { type Context = actix::Context<Self>; }
/// use hatchery::supervisor::{ChildSpec, Shutdown};
/// use std::convert::Infallible;
///
/// let db = ChildSpec::new("db", || async { Ok::<_, Infallible>(Db) }).shutdown(Shutdown::Brutal);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Killed at once: neither `stopping` nor `stopped` runs.
    Brutal,
    /// Asked to stop as by `ctx.stop()`, and killed when it has not ended in this time. The default for
    /// actors, with 5 s.
    Timeout(Duration),
    /// Asked to stop, and waited for without a limit. The default for supervisors.
    Infinity,
}

/// The kind of a child.
///
/// ```
/// # struct Db;
/// # impl actix::Actor for Db { type Context = actix::Context<Self>; }
/// use hatchery::supervisor::{ChildSpec, Kind};
/// use std::convert::Infallible;
///
/// let db = ChildSpec::new("db", || async { Ok::<_, Infallible>(Db) });
/// assert_eq!(db.options().kind, Kind::Worker);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An actor.
    Worker,
    /// A nested supervisor.
    Supervisor,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Worker => "worker",
            Kind::Supervisor => "supervisor",
        })
    }
}

/// When the end of its [significant](super::ChildSpec::significant) children ends a supervisor.
///
/// ```
/// use hatchery::supervisor::{AutoShutdown, Supervisor};
///
/// let job = Supervisor::builder("job").auto_shutdown(AutoShutdown::AnySignificant);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AutoShutdown {
    /// Never. The default; no child may then be significant.
    #[default]
    Never,
    /// As soon as one significant child has ended by itself for good.
    AnySignificant,
    /// When the last significant child has ended by itself for good.
    AllSignificant,
}

/// The part of a child's specification that is plain data.
///
/// ```
/// # struct Db;
/// # impl actix::Actor for Db { type Context = actix::Context<Self>; }
/// use hatchery::supervisor::ChildSpec;
/// use std::convert::Infallible;
///
/// let db = ChildSpec::new("db", || async { Ok::<_, Infallible>(Db) });
/// assert_eq!(&*db.options().id, "db");
/// assert!(!db.options().significant);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ChildOptions {
    /// The child's name among its siblings.
    pub id: Arc<str>,
    /// Actor or nested supervisor.
    pub kind: Kind,
    /// Whether it is started again.
    pub restart: Restart,
    /// How it is stopped.
    pub shutdown: Shutdown,
    /// Whether its final end may end the supervisor.
    pub significant: bool,
    /// When it is started again; without one: at once, and counted by the supervisor's intensity. Boxed, since few
    /// children have one.
    pub backoff: Option<Box<Backoff>>,
}

impl ChildOptions {
    pub(crate) fn new(id: &str, kind: Kind) -> Self {
        let shutdown = match kind {
            Kind::Worker => Shutdown::Timeout(Duration::from_secs(5)),
            Kind::Supervisor => Shutdown::Infinity,
        };
        Self { id: id.into(), kind, restart: Restart::default(), shutdown, significant: false, backoff: None }
    }
}

/// The part of a supervisor's specification that is plain data.
#[derive(Debug, Clone)]
pub(crate) struct SupervisorOptions {
    pub(crate) strategy: Strategy,
    pub(crate) dynamic: bool,
    pub(crate) intensity: u32,
    pub(crate) period: Duration,
    pub(crate) auto_shutdown: AutoShutdown,
    pub(crate) max_children: Option<usize>,
    /// Of a partition supervisor: how many.
    pub(crate) partitions: Option<usize>,
}

impl Default for SupervisorOptions {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            dynamic: false,
            intensity: 1,
            period: Duration::from_secs(5),
            auto_shutdown: AutoShutdown::default(),
            max_children: None,
            partitions: None,
        }
    }
}
