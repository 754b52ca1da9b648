//! Typed errors. This module imports no other module of the crate.
//!
//! - [`CallError`]: why a call or a checkout failed, and whether to send it again.
//! - [`WorkerStartError`]: why a worker did not become ready.
//! - [`ConfigError`]: an unusable setting: its name, its value, and what is allowed.
//!
//! `{}` writes one line. `{:#}` and `Debug` write the report; a failing `main` and `expect` print it. [`report`] writes
//! the parts of both.

#[cfg(feature = "python")]
mod call;
#[cfg(feature = "python")]
mod config;
#[cfg(all(test, feature = "python"))]
mod docs_tests;
pub(crate) mod report;
#[cfg(feature = "python")]
mod start;
#[cfg(all(test, feature = "python"))]
mod tests;

#[cfg(feature = "python")]
pub use call::{CallContext, CallError, Direction, HostCallCause, OverloadCause, Phase, UnavailableCause};
#[cfg(feature = "python")]
pub use config::ConfigError;
#[cfg(feature = "python")]
pub use start::{StartPhase, WorkerStartError};

/// How a process ended, such as `exit code 3` or `signal 11, SIGSEGV`.
pub(crate) fn ended_by(exit: Option<i32>, signal: Option<i32>) -> String {
    match (exit, signal) {
        (Some(74), _) => "exit code 74: its connection to the pool broke".into(),
        (Some(76), _) => "exit code 76: it could not read what the pool sent".into(),
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => match signal_name(signal) {
            Some(name) => format!("signal {signal}, {name}"),
            None => format!("signal {signal}"),
        },
        (None, None) => "exit status unknown".into(),
    }
}

/// The names of the signals that usually end processes.
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        _ => return None,
    })
}
