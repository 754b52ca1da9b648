//! Instances that cannot be killed: nobody waits for them for ever, and nothing is started beside them.

use super::sim::*;
use crate::supervisor::{
    Backoff, ChildError, ChildOptions, ExitReason, ReportEvent, Restart, Shutdown, StartFailure, Strategy,
    core::{Answer, Ending, Event, StateView},
};

const KILLED: ExitReason = ExitReason::Killed;

/// a, b, c, of which b blocks its thread; all are killed when stopped, to make the times short.
fn group(strategy: Strategy, intensity: u32) -> Sim {
    let children = ["a", "b", "c"].map(|id| stopped_by(Shutdown::Brutal, id));
    group_of(strategy, intensity, &children)
}

fn group_of(strategy: Strategy, intensity: u32, children: &[ChildOptions]) -> Sim {
    let mut sim = Sim::up(options(strategy, intensity, 3600 * S), children);
    sim.stops("b", Stop::Unkillable);
    sim
}

fn is_still_running(event: &ReportEvent) -> bool {
    matches!(event, ReportEvent::StartFailed { cause, .. }
        if cause.downcast_ref() == Some(&StartFailure::StillRunning))
}

#[test]
fn an_unkillable_child_is_never_replaced_and_given_up_on_the_way_out() {
    let mut sim = Sim::up(options(Strategy::OneForOne, 9, S), &[worker("a"), worker("b")]);
    sim.stops("b", Stop::Unkillable);
    let caller = sim.terminate_later("b");
    sim.pass(5 * S);
    assert!(sim.reply(caller).is_none());
    sim.pass(S);
    assert!(matches!(sim.reply(caller), Some(Err(ChildError::Unkillable))));
    assert_eq!(sim.state("b"), Some(StateView::Stopping));
    assert!(sim.reports.iter().any(|report| matches!(report, ReportEvent::Unkillable { .. })));
    sim.event(Event::Stop);
    assert!(sim.ended(), "it has been waited for before");
}

/// OTP has no such child: its siblings and its supervisor's callers must not wait for it.
#[test]
fn an_unkillable_child_holds_up_nobody_else() {
    let mut sim = Sim::up(options(Strategy::OneForOne, 1, S), &[worker("a"), worker("b")]);
    sim.stops("b", Stop::Unkillable);
    let caller = sim.terminate_later("b");
    sim.pass(10 * S);
    assert!(matches!(sim.reply(caller), Some(Err(ChildError::Unkillable))));
    assert!(matches!(sim.terminate("b"), Err(ChildError::Unkillable)));
    assert!(matches!(sim.restart("b"), Err(ChildError::Running)), "nothing takes its place");
    assert!(matches!(sim.delete("b"), Err(ChildError::Running)));
    assert!(matches!(sim.start(worker("b")), Err(ChildError::AlreadyStarted { incarnation: 2 })));
    sim.crash("a");
    assert!(sim.is_running("a"));
    assert!(sim.start(worker("c")).is_ok());
    assert_eq!(sim.incarnation("b"), Some(2));
    assert_eq!(sim.counts(), [3, 3, 0, 3], "it lives, and is not claimed dead");
    // When it has ended it is like any other that was terminated.
    sim.exit("b", KILLED);
    assert!(matches!(sim.reports.last(), Some(ReportEvent::ShutdownError { incarnation: 2, .. })));
    assert!(sim.restart("b").is_ok());
}

#[test]
fn a_group_restart_starts_it_when_it_has_ended() {
    for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
        let mut sim = group(strategy, 1);
        sim.crash("a");
        assert_eq!(sim.take_orders(), ["kill c", "kill b"]);
        sim.pass(S);
        // Given up; a second one is not started beside it.
        assert_eq!(sim.take_orders(), ["start a"]);
        assert_eq!(sim.state("b"), Some(StateView::Restarting));
        assert_eq!(sim.incarnation("b"), Some(2), "the one that lives");
        sim.pass(S / 2);
        sim.exit("b", KILLED);
        assert_eq!(sim.take_orders(), ["start b", "start c"]);
        assert!(sim.is_running("b"));
    }
}

