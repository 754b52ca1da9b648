//! The way out, and the ends that were asked for.

use super::{
    super::{ChildError, ChildOptions, ExitReason, ReportEvent, Restart, ShutdownCause},
    child::{Down, Key, State, Stopping},
    event::{Command, Ending, Event},
    machine::{Core, Phase},
    plan::{ALL, Plan, Work},
    resize::Resizing,
};

impl<T, C> Core<T, C> {
    pub(super) fn stop(&mut self, out: &mut Vec<Command<T, C>>) {
        let ending = match self.phase {
            Phase::Booting => self.cancelled_boot(),
            _ => Ending::Ended(ExitReason::Shutdown),
        };
        self.shut_down(ShutdownCause::Requested, None, ending, out);
    }

    /// Ends without asking anybody: all children are killed together, and their ends awaited.
    pub(super) fn kill(&mut self, out: &mut Vec<Command<T, C>>) {
        let killed = Ending::Ended(ExitReason::Killed);
        match &mut self.phase {
            // It did not stop when asked: the caller gets that, as OTP's `killed` after a timeout.
            Phase::ShuttingDown(ending @ Ending::Ended(_)) => *ending = killed,
            Phase::ShuttingDown(Ending::NotStarted { .. }) => {}
            Phase::Booting => {
                let ending = self.cancelled_boot();
                self.enter_shutdown(ShutdownCause::Killed, None, ending, out);
            }
            _ => self.enter_shutdown(ShutdownCause::Killed, None, killed, out),
        }
        self.plan = None;
        let mut rest = ALL;
        while let Some(key) = self.next_of(&mut rest) {
            let Some(child) = self.children.get_mut(&key) else { continue };
            match &mut child.state {
                State::Running { incarnation } | State::Starting { incarnation } => {
                    child.state = State::Stopping { incarnation: *incarnation, how: Stopping::Cancelled };
                }
                State::Stopping { how, .. } if *how == Stopping::Asked => *how = Stopping::Cancelled,
                State::Stopping { .. } => continue,
                State::Blocked { .. } => {
                    self.cancel_blocked(key, Down::Idle, out);
                    continue;
                }
                State::Dead { .. } => {
                    self.overtaken(key, out);
                    continue;
                }
                State::Restarting => {
                    self.mark_down(key, Down::Idle, out);
                    continue;
                }
                State::Down(_) => continue,
            }
            self.order_kill(key, out);
        }
    }

    fn cancelled_boot(&self) -> Ending {
        use super::super::StartFailure;
        let waiting_for = self.plan.as_ref().and_then(|plan| plan.waiting_for);
        let child = waiting_for.and_then(|key| self.children.get(&key));
        Ending::NotStarted {
            id: child.map_or_else(|| "".into(), |child| child.options.id.clone()),
            cause: std::sync::Arc::new(StartFailure::Cancelled),
        }
    }

    /// Stops all children: newest to oldest, each awaited; those of a dynamic supervisor together. `child`: whose end,
    /// or failed start, is the cause.
    pub(super) fn shut_down(
        &mut self,
        cause: ShutdownCause,
        child: Option<ChildOptions>,
        ending: Ending,
        out: &mut Vec<Command<T, C>>,
    ) {
        if matches!(self.phase, Phase::ShuttingDown(_)) {
            return;
        }
        let stopping = self.plan.take().and_then(|plan| plan.waiting_for).filter(|key| {
            self.children.get(key).is_some_and(|child| matches!(child.state, State::Stopping { .. }))
        });
        self.enter_shutdown(cause, child, ending, out);
        self.plan = Some(Plan::shutdown(stopping));
    }

