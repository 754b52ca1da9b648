//! Cases of OTP's `supervisor_SUITE`, under their names: start, stop, administration, restart types, strategies.

use super::sim::*;
use crate::supervisor::{
    Backoff, ChildError, ExitReason, ReportEvent, Restart, Shutdown, Strategy,
    core::{Answer, Ending, Event, StateView},
};

const NORMAL: ExitReason = ExitReason::Normal;
const SHUTDOWN: ExitReason = ExitReason::Shutdown;

fn abnormal() -> ExitReason {
    ExitReason::Abnormal("abnormal".into())
}

fn one_for_one(intensity: u32) -> crate::supervisor::options::SupervisorOptions {
    options(Strategy::OneForOne, intensity, 3600 * S)
}

#[test]
fn sup_start_normal() {
    let mut sim = Sim::new(one_for_one(0), &[]);
    sim.boot();
    assert!(sim.booted);
    sim.event(Event::Stop);
    assert!(matches!(sim.ending, Some(Ending::Ended(ExitReason::Shutdown))));
}

#[test]
fn sup_start_ignore_child() {
    let mut sim = Sim::new(one_for_one(0), &[worker("a"), worker("b")]);
    sim.starts("a", &[Start::Decline, Start::Up]);
    sim.boot();
    assert!(sim.booted);
    assert_eq!(sim.counts(), [2, 1, 0, 2]);
    assert!(matches!(sim.restart("a"), Ok(Answer::Started { .. })));
    assert_eq!(sim.counts(), [2, 2, 0, 2]);
}

#[test]
fn sup_start_ignore_temporary_child() {
    let mut sim = Sim::new(one_for_one(0), &[with(Restart::Temporary, "a"), worker("b")]);
    sim.starts("a", &[Start::Decline]);
    sim.boot();
    assert_eq!(sim.counts(), [1, 1, 0, 1]);
}

#[test]
fn sup_start_ignore_temporary_child_start_child() {
    let mut sim = Sim::up(one_for_one(0), &[]);
    sim.starts("a", &[Start::Decline]);
    assert_eq!(sim.start(with(Restart::Temporary, "a")).unwrap(), Answer::Declined);
    assert!(sim.start(worker("b")).is_ok());
    assert_eq!(sim.counts(), [1, 1, 0, 1]);
}

#[test]
fn sup_start_child_returns_error() {
    let mut sim = Sim::up(one_for_one(0), &[]);
    sim.starts("a", &[Start::Fail]);
    assert!(matches!(sim.start(worker("a")), Err(ChildError::Start { retrying: false, .. })));
    assert_eq!(sim.counts(), [0; 4]);
}

#[test]
fn sup_start_restart_child_returns_error() {
    let mut sim = Sim::up(one_for_one(0), &[worker("a")]);
    sim.terminate("a").unwrap();
    sim.starts("a", &[Start::Fail]);
    assert!(matches!(sim.restart("a"), Err(ChildError::Start { retrying: false, .. })));
    assert_eq!(sim.counts(), [1, 0, 0, 1]);
}

#[test]
fn sup_start_fail() {
    let mut sim = Sim::new(one_for_one(9), &[worker("a"), worker("b"), worker("c"), worker("d")]);
    sim.starts("c", &[Start::Fail]);
    sim.boot();
    assert!(!sim.booted);
    assert!(matches!(&sim.ending, Some(Ending::NotStarted { id, .. }) if &**id == "c"));
    assert_eq!(sim.take_orders(), ["start a", "start b", "start c", "ask b", "ask a"]);
}

#[test]
fn sup_stop_infinity() {
    let children = [stopped_by(Shutdown::Infinity, "a"), stopped_by(Shutdown::Infinity, "b")];
    let mut sim = Sim::up(one_for_one(0), &children);
    sim.stops("b", Stop::After(86_400 * S));
    sim.event(Event::Stop);
    assert_eq!(sim.take_log(), ["ask b"]);
    sim.pass(86_399 * S);
    assert_eq!(sim.take_log(), [""; 0]);
    sim.pass(S);
    assert_eq!(sim.take_log(), ["end b", "ask a", "end a"]);
    assert!(sim.ended());
}

#[test]
fn sup_stop_timeout() {
    let children = [worker("a"), stopped_by(Shutdown::Timeout(S), "b")];
    let mut sim = Sim::up(one_for_one(0), &children);
    sim.stops("b", Stop::Never);
    sim.reports.clear();
    sim.event(Event::Stop);
    sim.pass(S);
    assert_eq!(sim.take_log(), ["ask b", "kill b", "end b", "ask a", "end a"]);
    assert!(matches!(
        &sim.reports[1..],
        [ReportEvent::ShutdownError { reason: ExitReason::Killed, .. }, ReportEvent::Stopped { .. }]
    ));
}

