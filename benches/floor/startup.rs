//! How long bare interpreters take until each has answered.

use std::io::{Read, Write};
use std::time::Instant;

use super::Child;
use super::child::interpreter;

/// Code of a bare interpreter that imports what a worker has imported, then answers once.
pub(crate) fn importing(worker_imports: Vec<String>) -> String {
    let output = std::process::Command::new(interpreter())
        .args(["-c", "import sys; print(*sys.modules)"])
        .output()
        .expect("the interpreter starts");
    let there = String::from_utf8(output.stdout).expect("names in UTF-8");
    let there: Vec<&str> = there.split_whitespace().collect();
    let missing = worker_imports.into_iter().filter(|module| !there.contains(&module.as_str()));
    let imports: String = missing.map(|module| format!("import {module}\n")).collect();
    imports + "import os\nos.write(0, os.read(0, 1))\n"
}

/// Milliseconds until so many interpreters, started side by side, have each run `code` of [`importing`].
pub(crate) fn side_by_side(children: usize, code: &str) -> f64 {
    let start = Instant::now();
    let mut started: Vec<_> = (0..children).map(|_| Child::spawn(code)).collect();
    for (_, stream) in &mut started {
        stream.write_all(b"?").expect("the socket takes a byte");
    }
    for (_, stream) in &mut started {
        stream.read_exact(&mut [0]).expect("the child answers");
    }
    start.elapsed().as_secs_f64() * 1e3
}
