//! Partitions: how many are in use.

use super::sim::*;
use crate::supervisor::{
    ChildError, ExitReason, Shutdown, Strategy,
    core::{Answer, Event},
    options::SupervisorOptions,
};

fn partitions(count: usize) -> Sim {
    let options = SupervisorOptions { partitions: Some(count), ..options(Strategy::OneForOne, 1, 3600 * S) };
    let children: Vec<_> = (0..count).map(|n| stopped_by(Shutdown::Infinity, &n.to_string())).collect();
    Sim::up(options, &children)
}

fn resize(sim: &mut Sim, size: usize) -> Result {
    let caller = sim.resize_later(size);
    sim.reply(caller).expect("an answer at once")
}

fn former(result: Option<Result>) -> usize {
    match result {
        Some(Ok(Answer::Resized { former })) => former,
        other => panic!("{other:?}"),
    }
}

#[test]
fn down_and_up_again() {
    let mut sim = partitions(4);
    assert_eq!(former(Some(resize(&mut sim, 1))), 4);
    assert_eq!(sim.partitions, 1);
    assert_eq!(sim.take_orders(), ["ask 3", "ask 2", "ask 1"]);
    assert_eq!(former(Some(resize(&mut sim, 3))), 1);
    assert_eq!(sim.take_orders(), ["start 1", "start 2"]);
    assert_eq!(former(Some(resize(&mut sim, 0))), 3);
    assert_eq!(former(Some(resize(&mut sim, 4))), 0);
    assert_eq!(former(Some(resize(&mut sim, 4))), 4);
    assert_eq!((sim.partitions, sim.counts()), (4, [4, 4, 0, 4]));
    assert!(matches!(resize(&mut sim, 5), Err(ChildError::MaxChildren { max: 4 })));
}

#[test]
fn one_after_the_other() {
    let mut sim = partitions(4);
    for id in ["0", "1", "2", "3"] {
        sim.stops(id, Stop::After(S));
    }
    let callers = [2, 4, 0, 3, 3].map(|size| sim.resize_later(size));
    assert_eq!(sim.partitions, 2, "out of use before they stop");
    sim.pass(20 * S);
    let orphans = callers.map(|caller| former(sim.reply(caller)));
    assert_eq!(orphans, [4, 2, 4, 0, 3], "each finds what the one before has left");
    let down = |id: &str| format!("ask {id}");
    let up = |id: &str| format!("start {id}");
    let mut expected = vec![down("3"), down("2"), up("2"), up("3")];
    expected.extend(["3", "2", "1", "0"].map(down));
    expected.extend(["0", "1", "2"].map(up));
    assert_eq!(sim.take_orders(), expected);
}

#[test]
fn a_crash_during_a_resize_is_looked_at_afterwards() {
    let mut sim = partitions(4);
    sim.stops("3", Stop::After(S));
    let caller = sim.resize_later(2);
    sim.crash("2");
    sim.crash("1");
    sim.pass(S);
    assert_eq!(former(sim.reply(caller)), 4);
    // The one that is out of use stays down, the other is restarted.
    assert_eq!(sim.take_orders(), ["ask 3", "start 1"]);
    assert_eq!(sim.counts(), [4, 2, 0, 4]);
}

#[test]
fn what_cannot_start_is_not_in_use() {
    let mut sim = partitions(4);
    resize(&mut sim, 0).unwrap();
    sim.starts("2", &[Start::Fail, Start::Up]);
    assert!(matches!(resize(&mut sim, 4), Err(ChildError::Start { retrying: false, .. })));
    assert_eq!((sim.partitions, sim.counts()), (2, [4, 2, 0, 4]));
    sim.pass(S);
    assert_eq!(sim.counts(), [4, 2, 0, 4], "nobody tries again but who asks for it");
    assert_eq!(former(Some(resize(&mut sim, 4))), 2);
    assert_eq!(sim.partitions, 4);
}

#[test]
fn what_cannot_be_killed_is_told() {
    let mut sim = partitions(2);
    sim.stops("1", Stop::Unkillable);
    let caller = sim.resize_later(1);
    sim.event(Event::Tick);
    assert!(sim.reply(caller).is_none());
    let mut sim = {
        let options = SupervisorOptions { partitions: Some(2), ..options(Strategy::OneForOne, 1, 3600 * S) };
        Sim::up(options, &["0", "1"].map(|id| stopped_by(Shutdown::Brutal, id)))
    };
    sim.stops("1", Stop::Unkillable);
    let caller = sim.resize_later(1);
    sim.pass(S);
    assert!(matches!(sim.reply(caller), Some(Err(ChildError::Unkillable))));
    assert_eq!(sim.partitions, 1);
    let caller = sim.resize_later(2);
    sim.pass(S);
    assert!(matches!(sim.reply(caller), Some(Err(ChildError::Start { .. }))));
    sim.exit("1", ExitReason::Killed);
    assert_eq!(former(Some(resize(&mut sim, 2))), 1);
}

#[test]
fn a_stop_answers_whoever_waits() {
    let mut sim = partitions(2);
    sim.stops("1", Stop::After(S));
    let callers = [sim.resize_later(0), sim.resize_later(2)];
    sim.event(Event::Stop);
    sim.pass(S);
    assert!(sim.ended());
    for caller in callers {
        assert!(matches!(sim.reply(caller), Some(Err(ChildError::SupervisorDown))));
    }
}
