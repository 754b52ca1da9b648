//! One cold start that nobody supervises.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::Subject;

/// Milliseconds until a bare interpreter has imported the subject's module and answered.
pub(crate) fn cold_import_ms(subject: &Subject) -> f64 {
    let (mut ours, theirs) = UnixStream::pair().expect("a socketpair");
    let code = format!("import {}\nimport os\nos.write(0, os.read(0, 1))\n", subject.module);
    let start = Instant::now();
    let mut child = Command::new(&subject.python)
        .args(["-c", &code])
        .env("PYTHONPATH", Subject::FOLDER)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .expect("the interpreter starts");
    ours.write_all(b"?").expect("the socket takes a byte");
    ours.read_exact(&mut [0]).expect("the child answers");
    let took = start.elapsed();
    child.wait().expect("it ends after its answer");
    took.as_secs_f64() * 1e3
}
