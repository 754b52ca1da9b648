//! Requests without a session: start-up, waiting, deaths, the end.

use super::super::SlotState;
use super::super::status::Totals;
use super::*;

// Start-up

#[test]
fn a_fresh_pool_asks_for_all_workers_at_once() {
    let (fixture, out) = Fixture::start(Config { size: 3, min_ready: 3, ..CONFIG });
    assert_eq!(out, [0, 1, 2].map(|slot| Command::StartSlot { slot }));
    assert_eq!(fixture.core.counts().starting, 3);
}

#[test]
fn the_start_succeeds_once_when_min_ready_workers_are_ready() {
    let (mut fixture, _) = Fixture::start(Config { size: 3, min_ready: 2, ..CONFIG });
    assert_eq!(fixture.ready(2, 1), []);
    assert_eq!(fixture.ready(2, 1), [], "the same worker counts once");
    assert_eq!(fixture.ready(0, 1), [Command::StartupSucceeded]);
    assert_eq!(fixture.ready(1, 1), []);
    assert_eq!(fixture.exited(0, 1), []);
    assert_eq!(fixture.failed(0, 2, "late"), [], "the start is over, this is running");
}

#[test]
fn min_ready_0_succeeds_at_once() {
    let (_, out) = Fixture::start(CONFIG);
    assert_eq!(out.last(), Some(&Command::StartupSucceeded));
    assert_eq!(out.len(), 3);
}

#[test]
fn the_first_failed_start_fails_the_startup_once() {
    let (mut fixture, _) = Fixture::start(Config { size: 3, min_ready: 2, ..CONFIG });
    fixture.ready(0, 1);
    assert_eq!(fixture.failed(1, 1, "no module"), [Command::StartupFailed { cause: "no module" }]);
    assert_eq!(fixture.failed(2, 1, "no module"), []);
    assert_eq!(fixture.ready(1, 2), [], "a failure is not taken back");
}

#[test]
fn an_exit_before_min_ready_fails_the_startup() {
    let (mut fixture, _) = Fixture::start(Config { size: 2, min_ready: 2, ..CONFIG });
    fixture.ready(0, 1);
    assert_eq!(fixture.exited(0, 1), [Command::StartupFailed { cause: "exited" }]);
}

#[test]
fn closing_during_startup_aborts_it() {
    let (mut fixture, _) = Fixture::start(Config { size: 1, min_ready: 1, ..CONFIG });
    assert_eq!(fixture.tell(Event::Closed), [Command::StartupAborted]);
    assert_eq!(fixture.tell(Event::Closed), []);
    assert_eq!(fixture.ready(0, 1), []);
    assert_eq!(fixture.exited(0, 1), []);
}

#[test]
fn requests_wait_while_the_workers_start() {
    let (mut fixture, _) = Fixture::start(CONFIG);
    for request in 1..=3 {
        assert_eq!(fixture.submit(request), []);
    }
    assert_eq!(fixture.ready(1, 1), [assign(1, 1, 1)]);
    assert_eq!(fixture.ready(0, 1), [assign(0, 1, 2)]);
    assert_eq!(fixture.freed(1, 1), [assign(1, 1, 3)]);
}

// Handing out

#[test]
fn an_idle_worker_is_assigned_at_once_and_to_one_request_only() {
    let mut fixture = Fixture::running(2);
    assert_eq!(fixture.submit(1), [assign(0, 1, 1)]);
    assert_eq!(fixture.submit(2), [assign(1, 1, 2)]);
    assert_eq!(fixture.submit(3), []);
    assert_eq!(fixture.core.counts().waiting, 1);
}

#[test]
fn waiters_are_served_in_order_of_arrival_whatever_their_deadlines() {
    let mut fixture = Fixture::running(1);
    fixture.submit(1);
    fixture.submit_for(2, 900);
    fixture.submit_for(3, 300);
    fixture.submit_for(4, 600);
    assert_eq!(fixture.freed(0, 1), [assign(0, 1, 2)]);
    assert_eq!(fixture.freed(0, 1), [assign(0, 1, 3)]);
    assert_eq!(fixture.freed(0, 1), [assign(0, 1, 4)]);
}

