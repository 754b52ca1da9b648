//! Leases: requests for a worker to themselves.

use super::*;
use Placement::{Elsewhere, Kept, New};

#[test]
fn a_lease_has_a_worker_to_itself() {
    let mut rig = Rig::running_several(2, 4);
    assert_eq!(rig.lease(1), [assign(0, 1, 1)]);
    for request in 2..=5 {
        assert_eq!(rig.submit(request), [assign(1, 1, request)]);
    }
    assert_eq!(rig.submit(6), [], "the lease's other places are nobody's");
    assert_eq!(rig.states(), [SlotState::Busy(Load::Lease), calls(4)]);
    assert_eq!(rig.core.counts().in_flight, 5);
    assert_eq!(rig.freed(0, 1), [assign(0, 1, 6)]);
}

#[test]
fn a_lease_waits_until_a_worker_is_empty() {
    let mut rig = Rig::running_several(1, 3);
    rig.submit(1);
    rig.submit(2);
    assert_eq!(rig.lease(3), []);
    assert_eq!(rig.freed(0, 1), []);
    assert_eq!(rig.freed(0, 1), [assign(0, 1, 3)]);
}

#[test]
fn nobody_overtakes_a_lease_that_waits() {
    let mut rig = Rig::running_several(2, 2);
    rig.submit(1);
    rig.submit(2);
    rig.lease(3);
    assert_eq!(rig.submit(4), []);
    rig.lease(5);
    rig.submit(6);
    rig.submit(7);
    assert_eq!(rig.freed(1, 1), [assign(1, 1, 3), assign(0, 1, 4)], "what comes next is free to go on");
    assert_eq!(rig.freed(0, 1), []);
    assert_eq!(rig.freed(0, 1), [assign(0, 1, 5)]);
    assert_eq!(rig.freed(1, 1), [assign(1, 1, 6), assign(1, 1, 7)]);
}

#[test]
fn a_lease_that_gives_up_lets_those_behind_it_go_on() {
    for timeout in [true, false] {
        let mut rig = Rig::running_several(2, 2);
        rig.submit(1);
        rig.submit(2);
        rig.submit_all(3, 100, None, true);
        for request in 4..=6 {
            assert_eq!(rig.submit(request), []);
        }
        let assigned = [assign(1, 1, 4), assign(0, 1, 5)];
        if timeout {
            let mut out = rig.tick_after(100);
            assert_eq!(out.remove(0), reject(3, Rejection::TimedOut));
            assert_eq!(out, assigned);
        } else {
            assert_eq!(rig.abandon(3), assigned);
        }
    }
}

#[test]
fn a_lease_that_gives_up_lets_its_own_line_and_the_common_one_go_on() {
    let mut rig = Rig::running_several(1, 3);
    rig.strict("a", 1);
    rig.lease_with(Affinity::StrictQueue, "a", 2);
    rig.submit(3);
    rig.strict("a", 4);
    assert_eq!(rig.abandon(2), [assign(0, 1, 3), placed(0, 1, 4, Kept)]);
}

#[test]
fn a_deadline_frees_the_way_before_a_newcomer_is_looked_at() {
    let mut rig = Rig::running_with(Config { size: 1, in_flight: 2, queue_bound: 1, ..CONFIG });
    rig.submit(1);
    rig.submit_all(2, 100, None, true);
    rig.now += ms(100);
    assert_eq!(rig.submit(3), [reject(2, Rejection::TimedOut), assign(0, 1, 3)]);
}

#[test]
fn a_deadline_frees_no_way_to_a_worker_that_is_gone() {
    let mut rig = Rig::running_several(2, 2);
    rig.submit(1);
    rig.submit(2);
    rig.submit_all(3, 100, None, true);
    rig.submit(4);
    rig.submit(5);
    rig.now += ms(100);
    let (late, four, five) = (reject(3, Rejection::TimedOut), assign(0, 1, 4), assign(0, 1, 5));
    assert_eq!(rig.exited(1, 1), [late, four], "5 finds no place");
    assert_eq!(rig.freed(0, 1), [five]);
}

