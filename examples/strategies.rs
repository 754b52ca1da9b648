//! The same crash under each strategy, side by side.
//!
//! Three actors, `a`, `b` and `c`, start in this order; then `b` panics. Read each column from top to bottom.
//!
//! ```sh
//! cargo run --example strategies
//! ```

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix::prelude::*;
use hatchery::supervisor::{ChildRef, ChildSpec, ReportEvent, Reports, Strategy, Supervisor};

/// What happened, in order.
type Timeline = Arc<Mutex<Vec<String>>>;

struct Member {
    name: String,
    timeline: Timeline,
}

impl Actor for Member {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.timeline.lock().unwrap().push(format!("{} starts", self.name));
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.timeline.lock().unwrap().push(format!("{} stops", self.name));
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Crash;

impl Handler<Crash> for Member {
    type Result = ();

    fn handle(&mut self, _: Crash, _: &mut Self::Context) {
        self.timeline.lock().unwrap().push(format!("{} PANICS", self.name));
        panic!("as told");
    }
}

fn member(name: &'static str, timeline: &Timeline) -> ChildSpec<Member> {
    let timeline = timeline.clone();
    ChildSpec::new(name, move || {
        let member = Member { name: name.to_owned(), timeline: timeline.clone() };
        async move { Ok::<_, Infallible>(member) }
    })
}

/// Waits until a member is up again.
async fn restarted(reports: &mut Reports, name: &str) {
    let wait = async {
        while let Some(report) = reports.recv().await {
            if matches!(&report.event, ReportEvent::Started { id, .. } if &**id == name) {
                return;
            }
        }
    };
    actix_rt::time::timeout(Duration::from_secs(5), wait).await.expect("the group comes back");
}

async fn run(strategy: Strategy) -> Vec<String> {
    let timeline = Timeline::default();
    let app = Supervisor::builder("app")
        .strategy(strategy)
        .child_spec(member("a", &timeline))
        .child_spec(member("b", &timeline))
        .child_spec(member("c", &timeline))
        .start()
        .await
        .expect("all members start");
    let mut reports = app.subscribe();
    let b: ChildRef<Member> = app.child("b").expect("b is a member");
    b.do_send(Crash).expect("b is up");
    restarted(&mut reports, if strategy == Strategy::OneForOne { "b" } else { "c" }).await;
    timeline.lock().unwrap().push("-- stop --".to_owned());
    app.stop().await;
    std::mem::take(&mut *timeline.lock().unwrap())
}

#[actix::main]
async fn main() {
    // The panics are the point here; do not print them.
    std::panic::set_hook(Box::new(|_| {}));
    let strategies = [
        ("one_for_one", Strategy::OneForOne),
        ("rest_for_one", Strategy::RestForOne),
        ("one_for_all", Strategy::OneForAll),
    ];
    let mut columns = Vec::new();
    for (name, strategy) in strategies {
        columns.push((name, run(strategy).await));
    }
    let rows = columns.iter().map(|(_, lines)| lines.len()).max().unwrap_or(0);
    let print = |cells: Vec<&str>| {
        let line: String = cells.iter().map(|cell| format!("{cell:<16}")).collect();
        println!("{}", line.trim_end());
    };
    print(columns.iter().map(|(name, _)| *name).collect());
    for row in 0..rows {
        print(columns.iter().map(|(_, lines)| lines.get(row).map_or("", String::as_str)).collect());
    }
}