#[test]
fn the_most_recently_used_worker_goes_first_and_the_unused_one_last() {
    let mut fixture = Fixture::running(3);
    for request in 1..=3 {
        fixture.submit(request);
    }
    fixture.freed(2, 1);
    fixture.freed(0, 1);
    fixture.exited(1, 1);
    fixture.ready(1, 2);
    assert_eq!(fixture.submit(4), [assign(0, 1, 4)]);
    assert_eq!(fixture.submit(5), [assign(2, 1, 5)]);
    assert_eq!(fixture.submit(6), [assign(1, 2, 6)]);
}

// Waiting: bound, deadline, abandoned

#[test]
fn a_full_queue_refuses_with_the_time_to_come_back() {
    let mut fixture = Fixture::running_with(Config { size: 2, queue_bound: 6, ..CONFIG });
    fixture.submit(1);
    fixture.now += ms(4000);
    fixture.freed(0, 1);
    fixture.submit(2);
    fixture.submit(3);
    for request in 10..16 {
        assert_eq!(fixture.submit(request), []);
    }
    let retry_after = ms(6 * 4000 / 2);
    assert_eq!(
        fixture.submit(16),
        [reject(16, Rejection::Overloaded { cause: QueueBound, queue_len: 6, queue_bytes: 0, retry_after })]
    );
    fixture.exited(0, 1);
    let retry_after = ms(6 * 4000);
    assert_eq!(
        fixture.submit(17),
        [reject(17, Rejection::Overloaded { cause: QueueBound, queue_len: 6, queue_bytes: 0, retry_after })]
    );
    fixture.abandon(12);
    assert_eq!(fixture.submit(18), [], "a place is free again");
}

#[test]
fn bytes_that_wait_are_bounded() {
    let mut fixture = Fixture::running_with(Config { size: 1, queue_bytes: 100, ..CONFIG });
    let full = |queue_len, queue_bytes| Rejection::Overloaded {
        cause: QueueBytes,
        queue_len,
        queue_bytes,
        retry_after: ms(1000),
    };
    assert_eq!(fixture.submit_bytes(1, 500), [assign(0, 1, 1)], "what does not wait is not bounded");
    assert_eq!(fixture.submit_bytes(2, 99), []);
    assert_eq!(fixture.submit_bytes(3, 500), [], "the last one may be larger than the rest");
    assert_eq!(fixture.submit_bytes(4, 0), [reject(4, full(2, 599))]);
    fixture.abandon(3);
    assert_eq!(fixture.submit_bytes(5, 1), [], "there is room again");
    assert_eq!(fixture.submit_bytes(6, 1), [reject(6, full(2, 100))]);
    assert_eq!(fixture.freed(0, 1), [assign(0, 1, 2)]);
    assert_eq!(fixture.submit_bytes(7, 1), []);
}

#[test]
fn announced_request_is_refused_while_the_queue_is_full() {
    let mut fixture = Fixture::running_with(Config { size: 1, queue_bound: 1, queue_bytes: 100, ..CONFIG });
    let admit = |item| Command::Admit { item };
    let full = |queue_bytes| Rejection::Overloaded {
        cause: QueueBound,
        queue_len: 1,
        queue_bytes,
        retry_after: ms(1000),
    };
    assert_eq!(fixture.announce(1), [admit(1)]);
    fixture.submit(2);
    assert_eq!(fixture.announce(3), [admit(3)], "it may wait");
    fixture.submit_bytes(4, 7);
    assert_eq!(fixture.announce(5), [reject(5, full(7))]);
    assert_eq!(fixture.freed(0, 1), [assign(0, 1, 4)]);
    assert_eq!(fixture.announce(6), [admit(6)]);
    assert_eq!(fixture.core.counts().totals.submitted, 3, "an admitted one is counted when it is submitted");
    fixture.tell(Event::Closed);
    assert_eq!(fixture.announce(7), [reject(7, Rejection::Draining)]);
}

#[test]
fn retry_after_is_at_least_a_second() {
    let mut fixture = Fixture::running_with(Config { size: 1, queue_bound: 0, ..CONFIG });
    fixture.submit(1);
    let overloaded =
        Rejection::Overloaded { cause: QueueBound, queue_len: 0, queue_bytes: 0, retry_after: ms(1000) };
    assert_eq!(fixture.submit(2), [reject(2, overloaded)]);
}

