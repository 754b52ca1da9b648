//! The rules for requests that belong to a session: where they may go, and how a session ends.

use std::sync::Arc;
use std::time::Instant;

use super::machine::{Core, SHORTEST_RETRY};
use super::message::{Affinity, Command, Rejection, RequestId, SessionEnd, SessionUse, WorkerId};
use super::queue::Claim;
use super::sessions::{Owner, SessionId};
use crate::error::OverloadCause;
use crate::worker::Placement;

/// Where a new request may go now.
#[derive(Default)]
pub(super) struct Route {
    session: Option<(SessionId, Owner)>,
    /// The worker that takes it at once.
    pub(super) worker: Option<WorkerId>,
    /// The only slot whose worker may serve it.
    pub(super) pinned_to: Option<u32>,
}

impl<T, C: Clone> Core<T, C> {
    /// While a shared request waits, a new request gets no worker at once: the older one comes first.
    pub(super) fn route(&self, wanted: Option<&SessionUse>, exclusive: bool) -> Route {
        let nobody_waits = self.queue.first_shared().is_none();
        let worker =
            |slot: Option<u32>| slot.filter(|_| nobody_waits).and_then(|slot| self.slots.newest(slot));
        let any = || worker(self.available.next(exclusive));
        let Some(wanted) = wanted else { return Route { worker: any(), ..Route::default() } };
        let session = self.sessions.find(&wanted.session);
        let Some((_, Owner::At(owner))) = session else {
            return Route { session, worker: any(), pinned_to: None };
        };
        let own = worker(Some(owner).filter(|owner| self.available.is_available(*owner, exclusive)));
        match wanted.affinity {
            Affinity::Hint => Route { session, worker: own.or_else(any), pinned_to: None },
            Affinity::StrictQueue | Affinity::StrictFailFast => {
                Route { session, worker: own, pinned_to: Some(owner) }
            }
        }
    }

    /// Why a new request is rejected because of its session.
    pub(super) fn refuse(
        &mut self,
        request: RequestId,
        wanted: Option<&SessionUse>,
        route: &Route,
        out: &mut Vec<Command<T, C>>,
    ) -> Option<Rejection<C>> {
        let SessionUse { session, affinity } = wanted?;
        match route.session {
            Some((id, Owner::Lost)) => Some(self.tell_loss(id, session.clone(), request, out)),
            Some((_, Owner::At(owner)))
                if *affinity == Affinity::StrictFailFast && route.worker.is_none() =>
            {
                let in_flight = self.config.in_flight;
                let ahead = in_flight as usize + self.queue.pinned_len(owner);
                let retry_after = (self.work(ahead) / in_flight).max(SHORTEST_RETRY);
                Some(Rejection::SessionBusy { session: session.clone(), retry_after })
            }
            None if !self.sessions.has_room() => Some(self.overloaded(OverloadCause::MaxSessions)),
            Some(_) | None => None,
        }
    }

    /// Counts an accepted request as a use of its session. A session that does not exist begins; if there are too many, the
    /// least recently used one is evicted.
    pub(super) fn enter(&mut self, now: Instant, wanted: SessionUse, out: &mut Vec<Command<T, C>>) -> Claim {
        let SessionUse { session, affinity } = wanted;
        let session = match self.sessions.find(&session) {
            Some((id, _)) => id,
            None => {
                self.make_room(out);
                self.sessions.begin(now, session)
            }
        };
        self.sessions.enter(session);
        Claim { session, strict: affinity != Affinity::Hint }
    }

    fn make_room(&mut self, out: &mut Vec<Command<T, C>>) {
        while let Some(session) = self.sessions.surplus() {
            self.forget(session, SessionEnd::Evicted, out);
        }
    }

    /// The slot's worker serves a request of the session.
    pub(super) fn settle(&mut self, claim: Claim, slot: u32) -> Option<Placement> {
        let placement = self.sessions.assigned(claim.session, slot)?;
        if placement == Placement::New {
            self.bind(claim.session, slot);
        }
        Some(placement)
    }

