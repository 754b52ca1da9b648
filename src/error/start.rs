//! Why a worker did not start.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ended_by;
use super::report::{block, human, one_line, place};

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
    /// No Python interpreter to start.
    NoInterpreter {
        /// What was looked for, and where.
        looked_for: String,
    },
    /// The interpreter is older than 3.9.
    InterpreterTooOld {
        /// The interpreter.
        path: String,
        /// Its version.
        version: String,
    },
    /// The interpreter does not work as one.
    InterpreterUnusable {
        /// The interpreter.
        path: String,
        /// What it did instead.
        detail: String,
        /// The last lines it printed.
        output: String,
    },
    /// The operating system refused to start the process.
    Spawn {
        /// What was to be started.
        program: String,
        /// What the operating system said.
        source: Arc<std::io::Error>,
        /// What to do about it, where that is known.
        hint: Option<String>,
    },
    /// The module's import, or the set-up after it, raised.
    Python {
        /// What it was doing.
        phase: StartPhase,
        /// The exception's type, with its module unless it is a builtin.
        type_name: String,
        /// `str(exception)`.
        message: String,
        /// The traceback as Python prints it, beginning at the user's code.
        traceback: String,
        /// Of an `ImportError`: which interpreter ran, where it looks for modules, and what may be wrong with that.
        environment: Option<String>,
    },
    /// The process ended before it was ready.
    Died {
        /// The exit code, when it exited.
        exit: Option<i32>,
        /// The signal that ended it, when one did.
        signal: Option<i32>,
        /// The last lines it printed.
        output: String,
    },
    /// It ended for another reason, or right after it had become ready.
    Ended {
        /// How.
        reason: String,
    },
    /// It was not ready within the spawn timeout, and was killed.
    TimedOut {
        /// The spawn timeout.
        after: Duration,
        /// What Python was doing, where that could be had.
        stack: Option<String>,
        /// The last lines it printed.
        output: String,
    },
    /// The launcher, or a wrapper given as the interpreter, started Python as a child. It must become Python instead:
    /// signals, limits and the end of the worker are tied to the process that was started.
    NotReplaced {
        /// What was started.
        program: String,
        /// The process that Python runs as, as Python says.
        pid: u32,
    },
    /// A function is not as [`PoolBuilder::declares`](crate::PoolBuilder::declares) says.
    Declaration(
        /// Which function, and what is wrong.
        String,
    ),
    /// It did not speak the protocol.
    Protocol {
        /// What was wrong.
        detail: String,
        /// The last lines it printed.
        output: String,
    },
}

impl WorkerStartError {
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

    pub(super) fn report(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Python { traceback, environment, .. } => {
                block(f, "traceback", traceback)?;
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

/// The line of a worker's description of its environment that says what to do.
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