/// Each failed start counts, so that the whole has an end.
#[test]
fn a_group_restart_fails_while_it_lives() {
    let mut sim = group(Strategy::RestForOne, 2);
    sim.crash("a");
    sim.pass(S);
    assert_eq!(sim.take_orders(), ["kill c", "kill b", "start a"]);
    sim.pass(S);
    assert!(is_still_running(sim.reports.last().unwrap()), "{:?}", sim.reports.last());
    sim.pass(S - S / 1000);
    assert!(!sim.ended());
    sim.pass(S / 1000);
    assert!(sim.gave_up(), "one crash and two failed starts");
    assert_eq!(sim.take_orders(), ["kill a"]);
    assert!(sim.lives("b"));
}

#[test]
fn one_for_all_retries_the_whole_group() {
    let mut sim = group(Strategy::OneForAll, 2);
    sim.crash("c");
    sim.pass(2 * S);
    assert_eq!(sim.take_orders(), ["kill b", "kill a", "start a", "kill a", "start a"]);
    sim.exit("b", KILLED);
    assert_eq!(sim.take_orders(), ["start b", "start c"]);
}

#[test]
fn every_call_made_meanwhile_is_answered_in_time() {
    let mut sim = group(Strategy::OneForAll, 100);
    sim.crash("a");
    for step in 0..40 {
        let id = ["b", "c", "a"][step % 3];
        let calls = [
            sim.start_later(worker(&format!("x{step}"))),
            sim.restart_later(id),
            sim.delete_later(id),
            sim.start_later(worker(id)),
        ];
        // The operation in progress waits for one grace to stop it, and for one to start it: nobody waits longer.
        sim.pass(2 * S);
        for (number, caller) in calls.into_iter().enumerate() {
            let answer = sim.reply(caller).unwrap_or_else(|| panic!("call {number} of step {step}"));
            // A sibling that is down between two attempts may be restarted by hand, as in OTP.
            assert!(answer.is_ok() == (number == 0) || (number == 1 && id != "b"), "{id}: {answer:?}");
        }
    }
    let caller = sim.terminate_later("b");
    assert!(matches!(sim.reply(caller), Some(Err(ChildError::Unkillable))));
    sim.pass(S);
    assert!(sim.is_running("a") && sim.is_running("c"), "the group comes up without it");
    sim.exit("b", KILLED);
    assert!(sim.restart("b").is_ok());
}

#[test]
fn with_a_backoff_it_is_tried_for_as_long_as_it_takes() {
    let backoff =
        Some(Box::new(Backoff { free: 0, first: S, max: 10 * S, jitter: 0.0, ..Backoff::default() }));
    let b = ChildOptions { backoff, ..stopped_by(Shutdown::Brutal, "b") };
    let mut sim = group_of(Strategy::RestForOne, 1, &[worker("a"), b, worker("c")]);
    sim.crash("a");
    sim.pass(3600 * S);
    assert!(sim.is_running("a") && !sim.is_running("c") && !sim.ended());
    sim.exit("b", KILLED);
    sim.pass(11 * S);
    assert!(sim.is_running("b") && sim.is_running("c"));
}

#[test]
fn a_temporary_one_is_not_started_again_and_goes_when_it_ends() {
    let b = ChildOptions { restart: Restart::Temporary, ..stopped_by(Shutdown::Brutal, "b") };
    let mut sim = group_of(Strategy::OneForAll, 1, &[worker("a"), b, worker("c")]);
    sim.crash("a");
    sim.pass(S);
    assert_eq!(sim.take_orders(), ["ask c", "kill b", "start a", "start c"]);
    assert!(matches!(sim.start(worker("b")), Err(ChildError::AlreadyStarted { .. })));
    sim.exit("b", KILLED);
    assert_eq!(sim.counts(), [2, 2, 0, 2]);
    assert!(sim.start(worker("b")).is_ok());
}

#[test]
fn a_dynamic_supervisor_keeps_its_id_until_it_ends() {
    let mut sim = Sim::up(dynamic(1, S), &[]);
    sim.start(stopped_by(Shutdown::Brutal, "b")).unwrap();
    sim.stops("b", Stop::Unkillable);
    let caller = sim.terminate_later("b");
    sim.pass(S);
    assert!(matches!(sim.reply(caller), Some(Err(ChildError::Unkillable))));
    assert!(matches!(sim.terminate("b"), Err(ChildError::Unkillable)));
    assert!(matches!(sim.start(worker("b")), Err(ChildError::AlreadyStarted { .. })));
    sim.exit("b", KILLED);
    assert_eq!(sim.counts(), [0; 4]);
    assert!(matches!(sim.terminate("b"), Err(ChildError::NotFound)));
    assert!(sim.start(worker("b")).is_ok());
}

