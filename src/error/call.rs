//! Why a call failed.

mod text;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::WorkerStartError;
use super::report::place;

/// The part of a call's life in which its deadline passed.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::{CallError, Phase};
///
/// if let Err(CallError::Timeout { phase: Phase::Queue, .. }) = pool.call::<_, u64>("price", ("pen",)).await {
///     println!("no worker became free in time");
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It still waited for a worker: the function was not called.
    Queue,
    /// A worker had it: the function may have run, in part or whole.
    Run,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Queue => "while it waited for a worker",
            Phase::Run => "while the function ran",
        })
    }
}

/// Which side of a call a value belongs to.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::{CallError, Direction};
///
/// if let Err(CallError::FrameTooLarge { direction: Direction::Arguments, .. }) = pool.call::<_, u64>("sum", ("data",)).await {
///     println!("send less at a time");
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Direction {
    /// What the caller gives the function. The caller is at fault; the function was not called.
    Arguments,
    /// What the function gives the caller: its result, an item of its stream, an update of its progress. The caller is
    /// not at fault, and the function was called.
    Result,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Arguments => "the arguments",
            Direction::Result => "the result",
        })
    }
}

/// Which call an error is about, as far as it is known.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::CallError;
///
/// if let Err(CallError::Timeout { context, .. }) = pool.call::<_, u64>("price", ("pen",)).await {
///     println!("{:?} was late in {:?}", context.function, context.worker);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallContext {
    /// The function's name.
    pub function: Option<String>,
    /// The worker's name, when a worker had the call.
    pub worker: Option<String>,
    /// What [`Request::request_id`](crate::Request::request_id) was given.
    pub request_id: Option<String>,
    /// Of a call that had not begun when its worker died: whether reading it may have been the cause.
    pub(crate) may_be_the_cause: bool,
}

