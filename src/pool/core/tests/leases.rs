//! Leases: requests for a worker to themselves.

use super::*;
use Placement::{Elsewhere, Kept, New};

#[test]
fn a_lease_has_a_worker_to_itself() {
    let mut fixture = Fixture::running_several(2, 4);
    assert_eq!(fixture.lease(1), [assign(0, 1, 1)]);
    for request in 2..=5 {
        assert_eq!(fixture.submit(request), [assign(1, 1, request)]);
    }
    assert_eq!(fixture.submit(6), [], "the lease's other places are nobody's");
    assert_eq!(fixture.states(), [SlotState::Busy(Load::Lease), calls(4)]);
    assert_eq!(fixture.core.counts().in_flight, 5);
    assert_eq!(fixture.freed(0, 1), [assign(0, 1, 6)]);
}

#[test]
fn a_lease_waits_until_a_worker_is_empty() {
    let mut fixture = Fixture::running_several(1, 3);
    fixture.submit(1);
    fixture.submit(2);
    assert_eq!(fixture.lease(3), []);
    assert_eq!(fixture.freed(0, 1), []);
    assert_eq!(fixture.freed(0, 1), [assign(0, 1, 3)]);
}

#[test]
fn nobody_overtakes_a_lease_that_waits() {
    let mut fixture = Fixture::running_several(2, 2);
    fixture.submit(1);
    fixture.submit(2);
    fixture.lease(3);
    assert_eq!(fixture.submit(4), []);
    fixture.lease(5);
    fixture.submit(6);
    fixture.submit(7);
    assert_eq!(fixture.freed(1, 1), [assign(1, 1, 3), assign(0, 1, 4)], "what comes next is free to go on");
    assert_eq!(fixture.freed(0, 1), []);
    assert_eq!(fixture.freed(0, 1), [assign(0, 1, 5)]);
    assert_eq!(fixture.freed(1, 1), [assign(1, 1, 6), assign(1, 1, 7)]);
}

#[test]
fn a_lease_that_gives_up_lets_those_behind_it_go_on() {
    for timeout in [true, false] {
        let mut fixture = Fixture::running_several(2, 2);
        fixture.submit(1);
        fixture.submit(2);
        fixture.submit_all(3, 100, None, true);
        for request in 4..=6 {
            assert_eq!(fixture.submit(request), []);
        }
        let assigned = [assign(1, 1, 4), assign(0, 1, 5)];
        if timeout {
            let mut out = fixture.tick_after(100);
            assert_eq!(out.remove(0), reject(3, Rejection::TimedOut));
            assert_eq!(out, assigned);
        } else {
            assert_eq!(fixture.abandon(3), assigned);
        }
    }
}

#[test]
fn a_lease_that_gives_up_lets_its_own_line_and_the_common_one_go_on() {
    let mut fixture = Fixture::running_several(1, 3);
    fixture.strict("a", 1);
    fixture.lease_with(Affinity::StrictQueue, "a", 2);
    fixture.submit(3);
    fixture.strict("a", 4);
    assert_eq!(fixture.abandon(2), [assign(0, 1, 3), placed(0, 1, 4, Kept)]);
}

#[test]
fn a_deadline_frees_the_way_before_a_newcomer_is_looked_at() {
    let mut fixture = Fixture::running_with(Config { size: 1, in_flight: 2, queue_bound: 1, ..CONFIG });
    fixture.submit(1);
    fixture.submit_all(2, 100, None, true);
    fixture.now += ms(100);
    assert_eq!(fixture.submit(3), [reject(2, Rejection::TimedOut), assign(0, 1, 3)]);
}

#[test]
fn a_deadline_frees_no_way_to_a_worker_that_is_gone() {
    let mut fixture = Fixture::running_several(2, 2);
    fixture.submit(1);
    fixture.submit(2);
    fixture.submit_all(3, 100, None, true);
    fixture.submit(4);
    fixture.submit(5);
    fixture.now += ms(100);
    let (late, four, five) = (reject(3, Rejection::TimedOut), assign(0, 1, 4), assign(0, 1, 5));
    assert_eq!(fixture.exited(1, 1), [late, four], "5 finds no place");
    assert_eq!(fixture.freed(0, 1), [five]);
}

