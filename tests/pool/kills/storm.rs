//! Many kills under load.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hatchery::{CallError, Pool};
use tokio::time::MissedTickBehavior;

use crate::faults::pools::{pool_of, serves, start, status};
use crate::support::{Seed, alone_test, kill, pgid, scratch, status_when};

const WORKERS: usize = 8;
const KILLS: usize = 60;
const BETWEEN_KILLS: Duration = Duration::from_millis(25);
const CALLS: usize = 200;
const AT_ONCE: usize = 16 * crate::IN_FLIGHT;

/// A slot that dies more than three times within five seconds waits for its next worker, longer each time; with all
/// eight in that state a call may find none for some seconds. That is what a storm costs, and no failure of a call.
const PATIENCE: Duration = Duration::from_secs(60);

const SOURCE: &str = "
import asyncio, os, time
def _write(journal, what, number):
    # One write to the end of the file: whole, whatever else is written or killed.
    fd = os.open(journal, os.O_WRONLY | os.O_APPEND)
    os.write(fd, f'{what} {number}\\n'.encode())
    os.close(fd)

def note(journal, number, seconds):
    _write(journal, 'begun', number)
    time.sleep(seconds)
    _write(journal, 'ended', number)
    return number

async def note_async(journal, number, seconds):
    _write(journal, 'begun', number)
    await asyncio.sleep(seconds)
    _write(journal, 'ended', number)
    return number
";

alone_test! {
    within 3600 seconds:
    /// No more failed calls than were in the workers that were killed, every call ends once and no function runs twice, and all workers come back.
    async fn calls_survive_a_storm_of_kills() {
        for round in 0..rounds() {
            storm(round).await;
        }
    }
}

/// One storm in CI; a soak asks for a thousand rounds of everything, of which a storm is worth ten.
fn rounds() -> usize {
    std::env::var("HATCHERY_ROUNDS")
        .map_or(1, |text| text.parse::<usize>().expect("HATCHERY_ROUNDS is a number").div_ceil(10))
}

async fn storm(round: usize) {
    let seed = Seed::new();
    let journal = scratch().join(format!("journal-{round}"));
    std::fs::write(&journal, "").expect("the scratch folder is writable");
    let pool =
        start(pool_of(SOURCE).size(WORKERS).checkout_timeout(PATIENCE).call_timeout(PATIENCE * 2)).await;

    let over = Arc::new(AtomicBool::new(false));
    let outcomes = Arc::new(Mutex::new(BTreeMap::new()));
    let next = Arc::new(Mutex::new(0..));
    let callers: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (pool, journal, next) = (pool.clone(), journal.clone(), next.clone());
            let (outcomes, over) = (outcomes.clone(), over.clone());
            tokio::spawn(async move {
                loop {
                    let number = next.lock().expect("no panic").next().expect("there are more numbers");
                    // Two hundred, or more until the storm is over.
                    if number >= CALLS && over.load(Ordering::Relaxed) {
                        return;
                    }
                    let function = if number % 4 == 0 { "note" } else { "note_async" };
                    let outcome = pool.call::<_, usize>(function, (&journal, number, 0.05)).await;
                    let twice = outcomes.lock().expect("no panic").insert(number, outcome);
                    assert!(twice.is_none(), "call {number} ended twice");
                }
            })
        })
        .collect();

    let kills = kill_many(&pool, &mut seed.rng()).await;
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("no panic");
    }

    let outcomes = std::mem::take(&mut *outcomes.lock().expect("no panic"));
    check_outcomes(&outcomes, &read(&journal), kills);
    let after = status_when(&pool, "all that were killed are back", |status| {
        status.restarts as usize == kills && status.ready as usize == WORKERS
    })
    .await;
    assert_eq!((after.unavailable, after.timed_out_waiting, after.waiting), (0, 0, 0), "{after:?}");
    serves(&pool).await;
    pool.shutdown().await;
}

/// Kills a random live worker at each tick; a tick without one waits for one.
async fn kill_many(pool: &Pool, random: &mut fastrand::Rng) -> usize {
    let mut ticks = tokio::time::interval(BETWEEN_KILLS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = BTreeMap::new();
    for _ in 0..KILLS {
        ticks.tick().await;
        loop {
            let workers = status(pool).await.workers;
            // One that was killed already is known to be dead a moment later.
            let alive = workers.iter().filter_map(|worker| Some((&worker.name, worker.pid?)));
            let alive: Vec<_> = alive
                .filter(|(name, pid)| last.get(*name) != Some(pid) && pgid(*pid) == Some(*pid))
                .collect();
            if let Some((name, pid)) = random.choice(alive) {
                last.insert(name.clone(), pid);
                kill(pid);
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    KILLS
}

#[derive(Default)]
struct Runs {
    begun: usize,
    ended: usize,
}

fn read(journal: &Path) -> BTreeMap<usize, Runs> {
    let mut notes: BTreeMap<usize, Runs> = BTreeMap::new();
    for line in std::fs::read_to_string(journal).expect("the calls wrote it").lines() {
        let (what, number) = line.split_once(' ').expect("two words");
        let runs = notes.entry(number.parse().expect("a number")).or_default();
        *if what == "begun" { &mut runs.begun } else { &mut runs.ended } += 1;
    }
    notes
}

fn check_outcomes(
    outcomes: &BTreeMap<usize, Result<usize, CallError>>,
    notes: &BTreeMap<usize, Runs>,
    kills: usize,
) {
    assert!(outcomes.len() >= CALLS, "{} calls ended", outcomes.len());
    let none = Runs::default();
    let mut failed = 0;
    for (number, outcome) in outcomes {
        let runs = notes.get(number).unwrap_or(&none);
        assert!(runs.begun <= 1, "call {number} ran {} times", runs.begun);
        match outcome {
            Ok(result) => {
                assert_eq!((result, runs.begun, runs.ended), (number, 1, 1));
            }
            Err(CallError::WorkerDied {
                started: true, exit: None, signal: Some(9), attempts: 1, ..
            }) => failed += 1,
            Err(error) => panic!("call {number} failed by something else: {error:?}"),
        }
    }
    println!("{} calls, {kills} kills, {failed} failed", outcomes.len());
    assert!(failed <= kills * crate::IN_FLIGHT, "{failed} failed calls of {kills} kills");
}
