//! The errors of supervision.

use std::{error::Error, fmt, sync::Arc};

use thiserror::Error as DeriveError;

use crate::error::report::one_line;

/// The cause of a failed start: the error of the child's factory, shared and downcastable.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// A supervisor did not start: a child of it could not, and those started before it have been stopped.
///
/// `{}` writes one line, `{:#}` the cause's whole report and its sources. `Debug` writes the report too, for a `main` that
/// returns this error. The cause is part of the text, so [`source`](Error::source) is the source of the cause.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::supervisor::Supervisor;
///
/// if let Err(error) = Supervisor::builder("app").start().await {
///     println!("{} did not start: {}", error.path, error.cause);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct StartError {
    /// The path of the child that could not start, from the root ("app/pools/cache").
    pub path: Arc<str>,
    /// What its factory returned, or a [`StartFailure`] or [`SpecError`].
    pub cause: Cause,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not start `{}`: ", self.path)?;
        if !f.alternate() {
            return f.write_str(&one_line(&self.cause.to_string()));
        }
        write!(f, "{:#}", self.cause)?;
        let mut behind = self.cause.source();
        while let Some(error) = behind {
            write!(f, "\n  caused by: {error:#}")?;
            behind = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:#}")
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.source()
    }
}

/// A failed start whose cause did not come from the child's factory as an error.
///
/// ```no_run
/// # async fn example(error: hatchery::supervisor::StartError) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::supervisor::StartFailure;
///
/// if let Some(StartFailure::Panicked(message)) = error.cause.downcast_ref() {
///     println!("{} panicked: {message}", error.path);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, DeriveError)]
#[non_exhaustive]
pub enum StartFailure {
    /// The factory, or the actor's `started`, panicked with this message.
    #[error("panicked: {0}")]
    Panicked(String),
    /// The arbiter on which it should run has stopped.
    #[error("its arbiter has stopped")]
    ArbiterStopped,
    /// No actix system runs on the current thread.
    #[error("no actix system runs on this thread")]
    NoSystem,
    /// An orphan of the child blocks its thread, so that it could not be killed. No second instance is started beside it.
    #[error("an earlier instance still runs and cannot be killed")]
    StillRunning,
    /// The start was cancelled: the supervisor was stopped or dropped meanwhile.
    #[error("the start was cancelled")]
    Cancelled,
}

/// Returned by a factory to decline its start: neither an error nor a running child (OTP's `ignore`).
///
/// The specification is kept, not running; that of a temporary child, or of a child of a dynamic supervisor,
/// goes away.
///
/// ```
/// # struct Db;
/// # impl actix::Actor for Db { type Context = actix::Context<Self>; }
/// use hatchery::supervisor::{ChildSpec, Declined};
///
/// // Not started where it is not wanted; the supervisor starts its other children.
/// let db = ChildSpec::new("db", || async {
///     if std::env::var_os("WITHOUT_DB").is_some() { Err(Declined) } else { Ok(Db) }
/// });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, DeriveError)]
#[error("declined to start")]
pub struct Declined;

/// A specification that was refused when declared.
///
/// ```
/// use hatchery::supervisor::Supervisor;
///
/// if let Err(error) = Supervisor::builder("").validate() {
///     println!("{}: {} is {}, allowed: {}", error.path, error.field, error.value, error.allowed);
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, DeriveError)]
#[error("`{path}`: {field} = {value} is not allowed: {allowed}")]
pub struct SpecError {
    /// The path of the supervisor or child.
    pub path: Arc<str>,
    /// The refused field.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What is allowed instead.
    pub allowed: &'static str,
}

