//! The rules for requests that belong to a session: where they may go, and how a session ends.

use std::sync::Arc;
use std::time::Instant;

use super::machine::{Core, SHORTEST_RETRY};
use super::message::{Affinity, Command, Rejection, SessionEnd, SessionUse, WorkerId};
use super::queue::Claim;
use super::sessions::{Home, SessionId};
use crate::worker::Placement;

/// Where a new request may go as things are.
#[derive(Default)]
pub(super) struct Route {
    session: Option<(SessionId, Home)>,
    /// The idle worker that it gets.
    pub(super) idle: Option<WorkerId>,
    /// The slot whose worker alone may serve it.
    pub(super) only: Option<u32>,
}

impl<T, C: Clone> Core<T, C> {
    pub(super) fn route(&self, wanted: Option<&SessionUse>) -> Route {
        let any = self.slots.next_idle();
        let Some(wanted) = wanted else { return Route { idle: any, ..Route::default() } };
        let session = self.sessions.find(&wanted.session);
        let Some((_, Home::At(home))) = session else { return Route { session, idle: any, only: None } };
        let own = self.slots.idle_at(home);
        match wanted.affinity {
            Affinity::Hint => Route { session, idle: own.or(any), only: None },
            Affinity::StrictQueue | Affinity::StrictFailFast => {
                Route { session, idle: own, only: Some(home) }
            }
        }
    }

    /// Why a new request is refused for the sake of its session.
    pub(super) fn refuse(
        &mut self,
        wanted: Option<&SessionUse>,
        route: &Route,
        out: &mut Vec<Command<T, C>>,
    ) -> Option<Rejection<C>> {
        let SessionUse { session, affinity } = wanted?;
        match route.session {
            Some((id, Home::Lost)) => {
                self.forget(id, SessionEnd::Ended, out);
                Some(Rejection::SessionLost { session: session.clone() })
            }
            Some((_, Home::At(home))) if *affinity == Affinity::StrictFailFast && route.idle.is_none() => {
                let retry_after = self.work(1 + self.queue.len_for(home)).max(SHORTEST_RETRY);
                Some(Rejection::SessionBusy { session: session.clone(), retry_after })
            }
            None if !self.sessions.has_room() => Some(self.overloaded()),
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
            self.queue.bind(claim.session, slot);
        }
        Some(placement)
    }

    /// The session's user ends it.
    pub(super) fn end_session(
        &mut self,
        now: Instant,
        name: Arc<str>,
        item: T,
        out: &mut Vec<Command<T, C>>,
    ) {
        let found = self.sessions.find(&name).map(|(id, _)| id);
        let places = found.and_then(|id| self.sessions.end(id)).map(|(_, places)| places);
        let workers = self.workers(places.unwrap_or_default());
        let session = name.clone();
        out.push(Command::EndSession { workers, session, cause: SessionEnd::Ended, item: Some(item) });
        if let Some(ended) = found {
            self.begin_anew(now, ended, name, out);
        }
    }

    /// Those who wait begin the ended session anew. Idle workers may serve those of them who had to wait for its own.
    fn begin_anew(&mut self, now: Instant, ended: SessionId, name: Arc<str>, out: &mut Vec<Command<T, C>>) {
        let waiting = self.queue.len_of(ended);
        if waiting == 0 {
            return;
        }
        let next = self.sessions.begin(now, name);
        (0..waiting).for_each(|_| self.sessions.enter(next));
        self.queue.begin_anew(ended, next);
        while let Some(idle) = self.slots.next_idle()
            && self.queue.len_for_any() > 0
        {
            self.serve(now, idle.slot, out);
        }
    }

    /// The slot's worker is gone, if it had one, and with it the state of the sessions that had their home there.
    ///
    /// Whoever waits for one of those counted on that state, also where another worker might have served it; they all
    /// hear of the loss, so whoever comes next begins anew. Where nobody waits, the next one is to hear of it.
    pub(super) fn worker_gone(&mut self, now: Instant, slot: u32, out: &mut Vec<Command<T, C>>) {
        for id in self.sessions.worker_gone(now, slot) {
            if self.queue.len_of(id) == 0 {
                continue;
            }
            // The places' end comes first: nothing else is said of a session after its waiters have heard.
            let Some(session) = self.forget(id, SessionEnd::Ended, out) else { continue };
            while let Some(waiter) = self.queue.pop_of(id) {
                let reason = Rejection::SessionLost { session: session.clone() };
                self.send_away(now, waiter, reason, out);
            }
        }
    }

    /// A worker from before a restart of the pool actor has state of these. The first to name a session is its home:
    /// which one was it is not known any more.
    pub(super) fn adopt(
        &mut self,
        now: Instant,
        worker: WorkerId,
        names: Vec<Arc<str>>,
        out: &mut Vec<Command<T, C>>,
    ) {
        // Those already known come first: whoever is evicted for a new one is then evicted here too.
        let (known, new): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| self.sessions.find(name).is_some());
        for name in known.into_iter().chain(new) {
            let id = match self.sessions.find(&name) {
                Some((id, _)) => id,
                None if self.sessions.has_room() => {
                    self.make_room(out);
                    self.sessions.begin(now, name)
                }
                None => {
                    let (workers, cause) = (vec![worker], SessionEnd::Evicted);
                    out.push(Command::EndSession { workers, session: name, cause, item: None });
                    continue;
                }
            };
            if self.sessions.adopted(now, id, worker.slot) == Some(Placement::New) {
                self.queue.bind(id, worker.slot);
            }
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
