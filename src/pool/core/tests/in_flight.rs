//! Several requests in one worker, and workers that leave.

use super::*;
use Placement::{Elsewhere, Kept, New};

// The choice of a worker

#[test]
fn the_least_loaded_worker_is_next_and_among_equals_the_one_used_last() {
    let mut fixture = Fixture::running_several(3, 3);
    assert_eq!(fixture.submit(1), [assign(0, 1, 1)]);
    assert_eq!(fixture.submit(2), [assign(1, 1, 2)]);
    assert_eq!(fixture.submit(3), [assign(2, 1, 3)]);
    assert_eq!(fixture.submit(4), [assign(2, 1, 4)], "it was used last");
    assert_eq!(fixture.submit(5), [assign(1, 1, 5)]);
    fixture.freed(2, 1);
    assert_eq!(fixture.submit(6), [assign(2, 1, 6)], "0 has one too, but was used before");
    assert_eq!(fixture.submit(7), [assign(0, 1, 7)]);
    assert_eq!(fixture.states(), [calls(2), calls(2), calls(2)]);
    assert_eq!(fixture.core.counts().in_flight, 6);
}

#[test]
fn a_worker_is_given_as_many_as_it_takes_and_the_next_one_for_each_that_ends() {
    let mut fixture = Fixture::running_several(1, 2);
    assert_eq!(fixture.submit(1), [assign(0, 1, 1)]);
    assert_eq!(fixture.submit(2), [assign(0, 1, 2)]);
    for request in 3..=5 {
        assert_eq!(fixture.submit(request), []);
    }
    assert_eq!(fixture.freed(0, 1), [assign(0, 1, 3)]);
    assert_eq!(fixture.freed(0, 1), [assign(0, 1, 4)]);
    assert_eq!((fixture.core.counts().in_flight, fixture.core.counts().waiting), (2, 1));
    fixture.exited(0, 1);
    assert_eq!(fixture.core.counts().in_flight, 0);
    assert_eq!(fixture.ready(0, 2), [assign(0, 2, 5)]);
}

#[test]
fn a_worker_that_becomes_ready_takes_as_many_as_it_can() {
    let (mut fixture, _) = Fixture::start(Config { size: 1, in_flight: 2, ..CONFIG });
    for request in 1..=3 {
        fixture.submit(request);
    }
    assert_eq!(fixture.ready(0, 1), [assign(0, 1, 1), assign(0, 1, 2)]);
}

#[test]
fn a_session_keeps_its_worker_while_that_has_a_place() {
    let mut fixture = Fixture::running_several(2, 2);
    assert_eq!(fixture.hint("a", 1), [placed(0, 1, 1, New)]);
    assert_eq!(fixture.hint("a", 2), [placed(0, 1, 2, Kept)], "though the other one idles");
    assert_eq!(fixture.hint("a", 3), [placed(1, 1, 3, Elsewhere)]);
    assert_eq!(fixture.strict("a", 4), []);
    let busy = Rejection::SessionBusy { session: "a".into(), retry_after: ms(1000) };
    assert_eq!(fixture.fail_fast("a", 5), [reject(5, busy)]);
    assert_eq!(fixture.freed(0, 1), [placed(0, 1, 4, Kept)]);
    fixture.freed(0, 1);
    assert_eq!(fixture.fail_fast("a", 6), [placed(0, 1, 6, Kept)]);
}

#[test]
fn a_session_is_in_use_until_the_last_of_its_calls_has_ended() {
    let mut fixture = Fixture::running_with(Config {
        size: 1,
        in_flight: 3,
        session_ttl: ms(100),
        max_sessions: 1,
        ..CONFIG
    });
    fixture.hint("a", 1);
    fixture.hint("a", 2);
    fixture.freed(0, 1);
    assert_eq!(fixture.core.next_deadline(), None);
    let overloaded =
        Rejection::Overloaded { cause: MaxSessions, queue_len: 0, queue_bytes: 0, retry_after: ms(1000) };
    assert_eq!(fixture.hint("b", 3), [reject(3, overloaded)]);
    fixture.freed(0, 1);
    assert_eq!(fixture.tick_after(100), [ends(&[0], "a", SessionEnd::Expired, None)]);
}

#[test]
fn a_session_rests_when_its_own_call_has_ended_and_not_that_of_another() {
    let mut fixture = Fixture::running_with(Config {
        size: 1,
        in_flight: 2,
        session_ttl: ms(100),
        max_sessions: 2,
        ..CONFIG
    });
    fixture.hint("a", 1);
    fixture.hint("b", 2);
    fixture.freed_of(0, 1, 2);
    assert_eq!(fixture.tick_after(100), [ends(&[0], "b", SessionEnd::Expired, None)]);
    fixture.freed_of(0, 1, 1);
    assert_eq!(fixture.tick_after(100), [ends(&[0], "a", SessionEnd::Expired, None)]);
}

#[test]
fn a_death_ends_the_use_of_all_sessions_that_the_worker_served() {
    let mut fixture = Fixture::running_with(Config {
        size: 2,
        in_flight: 2,
        session_ttl: ms(100),
        max_sessions: 2,
        ..CONFIG
    });
    fixture.hint("a", 1);
    fixture.submit(9);
    fixture.hint("a", 2);
    fixture.hint("b", 3);
    assert_eq!(fixture.exited(0, 1), []);
    assert_eq!(fixture.core.next_deadline(), Some(fixture.now + ms(100)), "of the mark that a is lost");
    assert_eq!(fixture.hint("a", 4), [lost(4, "a")]);
}

