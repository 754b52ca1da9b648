//! The serial work of a static supervisor: stop these, newest first, then start those, oldest first.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use super::{
    super::{ChildOptions, Strategy},
    child::{Down, Key, State},
    event::Command,
    machine::{Core, Phase},
};

/// What a plan is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// All declared children are up.
    Boot,
    /// A group is up again.
    Restart,
    /// One child is stopped, or started; or a group is held down until a retry.
    Single,
    /// The supervisor has ended.
    Shutdown,
}

/// Which children a plan starts.
#[derive(Debug)]
enum Starts {
    /// Known when the stops are done, since these may remove children.
    GroupOf(Key),
    /// Worked off from the front.
    These(VecDeque<Key>),
}

/// One operation in progress.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) goal: Goal,
    /// Ascending; worked off from the end.
    stops: Vec<Key>,
    starts: Starts,
    /// The child whose start or end is awaited.
    pub(super) waiting_for: Option<Key>,
}

impl Plan {
    fn new(goal: Goal, stops: Vec<Key>, starts: Starts) -> Self {
        Self { goal, stops, starts, waiting_for: None }
    }

    pub(super) fn boot(children: impl Iterator<Item = Key>) -> Self {
        Self::new(Goal::Boot, Vec::new(), Starts::These(children.collect()))
    }

    /// Restarts the group of `child`, of which `stops` are the others.
    pub(super) fn restart(child: Key, stops: Vec<Key>) -> Self {
        Self::new(Goal::Restart, stops, Starts::GroupOf(child))
    }

    pub(super) fn stop_only(stops: Vec<Key>) -> Self {
        Self::new(Goal::Single, stops, Starts::These(VecDeque::new()))
    }

    pub(super) fn start_one(child: Key) -> Self {
        Self::new(Goal::Single, Vec::new(), Starts::These(VecDeque::from([child])))
    }

    /// Waits for a child that is already stopping.
    pub(super) fn wait_for(child: Key) -> Self {
        Self { waiting_for: Some(child), ..Self::stop_only(Vec::new()) }
    }

    /// `stopping`: the child whose end a former plan awaits.
    pub(super) fn shutdown(stops: Vec<Key>, stopping: Option<Key>) -> Self {
        Self { waiting_for: stopping, ..Self::new(Goal::Shutdown, stops, Starts::These(VecDeque::new())) }
    }

    /// Starts nothing more.
    pub(super) fn abandon(&mut self) {
        self.starts = Starts::These(VecDeque::new());
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
        if self.options.dynamic && !plan.stops.is_empty() {
            // All together: the end comes with the last of them.
            for key in std::mem::take(&mut plan.stops) {
                self.begin_stop(key, now, out);
            }
            self.plan = None;
            return true;
        }
        if let Some(key) = plan.stops.pop() {
            if self.begin_stop(key, now, out)
                && let Some(plan) = &mut self.plan
            {
                plan.waiting_for = Some(key);
            }
            return true;
        }
        let goal = plan.goal;
        match &mut plan.starts {
            &mut Starts::GroupOf(key) => {
                // It is down like the others now: when an earlier one fails to start, that one's retry brings it up.
                if self.children.get(&key).is_some_and(|child| matches!(child.state, State::Restarting)) {
                    self.put_down(key, Down::Idle, out);
                }
                let group = self.group(key).filter(|&key| self.may_start(key)).collect();
                if let Some(plan) = &mut self.plan {
                    plan.starts = Starts::These(group);
                }
            }
            Starts::These(starts) => match starts.pop_front() {
                Some(key) if self.may_start(key) => {
                    self.begin_start(key, out);
                    if let Some(plan) = &mut self.plan {
                        plan.waiting_for = Some(key);
                    }
                }
                Some(_) => {}
                None => {
                    self.plan = None;
                    match goal {
                        Goal::Boot => {
                            self.phase = Phase::Up;
                            out.push(Command::Booted);
                        }
                        Goal::Shutdown | Goal::Restart | Goal::Single => {}
                    }
                }
            },
        }
        true
    }

    /// A finished child is left alone, and one that somehow lives is not started twice.
    fn may_start(&self, key: Key) -> bool {
        self.children.get(&key).is_some_and(|child| match child.state {
            State::Down(down) => down != Down::Finished || child.starter.is_some(),
            State::Restarting => true,
            _ => false,
        })
    }

    /// The child and those that share its fate, in start order.
    pub(super) fn group(&self, key: Key) -> impl Iterator<Item = Key> {
        let range = match self.options.strategy {
            _ if self.options.dynamic => key..=key,
            Strategy::OneForOne => key..=key,
            Strategy::RestForOne => key..=Key(u64::MAX),
            Strategy::OneForAll => Key(0)..=Key(u64::MAX),
        };
        self.children.range(range).map(|(&key, _)| key)
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
        let is_idle = |key: &Key| matches!(self.children[key].state, State::Down(Down::Idle));
        let mut left: Vec<Key> = self.group(key).filter(is_idle).collect();
        if left.is_empty() {
            return;
        }
        let mut restarting = self.children.iter().filter(|(_, child)| child.is_restarting());
        // Groups that share a fate have no end: that of the first one which is restarted is all that any will bring up.
        if let Some((&first, _)) = restarting.next() {
            let kept = self.group(first).next();
            left.retain(|&key| kept.is_none_or(|kept| key < kept));
        }
        for key in left {
            self.put_down(key, Down::Terminated, out);
        }
    }

    fn perform(&mut self, now: Instant, work: Work<T, C>, out: &mut Vec<Command<T, C>>) {
        match work {
            Work::Exit { child, incarnation } => self.exited(now, child, incarnation, out),
            Work::Retry { child } => self.retry(now, child, out),
            Work::StartChild { options, payload, caller } => {
                self.perform_start(options, payload, caller, out)
            }
            Work::TerminateChild { id, caller } => self.perform_terminate(now, id, caller, out),
            Work::RestartChild { id, caller } => self.perform_restart(id, caller, out),
        }
    }
}
