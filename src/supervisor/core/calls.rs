//! What others may ask: start, terminate, restart and delete children.
//!
//! A refusal is answered at once, also while a plan is in progress; what has to wait for the plan is queued and
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
            Err(error) => out.push(Command::Reply { caller, result: Err(error) }),
            Ok(()) => self.queue.push_back(Work::StartChild { options, payload, caller }),
        }
    }

    fn check_start(&self, options: &ChildOptions) -> Result<(), ChildError> {
        self.check_up()?;
        if let Some(key) = self.ids.get(&options.id) {
            let child = &self.children[key];
            return Err(match child.state {
                // A restart may fail, as OTP's callers see when they have waited for it.
                State::Starting { .. } if child.starter.is_none() => ChildError::AlreadyPresent,
                State::Starting { incarnation }
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

    fn check_up(&self) -> Result<(), ChildError> {
        match self.phase {
            Phase::Booting | Phase::Up => Ok(()),
            Phase::ShuttingDown(_) | Phase::Finished => Err(ChildError::SupervisorDown),
        }
    }

    pub(super) fn perform_start(
        &mut self,
        options: ChildOptions,
        payload: T,
        caller: C,
        out: &mut Vec<Command<T, C>>,
    ) {
        // Others were before us in the queue.
        if let Err(error) = self.check_start(&options) {
            return out.push(Command::Reply { caller, result: Err(error) });
        }
        let key = self.insert(options, payload);
        self.start_for(key, caller, false, out);
    }

    fn start_for(&mut self, key: Key, caller: C, keep: bool, out: &mut Vec<Command<T, C>>) {
        if let Some(child) = self.children.get_mut(&key) {
            child.starter = Some(Starter { caller, keep });
        }
        if self.options.dynamic {
            self.begin_start(key, out);
        } else {
            self.plan = Some(Plan::start_one(key));
        }
    }

    pub(super) fn terminate_child(
        &mut self,
        now: Instant,
        id: Arc<str>,
        caller: C,
        out: &mut Vec<Command<T, C>>,
    ) {
        if let Err(error) = self.check_up() {
            return out.push(Command::Reply { caller, result: Err(error) });
        }
        let Some(&key) = self.ids.get(&id) else {
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
                child.stoppers.push(caller);
                self.order_kill(key, now, out);
            }
            State::Restarting => {
                if self.options.dynamic {
                    self.remove(key, out);
                } else {
                    self.put_down(key, Down::Terminated, out);
                    self.abandon_group(key, out);
                }
                out.push(Command::Reply { caller, result: Ok(Answer::Done) });
            }
            // Known to be unkillable.
            State::Stopping { how, .. } if how != Stopping::Asked && child.timer.is_none() => {
                out.push(Command::Reply { caller, result: Err(ChildError::Unkillable) });
            }
            _ => self.queue.push_back(Work::TerminateChild { id, caller }),
        }
    }

    pub(super) fn perform_terminate(
        &mut self,
        now: Instant,
        id: Arc<str>,
        caller: C,
        out: &mut Vec<Command<T, C>>,
    ) {
        let Some(&key) = self.ids.get(&id) else {
            return out.push(Command::Reply { caller, result: Err(ChildError::NotFound) });
        };
        if self.begin_stop(key, now, out) {
            if let Some(child) = self.children.get_mut(&key) {
                child.stoppers.push(caller);
            }
            if !self.options.dynamic {
                self.plan = Some(Plan::wait_for(key));
            }
            return;
        }
        if self.options.dynamic {
            self.remove(key, out);
        } else if self.children.contains_key(&key) {
            self.put_down(key, Down::Terminated, out);
        }
        out.push(Command::Reply { caller, result: Ok(Answer::Done) });
    }

    pub(super) fn restart_child(&mut self, id: Arc<str>, caller: C, out: &mut Vec<Command<T, C>>) {
        match self.check_down(&id) {
            Err(error) => out.push(Command::Reply { caller, result: Err(error) }),
            Ok(_) => self.queue.push_back(Work::RestartChild { id, caller }),
        }
    }

    pub(super) fn perform_restart(&mut self, id: Arc<str>, caller: C, out: &mut Vec<Command<T, C>>) {
        match self.check_down(&id) {
            Err(error) => out.push(Command::Reply { caller, result: Err(error) }),
            Ok(key) => self.start_for(key, caller, true, out),
        }
    }

    pub(super) fn delete_child(&mut self, id: Arc<str>, caller: C, out: &mut Vec<Command<T, C>>) {
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
        let key = *self.ids.get(id).ok_or(ChildError::NotFound)?;
        match self.children[&key].state {
            State::Down(_) => Ok(key),
            State::Starting { .. } | State::Dead { .. } | State::Restarting => Err(ChildError::Restarting),
            State::Running { .. } | State::Stopping { .. } => Err(ChildError::Running),
        }
    }
}
