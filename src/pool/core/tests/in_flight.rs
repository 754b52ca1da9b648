//! Several requests in one worker, and workers that leave.

use super::*;
use Placement::{Elsewhere, Kept, New};

// The choice of a worker

#[test]
fn the_least_loaded_worker_is_next_and_among_equals_the_one_used_last() {
    let mut rig = Rig::running_several(3, 3);
    assert_eq!(rig.submit(1), [assign(0, 1, 1)]);
    assert_eq!(rig.submit(2), [assign(1, 1, 2)]);
    assert_eq!(rig.submit(3), [assign(2, 1, 3)]);
    assert_eq!(rig.submit(4), [assign(2, 1, 4)], "it was used last");
    assert_eq!(rig.submit(5), [assign(1, 1, 5)]);
    rig.freed(2, 1);
    assert_eq!(rig.submit(6), [assign(2, 1, 6)], "0 has one too, but was used before");
    assert_eq!(rig.submit(7), [assign(0, 1, 7)]);
    assert_eq!(rig.states(), [calls(2), calls(2), calls(2)]);
    assert_eq!(rig.core.counts().in_flight, 6);
}

#[test]
fn a_worker_is_given_as_many_as_it_takes_and_the_next_one_for_each_that_ends() {
    let mut rig = Rig::running_several(1, 2);
    assert_eq!(rig.submit(1), [assign(0, 1, 1)]);
    assert_eq!(rig.submit(2), [assign(0, 1, 2)]);
    for request in 3..=5 {
        assert_eq!(rig.submit(request), []);
    }
    assert_eq!(rig.freed(0, 1), [assign(0, 1, 3)]);
    assert_eq!(rig.freed(0, 1), [assign(0, 1, 4)]);
    assert_eq!((rig.core.counts().in_flight, rig.core.counts().waiting), (2, 1));
    rig.exited(0, 1);
    assert_eq!(rig.core.counts().in_flight, 0);
    assert_eq!(rig.ready(0, 2), [assign(0, 2, 5)]);
}

#[test]
fn a_worker_that_becomes_ready_takes_as_many_as_it_can() {
    let (mut rig, _) = Rig::start(Config { size: 1, in_flight: 2, ..CONFIG });
    for request in 1..=3 {
        rig.submit(request);
    }
    assert_eq!(rig.ready(0, 1), [assign(0, 1, 1), assign(0, 1, 2)]);
}

#[test]
fn a_session_keeps_its_worker_while_that_has_a_place() {
    let mut rig = Rig::running_several(2, 2);
    assert_eq!(rig.hint("a", 1), [placed(0, 1, 1, New)]);
    assert_eq!(rig.hint("a", 2), [placed(0, 1, 2, Kept)], "though the other one idles");
    assert_eq!(rig.hint("a", 3), [placed(1, 1, 3, Elsewhere)]);
    assert_eq!(rig.strict("a", 4), []);
    let busy = Rejection::SessionBusy { session: "a".into(), retry_after: ms(1000) };
    assert_eq!(rig.fail_fast("a", 5), [reject(5, busy)]);
    assert_eq!(rig.freed(0, 1), [placed(0, 1, 4, Kept)]);
    rig.freed(0, 1);
    assert_eq!(rig.fail_fast("a", 6), [placed(0, 1, 6, Kept)]);
}

#[test]
fn a_session_is_in_use_until_the_last_of_its_calls_has_ended() {
    let mut rig =
        Rig::running_with(Config { size: 1, in_flight: 3, session_ttl: ms(100), max_sessions: 1, ..CONFIG });
    rig.hint("a", 1);
    rig.hint("a", 2);
    rig.freed(0, 1);
    assert_eq!(rig.core.next_deadline(), None);
    let overloaded =
        Rejection::Overloaded { cause: MaxSessions, queue_len: 0, queue_bytes: 0, retry_after: ms(1000) };
    assert_eq!(rig.hint("b", 3), [reject(3, overloaded)]);
    rig.freed(0, 1);
    assert_eq!(rig.tick_after(100), [ends(&[0], "a", SessionEnd::Expired, None)]);
}

#[test]
fn a_session_rests_when_its_own_call_has_ended_and_not_that_of_another() {
    let mut rig =
        Rig::running_with(Config { size: 1, in_flight: 2, session_ttl: ms(100), max_sessions: 2, ..CONFIG });
    rig.hint("a", 1);
    rig.hint("b", 2);
    rig.freed_of(0, 1, 2);
    assert_eq!(rig.tick_after(100), [ends(&[0], "b", SessionEnd::Expired, None)]);
    rig.freed_of(0, 1, 1);
    assert_eq!(rig.tick_after(100), [ends(&[0], "a", SessionEnd::Expired, None)]);
}

#[test]
fn a_death_ends_the_use_of_all_sessions_that_the_worker_served() {
    let mut rig =
        Rig::running_with(Config { size: 2, in_flight: 2, session_ttl: ms(100), max_sessions: 2, ..CONFIG });
    rig.hint("a", 1);
    rig.submit(9);
    rig.hint("a", 2);
    rig.hint("b", 3);
    assert_eq!(rig.exited(0, 1), []);
    assert_eq!(rig.core.next_deadline(), Some(rig.now + ms(100)), "of the mark that a is lost");
    assert_eq!(rig.hint("a", 4), [lost(4, "a")]);
}

