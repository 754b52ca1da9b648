//! How a session ends, and what becomes of those who use it then.

use super::super::status::Totals;
use super::*;
use Placement::{Elsewhere, Kept, New};
use SessionEnd::{Ended, Evicted, Expired};

// Deaths

#[test]
fn the_next_use_of_a_session_whose_worker_died_hears_of_it_once() {
    for affinity in [Affinity::Hint, Affinity::StrictQueue, Affinity::StrictFailFast] {
        let mut fixture = Fixture::running(2);
        fixture.hint("a", 1);
        fixture.freed(0, 1);
        assert_eq!(fixture.exited(0, 1), []);
        assert_eq!(fixture.core.counts().sessions, 0);
        assert_eq!(fixture.with(affinity, "a", 2), [lost(2, "a")], "{affinity:?}");
        assert_eq!(fixture.with(affinity, "a", 3), [placed(1, 1, 3, New)], "{affinity:?}");
        let totals = Totals { submitted: 3, assigned: 2, session_lost: 1, ..Totals::default() };
        assert_eq!(fixture.core.counts().totals, totals);
    }
}

#[test]
fn the_loss_is_told_whatever_became_of_the_call_that_ran() {
    let mut fixture = Fixture::running(2);
    fixture.strict("a", 1);
    assert_eq!(fixture.exited(0, 1), []);
    assert_eq!(fixture.strict("a", 2), [lost(2, "a")]);
}

#[test]
fn a_death_sends_away_all_who_wait_for_its_sessions_and_no_others() {
    let mut fixture = Fixture::running(2);
    fixture.hint("a", 1);
    fixture.hint("b", 2);
    fixture.submit(3);
    fixture.strict("a", 4);
    fixture.strict("b", 5);
    fixture.hint("a", 6);
    fixture.strict("a", 7);
    assert_eq!(fixture.exited(0, 1), [lost(4, "a"), lost(6, "a"), lost(7, "a")]);
    assert_eq!(fixture.strict("a", 8), [], "they have heard: the next one begins anew");
    assert_eq!(fixture.ready(0, 2), [assign(0, 2, 3)]);
    assert_eq!(fixture.freed(0, 2), [placed(0, 2, 8, New)]);
    assert_eq!(fixture.freed(1, 1), [placed(1, 1, 5, Kept)]);
}

#[test]
fn a_death_that_nobody_heard_counts_when_the_next_incarnation_comes() {
    let mut fixture = Fixture::running(1);
    fixture.strict("a", 1);
    fixture.strict("a", 2);
    fixture.submit(3);
    assert_eq!(fixture.ready(0, 2), [lost(2, "a"), assign(0, 2, 3)]);
    assert_eq!(fixture.freed(0, 1), [], "the call of the dead one");

    fixture.freed(0, 2);
    fixture.strict("b", 4);
    fixture.strict("b", 5);
    fixture.strict("c", 6);
    let gone = Rejection::Unavailable { cause: "gone" };
    assert_eq!(fixture.failed(0, 3, "gone"), [lost(5, "b"), reject(6, gone)]);
}

#[test]
fn the_death_of_a_worker_that_only_helped_out_is_no_loss() {
    let mut fixture = Fixture::running(3);
    fixture.hint("a", 1);
    assert_eq!(fixture.hint("a", 2), [placed(1, 1, 2, Elsewhere)]);
    assert_eq!(fixture.hint("a", 3), [placed(2, 1, 3, Elsewhere)]);
    fixture.exited(2, 1);
    fixture.freed(0, 1);
    assert_eq!(fixture.hint("a", 4), [placed(0, 1, 4, Kept)]);
    assert_eq!(fixture.end("a", 9), [ends(&[0, 1], "a", Ended, 9)]);
}

#[test]
fn the_places_of_a_lost_session_are_told_before_it_begins_anew() {
    let mut fixture = Fixture::running(2);
    fixture.hint("a", 1);
    fixture.hint("a", 2);
    fixture.exited(0, 1);
    assert_eq!(fixture.hint("a", 3), [ends(&[1], "a", Ended, None), lost(3, "a")]);
    assert_eq!(fixture.freed(1, 1), []);
    assert_eq!(fixture.hint("a", 4), [placed(1, 1, 4, New)]);

    let mut fixture = Fixture::running(2);
    fixture.hint("a", 1);
    fixture.hint("a", 2);
    fixture.strict("a", 3);
    assert_eq!(fixture.exited(0, 1), [ends(&[1], "a", Ended, None), lost(3, "a")]);
}