#[test]
fn sup_stop_timeout_of_the_supervisor_itself() {
    let mut sim = Sim::up(one_for_one(0), &[worker("a"), stopped_by(Shutdown::Infinity, "b")]);
    sim.stops("b", Stop::Never);
    sim.event(Event::Stop);
    sim.event(Event::Kill);
    assert_eq!(sim.take_orders(), ["ask b", "kill a", "kill b"]);
    assert!(
        matches!(sim.ending, Some(Ending::Ended(ExitReason::Killed))),
        "its parent learns that T elapsed"
    );
}

#[test]
fn sup_stop_brutal_kill() {
    let children = [worker("a"), stopped_by(Shutdown::Brutal, "b")];
    let mut sim = Sim::up(one_for_one(0), &children);
    sim.reports.clear();
    sim.event(Event::Stop);
    assert_eq!(sim.take_log(), ["kill b", "end b", "ask a", "end a"]);
    assert!(matches!(&sim.reports[1..], [ReportEvent::Stopped { .. }, ReportEvent::Stopped { .. }]));
}

#[test]
fn sup_stop_manual() {
    let mut sim = Sim::up(one_for_one(0), &[worker("a"), worker("b"), worker("c")]);
    sim.event(Event::Stop);
    assert_eq!(sim.take_orders(), ["ask c", "ask b", "ask a"]);
    sim.event(Event::Stop);
    assert!(sim.ended());
}

#[test]
fn sup_stop_manual_timeout() {
    let mut sim = Sim::up(one_for_one(0), &[worker("a"), stopped_by(Shutdown::Infinity, "b")]);
    sim.stops("b", Stop::After(5 * S));
    sim.event(Event::Stop);
    sim.pass(4 * S);
    // The caller has long gone away; nothing changes.
    assert!(!sim.ended());
    sim.pass(S);
    assert!(sim.ended());
    assert_eq!(sim.take_log(), ["ask b", "end b", "ask a", "end a"]);
}

#[test]
fn child_adm() {
    let mut sim = Sim::up(one_for_one(0), &[]);
    assert!(sim.start(worker("a")).is_ok());
    assert!(matches!(sim.start(worker("a")), Err(ChildError::AlreadyStarted { incarnation: 1 })));
    assert!(matches!(sim.terminate("z"), Err(ChildError::NotFound)));
    assert!(sim.terminate("a").is_ok());
    assert_eq!(sim.counts(), [1, 0, 0, 1]);
    assert!(sim.terminate("a").is_ok());
    assert!(matches!(sim.start(worker("a")), Err(ChildError::AlreadyPresent)));
    assert!(sim.restart("a").is_ok());
    assert!(matches!(sim.restart("a"), Err(ChildError::Running)));
    assert!(matches!(sim.delete("a"), Err(ChildError::Running)));
    assert!(matches!(sim.restart("z"), Err(ChildError::NotFound)));
    assert!(matches!(sim.delete("z"), Err(ChildError::NotFound)));
    assert!(sim.terminate("a").is_ok());
    assert!(sim.delete("a").is_ok());
    assert_eq!(sim.counts(), [0; 4]);
    sim.event(Event::Stop);
    assert!(matches!(sim.start(worker("a")), Err(ChildError::SupervisorDown)));
    assert!(matches!(sim.terminate("a"), Err(ChildError::SupervisorDown)));
}

#[test]
fn multiple_restarts() {
    let mut sim = Sim::up(options(Strategy::OneForOne, 1, S), &[worker("a")]);
    sim.crash("a");
    for _ in 0..3 {
        sim.pass(2100 * S / 1000);
        sim.crash("a");
        assert!(sim.is_running("a"));
    }
}

/// A child of this restart type ends so: restarted, kept down, or gone?
fn ends(restart: Restart, reason: ExitReason) -> &'static str {
    let mut sim = Sim::up(one_for_one(1), &[with(restart, "a")]);
    sim.exit("a", reason);
    match sim.state("a") {
        Some(StateView::Running) => {
            assert_eq!(sim.incarnation("a"), Some(2));
            "restarted"
        }
        Some(StateView::Down(_)) => {
            assert_eq!(sim.counts(), [1, 0, 0, 1]);
            "kept"
        }
        None => "gone",
        other => panic!("{other:?}"),
    }
}

#[test]
fn permanent_normal() {
    assert_eq!(ends(Restart::Permanent, NORMAL), "restarted");
}

#[test]
fn permanent_shutdown() {
    assert_eq!(ends(Restart::Permanent, SHUTDOWN), "restarted");
}

