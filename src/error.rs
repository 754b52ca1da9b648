//! Typed errors. This room lies at the bottom: it knows none of the others.
//!
//! - [`CallError`]: why a call or a checkout failed, and whether it may be tried again.
//! - [`WorkerStartError`]: why a worker did not become ready.
//! - [`ConfigError`]: a setting that cannot be used: which, its value, what is allowed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The part of a call's life in which its deadline passed.
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

/// Why a call or a checkout failed.
///
/// [`is_retryable`](CallError::is_retryable) says whether the same call may be sent again without
/// the danger of running it twice, [`attempts`](CallError::attempts) how often it was handed to a
/// worker.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The queue is full. Nothing was run.
    #[error("the pool is overloaded: {queue_len} requests wait; try again in {retry_after:?}")]
    Overloaded {
        /// How many requests waited.
        queue_len: usize,
        /// When a place is likely: queue length times mean run time over workers, at least 1 s.
        retry_after: Duration,
    },
    /// The deadline passed.
    #[error("the deadline passed {phase}")]
    Timeout {
        /// Where the call was then.
        phase: Phase,
        /// What Python was doing at the deadline, where that could be had.
        stack: Option<String>,
        /// How often the call was handed to a worker.
        attempts: u32,
    },
    /// The function raised.
    #[error("{type_name}: {message}\n{traceback}")]
    Python {
        /// The exception's type, with its module unless it is a builtin.
        type_name: String,
        /// `str(exception)`.
        message: String,
        /// The traceback as Python prints it, beginning at the user's code.
        traceback: String,
        /// How often the call was handed to a worker.
        attempts: u32,
    },
    /// The worker's process ended while it had the call.
    #[error("{}", worker_died(*.started, *.exit, *.signal, *.max_rss_bytes, .stderr_tail, .reason.as_deref()))]
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
    },
    /// The arguments, or the function's result, have no JSON form.
    #[error("cannot encode: {message}")]
    Encode {
        /// What has no JSON form, where, and what to do.
        message: String,
    },
    /// The result is not of the type that was asked for.
    #[error("cannot decode {path}: {message}")]
    Decode {
        /// Where in the result, as in `result["rows"][3]["name"]`; `result` is the result itself.
        path: String,
        /// What was expected and what was found.
        message: String,
    },
    /// The worker broke the protocol. It is replaced.
    #[error("protocol error: {detail}")]
    Protocol {
        /// What was wrong.
        detail: String,
    },
    /// The module exports no such function.
    #[error("no function `{name}` in the module{}{}", because(.reason), did_you_mean(.similar))]
    NoSuchFunction {
        /// The name asked for.
        name: String,
        /// Names that are there and look like it, best first.
        similar: Vec<String>,
        /// Why something of that name in the module cannot be called, and what to do: it is imported from another module,
        /// for example. `None` when the module has no such name.
        reason: Option<String>,
    },
    /// The arguments do not fit the function's signature. The function was not called.
    #[error("{message}")]
    Arguments {
        /// What does not fit, with the signature.
        message: String,
    },
    /// A frame larger than the limit, in either direction.
    #[error("a frame of {size} bytes is over the limit of {limit} bytes (see `max_frame_bytes`)")]
    FrameTooLarge {
        /// The frame's size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The function gave up with `hatchery.Cancelled`, or a task of it with `asyncio.CancelledError`, while
    /// somebody still waited for it. (One that is cancelled because its caller left answers nobody.)
    #[error("the call was cancelled")]
    Cancelled,
    /// The function called the host (`hatchery.call_host`), which could not do it, and let that pass.
    #[error("the host call `{name}` failed ({cause}): {message}")]
    HostCall {
        /// What it called.
        name: String,
        /// What went wrong.
        message: String,
        /// In which way.
        cause: HostCallCause,
    },
    /// The session's worker has ended, and the session's state with it. The call was not run.
    ///
    /// Every call of the session gets this error until one caller has taken it: a caller that leaves before has not
    /// heard it. The next call then begins a new session, with an empty state.
    #[error("the session {session:?} is lost: its worker ended")]
    SessionLost {
        /// The session's name.
        session: String,
    },
    /// The session's worker is busy, and the session is [strict](crate::Affinity::StrictFailFast). Nothing was run.
    #[error("the worker of the session {session:?} is busy; try again in {retry_after:?}")]
    SessionBusy {
        /// The session's name.
        session: String,
        /// The mean time that a worker is busy, at least 1 s.
        retry_after: Duration,
    },
    /// The pool is shutting down and takes no new work. Nothing was run.
    #[error("the pool is shutting down")]
    Draining,
    /// The pool cannot serve now. Nothing was run.
    #[error("the pool is unavailable: {cause}")]
    Unavailable {
        /// Why.
        cause: UnavailableCause,
    },
}

/// In which way a host call failed.
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

/// Why a pool cannot serve.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum UnavailableCause {
    /// The last start of every worker failed; this is the most recent failure. The supervisor keeps
    /// trying.
    #[error("no worker can start: {0}")]
    StartFailed(Arc<WorkerStartError>),
    /// The pool's broker ended and is being restarted, or ended while the request waited.
    #[error("the pool's broker is being restarted")]
    BrokerRestarting,
    /// The pool was shut down, dropped, or its arbiter or system stopped.
    #[error("the pool has ended")]
    Stopped,
}

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
            | CallError::Unavailable { .. } => 0,
            _ => 1,
        }
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
}