#[test]
fn the_mean_run_time_follows_finished_work_only() {
    let mut fixture = Fixture::running(1);
    fixture.submit(1);
    fixture.now += ms(80);
    fixture.freed(0, 1);
    assert_eq!(fixture.core.counts().mean_run, Some(ms(80)));
    fixture.submit(2);
    fixture.now += ms(160);
    fixture.freed(0, 1);
    assert_eq!(fixture.core.counts().mean_run, Some(ms(90)));
    fixture.submit(3);
    fixture.now += ms(9000);
    fixture.exited(0, 1);
    assert_eq!(fixture.core.counts().mean_run, Some(ms(90)));
}

#[test]
fn a_waiter_times_out_at_its_deadline_and_not_before() {
    let mut fixture = Fixture::running(1);
    fixture.submit(1);
    fixture.submit_for(2, 100);
    fixture.submit_for(3, 50);
    assert_eq!(fixture.core.next_deadline(), Some(fixture.now + ms(50)));
    assert_eq!(fixture.tick_after(49), []);
    assert_eq!(fixture.tick_after(1), [reject(3, Rejection::TimedOut)]);
    assert_eq!(fixture.core.next_deadline(), Some(fixture.now + ms(50)));
    assert_eq!(fixture.tick_after(50), [reject(2, Rejection::TimedOut)]);
    assert_eq!(fixture.core.next_deadline(), None);
}

#[test]
fn a_request_past_its_deadline_times_out_at_once() {
    let mut fixture = Fixture::running(1);
    assert_eq!(fixture.submit_for(1, 0), [reject(1, Rejection::TimedOut)]);
    assert_eq!(fixture.core.counts().idle, 1);
}

#[test]
fn nobody_is_assigned_at_the_deadline_even_when_the_tick_is_late() {
    let mut fixture = Fixture::running(1);
    fixture.submit(1);
    fixture.submit_for(2, 100);
    fixture.submit_for(3, 101);
    fixture.now += ms(100);
    assert_eq!(fixture.freed(0, 1), [reject(2, Rejection::TimedOut), assign(0, 1, 3)]);
}

#[test]
fn an_abandoned_waiter_leaves_without_a_word() {
    let mut fixture = Fixture::running(1);
    fixture.submit(1);
    fixture.submit(2);
    fixture.submit(3);
    assert_eq!(fixture.abandon(2), []);
    assert_eq!(fixture.abandon(2), [], "twice");
    assert_eq!(fixture.abandon(1), [], "it is running");
    assert_eq!(fixture.abandon(99), [], "unknown");
    assert_eq!(fixture.freed(0, 1), [assign(0, 1, 3)]);
    assert_eq!(fixture.core.counts().totals.abandoned, 1);
}

// Deaths, and the regime of a pool whose workers cannot start

#[test]
fn requests_wait_for_the_replacement_of_a_dead_worker() {
    let mut fixture = Fixture::running(1);
    fixture.submit(1);
    assert_eq!(fixture.exited(0, 1), []);
    assert_eq!(fixture.states(), [SlotState::Down { cause: "exited" }]);
    assert_eq!(fixture.submit(2), []);
    assert_eq!(fixture.ready(0, 2), [assign(0, 2, 2)]);
}

#[test]
fn the_last_slot_to_fail_sends_everybody_away() {
    let (mut fixture, _) = Fixture::start(CONFIG);
    fixture.submit(1);
    fixture.submit(2);
    assert_eq!(fixture.failed(0, 1, "first"), []);
    assert_eq!(fixture.submit(3), [], "slot 1 has not ended its first start");
    let second = Rejection::Unavailable { cause: "second" };
    assert_eq!(fixture.failed(1, 1, "second"), [1, 2, 3].map(|request| reject(request, second.clone())));
    assert_eq!(fixture.submit(4), [reject(4, second)]);
    fixture.failed(0, 2, "third");
    assert_eq!(fixture.submit(5), [reject(5, Rejection::Unavailable { cause: "third" })]);
}

#[test]
fn one_ready_worker_makes_a_failed_pool_normal_again() {
    let (mut fixture, _) = Fixture::start(CONFIG);
    fixture.failed(0, 1, "broken");
    fixture.failed(1, 1, "broken");
    assert_eq!(fixture.ready(1, 2), []);
    assert_eq!(fixture.submit(1), [assign(1, 2, 1)]);
    assert_eq!(fixture.submit(2), []);
    fixture.exited(1, 2);
    assert_eq!(fixture.submit(3), [], "slot 1 was ready, its restart is pending");
    let gone = Rejection::Unavailable { cause: "gone" };
    assert_eq!(fixture.failed(1, 3, "gone"), [2, 3].map(|request| reject(request, gone.clone())));
}