#[test]
fn permanent_abnormal() {
    assert_eq!(ends(Restart::Permanent, abnormal()), "restarted");
}

#[test]
fn transient_normal() {
    assert_eq!(ends(Restart::Transient, NORMAL), "kept");
}

#[test]
fn transient_shutdown() {
    assert_eq!(ends(Restart::Transient, SHUTDOWN), "kept");
}

#[test]
fn transient_abnormal() {
    assert_eq!(ends(Restart::Transient, abnormal()), "restarted");
}

#[test]
fn temporary_normal() {
    assert_eq!(ends(Restart::Temporary, NORMAL), "gone");
}

#[test]
fn temporary_shutdown() {
    assert_eq!(ends(Restart::Temporary, SHUTDOWN), "gone");
}

#[test]
fn temporary_abnormal() {
    assert_eq!(ends(Restart::Temporary, abnormal()), "gone");
}

#[test]
fn temporary_bystander() {
    for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
        let mut sim = Sim::up(options(strategy, 10, 10 * S), &[worker("a"), with(Restart::Temporary, "b")]);
        sim.crash("a");
        assert_eq!(sim.counts(), [1, 1, 0, 1]);
        assert_eq!(sim.take_orders(), ["ask b", "start a"]);
    }
}

#[test]
fn do_not_save_child_specs_for_temporary_children() {
    let mut sim = Sim::up(one_for_one(0), &[with(Restart::Temporary, "a"), with(Restart::Temporary, "b")]);
    sim.terminate("a").unwrap();
    sim.exit("b", NORMAL);
    assert_eq!(sim.counts(), [0; 4]);
}

#[test]
fn one_for_one_strategy() {
    let mut sim = Sim::up(one_for_one(2), &[worker("c1"), worker("c2")]);
    sim.crash("c1");
    assert_eq!(sim.incarnation("c2"), Some(2));
    assert_eq!(sim.counts(), [2, 2, 0, 2]);
    sim.crash("c1");
    assert!(!sim.ended());
    sim.crash("c1");
    assert!(sim.gave_up());
}

#[test]
fn one_for_one_escalation() {
    let mut sim = Sim::up(one_for_one(4), &[worker("c1"), worker("c2")]);
    sim.starts("c1", &[Start::Fail]);
    sim.crash("c1");
    sim.settle();
    assert!(sim.gave_up());
    // One for the crash, three failed retries, and the fifth is one too many.
    let attempts = sim.take_orders();
    assert_eq!(attempts, ["start c1", "start c1", "start c1", "start c1", "ask c2"]);
}

#[test]
fn one_for_all() {
    let mut sim = Sim::up(options(Strategy::OneForAll, 2, 3600 * S), &[worker("c1"), worker("c2")]);
    sim.crash("c1");
    assert_eq!(sim.take_orders(), ["ask c2", "start c1", "start c2"]);
    assert_eq!((sim.incarnation("c1"), sim.incarnation("c2")), (Some(3), Some(4)));
    sim.crash("c2");
    sim.crash("c1");
    assert!(sim.gave_up());
}

#[test]
fn one_for_all_escalation() {
    let mut sim = Sim::up(options(Strategy::OneForAll, 4, 3600 * S), &[worker("c1"), worker("c2")]);
    sim.starts("c2", &[Start::Fail]);
    sim.crash("c1");
    sim.settle();
    assert!(sim.gave_up());
    // Each retry also restarts the sibling that had just come up.
    let attempt = ["start c1", "start c2"];
    let retry = ["ask c1", "start c1", "start c2"];
    let mut expected: Vec<&str> = vec!["ask c2"];
    expected.extend(attempt);
    for _ in 0..3 {
        expected.extend(retry);
    }
    expected.push("ask c1");
    assert_eq!(sim.take_orders(), expected);
}

#[test]
fn one_for_all_other_child_fails_restart() {
    let mut sim = Sim::up(options(Strategy::OneForAll, 1, 3600 * S), &[worker("c1"), worker("c2")]);
    sim.starts("c2", &[Start::Fail]);
    sim.crash("c1");
    sim.settle();
    assert!(sim.gave_up());
    assert_eq!(sim.take_orders(), ["ask c2", "start c1", "start c2", "ask c1"]);
}

#[test]
fn rest_for_one() {
    let children = [worker("c1"), worker("c2"), worker("c3")];
    let mut sim = Sim::up(options(Strategy::RestForOne, 2, 3600 * S), &children);
    sim.crash("c2");
    assert_eq!(sim.take_orders(), ["ask c3", "start c2", "start c3"]);
    assert_eq!(sim.incarnation("c1"), Some(1));
    sim.crash("c2");
    sim.crash("c2");
    assert!(sim.gave_up());
}