/// An operation on a child was refused or failed.
///
/// ```no_run
/// # async fn example(app: hatchery::supervisor::Supervisor) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::supervisor::ChildError;
///
/// match app.restart_child("db").await {
///     Err(ChildError::NotFound) => println!("there is no such child"),
///     other => println!("{other:?}"),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, DeriveError)]
#[non_exhaustive]
pub enum ChildError {
    /// A child of this id is running, or starting.
    #[error("already started (incarnation {incarnation})")]
    AlreadyStarted {
        /// Its incarnation.
        incarnation: u64,
    },
    /// A child of this id is known but not running, or waits for its restart.
    #[error("already present")]
    AlreadyPresent,
    /// There is no such child.
    #[error("not found")]
    NotFound,
    /// The child is running.
    #[error("running")]
    Running,
    /// The child is being started, or waits for its restart.
    #[error("restarting")]
    Restarting,
    /// The dynamic supervisor has as many children as it may.
    #[error("no more than {max} children are allowed")]
    MaxChildren {
        /// The bound.
        max: usize,
    },
    /// The child could not start.
    #[error("could not start: {cause}")]
    Start {
        /// What its factory returned.
        cause: Cause,
        /// Whether it stays and is tried again (with a [`Backoff`](super::Backoff)), or was discarded.
        retrying: bool,
    },
    /// The child was terminated before it had started.
    #[error("terminated before it had started")]
    Cancelled,
    /// The child blocks its thread and cannot be killed; it is still alive, and keeps its place until it ends.
    #[error("cannot be killed: it blocks its thread")]
    Unkillable,
    /// The specification was refused.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A dynamic supervisor keeps no specifications, so that there is nothing to restart or delete.
    #[error("not supported by a dynamic supervisor")]
    Dynamic,
    /// The supervisor is down, restarting, or on its way out.
    #[error("the supervisor is not running")]
    SupervisorDown,
}

/// A tree had not stopped in time and was killed.
///
/// ```no_run
/// # async fn example(app: hatchery::supervisor::Supervisor) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// if app.stop_within(Duration::from_secs(5)).await.is_err() {
///     println!("some children were killed");
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, DeriveError)]
#[error("the supervisor did not stop in time and was killed")]
pub struct StopTimedOut;

/// A path did not lead to a child of the wanted kind or type.
///
/// ```no_run
/// # struct Db;
/// # impl actix::Actor for Db { type Context = actix::Context<Self>; }
/// # async fn example(app: hatchery::supervisor::Supervisor) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::supervisor::LookupError;
///
/// match app.child::<Db>("db") {
///     Ok(db) => println!("found {}", db.path()),
///     Err(error @ LookupError::WrongType { .. }) => println!("it is another actor: {error}"),
///     Err(error) => println!("{error}"),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, DeriveError)]
#[non_exhaustive]
pub enum LookupError {
    /// No child has this path.
    #[error("no child `{path}`")]
    NotFound {
        /// The path, from the root.
        path: String,
    },
    /// The child is an actor of another type.
    #[error("`{path}` is not a `{expected}`")]
    WrongType {
        /// The path, from the root.
        path: String,
        /// The type asked for.
        expected: &'static str,
    },
    /// A supervisor was asked for and an actor found, or the reverse.
    #[error("`{path}` is not {expected}")]
    WrongKind {
        /// The path, from the root.
        path: String,
        /// The kind or type that was wanted.
        expected: &'static str,
    },
}

/// A name is taken.
///
/// ```no_run
/// # async fn example(context: hatchery::supervisor::ChildContext) -> Result<(), Box<dyn std::error::Error>> {
/// if let Err(taken) = context.register("database") {
///     println!("{} belongs to {}", taken.name, taken.owner);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, DeriveError)]
#[error("the name `{name}` is taken by `{owner}`")]
pub struct NameTaken {
    /// The name.
    pub name: String,
    /// The path of its owner.
    pub owner: Arc<str>,
}

/// A message was not answered by a child.
///
/// ```no_run
/// # struct Db;
/// # impl actix::Actor for Db { type Context = actix::Context<Self>; }
/// # #[derive(actix::Message)]
/// # #[rtype(result = "u32")]
/// # struct Count;
/// # impl actix::Handler<Count> for Db { type Result = u32; fn handle(&mut self, _: Count, _: &mut Self::Context) -> u32 { 42 } }
/// # async fn example(db: hatchery::supervisor::ChildRef<Db>) -> Result<(), Box<dyn std::error::Error>> {
/// match db.send(Count).await {
///     Err(error) if error.is_retryable() => println!("not delivered: {error}"),
///     other => println!("{}", other?),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, DeriveError)]
pub enum SendError {
    /// The child is not up but will be: the message was surely never delivered, and may be sent again.
    #[error("the child is restarting")]
    Restarting,
    /// The child ended while the message was on its way: it may or may not have been handled.
    #[error("the child ended while the message was in flight")]
    Lost,
    /// The child is not up and will not be started: the message was surely never delivered.
    #[error("the child is down")]
    Down,
}

impl SendError {
    /// Whether the message was surely never delivered and a later attempt can succeed.
    pub fn is_retryable(self) -> bool {
        self == SendError::Restarting
    }
}
