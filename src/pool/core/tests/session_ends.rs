//! How a session ends, and what becomes of those who use it then.

use super::super::status::Totals;
use super::*;
use Placement::{Elsewhere, Kept, New};
use SessionEnd::{Ended, Evicted, Expired};

// Deaths

#[test]
fn the_next_use_of_a_session_whose_worker_died_hears_of_it_once() {
    for affinity in [Affinity::Hint, Affinity::StrictQueue, Affinity::StrictFailFast] {
        let mut rig = Rig::running(2);
        rig.hint("a", 1);
        rig.freed(0, 1);
        assert_eq!(rig.exited(0, 1), []);
        assert_eq!(rig.core.counts().sessions, 0);
        assert_eq!(rig.with(affinity, "a", 2), [lost(2, "a")], "{affinity:?}");
        assert_eq!(rig.with(affinity, "a", 3), [placed(1, 1, 3, New)], "{affinity:?}");
        let totals = Totals { submitted: 3, assigned: 2, session_lost: 1, ..Totals::default() };
        assert_eq!(rig.core.counts().totals, totals);
    }
}

#[test]
fn the_loss_is_told_whatever_became_of_the_call_that_ran() {
    let mut rig = Rig::running(2);
    rig.strict("a", 1);
    assert_eq!(rig.exited(0, 1), []);
    assert_eq!(rig.strict("a", 2), [lost(2, "a")]);
}

#[test]
fn a_death_sends_away_all_who_wait_for_its_sessions_and_no_others() {
    let mut rig = Rig::running(2);
    rig.hint("a", 1);
    rig.hint("b", 2);
    rig.submit(3);
    rig.strict("a", 4);
    rig.strict("b", 5);
    rig.hint("a", 6);
    rig.strict("a", 7);
    assert_eq!(rig.exited(0, 1), [lost(4, "a"), lost(6, "a"), lost(7, "a")]);
    assert_eq!(rig.strict("a", 8), [], "they have heard: the next one begins anew");
    assert_eq!(rig.ready(0, 2), [assign(0, 2, 3)]);
    assert_eq!(rig.freed(0, 2), [placed(0, 2, 8, New)]);
    assert_eq!(rig.freed(1, 1), [placed(1, 1, 5, Kept)]);
}

#[test]
fn a_death_that_nobody_heard_counts_when_the_next_incarnation_comes() {
    let mut rig = Rig::running(1);
    rig.strict("a", 1);
    rig.strict("a", 2);
    rig.submit(3);
    assert_eq!(rig.ready(0, 2), [lost(2, "a"), assign(0, 2, 3)]);
    assert_eq!(rig.freed(0, 1), [], "the call of the dead one");

    rig.freed(0, 2);
    rig.strict("b", 4);
    rig.strict("b", 5);
    rig.strict("c", 6);
    let gone = Rejection::Unavailable { cause: "gone" };
    assert_eq!(rig.failed(0, 3, "gone"), [lost(5, "b"), reject(6, gone)]);
}

#[test]
fn the_death_of_a_worker_that_only_helped_out_is_no_loss() {
    let mut rig = Rig::running(3);
    rig.hint("a", 1);
    assert_eq!(rig.hint("a", 2), [placed(1, 1, 2, Elsewhere)]);
    assert_eq!(rig.hint("a", 3), [placed(2, 1, 3, Elsewhere)]);
    rig.exited(2, 1);
    rig.freed(0, 1);
    assert_eq!(rig.hint("a", 4), [placed(0, 1, 4, Kept)]);
    assert_eq!(rig.end("a", 9), [ends(&[0, 1], "a", Ended, 9)]);
}

#[test]
fn the_places_of_a_lost_session_are_told_before_it_begins_anew() {
    let mut rig = Rig::running(2);
    rig.hint("a", 1);
    rig.hint("a", 2);
    rig.exited(0, 1);
    assert_eq!(rig.hint("a", 3), [ends(&[1], "a", Ended, None), lost(3, "a")]);
    assert_eq!(rig.freed(1, 1), []);
    assert_eq!(rig.hint("a", 4), [placed(1, 1, 4, New)]);

    let mut rig = Rig::running(2);
    rig.hint("a", 1);
    rig.hint("a", 2);
    rig.strict("a", 3);
    assert_eq!(rig.exited(0, 1), [ends(&[1], "a", Ended, None), lost(3, "a")]);
}

