//! The records of one worker in `log`, bounded in number and length.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::budget::{LOG_RECORD_BYTES, LOG_RECORDS_PER_SECOND};
use crate::text::beginning;

/// The period of the budget.
const WINDOW: Duration = Duration::from_secs(1);

/// Where the records of one worker go. Its target in `log` is `hatchery::python::WORKER`.
pub(crate) struct Records {
    target: String,
    gate: Mutex<Gate>,
}

impl Records {
    pub(crate) fn new(worker: &str) -> Arc<Self> {
        Arc::new(Self { target: format!("hatchery::python::{worker}"), gate: Mutex::new(Gate::default()) })
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs a text that holds no unsafe characters, unless the worker has logged too much in this second.
    ///
    /// # Panics
    /// Outside of a `LocalSet` when it is too much.
    pub(crate) fn record(self: &Arc<Self>, level: log::Level, text: &str) {
        if !log::log_enabled!(target: &self.target, level) {
            return;
        }
        let verdict = self.gate().admit(Instant::now());
        match verdict {
            Verdict::Admitted { suppressed } => {
                self.tell_suppressed(suppressed);
                self.log(level, text);
            }
            Verdict::Suppressed { first: false } => {}
            Verdict::Suppressed { first: true } => {
                // A flood that stops is told of too.
                let records = self.clone();
                tokio::task::spawn_local(async move {
                    tokio::time::sleep(WINDOW).await;
                    records.flush();
                });
            }
        }
    }

    /// Tells how many records were suppressed, if any were.
    pub(crate) fn flush(&self) {
        let suppressed = std::mem::take(&mut self.gate().suppressed);
        self.tell_suppressed(suppressed);
    }

    fn tell_suppressed(&self, suppressed: u64) {
        if suppressed > 0 {
            log::warn!(
                target: &self.target,
                "suppressed {suppressed} records: a worker may log {LOG_RECORDS_PER_SECOND} in a second"
            );
        }
    }

    fn log(&self, level: log::Level, text: &str) {
        match beginning(text, LOG_RECORD_BYTES) {
            (text, 0) => log::log!(target: &self.target, level, "{text}"),
            (text, more) => log::log!(target: &self.target, level, "{text} [{more} more bytes]"),
        }
    }
}

/// Which records pass. Pure.
#[derive(Debug, Default)]
struct Gate {
    /// When the present window began.
    since: Option<Instant>,
    admitted: u32,
    /// Dropped records that have not been reported yet.
    suppressed: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// So many were suppressed before it.
    Admitted { suppressed: u64 },
    /// `first`: since the last time that suppressed records were told of.
    Suppressed { first: bool },
}

impl Gate {
    fn admit(&mut self, now: Instant) -> Verdict {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            (self.since, self.admitted) = (Some(now), 0);
        }
        if self.admitted < LOG_RECORDS_PER_SECOND {
            self.admitted += 1;
            return Verdict::Admitted { suppressed: std::mem::take(&mut self.suppressed) };
        }
        self.suppressed += 1;
        Verdict::Suppressed { first: self.suppressed == 1 }
    }
}

/// The text of a record of Python's `logging`.
pub(crate) fn python_record(logger: &str, message: &str, request_id: Option<&str>) -> String {
    use crate::text::{escaped, escaped_lines, name};

    let (logger, message) = (name(logger), beginning(message, LOG_RECORD_BYTES));
    let mut text = format!("{}: {}", escaped(&logger), escaped_lines(message.0));
    if message.1 > 0 {
        let _ = write!(text, " [{} more bytes]", message.1);
    }
    if let Some(id) = request_id {
        let _ = write!(text, " [request {}]", escaped(&name(id)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_over_the_budget_of_a_second_are_counted() {
        let (mut gate, start) = (Gate::default(), Instant::now());
        for _ in 0..LOG_RECORDS_PER_SECOND {
            assert_eq!(gate.admit(start), Verdict::Admitted { suppressed: 0 });
        }
        assert_eq!(gate.admit(start), Verdict::Suppressed { first: true });
        assert_eq!(gate.admit(start + WINDOW / 2), Verdict::Suppressed { first: false });
        assert_eq!(gate.admit(start + WINDOW), Verdict::Admitted { suppressed: 2 });
        assert_eq!(gate.admit(start + WINDOW), Verdict::Admitted { suppressed: 0 });
    }

    #[test]
    fn record_of_python_cannot_look_like_two() {
        let text = python_record("a\nb", "one\n[ERROR] two\r\u{1b}[A", Some("r-7\n[ERROR]"));
        assert_eq!(text, "a\\nb: one\n  | [ERROR] two\\r\\u{1b}[A [request r-7\\n[ERROR]]");
        let text = python_record(&"l".repeat(1_000_000), &"m".repeat(1_000_000), None);
        assert!(text.len() < LOG_RECORD_BYTES + 400, "{}", text.len());
    }
}
