//! Random trees of supervisors, under random ends, calls, failing starts and time, against a reference model: what is
//! started and stopped, in which order, by which supervisor, and who gives up when, is exactly what the model says.
//!
//! A failure names the seed; `SUPERVISOR_SEED=n cargo test --lib trees` replays it alone.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use super::{
    model::{Book, Node, Over},
    property::{Seed, pick, seeds},
    sim::S,
    world::{Blueprint, Spec, World},
};
use crate::supervisor::{
    AutoShutdown, ChildOptions, ExitReason, Kind, ReportEvent, Restart, ShutdownCause, Strategy,
    core::{Answer, Event},
    options::SupervisorOptions,
};

fn child(random: &mut fastrand::Rng, id: &str, depth: u32, auto: AutoShutdown) -> (ChildOptions, Spec) {
    let is_supervisor = depth > 0 && random.u8(..3) == 0;
    let kind = if is_supervisor { Kind::Supervisor } else { Kind::Worker };
    let mut options = ChildOptions::new(id, kind);
    let restarts = [Restart::Permanent, Restart::Permanent, Restart::Transient, Restart::Temporary];
    options.restart = pick(random, &restarts);
    options.significant =
        auto != AutoShutdown::Never && options.restart != Restart::Permanent && random.bool();
    let spec = if is_supervisor { Spec::Supervisor(blueprint(random, depth - 1)) } else { Spec::Worker };
    (options, spec)
}

fn blueprint(random: &mut fastrand::Rng, depth: u32) -> Blueprint {
    let autos = [
        AutoShutdown::Never,
        AutoShutdown::Never,
        AutoShutdown::AnySignificant,
        AutoShutdown::AllSignificant,
    ];
    let mut options = SupervisorOptions {
        intensity: random.u32(..6),
        period: S * random.u32(1..6),
        auto_shutdown: pick(random, &autos),
        ..SupervisorOptions::default()
    };
    let mut children = Vec::new();
    match random.u8(..6) {
        0 => options.dynamic = true,
        1 => {
            let count = random.usize(1..5);
            options.partitions = Some(count);
            let partition = |number: usize| ChildOptions::new(&number.to_string(), Kind::Worker);
            children.extend((0..count).map(|number| (partition(number), Spec::Worker)));
        }
        _ => {
            let strategies = [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne];
            options.strategy = pick(random, &strategies);
            for number in 0..random.u32(..5) {
                children.push(child(random, &format!("c{number}"), depth, options.auto_shutdown));
            }
        }
    }
    Blueprint { options, children }
}

/// Exactly one end for each start, with rising incarnations, over the restarts of supervisors.
fn check_reports(reports: &[(String, ReportEvent)]) {
    let mut up: HashMap<String, u64> = HashMap::new();
    let mut highest: HashMap<String, u64> = HashMap::new();
    for (supervisor, event) in reports {
        match event {
            ReportEvent::Started { id, incarnation } => {
                let path = format!("{supervisor}/{id}");
                assert_eq!(up.insert(path.clone(), *incarnation), None, "{path}: started twice");
                let former = highest.insert(path, *incarnation);
                assert!(former.is_none_or(|former| former < *incarnation), "incarnations must rise");
            }
            ReportEvent::ChildTerminated { id, incarnation, .. }
            | ReportEvent::Stopped { id, incarnation }
            | ReportEvent::ShutdownError { id, incarnation, .. } => {
                let path = format!("{supervisor}/{id}");
                assert_eq!(up.remove(&path), Some(*incarnation), "{path}: an end without a start");
            }
            _ => {}
        }
    }
    assert!(up.is_empty(), "ends not reported: {up:?}");
}