/// Why a call or a checkout failed.
///
/// [`is_retryable`](CallError::is_retryable) says whether the same call may be sent again without
/// the danger of running it twice, [`attempts`](CallError::attempts) how often it was handed to a
/// worker.
///
/// `{}` writes one line, with the place in user code where one is known; `{:#}` and `Debug` write the whole report: traceback or
/// stack, the last lines of standard error, worker, attempts, request id. Log `{:#}`.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::CallError;
///
/// match pool.call::<_, u64>("price", ("spoon",)).await {
///     Ok(cents) => println!("{cents}"),
///     Err(CallError::Python { type_name, message, .. }) => println!("{type_name}: {message}"),
///     Err(error) if error.is_retryable() => println!("nothing ran, try again: {error}"),
///     Err(error) => println!("{error}"),
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum CallError {
    /// One of the pool's bounds is reached. Nothing was run.
    Overloaded {
        /// Which bound.
        cause: OverloadCause,
        /// How many requests waited.
        queue_len: usize,
        /// How many bytes of encoded arguments those requests held.
        queue_bytes: u64,
        /// When a place is likely: queue length times mean run time over workers, at least 1 s.
        retry_after: Duration,
    },
    /// The deadline passed.
    Timeout {
        /// Where the call was then.
        phase: Phase,
        /// What Python was doing at the deadline, where that could be had; or that its process was stopped.
        stack: Option<String>,
        /// How often the call was handed to a worker.
        attempts: u32,
        /// Which call it was.
        context: Box<CallContext>,
    },
    /// The function raised.
    Python {
        /// The exception's type, with its module unless it is a builtin.
        type_name: String,
        /// `str(exception)`.
        message: String,
        /// The traceback as Python prints it, beginning at the user's code.
        traceback: String,
        /// Of an `ImportError`: which interpreter ran, where it looks for modules, and what may be wrong with that.
        environment: Option<String>,
        /// How often the call was handed to a worker.
        attempts: u32,
        /// Which call it was.
        context: Box<CallContext>,
    },
    /// The worker's process ended while it had the call.
    WorkerDied {
        /// `false` when the call surely had not begun; every doubt is `true`.
        started: bool,
        /// The exit code, when it exited.
        exit: Option<i32>,
        /// The signal that ended it, when one did.
        signal: Option<i32>,
        /// The most memory it held, in bytes, where known.
        max_rss_bytes: Option<u64>,
        /// The last lines it wrote to its standard error.
        stderr_tail: String,
        /// Why the pool ended it, when the pool did: a neighbouring call that did not give up, a broken protocol.
        reason: Option<String>,
        /// How often the call was handed to a worker.
        attempts: u32,
        /// Which call it was.
        context: Box<CallContext>,
    },
    /// The arguments, or the function's result, have no form on the wire.
    Encode {
        /// What cannot be sent, where, and what to do.
        message: String,
        /// What was at fault.
        direction: Direction,
        /// Which call it was.
        context: Box<CallContext>,
    },
    /// A value from Python is not of the type that was asked for: a result, an item of a stream, an update, or the
    /// arguments of a host call.
    Decode {
        /// Where in the value, as in `result["rows"][3]["name"]`; `result` is the result itself.
        path: String,
        /// What was expected and what was found.
        message: String,
        /// What was at fault.
        direction: Direction,
        /// Which call it was.
        context: Box<CallContext>,
    },
    /// The worker broke the protocol. It is replaced.
    Protocol {
        /// What was wrong.
        detail: String,
        /// Which call it was.
        context: Box<CallContext>,
    },
    /// The module exports no such function.
    NoSuchFunction {
        /// The name asked for.
        name: String,
        /// Names that are there and look like it, best first.
        similar: Vec<String>,
        /// Why it cannot be called, when the module has the name.
        reason: Option<String>,
        /// Which call it was.
        context: Box<CallContext>,
    },
    /// The arguments do not fit the function's signature. The function was not called.
    Arguments {
        /// What does not fit, with the signature.
        message: String,
        /// Which call it was.
        context: Box<CallContext>,
    },
    /// The arguments, or the function's result, are larger than a frame may be (`max_frame_bytes`).
    FrameTooLarge {
        /// The frame's size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
        /// What was at fault.
        direction: Direction,
        /// Which call it was.
        context: Box<CallContext>,
    },
    /// The function gave up with `hatchery.Cancelled`, or a task of it with `asyncio.CancelledError`, while
    /// somebody still waited for it. (One that is cancelled because its caller left answers nobody.)
    Cancelled,
    /// The function called the host (`hatchery.call_host`), which could not do it, and let that pass.
    HostCall {
        /// What it called.
        name: String,
        /// What went wrong.
        message: String,
        /// In which way.
        cause: HostCallCause,
        /// Which call it was.
        context: Box<CallContext>,
    },
    /// The session's worker has ended, and the session's state with it. The call was not run.
    ///
    /// Every call of the session gets this error until one caller has taken it: a caller that leaves before has not
    /// heard it. The next call then begins a new session, with an empty state.
    SessionLost {
        /// The session's name.
        session: String,
    },
    /// The session's worker is busy, and the session is [strict](crate::Affinity::StrictFailFast). Nothing was run.
    SessionBusy {
        /// The session's name.
        session: String,
        /// The mean time that a worker is busy, at least 1 s.
        retry_after: Duration,
    },
    /// The pool is shutting down and takes no new work. Nothing was run.
    Draining,
    /// The pool cannot serve now. Nothing was run.
    Unavailable {
        /// Why.
        cause: UnavailableCause,
    },
}

/// Which of a pool's bounds refused a request.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::{CallError, OverloadCause};
///
/// if let Err(CallError::Overloaded { cause: OverloadCause::QueueBytes, .. }) = pool.call::<_, u64>("sum", ("data",)).await {
///     println!("the arguments that wait take too much memory");
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OverloadCause {
    /// As many requests wait as [`queue_bound`](crate::PoolBuilder::queue_bound) allows.
    QueueBound,
    /// The requests that wait hold as many bytes as [`queue_bytes`](crate::PoolBuilder::queue_bytes) allows, or more.
    QueueBytes,
    /// The request would begin a session, and as many sessions are in use as
    /// [`max_sessions`](crate::PoolBuilder::max_sessions) allows.
    MaxSessions,
}

