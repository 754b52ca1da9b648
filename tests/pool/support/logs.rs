//! The log records of the library and its workers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// Bounds the memory of a test whose worker floods the log.
const MOST_LINES: usize = 20_000;

static LINES: Mutex<Vec<Line>> = Mutex::new(Vec::new());

struct Line {
    level: Level,
    target: String,
    text: String,
}

/// When set, each record takes 20 us, as with a logger that writes to a slow disk.
static IS_SLOW: AtomicBool = AtomicBool::new(false);

/// Prints the records that RUST_LOG selects and keeps all records of level `info` or higher.
struct Logger {
    shown: env_logger::Logger,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Info || self.shown.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.shown.matches(record) {
            self.shown.log(record);
        }
        if IS_SLOW.load(Ordering::Relaxed) {
            let end = Instant::now() + Duration::from_micros(20);
            while Instant::now() < end {}
        }
        let mut lines = lines();
        if record.level() <= Level::Info && lines.len() < MOST_LINES {
            let (target, text) = (record.target().to_owned(), record.args().to_string());
            lines.push(Line { level: record.level(), target, text });
        }
    }

    fn flush(&self) {
        self.shown.flush();
    }
}

fn lines() -> MutexGuard<'static, Vec<Line>> {
    LINES.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

pub(super) fn install() {
    let shown = env_logger::Builder::from_default_env().target(env_logger::Target::Stderr).build();
    let most = shown.filter().max(LevelFilter::Info);
    if log::set_boxed_logger(Box::new(Logger { shown })).is_ok() {
        log::set_max_level(most);
    }
}

/// The records so far of this process with this level and target.
pub(crate) fn logged(level: Level, target: &str) -> Vec<String> {
    let lines = lines();
    lines.iter().filter(|it| it.level == level && it.target == target).map(|it| it.text.clone()).collect()
}

/// Makes the logger slow from now on, in this process.
pub(crate) fn slow_down_logger() {
    IS_SLOW.store(true, Ordering::Relaxed);
}