    fn enter_shutdown(
        &mut self,
        cause: ShutdownCause,
        child: Option<ChildOptions>,
        ending: Ending,
        out: &mut Vec<Command<T, C>>,
    ) {
        self.phase = Phase::ShuttingDown(ending);
        out.push(Command::Report { event: ReportEvent::Shutdown { cause }, child });
        if let Some(Resizing { caller, .. }) = self.resizing.take() {
            out.push(Command::Reply { caller, result: Err(ChildError::SupervisorDown) });
        }
        for work in std::mem::take(&mut self.queue) {
            match work {
                // Reported when its turn to be stopped comes.
                Work::Exit { .. } | Work::Retry { .. } => {}
                Work::StartChild { caller, payload, .. } => {
                    out.push(Command::Reply { caller, result: Err(ChildError::SupervisorDown) });
                    out.push(Command::Removed(payload));
                }
                Work::Resize { caller, .. }
                | Work::TerminateChild { caller, .. }
                | Work::RestartChild { caller, .. }
                | Work::DeleteChild { caller, .. } => {
                    out.push(Command::Reply { caller, result: Err(ChildError::SupervisorDown) });
                }
            }
        }
    }

    /// A child that was told to end has ended.
    pub(super) fn settle(&mut self, key: Key, reason: ExitReason, out: &mut Vec<Command<T, C>>) {
        let Some(child) = self.children.get_mut(&key) else { return };
        let State::Stopping { incarnation, how } = child.state else { return };
        self.live -= 1;
        let permanent = child.options.restart == Restart::Permanent;
        let was_up = child.up_since.take().is_some();
        let as_asked = match (how, &reason) {
            (_, ExitReason::Shutdown) => true,
            (Stopping::Cancelled | Stopping::Brutal, ExitReason::Killed) => true,
            (_, ExitReason::Normal) => !permanent,
            _ => false,
        };
        child.last_exit = Some(reason.clone());
        let starter = child.starter.take();
        let stoppers = self.stoppers.remove(&key).unwrap_or_default();
        if was_up {
            out.push(child.report(|id| match as_asked {
                true => ReportEvent::Stopped { id, incarnation },
                false => ReportEvent::ShutdownError { id, incarnation, reason },
            }));
        }
        let shutting_down = !matches!(self.phase, Phase::Up { .. } | Phase::Booting);
        let temporary = child.options.restart == Restart::Temporary;
        let answer = self.end_of(key);
        if shutting_down {
            self.done(key, out);
        } else if temporary || self.options.dynamic {
            self.remove(key, out);
        } else {
            let wanted = !stoppers.is_empty() || self.resizing.is_some();
            self.mark_down(key, if wanted { Down::Terminated } else { Down::Idle }, out);
        }
        if how == Stopping::Cancelled && !shutting_down {
            self.abandon_group(key, out);
        }
        if let Some(starter) = starter {
            let error = if shutting_down { ChildError::SupervisorDown } else { ChildError::Cancelled };
            out.push(Command::Reply { caller: starter.caller, result: Err(error) });
        }
        for caller in stoppers {
            out.push(Command::Reply { caller, result: answer.clone() });
        }
        self.resolved(key);
    }

    /// Lets go of a child that has ended for the last time, while its memory is at hand.
    fn done(&mut self, key: Key, out: &mut Vec<Command<T, C>>) {
        self.clear_timer(key);
        self.significant.remove(&key);
        self.orphans.remove(&key);
        if let Some(child) = self.children.remove(&key) {
            out.push(Command::Done(child.payload));
        }
    }

    /// Without a plan, a supervisor on its way out ends with its last child.
    pub(super) fn finish_if_empty(&mut self, out: &mut Vec<Command<T, C>>) {
        if self.live == 0 && matches!(self.phase, Phase::ShuttingDown(_)) {
            self.finish(out);
        }
    }

    fn finish(&mut self, out: &mut Vec<Command<T, C>>) {
        match std::mem::replace(&mut self.phase, Phase::Finished) {
            Phase::ShuttingDown(ending) => out.push(Command::Finished(ending)),
            phase => self.phase = phase,
        }
    }

    /// Answers calls that come after the end.
    pub(super) fn refuse(&mut self, event: Event<T, C>, out: &mut Vec<Command<T, C>>) {
        let (Event::StartChild { caller, .. }
        | Event::TerminateChild { caller, .. }
        | Event::RestartChild { caller, .. }
        | Event::DeleteChild { caller, .. }
        | Event::Resize { caller, .. }) = event
        else {
            return;
        };
        out.push(Command::Reply { caller, result: Err(ChildError::SupervisorDown) });
    }
}
