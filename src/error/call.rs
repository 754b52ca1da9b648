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
    /// The call waited for a worker. The function was not called.
    Queue,
    /// A worker had the call. The function may have run, in part or whole.
    Run,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Queue => "while the call waited for a worker",
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
    /// The arguments of the function. The caller is at fault; the function was not called.
    Arguments,
    /// The result, an item of the stream, or a progress update. The function was called, and its value is at fault.
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

/// The call that an error is about. A field is `None` where it is not known.
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
    /// The name of the worker that had the call.
    pub worker: Option<String>,
    /// The id given to [`Request::request_id`](crate::Request::request_id).
    pub request_id: Option<String>,
    /// The call had not begun when its worker died, but reading the call may have killed the worker.
    pub(crate) may_be_the_cause: bool,
}

/// Why a call or a checkout failed.
///
/// [`is_retryable`](CallError::is_retryable) says whether the call can be sent again without running twice.
/// [`attempts`](CallError::attempts) says how often a worker was given the call.
///
/// `{}` writes one line, with the place in user code where it is known. `{:#}` and `Debug` write the whole report:
/// traceback or stack, the last lines of standard error, worker, attempts, request id. Log `{:#}`.
///
/// [`source`](std::error::Error::source) is the [`WorkerStartError`] of
/// [`UnavailableCause::StartFailed`]. The `{}` line does not repeat it.
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
    /// The pool has reached one of its bounds. Nothing was run.
    Overloaded {
        /// Which bound.
        cause: OverloadCause,
        /// Number of waiting requests.
        queue_len: usize,
        /// Bytes of encoded arguments in the waiting requests.
        queue_bytes: u64,
        /// When capacity is likely: queue length × mean run time ÷ workers, at least 1 s.
        retry_after: Duration,
    },
    /// The deadline passed.
    #[non_exhaustive]
    Timeout {
        /// Where the call was at the deadline.
        phase: Phase,
        /// The Python stack at the deadline, or a note that the process was stopped. `None` if no stack came in time.
        stack: Option<String>,
        /// How often the call was handed to a worker.
        attempts: u32,
        /// Which call it was.
        context: Box<CallContext>,
    },
    /// The function raised an exception.
    #[non_exhaustive]
    Python {
        /// The exception's type, with its module unless it is a builtin.
        type_name: String,
        /// `str(exception)`.
        message: String,
        /// The traceback as Python prints it, from the user's code on.
        traceback: String,
        /// Only for an `ImportError`: the interpreter, its search path, and a hint.
        environment: Option<String>,
        /// How often the call was handed to a worker.
        attempts: u32,
        /// Which call it was.
        context: Box<CallContext>,
    },
    /// The worker's process ended while it had the call.
    #[non_exhaustive]
    WorkerDied {
        /// `false` only if the call had certainly not begun; `true` if it had or may have.
        started: bool,
        /// The exit code, if the process exited.
        exit: Option<i32>,
        /// The signal that ended the process, if one did.
        signal: Option<i32>,
        /// The most memory the process held, in bytes, if known.
        max_rss_bytes: Option<u64>,
        /// The last lines that the process wrote to standard error.
        stderr_tail: String,
        /// Why the pool ended the worker, if it did: for example another call that ignored its cancellation.
        reason: Option<String>,
        /// How often the call was handed to a worker.
        attempts: u32,
        /// Which call it was.
        context: Box<CallContext>,
    },
    /// The arguments or the result cannot be sent: the wire has no form for a value in them.
    Encode {
        /// Which value, where it is, and what to do.
        message: String,
        /// What was at fault.
        direction: Direction,
        /// Which call it was.
        context: Box<CallContext>,
    },
    /// A value from Python does not have the Rust type that was asked for. The value is a result, an item of a stream,
    /// a progress update, or the arguments of a host call.
    Decode {
        /// The place in the value, such as `result["rows"][3]["name"]`. `result` is the whole result.
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
        /// Similar names in the module, best first.
        similar: Vec<String>,
        /// Why the name cannot be called, if the module has it.
        reason: Option<String>,
        /// Which call it was.
        context: Box<CallContext>,
    },
    /// The arguments do not fit the function's signature. The function was not called.
    Arguments {
        /// What does not fit, and the signature.
        message: String,
        /// Which call it was.
        context: Box<CallContext>,
    },
    /// The arguments or the result need a frame larger than `max_frame_bytes`.
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
    /// The function raised `hatchery.Cancelled` or `asyncio.CancelledError` while its caller still waited.
    /// A call that is cancelled because its caller left has nobody to answer.
    Cancelled,
    /// A `hatchery.call_host` of the function failed, and the function did not catch the error.
    HostCall {
        /// The host function.
        name: String,
        /// What went wrong.
        message: String,
        /// The kind of failure.
        cause: HostCallCause,
        /// Which call it was.
        context: Box<CallContext>,
    },
    /// The session's worker has ended, and the session's state is lost. The call was not run.
    ///
    /// Calls of the session get this error until one caller has received it. The next call then begins a new
    /// session with an empty state.
    SessionLost {
        /// The session's name.
        session: String,
    },
    /// The session's worker is busy, and the session is [strict](crate::Affinity::StrictFailFast). Nothing was run.
    SessionBusy {
        /// The session's name.
        session: String,
        /// The mean busy time of a worker, at least 1 s.
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
    /// The queue holds as many requests as [`queue_bound`](crate::PoolBuilder::queue_bound) allows.
    QueueBound,
    /// The queue holds as many bytes of arguments as [`queue_bytes`](crate::PoolBuilder::queue_bytes) allows, or more.
    QueueBytes,
    /// The request would begin a session, and as many sessions are in use as
    /// [`max_sessions`](crate::PoolBuilder::max_sessions) allows.
    MaxSessions,
}

