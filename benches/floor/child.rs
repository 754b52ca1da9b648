//! One bare Python process on one end of a socketpair.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The loop of a worker.
pub(super) const LOOP: &str = include_str!("loop.py");

/// A running interpreter; killed and reaped when dropped.
pub(crate) struct Child {
    process: std::process::Child,
}

impl Child {
    /// Starts Python code and returns it with the parent's end of its socket.
    pub(crate) fn spawn(code: &str) -> (Child, UnixStream) {
        Self::spawn_with(code, &[])
    }

    /// The same with arguments.
    pub(crate) fn spawn_with(code: &str, arguments: &[&str]) -> (Child, UnixStream) {
        Self::spawn_by(interpreter(), code, arguments)
    }

    /// The same by an interpreter of the caller's choice.
    pub(crate) fn spawn_by(interpreter: &Path, code: &str, arguments: &[&str]) -> (Child, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("socketpair");
        let process = Command::new(interpreter)
            .args(["-c", code])
            .args(arguments)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .expect("the interpreter starts");
        (Child { process }, ours)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The absolute path of the interpreter: of the active virtual environment, else of `python3` on PATH.
///
/// A `python3` on PATH may be a shell script that looks for the real one (pyenv), so the interpreter itself is asked.
pub(crate) fn interpreter() -> &'static PathBuf {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let named = match std::env::var_os("VIRTUAL_ENV") {
            Some(environment) => PathBuf::from(environment).join("bin/python3"),
            None => PathBuf::from("python3"),
        };
        let answer = Command::new(&named)
            .args(["-c", "import sys; print(sys.executable)"])
            .output()
            .unwrap_or_else(|error| panic!("no interpreter {}: {error}", named.display()));
        assert!(answer.status.success(), "{} fails: {answer:?}", named.display());
        PathBuf::from(String::from_utf8(answer.stdout).expect("a path in UTF-8").trim())
    })
}