#[test]
fn loss_is_told_until_a_caller_has_heard_it() {
    let mut rig = Rig::running(2);
    rig.callers_listen = false;
    rig.strict("a", 1);
    rig.strict("a", 2);
    assert_eq!(rig.exited(0, 1), [lost(2, "a")]);
    rig.abandon(2);
    assert_eq!(rig.hint("a", 3), [lost(3, "a")], "the only caller that was told has left");
    assert_eq!(rig.hint("a", 4), [lost(4, "a")], "the answer to 3 is still on its way");
    rig.abandon(3);
    rig.tell(Event::LossHeard { request: RequestId(4) });
    assert_eq!(rig.hint("a", 5), [placed(1, 1, 5, New)]);
}

#[test]
fn a_late_word_that_a_loss_was_heard_ends_no_new_session() {
    let mut rig = Rig::running(2);
    rig.callers_listen = false;
    rig.hint("a", 1);
    rig.exited(0, 1);
    assert_eq!([rig.hint("a", 2), rig.hint("a", 3)], [[lost(2, "a")], [lost(3, "a")]]);
    rig.tell(Event::LossHeard { request: RequestId(2) });
    assert_eq!(rig.hint("a", 4), [placed(1, 1, 4, New)]);
    rig.tell(Event::LossHeard { request: RequestId(3) });
    rig.freed(1, 1);
    assert_eq!(rig.hint("a", 5), [placed(1, 1, 5, Kept)]);
}

// The explicit end

#[test]
fn an_end_tells_every_place_and_the_next_use_begins_anew() {
    let mut rig = Rig::running(2);
    rig.hint("a", 1);
    rig.hint("a", 2);
    assert_eq!(rig.end("a", 9), [ends(&[0, 1], "a", Ended, 9)], "the calls go on");
    assert_eq!((rig.core.counts().sessions, rig.core.counts().busy), (0, 2));
    rig.hint("a", 3);
    assert_eq!(rig.freed(0, 1), [placed(0, 1, 3, New)]);
    assert_eq!(rig.freed(1, 1), [], "the end of an old call is nothing to the new session");
    rig.freed(0, 1);
    assert_eq!(rig.end("a", 10), [ends(&[0], "a", Ended, 10)]);
}

#[test]
fn the_causes_are_called_as_on_the_wire() {
    assert_eq!([Ended, Expired, Evicted].map(SessionEnd::as_str), ["ended", "expired", "evicted"]);
}

#[test]
fn an_unknown_session_has_ended_already() {
    let mut rig = Rig::running(2);
    assert_eq!(rig.end("a", 9), [ends(&[], "a", Ended, 9)]);
}

#[test]
fn an_end_takes_the_mark_of_a_lost_session_away() {
    let mut rig = Rig::running(2);
    rig.hint("a", 1);
    rig.exited(0, 1);
    assert_eq!(rig.end("a", 9), [ends(&[], "a", Ended, 9)]);
    assert_eq!(rig.hint("a", 2), [placed(1, 1, 2, New)]);
}

#[test]
fn whoever_waits_when_a_session_is_ended_begins_it_anew() {
    let mut rig = Rig::running(3);
    rig.strict("a", 1);
    rig.strict("a", 2);
    rig.strict("a", 3);
    assert_eq!(rig.end("a", 9), [ends(&[0], "a", Ended, 9), placed(1, 1, 2, New)]);
    assert_eq!(rig.freed(0, 1), [], "3 is bound to where 2 runs");
    assert_eq!(rig.freed(1, 1), [placed(1, 1, 3, Kept)]);
}

#[test]
fn whoever_waits_when_a_session_is_ended_keeps_its_place_in_the_line() {
    let mut rig = Rig::running(2);
    rig.strict("a", 1);
    rig.submit(2);
    rig.strict("a", 3);
    rig.submit(4);
    rig.end("a", 9);
    assert_eq!(rig.freed(1, 1), [placed(1, 1, 3, New)]);
    assert_eq!(rig.freed(0, 1), [assign(0, 1, 4)]);
}

// Time to live

const SHORT: Config = Config { session_ttl: Duration::from_millis(100), ..CONFIG };

#[test]
fn a_session_expires_when_it_was_not_used_for_its_time() {
    let mut rig = Rig::running_with(SHORT);
    rig.hint("a", 1);
    assert_eq!(rig.core.next_deadline(), None, "it is in use");
    assert_eq!(rig.tick_after(1000), []);
    rig.freed(0, 1);
    assert_eq!(rig.core.next_deadline(), Some(rig.now + ms(100)));
    rig.tick_after(60);
    rig.hint("a", 2);
    rig.freed(0, 1);
    assert_eq!(rig.tick_after(99), []);
    assert_eq!(rig.tick_after(1), [ends(&[0], "a", Expired, None)]);
    assert_eq!((rig.core.next_deadline(), rig.core.counts().sessions), (None, 0));
    assert_eq!(rig.hint("a", 3), [placed(0, 1, 3, New)]);
}