fn because(reason: &Option<String>) -> String {
    reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default()
}

fn did_you_mean(similar: &[String]) -> String {
    match similar {
        [] => String::new(),
        names => format!("; did you mean `{}`?", names.join("` or `")),
    }
}

fn worker_died(
    started: bool,
    exit: Option<i32>,
    signal: Option<i32>,
    max_rss_bytes: Option<u64>,
    stderr_tail: &str,
    reason: Option<&str>,
) -> String {
    let mut text = format!("the worker died {}", ended_by(exit, signal));
    text.push_str(if started { " while it had the call" } else { " before the call began" });
    if let Some(reason) = reason {
        text.push_str(": ");
        text.push_str(reason);
    }
    if let Some(bytes) = max_rss_bytes {
        text.push_str(&format!("; it had used up to {} MB", bytes / 1_000_000));
    }
    if !stderr_tail.is_empty() {
        text.push_str("; last lines of its stderr:\n");
        text.push_str(stderr_tail);
    }
    text
}

fn ended_by(exit: Option<i32>, signal: Option<i32>) -> String {
    match (exit, signal) {
        (Some(code), _) => format!("(exit code {code})"),
        (None, Some(signal)) => format!("(signal {signal})"),
        (None, None) => "(how is not known)".into(),
    }
}

/// What a worker was doing when its start failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StartPhase {
    /// Importing the module.
    Import,
    /// Running its `@on_preload` hooks.
    OnPreload,
    /// Collecting its functions.
    Setup,
    /// Running its `@on_start` hooks.
    OnStart,
}

impl fmt::Display for StartPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StartPhase::Import => "import",
            StartPhase::OnPreload => "on_preload hook",
            StartPhase::Setup => "set-up",
            StartPhase::OnStart => "on_start hook",
        })
    }
}

/// Why a worker did not become ready.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerStartError {
    /// No Python interpreter to start.
    #[error(
        "no Python interpreter: {looked_for}; install Python 3.9 or newer, or name one with `.python(path)`"
    )]
    NoInterpreter {
        /// What was looked for, and where.
        looked_for: String,
    },
    /// The interpreter is older than 3.9.
    #[error("{path} is Python {version}; hatchery needs 3.9 or newer")]
    InterpreterTooOld {
        /// The interpreter.
        path: String,
        /// Its version.
        version: String,
    },
    /// The interpreter does not work as one.
    #[error("{path} does not work as a Python interpreter: {detail}")]
    InterpreterUnusable {
        /// The interpreter.
        path: String,
        /// What it did instead, with what it printed.
        detail: String,
    },
    /// The operating system refused to start the process.
    #[error("cannot start {program}: {source}")]
    Spawn {
        /// What was to be started.
        program: String,
        /// What the operating system said.
        source: Arc<std::io::Error>,
    },
    /// The module's import, or the set-up after it, raised.
    #[error("the {phase} of the module failed: {type_name}: {message}\n{traceback}")]
    Python {
        /// What it was doing.
        phase: StartPhase,
        /// The exception's type, with its module unless it is a builtin.
        type_name: String,
        /// `str(exception)`.
        message: String,
        /// The traceback as Python prints it, beginning at the user's code.
        traceback: String,
    },
    /// The process ended before it was ready.
    #[error("the worker ended before it was ready {}{}", ended_by(*.exit, *.signal), printed(.output))]
    Died {
        /// The exit code, when it exited.
        exit: Option<i32>,
        /// The signal that ended it, when one did.
        signal: Option<i32>,
        /// The last lines it printed.
        output: String,
    },
    /// The launcher, or a wrapper given as the interpreter, started Python as a child. It must become Python instead:
    /// signals, limits and the end of the worker are tied to the process that was started.
    #[error(
        "{program} runs Python as its child (process {pid}), but must become Python itself: end a script with `exec`, and leave \
         out a launcher that forks or waits"
    )]
    NotReplaced {
        /// What was started.
        program: String,
        /// The process that Python runs as, as Python says.
        pid: u32,
    },
    /// It ended for another reason, or right after it had become ready.
    #[error("the worker ended: {reason}")]
    Ended {
        /// How.
        reason: String,
    },
    /// It was not ready within the spawn timeout, and was killed.
    #[error("the worker was not ready within {after:?}{}", printed(.output))]
    TimedOut {
        /// The spawn timeout.
        after: Duration,
        /// The last lines it printed.
        output: String,
    },
    /// A function is not as [`PoolBuilder::declares`](crate::PoolBuilder::declares) says.
    #[error("the module is not as declared: {0}")]
    Declaration(
        /// Which function, and what is wrong.
        String,
    ),
    /// It did not speak the protocol.
    #[error("protocol error during the start: {detail}{}", printed(.output))]
    Protocol {
        /// What was wrong.
        detail: String,
        /// The last lines it printed.
        output: String,
    },
}

fn printed(output: &str) -> String {
    if output.is_empty() { String::new() } else { format!("; it printed:\n{output}") }
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} = {value}: {allowed}")]
pub struct ConfigError {
    /// The setting.
    pub field: &'static str,
    /// What it was set to.
    pub value: String,
    /// What is allowed.
    pub allowed: &'static str,
}
