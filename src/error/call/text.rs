//! The text of a `CallError`: one line for `{}`, the report for `{:#}` and `Debug`.

use std::error::Error;
use std::fmt;

use super::{CallError, OverloadCause, Phase, UnavailableCause};
use crate::error::ended_by;
use crate::error::report::{block, field, human, one_line, traceback_block};

impl CallError {
    /// ``while it ran `price` at shop.py:12``, without the parts that are not known.
    fn whereabouts(&self) -> String {
        let mut text = match self.function() {
            Some(function) => format!("while it ran `{}`", one_line(function)),
            None => "while the function ran".to_owned(),
        };
        if let Some(place) = self.place() {
            text.push_str(" at ");
            text.push_str(&place);
        }
        text
    }

    /// The call, after this word: ``before the call of `price` ``. For a call that had not begun.
    fn waiting(&self, word: &str) -> String {
        match self.function() {
            Some(function) => format!("{word} the call of `{}`", one_line(function)),
            None => format!("{word} the call"),
        }
    }

    fn headline(&self) -> String {
        match self {
            CallError::Overloaded { cause, queue_len, queue_bytes, retry_after } => {
                let bound = match cause {
                    OverloadCause::QueueBound => {
                        format!("{queue_len} requests wait, as many as `queue_bound` allows")
                    }
                    OverloadCause::QueueBytes => format!(
                        "{queue_len} requests with {queue_bytes} bytes of arguments wait, as many bytes as `queue_bytes` allows"
                    ),
                    OverloadCause::MaxSessions => {
                        "as many sessions are in use as `max_sessions` allows".to_owned()
                    }
                };
                format!("the pool is overloaded: {bound}; try again in {}", human(*retry_after))
            }
            CallError::Timeout { phase: Phase::Queue, .. } => {
                format!("the deadline passed while {} waited for a worker", self.waiting("").trim_start())
            }
            CallError::Timeout { .. } => format!("the deadline passed {}", self.whereabouts()),
            CallError::Python { type_name, message, .. } => {
                let message = one_line(message);
                let colon = if message.is_empty() { "" } else { ": " };
                format!("{}{colon}{message}, raised {}", one_line(type_name), self.whereabouts())
            }
            CallError::WorkerDied { started, exit, signal, max_rss_bytes, reason, .. } => {
                let mut text = format!("the worker died ({}) ", ended_by(*exit, *signal));
                text.push_str(&match started {
                    true => self.whereabouts(),
                    false => format!("{} began", self.waiting("before")),
                });
                if let Some(reason) = reason {
                    text.push_str(": ");
                    text.push_str(&one_line(reason));
                }
                if let Some(bytes) = max_rss_bytes {
                    text.push_str(&format!("; it had used up to {} MB", bytes / 1_000_000));
                }
                text
            }
            CallError::Encode { direction, message, .. } => {
                format!("cannot encode {direction}{}: {}", self.of_function(), one_line(message))
            }
            CallError::Decode { direction, path, message, .. } => {
                format!(
                    "cannot decode {direction}{}: {}: {}",
                    self.of_function(),
                    one_line(path),
                    one_line(message)
                )
            }
            CallError::Protocol { detail, .. } => format!("protocol error: {}", one_line(detail)),
            CallError::NoSuchFunction { name, similar, reason, .. } => match reason {
                Some(reason) => format!("`{}` cannot be called: {}", one_line(name), one_line(reason)),
                None => format!("no function `{}` in the module{}", one_line(name), did_you_mean(similar)),
            },
            CallError::Arguments { message, .. } => {
                format!("the arguments{} do not fit: {}", self.of_function(), one_line(message))
            }
            CallError::FrameTooLarge { size, limit, direction, .. } => format!(
                "{direction}{} take a frame of {size} bytes, over the limit of {limit} bytes (see `max_frame_bytes`)",
                self.of_function()
            ),
            CallError::Cancelled => "the call was cancelled".into(),
            CallError::HostCall { name, message, cause, .. } => {
                format!("the host call `{}` failed ({cause}): {}", one_line(name), one_line(message))
            }
            CallError::SessionLost { session } => {
                format!("the session {:?} is lost: its worker ended", one_line(session))
            }
            CallError::SessionBusy { session, retry_after } => format!(
                "the worker of the session {:?} is busy; try again in {}",
                one_line(session),
                human(*retry_after)
            ),
            CallError::Draining => "the pool is shutting down".into(),
            CallError::Unavailable { cause } => format!("the pool is unavailable: {cause}"),
        }
    }

    fn of_function(&self) -> String {
        self.function().map_or_else(String::new, |function| format!(" of `{}`", one_line(function)))
    }

    fn report(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(worker) = self.worker() {
            field(f, "worker", worker)?;
        }
        if let Some(request_id) = self.request_id() {
            field(f, "request id", request_id)?;
        }
        match self {
            CallError::Timeout { stack, attempts, .. } => {
                field(f, "attempts", &attempts.to_string())?;
                block(f, "stack, innermost last", stack.as_deref().unwrap_or_default())
            }
            CallError::Python { traceback, environment, attempts, .. } => {
                field(f, "attempts", &attempts.to_string())?;
                traceback_block(f, traceback)?;
                block(f, "environment", environment.as_deref().unwrap_or_default())
            }
            CallError::WorkerDied { stderr_tail, attempts, .. } => {
                field(f, "attempts", &attempts.to_string())?;
                block(f, "last lines of its standard error", stderr_tail)
            }
            CallError::Encode { message: text, .. }
            | CallError::Decode { message: text, .. }
            | CallError::Arguments { message: text, .. }
            | CallError::HostCall { message: text, .. }
            | CallError::Protocol { detail: text, .. }
                if one_line(text) != text.trim() =>
            {
                block(f, "in full", text)
            }
            CallError::Unavailable { cause: UnavailableCause::StartFailed(cause) } => {
                write!(f, ": {cause:#}")
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.headline())?;
        if f.alternate() { self.report(f) } else { Ok(()) }
    }
}

impl fmt::Debug for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:#}")
    }
}

impl Error for CallError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // The line says what the `UnavailableCause` says, so the source is what comes after it.
            CallError::Unavailable { cause } => cause.source(),
            _ => None,
        }
    }
}

fn did_you_mean(similar: &[String]) -> String {
    match similar {
        [] => String::new(),
        names => format!("; did you mean `{}`?", one_line(&names.join("` or `"))),
    }
}
