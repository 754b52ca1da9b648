//! Dispatch: which queued request goes to which worker.

use std::time::Instant;

use super::machine::Core;
use super::message::{Command, RequestId, WorkerId};
use super::queue::QueuedRequest;
use super::sessions::Owner;
use super::slots::Assignment;
use crate::worker::Placement;

impl<T, C: Clone> Core<T, C> {
    /// Dispatches until nothing more can be. After it, each queued request waits because every worker that may serve it has
    /// no free capacity, or is kept free for an older exclusive request.
    pub(super) fn dispatch(&mut self, now: Instant, out: &mut Vec<Command<T, C>>) {
        loop {
            let first = self.queue.first_shared().map(|first| first.ticket);
            self.available.shared_queue_begins_with(first, &mut self.dirty);
            if let Some(slot) = self.dirty.pop() {
                self.serve_pinned(now, slot, out);
            } else if first.is_none() || !self.serve_shared(now, out) {
                return;
            }
        }
    }

    /// Serves the slot's pinned requests that are older than the first shared one.
    fn serve_pinned(&mut self, now: Instant, slot: u32, out: &mut Vec<Command<T, C>>) {
        while let Some(first) = self.queue.first_pinned(slot)
            && self.queue.first_shared().is_none_or(|any| first.ticket < any.ticket)
            && self.slots.takes(slot, first.exclusive)
            && let Some(worker) = self.slots.newest(slot)
            && let Some(queued) = self.queue.remove_ticket(first.ticket)
        {
            self.assign(now, worker, queued, out);
        }
        self.update_available(slot);
    }

    /// Serves the first shared request, if a worker is available.
    fn serve_shared(&mut self, now: Instant, out: &mut Vec<Command<T, C>>) -> bool {
        let Some(first) = self.queue.first_shared() else { return false };
        let owner = first.claim.and_then(|claim| match self.sessions.owner(claim.session) {
            Some(Owner::At(owner)) if self.available.is_available(owner, first.exclusive) => Some(owner),
            _ => None,
        });
        let Some(slot) = owner.or_else(|| self.available.next(first.exclusive)) else { return false };
        let Some(worker) = self.slots.newest(slot) else { return false };
        let Some(queued) = self.queue.remove_ticket(first.ticket) else { return false };
        self.assign(now, worker, queued, out);
        true
    }

    #[inline]
    pub(super) fn assign(
        &mut self,
        now: Instant,
        worker: WorkerId,
        queued: QueuedRequest<T>,
        out: &mut Vec<Command<T, C>>,
    ) {
        let placement = self.record_assignment(now, worker, &queued);
        let QueuedRequest { request, item, .. } = queued;
        out.push(Command::Assign { worker, request, item, placement });
    }

    fn record_assignment(
        &mut self,
        now: Instant,
        worker: WorkerId,
        queued: &QueuedRequest<T>,
    ) -> Option<Placement> {
        let QueuedRequest { request, claim, exclusive, .. } = *queued;
        let session = claim.map(|claim| claim.session);
        self.slots.assigned(now, worker.slot, exclusive, Assignment { request, session, begun: now });
        self.available.used(worker.slot);
        self.totals.assigned += 1;
        let placement = claim.and_then(|claim| self.settle(claim, worker.slot));
        self.update_available(worker.slot);
        placement
    }

    /// Undoes an assignment that never reached the worker's Python.
    pub(super) fn unassigned(&mut self, now: Instant, worker: WorkerId, request: RequestId) {
        let Some(assignment) = self.slots.freed(now, worker, request) else { return };
        self.totals.assigned -= 1;
        self.totals.abandoned += 1;
        if let Some(session) = assignment.session {
            self.unsettle(now, session, worker.slot);
        }
        self.dirty.push(worker.slot);
    }

    /// The free capacity of the slot's worker, or its first pinned request, may have changed.
    pub(super) fn update_available(&mut self, slot: u32) {
        let own = self.queue.first_pinned(slot).map(|first| first.ticket);
        self.available.update(slot, self.slots.load_if_free(slot), own);
    }
}