#[test]
fn a_lease_of_a_strict_session_waits_for_all_of_its_worker() {
    let mut rig = Rig::running_several(2, 2);
    rig.strict("a", 1);
    assert_eq!(rig.lease_with(Affinity::StrictQueue, "a", 2), [], "though the other one is empty");
    assert_eq!(rig.strict("a", 3), [], "not before 2");
    assert_eq!(rig.hint("a", 4), [placed(1, 1, 4, Elsewhere)]);
    assert_eq!(rig.submit(5), [assign(1, 1, 5)], "0 owes its place to 2");
    assert_eq!(rig.submit(6), []);
    assert_eq!(rig.freed(0, 1), [placed(0, 1, 2, Kept)]);
    assert_eq!(rig.freed(0, 1), [placed(0, 1, 3, Kept), assign(0, 1, 6)]);
}

#[test]
fn a_lease_that_would_not_wait_is_refused_unless_its_worker_is_empty() {
    let mut rig = Rig::running_several(2, 2);
    rig.strict("a", 1);
    let busy =
        |request| reject(request, Rejection::SessionBusy { session: "a".into(), retry_after: ms(1000) });
    assert_eq!(rig.lease_with(Affinity::StrictFailFast, "a", 2), [busy(2)]);
    rig.freed(0, 1);
    assert_eq!(rig.lease_with(Affinity::StrictFailFast, "a", 3), [placed(0, 1, 3, Kept)]);
    rig.freed(0, 1);
    rig.strict("a", 4);
    rig.submit(5);
    rig.lease(6);
    assert_eq!(rig.fail_fast("a", 7), [busy(7)], "its worker has a place, but owes it to 6");
}

#[test]
fn a_lease_with_a_hint_takes_any_empty_worker() {
    let mut rig = Rig::running_several(2, 2);
    rig.hint("a", 1);
    assert_eq!(rig.lease_with(Affinity::Hint, "a", 2), [placed(1, 1, 2, Elsewhere)]);
    rig.lease_with(Affinity::Hint, "a", 3);
    assert_eq!(rig.freed(0, 1), [placed(0, 1, 3, Kept)]);
}

#[test]
fn own_line_and_common_line_wait_for_the_one_who_was_first() {
    let mut rig = Rig::running_several(2, 2);
    rig.strict("a", 1);
    rig.submit(2);
    rig.lease(3);
    assert_eq!(rig.strict("a", 4), [], "its worker empties for 3");
    assert_eq!(rig.lease_with(Affinity::StrictQueue, "a", 5), []);
    rig.submit(6);
    let out = rig.freed(1, 1);
    assert_eq!(out, [assign(1, 1, 3), placed(0, 1, 4, Kept)], "and then goes on, up to 5, before 6");
    assert_eq!(rig.freed(1, 1), [assign(1, 1, 6)]);
    rig.freed(0, 1);
    assert_eq!(rig.freed(0, 1), [placed(0, 1, 5, Kept)]);
}

#[test]
fn those_whose_session_is_ended_take_their_place_in_the_common_line() {
    let mut rig = Rig::running_several(2, 2);
    rig.strict("a", 1);
    rig.submit(2);
    rig.lease_with(Affinity::StrictQueue, "a", 3);
    rig.strict("a", 4);
    assert_eq!(rig.end("a", 9), [ends(&[0], "a", SessionEnd::Ended, 9)], "neither worker is empty");
    assert_eq!(rig.submit(5), []);
    assert_eq!(rig.freed(1, 1), [placed(1, 1, 3, New), assign(0, 1, 5)], "4 waits for 3's worker now");
    assert_eq!(rig.freed(1, 1), [placed(1, 1, 4, Kept)]);
}

#[test]
fn a_lease_takes_a_worker_that_comes_back_empty() {
    let mut rig = Rig::running_several(1, 2);
    rig.submit(1);
    rig.lease(2);
    rig.exited(0, 1);
    assert_eq!(rig.ready(0, 2), [assign(0, 2, 2)]);
}
