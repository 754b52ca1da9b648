//! The outer process: starts the child, bounds its time, and checks what it leaves behind.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::alone::{Alone, Failure};
use super::processes::{describe, kill, marked};
use super::{inside, role};

/// How much of the child's output a failure shows at most.
const OUTPUT_BYTES: usize = 256 * 1024;

/// Starts the child that runs the test, waits for it and checks it.
pub(super) fn run(alone: &Alone) -> Result<(), Failure> {
    let folder = RunFolder::new();
    let output = File::create(folder.output()).expect("the test's output file");
    let mut child = Command::new(std::env::current_exe().expect("the test binary"))
        .args([alone.test.as_str(), "--exact", "--include-ignored", "--nocapture", "--test-threads=1"])
        .env(inside::MARK, &folder.mark)
        .env(inside::FOLDER, &folder.path)
        .env("TMPDIR", folder.temporary())
        .env(inside::SETTLE, alone.settle.as_millis().to_string())
        .env_remove(role::ROLE)
        // A file, not a pipe: a leaked process may keep the output open.
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("the output is shared"))
        .stderr(output)
        .spawn()
        .expect("the test binary starts");

    let mut findings = Vec::new();
    let status = ended_within(&mut child, alone.deadline);
    match status {
        Some(status) if !status.success() => findings.push(format!("ended with {status}")),
        Some(_) if !inside::completed(&folder.path) => {
            findings.push(format!("never completed: is {:?} the path of a test?", alone.test));
        }
        Some(_) => {}
        None => {
            findings.push(format!("was killed after {:?}; alive then:", alone.deadline));
            findings.extend(marked(&folder.mark).into_iter().map(|pid| format!("  {}", describe(pid))));
            let _ = child.kill();
            child.wait().expect("a killed child ends");
        }
    }

    let end = Instant::now() + alone.settle;
    while Instant::now() < end && !marked(&folder.mark).is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    for pid in marked(&folder.mark) {
        // After a kill at the deadline, live processes are expected.
        if status.is_some() {
            findings.push(format!("left a process behind: {}", describe(pid)));
        }
        kill(pid);
    }
    for entry in fs::read_dir(folder.temporary()).into_iter().flatten().flatten() {
        if status.is_some() {
            findings.push(format!("left a file in TMPDIR: {}", entry.file_name().display()));
        }
    }
    if findings.is_empty() { Ok(()) } else { Err(Failure { status, findings, output: folder.read_output() }) }
}

fn ended_within(child: &mut Child, deadline: Duration) -> Option<std::process::ExitStatus> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(status) = child.try_wait().expect("the child is ours") {
            return Some(status);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The folder of one run. It is removed on drop.
struct RunFolder {
    mark: String,
    path: PathBuf,
}

impl RunFolder {
    fn new() -> RunFolder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mark = format!("{}-{number}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(format!("hatchery-test-{mark}"));
        let folder = RunFolder { mark, path };
        fs::create_dir_all(folder.temporary()).expect("the test's temporary folder");
        fs::create_dir(inside::scratch_in(&folder.path)).expect("the test's scratch folder");
        folder
    }

    fn temporary(&self) -> PathBuf {
        self.path.join("tmp")
    }

    fn output(&self) -> PathBuf {
        self.path.join("output")
    }

    fn read_output(&self) -> String {
        let bytes = fs::read(self.output()).unwrap_or_default();
        let cut = bytes.len().saturating_sub(OUTPUT_BYTES);
        let skipped =
            if cut > 0 { format!("[{cut} bytes before this are left out]\n") } else { String::new() };
        skipped + &String::from_utf8_lossy(&bytes[cut..])
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}
