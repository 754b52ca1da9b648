//! Faults seen in other supervisors, and what happens at the same time.

use super::sim::*;
use crate::supervisor::{
    AutoShutdown, Backoff, ChildError, ChildOptions, ExitReason, Restart, Shutdown, Strategy,
    core::{Answer, Ending, Event, StateView},
    options::SupervisorOptions,
};

fn one_for_all(children: &[crate::supervisor::ChildOptions]) -> Sim {
    Sim::up(options(Strategy::OneForAll, 9, 3600 * S), children)
}

#[test]
fn a_group_restart_leaves_a_finished_sibling_alone() {
    let mut sim = one_for_all(&[worker("a"), with(Restart::Transient, "b"), worker("c")]);
    sim.exit("b", ExitReason::Normal);
    sim.crash("a");
    assert_eq!(sim.take_orders(), ["ask c", "start a", "start c"]);
}

#[test]
fn a_group_restart_brings_a_terminated_sibling_back() {
    let mut sim = one_for_all(&[worker("a"), with(Restart::Transient, "b")]);
    sim.terminate("b").unwrap();
    sim.log.clear();
    sim.crash("a");
    assert_eq!(sim.take_orders(), ["start a", "start b"]);
}

#[test]
fn a_group_restart_does_not_wait_for_a_sibling_that_has_ended() {
    let mut sim = one_for_all(&[worker("a"), worker("b"), worker("c")]);
    sim.stops("c", Stop::After(S));
    sim.crash("a");
    // While c takes its time, b dies by itself: nobody asks it, nobody waits for it.
    sim.crash("b");
    sim.pass(S);
    assert_eq!(sim.take_log(), ["end a", "ask c", "end b", "end c", "start a", "start b", "start c"]);
}

#[test]
fn no_second_instance_while_the_old_one_lives() {
    // The simulator refuses a start of a child whose task lives.
    let mut sim = one_for_all(&[worker("a"), stopped_by(Shutdown::Infinity, "b")]);
    sim.stops("b", Stop::After(100 * S));
    sim.crash("a");
    sim.pass(99 * S);
    assert_eq!(sim.take_orders(), ["ask b"]);
    sim.pass(S);
    assert_eq!(sim.take_orders(), ["start a", "start b"]);
}

#[test]
fn calls_wait_for_the_plan_and_are_checked_again() {
    let mut sim = one_for_all(&[worker("a"), worker("b")]);
    sim.stops("b", Stop::After(S));
    sim.crash("a");
    let first = sim.start_later(worker("x"));
    let second = sim.start_later(worker("x"));
    let third = sim.terminate_later("x");
    assert!(sim.reply(first).is_none());
    sim.pass(S);
    assert!(matches!(sim.reply(first), Some(Ok(Answer::Started { .. }))));
    assert!(matches!(sim.reply(second), Some(Err(ChildError::AlreadyStarted { .. }))));
    assert!(matches!(sim.reply(third), Some(Ok(Answer::Done))));
    assert_eq!(sim.state("x"), Some(StateView::Down(crate::supervisor::core::Down::Terminated)));
}

/// Whether the restart hangs just then or waits for its next attempt makes no difference.
#[test]
fn terminating_a_restarting_child_abandons_its_group() {
    for (strategy, kept) in [(Strategy::OneForAll, false), (Strategy::RestForOne, true)] {
        for start in [Start::Hang, Start::Fail] {
            let mut sim = Sim::up(options(strategy, 9, 3600 * S), &[worker("a"), worker("b"), worker("c")]);
            sim.starts("b", &[start]);
            sim.starts("a", &[start]);
            sim.crash("b");
            let restarting = if kept { "b" } else { "a" };
            assert!(sim.terminate(restarting).is_ok());
            sim.pass(S);
            assert_eq!(sim.is_running("a"), kept);
            for id in ["b", "c"] {
                // Not idle: references to it must not wait.
                assert_eq!(sim.state(id), Some(StateView::Down(crate::supervisor::core::Down::Terminated)));
            }
        }
    }
}

