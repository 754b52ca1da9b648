//! The rules for requests that belong to a session: where they may go, and how a session ends.

use std::sync::Arc;
use std::time::Instant;

use super::machine::{Core, SHORTEST_RETRY};
use super::message::{Affinity, Command, Rejection, RequestId, SessionEnd, SessionUse, WorkerId};
use super::queue::Claim;
use super::sessions::{Home, SessionId};
use crate::error::OverloadCause;
use crate::worker::Placement;

/// Where a new request may go as things are.
#[derive(Default)]
pub(super) struct Route {
    session: Option<(SessionId, Home)>,
    /// The worker that it gets at once.
    pub(super) worker: Option<WorkerId>,
    /// The slot whose worker alone may serve it.
    pub(super) only: Option<u32>,
}

impl<T, C: Clone> Core<T, C> {
    /// While anybody waits in the common line, every free place is owed to somebody who has waited longer.
    pub(super) fn route(&self, wanted: Option<&SessionUse>, exclusive: bool) -> Route {
        let nobody_waits = self.queue.first_for_any().is_none();
        let worker =
            |slot: Option<u32>| slot.filter(|_| nobody_waits).and_then(|slot| self.slots.newest(slot));
        let any = || worker(self.openings.next(exclusive));
        let Some(wanted) = wanted else { return Route { worker: any(), ..Route::default() } };
        let session = self.sessions.find(&wanted.session);
        let Some((_, Home::At(home))) = session else { return Route { session, worker: any(), only: None } };
        let own = worker(Some(home).filter(|home| self.openings.is_open(*home, exclusive)));
        match wanted.affinity {
            Affinity::Hint => Route { session, worker: own.or_else(any), only: None },
            Affinity::StrictQueue | Affinity::StrictFailFast => {
                Route { session, worker: own, only: Some(home) }
            }
        }
    }

    /// Why a new request is refused for the sake of its session.
    pub(super) fn refuse(
        &mut self,
        request: RequestId,
        wanted: Option<&SessionUse>,
        route: &Route,
        out: &mut Vec<Command<T, C>>,
    ) -> Option<Rejection<C>> {
        let SessionUse { session, affinity } = wanted?;
        match route.session {
            Some((id, Home::Lost)) => Some(self.tell_loss(id, session.clone(), request, out)),
            Some((_, Home::At(home))) if *affinity == Affinity::StrictFailFast && route.worker.is_none() => {
                let in_flight = self.config.in_flight;
                let ahead = in_flight as usize + self.queue.len_for(home);
                let retry_after = (self.work(ahead) / in_flight).max(SHORTEST_RETRY);
                Some(Rejection::SessionBusy { session: session.clone(), retry_after })
            }
            None if !self.sessions.has_room() => Some(self.overloaded(OverloadCause::MaxSessions)),
            Some(_) | None => None,
        }
    }

    /// An accepted request's part in its session, which begins if there is none; the one that was not used for longest
    /// makes room.
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

    /// A request of the session did not come to the slot's worker after all.
    pub(super) fn unsettle(&mut self, now: Instant, session: SessionId, slot: u32) {
        let Some(home) = self.sessions.unassigned(now, session, slot) else { return };
        self.queue.unbind(session);
        if let Home::At(home) = home {
            self.bind(session, home);
        }
    }

    fn bind(&mut self, session: SessionId, slot: u32) {
        self.queue.bind(session, slot);
        self.touched.push(slot);
    }

    /// The session's user ends it.
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
        if let Some((ended, home)) = found {
            self.begin_anew(now, ended, name);
            if let Home::At(slot) = home {
                self.touched.push(slot);
            }
        }
    }

    /// Those who wait begin the ended session anew. Any worker may serve those of them who had to wait for its own.
    fn begin_anew(&mut self, now: Instant, ended: SessionId, name: Arc<str>) {
        let waiting = self.queue.len_of(ended);
        if waiting == 0 {
            return;
        }
        let next = self.sessions.begin(now, name);
        (0..waiting).for_each(|_| self.sessions.enter(next));
        self.queue.begin_anew(ended, next);
    }

    /// The slot's worker is gone, if it had one, and with it the state of the sessions that had their home there.
    ///
    /// The requests that wait for such a session counted on that state, even where another worker might have served them:
    /// all of them are told of the loss.
    pub(super) fn worker_gone(&mut self, now: Instant, slot: u32, out: &mut Vec<Command<T, C>>) {
        for assignment in self.slots.forget_assignments(slot) {
            self.leave(now, assignment.session);
        }
        self.touched.push(slot);
        for id in self.sessions.worker_gone(slot) {
            let Some(session) = self.sessions.name(id) else { continue };
            while let Some(waiter) = self.queue.pop_of(id) {
                let reason = self.tell_loss(id, session.clone(), waiter.request, out);
                self.send_away(now, waiter, reason, out);
            }
        }
    }

    /// What a request of a lost session is told. The other workers drop what they have of the session before that.
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

    /// The caller of this request knows of its session's loss: the next request begins the session anew.
    pub(super) fn loss_heard(&mut self, request: RequestId, out: &mut Vec<Command<T, C>>) {
        if let Some(id) = self.sessions.take_told(request) {
            self.forget(id, SessionEnd::Ended, out);
        }
    }

    /// Ends a session of our own accord, and tells the workers that have something of it; returns its name.
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
