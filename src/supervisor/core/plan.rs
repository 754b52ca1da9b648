//! The serial work of a static supervisor: stop these, newest first, then start those, oldest first.

use std::{ops::Range, sync::Arc, time::Instant};

use super::{
    super::{ChildOptions, Strategy},
    child::{Down, Key, State},
    event::Command,
    machine::{Core, Phase},
};

/// The purpose of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// All declared children are up.
    Boot,
    /// A group is up again.
    Restart,
    /// One child is stopped, or started; or a group is held down until a retry.
    Single,
    /// The wanted number of partitions is in use.
    Resize,
    /// The supervisor has ended.
    Shutdown,
}

/// One operation in progress. Ranges of orders, so that nothing is lost by children that go meanwhile.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) goal: Goal,
    /// Stopped from the end.
    stops: Range<u64>,
    /// Not stopped: the child that is dead already.
    spared: Option<Key>,
    /// Started from the front, after the stops.
    starts: Range<u64>,
    /// The child whose start or end is awaited.
    pub(super) waiting_for: Option<Key>,
}

const NONE: Range<u64> = 0..0;
pub(super) const ALL: Range<u64> = 0..u64::MAX;

impl Plan {
    fn new(goal: Goal, stops: Range<u64>, starts: Range<u64>) -> Self {
        Self { goal, stops, spared: None, starts, waiting_for: None }
    }

    pub(super) fn boot() -> Self {
        Self::new(Goal::Boot, NONE, ALL)
    }

    /// Restarts the group of `child`.
    pub(super) fn restart(child: Key, group: Range<u64>) -> Self {
        Self { spared: Some(child), ..Self::new(Goal::Restart, group.clone(), group) }
    }

    /// Stops the group of `child`.
    pub(super) fn hold_down(child: Key, group: Range<u64>) -> Self {
        Self { spared: Some(child), ..Self::new(Goal::Single, group, NONE) }
    }

    pub(super) fn start_one(child: Key) -> Self {
        Self::new(Goal::Single, NONE, child.order..child.order + 1)
    }

    pub(super) fn resize(stops: Range<u64>, starts: Range<u64>) -> Self {
        Self::new(Goal::Resize, stops, starts)
    }

    /// Waits for a child that is already stopping.
    pub(super) fn wait_for(child: Key) -> Self {
        Self { waiting_for: Some(child), ..Self::new(Goal::Single, NONE, NONE) }
    }

    /// `stopping`: the child whose end a former plan awaits.
    pub(super) fn shutdown(stopping: Option<Key>) -> Self {
        Self { waiting_for: stopping, ..Self::new(Goal::Shutdown, ALL, NONE) }
    }

    /// Starts nothing more.
    pub(super) fn abandon(&mut self) {
        self.starts = NONE;
    }
}

/// Something that waits until the plan in progress is done.
#[derive(Debug)]
pub(super) enum Work<T, C> {
    Exit { child: Key, incarnation: u64 },
    Retry { child: Key },
    StartChild { options: ChildOptions, payload: T, caller: C },
    TerminateChild { id: Arc<str>, caller: C },
    RestartChild { id: Arc<str>, caller: C },
    DeleteChild { id: Arc<str>, caller: C },
    Resize { size: usize, caller: C },
}

impl<T, C> Core<T, C> {
    /// The child's start or end, if awaited, need be awaited no longer.
    pub(super) fn resolved(&mut self, key: Key) {
        if let Some(plan) = &mut self.plan
            && plan.waiting_for == Some(key)
        {
            plan.waiting_for = None;
        }
    }

    /// Works until there is something to wait for, or nothing left.
    pub(super) fn pump(&mut self, now: Instant, out: &mut Vec<Command<T, C>>) {
        loop {
            if matches!(self.phase, Phase::Finished) {
                return;
            }
            if self.plan.is_some() {
                if !self.step(now, out) {
                    return;
                }
            } else if let Some(work) = self.queue.pop_front() {
                self.perform(now, work, out);
            } else {
                return self.finish_if_empty(out);
            }
        }
    }