// Times

#[test]
fn the_run_times_are_those_of_the_calls_in_whatever_order_they_end() {
    let mut fixture = Fixture::running_several(1, 2);
    fixture.submit(1);
    fixture.now += ms(40);
    fixture.submit(2);
    fixture.now += ms(40);
    fixture.freed_of(0, 1, 2);
    assert_eq!(fixture.core.counts().mean_run, Some(ms(40)));
    assert_eq!(fixture.freed_of(0, 1, 2), [], "once");
    fixture.freed_of(0, 1, 1);
    assert_eq!(fixture.core.counts().mean_run, Some(ms(45)), "40 - 40/8 + 80/8");
}

#[test]
fn the_time_to_come_back_counts_all_places() {
    let mut fixture = Fixture::running_with(Config { size: 2, in_flight: 2, queue_bound: 4, ..CONFIG });
    fixture.strict("a", 1);
    fixture.now += ms(8000);
    fixture.freed(0, 1);
    fixture.strict("a", 2);
    fixture.strict("a", 3);
    let busy = Rejection::SessionBusy { session: "a".into(), retry_after: ms(8000) };
    assert_eq!(fixture.fail_fast("a", 4), [reject(4, busy)]);
    fixture.strict("a", 5);
    let busy = Rejection::SessionBusy { session: "a".into(), retry_after: ms(12000) };
    assert_eq!(fixture.fail_fast("a", 6), [reject(6, busy)], "two that run, one that waits, two at a time");
    for request in 10..15 {
        fixture.submit(request);
    }
    let retry_after = ms(4 * 8000 / (2 * 2));
    assert_eq!(
        fixture.submit(15),
        [reject(15, Rejection::Overloaded { cause: QueueBound, queue_len: 4, queue_bytes: 0, retry_after })]
    );
}

#[test]
fn a_worker_is_busy_since_it_is() {
    let mut fixture = Fixture::running_several(1, 2);
    let since = |fixture: &Fixture| fixture.core.slots().next().map(|slot| fixture.now - slot.since);
    fixture.submit(1);
    fixture.now += ms(5);
    fixture.submit(2);
    fixture.freed(0, 1);
    assert_eq!(since(&fixture), Some(ms(5)));
    fixture.freed(0, 1);
    assert_eq!(since(&fixture), Some(ms(0)));
}

// Leaving

#[test]
fn a_worker_that_leaves_takes_no_more() {
    let mut fixture = Fixture::running_several(2, 2);
    fixture.submit(1);
    fixture.submit(2);
    assert_eq!(fixture.leaving(0, 1), []);
    assert_eq!(fixture.states()[0], SlotState::Leaving(Load::Calls(1)));
    let counts = fixture.core.counts();
    assert_eq!((counts.ready(), counts.busy, counts.leaving, counts.in_flight), (1, 1, 1, 2));
    assert_eq!(fixture.submit(3), [assign(1, 1, 3)]);
    assert_eq!(fixture.submit(4), []);
    assert_eq!(fixture.freed(0, 1), []);
    assert_eq!(fixture.states()[0], SlotState::Leaving(Load::Calls(0)));
    assert_eq!(fixture.freed(0, 1), [], "it serves nothing any more");
    assert_eq!(fixture.exited(0, 1), []);
    assert_eq!(fixture.ready(0, 2), [assign(0, 2, 4)]);
}

#[test]
fn callers_wait_while_all_workers_leave() {
    let mut fixture = Fixture::running_several(1, 2);
    fixture.submit(1);
    fixture.leaving(0, 1);
    assert_eq!(fixture.leaving(0, 1), [], "twice");
    assert_eq!(fixture.submit(2), []);
    assert_eq!(fixture.exited(0, 1), []);
    assert_eq!(fixture.leaving(0, 1), [], "it has left");
    assert_eq!(fixture.ready(0, 2), [assign(0, 2, 2)]);
    assert_eq!(fixture.leaving(0, 1), [], "that was the one before");
    assert_eq!(fixture.states(), [calls(1)]);
}

#[test]
fn the_sessions_of_a_worker_that_leaves_wait_for_its_end() {
    let mut fixture = Fixture::running_several(2, 2);
    fixture.strict("a", 1);
    fixture.leaving(0, 1);
    let busy = Rejection::SessionBusy { session: "a".into(), retry_after: ms(1000) };
    assert_eq!(fixture.fail_fast("a", 2), [reject(2, busy)]);
    assert_eq!(fixture.strict("a", 3), []);
    assert_eq!(fixture.hint("a", 4), [placed(1, 1, 4, Elsewhere)]);
    assert_eq!(fixture.exited(0, 1), [ends(&[1], "a", SessionEnd::Ended, None), lost(3, "a")]);
}

#[test]
fn a_lease_does_not_wait_for_a_worker_that_leaves() {
    let mut fixture = Fixture::running_several(2, 2);
    fixture.submit(1);
    fixture.submit(2);
    fixture.lease(3);
    fixture.leaving(0, 1);
    assert_eq!(fixture.freed(0, 1), [], "empty, but on its way out");
    assert_eq!(fixture.freed(1, 1), [assign(1, 1, 3)]);
}
