//! How many partitions are in use: one operation in progress, like any other.

use super::{
    super::{Cause, ChildError},
    child::{Down, Key},
    event::{Answer, Command},
    machine::Core,
    plan::{Plan, Work},
};

/// The caller of the resize in progress, and its result so far.
#[derive(Debug)]
pub(super) struct Resizing<C> {
    pub(super) caller: C,
    /// The wanted size; after a failed start, the size that is in use instead.
    size: usize,
    error: Option<ChildError>,
}

impl<T, C> Core<T, C> {
    pub(super) fn resize(&mut self, size: usize, caller: C, out: &mut Vec<Command<T, C>>) {
        let max = self.options.partitions.unwrap_or(0);
        let refused = if size > max { Err(ChildError::MaxChildren { max }) } else { self.check_up() };
        match refused {
            Err(error) => out.push(Command::Reply { caller, result: Err(error) }),
            Ok(()) => self.queue.push_back(Work::Resize { size, caller }),
        }
    }

    /// The partitions are the children that were declared, so that they have their numbers as orders.
    pub(super) fn perform_resize(&mut self, size: usize, caller: C, out: &mut Vec<Command<T, C>>) {
        let max = self.options.partitions.unwrap_or(0);
        // All partitions out of use are stopped: a caller may have started some of them again.
        let stops = size as u64..max as u64;
        let starts = self.in_use.min(size) as u64..size as u64;
        if size < self.in_use {
            // Out of use first, so that no new message goes to one that stops.
            out.push(Command::Resized(size));
        }
        self.resizing = Some(Resizing { caller, size, error: None });
        self.plan = Some(Plan::resize(stops, starts));
    }

    /// A partition that cannot start: those before it are in use.
    pub(super) fn resize_failed(&mut self, key: Key, cause: Cause, out: &mut Vec<Command<T, C>>) {
        self.mark_down(key, Down::Terminated, out);
        if let Some(resizing) = &mut self.resizing {
            resizing.size = usize::try_from(key.order).unwrap_or(resizing.size);
            resizing.error = Some(ChildError::Start { cause, retrying: false });
        }
        if let Some(plan) = &mut self.plan {
            plan.abandon();
        }
    }

    /// A partition that cannot be killed is out of use, and the caller gets the error.
    pub(super) fn resize_met_unkillable(&mut self, key: Key) {
        if self.plan.as_ref().is_some_and(|plan| plan.waiting_for == Some(key))
            && let Some(resizing) = &mut self.resizing
        {
            resizing.error = Some(ChildError::Unkillable);
        }
    }

    pub(super) fn resized(&mut self, out: &mut Vec<Command<T, C>>) {
        let Some(Resizing { caller, size, error }) = self.resizing.take() else { return };
        let former = std::mem::replace(&mut self.in_use, size);
        out.push(Command::Resized(size));
        let result = error.map_or(Ok(Answer::Resized { former }), Err);
        out.push(Command::Reply { caller, result });
    }
}