#[test]
fn a_lease_of_a_strict_session_waits_for_all_of_its_worker() {
    let mut fixture = Fixture::running_several(2, 2);
    fixture.strict("a", 1);
    assert_eq!(fixture.lease_with(Affinity::StrictQueue, "a", 2), [], "though the other one is empty");
    assert_eq!(fixture.strict("a", 3), [], "not before 2");
    assert_eq!(fixture.hint("a", 4), [placed(1, 1, 4, Elsewhere)]);
    assert_eq!(fixture.submit(5), [assign(1, 1, 5)], "0 owes its place to 2");
    assert_eq!(fixture.submit(6), []);
    assert_eq!(fixture.freed(0, 1), [placed(0, 1, 2, Kept)]);
    assert_eq!(fixture.freed(0, 1), [placed(0, 1, 3, Kept), assign(0, 1, 6)]);
}

#[test]
fn a_lease_that_would_not_wait_is_refused_unless_its_worker_is_empty() {
    let mut fixture = Fixture::running_several(2, 2);
    fixture.strict("a", 1);
    let busy =
        |request| reject(request, Rejection::SessionBusy { session: "a".into(), retry_after: ms(1000) });
    assert_eq!(fixture.lease_with(Affinity::StrictFailFast, "a", 2), [busy(2)]);
    fixture.freed(0, 1);
    assert_eq!(fixture.lease_with(Affinity::StrictFailFast, "a", 3), [placed(0, 1, 3, Kept)]);
    fixture.freed(0, 1);
    fixture.strict("a", 4);
    fixture.submit(5);
    fixture.lease(6);
    assert_eq!(fixture.fail_fast("a", 7), [busy(7)], "its worker has a place, but owes it to 6");
}

#[test]
fn a_lease_with_a_hint_takes_any_empty_worker() {
    let mut fixture = Fixture::running_several(2, 2);
    fixture.hint("a", 1);
    assert_eq!(fixture.lease_with(Affinity::Hint, "a", 2), [placed(1, 1, 2, Elsewhere)]);
    fixture.lease_with(Affinity::Hint, "a", 3);
    assert_eq!(fixture.freed(0, 1), [placed(0, 1, 3, Kept)]);
}

#[test]
fn own_line_and_common_line_wait_for_the_one_who_was_first() {
    let mut fixture = Fixture::running_several(2, 2);
    fixture.strict("a", 1);
    fixture.submit(2);
    fixture.lease(3);
    assert_eq!(fixture.strict("a", 4), [], "its worker empties for 3");
    assert_eq!(fixture.lease_with(Affinity::StrictQueue, "a", 5), []);
    fixture.submit(6);
    let out = fixture.freed(1, 1);
    assert_eq!(out, [assign(1, 1, 3), placed(0, 1, 4, Kept)], "and then goes on, up to 5, before 6");
    assert_eq!(fixture.freed(1, 1), [assign(1, 1, 6)]);
    fixture.freed(0, 1);
    assert_eq!(fixture.freed(0, 1), [placed(0, 1, 5, Kept)]);
}

#[test]
fn those_whose_session_is_ended_take_their_place_in_the_common_line() {
    let mut fixture = Fixture::running_several(2, 2);
    fixture.strict("a", 1);
    fixture.submit(2);
    fixture.lease_with(Affinity::StrictQueue, "a", 3);
    fixture.strict("a", 4);
    assert_eq!(fixture.end("a", 9), [ends(&[0], "a", SessionEnd::Ended, 9)], "neither worker is empty");
    assert_eq!(fixture.submit(5), []);
    assert_eq!(fixture.freed(1, 1), [placed(1, 1, 3, New), assign(0, 1, 5)], "4 waits for 3's worker now");
    assert_eq!(fixture.freed(1, 1), [placed(1, 1, 4, Kept)]);
}

#[test]
fn a_lease_takes_a_worker_that_comes_back_empty() {
    let mut fixture = Fixture::running_several(1, 2);
    fixture.submit(1);
    fixture.lease(2);
    fixture.exited(0, 1);
    assert_eq!(fixture.ready(0, 2), [assign(0, 2, 2)]);
}