#[test]
fn rest_for_one_escalation() {
    let mut sim = Sim::up(options(Strategy::RestForOne, 4, 3600 * S), &[worker("c1"), worker("c2")]);
    sim.starts("c2", &[Start::Fail]);
    sim.crash("c1");
    sim.settle();
    assert!(sim.gave_up());
    // Earlier ones that have come up are kept by the retry.
    let mut expected = vec!["ask c2", "start c1"];
    expected.extend(["start c2"; 4]);
    expected.push("ask c1");
    assert_eq!(sim.take_orders(), expected);
}

#[test]
fn rest_for_one_other_child_fails_restart() {
    let children = [worker("c1"), worker("c2"), worker("c3")];
    let mut sim = Sim::up(options(Strategy::RestForOne, 3, 3600 * S), &children);
    sim.starts("c2", &[Start::Fail, Start::Up]);
    sim.crash("c1");
    assert_eq!(sim.state("c3"), Some(StateView::Down(crate::supervisor::core::Down::Idle)));
    sim.settle();
    assert_eq!(sim.take_orders(), ["ask c3", "ask c2", "start c1", "start c2", "start c2", "start c3"]);
    assert!(sim.is_running("c3"));
}

#[test]
fn count_restarting_children() {
    let mut sim = Sim::up(one_for_one(9), &[worker("a"), worker("b")]);
    sim.starts("a", &[Start::Fail]);
    sim.crash("a");
    assert_eq!(sim.counts(), [2, 1, 0, 2]);
    assert_eq!(sim.state("a"), Some(StateView::Restarting));
}

#[test]
fn hanging_restart_loop() {
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        let mut sim = Sim::up(options(strategy, 8, 10 * S), &[worker("a")]);
        sim.starts("a", &[Start::FailAfter(2 * S)]);
        sim.crash("a");
        sim.pass(3 * S);
        for _ in 0..2 {
            assert!(matches!(sim.start(worker("a")), Err(ChildError::AlreadyPresent)));
            assert_eq!(sim.counts(), [1, 0, 0, 1]);
            assert!(matches!(sim.restart("a"), Err(ChildError::Restarting)));
            assert!(matches!(sim.delete("a"), Err(ChildError::Restarting)));
            sim.pass(S / 2);
        }
        assert!(sim.terminate("a").is_ok());
        assert_eq!(sim.counts(), [1, 0, 0, 1]);
        sim.pass(60 * S);
        assert_eq!(sim.counts(), [1, 0, 0, 1], "the queued retry is dropped");
        sim.starts("a", &[Start::Up]);
        assert!(sim.restart("a").is_ok());
        sim.starts("a", &[Start::FailAfter(2 * S)]);
        sim.crash("a");
        sim.pass(S);
        sim.event(Event::Stop);
        assert!(sim.ended());
    }
}

#[test]
fn a_backoff_holds_its_group_down_and_does_not_count() {
    let backoff = Backoff { free: 0, jitter: 0.0, first: S, ..Backoff::default() };
    let mut b = worker("b");
    b.backoff = Some(Box::new(backoff));
    let children = [worker("a"), b, worker("c")];
    let mut sim = Sim::up(options(Strategy::RestForOne, 0, S), &children);
    sim.crash("b");
    assert_eq!(sim.take_orders(), ["ask c"]);
    sim.pass(S - S / 1000);
    assert_eq!(sim.take_orders(), [""; 0]);
    sim.pass(S / 1000);
    assert_eq!(sim.take_orders(), ["start b", "start c"]);
    // Up for long enough: the next wait is the first one again.
    sim.pass(backoff.within);
    sim.crash("b");
    sim.pass(S);
    assert!(sim.is_running("c"));
    // Not long enough: twice as long.
    sim.crash("b");
    sim.pass(S);
    assert!(!sim.is_running("b"));
    sim.pass(S);
    assert!(sim.is_running("b"));
}

#[test]
fn a_manual_restart_starts_the_backoff_afresh() {
    let backoff = Some(Box::new(Backoff { free: 1, jitter: 0.0, first: S, ..Backoff::default() }));
    let a = crate::supervisor::ChildOptions { backoff, ..worker("a") };
    let mut sim = Sim::up(one_for_one(0), &[a]);
    for wait in [0, 1, 2] {
        sim.crash("a");
        sim.pass(wait * S);
        assert!(sim.is_running("a"));
    }
    sim.terminate("a").unwrap();
    sim.restart("a").unwrap();
    sim.crash("a");
    sim.settle();
    assert!(sim.is_running("a"), "the first death is free again");
}
