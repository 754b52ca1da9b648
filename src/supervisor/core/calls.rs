//! The calls of users: start, terminate, restart and delete children.
//!
//! A refusal is answered at once, also while a plan is in progress. A call that has to wait for the plan is queued and
//! checked again when its turn comes.

use std::{sync::Arc, time::Instant};

use super::{
    super::{ChildError, ChildOptions},
    child::{Down, Key, Starter, State, Stopping},
    event::{Answer, Command},
    machine::{Core, Phase},
    plan::{Plan, Work},
};

impl<T, C> Core<T, C> {
    pub(super) fn start_child(
        &mut self,
        options: ChildOptions,
        payload: T,
        caller: C,
        out: &mut Vec<Command<T, C>>,
    ) {
        match self.check_start(&options) {
            Err(error) => {
                out.push(Command::Reply { caller, result: Err(error) });
                out.push(Command::Removed(payload));
            }
            Ok(()) => self.queue.push_back(Work::StartChild { options, payload, caller }),
        }
    }

    fn check_start(&self, options: &ChildOptions) -> Result<(), ChildError> {
        self.check_up()?;
        if let Some(key) = self.key(&options.id) {
            let child = &self.children[&key];
            if let (State::Down(_), Some(incarnation)) = (&child.state, self.orphan(key)) {
                return Err(ChildError::AlreadyStarted { incarnation });
            }
            return Err(match child.state {
                // A restart may fail, as OTP's callers see when they have waited for it.
                State::Starting { .. } | State::Blocked { .. } if child.starter.is_none() => {
                    ChildError::AlreadyPresent
                }
                State::Starting { incarnation }
                | State::Blocked { incarnation }
                | State::Running { incarnation }
                | State::Stopping { incarnation, .. } => ChildError::AlreadyStarted { incarnation },
                State::Down(_) | State::Dead { .. } | State::Restarting => ChildError::AlreadyPresent,
            });
        }
        match self.options.max_children {
            Some(max) if self.children.len() >= max => Err(ChildError::MaxChildren { max }),
            _ => Ok(()),
        }
    }

    pub(super) fn check_up(&self) -> Result<(), ChildError> {
        match self.phase {
            Phase::Booting | Phase::Up { .. } => Ok(()),
            Phase::ShuttingDown(_) | Phase::Finished => Err(ChildError::SupervisorDown),
        }
    }

    pub(super) fn perform_start(
        &mut self,
        now: Instant,
        options: ChildOptions,
        payload: T,
        caller: C,
        out: &mut Vec<Command<T, C>>,
    ) {
        // Others were before us in the queue.
        if let Err(error) = self.check_start(&options) {
            out.push(Command::Reply { caller, result: Err(error) });
            return out.push(Command::Removed(payload));
        }
        let key = self.insert(options, payload);
        self.start_for(now, key, Starter { caller, keep: false }, out);
    }

    fn start_for(&mut self, now: Instant, key: Key, starter: Starter<C>, out: &mut Vec<Command<T, C>>) {
        if let Some(child) = self.children.get_mut(&key) {
            child.starter = Some(starter);
        }
        if self.options.dynamic {
            self.begin_start(key, now, out);
        } else {
            self.plan = Some(Plan::start_one(key));
        }
    }

