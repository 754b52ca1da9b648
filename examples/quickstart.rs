//! The main job on real input: a pool of Python workers parses every module of the Python standard library found on
//! this machine with Python's own `ast`, while one busy worker is killed on the way.
//!
//! ```sh
//! cargo run --release --example quickstart
//! ```
//!
//! `examples/python/stdlib_census.py` does the parsing; it is a plain module that knows nothing of hatchery. The last
//! line is JSON, for scripts. `RUST_LOG=info` shows what the supervisors say.

use std::error::Error;
use std::io::IsTerminal;
use std::time::Instant;

use futures_util::{StreamExt, stream};
use hatchery::{CallError, Pool, WorkerState};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};

/// What `census` returns for one file.
#[derive(Deserialize)]
#[serde(untagged)]
enum Census {
    Counted { functions: u64, classes: u64, documented: u64 },
    Refused { refused: String },
}

#[derive(Default, Serialize)]
struct Totals {
    files: u64,
    functions: u64,
    classes: u64,
    refused: u64,
    failed: u64,
    restarts: u64,
    leaked_processes: usize,
    #[serde(skip)]
    documented: u64,
}

/// Every n-th file is parsed by one worker alone first, to compare with.
const SAMPLE: usize = 8;

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    env_logger::init();
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/python");
    let started = Instant::now();
    let pool = Pool::builder().module("stdlib_census").path(python).start().await?;
    let size = pool.status().await?.size;
    println!("{size} Python workers ready in {:.0} ms", started.elapsed().as_secs_f64() * 1e3);

    let files: Vec<String> = pool.call("stdlib_files", ()).await?;
    let one_worker = files_per_second_of_one(&pool, &files).await?;

    let progress = ProgressBar::with_draw_target(Some(files.len() as u64), target());
    progress.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} files, {per_sec}, {eta} left")?);
    let began = Instant::now();
    let mut totals = Totals::default();
    // More calls than workers, so that no worker waits for the next one.
    let mut results = stream::iter(&files).map(|file| parse(&pool, file)).buffer_unordered(4 * size as usize);
    while let Some((file, result)) = results.next().await {
        totals.files += 1;
        progress.inc(1);
        match result {
            Ok(Census::Counted { functions, classes, documented }) => {
                totals.functions += functions;
                totals.classes += classes;
                totals.documented += documented;
            }
            Ok(Census::Refused { refused }) => {
                totals.refused += 1;
                log::info!("{file}: {refused}");
            }
            Err(error) => {
                totals.failed += 1;
                progress.suspend(|| eprintln!("{file}: {error:#}"));
            }
        }
        if totals.files == files.len() as u64 / 2 {
            let killed = kill_a_worker(&pool).await?;
            progress.suspend(|| println!("killed {killed}; what it had goes to another worker"));
        }
    }
    drop(results);
    progress.finish_and_clear();
    let wall = began.elapsed().as_secs_f64();

    let status = pool.status().await?;
    totals.restarts = status.restarts;
    pool.shutdown().await;
    totals.leaked_processes = children();

    let rate = totals.files as f64 / wall;
    println!("files       {:>8}   refused by Python's parser: {}", totals.files, totals.refused);
    println!("functions   {:>8}   documented, with the classes: {}", totals.functions, totals.documented);
    println!("classes     {:>8}", totals.classes);
    println!("wall time   {wall:>7.1}s   {rate:.0} files/s; one worker alone: {one_worker:.0} files/s");
    println!("speed-up    {:>8.2}   with {size} workers", rate / one_worker);
    println!(
        "supervisor  {:>8}   worker restarted, {} calls without a result",
        totals.restarts, totals.failed
    );
    println!("{}", serde_json::to_string(&totals)?);
    Ok(())
}

/// Parses one file. That twice does no harm, so a call whose worker dies is sent to another one.
async fn parse<'a>(pool: &Pool, file: &'a str) -> (&'a str, Result<Census, CallError>) {
    (file, pool.request("census").args((file,)).idempotent().send().await)
}

/// What one worker alone manages: a lease is one worker to oneself.
async fn files_per_second_of_one(pool: &Pool, files: &[String]) -> Result<f64, CallError> {
    let lease = pool.checkout().await?;
    let sample: Vec<&String> = files.iter().step_by(SAMPLE).collect();
    let began = Instant::now();
    for file in &sample {
        let _: Census = lease.call("census", (file,)).await?;
    }
    Ok(sample.len() as f64 / began.elapsed().as_secs_f64())
}

/// Kills a busy one. Where this thread has been slow to hand out files all may be idle for a moment; then any will do.
async fn kill_a_worker(pool: &Pool) -> Result<String, Box<dyn Error>> {
    let status = pool.status().await?;
    let victim = status.workers.into_iter().max_by_key(|worker| worker.state == WorkerState::Busy);
    let victim = victim.ok_or("the pool has no worker")?;
    let pid = victim.pid.and_then(|pid| rustix::process::Pid::from_raw(pid as i32)).ok_or("no process")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    Ok(format!("{} (process {pid})", victim.name))
}

/// Draws only where somebody looks.
fn target() -> ProgressDrawTarget {
    if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
}

/// Processes that this one has started and that still are there, zombies included.
fn children() -> usize {
    let me = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
        // "pid (name) state parent ...", and a name may hold anything.
        .filter(|stat| stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)) == Some(&me))
        .count()
}
