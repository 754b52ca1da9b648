//! Words of a Python generator arrive one by one; Ctrl-C cancels it, and the same worker goes on with the next call.
//!
//! ```sh
//! cargo run --release --example streaming
//! ```
//!
//! Then: a consumer that is slow stops the generator at the window, and an `async` generator. Where nobody can press
//! Ctrl-C (standard input is no terminal, as in CI) the first stream is dropped after 15 words.
//! `examples/python/generation.py` is the Python side.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{IsTerminal, Write, stdin, stdout};
use std::pin::pin;
use std::time::Duration;

use hatchery::{CallError, Pool};
use serde::Deserialize;

/// What `last_ended` returns.
#[derive(Deserialize)]
struct LastEnded {
    ended: String,
    pid: u32,
}

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    env_logger::init();
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/python");
    let pool = Pool::builder().module("generation").path(python).size(1).start().await?;
    until_cancelled(&pool).await?;
    slowly(&pool).await?;
    from_async(&pool).await?;
    pool.shutdown().await;
    Ok(())
}

/// Shows words as they come, until Ctrl-C.
async fn until_cancelled(pool: &Pool) -> Result<(), Box<dyn Error>> {
    let before: LastEnded = pool.call("last_ended", ()).await?;
    let somebody_looks = stdin().is_terminal();
    println!("words as they come; {}", if somebody_looks { "Ctrl-C cancels" } else { "cancelled after 15" });

    let mut words = pool
        .request("generate")
        .args(("to be or not", 200))
        .on_progress(|progress| show(&format!("[{}] ", progress.decode::<String>().unwrap_or_default())))
        .stream::<String>()
        .await?;
    let (mut taken, mut wanted) = (0, if somebody_looks { usize::MAX } else { 15 });
    let mut ctrl_c = pin!(actix_rt::signal::ctrl_c());
    while wanted > 0 {
        tokio::select! {
            word = words.next() => match word {
                Some(word) => show(&format!("{} ", word?)),
                None => break,
            },
            pressed = &mut ctrl_c => {
                pressed?;
                break;
            }
        }
        (taken, wanted) = (taken + 1, wanted - 1);
    }
    // Whoever drops a stream wants no more of it: the generator is cancelled where it stands, its `finally` runs.
    drop(words);
    println!("\n{taken} words taken, then dropped");

    // There is one worker only, so this waits until the generator has come to its end.
    let after: LastEnded = pool.call("last_ended", ()).await?;
    println!("in Python, the generator: {}", after.ended);
    let same = if after.pid == before.pid { "the same process" } else { "ANOTHER PROCESS" };
    println!("the next call is served by {same}, {}\n", after.pid);
    Ok(())
}

/// Takes an item, pauses, and looks how many have been made meanwhile.
async fn slowly(pool: &Pool) -> Result<(), CallError> {
    const PAUSE: Duration = Duration::from_millis(300);
    let mut ticks = pool.request("ticks").args((1000,)).window(8).stream::<(u64, f64)>().await?;
    ticks.next().await.transpose()?;
    tokio::time::sleep(PAUSE).await;
    let (mut meanwhile, mut all) = (1, 1);
    while let Some(tick) = ticks.next().await {
        let (_, made_at) = tick?;
        all += 1;
        // The first one was made a little before the pause began.
        meanwhile += u64::from(made_at < PAUSE.as_secs_f64());
    }
    println!(
        "a consumer that pauses after the first of {all}: {meanwhile} were made meanwhile, the window is 8\n"
    );
    Ok(())
}

/// The items of an `async` generator are a stream like any other.
async fn from_async(pool: &Pool) -> Result<(), CallError> {
    let models = BTreeMap::from([("large", 0.3), ("medium", 0.2), ("small", 0.1)]);
    let mut answers = pool.stream::<String>("ask_all", (models,)).await?;
    println!("three models asked at a time, by an async generator");
    while let Some(answer) = answers.next().await {
        println!("  {}", answer?);
    }
    Ok(())
}

fn show(text: &str) {
    print!("{text}");
    // Whatever is wrong with the output, the next `println` says.
    let _ = stdout().flush();
}