/// Does the same to both, and tells whether both still run.
fn step(random: &mut fastrand::Rng, world: &mut World, root: &mut Node, book: &mut Book) -> Result<(), Over> {
    let (supervisors, actors) = root.running();
    let path = pick(random, &supervisors);
    let below: Vec<&str> = path.split('/').skip(1).collect();
    let node = root.find(&below).expect("it runs");
    let ids: Vec<_> = node.children.iter().map(|child| child.options.id.clone()).collect();
    let id = if ids.is_empty() { "nobody".into() } else { pick(random, &ids) };
    match random.u8(..12) {
        0..=4 if !actors.is_empty() => {
            let actor = pick(random, &actors);
            if random.u8(..3) == 0 {
                let failures = random.u32(1..4);
                world.fail(&actor, failures);
                book.failures.insert(actor.clone(), failures);
            }
            let reasons = [ExitReason::Normal, ExitReason::Shutdown, ExitReason::Killed];
            let reason = pick(random, &reasons);
            world.exit(&actor, reason.clone());
            let below: Vec<&str> = actor.split('/').skip(1).collect();
            root.exit(&below, reason.is_normal(), book)?;
        }
        5 | 6 => {
            let new = pick(random, &["x", "y", "z"]);
            let (options, spec) = child(random, new, 1, AutoShutdown::Never);
            let is_up = node.start_child(options.clone(), spec.clone(), book);
            let event = |caller| Event::StartChild { options, payload: spec, caller };
            assert_eq!(world.call(&path, event).is_ok(), is_up);
        }
        7 => {
            let is_down = node.terminate(&id, book);
            let answer = world.call(&path, |caller| Event::TerminateChild { id, caller });
            assert_eq!(answer.is_ok(), is_down, "{answer:?}");
        }
        8 => {
            let is_up = node.restart_child(&id, book);
            let answer = world.call(&path, |caller| Event::RestartChild { id, caller });
            assert_eq!(answer.is_ok(), is_up, "{answer:?}");
        }
        9 => {
            let is_gone = node.delete_child(&id);
            let answer = world.call(&path, |caller| Event::DeleteChild { id, caller });
            assert_eq!(answer.is_ok(), is_gone, "{answer:?}");
        }
        10 => {
            let size = random.usize(..5);
            let former = node.resize(size, book);
            match world.call(&path, |caller| Event::Resize { size, caller }) {
                Ok(Answer::Resized { former: answer }) => assert_eq!(Some(answer), former),
                other => assert!(other.is_err() && former.is_none(), "{other:?}, but {former:?}"),
            }
        }
        _ => {
            let ms = random.u64(..3_000);
            world.pass(Duration::from_millis(ms));
            book.now_ms += ms;
        }
    }
    Ok(())
}

#[test]
fn trees_do_what_the_reference_model_does() {
    let (mut depths, mut escalations) = (HashSet::new(), 0);
    let seeds = seeds();
    for &seed in &seeds {
        let _seed = Seed(seed);
        let mut random = fastrand::Rng::with_seed(seed);
        let blueprint = blueprint(&mut random, 3);
        let mut world = World::new(&blueprint);
        let mut book = Book::default();
        let mut root = Node::start("app".into(), &blueprint, &mut book).expect("nothing fails yet");
        let mut is_over = false;
        for _ in 0..40 {
            is_over = step(&mut random, &mut world, &mut root, &mut book).is_err();
            assert_eq!(world.orders, book.orders);
            assert_eq!(world.ending.is_some(), is_over);
            if is_over {
                break;
            }
            let (supervisors, actors) = root.running();
            depths.extend(supervisors.iter().map(|path| path.matches('/').count()));
            // Without the root.
            let expected: HashSet<&str> =
                supervisors.iter().skip(1).chain(&actors).map(String::as_str).collect();
            assert_eq!(world.living(), expected);
        }
        if !is_over {
            world.stop();
            root.stop(&mut book);
            assert_eq!(world.orders, book.orders);
        }
        assert!(world.ending.is_some() && world.living().is_empty());
        check_reports(&world.reports);
        let gave_up = |(path, event): &&(String, ReportEvent)| {
            let is_escalation =
                matches!(event, ReportEvent::Shutdown { cause: ShutdownCause::IntensityExceeded { .. } });
            path != "app" && is_escalation
        };
        escalations += world.reports.iter().filter(gave_up).count();
    }
    if seeds.len() > 1 {
        assert!(depths.contains(&3), "supervisors in four levels: {depths:?}");
        assert!(escalations > 100, "nested supervisors gave up only {escalations} times");
    }
}