#[test]
fn loss_is_told_until_a_caller_has_heard_it() {
    let mut fixture = Fixture::running(2);
    fixture.callers_listen = false;
    fixture.strict("a", 1);
    fixture.strict("a", 2);
    assert_eq!(fixture.exited(0, 1), [lost(2, "a")]);
    fixture.abandon(2);
    assert_eq!(fixture.hint("a", 3), [lost(3, "a")], "the only caller that was told has left");
    assert_eq!(fixture.hint("a", 4), [lost(4, "a")], "the answer to 3 is still on its way");
    fixture.abandon(3);
    fixture.tell(Event::LossHeard { request: RequestId(4) });
    assert_eq!(fixture.hint("a", 5), [placed(1, 1, 5, New)]);
}

#[test]
fn a_late_word_that_a_loss_was_heard_ends_no_new_session() {
    let mut fixture = Fixture::running(2);
    fixture.callers_listen = false;
    fixture.hint("a", 1);
    fixture.exited(0, 1);
    assert_eq!([fixture.hint("a", 2), fixture.hint("a", 3)], [[lost(2, "a")], [lost(3, "a")]]);
    fixture.tell(Event::LossHeard { request: RequestId(2) });
    assert_eq!(fixture.hint("a", 4), [placed(1, 1, 4, New)]);
    fixture.tell(Event::LossHeard { request: RequestId(3) });
    fixture.freed(1, 1);
    assert_eq!(fixture.hint("a", 5), [placed(1, 1, 5, Kept)]);
}

// The explicit end

#[test]
fn an_end_tells_every_place_and_the_next_use_begins_anew() {
    let mut fixture = Fixture::running(2);
    fixture.hint("a", 1);
    fixture.hint("a", 2);
    assert_eq!(fixture.end("a", 9), [ends(&[0, 1], "a", Ended, 9)], "the calls go on");
    assert_eq!((fixture.core.counts().sessions, fixture.core.counts().busy), (0, 2));
    fixture.hint("a", 3);
    assert_eq!(fixture.freed(0, 1), [placed(0, 1, 3, New)]);
    assert_eq!(fixture.freed(1, 1), [], "the end of an old call is nothing to the new session");
    fixture.freed(0, 1);
    assert_eq!(fixture.end("a", 10), [ends(&[0], "a", Ended, 10)]);
}

#[test]
fn the_causes_are_called_as_on_the_wire() {
    assert_eq!([Ended, Expired, Evicted].map(SessionEnd::as_str), ["ended", "expired", "evicted"]);
}

#[test]
fn an_unknown_session_has_ended_already() {
    let mut fixture = Fixture::running(2);
    assert_eq!(fixture.end("a", 9), [ends(&[], "a", Ended, 9)]);
}

#[test]
fn an_end_takes_the_mark_of_a_lost_session_away() {
    let mut fixture = Fixture::running(2);
    fixture.hint("a", 1);
    fixture.exited(0, 1);
    assert_eq!(fixture.end("a", 9), [ends(&[], "a", Ended, 9)]);
    assert_eq!(fixture.hint("a", 2), [placed(1, 1, 2, New)]);
}

#[test]
fn whoever_waits_when_a_session_is_ended_begins_it_anew() {
    let mut fixture = Fixture::running(3);
    fixture.strict("a", 1);
    fixture.strict("a", 2);
    fixture.strict("a", 3);
    assert_eq!(fixture.end("a", 9), [ends(&[0], "a", Ended, 9), placed(1, 1, 2, New)]);
    assert_eq!(fixture.freed(0, 1), [], "3 is bound to where 2 runs");
    assert_eq!(fixture.freed(1, 1), [placed(1, 1, 3, Kept)]);
}

#[test]
fn whoever_waits_when_a_session_is_ended_keeps_its_place_in_the_line() {
    let mut fixture = Fixture::running(2);
    fixture.strict("a", 1);
    fixture.submit(2);
    fixture.strict("a", 3);
    fixture.submit(4);
    fixture.end("a", 9);
    assert_eq!(fixture.freed(1, 1), [placed(1, 1, 3, New)]);
    assert_eq!(fixture.freed(0, 1), [assign(0, 1, 4)]);
}

// Time to live

const SHORT: Config = Config { session_ttl: Duration::from_millis(100), ..CONFIG };

#[test]
fn a_session_expires_when_it_was_not_used_for_its_time() {
    let mut fixture = Fixture::running_with(SHORT);
    fixture.hint("a", 1);
    assert_eq!(fixture.core.next_deadline(), None, "it is in use");
    assert_eq!(fixture.tick_after(1000), []);
    fixture.freed(0, 1);
    assert_eq!(fixture.core.next_deadline(), Some(fixture.now + ms(100)));
    fixture.tick_after(60);
    fixture.hint("a", 2);
    fixture.freed(0, 1);
    assert_eq!(fixture.tick_after(99), []);
    assert_eq!(fixture.tick_after(1), [ends(&[0], "a", Expired, None)]);
    assert_eq!((fixture.core.next_deadline(), fixture.core.counts().sessions), (None, 0));
    assert_eq!(fixture.hint("a", 3), [placed(0, 1, 3, New)]);
}

