//! Instances that cannot be killed: given up, but never forgotten, and never joined by a second one.
//!
//! A kill is an order that a future obeys when its poll returns. One that blocks its thread lives on, and may do so
//! for ever. After a grace the supervisor does not wait for it any more: the operation goes on, and its caller is answered.
//! What would take its place waits for its end, as long again, and then fails like any other start: it is retried
//! and counted, so that an instance that never ends makes its supervisor give up, and in the end the program.

use std::time::Instant;

use super::{
    super::{ChildError, ExitReason, ReportEvent, Restart},
    child::{Down, Key, State},
    event::{Answer, Command},
    machine::{Core, Phase, kill_grace},
};

/// A given-up instance of a child.
#[derive(Debug, Clone, Copy)]
pub(super) struct Orphan {
    incarnation: u64,
    /// Whether its end is to be reported: not when its start was not, or was by an earlier supervisor.
    was_up: bool,
}

impl<T, C> Core<T, C> {
    /// The given-up instance that still lives.
    pub(super) fn orphan(&self, key: Key) -> Option<u64> {
        self.orphans.get(&key).map(|orphan| orphan.incarnation)
    }

    pub(super) fn is_orphan(&self, key: Key, incarnation: u64) -> bool {
        self.orphan(key) == Some(incarnation)
    }

    /// The answer to a caller that terminates a child which has no other task.
    pub(super) fn end_of(&self, key: Key) -> Result<Answer, ChildError> {
        if self.orphans.contains_key(&key) { Err(ChildError::Unkillable) } else { Ok(Answer::Done) }
    }

    /// A killed child lives on.
    pub(super) fn unkillable(&mut self, key: Key, out: &mut Vec<Command<T, C>>) {
        let Some(child) = self.children.get_mut(&key) else { return };
        let State::Stopping { incarnation, .. } = child.state else { return };
        self.orphans.insert(key, Orphan { incarnation, was_up: child.up_since.take().is_some() });
        self.live -= 1;
        let temporary = child.options.restart == Restart::Temporary;
        let stoppers = self.stoppers.remove(&key).unwrap_or_default();
        let starter = child.starter.take();
        out.push(Command::GaveUp { child: key, incarnation });
        out.push(child.report(|id| ReportEvent::Unkillable { id, incarnation }));
        let down = if matches!(self.phase, Phase::ShuttingDown(_)) {
            Down::Idle
        } else if temporary || self.options.dynamic {
            // It goes when it ends.
            Down::Finished
        } else if !stoppers.is_empty() || self.resizing.is_some() {
            Down::Terminated
        } else {
            Down::Idle
        };
        self.mark_down(key, down, out);
        self.resize_met_unkillable(key);
        for caller in stoppers.into_iter().chain(starter.map(|starter| starter.caller)) {
            out.push(Command::Reply { caller, result: Err(ChildError::Unkillable) });
        }
        self.resolved(key);
    }

    /// A start waits for the end of the orphan.
    pub(super) fn block(&mut self, key: Key, incarnation: u64, now: Instant) {
        let Some(child) = self.children.get_mut(&key) else { return };
        child.state = State::Blocked { incarnation };
        let grace = kill_grace(child.options.kind);
        self.set_timer(key, now + grace);
    }

    /// An instance of an earlier supervisor lives, so that the child was not started.
    pub(super) fn still_runs(
        &mut self,
        now: Instant,
        key: Key,
        incarnation: u64,
        orphan: u64,
        out: &mut Vec<Command<T, C>>,
    ) {
        let Some(child) = self.children.get(&key) else { return };
        let is_cancelled = match child.state {
            State::Starting { incarnation: i } if i == incarnation => false,
            State::Stopping { incarnation: i, .. } if i == incarnation => true,
            _ => return,
        };
        self.orphans.insert(key, Orphan { incarnation: orphan, was_up: false });
        if is_cancelled {
            return self.settle(key, ExitReason::Killed, out);
        }
        self.live -= 1;
        self.block(key, incarnation, now);
    }

    /// The given-up instance has ended at last.
    pub(super) fn orphan_ended(&mut self, key: Key, reason: ExitReason, out: &mut Vec<Command<T, C>>) {
        let Some(orphan) = self.orphans.remove(&key) else { return };
        let Some(child) = self.children.get_mut(&key) else { return };
        if orphan.was_up {
            child.last_exit = Some(reason.clone());
            let incarnation = orphan.incarnation;
            out.push(child.report(|id| ReportEvent::ShutdownError { id, incarnation, reason }));
        }
        match child.state {
            State::Blocked { incarnation } => {
                child.state = State::Starting { incarnation };
                self.live += 1;
                self.clear_timer(key);
                out.push(Command::Start { child: key, incarnation });
            }
            State::Down(Down::Finished) if child.options.restart == Restart::Temporary => {
                self.remove(key, out);
            }
            State::Down(_) if self.options.dynamic => self.remove(key, out),
            _ => {}
        }
    }

    /// A start that waits for the end of the orphan is cancelled.
    pub(super) fn cancel_blocked(&mut self, key: Key, down: Down, out: &mut Vec<Command<T, C>>) {
        let Some(child) = self.children.get_mut(&key) else { return };
        let temporary = child.options.restart == Restart::Temporary;
        let starter = child.starter.take();
        let shutting_down = matches!(self.phase, Phase::ShuttingDown(_));
        if (temporary || self.options.dynamic) && !shutting_down {
            self.remove(key, out);
        } else {
            self.mark_down(key, down, out);
        }
        if let Some(starter) = starter {
            let error = if shutting_down { ChildError::SupervisorDown } else { ChildError::Cancelled };
            out.push(Command::Reply { caller: starter.caller, result: Err(error) });
        }
        self.resolved(key);
    }
}