/// In which way a host call failed.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::{CallError, HostCallCause};
///
/// if let Err(CallError::HostCall { cause: HostCallCause::NoSuchFunction, .. }) = pool.call::<_, u64>("total", ()).await {
///     println!("the module calls a host function that is not registered");
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HostCallCause {
    /// The host has no function of that name.
    NoSuchFunction,
    /// Host calls were nested too deep.
    Depth,
    /// The host's function returned an error, or panicked.
    Failed,
    /// The deadline of the call on whose behalf it was made passed.
    Timeout,
    /// It was given up, or the host's actor has stopped.
    Cancelled,
}

impl fmt::Display for HostCallCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HostCallCause::NoSuchFunction => "no such function",
            HostCallCause::Depth => "nested too deep",
            HostCallCause::Failed => "it failed",
            HostCallCause::Timeout => "the deadline passed",
            HostCallCause::Cancelled => "it was given up",
        })
    }
}

/// Why a pool cannot serve. `{}` writes one line, `{:#}` and `Debug` the whole report.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::{CallError, UnavailableCause};
///
/// if let Err(CallError::Unavailable { cause: UnavailableCause::StartFailed(why), .. }) = pool.call::<_, u64>("price", ("pen",)).await {
///     println!("no worker can start: {why}");
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum UnavailableCause {
    /// The last start of every worker failed; this is the most recent failure. The supervisor keeps
    /// trying.
    StartFailed(Arc<WorkerStartError>),
    /// The pool's broker ended and is being restarted, or ended while the request waited.
    BrokerRestarting,
    /// The pool was shut down, dropped, or its arbiter or system stopped.
    Stopped,
}

impl fmt::Display for UnavailableCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartFailed(cause) => {
                f.write_str("no worker can start: ")?;
                fmt::Display::fmt(cause, f)
            }
            Self::BrokerRestarting => f.write_str("the pool's broker is being restarted"),
            Self::Stopped => f.write_str("the pool has ended"),
        }
    }
}

impl fmt::Debug for UnavailableCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:#}")
    }
}

impl Error for UnavailableCause {}

impl CallError {
    /// Whether it makes sense to send the same call again: nothing of it had been run when it failed, and
    /// the cause may pass.
    ///
    /// A [`WorkerDied`](CallError::WorkerDied) call that had started may have run in part: send it
    /// again only if that does no harm (see `Request::idempotent`).
    pub fn is_retryable(&self) -> bool {
        match self {
            CallError::Overloaded { .. } | CallError::SessionBusy { .. } => true,
            CallError::Timeout { phase, .. } => *phase == Phase::Queue,
            CallError::WorkerDied { started, .. } => !started,
            CallError::Unavailable { cause } => !matches!(cause, UnavailableCause::Stopped),
            _ => false,
        }
    }

    /// How often the call was handed to a worker before it failed, where that is known: errors that do not carry it
    /// count as 1 when a worker may have given them, else as 0.
    pub fn attempts(&self) -> u32 {
        match self {
            CallError::Timeout { attempts, .. }
            | CallError::Python { attempts, .. }
            | CallError::WorkerDied { attempts, .. } => *attempts,
            CallError::Overloaded { .. }
            | CallError::SessionLost { .. }
            | CallError::SessionBusy { .. }
            | CallError::Draining
            | CallError::Encode { direction: Direction::Arguments, .. }
            | CallError::FrameTooLarge { direction: Direction::Arguments, .. }
            | CallError::Unavailable { .. } => 0,
            _ => 1,
        }
    }

    /// Which side was at fault, when a value could not be sent or read.
    pub fn direction(&self) -> Option<Direction> {
        match self {
            CallError::Encode { direction, .. }
            | CallError::Decode { direction, .. }
            | CallError::FrameTooLarge { direction, .. } => Some(*direction),
            CallError::Arguments { .. } => Some(Direction::Arguments),
            _ => None,
        }
    }

