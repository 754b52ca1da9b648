//! A whole application in one supervision tree, with a pool of Python workers in it.
//!
//! ```sh
//! cargo run --example application
//! ```
//!
//! A database, a cache that depends on it, sessions that come and go, and the pool. Each of them is killed, and the tree is
//! printed after each recovery: who is restarted with the dead one, and who goes on undisturbed.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use actix::prelude::*;
use hatchery::supervisor::{ChildRef, ChildSpec, ReportEvent, Reports, Strategy, Supervisor};
use hatchery::{CallError, Pool};
use rustix::process::{Pid, Signal, kill_process};

/// More than any recovery takes, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(60);

/// Makes any actor of this application panic.
#[derive(Message)]
#[rtype(result = "()")]
struct Crash;

/// Holds the texts.
struct Database {
    texts: HashMap<&'static str, &'static str>,
}

#[derive(Message)]
#[rtype(result = "Option<&'static str>")]
struct Load(&'static str);

impl Actor for Database {
    type Context = Context<Self>;
}

impl Handler<Load> for Database {
    type Result = Option<&'static str>;

    fn handle(&mut self, Load(title): Load, _: &mut Self::Context) -> Self::Result {
        self.texts.get(title).copied()
    }
}

impl Handler<Crash> for Database {
    type Result = ();

    fn handle(&mut self, Crash: Crash, _: &mut Self::Context) {
        panic!("the disk is full");
    }
}

/// Remembers what it has loaded. What it remembers is worth nothing once the database has been restarted.
struct Cache {
    database: ChildRef<Database>,
    texts: HashMap<&'static str, &'static str>,
}

impl Actor for Cache {
    type Context = Context<Self>;
}

impl Handler<Load> for Cache {
    type Result = ResponseActFuture<Self, Option<&'static str>>;

    fn handle(&mut self, Load(title): Load, _: &mut Self::Context) -> Self::Result {
        if let Some(text) = self.texts.get(title) {
            return Box::pin(fut::ready(Some(*text)));
        }
        let loaded = self.database.send(Load(title));
        Box::pin(loaded.into_actor(self).map(move |loaded, cache, _| {
            let text = loaded.ok().flatten()?;
            cache.texts.insert(title, text);
            Some(text)
        }))
    }
}

impl Handler<Crash> for Cache {
    type Result = ();

    fn handle(&mut self, Crash: Crash, _: &mut Self::Context) {
        panic!("an index is out of range");
    }
}

/// One user's session: it has the words of a text counted in Python.
struct Session {
    cache: ChildRef<Cache>,
    texts: Pool,
}

#[derive(Message)]
#[rtype(result = "Result<u64, CallError>")]
struct CountWords(&'static str);

impl Actor for Session {
    type Context = Context<Self>;
}

impl Handler<CountWords> for Session {
    type Result = ResponseActFuture<Self, Result<u64, CallError>>;

    fn handle(&mut self, CountWords(title): CountWords, _: &mut Self::Context) -> Self::Result {
        let (loaded, pool) = (self.cache.send(Load(title)), self.texts.clone());
        let count = async move {
            let text = loaded.await.ok().flatten().unwrap_or_default();
            pool.call("count_words", (text,)).await
        };
        Box::pin(count.into_actor(self))
    }
}

impl Handler<Crash> for Session {
    type Result = ();

    fn handle(&mut self, Crash: Crash, _: &mut Self::Context) {
        panic!("a bad request");
    }
}

fn database() -> ChildSpec<Database> {
    let texts = HashMap::from([("hamlet", "to be or not to be")]);
    ChildSpec::new("database", move || {
        let texts = texts.clone();
        async move { Ok::<_, Infallible>(Database { texts }) }
    })
}

fn cache() -> ChildSpec<Cache> {
    ChildSpec::with_context("cache", |context| async move {
        let database = context.parent().child("database")?;
        Ok::<_, Box<dyn Error + Send + Sync>>(Cache { database, texts: HashMap::new() })
    })
}

fn session(user: &str, cache: ChildRef<Cache>, texts: Pool) -> ChildSpec<Session> {
    ChildSpec::new(user, move || {
        let (cache, texts) = (cache.clone(), texts.clone());
        async move { Ok::<_, Infallible>(Session { cache, texts }) }
    })
}

/// Waits until these children have been started again, and says who died of what meanwhile.
async fn recovered(reports: &mut Reports, paths: &[&str]) -> Result<(), Box<dyn Error>> {
    let mut missing: HashSet<&str> = paths.iter().copied().collect();
    while !missing.is_empty() {
        let report = tokio::time::timeout(LIMIT, reports.recv()).await?.ok_or("the tree has ended")?;
        match &report.event {
            ReportEvent::Started { id, .. } => {
                missing.remove(format!("{}/{id}", report.supervisor).as_str());
            }
            ReportEvent::ChildTerminated { id, reason, .. } => {
                println!("  {}/{id} ended: {reason}", report.supervisor);
            }
            _ => {}
        }
    }
    Ok(())
}

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    std::panic::set_hook(Box::new(|_| {})); // The reports say it.
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/python");
    let (texts, pool) = Pool::builder().module("textstats").path(python).size(2).child_spec("texts")?;

    let data = Supervisor::builder("data")
        .strategy(Strategy::RestForOne)
        .intensity(5, Duration::from_secs(60))
        .child_spec(database())
        .child_spec(cache());
    let app = Supervisor::builder("app")
        .supervisor("data", data)
        .child_spec(texts)
        .supervisor("sessions", Supervisor::dynamic("sessions"))
        .start()
        .await?;
    let sessions = app.supervisor("sessions")?;
    for user in ["alice", "bob"] {
        sessions.start_child(session(user, app.child("data/cache")?, pool.clone())).await?;
    }
    let alice = app.child::<Session>("sessions/alice")?;
    println!(
        "all are up; alice counts {} words\n{}",
        alice.send(CountWords("hamlet")).await??,
        app.tree().await?
    );
    let mut reports = app.subscribe();

    println!("the database is killed: the cache depends on it, and is restarted with it");
    app.child::<Database>("data/database")?.do_send(Crash)?;
    recovered(&mut reports, &["app/data/database", "app/data/cache"]).await?;
    println!("{}", app.tree().await?);

    println!("the cache is killed: the database goes on");
    app.child::<Cache>("data/cache")?.do_send(Crash)?;
    recovered(&mut reports, &["app/data/cache"]).await?;
    println!("{}", app.tree().await?);

    println!("alice's session is killed: bob's goes on");
    alice.do_send(Crash)?;
    recovered(&mut reports, &["app/sessions/alice"]).await?;
    println!("{}", app.tree().await?);

    println!("a Python worker is killed: the other one serves meanwhile");
    let pid =
        pool.status().await?.workers[0].pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    kill_process(pid.ok_or("no process")?, Signal::KILL)?;
    recovered(&mut reports, &["app/texts/serving/workers/1"]).await?;
    println!("{}", app.tree().await?);

    println!("the whole pool is stopped and started again: its handles follow");
    app.terminate_child("texts").await?;
    app.restart_child("texts").await?;
    println!("{}", app.tree().await?);

    println!("alice counts {} words", alice.send(CountWords("hamlet")).await??);
    app.stop().await;
    println!("all have ended, in the reverse order of their start");
    Ok(())
}
