//! Random trees of real actors under random exits, panics and calls.
//!
//! The actors themselves refuse a second instance. A failure names the seed; `SUPERVISOR_SEED=n cargo test --test
//! supervision random` replays it alone.

use std::{collections::HashMap, time::Duration};

use hatchery::supervisor::{
    Backoff, ChildSpec, ExitReason, ReportEvent, Reports, Restart, Shutdown, Strategy, Supervisor,
    SupervisorBuilder, SupervisorRef,
};

use crate::support::*;

struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with SUPERVISOR_SEED={}", self.0);
        }
    }
}

fn pick<T: Clone>(random: &mut fastrand::Rng, of: &[T]) -> T {
    of[random.usize(..of.len())].clone()
}

fn actor(random: &mut fastrand::Rng, diary: &Diary, id: &str) -> ChildSpec<Puppet> {
    let manners = Manners {
        panics_in_started: random.u8(..40) == 0,
        panics_in_stopping: random.u8(..10) == 0,
        panics_in_drop: random.u8(..20) == 0,
        pending_work: random.bool(),
        refuses_to_stop: random.u8(..10) == 0,
        ..Manners::default()
    };
    let brief = Shutdown::Timeout(Duration::from_millis(5));
    let spec = Puppet::spec_with(diary, id, manners)
        .restart(pick(
            random,
            &[Restart::Permanent, Restart::Permanent, Restart::Transient, Restart::Temporary],
        ))
        .shutdown(pick(random, &[Shutdown::Brutal, brief, brief]));
    if random.u8(..4) > 0 {
        return spec;
    }
    spec.backoff(Backoff { free: 1, first: Duration::from_millis(1), ..Backoff::default() })
}

fn tree(random: &mut fastrand::Rng, diary: &Diary, id: &str, depth: u32) -> SupervisorBuilder {
    let intensity = random.u32(..8);
    if random.u8(..4) == 0 {
        return Supervisor::dynamic(id).intensity(intensity, Duration::from_secs(60));
    }
    let mut builder = Supervisor::builder(id)
        .strategy(pick(random, &[Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne]))
        .intensity(intensity, Duration::from_secs(60));
    for number in 0..random.u32(..4) {
        if depth > 0 && random.bool() {
            let id = format!("s{number}");
            builder = builder.supervisor(&id, tree(random, diary, &id, depth - 1));
        } else {
            builder = builder.child_spec(actor(random, diary, &format!("w{number}")));
        }
    }
    builder
}

/// All supervisors and all actors' paths that exist now, or did a moment ago.
async fn known(app: &impl AsRef<SupervisorRef>) -> (Vec<SupervisorRef>, Vec<String>) {
    let app = app.as_ref();
    let (mut supervisors, mut actors) = (vec![app.clone()], Vec::new());
    let Ok(tree) = app.tree().await else { return (supervisors, actors) };
    for node in tree.nodes().skip(1) {
        let path = node.path.strip_prefix("app/").expect("below the root");
        match app.supervisor(path) {
            Ok(supervisor) => supervisors.push(supervisor),
            Err(_) => actors.push(path.to_owned()),
        }
    }
    (supervisors, actors)
}

/// Each start has exactly one end, before the next start of that child.
async fn check(mut reports: Reports, mut up: HashMap<String, u64>) {
    while let Some(report) = within("the last report", reports.recv()).await {
        let path = |id: &str| format!("{}/{id}", report.supervisor);
        match &report.event {
            ReportEvent::Started { id, incarnation } => {
                let former = up.insert(path(id), *incarnation);
                // What was listed after the subscription is reported as well, once.
                assert!(former.is_none_or(|former| former == *incarnation), "{report}, but {former:?} is up");
            }
            ReportEvent::ChildTerminated { id, incarnation, .. }
            | ReportEvent::Stopped { id, incarnation }
            | ReportEvent::ShutdownError { id, incarnation, .. } => {
                assert_eq!(up.remove(&path(id)), Some(*incarnation), "{report}");
            }
            _ => {}
        }
    }
    assert!(up.is_empty(), "no end was reported of {up:?}");
}

async fn run(seed: u64) {
    let _seed = Seed(seed);
    let mut random = fastrand::Rng::with_seed(seed);
    let diary = Diary::default();
    let Ok(app) = tree(&mut random, &diary, "app", 2).start().await else {
        assert_eq!(diary.living(), 0, "a failed start leaves nothing");
        return;
    };
    let reports = app.subscribe();
    let mut up = HashMap::new();
    for supervisor in known(&app).await.0 {
        for child in supervisor.which_children().await.unwrap_or_default() {
            let path = format!("{}/{}", supervisor.path(), child.options.id);
            up.extend(child.incarnation.map(|incarnation| (path, incarnation)));
        }
    }
    for step in 0..30 {
        let (supervisors, actors) = known(&app).await;
        let supervisor = pick(&mut random, &supervisors);
        if !actors.is_empty() && random.u8(..3) > 0 {
            if let Ok(actor) = app.child::<Puppet>(&pick(&mut random, &actors)) {
                let abnormal = ExitReason::Abnormal("random".into());
                let ends = [End::Stop, End::Panic, End::PanicInFuture, End::Exit(abnormal), End::WaitForEver];
                let _ = actor.do_send(pick(&mut random, &ends));
            }
        } else {
            let spec = actor(&mut random, &diary, &format!("x{step}"));
            let children = supervisor.which_children().await.unwrap_or_default();
            let some = children.get(random.usize(..children.len().max(1)));
            let id = some.map_or("nobody", |child| &*child.options.id).to_owned();
            // Whether it works is not the point; that each call is answered is.
            let call = async {
                match random.u8(..6) {
                    0 | 1 => drop(supervisor.start_child(spec).await),
                    2 => drop(supervisor.terminate_child(&id).await),
                    3 if !actors.is_empty() => drop(app.terminate_child(&pick(&mut random, &actors)).await),
                    4 => drop(supervisor.delete_child(&id).await),
                    _ => drop(supervisor.restart_child(&id).await),
                }
            };
            within("an answer", call).await;
        }
        if random.u8(..3) == 0 {
            tokio::task::yield_now().await;
        }
    }
    if random.bool() {
        within("the stop", app.stop()).await;
        assert_eq!(diary.living(), 0, "stopped, and nothing lives");
    } else {
        let ended = app.downgrade();
        drop(app);
        diary.wait_until_empty().await;
        drop(ended);
    }
    check(reports, up).await;
}

#[test]
fn random_trees() {
    alone("random::random_trees", || {
        std::panic::set_hook(Box::new(|panic| {
            let text = panic.payload().downcast_ref::<&str>().copied().unwrap_or_default();
            // The panics of puppets are part of the play.
            if !text.starts_with("in ") {
                eprintln!("{panic}");
            }
        }));
        let seeds = match std::env::var("SUPERVISOR_SEED") {
            Ok(seed) => vec![seed.parse().expect("a number")],
            Err(_) => (0..crate::TREES).collect(),
        };
        actix::System::new().block_on(async {
            for seed in seeds {
                run(seed).await;
            }
        });
    });
}
