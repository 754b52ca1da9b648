//! The child's half: runs the body between two looks at what this process holds.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::processes::{descendants, describe, fds, kill, threads};
use super::{logs, role};

/// Marks the child and every process that it starts; the value is unique to the run.
pub(super) const MARK: &str = "HATCHERY_TEST_MARK";

/// The folder of the run.
pub(super) const PLACE: &str = "HATCHERY_TEST_PLACE";

/// For how many milliseconds what the body has used may take to go.
pub(super) const SETTLE: &str = "HATCHERY_TEST_SETTLE";

/// Whether this process is a child that runs one test alone.
pub(crate) fn is_child() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Whether the child of this folder came to the end of its checks.
pub(super) fn ran(place: &Path) -> bool {
    place.join("ran").exists()
}

pub(super) fn scratch_in(place: &Path) -> PathBuf {
    place.join("scratch")
}

/// A folder of this test's own, for its modules and notes; removed when the test has ended.
///
/// TMPDIR is another one: a test whose TMPDIR is not empty at its end fails.
pub(crate) fn scratch() -> PathBuf {
    scratch_in(&place())
}

fn place() -> PathBuf {
    PathBuf::from(std::env::var_os(PLACE).expect("only a test that runs alone has a folder"))
}

/// A body that runs in an actix system, as under `#[actix::main]`.
pub(crate) fn in_system<F: Future<Output = ()> + 'static>(body: impl FnOnce() -> F) -> impl FnOnce() {
    move || actix::System::new().block_on(async move { body().await })
}

/// A body that runs under a multi-threaded tokio runtime, as under `#[tokio::main]`: there is no System.
pub(crate) fn in_tokio<F: Future<Output = ()>>(body: impl FnOnce() -> F) -> impl FnOnce() {
    move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move { body().await });
    }
}

/// Runs the body and panics when it leaves a live process, a file descriptor or a thread.
pub(super) fn run(body: impl FnOnce()) {
    logs::install();
    if role::role().is_some() {
        // A helper process of a test: the test judges it. Libtest has left its own line open.
        println!();
        return body();
    }
    // Orphans come to this process and not to init, so that one without the mark is found too.
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1)).expect("Linux has subreapers");
    // What is made once per process and stays (tokio's signal pipe) is made before the first look.
    drop(tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));

    let own = std::process::id();
    let before = Held::by(own);
    body();

    let settle =
        std::env::var(SETTLE).ok().and_then(|text| text.parse().ok()).expect("the outer test says it");
    let end = Instant::now() + Duration::from_millis(settle);
    loop {
        let found = Held::by(own).beyond(&before);
        if found.is_empty() {
            break;
        }
        if Instant::now() >= end {
            // Nobody else can find one that has lost the mark.
            descendants(own).into_iter().for_each(kill);
            panic!("the test left behind:\n{}", found.join("\n"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    fs::write(place().join("ran"), "").expect("the folder of the run is there");
}

/// What a process holds, by name.
struct Held {
    descendants: Vec<u32>,
    fds: BTreeMap<u32, String>,
    threads: BTreeMap<u32, String>,
}

impl Held {
    fn by(pid: u32) -> Held {
        Held { descendants: descendants(pid), fds: fds(pid), threads: threads(pid) }
    }

    fn beyond(&self, before: &Held) -> Vec<String> {
        let mut found: Vec<String> =
            self.descendants.iter().map(|&pid| format!("  process {}", describe(pid))).collect();
        let new = |now: &BTreeMap<u32, String>, then: &BTreeMap<u32, String>, kind: &str| -> Vec<String> {
            let new = now.iter().filter(|(number, name)| then.get(number) != Some(name));
            new.map(|(number, name)| format!("  {kind} {number}: {name}")).collect()
        };
        found.extend(new(&self.fds, &before.fds, "file descriptor"));
        found.extend(new(&self.threads, &before.threads, "thread"));
        found
    }
}
