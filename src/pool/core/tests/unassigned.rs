//! Assignments that came to nothing, since the caller had gone before Python had the call.

use super::super::status::Totals;
use super::*;
use Placement::{Elsewhere, Kept, New};

#[test]
fn an_assignment_that_came_to_nothing_frees_its_place_and_counts_as_abandoned() {
    let mut rig = Rig::running(1);
    rig.submit(1);
    rig.submit(2);
    rig.now += ms(7);
    assert_eq!(rig.unassigned(0, 1), [assign(0, 1, 2)]);
    assert_eq!(rig.unassigned(0, 1), [], "once");
    let totals = Totals { submitted: 2, assigned: 1, abandoned: 1, ..Totals::default() };
    assert_eq!((rig.core.counts().totals, rig.core.counts().mean_run), (totals, None));
}

#[test]
fn one_of_several_is_taken_back_and_no_other() {
    let mut rig = Rig::running_with(Config { size: 1, in_flight: 3, ..CONFIG });
    rig.submit(1);
    rig.now += ms(20);
    rig.submit(2);
    rig.now += ms(20);
    rig.submit(3);
    rig.unassigned(0, 2);
    assert_eq!(rig.core.counts().in_flight, 2);
    rig.freed(0, 1);
    assert_eq!(rig.core.counts().mean_run, Some(ms(40)));
    rig.freed(0, 1);
    assert_eq!(rig.core.counts().mean_run, Some(ms(35)), "the first and the third");
}

#[test]
fn a_lease_that_came_to_nothing_gives_its_worker_back() {
    let mut rig = Rig::running_with(Config { size: 1, in_flight: 2, ..CONFIG });
    rig.lease(1);
    rig.submit(2);
    rig.submit(3);
    assert_eq!(rig.unassigned(0, 1), [assign(0, 1, 2), assign(0, 1, 3)]);
}

#[test]
fn a_session_that_came_to_nothing_never_was() {
    let mut rig = Rig::running(2);
    assert_eq!(rig.hint("a", 1), [placed(0, 1, 1, New)]);
    assert_eq!(rig.unassigned(0, 1), []);
    assert_eq!((rig.core.counts().sessions, rig.core.next_deadline()), (0, None));
    rig.submit(2);
    assert_eq!(rig.hint("a", 3), [placed(1, 1, 3, New)]);
}

#[test]
fn a_session_that_served_before_stays_where_it_is() {
    let mut rig = Rig::running(2);
    rig.hint("a", 1);
    rig.freed(0, 1);
    assert_eq!(rig.hint("a", 2), [placed(0, 1, 2, Kept)]);
    rig.unassigned(0, 2);
    assert_eq!(rig.core.next_deadline(), Some(rig.now + CONFIG.session_ttl), "it rests again");
    assert_eq!(rig.hint("a", 3), [placed(0, 1, 3, Kept)]);
    assert_eq!(rig.hint("a", 4), [placed(1, 1, 4, Elsewhere)]);
    rig.unassigned(1, 4);
    assert_eq!(rig.end("a", 9), [ends(&[0], "a", SessionEnd::Ended, 9)], "the other one has nothing of it");
}

#[test]
fn those_who_wait_are_bound_no_longer() {
    let (mut rig, _) = Rig::start(CONFIG);
    for request in 1..=3 {
        rig.strict("a", request);
    }
    assert_eq!(rig.ready(0, 1), [placed(0, 1, 1, New)]);
    assert_eq!(rig.ready(1, 1), [], "bound");
    assert_eq!(rig.unassigned(0, 1), [placed(0, 1, 2, New)]);
    assert_eq!(rig.freed(1, 1), []);
    assert_eq!(rig.freed(0, 1), [placed(0, 1, 3, Kept)]);
}

#[test]
fn a_session_served_elsewhere_meanwhile_has_its_home_there() {
    let mut rig = Rig::running(2);
    rig.hint("a", 1);
    assert_eq!(rig.hint("a", 2), [placed(1, 1, 2, Elsewhere)]);
    rig.strict("a", 3);
    assert_eq!(rig.unassigned(0, 1), []);
    assert_eq!(rig.core.counts().sessions, 1);
    assert_eq!(rig.freed(1, 1), [placed(1, 1, 3, Kept)]);
}

#[test]
fn a_session_that_another_call_uses_there_stays() {
    let (mut rig, _) = Rig::start(Config { size: 1, in_flight: 2, ..CONFIG });
    rig.strict("a", 1);
    rig.strict("a", 2);
    assert_eq!(rig.ready(0, 1), [placed(0, 1, 1, New), placed(0, 1, 2, Kept)]);
    assert_eq!(rig.unassigned(0, 1), []);
    assert_eq!(rig.strict("a", 3), [placed(0, 1, 3, Kept)]);
}

#[test]
fn what_is_not_served_cannot_be_taken_back() {
    let mut rig = Rig::running(1);
    rig.submit(1);
    rig.submit(2);
    assert_eq!(rig.unassigned(0, 2), [], "it waits");
    assert_eq!(rig.unassigned(7, 1), [], "no slot of ours");
    rig.exited(0, 1);
    assert_eq!(rig.unassigned(0, 1), [], "it died with its worker");
    assert_eq!(rig.core.counts().totals.abandoned, 0);
}

#[test]
fn a_call_that_its_worker_dropped_later_is_taken_back_all_the_same() {
    let mut rig = Rig::running_with(Config { size: 1, in_flight: 3, ..CONFIG });
    assert_eq!(rig.hint("a", 1), [placed(0, 1, 1, New)]);
    rig.submit(2);
    rig.now += ms(30);
    rig.freed_of(0, 1, 2);
    assert_eq!(rig.unassigned(0, 1), []);
    assert_eq!(rig.core.counts().sessions, 0);
    assert_eq!(rig.hint("a", 3), [placed(0, 1, 3, New)]);
}

#[test]
fn a_session_goes_on_with_another_call_when_the_one_that_began_it_was_dropped() {
    let mut rig = Rig::running_with(Config { size: 1, in_flight: 3, ..CONFIG });
    rig.hint("a", 1);
    assert_eq!(rig.hint("a", 2), [placed(0, 1, 2, Kept)]);
    rig.unassigned(0, 1);
    rig.freed_of(0, 1, 2);
    assert_eq!(rig.hint("a", 3), [placed(0, 1, 3, Kept)]);
}
