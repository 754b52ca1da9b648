//! Why a worker did not start.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ended_by;
use super::report::{block, human, one_line, place, traceback_block};

/// What a worker was doing when its start failed.
///
/// ```no_run
/// # async fn example(cause: hatchery::WorkerStartError) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::{StartPhase, WorkerStartError};
///
/// if let WorkerStartError::Python { phase: StartPhase::Import, message, .. } = cause {
///     println!("the module cannot be imported: {message}");
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StartPhase {
    /// The import of the module.
    Import,
    /// The module's `@on_preload` hooks.
    OnPreload,
    /// The set-up: collecting the module's functions.
    Setup,
    /// The module's `@on_start` hooks.
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

/// Why a worker did not become ready. `{}` writes one line, `{:#}` and `Debug` the whole report.
///
/// ```no_run
/// # async fn example(cause: hatchery::WorkerStartError) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::WorkerStartError;
///
/// match cause {
///     WorkerStartError::Python { phase, traceback, .. } => println!("{phase}: {traceback}"),
///     other => println!("{other}"),
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum WorkerStartError {
    /// No Python interpreter was found.
    NoInterpreter {
        /// Which interpreter was looked for, and where.
        looked_for: String,
    },
    /// The interpreter is older than 3.9.
    InterpreterTooOld {
        /// The interpreter.
        path: String,
        /// Its version.
        version: String,
    },
    /// The program does not work as a Python interpreter.
    InterpreterUnusable {
        /// The interpreter.
        path: String,
        /// What the program did instead.
        detail: String,
        /// The last lines that the process printed.
        output: String,
    },
    /// The operating system refused to start the process.
    Spawn {
        /// The program to start.
        program: String,
        /// The error of the operating system.
        source: Arc<std::io::Error>,
        /// What to do about it, if known.
        hint: Option<String>,
    },
    /// The module's import, a hook, or the set-up raised an exception.
    #[non_exhaustive]
    Python {
        /// What raised.
        phase: StartPhase,
        /// The exception's type, with its module unless it is a builtin.
        type_name: String,
        /// `str(exception)`.
        message: String,
        /// The traceback as Python prints it, from the user's code on.
        traceback: String,
        /// Only for an `ImportError`: the interpreter, its search path, and a hint.
        environment: Option<String>,
    },
    /// The process ended before it was ready.
    #[non_exhaustive]
    Died {
        /// The exit code, if the process exited.
        exit: Option<i32>,
        /// The signal that ended the process, if one did.
        signal: Option<i32>,
        /// The last lines that the process printed.
        output: String,
    },
    /// The process ended for another reason, or right after it had become ready.
    Ended {
        /// How it ended.
        reason: String,
    },
    /// The worker was not ready within the spawn timeout, and was killed.
    #[non_exhaustive]
    TimedOut {
        /// The spawn timeout.
        after: Duration,
        /// The Python stack at that time, if known.
        stack: Option<String>,
        /// The last lines that the process printed.
        output: String,
    },
    /// The launcher or wrapper started Python as a child process. It must become Python (`exec`), because signals,
    /// limits and the worker's exit belong to the process that the pool started.
    NotReplaced {
        /// The program that was started.
        program: String,
        /// The process id that Python reports.
        pid: u32,
    },
    /// A function differs from its declaration ([`PoolBuilder::declares`](crate::PoolBuilder::declares)).
    Declaration(
        /// Which function, and what is wrong.
        String,
    ),
    /// The process did not speak the protocol.
    Protocol {
        /// What was wrong.
        detail: String,
        /// The last lines that the process printed.
        output: String,
    },
}

impl WorkerStartError {
    /// Python's traceback, if an import, hook or set-up raised.
    pub fn traceback(&self) -> Option<&str> {
        match self {
            Self::Python { traceback, .. } => Some(traceback),
            _ => None,
        }
    }

    /// The Python stack at the spawn timeout, if known.
    pub fn stack(&self) -> Option<&str> {
        match self {
            Self::TimedOut { stack, .. } => stack.as_deref(),
            _ => None,
        }
    }

    /// The last lines that the process printed before it failed.
    pub fn output(&self) -> Option<&str> {
        match self {
            Self::InterpreterUnusable { output, .. }
            | Self::Died { output, .. }
            | Self::TimedOut { output, .. }
            | Self::Protocol { output, .. } => Some(output),
            _ => None,
        }
    }

    fn headline(&self) -> String {
        match self {
            Self::NoInterpreter { looked_for } => format!(
                "no Python interpreter: {}; install Python 3.9 or newer, or name one with `.python(path)`",
                one_line(looked_for)
            ),
            Self::InterpreterTooOld { path, version } => {
                format!("{} is Python {}; hatchery needs 3.9 or newer", one_line(path), one_line(version))
            }
            Self::InterpreterUnusable { path, detail, .. } => {
                format!("{} does not work as a Python interpreter: {}", one_line(path), one_line(detail))
            }
            Self::Spawn { program, source, hint } => {
                let mut text = format!("cannot start {}: {source}", one_line(program));
                if let Some(hint) = hint {
                    text.push_str("; ");
                    text.push_str(hint);
                }
                text
            }
            Self::Python { phase, type_name, message, traceback, environment } => {
                let mut text = format!(
                    "the {phase} of the module failed: {}: {}",
                    one_line(type_name),
                    one_line(message)
                );
                if let Some(place) = place(traceback) {
                    text.push_str(&format!(", raised at {place}"));
                }
                if let Some(hint) = environment.as_deref().and_then(hint_of) {
                    text.push_str(&format!("; {}", one_line(hint)));
                }
                text
            }
            Self::Died { exit, signal, .. } => {
                format!("the worker ended before it was ready ({})", ended_by(*exit, *signal))
            }
            Self::Ended { reason } => format!("the worker ended: {}", one_line(reason)),
            Self::TimedOut { after, stack, .. } => {
                let place = stack.as_deref().and_then(place);
                let at = place.map_or_else(String::new, |place| format!(": it was at {place}"));
                format!("the worker was not ready within {}{at}", human(*after))
            }
            Self::NotReplaced { program, pid } => format!(
                "{} runs Python as its child (process {pid}), but must become Python itself: end a script with `exec`, and \
                 leave out a launcher that forks or waits",
                one_line(program)
            ),
            Self::Declaration(what) => format!("the module is not as declared: {}", one_line(what)),
            Self::Protocol { detail, .. } => format!("protocol error during the start: {}", one_line(detail)),
        }
    }

    fn report(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Python { traceback, environment, .. } => {
                traceback_block(f, traceback)?;
                block(f, "environment", environment.as_deref().unwrap_or_default())
            }
            Self::TimedOut { stack, output, .. } => {
                block(f, "stack, innermost last", stack.as_deref().unwrap_or_default())?;
                block(f, "it printed", output)
            }
            Self::InterpreterUnusable { output, .. }
            | Self::Died { output, .. }
            | Self::Protocol { output, .. } => block(f, "it printed", output),
            Self::Declaration(what) => block(f, "in full", what),
            _ => Ok(()),
        }
    }
}

/// The line in the description of a worker's environment that says what to do.
fn hint_of(environment: &str) -> Option<&str> {
    environment.lines().find_map(|line| line.strip_prefix("hint: "))
}

impl fmt::Display for WorkerStartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.headline())?;
        if f.alternate() { self.report(f) } else { Ok(()) }
    }
}

impl fmt::Debug for WorkerStartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:#}")
    }
}

impl Error for WorkerStartError {}