#[test]
fn an_abandoned_group_may_still_be_wanted_by_another_restart() {
    let backoff = Backoff { free: 0, jitter: 0.0, first: S, ..Backoff::default() };
    let [mut a, mut b] = [worker("a"), worker("b")];
    (a.backoff, b.backoff) = (Some(backoff.into()), Some(backoff.into()));
    let mut sim = Sim::up(options(Strategy::RestForOne, 9, 3600 * S), &[a, b, worker("c")]);
    sim.crash("a");
    sim.restart("b").unwrap();
    sim.crash("b");
    assert!(sim.terminate("b").is_ok());
    assert_eq!(sim.state("c"), Some(StateView::Down(crate::supervisor::core::Down::Idle)));
    sim.pass(S);
    assert!(sim.is_running("a") && sim.is_running("c"));
}

#[test]
fn a_stop_cancels_a_hanging_start_and_answers_all_callers() {
    let mut sim = one_for_all(&[worker("a")]);
    sim.starts("x", &[Start::Hang]);
    let x = sim.start_later(worker("x"));
    let y = sim.start_later(worker("y"));
    sim.event(Event::Stop);
    assert!(sim.ended());
    for caller in [x, y] {
        assert!(matches!(sim.reply(caller), Some(Err(ChildError::SupervisorDown))));
    }
    assert_eq!(sim.take_orders(), ["start x", "kill x", "ask a"]);
}

#[test]
fn a_stop_during_the_boot_cancels_it() {
    let mut sim = Sim::new(options(Strategy::OneForOne, 0, S), &[worker("a"), worker("b"), worker("c")]);
    sim.starts("b", &[Start::Hang]);
    sim.boot();
    sim.event(Event::Stop);
    assert_eq!(sim.take_orders(), ["start a", "start b", "kill b", "ask a"]);
    assert!(matches!(&sim.ending, Some(Ending::NotStarted { id, .. }) if &**id == "b"));
}

#[test]
fn a_kill_asks_nobody() {
    let mut sim = one_for_all(&[worker("a"), stopped_by(Shutdown::Infinity, "b")]);
    sim.stops("b", Stop::Never);
    sim.event(Event::Stop);
    sim.log.clear();
    sim.event(Event::Kill);
    assert_eq!(sim.take_orders(), ["kill a", "kill b"]);
    assert!(sim.ended());
}

#[test]
fn a_death_while_the_supervisor_boots_is_looked_at_afterwards() {
    let mut sim = Sim::new(options(Strategy::OneForOne, 1, S), &[worker("a"), worker("b")]);
    sim.starts("b", &[Start::FailAfter(S), Start::Up]);
    sim.boot();
    sim.crash("a");
    assert_eq!(sim.take_orders(), ["start a", "start b"]);
    sim.pass(S);
    // b fails, so that there is nothing to be restarted; a's end is not lost.
    assert!(sim.ended());
    assert!(sim.reports.iter().any(|report| matches!(
        report,
        crate::supervisor::ReportEvent::ChildTerminated { id, .. } if &**id == "a"
    )));
}

#[test]
fn a_message_from_an_older_incarnation_is_ignored() {
    let mut sim = one_for_all(&[worker("a")]);
    let key = sim.core.key("a").unwrap();
    sim.crash("a");
    let incarnation = sim.incarnation("a").unwrap();
    sim.event(Event::Ended { child: key, incarnation: incarnation - 1, reason: ExitReason::Normal });
    sim.event(Event::Started { child: key, incarnation: incarnation - 1 });
    assert!(sim.is_running("a"));
    assert_eq!(sim.incarnation("a"), Some(incarnation));
}

