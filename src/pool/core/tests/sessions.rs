//! Where the requests of a session go.

use super::super::status::Totals;
use super::*;
use Placement::{Elsewhere, Kept, New};

fn busy(request: u64, session: &str, retry_ms: u64) -> Command<u64, &'static str> {
    let retry_after = ms(retry_ms);
    reject(request, Rejection::SessionBusy { session: session.into(), retry_after })
}

// Hint

#[test]
fn a_session_begins_on_any_worker_and_comes_back_to_it() {
    let mut fixture = Fixture::running(3);
    assert_eq!(fixture.hint("a", 1), [placed(0, 1, 1, New)]);
    assert_eq!(fixture.hint("b", 2), [placed(1, 1, 2, New)]);
    fixture.freed(0, 1);
    fixture.freed(1, 1);
    assert_eq!(fixture.hint("a", 3), [placed(0, 1, 3, Kept)], "though 1 was used last");
    assert_eq!(fixture.strict("b", 4), [placed(1, 1, 4, Kept)]);
    assert_eq!(fixture.core.counts().sessions, 2);
}

#[test]
fn a_hint_goes_elsewhere_when_its_worker_is_busy_and_stays_bound() {
    let mut fixture = Fixture::running(2);
    fixture.hint("a", 1);
    assert_eq!(fixture.hint("a", 2), [placed(1, 1, 2, Elsewhere)]);
    fixture.freed(1, 1);
    assert_eq!(fixture.hint("a", 3), [placed(1, 1, 3, Elsewhere)], "its owner has not moved");
    fixture.freed(1, 1);
    fixture.freed(0, 1);
    assert_eq!(fixture.hint("a", 4), [placed(0, 1, 4, Kept)]);
}

#[test]
fn a_hint_that_waits_takes_whoever_comes_free_first() {
    let mut fixture = Fixture::running(2);
    fixture.hint("a", 1);
    fixture.submit(2);
    fixture.hint("a", 3);
    fixture.hint("a", 4);
    assert_eq!(fixture.freed(1, 1), [placed(1, 1, 3, Elsewhere)]);
    assert_eq!(fixture.freed(0, 1), [placed(0, 1, 4, Kept)]);
}

// Strict

#[test]
fn a_strict_request_waits_for_its_worker_while_others_idle() {
    let mut fixture = Fixture::running(2);
    fixture.strict("a", 1);
    assert_eq!(fixture.strict("a", 2), []);
    assert_eq!(fixture.submit(3), [assign(1, 1, 3)], "nobody is held up");
    assert_eq!(fixture.freed(1, 1), []);
    assert_eq!(fixture.freed(0, 1), [placed(0, 1, 2, Kept)]);
}

#[test]
fn a_worker_takes_the_longest_waiting_of_those_it_may_serve() {
    let mut fixture = Fixture::running(2);
    fixture.strict("a", 1);
    fixture.strict("b", 2);
    fixture.strict("a", 3);
    fixture.submit(4);
    fixture.hint("b", 5);
    fixture.strict("b", 6);
    fixture.strict("a", 7);
    assert_eq!(fixture.freed(1, 1), [assign(1, 1, 4)], "3 waits for the other one, and is in nobody's way");
    assert_eq!(fixture.freed(1, 1), [placed(1, 1, 5, Kept)]);
    assert_eq!(fixture.freed(1, 1), [placed(1, 1, 6, Kept)]);
    assert_eq!(fixture.freed(1, 1), [], "7 is not for this one");
    assert_eq!(fixture.freed(0, 1), [placed(0, 1, 3, Kept)]);
    assert_eq!(fixture.freed(0, 1), [placed(0, 1, 7, Kept)]);
}

#[test]
fn a_strict_waiter_is_not_overtaken_on_its_own_worker() {
    let mut fixture = Fixture::running(1);
    fixture.strict("a", 1);
    fixture.strict("a", 2);
    fixture.submit(3);
    assert_eq!(fixture.freed(0, 1), [placed(0, 1, 2, Kept)]);
    assert_eq!(fixture.freed(0, 1), [assign(0, 1, 3)]);
}

#[test]
fn the_bound_and_the_deadline_hold_for_strict_requests() {
    let mut fixture = Fixture::running_with(Config { queue_bound: 2, ..CONFIG });
    fixture.strict("a", 1);
    let strict = || Some(SessionUse { session: "a".into(), affinity: Affinity::StrictQueue });
    fixture.submit_as(2, 50, strict());
    fixture.submit_as(3, 40, strict());
    let overloaded =
        Rejection::Overloaded { cause: QueueBound, queue_len: 2, queue_bytes: 0, retry_after: ms(1000) };
    assert_eq!(fixture.strict("a", 4), [reject(4, overloaded)], "though a worker idles");
    assert_eq!(fixture.submit(5), [assign(1, 1, 5)], "which others still get");
    assert_eq!(fixture.core.next_deadline(), Some(fixture.now + ms(40)));
    assert_eq!(fixture.tick_after(40), [reject(3, Rejection::TimedOut)]);
    assert_eq!(fixture.abandon(2), []);
    assert_eq!(fixture.freed(0, 1), []);
}

