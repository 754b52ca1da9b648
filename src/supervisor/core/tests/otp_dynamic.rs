//! Cases of OTP's `simple_one_for_one` and of Elixir's `DynamicSupervisor`; significant children; specifications.

use super::sim::*;
use crate::supervisor::{
    AutoShutdown, Backoff, ChildError, ChildOptions, ExitReason, ReportEvent, Restart, Shutdown,
    ShutdownCause, Strategy,
    core::{Answer, Command, Ending, Event, StateView},
    options::SupervisorOptions,
};

fn pool(intensity: u32) -> Sim {
    Sim::up(dynamic(intensity, 3600 * S), &[])
}

#[test]
fn simple_one_for_one() {
    let mut sim = pool(2);
    sim.start(worker("c1")).unwrap();
    sim.start(worker("c2")).unwrap();
    sim.crash("c1");
    assert_eq!(sim.counts(), [2, 2, 0, 2]);
    assert_eq!(sim.incarnation("c2"), Some(2));
    sim.crash("c1");
    sim.crash("c2");
    assert!(sim.gave_up());
}

#[test]
fn simple_one_for_one_shutdown() {
    let mut sim = pool(0);
    for (id, time) in [("a", 1), ("b", 2)] {
        sim.start(stopped_by(Shutdown::Timeout(3 * S), id)).unwrap();
        sim.stops(id, Stop::After(time * S));
    }
    sim.event(Event::Stop);
    sim.pass(2 * S);
    assert!(sim.ended(), "they stop at the same time");
}

#[test]
fn simple_one_for_one_escalation() {
    let mut sim = pool(4);
    sim.start(worker("c1")).unwrap();
    sim.start(worker("c2")).unwrap();
    sim.starts("c1", &[Start::Fail]);
    sim.crash("c1");
    sim.settle();
    assert!(sim.gave_up());
}

#[test]
fn simple_one_for_one_restart_ignore() {
    let mut sim = pool(1);
    sim.start(worker("a")).unwrap();
    sim.starts("a", &[Start::Decline]);
    sim.crash("a");
    assert_eq!(sim.counts(), [0; 4]);
    assert!(!sim.ended());
}

#[test]
fn sup_start_ignore_temporary_child_start_child_simple() {
    let mut sim = pool(0);
    sim.starts("a", &[Start::Decline]);
    assert_eq!(sim.start(with(Restart::Temporary, "a")).unwrap(), Answer::Declined);
    assert!(sim.start(with(Restart::Temporary, "b")).is_ok());
    assert_eq!(sim.counts(), [1, 1, 0, 1]);
}

#[test]
fn child_adm_simple() {
    let mut sim = pool(0);
    sim.start(worker("a")).unwrap();
    assert!(matches!(sim.start(worker("a")), Err(ChildError::AlreadyStarted { .. })));
    assert!(matches!(sim.restart("a"), Err(ChildError::Dynamic)));
    assert!(matches!(sim.delete("a"), Err(ChildError::Dynamic)));
    assert!(sim.terminate("a").is_ok());
    assert!(matches!(sim.terminate("a"), Err(ChildError::NotFound)));
    assert_eq!(sim.counts(), [0; 4]);
    sim.starts("b", &[Start::Fail]);
    assert!(matches!(sim.start(worker("b")), Err(ChildError::Start { retrying: false, .. })));
    assert_eq!(sim.counts(), [0; 4]);
}

#[test]
fn sup_stop_timeout_dynamic() {
    let mut sim = pool(0);
    for id in ["a", "b"] {
        sim.start(stopped_by(Shutdown::Timeout(S), id)).unwrap();
    }
    sim.stops("b", Stop::Never);
    sim.reports.clear();
    sim.event(Event::Stop);
    sim.pass(S);
    assert!(sim.ended());
    assert!(matches!(
        &sim.reports[1..],
        [ReportEvent::Stopped { .. }, ReportEvent::ShutdownError { reason: ExitReason::Killed, .. }]
    ));
}

#[test]
fn sup_stop_brutal_kill_dynamic() {
    let mut sim = pool(0);
    for i in 0..10 {
        sim.start(stopped_by(Shutdown::Brutal, &i.to_string())).unwrap();
    }
    sim.event(Event::Stop);
    assert!(sim.ended());
    assert_eq!(sim.take_log().iter().filter(|line| line.starts_with("kill")).count(), 10);
}