#[test]
fn a_delete_does_not_disturb_a_group_restart() {
    let mut sim = one_for_all(&[worker("a"), worker("b"), worker("c")]);
    sim.stops("a", Stop::After(S));
    sim.crash("b");
    // c is down for the moment, and about to come back.
    let caller = sim.delete_later("c");
    assert!(sim.reply(caller).is_none(), "as in OTP it waits for the operation in progress");
    sim.pass(S);
    assert!(matches!(sim.reply(caller), Some(Err(ChildError::Running))));
    assert_eq!(sim.take_orders(), ["ask c", "ask a", "start a", "start b", "start c"]);
}

/// `sig` ends by itself while its group is stopped for a restart. OTP starts it again with the group.
#[test]
fn significant_end_in_a_group_restart_is_restarted() {
    for auto_shutdown in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
        for (strategy, order) in [
            (Strategy::OneForAll, ["sig", "b", "slow"]),
            (Strategy::OneForAll, ["b", "sig", "slow"]),
            (Strategy::RestForOne, ["b", "sig", "slow"]),
        ] {
            let mut sim = group_with_significant(strategy, auto_shutdown, Restart::Transient, order);
            sim.stops("slow", Stop::After(S));
            sim.crash("b");
            sim.exit("sig", ExitReason::Normal);
            sim.pass(S);
            assert!(!sim.ended());
            for id in order {
                assert!(sim.is_running(id), "{strategy:?} {auto_shutdown:?} {order:?}: {id}");
            }
            sim.exit("sig", ExitReason::Normal);
            sim.pass(S);
            assert!(sim.ended(), "outside of a group restart the end counts");
        }
    }
}

#[test]
fn significant_end_outside_the_group_ends_the_supervisor() {
    let order = ["sig", "b", "slow"];
    let any = AutoShutdown::AnySignificant;
    let mut sim = group_with_significant(Strategy::RestForOne, any, Restart::Transient, order);
    sim.stops("slow", Stop::After(S));
    sim.crash("b");
    sim.exit("sig", ExitReason::Normal);
    assert!(!sim.ended(), "the restart goes on first");
    sim.pass(2 * S);
    assert_eq!(sim.take_orders(), ["ask slow", "start b", "start slow", "ask slow", "ask b"]);
}

/// As in OTP, a group restart removes a temporary child; its end is then nobody's.
#[test]
fn temporary_significant_end_in_a_group_restart_is_removed() {
    for auto_shutdown in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
        let order = ["sig", "b", "slow"];
        let mut sim = group_with_significant(Strategy::OneForAll, auto_shutdown, Restart::Temporary, order);
        sim.stops("slow", Stop::After(S));
        sim.crash("b");
        sim.exit("sig", ExitReason::Normal);
        sim.pass(S);
        assert!(!sim.ended() && sim.state("sig").is_none());
        assert!(sim.is_running("b") && sim.is_running("slow"));
    }
}

/// The failing retry of `b` stops the group once more; `sig` ends just then.
#[test]
fn significant_end_before_a_group_retry_is_restarted() {
    let order = ["sig", "b", "slow"];
    let any = AutoShutdown::AnySignificant;
    let mut sim = group_with_significant(Strategy::OneForAll, any, Restart::Transient, order);
    sim.starts("b", &[Start::FailAfter(S), Start::Up]);
    sim.stops("sig", Stop::After(S));
    sim.crash("b");
    // `sig` is asked, and ends by itself meanwhile.
    sim.exit("sig", ExitReason::Normal);
    sim.pass(3 * S);
    assert!(!sim.ended());
    assert!(order.iter().all(|id| sim.is_running(id)));
}

fn group_with_significant(
    strategy: Strategy,
    auto_shutdown: AutoShutdown,
    restart: Restart,
    order: [&str; 3],
) -> Sim {
    let child = |id| match id {
        "sig" => ChildOptions { significant: true, ..with(restart, id) },
        _ => worker(id),
    };
    Sim::up(SupervisorOptions { auto_shutdown, ..options(strategy, 9, 3600 * S) }, &order.map(child))
}
