//! Successors: what is heard of the former worker, and of those that its supervisor starts in its place, beside them.

use super::*;

/// The worker that a reload started in place of slot 0's.
fn successor(generation: u32, incarnation: u64) -> WorkerId {
    WorkerId { slot: 0, generation, incarnation }
}

impl Fixture {
    fn succeeds(&mut self, worker: WorkerId) -> Out {
        self.tell(Event::WorkerReady { worker })
    }

    fn newest(&self) -> Option<WorkerId> {
        self.core.slots().next().and_then(|slot| slot.worker)
    }

    /// The present worker of slot 0 is this one, and serves.
    #[track_caller]
    fn assert_served_by(&mut self, expected: WorkerId, request: u64) {
        assert_eq!(self.newest(), Some(expected));
        let item = request;
        let request = RequestId(request);
        let assigned = Command::Assign { worker: expected, request, item, placement: None };
        assert_eq!(self.submit(item), [assigned]);
        self.tell(Event::WorkerFreed { worker: expected, request });
        assert_eq!(self.states(), [SlotState::Idle]);
    }
}

#[test]
fn a_successor_takes_over_from_a_worker_that_was_started_after_it() {
    let mut fixture = Fixture::running(1);
    // Incarnation 2 is the successor's, which is not ready yet.
    fixture.exited(0, 1);
    fixture.ready(0, 3);
    fixture.assert_served_by(worker(0, 3), 1);
    fixture.succeeds(successor(1, 2));
    fixture.assert_served_by(successor(1, 2), 2);
    assert_eq!(fixture.exited(0, 3), []);
    assert_eq!(fixture.states(), [SlotState::Idle], "that was the former one");
    fixture.assert_served_by(successor(1, 2), 3);
}

#[test]
fn a_successor_takes_over_from_a_start_that_failed_after_its_own() {
    let mut fixture = Fixture::running(1);
    fixture.exited(0, 1);
    fixture.failed(0, 3, "broken");
    assert_eq!(fixture.submit(1), [reject(1, Rejection::Unavailable { cause: "broken" })]);
    fixture.succeeds(successor(1, 2));
    fixture.assert_served_by(successor(1, 2), 2);
}

#[test]
fn whatever_comes_of_a_former_worker_is_over() {
    let mut fixture = Fixture::running_several(1, 2);
    assert_eq!(fixture.submit(1), [assign(0, 1, 1)]);
    fixture.succeeds(successor(1, 2));
    // It still serves, leaves, ends, and is started again.
    fixture.leaving(0, 1);
    fixture.freed(0, 1);
    fixture.exited(0, 1);
    fixture.failed(0, 3, "broken");
    fixture.ready(0, 4);
    fixture.freed(0, 4);
    fixture.leaving(0, 5);
    assert_eq!(fixture.states(), [SlotState::Idle]);
    fixture.assert_served_by(successor(1, 2), 2);
}

#[test]
fn a_former_worker_that_is_restarted_serves_on_when_its_successor_never_comes() {
    let mut fixture = Fixture::running(1);
    for incarnation in [3, 5, 7] {
        // The ones between are successors of reloads that were rolled back.
        fixture.exited(0, incarnation - 2);
        fixture.ready(0, incarnation);
        fixture.assert_served_by(worker(0, incarnation), incarnation);
    }
}

#[test]
fn a_successor_is_restarted_and_succeeded_like_any_other() {
    let mut fixture = Fixture::running(1);
    fixture.exited(0, 1);
    fixture.ready(0, 3);
    fixture.succeeds(successor(1, 2));
    fixture.tell(Event::WorkerExited { worker: successor(1, 2), cause: "exited" });
    assert_eq!(fixture.states(), [SlotState::Down { cause: "exited" }]);
    assert_eq!(fixture.ready(0, 4), [], "the former one is not asked for");
    assert_eq!(fixture.states(), [SlotState::Down { cause: "exited" }]);
    fixture.succeeds(successor(1, 5));
    fixture.assert_served_by(successor(1, 5), 1);
    fixture.succeeds(successor(2, 4));
    fixture.assert_served_by(successor(2, 4), 2);
}

#[test]
fn a_successor_that_ends_before_it_is_heard_to_be_ready_is_not_taken_for_alive() {
    let mut fixture = Fixture::running(1);
    fixture.tell(Event::WorkerExited { worker: successor(1, 2), cause: "exited" });
    fixture.succeeds(successor(1, 2));
    assert_eq!(fixture.states(), [SlotState::Down { cause: "exited" }]);
    fixture.succeeds(successor(1, 3));
    fixture.assert_served_by(successor(1, 3), 1);
}

#[test]
fn the_sessions_of_a_former_worker_are_lost_and_begin_anew_with_its_successor() {
    let mut fixture = Fixture::running(1);
    assert_eq!(fixture.hint("a", 1), [placed(0, 1, 1, Placement::New)]);
    fixture.exited(0, 1);
    fixture.ready(0, 3);
    assert_eq!(fixture.hint("a", 2), [lost(2, "a")]);
    assert_eq!(fixture.hint("a", 3), [placed(0, 3, 3, Placement::New)]);
    fixture.succeeds(successor(1, 2));
    fixture.freed(0, 3);
    assert_eq!(fixture.hint("a", 4), [lost(4, "a")]);
    let (request, placement) = (RequestId(5), Some(Placement::New));
    let assigned = Command::Assign { worker: successor(1, 2), request, item: 5, placement };
    assert_eq!(fixture.hint("a", 5), [assigned]);
}