#[test]
fn an_expired_session_is_not_used_again_even_when_the_tick_is_late() {
    let mut rig = Rig::running_with(SHORT);
    rig.strict("a", 1);
    rig.freed(0, 1);
    rig.now += ms(100);
    assert_eq!(rig.strict("a", 2), [ends(&[0], "a", Expired, None), placed(0, 1, 2, New)]);
}

#[test]
fn a_session_that_somebody_waits_for_does_not_expire() {
    let mut rig = Rig::running_with(SHORT);
    rig.strict("a", 1);
    rig.freed(0, 1);
    rig.submit(2);
    rig.strict("a", 3);
    assert_eq!(rig.tick_after(4999), []);
    assert_eq!(rig.abandon(3), []);
    assert_eq!(rig.tick_after(99), [], "one that waited has used it");
    assert_eq!(rig.tick_after(1), [ends(&[0], "a", Expired, None)]);
}

#[test]
fn the_mark_of_a_lost_session_expires_too() {
    let mut rig = Rig::running_with(SHORT);
    rig.hint("a", 1);
    rig.hint("b", 2);
    rig.hint("b", 3);
    rig.exited(1, 1);
    rig.exited(0, 1);
    assert_eq!(rig.core.next_deadline(), Some(rig.now + ms(100)));
    assert_eq!(rig.tick_after(100), []);
    assert_eq!(rig.core.next_deadline(), None);
    rig.ready(0, 2);
    assert_eq!(rig.hint("a", 4), [placed(0, 2, 4, New)]);
}

#[test]
fn a_time_to_live_beyond_the_clock_is_for_ever() {
    let mut rig = Rig::running_with(Config { session_ttl: Duration::MAX, ..CONFIG });
    rig.hint("a", 1);
    rig.freed(0, 1);
    assert_eq!(rig.core.next_deadline(), None);
    assert_eq!(rig.tick_after(1_000_000_000), []);
}

// The maximum

#[test]
fn the_session_not_used_for_longest_makes_room_for_a_new_one() {
    let mut rig = Rig::running_with(Config { max_sessions: 2, ..CONFIG });
    rig.hint("a", 1);
    rig.hint("b", 2);
    rig.freed(1, 1);
    rig.freed(0, 1);
    assert_eq!(rig.hint("c", 3), [ends(&[1], "b", Evicted, None), placed(0, 1, 3, New)]);
    assert_eq!(rig.hint("d", 4), [ends(&[0], "a", Evicted, None), placed(1, 1, 4, New)]);
    assert_eq!(rig.core.counts().sessions, 2);
}

#[test]
fn a_new_session_is_refused_while_all_others_are_in_use() {
    let mut rig = Rig::running_with(Config { size: 3, max_sessions: 2, ..CONFIG });
    rig.hint("a", 1);
    rig.strict("b", 2);
    rig.strict("b", 3);
    rig.freed(1, 1);
    let overloaded =
        Rejection::Overloaded { cause: MaxSessions, queue_len: 0, queue_bytes: 0, retry_after: ms(1000) };
    assert_eq!(rig.hint("c", 4), [reject(4, overloaded)], "though two workers idle");
    rig.freed(1, 1);
    assert_eq!(rig.hint("c", 5), [ends(&[1], "b", Evicted, None), placed(1, 1, 5, New)]);
}

#[test]
fn nobody_is_evicted_for_a_request_that_is_refused() {
    let mut rig = Rig::running_with(Config { size: 1, max_sessions: 1, queue_bound: 0, ..CONFIG });
    rig.hint("a", 1);
    rig.freed(0, 1);
    rig.submit(2);
    let overloaded =
        Rejection::Overloaded { cause: QueueBound, queue_len: 0, queue_bytes: 0, retry_after: ms(1000) };
    assert_eq!(rig.hint("b", 3), [reject(3, overloaded)]);
    rig.freed(0, 1);
    assert_eq!(rig.hint("a", 4), [placed(0, 1, 4, Kept)]);
}

#[test]
fn a_lost_session_counts_until_it_is_forgotten() {
    let mut rig = Rig::running_with(Config { max_sessions: 1, ..CONFIG });
    rig.hint("a", 1);
    rig.exited(0, 1);
    assert_eq!(rig.hint("b", 2), [placed(1, 1, 2, New)], "the mark made room");
    rig.ready(0, 2);
    rig.freed(1, 1);
    assert_eq!(rig.hint("a", 3), [ends(&[1], "b", Evicted, None), placed(1, 1, 3, New)]);
}
