//! The same pool started cold and from a zygote: when its workers are ready, how long a killed one is missed, and what
//! they cost in memory.
//!
//! ```sh
//! cargo run --release --example zygote
//! ```

use std::time::{Duration, Instant};

use hatchery::{CallError, GetStatus, Memory, Pool, WorkerState};
use rustix::process::{Pid, Signal, kill_process};

const WORKERS: usize = 6;
/// How long a worker's start may fail again and again.
const PATIENCE: Duration = Duration::from_secs(10);

/// What there is to tell of a pool.
struct Figures {
    /// When each worker was ready, from the start on.
    ready: Vec<Duration>,
    /// From the kill of a worker to the answer of its replacement.
    restart: Duration,
    workers: Vec<Memory>,
    template: Option<Memory>,
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error")).init();
    // The first pool of a process asks the interpreter what it is; neither shall pay for that.
    builder(1).start().await?.shutdown().await;

    let cold = measure(false).await?;
    let forked = measure(true).await?;

    println!("{:<34}{:>12}{:>12}", "", "cold", "forked");
    for (number, (cold, forked)) in cold.ready.iter().zip(&forked.ready).enumerate() {
        row(&format!("worker {} of {WORKERS} ready after", number + 1), ms(*cold), ms(*forked));
    }
    row("killed, the next one answers after", ms(cold.restart), ms(forked.restart));
    row("memory (PSS) of the workers", mb(cold.pss()), mb(forked.pss()));
    row("  of the template", "-".into(), mb(forked.template.map_or(0, |memory| memory.pss_bytes)));
    row("written by one worker alone", mb(cold.dirty()), mb(forked.dirty()));
    Ok(())
}

fn builder(workers: usize) -> hatchery::PoolBuilder {
    Pool::builder().module("heavy_imports").path("examples/python").size(workers)
}

async fn measure(zygote: bool) -> Result<Figures, Box<dyn std::error::Error>> {
    let builder = builder(WORKERS).min_ready(0);
    let builder = if zygote { builder.zygote() } else { builder };
    let begun = Instant::now();
    let pool = builder.start().await?;

    let mut ready = Vec::new();
    while ready.len() < WORKERS {
        let status = pool.actor().send(GetStatus).await?;
        ready.resize(ready.len().max(status.ready as usize), begun.elapsed());
        // The supervisor tries for ever; this program gives up.
        let failed = status.workers.iter().find(|worker| worker.state == WorkerState::Failed);
        if let Some(worker) = failed.filter(|_| begun.elapsed() > PATIENCE) {
            let why = worker.last_exit.clone().unwrap_or_default();
            pool.shutdown().await;
            return Err(format!("{} of {WORKERS} workers are ready: {why}", ready.len()).into());
        }
        actix_rt::time::sleep(Duration::from_micros(200)).await;
    }

    // With all other workers leased, the one that is killed is missed until its replacement is there.
    let mut leases = Vec::new();
    for _ in 1..WORKERS {
        leases.push(pool.checkout().await?);
    }
    let victim: i32 = pool.call("pid", ()).await?;
    let killed = Instant::now();
    kill_process(Pid::from_raw(victim).expect("a process id"), Signal::KILL)?;
    while let Err(error) = pool.call::<_, i32>("pid", ()).await {
        // The first call may still have been given to the one that is dying.
        if !matches!(error, CallError::WorkerDied { .. }) {
            return Err(error.into());
        }
    }
    let restart = killed.elapsed();
    let entry: String = pool.call("lookup", (41,)).await?;
    assert_eq!(entry, "41");

    let status = pool.status().await?;
    let workers = status.workers.iter().filter_map(|worker| worker.memory).collect();
    let template = status.zygote.and_then(|zygote| zygote.memory);
    drop(leases);
    pool.shutdown().await;
    Ok(Figures { ready, restart, workers, template })
}

impl Figures {
    fn pss(&self) -> u64 {
        self.workers.iter().map(|memory| memory.pss_bytes).sum()
    }

    fn dirty(&self) -> u64 {
        self.workers.iter().map(|memory| memory.private_dirty_bytes).max().unwrap_or(0)
    }
}

fn row(what: &str, cold: String, forked: String) {
    println!("{what:<34}{cold:>12}{forked:>12}");
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