    /// Undoes the assignment of a session's request to the slot's worker.
    pub(super) fn unsettle(&mut self, now: Instant, session: SessionId, slot: u32) {
        let Some(owner) = self.sessions.unassigned(now, session, slot) else { return };
        self.queue.unbind(session);
        if let Owner::At(owner) = owner {
            self.bind(session, owner);
        }
    }

    fn bind(&mut self, session: SessionId, slot: u32) {
        self.queue.bind(session, slot);
        self.dirty.push(slot);
    }

    /// A caller ends the session.
    pub(super) fn end_session(
        &mut self,
        now: Instant,
        name: Arc<str>,
        item: T,
        out: &mut Vec<Command<T, C>>,
    ) {
        let found = self.sessions.find(&name);
        let places = found.and_then(|(id, _)| self.sessions.end(id)).map(|(_, places)| places);
        let workers = self.workers(places.unwrap_or_default());
        let session = name.clone();
        out.push(Command::EndSession { workers, session, cause: SessionEnd::Ended, item: Some(item) });
        if let Some((ended, owner)) = found {
            self.begin_anew(now, ended, name);
            if let Owner::At(slot) = owner {
                self.dirty.push(slot);
            }
        }
    }

    /// The requests that wait begin the ended session anew. Any worker may serve them.
    fn begin_anew(&mut self, now: Instant, ended: SessionId, name: Arc<str>) {
        let waiting = self.queue.len_of(ended);
        if waiting == 0 {
            return;
        }
        let next = self.sessions.begin(now, name);
        (0..waiting).for_each(|_| self.sessions.enter(next));
        self.queue.begin_anew(ended, next);
    }

    /// The slot's worker has ended, if it had one, and the state of the sessions that it owned is lost.
    ///
    /// The waiting requests of such a session relied on that state, even where another worker could have served them: all of
    /// them are rejected with the loss.
    pub(super) fn worker_gone(&mut self, now: Instant, slot: u32, out: &mut Vec<Command<T, C>>) {
        for assignment in self.slots.forget_assignments(slot) {
            self.leave(now, assignment.session);
        }
        self.dirty.push(slot);
        for id in self.sessions.worker_gone(slot) {
            let Some(session) = self.sessions.name(id) else { continue };
            while let Some(queued) = self.queue.pop_of(id) {
                let reason = self.tell_loss(id, session.clone(), queued.request, out);
                self.reject_queued(now, queued, reason, out);
            }
        }
    }

    /// The rejection of a request whose session is lost. The other workers drop their state of the session first.
    fn tell_loss(
        &mut self,
        id: SessionId,
        session: Arc<str>,
        request: RequestId,
        out: &mut Vec<Command<T, C>>,
    ) -> Rejection<C> {
        let places = self.sessions.tell_loss(id, request);
        if !places.is_empty() {
            let (workers, session, cause) = (self.workers(places), session.clone(), SessionEnd::Ended);
            out.push(Command::EndSession { workers, session, cause, item: None });
        }
        Rejection::SessionLost { session }
    }

    /// The caller of this request has heard that its session is lost: the next request begins the session anew.
    pub(super) fn loss_heard(&mut self, request: RequestId, out: &mut Vec<Command<T, C>>) {
        if let Some(id) = self.sessions.take_told(request) {
            self.forget(id, SessionEnd::Ended, out);
        }
    }

    /// Ends a session that no caller has ended, tells the workers that have state of it, and returns its name.
    pub(super) fn forget(
        &mut self,
        id: SessionId,
        cause: SessionEnd,
        out: &mut Vec<Command<T, C>>,
    ) -> Option<Arc<str>> {
        let (session, places) = self.sessions.end(id)?;
        if !places.is_empty() {
            let (workers, session) = (self.workers(places), session.clone());
            out.push(Command::EndSession { workers, session, cause, item: None });
        }
        Some(session)
    }

    fn workers(&self, slots: impl IntoIterator<Item = u32>) -> Vec<WorkerId> {
        slots.into_iter().filter_map(|slot| self.slots.newest(slot)).collect()
    }
}
