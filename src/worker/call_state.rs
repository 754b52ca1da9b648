//! One call in a worker, as a pure state machine: when it is asked for its stack, cancelled, and killed.
//!
//! ```text
//!            deadline                 stack, or 100 ms later           grace
//!   Runs -------------> AskedForStack ---------------------> Cancelled -----> Killed
//!     |                      |          (caller answered)     ^   |
//!     |                      |                                |   '-- signal again every 100 ms
//!     +----------------------+----- the caller leaves --------+
//! ```
//!
//! A call that has not begun at its deadline is cancelled at once, and its answer is awaited like a stack dump.
//! In every state Python's answer ends the call. Time is an argument; the action comes out as a [`CallStep`].

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::time::{Duration, Instant};

/// How long a caller waits for the stack after its deadline.
const STACK_WAIT: Duration = Duration::from_millis(100);
/// How often the signal is repeated: it may have come where it could not be told from an old one, or have been
/// swallowed where Python cannot raise.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(100);

/// The action that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallStep {
    /// Ask Python what it is doing.
    AskForStack,
    /// Tell the caller that its time is up, then tell Python to give up.
    TimeOut,
    /// Cancel the call: the caller has left.
    Cancel,
    /// Remind it.
    SignalAgain,
    /// It did not: end the worker.
    Kill,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Runs,
    AskedForStack { until: Instant },
    Cancelled { signal_at: Instant, kill_at: Instant },
    Killed,
}

#[derive(Debug)]
pub(super) struct CallState {
    deadline: Instant,
    grace: Duration,
    stage: Stage,
    /// The deadline was put off, and the call has had no time of its own since.
    put_off: bool,
}

impl CallState {
    pub(super) fn new(deadline: Instant, grace: Duration) -> Self {
        Self { deadline, grace, stage: Stage::Runs, put_off: false }
    }

    /// When [`tick`](Self::tick) is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Runs => Some(self.deadline),
            Stage::AskedForStack { until } => Some(until),
            Stage::Cancelled { signal_at, kill_at } => Some(signal_at.min(kill_at)),
            Stage::Killed => None,
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether its grace is over.
    pub(super) fn is_killed(&self) -> bool {
        self.stage == Stage::Killed
    }

    pub(super) fn awaits_stack(&self) -> bool {
        matches!(self.stage, Stage::AskedForStack { .. })
    }

    /// The action that is due now, if there is one.
    pub(super) fn tick(&mut self, now: Instant) -> Option<CallStep> {
        if self.next_deadline().is_none_or(|due| now < due) {
            return None;
        }
        Some(match &mut self.stage {
            Stage::Runs => {
                self.stage = Stage::AskedForStack { until: now + STACK_WAIT };
                CallStep::AskForStack
            }
            Stage::AskedForStack { .. } => return self.stack_came(now),
            Stage::Cancelled { kill_at, .. } if *kill_at <= now => {
                self.stage = Stage::Killed;
                CallStep::Kill
            }
            Stage::Cancelled { signal_at, .. } => {
                *signal_at = now + SIGNAL_INTERVAL;
                CallStep::SignalAgain
            }
            Stage::Killed => return None,
        })
    }

    /// Gives it until then, after all, if it should be asked for its stack now but has not begun; and once more if it
    /// had not the last time. Whether it did.
    pub(super) fn put_off(&mut self, has_begun: bool, deadline: Instant) -> bool {
        if has_begun && !self.put_off {
            return false;
        }
        self.put_off = !has_begun;
        self.deadline = deadline;
        self.stage = Stage::Runs;
        true
    }

    /// The stack has come.
    pub(super) fn stack_came(&mut self, now: Instant) -> Option<CallStep> {
        if !self.awaits_stack() {
            return None;
        }
        // From the deadline on, unless we ourselves are late: Python then still gets its grace.
        let since = self.deadline.max(now.checked_sub(STACK_WAIT).unwrap_or(now));
        self.cancel(now, since + self.grace);
        Some(CallStep::TimeOut)
    }

    /// The caller has gone away.
    pub(super) fn caller_left(&mut self, now: Instant) -> Option<CallStep> {
        if !matches!(self.stage, Stage::Runs | Stage::AskedForStack { .. }) {
            return None;
        }
        self.cancel(now, now + self.grace);
        Some(CallStep::Cancel)
    }

