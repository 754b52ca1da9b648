//! The order of a rolling reload, pure.
//!
//! ```text
//!   Renew -> for each slot: Start -> Retire -> the next one -> Over(Ok)
//!     |                       |
//!     '----- it fails --------'--> Over(RolledBack) before the first worker is replaced, Over(Partial) after that
//! ```
//!
//! A worker is replaced when its successor is ready and not before, and the next one only when it has ended: never is there
//! a worker less than before, and never more than one more.

use std::ops::Range;

/// What is to be done next. Each but the last is answered by the event of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReloadStep<C> {
    /// Make a template of the present code; nothing when there is no zygote. Answered by [`Reload::renewed`].
    Renew,
    /// Start a successor of this slot's worker. Answered by [`Reload::started`].
    Start { slot: u32 },
    /// The successor serves. End the former worker once it has nothing to do. Answered by [`Reload::retired`].
    /// `settles`: the new code is known to work.
    Retire { slot: u32, settles: bool },
    /// It is over.
    Over(Result<(), ReloadFailure<C>>),
}

/// Why a reload did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReloadFailure<C> {
    /// Nothing was replaced: the former template, if there is one, is to be taken again.
    RolledBack { cause: C },
    /// These many workers were replaced, the others were not.
    Partial { replaced: u32, cause: C },
}

/// One reload.
#[derive(Debug)]
pub(crate) struct Reload {
    slot: u32,
    waiting: Range<u32>,
}

impl Reload {
    /// Begins with [`ReloadStep::Renew`].
    pub(crate) fn of(slots: u32) -> Self {
        debug_assert!(slots > 0, "a pool has at least one slot");
        Self { slot: 0, waiting: 1..slots }
    }

    pub(crate) fn renewed<C>(&self, outcome: Result<(), C>) -> ReloadStep<C> {
        match outcome {
            Ok(()) => ReloadStep::Start { slot: self.slot },
            Err(cause) => ReloadStep::Over(Err(ReloadFailure::RolledBack { cause })),
        }
    }

    pub(crate) fn started<C>(&self, outcome: Result<(), C>) -> ReloadStep<C> {
        match outcome {
            Ok(()) => ReloadStep::Retire { slot: self.slot, settles: self.slot == 0 },
            Err(cause) if self.slot == 0 => ReloadStep::Over(Err(ReloadFailure::RolledBack { cause })),
            Err(cause) => ReloadStep::Over(Err(ReloadFailure::Partial { replaced: self.slot, cause })),
        }
    }

    pub(crate) fn retired<C>(&mut self) -> ReloadStep<C> {
        match self.waiting.next() {
            Some(slot) => {
                self.slot = slot;
                ReloadStep::Start { slot }
            }
            None => ReloadStep::Over(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Step = ReloadStep<&'static str>;

    #[test]
    fn workers_are_replaced_one_after_the_other() {
        let mut reload = Reload::of(3);
        assert_eq!(reload.renewed(Ok(())), Step::Start { slot: 0 });
        for slot in 0..3 {
            assert_eq!(reload.started(Ok(())), Step::Retire { slot, settles: slot == 0 });
            let next = reload.retired();
            assert_eq!(next, if slot == 2 { Step::Over(Ok(())) } else { Step::Start { slot: slot + 1 } });
        }
    }

    #[test]
    fn a_template_or_a_first_worker_that_fails_changes_nothing() {
        let reload = Reload::of(2);
        let back = Step::Over(Err(ReloadFailure::RolledBack { cause: "typo" }));
        assert_eq!(reload.renewed(Err("typo")), back);
        assert_eq!(reload.started(Err("typo")), back);
    }

    #[test]
    fn a_later_worker_that_fails_stops_it() {
        let mut reload = Reload::of(3);
        let _: Step = reload.retired();
        let partial = ReloadFailure::Partial { replaced: 1, cause: "out of memory" };
        assert_eq!(reload.started(Err("out of memory")), Step::Over(Err(partial)));
    }
}