#[test]
fn a_worker_that_was_ready_unheard_ends_the_unavailability_by_its_exit() {
    let (mut fixture, _) = Fixture::start(Config { size: 1, ..CONFIG });
    fixture.failed(0, 1, "broken");
    assert_eq!(fixture.exited(0, 2), []);
    assert_eq!(fixture.submit(1), [], "the last start did not fail");
    assert_eq!(fixture.ready(0, 3), [assign(0, 3, 1)]);
}

// Stale events

#[test]
fn events_of_an_old_incarnation_are_ignored() {
    let mut fixture = Fixture::running(1);
    fixture.exited(0, 1);
    fixture.ready(0, 2);
    fixture.submit(1);
    fixture.submit(2);
    assert_eq!(fixture.freed(0, 1), []);
    assert_eq!(fixture.exited(0, 1), []);
    assert_eq!(fixture.ready(0, 1), []);
    assert_eq!(fixture.failed(0, 1, "old"), []);
    assert_eq!(fixture.failed(0, 2, "its own start is over"), []);
    assert_eq!(fixture.states(), [SlotState::Busy(Load::Calls(1))]);
    assert_eq!(fixture.freed(0, 2), [assign(0, 2, 2)]);
}

#[test]
fn events_of_a_slot_that_is_not_ours_are_ignored() {
    let mut fixture = Fixture::running(1);
    for out in [fixture.ready(7, 1), fixture.freed(7, 1), fixture.exited(7, 1), fixture.failed(7, 1, "lost")]
    {
        assert_eq!(out, []);
    }
    assert_eq!(fixture.core.counts().idle, 1);
}

#[test]
fn a_new_incarnation_replaces_one_whose_exit_was_not_heard() {
    let mut fixture = Fixture::running(1);
    fixture.submit(1);
    fixture.submit(2);
    assert_eq!(fixture.ready(0, 2), [assign(0, 2, 2)]);
    assert_eq!(fixture.exited(0, 1), []);
    fixture.freed(0, 2);
    fixture.ready(0, 3);
    assert_eq!(fixture.submit(3), [assign(0, 3, 3)]);
    assert_eq!(fixture.submit(4), [], "incarnation 2 is not handed out any more");
}

#[test]
fn a_worker_whose_exit_is_heard_first_is_never_handed_out() {
    let (mut fixture, _) = Fixture::start(Config { size: 1, ..CONFIG });
    fixture.submit(1);
    assert_eq!(fixture.exited(0, 1), []);
    assert_eq!(fixture.ready(0, 1), []);
    assert_eq!(fixture.ready(0, 2), [assign(0, 2, 1)]);
}

// The end, and the numbers

#[test]
fn a_closed_pool_sends_everybody_away() {
    let mut fixture = Fixture::running(1);
    for request in 1..=3 {
        fixture.submit(request);
    }
    assert_eq!(fixture.tell(Event::Closed), [2, 3].map(|request| reject(request, Rejection::Draining)));
    assert_eq!(fixture.freed(0, 1), []);
    assert_eq!(fixture.submit(4), [reject(4, Rejection::Draining)]);
    assert_eq!(fixture.core.next_deadline(), None);
}

#[test]
fn the_counts_tell_what_became_of_every_request() {
    let mut fixture = Fixture::running_with(Config { size: 3, queue_bound: 3, ..CONFIG });
    fixture.exited(2, 1);
    for request in 1..=6 {
        fixture.submit_for(request, request * 10);
    }
    fixture.abandon(4);
    fixture.tick_after(30);
    fixture.failed(2, 2, "broken");
    let totals =
        Totals { submitted: 6, assigned: 2, overloaded: 1, timed_out: 1, abandoned: 1, ..Totals::default() };
    let counts = fixture.core.counts();
    assert_eq!((counts.size, counts.ready(), counts.busy, counts.failed), (3, 2, 2, 1));
    assert_eq!((counts.waiting, counts.closed, counts.totals), (1, false, totals));
    let slots: Vec<_> = fixture.core.slots().map(|slot| (slot.slot, slot.worker)).collect();
    assert_eq!(slots, [(0, Some(worker(0, 1))), (1, Some(worker(1, 1))), (2, Some(worker(2, 2)))]);
    assert_eq!(fixture.core.slots().last().map(|slot| slot.since), Some(fixture.now));
}
