//! What lethal calls cost the other callers: `cargo bench --bench chaos [-- [--quick] [SECONDS]]`.
//!
//! Four workers serve eight callers, whose calls are harmless and idempotent, while one call a second ends its worker
//! (`os._exit(3)`). One JSON object a line: `value` is the rate of harmless calls with the lethal ones, `floor` the rate without
//! them, measured before and after. The rows `tenth_1` to `tenth_10` show whether the service declines with time. SECONDS is the
//! time with lethal calls: 600 by default, 20 with `--quick`.

// Other benches use more of it.
#[allow(dead_code, unused_imports)]
mod measure;

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_rt::{System, spawn, time};
use hatchery::{CallError, Pool};
use measure::{Row, Target};

const WORKERS: usize = 4;
const CALLERS: usize = 8;
const LEAST_RATIO: f64 = 0.9;

/// What the callers have seen so far.
#[derive(Default)]
struct Tally {
    served: Cell<u64>,
    failed: Cell<u64>,
    stop: Cell<bool>,
}

impl Tally {
    /// Harmless calls served a second, in the next `duration`.
    async fn rate(&self, duration: Duration) -> f64 {
        let (before, begin) = (self.served.get(), Instant::now());
        time::sleep(duration).await;
        (self.served.get() - before) as f64 / begin.elapsed().as_secs_f64()
    }
}

fn main() {
    System::new().block_on(async {
        let fault_time = fault_time();
        let base_time = (fault_time / 10).max(Duration::from_secs(5));
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
        let pool = Pool::builder().module("chaos").path(module).size(WORKERS).start().await;
        let pool = pool.expect("the pool starts");
        let tally = Rc::new(Tally::default());
        let callers: Vec<_> = (0..CALLERS).map(|_| spawn(call(pool.clone(), tally.clone()))).collect();

        tally.rate(Duration::from_secs(2)).await; // all workers are warm
        let before = tally.rate(base_time).await;
        let lethal = spawn(lethal(pool.clone()));
        let mut rates = Vec::new();
        for _ in 0..10 {
            rates.push(tally.rate(fault_time / 10).await);
        }
        lethal.abort();
        time::sleep(Duration::from_secs(2)).await; // the last of the dead is replaced
        let after = tally.rate(base_time).await;
        tally.stop.set(true);
        for caller in callers {
            caller.await.expect("no caller panics");
        }
        let restarts = pool.status().await.map_or(0, |status| status.restarts);
        pool.shutdown().await;

        let floor = (before + after) / 2.0;
        let row = |case: &str, rate: f64| Row::new("chaos", case, "1/s", rate, floor, rate / floor);
        for (number, &rate) in rates.iter().enumerate() {
            row(&format!("tenth_{}", number + 1), rate).print();
        }
        let rate = rates.iter().sum::<f64>() / rates.len() as f64;
        row("one_lethal_call_a_second", rate).against(Some(Target::AtLeast(LEAST_RATIO))).print();
        eprintln!("{restarts} workers were replaced, {} harmless calls failed", tally.failed.get());
    });
}

/// How long there are lethal calls.
fn fault_time() -> Duration {
    let mut seconds = 600;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--quick" => seconds = 20,
            flag if flag.starts_with("--") => {}
            number => seconds = number.parse().expect("SECONDS is a number"),
        }
    }
    Duration::from_secs(seconds)
}

/// One harmless caller, call after call.
async fn call(pool: Pool, tally: Rc<Tally>) {
    while !tally.stop.get() {
        let x = tally.served.get();
        let answer: Result<u64, CallError> = pool.request("serve").args((x,)).idempotent().send().await;
        let counter = if answer.is_ok_and(|answer| answer == x) { &tally.served } else { &tally.failed };
        counter.set(counter.get() + 1);
    }
}

/// One lethal call a second; each ends its worker.
async fn lethal(pool: Pool) {
    let mut every_second = time::interval(Duration::from_secs(1));
    loop {
        every_second.tick().await;
        let pool = pool.clone();
        spawn(async move {
            if let Err(error) = pool.call::<_, ()>("die", ()).await
                && !matches!(error, CallError::WorkerDied { .. })
            {
                eprintln!("a lethal call: {error}");
            }
        });
    }
}