    /// Python's traceback, when the function raised.
    pub fn traceback(&self) -> Option<&str> {
        match self {
            CallError::Python { traceback, .. } => Some(traceback),
            _ => None,
        }
    }

    /// What Python was doing at the deadline, where that is known.
    pub fn stack(&self) -> Option<&str> {
        match self {
            CallError::Timeout { stack, .. } => stack.as_deref(),
            _ => None,
        }
    }

    /// The last lines that a worker that died wrote to its standard error.
    pub fn stderr_tail(&self) -> Option<&str> {
        match self {
            CallError::WorkerDied { stderr_tail, .. } => Some(stderr_tail.as_str()),
            _ => None,
        }
    }

    /// The place in user code that the traceback or the stack leads to, such as `shop.py:12`.
    pub fn place(&self) -> Option<String> {
        place(self.traceback().or(self.stack())?)
    }

    /// The function that was called, where it is known.
    pub fn function(&self) -> Option<&str> {
        self.context()?.function.as_deref()
    }

    /// The worker that had the call, where it is known.
    pub fn worker(&self) -> Option<&str> {
        self.context()?.worker.as_deref()
    }

    /// The request id that the call was given, where it is known.
    pub fn request_id(&self) -> Option<&str> {
        self.context()?.request_id.as_deref()
    }

    fn context(&self) -> Option<&CallContext> {
        match self {
            CallError::Timeout { context, .. }
            | CallError::Python { context, .. }
            | CallError::WorkerDied { context, .. }
            | CallError::Encode { context, .. }
            | CallError::Decode { context, .. }
            | CallError::Protocol { context, .. }
            | CallError::NoSuchFunction { context, .. }
            | CallError::Arguments { context, .. }
            | CallError::FrameTooLarge { context, .. }
            | CallError::HostCall { context, .. } => Some(context),
            CallError::Overloaded { .. }
            | CallError::Cancelled
            | CallError::SessionLost { .. }
            | CallError::SessionBusy { .. }
            | CallError::Draining
            | CallError::Unavailable { .. } => None,
        }
    }

    fn context_mut(&mut self) -> Option<&mut CallContext> {
        match self {
            CallError::Timeout { context, .. }
            | CallError::Python { context, .. }
            | CallError::WorkerDied { context, .. }
            | CallError::Encode { context, .. }
            | CallError::Decode { context, .. }
            | CallError::Protocol { context, .. }
            | CallError::NoSuchFunction { context, .. }
            | CallError::Arguments { context, .. }
            | CallError::FrameTooLarge { context, .. }
            | CallError::HostCall { context, .. } => Some(context),
            _ => None,
        }
    }

    /// A call that no worker began before its deadline.
    pub(crate) fn timed_out_waiting() -> Self {
        CallError::Timeout { phase: Phase::Queue, stack: None, attempts: 0, context: Box::default() }
    }

    /// A frame of this size does not fit the limit, both in bytes.
    pub(crate) fn too_large(direction: Direction, size: u64, limit: u32) -> Self {
        CallError::FrameTooLarge { size, limit: limit.into(), direction, context: Box::default() }
    }

    pub(crate) fn protocol(detail: String) -> Self {
        CallError::Protocol { detail, context: Box::default() }
    }

    pub(crate) fn with_attempts(mut self, made: u32) -> Self {
        if let CallError::Timeout { attempts, .. }
        | CallError::Python { attempts, .. }
        | CallError::WorkerDied { attempts, .. } = &mut self
        {
            *attempts = made;
        }
        self
    }

    /// Says which call it is about.
    pub(crate) fn of_call(mut self, function: &str, request_id: Option<&str>) -> Self {
        if let Some(context) = self.context_mut() {
            context.function = Some(function.to_owned());
            context.request_id = request_id.map(str::to_owned);
        }
        self
    }

    /// Says which worker had the call.
    pub(crate) fn on_worker(mut self, worker: &str) -> Self {
        if let Some(context) = self.context_mut() {
            context.worker = Some(worker.to_owned());
        }
        self
    }
}