/// How a host call failed.
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
    /// The host calls were nested too deeply.
    Depth,
    /// The host's function returned an error, or panicked.
    Failed,
    /// The deadline of the Python call that made the host call passed.
    Timeout,
    /// The host call was cancelled, or the host's actor has stopped.
    Cancelled,
}

impl fmt::Display for HostCallCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HostCallCause::NoSuchFunction => "no such function",
            HostCallCause::Depth => "nested too deep",
            HostCallCause::Failed => "it failed",
            HostCallCause::Timeout => "the deadline passed",
            HostCallCause::Cancelled => "cancelled",
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
    /// The last start of every worker failed. This is the most recent failure. The supervisor keeps trying.
    ///
    /// `{}` does not repeat the failure: read it with [`source`](std::error::Error::source) or `{:#}`.
    StartFailed(Arc<WorkerStartError>),
    /// The pool's broker is being restarted, or ended while the request waited.
    BrokerRestarting,
    /// The pool was shut down, dropped, or its arbiter or system stopped.
    Stopped,
}

impl fmt::Display for UnavailableCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartFailed(cause) => {
                f.write_str("no worker can start")?;
                if f.alternate() { write!(f, ": {cause:#}") } else { Ok(()) }
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

impl Error for UnavailableCause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::StartFailed(cause) => Some(&**cause),
            Self::BrokerRestarting | Self::Stopped => None,
        }
    }
}

impl CallError {
    /// Whether to send the same call again: nothing of the call was run, and the cause may pass.
    ///
    /// A [`WorkerDied`](CallError::WorkerDied) call that had started may have run in part. Send it again only if
    /// running it twice does no harm (see `Request::idempotent`).
    pub fn is_retryable(&self) -> bool {
        match self {
            CallError::Overloaded { .. } | CallError::SessionBusy { .. } => true,
            CallError::Timeout { phase, .. } => *phase == Phase::Queue,
            CallError::WorkerDied { started, .. } => !started,
            CallError::Unavailable { cause } => !matches!(cause, UnavailableCause::Stopped),
            _ => false,
        }
    }

    /// How often a worker was given the call. `Timeout`, `Python` and `WorkerDied` carry the exact number; every
    /// other error counts as 1 if a worker may have returned it, else as 0.
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

    /// Which side's value could not be sent or read.
    pub fn direction(&self) -> Option<Direction> {
        match self {
            CallError::Encode { direction, .. }
            | CallError::Decode { direction, .. }
            | CallError::FrameTooLarge { direction, .. } => Some(*direction),
            CallError::Arguments { .. } => Some(Direction::Arguments),
            _ => None,
        }
    }

    /// Python's traceback, if the function raised.
    pub fn traceback(&self) -> Option<&str> {
        match self {
            CallError::Python { traceback, .. } => Some(traceback),
            _ => None,
        }
    }

    /// The Python stack at the deadline, if known.
    pub fn stack(&self) -> Option<&str> {
        match self {
            CallError::Timeout { stack, .. } => stack.as_deref(),
            _ => None,
        }
    }

    /// The last lines that the dead worker wrote to standard error. Only for `WorkerDied`.
    pub fn stderr_tail(&self) -> Option<&str> {
        match self {
            CallError::WorkerDied { stderr_tail, .. } => Some(stderr_tail.as_str()),
            _ => None,
        }
    }

    /// The place in user code where the traceback or stack ends, such as `shop.py:12`.
    pub fn place(&self) -> Option<String> {
        place(self.traceback().or(self.stack())?)
    }

    /// The function that was called, if known.
    pub fn function(&self) -> Option<&str> {
        self.context()?.function.as_deref()
    }

    /// The worker that had the call, if known.
    pub fn worker(&self) -> Option<&str> {
        self.context()?.worker.as_deref()
    }

    /// The request id of the call, if known.
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

    /// The error of a call whose deadline passed in the queue.
    pub(crate) fn timed_out_waiting() -> Self {
        CallError::Timeout { phase: Phase::Queue, stack: None, attempts: 0, context: Box::default() }
    }

    /// The error of a frame over the limit. Both are in bytes.
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

    /// Adds the call to the context.
    pub(crate) fn of_call(mut self, function: &str, request_id: Option<&str>) -> Self {
        if let Some(context) = self.context_mut() {
            context.function = Some(function.to_owned());
            context.request_id = request_id.map(str::to_owned);
        }
        self
    }

    /// Adds the worker to the context.
    pub(crate) fn on_worker(mut self, worker: &str) -> Self {
        if let Some(context) = self.context_mut() {
            context.worker = Some(worker.to_owned());
        }
        self
    }
}
