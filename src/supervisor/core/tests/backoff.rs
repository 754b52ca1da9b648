//! Back-off: the first start, deaths of children that were up, and what a retry looks like.

use super::sim::*;
use crate::supervisor::{
    Backoff, ChildError, ChildOptions, ExitReason, ReportEvent, Strategy,
    core::{Ending, Event, StateView},
};

const STRATEGIES: [Strategy; 3] = [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne];

fn patient() -> Backoff {
    Backoff { free: 0, jitter: 0.0, first: S, ..Backoff::default() }
}

fn with_backoff(backoff: Backoff, id: &str) -> ChildOptions {
    ChildOptions { backoff: Some(Box::new(backoff)), ..worker(id) }
}

#[test]
fn boot_goes_on_without_a_child_that_has_a_backoff() {
    let children = [worker("a"), with_backoff(patient(), "b"), worker("c")];
    let mut sim = Sim::new(options(Strategy::OneForOne, 0, S), &children);
    sim.starts("b", &[Start::Fail, Start::Fail, Start::Fail, Start::Up]);
    sim.boot();
    assert!(sim.booted);
    assert_eq!(sim.take_orders(), ["start a", "start b", "start c"]);
    assert_eq!(sim.state("b"), Some(StateView::Restarting));
    let retry = |report: &ReportEvent| match report {
        ReportEvent::StartFailed { retry_in, .. } => *retry_in,
        _ => None,
    };
    for wait in [S, 2 * S, 4 * S] {
        assert_eq!(sim.reports.iter().filter_map(retry).next_back(), Some(wait));
        assert!(!sim.is_running("b"));
        sim.pass(wait);
    }
    assert!(sim.is_running("b"));
    assert_eq!(sim.take_orders(), ["start b"; 3]);
}

#[test]
fn boot_holds_back_the_siblings_that_share_the_fate() {
    for (strategy, retried) in [
        (Strategy::OneForAll, vec!["ask a", "start a", "start b", "start c"]),
        (Strategy::RestForOne, vec!["start b", "start c"]),
    ] {
        let children = [worker("a"), with_backoff(patient(), "b"), worker("c")];
        let mut sim = Sim::new(options(strategy, 0, S), &children);
        sim.starts("b", &[Start::Fail, Start::Up]);
        sim.boot();
        assert!(sim.booted);
        assert_eq!(sim.take_orders(), ["start a", "start b"]);
        sim.pass(S);
        assert_eq!(sim.take_orders(), retried);
        assert!(["a", "b", "c"].iter().all(|id| sim.is_running(id)));
    }
}

#[test]
fn boot_fails_with_a_child_that_must_start() {
    let backoff = Backoff { must_start: true, ..patient() };
    let mut sim = Sim::new(options(Strategy::OneForOne, 0, S), &[worker("a"), with_backoff(backoff, "b")]);
    sim.starts("b", &[Start::Fail]);
    sim.boot();
    assert!(matches!(&sim.ending, Some(Ending::NotStarted { id, .. }) if &**id == "b"));
    assert_eq!(sim.take_orders(), ["start a", "start b", "ask a"]);
    // Once the supervisor is up, later starts are retried, but not one that somebody has asked for.
    let mut sim = Sim::up(options(Strategy::OneForOne, 0, S), &[with_backoff(backoff, "b")]);
    sim.starts("b", &[Start::Fail, Start::Up]);
    sim.crash("b");
    sim.pass(3 * S);
    assert!(sim.is_running("b"));
    sim.starts("x", &[Start::Fail]);
    let error = sim.start(with_backoff(backoff, "x")).unwrap_err();
    assert!(matches!(error, ChildError::Start { retrying: false, .. }));
    assert_eq!(sim.state("x"), None);
}