    fn cancel(&mut self, now: Instant, kill_at: Instant) {
        self.stage = Stage::Cancelled { signal_at: now + SIGNAL_INTERVAL, kill_at };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GRACE: Duration = Duration::from_secs(2);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn at_the_deadline_the_stack_is_asked_for_then_the_caller_answered_then_the_worker_killed() {
        let start = Instant::now();
        let mut call = CallState::new(start + ms(1000), GRACE);
        assert_eq!(call.tick(start + ms(999)), None);
        assert_eq!(call.tick(start + ms(1000)), Some(CallStep::AskForStack));
        assert_eq!(call.tick(start + ms(1000)), None);
        assert_eq!(call.next_deadline(), Some(start + ms(1100)));
        assert_eq!(call.stack_came(start + ms(1003)), Some(CallStep::TimeOut));
        assert_eq!(call.stack_came(start + ms(1004)), None);
        for again in 1..20 {
            assert_eq!(call.tick(start + ms(1003 + 100 * again)), Some(CallStep::SignalAgain), "{again}");
        }
        assert_eq!(call.next_deadline(), Some(start + ms(3000)));
        assert_eq!(call.tick(start + ms(3000)), Some(CallStep::Kill));
        assert_eq!((call.tick(start + ms(9000)), call.next_deadline()), (None, None));
    }

    #[test]
    fn a_stack_that_does_not_come_is_not_waited_for() {
        let start = Instant::now();
        let mut call = CallState::new(start, GRACE);
        assert_eq!(call.tick(start), Some(CallStep::AskForStack));
        assert_eq!(call.tick(start + ms(99)), None);
        assert_eq!(call.tick(start + ms(100)), Some(CallStep::TimeOut));
        assert_eq!(call.tick(start + GRACE), Some(CallStep::Kill));
    }

    #[test]
    fn a_host_that_is_late_still_gives_the_grace() {
        let start = Instant::now();
        let mut call = CallState::new(start, GRACE);
        assert_eq!(call.tick(start + ms(5000)), Some(CallStep::AskForStack));
        assert_eq!(call.tick(start + ms(5100)), Some(CallStep::TimeOut));
        assert_eq!(call.tick(start + ms(6999)), Some(CallStep::SignalAgain));
        assert_eq!(call.tick(start + ms(7000)), Some(CallStep::Kill));
    }

    #[test]
    fn one_that_is_put_off_begins_anew() {
        let start = Instant::now();
        let mut call = CallState::new(start, GRACE);
        assert_eq!(call.tick(start), Some(CallStep::AskForStack));
        assert!(call.put_off(false, start + ms(500)));
        assert_eq!((call.tick(start + ms(499)), call.awaits_stack()), (None, false));
        assert_eq!(call.tick(start + ms(500)), Some(CallStep::AskForStack));
        assert!(call.put_off(true, start + ms(1000)), "it may have begun just now");
        assert_eq!(call.tick(start + ms(999)), None);
        assert_eq!(call.tick(start + ms(1000)), Some(CallStep::AskForStack));
        assert!(!call.put_off(true, start + ms(1500)), "it had its time");
        assert_eq!(call.tick(start + ms(1100)), Some(CallStep::TimeOut));
        assert_eq!(call.next_deadline(), Some(start + ms(1200)));
        assert_eq!(call.tick(start + ms(3000)), Some(CallStep::Kill));
    }

    #[test]
    fn a_caller_that_leaves_cancels_once() {
        let start = Instant::now();
        let mut call = CallState::new(start + ms(1000), GRACE);
        assert_eq!(call.caller_left(start + ms(10)), Some(CallStep::Cancel));
        assert_eq!(call.caller_left(start + ms(11)), None);
        assert_eq!(
            call.tick(start + ms(1000)),
            Some(CallStep::SignalAgain),
            "the deadline is nobody's any more"
        );
        assert_eq!(call.tick(start + ms(2010)), Some(CallStep::Kill));

        let mut call = CallState::new(start, GRACE);
        assert_eq!(call.tick(start), Some(CallStep::AskForStack));
        assert_eq!(call.caller_left(start + ms(5)), Some(CallStep::Cancel));
        assert_eq!(call.stack_came(start + ms(6)), None);
    }

    proptest! {
        /// In any order of events: at most one cancel, before any kill, and a kill as soon as the grace is over.
        #[test]
        fn each_step_comes_once_and_in_order(
            deadline in 0..500u64,
            grace in 0..500u64,
            events in prop::collection::vec((0..60u64, 0..4u8), 0..80),
        ) {
            let start = Instant::now();
            let mut call = CallState::new(start + ms(deadline), ms(grace));
            let (mut now, mut steps, mut cancelled_at) = (start, Vec::new(), None);
            for (wait, event) in events {
                now += ms(wait);
                let step = match event {
                    0 => call.caller_left(now),
                    1 => call.stack_came(now),
                    _ => call.tick(now),
                };
                if let Some(step) = step {
                    match step {
                        CallStep::AskForStack => prop_assert!(now >= start + ms(deadline) && steps.is_empty()),
                        CallStep::TimeOut => {
                            prop_assert_eq!(&steps, &[CallStep::AskForStack]);
                            cancelled_at = Some(now);
                        }
                        CallStep::Cancel => {
                            prop_assert!(cancelled_at.is_none());
                            cancelled_at = Some(now);
                        }
                        CallStep::SignalAgain => prop_assert!(cancelled_at.is_some_and(|at| now >= at + SIGNAL_INTERVAL)),
                        CallStep::Kill => {
                            let earliest = cancelled_at.map(|at| (at - STACK_WAIT.min(at - start)) + ms(grace));
                            prop_assert!(earliest.is_some_and(|earliest| now >= earliest));
                        }
                    }
                    steps.push(step);
                }
                prop_assert!(steps.iter().filter(|step| **step == CallStep::Kill).count() <= 1);
            }
            // Without further events the call ends with a kill.
            while let Some(due) = call.next_deadline() {
                prop_assert!(steps.len() < 200, "it never ends: {steps:?}");
                now = due.max(now);
                let step = call.tick(now);
                prop_assert!(step.is_some());
                steps.extend(step);
            }
            prop_assert_eq!(steps.last(), Some(&CallStep::Kill));
        }
    }
}
