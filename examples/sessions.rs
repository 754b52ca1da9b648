//! Calls that belong together: each session has a state of its own in Python.
//!
//! ```sh
//! cargo run --release --example sessions
//! ```
//!
//! Two sessions use the same names and do not see each other; how strongly a call is tied to the worker that has its
//! session's state, and where it went; how a session ends; and what becomes of it when its worker is killed. After
//! each value stands the worker that gave it. `examples/python/conversations.py` is the Python side.

use std::error::Error;
use std::io::Write;

use hatchery::{Affinity, CallError, Pool, Reply, Session};
use rustix::process::{Pid, Signal, kill_process};

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // What Python prints is logged, and shown here between the lines.
    env_logger::Builder::new()
        .filter_module("hatchery::python", log::LevelFilter::Info)
        .format(|line, record| writeln!(line, "  Python printed: {}", record.args()))
        .target(env_logger::Target::Stdout)
        .init();
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/python");
    let pool = Pool::builder().module("conversations").path(python).size(2).start().await?;

    println!("two sessions, the same name in both");
    let alice = pool.session("alice").affinity(Affinity::StrictQueue);
    let bob = pool.session("bob").affinity(Affinity::StrictQueue);
    remember(&alice, "green").await?;
    remember(&bob, "red").await?;
    recall(&alice).await?;
    recall(&bob).await?;

    println!("alice's worker is busy");
    let busy = alice.checkout().await?;
    // With a hint, which is the default, another worker will do: it does not have the state, and the reply says so.
    recall(&pool.session("alice").affinity(Affinity::Hint)).await?;
    // Strictly: refused at once, or queued until the worker is free.
    recall(&pool.session("alice").affinity(Affinity::StrictFailFast)).await?;
    let (queued, ()) = tokio::join!(recall(&alice), async { drop(busy) });
    queued?;

    println!("alice ends");
    alice.end().await?;
    recall(&alice).await?;

    println!("bob's worker is killed");
    let worker = bob.checkout().await?;
    let pid = i32::try_from(worker.pid()).ok().and_then(Pid::from_raw).ok_or("no process")?;
    kill_process(pid, Signal::KILL)?;
    // Whether the call had begun when the worker died depends on chance; the error tells.
    match worker.call::<_, Option<String>>("recall", ("colour",)).await {
        Err(CallError::WorkerDied { .. }) => println!("  bob: the worker died"),
        other => println!("  bob: {other:?}"),
    }
    drop(worker);
    // Told once, so that nobody takes an empty state for the session's; then it begins again.
    recall(&bob).await?;
    recall(&bob).await?;
    remember(&bob, "blue").await?;
    recall(&bob).await?;

    pool.shutdown().await;
    Ok(())
}

async fn remember(session: &Session, colour: &str) -> Result<(), CallError> {
    let reply = session.request("remember").args(("colour", colour)).send_raw().await?;
    println!("  {} remembers {colour} ({})", session.name(), place(&reply));
    Ok(())
}

async fn recall(session: &Session) -> Result<(), CallError> {
    match session.request("recall").args(("colour",)).send_raw().await {
        Ok(reply) => {
            let colour: Option<String> = reply.decode()?;
            let colour = colour.as_deref().unwrap_or("nothing");
            println!("  {} recalls {colour} ({})", session.name(), place(&reply));
        }
        Err(error @ (CallError::SessionLost { .. } | CallError::SessionBusy { .. })) => println!("  {error}"),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Which worker served it, and whether that is the session's own.
fn place(reply: &Reply) -> String {
    match reply.placement() {
        Some(placement) => format!("{}, {placement:?}", reply.worker()),
        None => reply.worker().to_owned(),
    }
}