#[test]
fn an_expired_session_is_not_used_again_even_when_the_tick_is_late() {
    let mut fixture = Fixture::running_with(SHORT);
    fixture.strict("a", 1);
    fixture.freed(0, 1);
    fixture.now += ms(100);
    assert_eq!(fixture.strict("a", 2), [ends(&[0], "a", Expired, None), placed(0, 1, 2, New)]);
}

#[test]
fn a_session_that_somebody_waits_for_does_not_expire() {
    let mut fixture = Fixture::running_with(SHORT);
    fixture.strict("a", 1);
    fixture.freed(0, 1);
    fixture.submit(2);
    fixture.strict("a", 3);
    assert_eq!(fixture.tick_after(4999), []);
    assert_eq!(fixture.abandon(3), []);
    assert_eq!(fixture.tick_after(99), [], "one that waited has used it");
    assert_eq!(fixture.tick_after(1), [ends(&[0], "a", Expired, None)]);
}

#[test]
fn the_mark_of_a_lost_session_expires_too() {
    let mut fixture = Fixture::running_with(SHORT);
    fixture.hint("a", 1);
    fixture.hint("b", 2);
    fixture.hint("b", 3);
    fixture.exited(1, 1);
    fixture.exited(0, 1);
    assert_eq!(fixture.core.next_deadline(), Some(fixture.now + ms(100)));
    assert_eq!(fixture.tick_after(100), []);
    assert_eq!(fixture.core.next_deadline(), None);
    fixture.ready(0, 2);
    assert_eq!(fixture.hint("a", 4), [placed(0, 2, 4, New)]);
}

#[test]
fn a_time_to_live_beyond_the_clock_is_for_ever() {
    let mut fixture = Fixture::running_with(Config { session_ttl: Duration::MAX, ..CONFIG });
    fixture.hint("a", 1);
    fixture.freed(0, 1);
    assert_eq!(fixture.core.next_deadline(), None);
    assert_eq!(fixture.tick_after(1_000_000_000), []);
}

// The maximum

#[test]
fn the_session_not_used_for_longest_makes_room_for_a_new_one() {
    let mut fixture = Fixture::running_with(Config { max_sessions: 2, ..CONFIG });
    fixture.hint("a", 1);
    fixture.hint("b", 2);
    fixture.freed(1, 1);
    fixture.freed(0, 1);
    assert_eq!(fixture.hint("c", 3), [ends(&[1], "b", Evicted, None), placed(0, 1, 3, New)]);
    assert_eq!(fixture.hint("d", 4), [ends(&[0], "a", Evicted, None), placed(1, 1, 4, New)]);
    assert_eq!(fixture.core.counts().sessions, 2);
}

#[test]
fn a_new_session_is_refused_while_all_others_are_in_use() {
    let mut fixture = Fixture::running_with(Config { size: 3, max_sessions: 2, ..CONFIG });
    fixture.hint("a", 1);
    fixture.strict("b", 2);
    fixture.strict("b", 3);
    fixture.freed(1, 1);
    let overloaded =
        Rejection::Overloaded { cause: MaxSessions, queue_len: 0, queue_bytes: 0, retry_after: ms(1000) };
    assert_eq!(fixture.hint("c", 4), [reject(4, overloaded)], "though two workers idle");
    fixture.freed(1, 1);
    assert_eq!(fixture.hint("c", 5), [ends(&[1], "b", Evicted, None), placed(1, 1, 5, New)]);
}

#[test]
fn nobody_is_evicted_for_a_request_that_is_refused() {
    let mut fixture = Fixture::running_with(Config { size: 1, max_sessions: 1, queue_bound: 0, ..CONFIG });
    fixture.hint("a", 1);
    fixture.freed(0, 1);
    fixture.submit(2);
    let overloaded =
        Rejection::Overloaded { cause: QueueBound, queue_len: 0, queue_bytes: 0, retry_after: ms(1000) };
    assert_eq!(fixture.hint("b", 3), [reject(3, overloaded)]);
    fixture.freed(0, 1);
    assert_eq!(fixture.hint("a", 4), [placed(0, 1, 4, Kept)]);
}

#[test]
fn a_lost_session_counts_until_it_is_forgotten() {
    let mut fixture = Fixture::running_with(Config { max_sessions: 1, ..CONFIG });
    fixture.hint("a", 1);
    fixture.exited(0, 1);
    assert_eq!(fixture.hint("b", 2), [placed(1, 1, 2, New)], "the mark made room");
    fixture.ready(0, 2);
    fixture.freed(1, 1);
    assert_eq!(fixture.hint("a", 3), [ends(&[1], "b", Evicted, None), placed(1, 1, 3, New)]);
}