#[test]
fn stop_with_mixed_shutdown_values() {
    let mut sim = pool(0);
    for (id, shutdown, stop) in [
        ("brutal", Shutdown::Brutal, Stop::AtOnce),
        ("quick", Shutdown::Timeout(S), Stop::AtOnce),
        ("late", Shutdown::Timeout(S), Stop::Never),
        ("later", Shutdown::Timeout(5 * S), Stop::Never),
        ("patient", Shutdown::Infinity, Stop::After(10 * S)),
    ] {
        sim.start(stopped_by(shutdown, id)).unwrap();
        sim.stops(id, stop);
    }
    sim.log.clear();
    sim.event(Event::Stop);
    sim.pass(S);
    let log = sim.take_log();
    assert!(log.contains(&"end brutal".into()) && log.contains(&"end quick".into()));
    assert_eq!(log[log.len() - 2..], ["kill late", "end late"]);
    sim.pass(4 * S);
    assert_eq!(sim.take_log(), ["kill later", "end later"]);
    sim.pass(5 * S);
    assert!(sim.ended());
}

/// However long it takes to ask them all.
#[test]
fn stop_limits_count_from_the_last_request() {
    let mut sim = pool(0);
    for id in ["a", "b"] {
        sim.start(stopped_by(Shutdown::Timeout(S), id)).unwrap();
    }
    let mut out = Vec::new();
    sim.core.handle(sim.now, Event::Stop, &mut out);
    assert_eq!(out.iter().filter(|command| matches!(command, Command::Stop { .. })).count(), 2);
    assert_eq!(sim.core.next_deadline(), None);
    sim.core.arm(sim.now + 9 * S);
    assert_eq!(sim.core.next_deadline(), Some(sim.now + 10 * S));
    // The same holds for kills.
    sim.core.handle(sim.now + 10 * S, Event::Kill, &mut out);
    assert_eq!(sim.core.next_deadline(), None);
    sim.core.arm(sim.now + 12 * S);
    assert_eq!(sim.core.next_deadline(), Some(sim.now + 13 * S));
}

fn bounded(max: usize, intensity: u32) -> Sim {
    let options = SupervisorOptions { max_children: Some(max), ..dynamic(intensity, 3600 * S) };
    Sim::up(options, &[])
}

#[test]
fn max_children_zero_refuses() {
    assert!(matches!(bounded(0, 1).start(worker("a")), Err(ChildError::MaxChildren { max: 0 })));
}

#[test]
fn restarting_children_count_in_max_children() {
    for start in [Start::Up, Start::Fail] {
        let mut sim = bounded(1, 9);
        sim.start(worker("a")).unwrap();
        sim.starts("a", &[start]);
        sim.crash("a");
        assert!(matches!(sim.start(worker("b")), Err(ChildError::MaxChildren { max: 1 })));
        assert!(sim.terminate("a").is_ok());
        assert!(sim.start(worker("b")).is_ok());
    }
}

#[test]
fn a_failing_restart_is_retried_and_counts() {
    let mut sim = pool(3);
    sim.start(worker("a")).unwrap();
    sim.starts("a", &[Start::Fail, Start::Fail, Start::Up]);
    sim.crash("a");
    sim.settle();
    assert!(sim.is_running("a"));
    sim.crash("a");
    assert!(sim.gave_up());
}

#[test]
fn max_restarts_exhausted_by_failing_restarts() {
    for max in [1, 10] {
        let mut sim = pool(max);
        sim.start(worker("a")).unwrap();
        sim.starts("a", &[Start::Fail]);
        sim.crash("a");
        sim.settle();
        assert!(sim.gave_up());
        let attempts = sim.take_orders().iter().filter(|line| *line == "start a").count();
        assert_eq!(attempts, 1 + max as usize);
    }
}

#[test]
fn terminate_while_restarting() {
    let mut sim = pool(9);
    sim.start(worker("a")).unwrap();
    sim.starts("a", &[Start::Fail]);
    sim.crash("a");
    assert_eq!(sim.state("a"), Some(StateView::Restarting));
    assert!(sim.terminate("a").is_ok());
    assert!(matches!(sim.terminate("a"), Err(ChildError::NotFound)));
    sim.pass(S);
    assert_eq!(sim.counts(), [0; 4]);
}

#[test]
fn a_slot_taken_meanwhile_is_not_started_by_an_old_retry() {
    let mut sim = pool(9);
    sim.start(worker("a")).unwrap();
    sim.starts("a", &[Start::Fail, Start::Up]);
    sim.crash("a");
    sim.terminate("a").unwrap();
    sim.start(worker("a")).unwrap();
    sim.log.clear();
    sim.pass(S);
    assert_eq!(sim.take_log(), [""; 0]);
}

#[test]
fn a_slow_start_delays_nothing_and_can_be_cancelled() {
    let mut sim = pool(0);
    sim.starts("slow", &[Start::Hang]);
    let slow = sim.start_later(worker("slow"));
    assert!(sim.start(worker("quick")).is_ok());
    assert!(matches!(sim.start(worker("slow")), Err(ChildError::AlreadyStarted { .. })));
    assert!(sim.terminate("slow").is_ok());
    assert!(matches!(sim.reply(slow), Some(Err(ChildError::Cancelled))));
    assert_eq!(sim.counts(), [1, 1, 0, 1]);
}

