//! The child: compares the processes, descriptors and threads before and after the body.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::processes::{descendants, describe, fds, kill, threads};
use super::{logs, role};

/// Marks the child and all processes that it starts. The value is unique to the run.
pub(super) const MARK: &str = "HATCHERY_TEST_MARK";

/// The folder of the run.
pub(super) const FOLDER: &str = "HATCHERY_TEST_FOLDER";

/// How many milliseconds processes, threads and descriptors may take to end.
pub(super) const SETTLE: &str = "HATCHERY_TEST_SETTLE";

/// Whether this process is a child that runs one test alone.
pub(crate) fn is_child() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Whether the child with this folder completed its checks.
pub(super) fn completed(folder: &Path) -> bool {
    folder.join("completed").exists()
}

pub(super) fn scratch_in(folder: &Path) -> PathBuf {
    folder.join("scratch")
}

/// The folder for the modules and files of this test. It is removed after the test.
///
/// TMPDIR is a different folder, which must be empty when the test ends.
pub(crate) fn scratch() -> PathBuf {
    scratch_in(&run_folder())
}

fn run_folder() -> PathBuf {
    PathBuf::from(std::env::var_os(FOLDER).expect("only a test that runs alone has a folder"))
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

/// Runs the body and panics when it leaks a process, a file descriptor or a thread.
pub(super) fn run(body: impl FnOnce()) {
    logs::install();
    if role::role().is_some() {
        // A helper process is checked by its test. The newline ends the line that libtest began.
        println!();
        return body();
    }
    // A subreaper adopts orphans, so an orphan without the mark is found too.
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1)).expect("Linux has subreapers");
    // Tokio's signal pipe exists once per process and stays: create it before the first snapshot.
    drop(tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));

    let own = std::process::id();
    let before = Resources::of(own);
    body();

    let settle =
        std::env::var(SETTLE).ok().and_then(|text| text.parse().ok()).expect("the outer test sets it");
    let end = Instant::now() + Duration::from_millis(settle);
    loop {
        let found = Resources::of(own).added_since(&before);
        if found.is_empty() {
            break;
        }
        if Instant::now() >= end {
            // The outer test cannot find a process that has lost the mark.
            descendants(own).into_iter().for_each(kill);
            panic!("the test left behind:\n{}", found.join("\n"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    fs::write(run_folder().join("completed"), "").expect("the folder of the run exists");
}

/// The descendants, descriptors and threads of a process.
struct Resources {
    descendants: Vec<u32>,
    fds: BTreeMap<u32, String>,
    threads: BTreeMap<u32, String>,
}

impl Resources {
    fn of(pid: u32) -> Resources {
        Resources { descendants: descendants(pid), fds: fds(pid), threads: threads(pid) }
    }

    fn added_since(&self, before: &Resources) -> Vec<String> {
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
