//! Assignments that came to nothing, since the caller had gone before Python had the call.

use super::super::status::Totals;
use super::*;
use Placement::{Elsewhere, Kept, New};

#[test]
fn an_assignment_that_came_to_nothing_frees_its_place_and_counts_as_abandoned() {
    let mut fixture = Fixture::running(1);
    fixture.submit(1);
    fixture.submit(2);
    fixture.now += ms(7);
    assert_eq!(fixture.unassigned(0, 1), [assign(0, 1, 2)]);
    assert_eq!(fixture.unassigned(0, 1), [], "once");
    let totals = Totals { submitted: 2, assigned: 1, abandoned: 1, ..Totals::default() };
    assert_eq!((fixture.core.counts().totals, fixture.core.counts().mean_run), (totals, None));
}

#[test]
fn one_of_several_is_taken_back_and_no_other() {
    let mut fixture = Fixture::running_with(Config { size: 1, in_flight: 3, ..CONFIG });
    fixture.submit(1);
    fixture.now += ms(20);
    fixture.submit(2);
    fixture.now += ms(20);
    fixture.submit(3);
    fixture.unassigned(0, 2);
    assert_eq!(fixture.core.counts().in_flight, 2);
    fixture.freed(0, 1);
    assert_eq!(fixture.core.counts().mean_run, Some(ms(40)));
    fixture.freed(0, 1);
    assert_eq!(fixture.core.counts().mean_run, Some(ms(35)), "the first and the third");
}

#[test]
fn a_lease_that_came_to_nothing_gives_its_worker_back() {
    let mut fixture = Fixture::running_with(Config { size: 1, in_flight: 2, ..CONFIG });
    fixture.lease(1);
    fixture.submit(2);
    fixture.submit(3);
    assert_eq!(fixture.unassigned(0, 1), [assign(0, 1, 2), assign(0, 1, 3)]);
}

#[test]
fn a_session_that_came_to_nothing_never_was() {
    let mut fixture = Fixture::running(2);
    assert_eq!(fixture.hint("a", 1), [placed(0, 1, 1, New)]);
    assert_eq!(fixture.unassigned(0, 1), []);
    assert_eq!((fixture.core.counts().sessions, fixture.core.next_deadline()), (0, None));
    fixture.submit(2);
    assert_eq!(fixture.hint("a", 3), [placed(1, 1, 3, New)]);
}

#[test]
fn a_session_that_served_before_stays_where_it_is() {
    let mut fixture = Fixture::running(2);
    fixture.hint("a", 1);
    fixture.freed(0, 1);
    assert_eq!(fixture.hint("a", 2), [placed(0, 1, 2, Kept)]);
    fixture.unassigned(0, 2);
    assert_eq!(fixture.core.next_deadline(), Some(fixture.now + CONFIG.session_ttl), "it rests again");
    assert_eq!(fixture.hint("a", 3), [placed(0, 1, 3, Kept)]);
    assert_eq!(fixture.hint("a", 4), [placed(1, 1, 4, Elsewhere)]);
    fixture.unassigned(1, 4);
    assert_eq!(
        fixture.end("a", 9),
        [ends(&[0], "a", SessionEnd::Ended, 9)],
        "the other one has nothing of it"
    );
}

#[test]
fn those_who_wait_are_bound_no_longer() {
    let (mut fixture, _) = Fixture::start(CONFIG);
    for request in 1..=3 {
        fixture.strict("a", request);
    }
    assert_eq!(fixture.ready(0, 1), [placed(0, 1, 1, New)]);
    assert_eq!(fixture.ready(1, 1), [], "bound");
    assert_eq!(fixture.unassigned(0, 1), [placed(0, 1, 2, New)]);
    assert_eq!(fixture.freed(1, 1), []);
    assert_eq!(fixture.freed(0, 1), [placed(0, 1, 3, Kept)]);
}

#[test]
fn a_session_served_elsewhere_meanwhile_has_its_home_there() {
    let mut fixture = Fixture::running(2);
    fixture.hint("a", 1);
    assert_eq!(fixture.hint("a", 2), [placed(1, 1, 2, Elsewhere)]);
    fixture.strict("a", 3);
    assert_eq!(fixture.unassigned(0, 1), []);
    assert_eq!(fixture.core.counts().sessions, 1);
    assert_eq!(fixture.freed(1, 1), [placed(1, 1, 3, Kept)]);
}

#[test]
fn a_session_that_another_call_uses_there_stays() {
    let (mut fixture, _) = Fixture::start(Config { size: 1, in_flight: 2, ..CONFIG });
    fixture.strict("a", 1);
    fixture.strict("a", 2);
    assert_eq!(fixture.ready(0, 1), [placed(0, 1, 1, New), placed(0, 1, 2, Kept)]);
    assert_eq!(fixture.unassigned(0, 1), []);
    assert_eq!(fixture.strict("a", 3), [placed(0, 1, 3, Kept)]);
}

#[test]
fn what_is_not_served_cannot_be_taken_back() {
    let mut fixture = Fixture::running(1);
    fixture.submit(1);
    fixture.submit(2);
    assert_eq!(fixture.unassigned(0, 2), [], "it waits");
    assert_eq!(fixture.unassigned(7, 1), [], "no slot of ours");
    fixture.exited(0, 1);
    assert_eq!(fixture.unassigned(0, 1), [], "it died with its worker");
    assert_eq!(fixture.core.counts().totals.abandoned, 0);
}

#[test]
fn a_call_that_its_worker_dropped_later_is_taken_back_all_the_same() {
    let mut fixture = Fixture::running_with(Config { size: 1, in_flight: 3, ..CONFIG });
    assert_eq!(fixture.hint("a", 1), [placed(0, 1, 1, New)]);
    fixture.submit(2);
    fixture.now += ms(30);
    fixture.freed_of(0, 1, 2);
    assert_eq!(fixture.unassigned(0, 1), []);
    assert_eq!(fixture.core.counts().sessions, 0);
    assert_eq!(fixture.hint("a", 3), [placed(0, 1, 3, New)]);
}

#[test]
fn a_session_goes_on_with_another_call_when_the_one_that_began_it_was_dropped() {
    let mut fixture = Fixture::running_with(Config { size: 1, in_flight: 3, ..CONFIG });
    fixture.hint("a", 1);
    assert_eq!(fixture.hint("a", 2), [placed(0, 1, 2, Kept)]);
    fixture.unassigned(0, 1);
    fixture.freed_of(0, 1, 2);
    assert_eq!(fixture.hint("a", 3), [placed(0, 1, 3, Kept)]);
}