#[test]
fn a_failed_first_start_with_a_backoff_stays() {
    let mut sim = pool(0);
    sim.starts("a", &[Start::Fail, Start::Fail, Start::Up]);
    let mut options = worker("a");
    options.backoff = Some(Box::new(Backoff { free: 1, jitter: 0.0, first: S, ..Backoff::default() }));
    assert!(matches!(sim.start(options), Err(ChildError::Start { retrying: true, .. })));
    assert_eq!(sim.counts(), [1, 0, 0, 1]);
    sim.settle();
    assert!(!sim.is_running("a"));
    sim.pass(S);
    assert!(sim.is_running("a"));
}

/// Commands per child must not grow with the number of children.
#[test]
fn scale_start_stop_many_children() {
    for count in [1_000, 100_000] {
        let mut sim = pool(0);
        for i in 0..count {
            sim.start(worker(&i.to_string())).unwrap();
        }
        sim.event(Event::Stop);
        assert!(sim.ended());
        // Start, ask, end.
        assert_eq!(sim.log.len(), 3 * count);
    }
}

#[test]
fn scale_mass_exit_children() {
    let count = 5_000;
    let mut sim = pool(0);
    for i in 0..count {
        sim.start(with(Restart::Temporary, &i.to_string())).unwrap();
    }
    for i in 0..count {
        sim.crash(&i.to_string());
    }
    assert_eq!(sim.counts(), [0; 4]);
    assert_eq!(sim.log.len(), 2 * count);
}

fn significant(restart: Restart, id: &str) -> ChildOptions {
    ChildOptions { significant: true, ..with(restart, id) }
}

fn auto(auto_shutdown: AutoShutdown, children: &[ChildOptions]) -> Sim {
    let options = SupervisorOptions { auto_shutdown, ..options(Strategy::OneForOne, 9, 3600 * S) };
    Sim::up(options, children)
}

fn shut_down_by_itself(sim: &Sim) -> bool {
    let auto = sim
        .reports
        .iter()
        .any(|report| matches!(report, ReportEvent::Shutdown { cause: ShutdownCause::AutoShutdown { .. } }));
    assert_eq!(auto, matches!(sim.ending, Some(Ending::Ended(ExitReason::Shutdown))));
    auto
}

#[test]
fn nonsignificant_temporary() {
    nonsignificant(Restart::Temporary);
}

#[test]
fn nonsignificant_transient() {
    nonsignificant(Restart::Transient);
}

fn nonsignificant(restart: Restart) {
    for mode in [AutoShutdown::Never, AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
        let mut sim = auto(mode, &[with(restart, "a"), with(restart, "b")]);
        sim.exit("a", ExitReason::Normal);
        sim.exit("b", ExitReason::Normal);
        assert!(!shut_down_by_itself(&sim));
    }
}

#[test]
fn significant_temporary() {
    let children = || [significant(Restart::Temporary, "a"), significant(Restart::Temporary, "b")];
    for reason in [ExitReason::Normal, ExitReason::Shutdown, ExitReason::Panic("crash".into())] {
        let mut sim = auto(AutoShutdown::AnySignificant, &children());
        sim.exit("a", reason.clone());
        assert!(shut_down_by_itself(&sim));
        let mut sim = auto(AutoShutdown::AllSignificant, &children());
        sim.exit("a", reason.clone());
        assert!(!shut_down_by_itself(&sim));
        sim.exit("b", reason);
        assert!(shut_down_by_itself(&sim));
    }
    let mut sim = auto(AutoShutdown::AnySignificant, &children());
    sim.terminate("a").unwrap();
    sim.terminate("b").unwrap();
    assert!(!shut_down_by_itself(&sim), "never by terminate_child");
}

#[test]
fn significant_transient() {
    let children = || [significant(Restart::Transient, "a"), significant(Restart::Transient, "b")];
    let mut sim = auto(AutoShutdown::AnySignificant, &children());
    sim.crash("a");
    assert!(!shut_down_by_itself(&sim), "it is restarted");
    sim.exit("a", ExitReason::Normal);
    assert!(shut_down_by_itself(&sim));
    let mut sim = auto(AutoShutdown::AllSignificant, &children());
    sim.starts("b", &[Start::Hang]);
    sim.crash("b");
    sim.exit("a", ExitReason::Shutdown);
    assert!(!shut_down_by_itself(&sim), "a restarting one counts as living");
}

#[test]
fn significant_bystander() {
    // Ended by a sibling's restart: not a final end of its own.
    let options = SupervisorOptions {
        auto_shutdown: AutoShutdown::AnySignificant,
        ..options(Strategy::OneForAll, 9, 3600 * S)
    };
    let mut sim = Sim::up(options, &[worker("a"), significant(Restart::Temporary, "b")]);
    sim.crash("a");
    assert!(!shut_down_by_itself(&sim));
    assert_eq!(sim.counts(), [1, 1, 0, 1]);
}