#[test]
fn a_request_that_would_not_wait_is_refused_at_once() {
    let mut fixture = Fixture::running(2);
    assert_eq!(fixture.fail_fast("a", 1), [placed(0, 1, 1, New)]);
    assert_eq!(fixture.fail_fast("a", 2), [busy(2, "a", 1000)], "no mean run yet");
    fixture.now += ms(3000);
    fixture.freed(0, 1);
    assert_eq!(fixture.fail_fast("a", 3), [placed(0, 1, 3, Kept)]);
    fixture.strict("a", 4);
    assert_eq!(fixture.fail_fast("a", 5), [busy(5, "a", 6000)], "behind 3 and 4");
    let totals = Totals { submitted: 5, assigned: 2, session_busy: 2, ..Totals::default() };
    assert_eq!((fixture.core.counts().totals, fixture.core.counts().waiting), (totals, 1));
}

#[test]
fn whoever_would_not_wait_is_refused_when_others_use_the_worker() {
    let mut fixture = Fixture::running(1);
    fixture.fail_fast("a", 1);
    fixture.freed(0, 1);
    fixture.submit(2);
    assert_eq!(fixture.fail_fast("a", 3), [busy(3, "a", 1000)]);
    assert_eq!(fixture.fail_fast("b", 4), [], "a session that has no worker waits for one");
    assert_eq!(fixture.freed(0, 1), [placed(0, 1, 4, New)]);
}

// Sessions that have no worker yet

#[test]
fn the_first_to_be_assigned_binds_the_session_for_those_who_wait() {
    let (mut fixture, _) = Fixture::start(CONFIG);
    for request in 1..=2 {
        assert_eq!(fixture.strict("a", request), []);
    }
    fixture.fail_fast("a", 3);
    fixture.hint("a", 4);
    assert_eq!(fixture.core.counts().sessions, 0);
    assert_eq!(fixture.ready(0, 1), [placed(0, 1, 1, New)]);
    assert_eq!(fixture.ready(1, 1), [placed(1, 1, 4, Elsewhere)], "2 and 3 wait for the other one");
    assert_eq!(fixture.freed(1, 1), []);
    assert_eq!(fixture.freed(0, 1), [placed(0, 1, 2, Kept)]);
    assert_eq!(fixture.freed(0, 1), [placed(0, 1, 3, Kept)]);
}

#[test]
fn a_session_whose_first_requests_all_gave_up_never_was() {
    let (mut fixture, _) = Fixture::start(Config { max_sessions: 1, ..CONFIG });
    fixture.hint("a", 1);
    fixture.strict("a", 2);
    fixture.abandon(1);
    assert_eq!(fixture.tick_after(5000), [reject(2, Rejection::TimedOut)]);
    assert_eq!(fixture.core.next_deadline(), None);
    assert_eq!(fixture.hint("b", 3), [], "its place is free");
}

// Where no session helps

#[test]
fn a_failed_pool_refuses_whatever_the_session() {
    let mut fixture = Fixture::running(1);
    fixture.strict("a", 1);
    fixture.freed(0, 1);
    fixture.exited(0, 1);
    fixture.strict("b", 2);
    let gone = Rejection::Unavailable { cause: "gone" };
    assert_eq!(fixture.failed(0, 2, "gone"), [reject(2, gone.clone())]);
    assert_eq!(fixture.fail_fast("a", 3), [reject(3, gone.clone())]);
    assert_eq!(fixture.hint("c", 4), [reject(4, gone)]);
    fixture.ready(0, 3);
    assert_eq!(fixture.hint("a", 5), [lost(5, "a")], "nobody was told of that so far");
}

#[test]
fn a_closed_pool_refuses_whatever_the_session() {
    let mut fixture = Fixture::running(2);
    fixture.strict("a", 1);
    fixture.strict("a", 2);
    assert_eq!(fixture.tell(Event::Closed), [reject(2, Rejection::Draining)]);
    assert_eq!(fixture.hint("a", 3), [reject(3, Rejection::Draining)]);
    assert_eq!(fixture.end("a", 7), [ends(&[0], "a", SessionEnd::Ended, 7)], "still answered");
    assert_eq!(fixture.end("a", 8), [ends(&[], "a", SessionEnd::Ended, 8)]);
}
