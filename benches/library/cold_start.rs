//! How long the start of a pool takes.

use std::process::{Command, Stdio};
use std::time::Instant;

use actix_rt::System;

use super::bare;

/// The argument by which this program runs itself for [`print_first_start`].
pub(crate) const FIRST_START: &str = "--first-start";

/// Milliseconds until `start()` of a pool of so many workers returns, which is when all of them are ready.
pub(crate) fn cold_start_ms(workers: usize) -> f64 {
    System::new().block_on(async {
        let start = Instant::now();
        let pool = bare(workers).start().await.expect("the pool starts");
        let took = start.elapsed();
        pool.shutdown().await;
        took.as_secs_f64() * 1e3
    })
}

/// Like [`cold_start_ms`], in a process that has not started a pool before: it must ask the interpreter first.
pub(crate) fn first_start_ms(workers: usize) -> f64 {
    let program = std::env::current_exe().expect("this program has a path");
    let output = Command::new(program)
        .args([FIRST_START, &workers.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .expect("this program runs again");
    assert!(output.status.success(), "it fails: {output:?}");
    let printed = String::from_utf8(output.stdout).expect("a number in UTF-8");
    printed.trim().parse().expect("it prints a number")
}

/// What the new process does: `workers` is its last argument.
pub(crate) fn print_first_start() {
    let workers =
        std::env::args().next_back().and_then(|last| last.parse().ok()).expect("a number of workers");
    println!("{}", cold_start_ms(workers));
}

/// The modules that a worker has imported before any user module, its own package left out.
pub(crate) fn worker_imports() -> Vec<String> {
    let imported: Vec<String> = System::new().block_on(async {
        let pool = bare(1).start().await.expect("the pool starts");
        let imported = pool.call("imported", ()).await.expect("the call succeeds");
        pool.shutdown().await;
        imported
    });
    let ours = |module: &str| module == "bare" || module.split('.').next() == Some("hatchery");
    imported.into_iter().filter(|module| !ours(module)).collect()
}
