//! Who gets which worker: the rules of the lines.

use std::time::Instant;

use super::machine::Core;
use super::message::{Command, RequestId, WorkerId};
use super::queue::Waiter;
use super::sessions::Home;
use super::slots::Assignment;
use crate::worker::Placement;

impl<T, C: Clone> Core<T, C> {
    /// Hands out all that can be. Between two events, whoever waits is kept waiting by every worker that may serve it:
    /// by one that has no free place, or that takes nobody until it is empty, for the sake of one who wants it alone
    /// and has waited longer.
    pub(super) fn hand_out(&mut self, now: Instant, out: &mut Vec<Command<T, C>>) {
        loop {
            let first = self.queue.first_for_any().map(|first| first.ticket);
            self.openings.common_line_begins_with(first, &mut self.touched);
            if let Some(slot) = self.touched.pop() {
                self.serve_own_line(now, slot, out);
            } else if first.is_none() || !self.serve_common_line(now, out) {
                return;
            }
        }
    }

    /// Serves those who wait for the slot's worker alone, and longer than whoever is first in the common line.
    fn serve_own_line(&mut self, now: Instant, slot: u32, out: &mut Vec<Command<T, C>>) {
        while let Some(first) = self.queue.first_for(slot)
            && self.queue.first_for_any().is_none_or(|any| first.ticket < any.ticket)
            && self.slots.takes(slot, first.exclusive)
            && let Some(worker) = self.slots.newest(slot)
            && let Some(waiter) = self.queue.remove_ticket(first.ticket)
        {
            self.assign(now, worker, waiter, out);
        }
        self.relist(slot);
    }

    /// Serves the first of the common line, if any worker can.
    fn serve_common_line(&mut self, now: Instant, out: &mut Vec<Command<T, C>>) -> bool {
        let Some(first) = self.queue.first_for_any() else { return false };
        let home = first.claim.and_then(|claim| match self.sessions.home(claim.session) {
            Some(Home::At(home)) if self.openings.is_open(home, first.exclusive) => Some(home),
            _ => None,
        });
        let Some(slot) = home.or_else(|| self.openings.next(first.exclusive)) else { return false };
        let Some(worker) = self.slots.newest(slot) else { return false };
        let Some(waiter) = self.queue.remove_ticket(first.ticket) else { return false };
        self.assign(now, worker, waiter, out);
        true
    }

    #[inline]
    pub(super) fn assign(
        &mut self,
        now: Instant,
        worker: WorkerId,
        waiter: Waiter<T>,
        out: &mut Vec<Command<T, C>>,
    ) {
        let placement = self.take_place(now, worker, &waiter);
        let Waiter { request, item, .. } = waiter;
        out.push(Command::Assign { worker, request, item, placement });
    }

    fn take_place(&mut self, now: Instant, worker: WorkerId, waiter: &Waiter<T>) -> Option<Placement> {
        let Waiter { request, claim, exclusive, .. } = *waiter;
        let session = claim.map(|claim| claim.session);
        self.slots.assigned(now, worker.slot, exclusive, Assignment { request, session, begun: now });
        self.openings.used(worker.slot);
        self.totals.assigned += 1;
        let placement = claim.and_then(|claim| self.settle(claim, worker.slot));
        self.relist(worker.slot);
        placement
    }

    /// There was nobody to give the assigned worker to: nothing has run, and nothing is left of the assignment.
    pub(super) fn unassigned(&mut self, now: Instant, worker: WorkerId, request: RequestId) {
        let Some(assignment) = self.slots.freed(now, worker, request) else { return };
        self.totals.assigned -= 1;
        self.totals.abandoned += 1;
        if let Some(session) = assignment.session {
            self.unsettle(now, session, worker.slot);
        }
        self.touched.push(worker.slot);
    }

    /// Whether the slot's worker has a free place, or how its own line begins, may have changed.
    pub(super) fn relist(&mut self, slot: u32) {
        let own = self.queue.first_for(slot).map(|first| first.ticket);
        self.openings.update(slot, self.slots.load_of_open(slot), own);
    }
}