    /// One step of the plan; false when it waits.
    fn step(&mut self, now: Instant, out: &mut Vec<Command<T, C>>) -> bool {
        let Some(plan) = &mut self.plan else { return true };
        if plan.waiting_for.is_some() {
            return false;
        }
        if self.options.dynamic && plan.goal == Goal::Shutdown {
            // All together: the end comes with the last of them.
            self.plan = None;
            let mut rest = ALL;
            while let Some(key) = self.next_of(&mut rest) {
                self.begin_stop(key, out);
            }
            return true;
        }
        let goal = plan.goal;
        if let Some(key) = self.children.last_of(&plan.stops) {
            plan.stops.end = key.order;
            if plan.spared == Some(key) {
                return true;
            }
            if !self.begin_stop(key, out) {
                if goal == Goal::Resize {
                    self.mark_down(key, Down::Terminated, out);
                }
            } else if let Some(plan) = &mut self.plan {
                plan.waiting_for = Some(key);
            }
        } else if goal == Goal::Restart
            && let Some(key) = plan.spared.take()
        {
            // It is down like the others now: when an earlier one fails to start, that one's retry brings it up.
            if self.children.get(&key).is_some_and(|child| matches!(child.state, State::Restarting)) {
                self.mark_down(key, Down::Idle, out);
            }
        } else if let Some(key) = self.children.first_of(&plan.starts) {
            plan.starts.start = key.order + 1;
            if self.may_start(key) {
                self.begin_start(key, now, out);
                if let Some(plan) = &mut self.plan {
                    plan.waiting_for = Some(key);
                }
            }
        } else {
            self.plan = None;
            match goal {
                Goal::Boot => {
                    self.phase = Phase::Up { since: now };
                    out.push(Command::Booted);
                }
                Goal::Resize => self.resized(out),
                Goal::Shutdown | Goal::Restart | Goal::Single => {}
            }
        }
        true
    }

    /// Takes the first child off a walk through these; children may go meanwhile.
    pub(super) fn next_of(&self, rest: &mut Range<u64>) -> Option<Key> {
        let key = self.children.first_of(rest)?;
        rest.start = key.order + 1;
        Some(key)
    }

    /// A finished child is not started, and a child that lives is not started twice.
    fn may_start(&self, key: Key) -> bool {
        self.children.get(&key).is_some_and(|child| match child.state {
            State::Down(down) => down != Down::Finished || child.starter.is_some(),
            State::Restarting => true,
            _ => false,
        })
    }

    /// The child and those that share its fate.
    pub(super) fn group(&self, key: Key) -> Range<u64> {
        match self.options.strategy {
            Strategy::RestForOne if !self.options.dynamic => key.order..ALL.end,
            Strategy::OneForAll if !self.options.dynamic => ALL,
            _ => key.order..key.order + 1,
        }
    }

    /// The restart of this child has been cancelled, and with it that of its group: as in OTP, those that waited for
    /// it stay down, unless another one's restart will bring them up.
    pub(super) fn abandon_group(&mut self, key: Key, out: &mut Vec<Command<T, C>>) {
        if let Some(plan) = &mut self.plan
            && plan.goal == Goal::Restart
            && plan.waiting_for == Some(key)
        {
            plan.abandon();
        }
        let mut left = self.group(key);
        if left.end - left.start == 1 {
            return;
        }
        // Groups that share a fate have no end: that of the first one which is restarted is all that any will bring up.
        let mut all = ALL;
        while let Some(key) = self.next_of(&mut all) {
            if self.children[&key].is_restarting() {
                left.end = left.start.max(self.group(key).start);
                break;
            }
        }
        while let Some(key) = self.next_of(&mut left) {
            if matches!(self.children[&key].state, State::Down(Down::Idle)) {
                self.mark_down(key, Down::Terminated, out);
            }
        }
    }

    fn perform(&mut self, now: Instant, work: Work<T, C>, out: &mut Vec<Command<T, C>>) {
        match work {
            Work::Exit { child, incarnation } => self.exited(now, child, incarnation, out),
            Work::Retry { child } => self.retry(now, child, out),
            Work::StartChild { options, payload, caller } => {
                self.perform_start(now, options, payload, caller, out)
            }
            Work::TerminateChild { id, caller } => self.perform_terminate(id, caller, out),
            Work::RestartChild { id, caller } => self.perform_restart(now, id, caller, out),
            Work::DeleteChild { id, caller } => self.perform_delete(id, caller, out),
            Work::Resize { size, caller } => self.perform_resize(size, caller, out),
        }
    }
}