// Times

#[test]
fn the_run_times_are_those_of_the_calls_in_whatever_order_they_end() {
    let mut rig = Rig::running_several(1, 2);
    rig.submit(1);
    rig.now += ms(40);
    rig.submit(2);
    rig.now += ms(40);
    rig.freed_of(0, 1, 2);
    assert_eq!(rig.core.counts().mean_run, Some(ms(40)));
    assert_eq!(rig.freed_of(0, 1, 2), [], "once");
    rig.freed_of(0, 1, 1);
    assert_eq!(rig.core.counts().mean_run, Some(ms(45)), "40 - 40/8 + 80/8");
}

#[test]
fn the_time_to_come_back_counts_all_places() {
    let mut rig = Rig::running_with(Config { size: 2, in_flight: 2, queue_bound: 4, ..CONFIG });
    rig.strict("a", 1);
    rig.now += ms(8000);
    rig.freed(0, 1);
    rig.strict("a", 2);
    rig.strict("a", 3);
    let busy = Rejection::SessionBusy { session: "a".into(), retry_after: ms(8000) };
    assert_eq!(rig.fail_fast("a", 4), [reject(4, busy)]);
    rig.strict("a", 5);
    let busy = Rejection::SessionBusy { session: "a".into(), retry_after: ms(12000) };
    assert_eq!(rig.fail_fast("a", 6), [reject(6, busy)], "two that run, one that waits, two at a time");
    for request in 10..15 {
        rig.submit(request);
    }
    let retry_after = ms(4 * 8000 / (2 * 2));
    assert_eq!(
        rig.submit(15),
        [reject(15, Rejection::Overloaded { cause: QueueBound, queue_len: 4, queue_bytes: 0, retry_after })]
    );
}

#[test]
fn a_worker_is_busy_since_it_is() {
    let mut rig = Rig::running_several(1, 2);
    let since = |rig: &Rig| rig.core.slots().next().map(|slot| rig.now - slot.since);
    rig.submit(1);
    rig.now += ms(5);
    rig.submit(2);
    rig.freed(0, 1);
    assert_eq!(since(&rig), Some(ms(5)));
    rig.freed(0, 1);
    assert_eq!(since(&rig), Some(ms(0)));
}

// Leaving

#[test]
fn a_worker_that_leaves_takes_no_more() {
    let mut rig = Rig::running_several(2, 2);
    rig.submit(1);
    rig.submit(2);
    assert_eq!(rig.leaving(0, 1), []);
    assert_eq!(rig.states()[0], SlotState::Leaving(Load::Calls(1)));
    let counts = rig.core.counts();
    assert_eq!((counts.ready(), counts.busy, counts.leaving, counts.in_flight), (1, 1, 1, 2));
    assert_eq!(rig.submit(3), [assign(1, 1, 3)]);
    assert_eq!(rig.submit(4), []);
    assert_eq!(rig.freed(0, 1), []);
    assert_eq!(rig.states()[0], SlotState::Leaving(Load::Calls(0)));
    assert_eq!(rig.freed(0, 1), [], "it serves nothing any more");
    assert_eq!(rig.exited(0, 1), []);
    assert_eq!(rig.ready(0, 2), [assign(0, 2, 4)]);
}

#[test]
fn callers_wait_while_all_workers_leave() {
    let mut rig = Rig::running_several(1, 2);
    rig.submit(1);
    rig.leaving(0, 1);
    assert_eq!(rig.leaving(0, 1), [], "twice");
    assert_eq!(rig.submit(2), []);
    assert_eq!(rig.exited(0, 1), []);
    assert_eq!(rig.leaving(0, 1), [], "it has left");
    assert_eq!(rig.ready(0, 2), [assign(0, 2, 2)]);
    assert_eq!(rig.leaving(0, 1), [], "that was the one before");
    assert_eq!(rig.states(), [calls(1)]);
}

#[test]
fn the_sessions_of_a_worker_that_leaves_wait_for_its_end() {
    let mut rig = Rig::running_several(2, 2);
    rig.strict("a", 1);
    rig.leaving(0, 1);
    let busy = Rejection::SessionBusy { session: "a".into(), retry_after: ms(1000) };
    assert_eq!(rig.fail_fast("a", 2), [reject(2, busy)]);
    assert_eq!(rig.strict("a", 3), []);
    assert_eq!(rig.hint("a", 4), [placed(1, 1, 4, Elsewhere)]);
    assert_eq!(rig.exited(0, 1), [ends(&[1], "a", SessionEnd::Ended, None), lost(3, "a")]);
}

#[test]
fn a_lease_does_not_wait_for_a_worker_that_leaves() {
    let mut rig = Rig::running_several(2, 2);
    rig.submit(1);
    rig.submit(2);
    rig.lease(3);
    rig.leaving(0, 1);
    assert_eq!(rig.freed(0, 1), [], "empty, but on its way out");
    assert_eq!(rig.freed(1, 1), [assign(1, 1, 3)]);
}
