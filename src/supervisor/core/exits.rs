//! What follows from a child's end: nothing, a restart, or the supervisor's own end.

use std::time::{Duration, Instant};

use super::{
    super::{AutoShutdown, ChildOptions, ExitReason, ReportEvent, Restart, ShutdownCause},
    child::{Down, Key, State},
    event::{Command, Ending},
    machine::Core,
    plan::Plan,
};
use crate::timer::deadline;

/// What happens to a child that ended by itself.
pub(super) enum Fate {
    Restart,
    /// It stays down, or is gone; if it was significant, this is what it was.
    Final(Option<ChildOptions>),
}

impl<T, C> Core<T, C> {
    /// A child has ended by itself, and the supervisor has time for that.
    pub(super) fn exited(&mut self, now: Instant, key: Key, incarnation: u64, out: &mut Vec<Command<T, C>>) {
        let Some(child) = self.children.get(&key) else { return };
        match child.state {
            State::Dead { incarnation: i, .. } if i == incarnation => {}
            // A plan has taken it down meanwhile.
            _ => return,
        }
        let backoff = child.options.backoff.is_some();
        match self.bury(key, out) {
            Fate::Final(None) => {}
            Fate::Final(Some(child)) => self.significant_ended(child, out),
            Fate::Restart if backoff => {
                let delay = self.schedule_retry(key, now);
                if delay.is_zero() {
                    self.restart(now, key, out);
                } else {
                    self.plan = Some(Plan::hold_down(key, self.group(key)));
                }
            }
            Fate::Restart => self.count_and_restart(now, key, out),
        }
    }

    /// A waiting child's time has come.
    pub(super) fn retry(&mut self, now: Instant, key: Key, out: &mut Vec<Command<T, C>>) {
        let Some(child) = self.children.get(&key) else { return };
        // Terminated meanwhile, or started with its group; a new timer means a later retry.
        if !matches!(child.state, State::Restarting) || child.timer.is_some() {
            return;
        }
        if child.options.backoff.is_some() {
            self.restart(now, key, out);
        } else {
            self.count_and_restart(now, key, out);
        }
    }

    fn count_and_restart(&mut self, now: Instant, key: Key, out: &mut Vec<Command<T, C>>) {
        if self.intensity.allow(now) {
            return self.restart(now, key, out);
        }
        let Some(child) = self.children.get(&key).map(|child| child.options.clone()) else { return };
        // OTP removes the offender here. Idle, it is not stopped either, and references to it outlive a restart of
        // this supervisor.
        self.mark_down(key, Down::Idle, out);
        let cause = ShutdownCause::IntensityExceeded { id: child.id.clone() };
        self.shut_down(cause, Some(child), Ending::Ended(ExitReason::Shutdown), out);
    }

    fn restart(&mut self, now: Instant, key: Key, out: &mut Vec<Command<T, C>>) {
        if self.options.dynamic {
            return self.begin_start(key, now, out);
        }
        self.plan = Some(Plan::restart(key, self.group(key)));
    }

    /// Handles the end of a dead child: reports it, and puts the child down or removes it if the end is final.
    fn bury(&mut self, key: Key, out: &mut Vec<Command<T, C>>) -> Fate {
        let Some(reason) = self.report_end(key, out) else { return Fate::Final(None) };
        let options = &self.children[&key].options;
        let is_final = match options.restart {
            Restart::Permanent => false,
            Restart::Transient => reason.is_normal(),
            Restart::Temporary => true,
        };
        if !is_final {
            return Fate::Restart;
        }
        let significant = options.significant.then(|| options.clone());
        if options.restart == Restart::Temporary || self.options.dynamic {
            self.remove(key, out);
        } else {
            self.mark_down(key, Down::Finished, out);
        }
        Fate::Final(significant)
    }

    /// Reports the end of a dead child, which is `Restarting` afterwards. Returns the reason.
    fn report_end(&mut self, key: Key, out: &mut Vec<Command<T, C>>) -> Option<ExitReason> {
        let child = self.children.get_mut(&key)?;
        let State::Dead { incarnation, reason } = &child.state else { return None };
        let (incarnation, reason) = (*incarnation, reason.clone());
        child.state = State::Restarting;
        child.last_exit = Some(reason.clone());
        let report = reason.clone();
        out.push(child.report(|id| ReportEvent::ChildTerminated { id, incarnation, reason: report }));
        Some(reason)
    }

    /// Takes down a child that ended by itself just before it was to be stopped. It is not a final end: as in OTP, a
    /// restart of the group starts the child again.
    pub(super) fn overtaken(&mut self, key: Key, out: &mut Vec<Command<T, C>>) {
        self.report_end(key, out);
        let Some(child) = self.children.get(&key) else { return };
        if child.options.restart == Restart::Temporary || self.options.dynamic {
            self.remove(key, out);
        } else {
            self.mark_down(key, Down::Idle, out);
        }
    }

    fn significant_ended(&mut self, child: ChildOptions, out: &mut Vec<Command<T, C>>) {
        let ends = match self.options.auto_shutdown {
            AutoShutdown::Never => false,
            AutoShutdown::AnySignificant => true,
            AutoShutdown::AllSignificant => self.significant.is_empty(),
        };
        if ends {
            let cause = ShutdownCause::AutoShutdown { id: child.id.clone() };
            self.shut_down(cause, Some(child), Ending::Ended(ExitReason::Shutdown), out);
        }
    }

    /// Sets a child's timer for its next start: at once, unless it has a back-off.
    pub(super) fn schedule_retry(&mut self, key: Key, now: Instant) -> Duration {
        let random = self.random();
        let Some(child) = self.children.get_mut(&key) else { return Duration::ZERO };
        let delay = match &child.options.backoff {
            None => Duration::ZERO,
            Some(backoff) => {
                let up_since = child.up_since.take();
                child.deaths = backoff.deaths(child.deaths, up_since, now);
                backoff.delay(child.deaths, up_since.is_some(), random)
            }
        };
        child.state = State::Restarting;
        self.set_timer(key, deadline(now, delay));
        delay
    }
}