#[test]
fn boot_can_be_stopped_while_a_first_start_is_retried() {
    let mut sim = Sim::new(options(Strategy::OneForOne, 0, S), &[with_backoff(patient(), "a"), worker("b")]);
    sim.starts("a", &[Start::Fail]);
    sim.starts("b", &[Start::Hang]);
    sim.boot();
    assert!(!sim.booted);
    sim.pass(10 * S);
    assert_eq!(sim.take_orders(), ["start a", "start b"], "one thing at a time");
    sim.event(Event::Stop);
    assert!(sim.ended());
}

#[test]
fn start_in_progress_shows_as_restarting_when_it_is_a_retry() {
    for strategy in STRATEGIES {
        let mut sim = Sim::new(options(strategy, 9, 3600 * S), &[worker("a"), worker("b")]);
        sim.starts("b", &[Start::Hang]);
        sim.boot();
        assert_eq!(sim.state("b"), Some(StateView::Starting), "the first start");
        let mut sim = Sim::up(options(strategy, 9, 3600 * S), &[worker("a"), worker("b")]);
        sim.starts("b", &[Start::FailAfter(S), Start::Hang]);
        sim.crash("b");
        assert_eq!(sim.state("b"), Some(StateView::Restarting), "the first attempt");
        sim.pass(S);
        assert_eq!(sim.state("b"), Some(StateView::Restarting), "the second attempt");
        sim.terminate("b").unwrap();
        sim.restart_later("b");
        assert_eq!(sim.state("b"), Some(StateView::Starting), "somebody has asked for it");
    }
    let mut sim = Sim::up(options(Strategy::OneForAll, 9, 3600 * S), &[worker("a"), worker("b")]);
    sim.starts("b", &[Start::Hang]);
    sim.crash("a");
    assert_eq!(sim.state("b"), Some(StateView::Restarting), "with its group");
    let mut pool = Sim::up(dynamic(9, 3600 * S), &[]);
    pool.starts("x", &[Start::Up, Start::Hang]);
    pool.start(worker("x")).unwrap();
    pool.crash("x");
    assert_eq!(pool.state("x"), Some(StateView::Restarting), "under a dynamic supervisor");
}

/// The policy of a pool's workers: one lethal call a second for ten minutes costs no wait as long as workers serve.
#[test]
fn settled_child_is_restarted_at_once_whenever_it_dies() {
    let backoff = Backoff { max_once_up: S, ..Backoff::default() };
    let mut pool = Sim::up(dynamic(0, S), &[]);
    let ids = ["1", "2", "3", "4"];
    for id in ids {
        pool.start(with_backoff(backoff, id)).unwrap();
    }
    for second in 0..600 {
        let id = ids[second % 4];
        let child = pool.core.key(id).unwrap();
        let incarnation = pool.incarnation(id).unwrap();
        pool.event(Event::Settled { child, incarnation });
        pool.exit(id, ExitReason::Abnormal("exit code 3".into()));
        pool.settle();
        assert!(pool.is_running(id), "after {second} s");
        pool.pass(S);
    }
}

#[test]
fn unsettled_child_waits_no_longer_than_told_and_failed_starts_do() {
    let backoff = Backoff { max_once_up: S, jitter: 0.0, ..Backoff::default() };
    let mut pool = Sim::up(dynamic(0, S), &[]);
    pool.start(with_backoff(backoff, "1")).unwrap();
    for _ in 0..600 {
        pool.crash("1");
        pool.pass(S);
        assert!(pool.is_running("1"));
    }
    pool.starts("1", &[Start::Fail]);
    pool.crash("1");
    pool.pass(600 * S);
    let mut waits = pool.reports.iter().filter_map(|report| match report {
        ReportEvent::StartFailed { retry_in, .. } => *retry_in,
        _ => None,
    });
    assert_eq!(waits.next_back(), Some(30 * S));
    // What an earlier incarnation did counts no more.
    let child = pool.core.key("1").unwrap();
    pool.event(Event::Settled { child, incarnation: 1 });
    assert!(!pool.is_running("1"));
}