#[test]
fn a_start_that_blocks_its_thread() {
    let mut sim = Sim::up(options(Strategy::OneForOne, 1, S), &[]);
    sim.starts("b", &[Start::Hang, Start::Up]);
    sim.stops("b", Stop::Unkillable);
    let start = sim.start_later(worker("b"));
    let terminate = sim.terminate_later("b");
    sim.pass(S);
    assert!(matches!(sim.reply(start), Some(Err(ChildError::Unkillable))));
    assert!(matches!(sim.reply(terminate), Some(Err(ChildError::Unkillable))));
    let reports = sim.reports.len();
    sim.exit("b", KILLED);
    assert_eq!(sim.reports.len(), reports, "no end of what was never up");
    assert!(sim.restart("b").is_ok());
}

#[test]
fn a_former_supervisors_instance_fails_the_boot_while_it_lives() {
    let mut sim = Sim::new(options(Strategy::OneForOne, 1, S), &[worker("a"), worker("b")]);
    sim.orphans.insert("b".into(), 7);
    sim.boot();
    sim.pass(S - S / 1000);
    assert!(!sim.ended() && !sim.booted);
    assert_eq!(sim.state("b"), Some(StateView::Restarting));
    sim.pass(S / 1000);
    assert!(matches!(&sim.ending, Some(Ending::NotStarted { id, cause })
        if &**id == "b" && cause.downcast_ref() == Some(&StartFailure::StillRunning)));
    assert_eq!(sim.take_orders(), ["start a", "ask a"]);
}

#[test]
fn a_former_supervisors_instance_is_awaited() {
    // Of the same incarnation number as the new one: a supervisor that was declared anew begins to count again.
    for former in [7, 2] {
        let mut sim = Sim::new(options(Strategy::OneForOne, 1, S), &[worker("a"), worker("b")]);
        sim.orphans.insert("b".into(), former);
        sim.boot();
        sim.pass(S / 2);
        sim.former_ends("b");
        assert!(sim.booted && sim.is_running("b"));
        sim.pass(10 * S);
        assert!(sim.is_running("b"));
        sim.crash("b");
        assert!(sim.is_running("b"));
    }
}

#[test]
fn a_child_that_is_added_does_not_join_a_former_instance() {
    for is_dynamic in [false, true] {
        let options = if is_dynamic { dynamic(1, S) } else { options(Strategy::OneForOne, 1, S) };
        let mut sim = Sim::up(options, &[]);
        sim.orphans.insert("x".into(), 7);
        let caller = sim.start_later(worker("x"));
        sim.pass(S);
        assert!(matches!(sim.reply(caller), Some(Err(ChildError::Start { retrying: false, cause }))
            if cause.is::<StartFailure>()));
        assert_eq!(sim.counts(), [0; 4]);

        let start = sim.start_later(worker("x"));
        assert!(matches!(sim.terminate("x"), Err(ChildError::Unkillable)));
        assert!(matches!(sim.reply(start), Some(Err(ChildError::Cancelled))));

        let start = sim.start_later(worker("x"));
        sim.former_ends("x");
        if is_dynamic {
            assert!(matches!(sim.reply(start), Some(Ok(Answer::Started { .. }))));
        } else {
            // Terminated, and so present, until it is asked for.
            assert!(matches!(sim.reply(start), Some(Err(ChildError::AlreadyStarted { .. }))));
            assert!(sim.restart("x").is_ok());
        }
    }
}

#[test]
fn a_stop_or_kill_does_not_wait_for_what_was_given_up() {
    for event in [Event::Stop, Event::Kill] {
        let mut sim = group(Strategy::OneForAll, 1);
        sim.crash("a");
        sim.pass(S);
        let x = sim.start_later(worker("x"));
        sim.event(event);
        assert!(sim.ended());
        assert!(matches!(sim.reply(x), Some(Err(ChildError::SupervisorDown))));
    }
}

#[test]
fn an_order_to_end_is_bounded_while_a_kill_is_in_vain() {
    let mut sim = group(Strategy::OneForAll, 1);
    sim.crash("a");
    sim.pass(S / 2);
    sim.event(Event::Stop);
    assert!(!sim.ended());
    sim.pass(S / 2);
    assert!(sim.ended());
}
