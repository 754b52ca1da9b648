//! What supervision costs, as JSON lines: `cargo bench --bench supervision`.
//!
//! `{"bench":"supervision","case":…,"value":…,"unit":…,"floor":…,"ratio":…}`; `ratio` is `value / floor`. The floor of
//! `start_stop_*` (processor time) is the time per child of `start_stop_1000`, that of `child_ref_send` a bare `Addr` doing the same,
//! that of `deep_start_*` (processor time per level of starting and stopping a tree so deep) is `deep_start_25`,
//! that of `restart` and `bytes_per_child` an unsupervised actor.

use std::{
    convert::Infallible,
    hint::black_box,
    time::{Duration, Instant},
};

use actix::prelude::*;
use hatchery::supervisor::{ChildRef, Supervisor};

struct Echo;

impl Actor for Echo {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "u64")]
struct Ask(u64);

impl Handler<Ask> for Echo {
    type Result = u64;

    fn handle(&mut self, ask: Ask, _: &mut Self::Context) -> u64 {
        ask.0
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Crash;

impl Handler<Crash> for Echo {
    type Result = ();

    fn handle(&mut self, _: Crash, _: &mut Self::Context) {
        panic!("as told");
    }
}

fn report(case: &str, value: f64, unit: &str, floor: f64) {
    let ratio = value / floor;
    println!(
        r#"{{"bench":"supervision","case":"{case}","value":{value:.4},"unit":"{unit}","floor":{floor:.4},"ratio":{ratio:.3}}}"#
    );
}

fn us(time: Duration, count: usize) -> f64 {
    time.as_secs_f64() * 1e6 / count as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn echo() -> Result<Echo, Infallible> {
    Ok(Echo)
}

/// The processor time of this thread: other programs' load would tell on long rounds more than on short ones.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The processor time per child of starting and stopping so many.
async fn start_stop(count: usize) -> f64 {
    let mut builder = Supervisor::builder("app");
    for i in 0..count {
        builder = builder.child(i.to_string(), echo);
    }
    let begin = thread_time();
    let app = builder.start().await.expect("they start");
    app.stop().await;
    us(thread_time() - begin, count)
}

/// The processor time per level of starting and stopping a tree with so many supervisors above its only actor.
async fn deep_start(levels: usize) -> f64 {
    let mut builder = Supervisor::builder("level").child("echo", echo);
    for _ in 0..levels {
        builder = Supervisor::builder("level").supervisor("level", builder);
    }
    let begin = thread_time();
    let app = builder.start().await.expect("they start");
    app.stop().await;
    us(thread_time() - begin, levels)
}

/// From telling an actor to panic until the next one has answered.
async fn restart() -> (f64, f64) {
    let app = Supervisor::builder("app")
        .intensity(u32::MAX, Duration::from_millis(1))
        .child("echo", echo)
        .start()
        .await
        .expect("it starts");
    let child: ChildRef<Echo> = app.child("echo").expect("it is there");
    let (mut values, mut floors) = (Vec::new(), Vec::new());
    for i in 0..2_000 {
        let begin = Instant::now();
        let _ = child.send(Crash).await;
        child.ready(Duration::from_secs(5)).await.expect("it comes back");
        black_box(child.send(Ask(i)).await.expect("an answer"));
        values.push(us(begin.elapsed(), 1));

        let begin = Instant::now();
        let _ = Echo.start().send(Crash).await;
        black_box(Echo.start().send(Ask(i)).await.expect("an answer"));
        floors.push(us(begin.elapsed(), 1));
    }
    app.stop().await;
    (median(values), median(floors))
}

async fn child_ref_send() -> (f64, f64) {
    const COUNT: usize = 20_000;
    let app = Supervisor::builder("app").child("echo", echo).start().await.expect("it starts");
    let child: ChildRef<Echo> = app.child("echo").expect("it is there");
    let addr = child.addr().expect("it is up");
    let (mut values, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        let begin = Instant::now();
        for i in 0..COUNT {
            black_box(child.send(Ask(i as u64)).await.expect("an answer"));
        }
        values.push(us(begin.elapsed(), COUNT));
        let begin = Instant::now();
        for i in 0..COUNT {
            black_box(addr.send(Ask(i as u64)).await.expect("an answer"));
        }
        floors.push(us(begin.elapsed(), COUNT));
    }
    app.stop().await;
    (median(values), median(floors))
}

/// Resident memory of this process.
fn resident_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0.0);
    pages * 4096.0
}

async fn bytes_per_child() -> (f64, f64) {
    const COUNT: usize = 50_000;
    let before = resident_bytes();
    let addrs: Vec<Addr<Echo>> = (0..COUNT).map(|_| Echo.start()).collect();
    tokio::task::yield_now().await;
    for addr in &addrs {
        black_box(addr.send(Ask(1)).await.expect("an answer"));
    }
    let bare = (resident_bytes() - before) / COUNT as f64;
    // The bare ones stay, so that their memory is not taken for the children.
    let before = resident_bytes();
    let mut builder = Supervisor::builder("app");
    for i in 0..COUNT {
        builder = builder.child(i.to_string(), echo);
    }
    let app = builder.start().await.expect("they start");
    let supervised = (resident_bytes() - before) / COUNT as f64;
    drop(addrs);
    app.stop().await;
    (supervised, bare)
}

#[actix::main]
async fn main() {
    // First, while the allocator holds no memory that it could hand out again.
    let (value, floor) = bytes_per_child().await;
    report("bytes_per_child", value, "bytes", floor);
    let mut floor = 0.0;
    start_stop(1_000).await;
    for (count, rounds) in [(1_000, 41), (10_000, 9), (100_000, 3)] {
        let mut values = Vec::new();
        for _ in 0..rounds {
            values.push(start_stop(count).await);
        }
        let value = median(values);
        if count == 1_000 {
            floor = value;
        }
        report(&format!("start_stop_{count}"), value, "us", floor);
    }
    let mut floor = 0.0;
    deep_start(100).await;
    for levels in [25, 50, 100, 200, 400, 800] {
        let mut values = Vec::new();
        for _ in 0..8_000 / levels {
            values.push(deep_start(levels).await);
        }
        let value = median(values);
        if levels == 25 {
            floor = value;
        }
        report(&format!("deep_start_{levels}"), value, "us", floor);
    }
    let (value, floor) = child_ref_send().await;
    report("child_ref_send", value, "us", floor);
    std::panic::set_hook(Box::new(|_| {}));
    let (value, floor) = restart().await;
    report("restart", value, "us", floor);
}