    pub(super) fn terminate_child(&mut self, id: Arc<str>, caller: C, out: &mut Vec<Command<T, C>>) {
        if let Err(error) = self.check_up() {
            return out.push(Command::Reply { caller, result: Err(error) });
        }
        let Some(key) = self.key(&id) else {
            // A static supervisor may have its start in the queue.
            let queued = self
                .queue
                .iter()
                .any(|work| matches!(work, Work::StartChild { options, .. } if options.id == id));
            if queued {
                self.queue.push_back(Work::TerminateChild { id, caller });
            } else {
                out.push(Command::Reply { caller, result: Err(ChildError::NotFound) });
            }
            return;
        };
        let Some(child) = self.children.get_mut(&key) else { return };
        match child.state {
            // A start in progress is cancelled at once, however long it may take.
            State::Starting { incarnation } => {
                child.state = State::Stopping { incarnation, how: Stopping::Cancelled };
                self.stoppers.entry(key).or_default().push(caller);
                self.order_kill(key, out);
            }
            State::Restarting => {
                let result = self.end_of(key);
                if self.options.dynamic {
                    self.remove(key, out);
                } else {
                    self.mark_down(key, Down::Terminated, out);
                    self.abandon_group(key, out);
                }
                out.push(Command::Reply { caller, result });
            }
            State::Blocked { .. } => {
                let result = self.end_of(key);
                self.cancel_blocked(key, Down::Terminated, out);
                out.push(Command::Reply { caller, result });
            }
            _ => self.queue.push_back(Work::TerminateChild { id, caller }),
        }
    }

    pub(super) fn perform_terminate(&mut self, id: Arc<str>, caller: C, out: &mut Vec<Command<T, C>>) {
        let Some(key) = self.key(&id) else {
            return out.push(Command::Reply { caller, result: Err(ChildError::NotFound) });
        };
        if self.begin_stop(key, out) {
            self.stoppers.entry(key).or_default().push(caller);
            if !self.options.dynamic {
                self.plan = Some(Plan::wait_for(key));
            }
            return;
        }
        let result = self.end_of(key);
        if self.options.dynamic && result.is_ok() {
            self.remove(key, out);
        } else if self.children.contains_key(&key) {
            self.mark_down(key, Down::Terminated, out);
        }
        out.push(Command::Reply { caller, result });
    }

    pub(super) fn restart_child(&mut self, id: Arc<str>, caller: C, out: &mut Vec<Command<T, C>>) {
        match self.check_down(&id) {
            Err(error) => out.push(Command::Reply { caller, result: Err(error) }),
            Ok(_) => self.queue.push_back(Work::RestartChild { id, caller }),
        }
    }

    pub(super) fn perform_restart(
        &mut self,
        now: Instant,
        id: Arc<str>,
        caller: C,
        out: &mut Vec<Command<T, C>>,
    ) {
        match self.check_down(&id) {
            Err(error) => out.push(Command::Reply { caller, result: Err(error) }),
            Ok(key) => {
                // A caller has restarted it: its earlier deaths are forgotten.
                if let Some(child) = self.children.get_mut(&key) {
                    child.deaths = 0;
                }
                self.start_for(now, key, Starter { caller, keep: true }, out);
            }
        }
    }

    /// A child that is down may be so for a moment only, as one of a group that is being restarted: the plan's end
    /// decides.
    pub(super) fn delete_child(&mut self, id: Arc<str>, caller: C, out: &mut Vec<Command<T, C>>) {
        match self.check_down(&id) {
            Err(error) => out.push(Command::Reply { caller, result: Err(error) }),
            Ok(_) => self.queue.push_back(Work::DeleteChild { id, caller }),
        }
    }

    pub(super) fn perform_delete(&mut self, id: Arc<str>, caller: C, out: &mut Vec<Command<T, C>>) {
        let result = self.check_down(&id).map(|key| {
            self.remove(key, out);
            Answer::Done
        });
        out.push(Command::Reply { caller, result });
    }

    fn check_down(&self, id: &str) -> Result<Key, ChildError> {
        self.check_up()?;
        if self.options.dynamic {
            return Err(ChildError::Dynamic);
        }
        let key = self.key(id).ok_or(ChildError::NotFound)?;
        match self.children[&key].state {
            State::Down(_) if self.orphans.contains_key(&key) => Err(ChildError::Running),
            State::Down(_) => Ok(key),
            State::Starting { .. } | State::Blocked { .. } | State::Dead { .. } | State::Restarting => {
                Err(ChildError::Restarting)
            }
            State::Running { .. } | State::Stopping { .. } => Err(ChildError::Running),
        }
    }
}
