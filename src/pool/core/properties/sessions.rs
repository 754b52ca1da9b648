//! The model's part about sessions: a list of them, searched from end to end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;

use super::super::status::Counts;
use super::super::{Affinity, RequestId, SessionEnd, SessionUse, WorkerId};
use super::model::Verdict;
use super::model::{Model, Outcome, Served, nobody};
use super::simulator::Simulator;
use crate::error::OverloadCause;
use crate::worker::Placement;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Owner {
    Nowhere,
    At(u32),
    Lost,
}

struct Session {
    /// Tells it from others of its name.
    begun: u64,
    owner: Owner,
    /// All workers that served it, the dead included, and how often.
    places: BTreeMap<WorkerId, u32>,
    /// When it was used last, and a number that tells the order of those.
    last_used: Option<(Instant, u64)>,
}

/// The end of a session, as it is to be said or was.
#[derive(Debug, PartialEq)]
pub(super) struct End {
    pub(super) session: Arc<str>,
    pub(super) cause: SessionEnd,
    pub(super) workers: Vec<WorkerId>,
    pub(super) by_user: bool,
}

#[derive(Default)]
pub(super) struct Sessions {
    known: BTreeMap<Arc<str>, Session>,
    /// Numbers for beginnings and for uses.
    count: u64,
    /// What is to be said of ended sessions.
    due: Vec<End>,
    /// The waiting requests that are to be told that their session is lost.
    pub(super) losing: BTreeSet<RequestId>,
    /// The requests that were told so, and of which beginning of their session.
    told: BTreeMap<RequestId, u64>,
}

impl Sessions {
    fn next(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    fn begin(&mut self, name: Arc<str>) -> &mut Session {
        let begun = self.next();
        let session = Session { begun, owner: Owner::Nowhere, places: BTreeMap::new(), last_used: None };
        self.known.insert(name.clone(), session);
        self.known.get_mut(&name).expect("just inserted")
    }
}

impl Model {
    /// The slot that the session is bound to.
    pub(super) fn home_of(&self, name: &str) -> Option<u32> {
        match self.sessions.known.get(name)?.owner {
            Owner::At(slot) => Some(slot),
            Owner::Nowhere | Owner::Lost => None,
        }
    }

    pub(super) fn knows_no_session(&self) -> bool {
        self.sessions.known.is_empty()
    }

    fn in_use(&self, name: &str) -> bool {
        let Some(session) = self.sessions.known.get(name) else { return false };
        self.waiting.iter().any(|waiter| waiter.is_of(name))
            || self.slots.iter().flat_map(|slot| &slot.serving).any(|served| {
                served.session.as_ref().is_some_and(|(it, begun)| **it == *name && *begun == session.begun)
            })
    }

    /// The one at rest that was not used for longest.
    fn oldest(&self) -> Option<(Arc<str>, Instant)> {
        let at_rest = self.sessions.known.iter().filter(|(name, _)| !self.in_use(name));
        let used = at_rest.filter_map(|(name, it)| Some((it.last_used?, name)));
        used.min_by_key(|((_, turn), _)| *turn).map(|((at, _), name)| (name.clone(), at))
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.oldest().map(|(_, last_used)| last_used + self.config.session_ttl)
    }

    fn living_places(&self, name: &str) -> Vec<WorkerId> {
        let places = self.sessions.known.get(name).map(|session| session.places.keys().copied());
        places.into_iter().flatten().filter(|worker| self.is_alive(*worker)).collect()
    }

    /// The lost sessions that nobody need be told of go without a word when their time is over.
    pub(super) fn marks_expire(&mut self, now: Instant) {
        while let Some((name, last_used)) = self.oldest()
            && last_used + self.config.session_ttl <= now
            && self.living_places(&name).is_empty()
        {
            self.seen.insert("mark expired");
            self.sessions.known.remove(&name);
        }
    }

    /// The session is over without its user's doing; somebody must be told, if there is anybody.
    fn forgets(&mut self, name: &Arc<str>, cause: SessionEnd) {
        let workers = self.living_places(name);
        self.sessions.known.remove(name);
        if !workers.is_empty() {
            self.sessions.due.push(End { session: name.clone(), cause, workers, by_user: false });
        }
    }

    /// A request is told of the loss; the workers that helped out are to drop what they have of the session.
    fn tells_loss(&mut self, name: &Arc<str>, request: RequestId) {
        let workers = self.living_places(name);
        let session = self.sessions.known.get_mut(name).expect("known");
        session.places.clear();
        self.sessions.told.insert(request, session.begun);
        if !workers.is_empty() {
            self.seen.insert("session lost with places");
            let (session, cause) = (name.clone(), SessionEnd::Ended);
            self.sessions.due.push(End { session, cause, workers, by_user: false });
        }
    }

    /// The caller of a request has heard of the loss.
    pub(super) fn loss_heard(&mut self, request: RequestId) {
        let Some(begun) = self.sessions.told.remove(&request) else { return };
        let before = self.sessions.known.len();
        self.sessions.known.retain(|_, session| session.begun != begun);
        self.seen.insert(if self.sessions.known.len() < before { "loss heard" } else { "loss heard again" });
    }

    /// The caller of a request has left: it hears nothing more.
    pub(super) fn loss_not_heard(&mut self, request: RequestId) {
        if self.sessions.told.remove(&request).is_some() {
            self.seen.insert("loss not heard");
        }
    }

    /// A request that was told of a loss.
    pub(super) fn told_of_loss(&self, which: usize) -> Option<RequestId> {
        self.sessions.told.keys().nth(which.checked_rem(self.sessions.told.len())?).copied()
    }

    pub(super) fn refused_for_its_session(
        &mut self,
        request: RequestId,
        wanted: &SessionUse,
        served: bool,
    ) -> Option<Outcome> {
        let SessionUse { session: name, affinity } = wanted;
        match self.sessions.known.get(name).map(|session| session.owner) {
            Some(Owner::Lost) => {
                self.tells_loss(name, request);
                Some(Outcome::SessionLost)
            }
            Some(Owner::At(_)) if *affinity == Affinity::StrictFailFast && !served => {
                Some(Outcome::SessionBusy)
            }
            None if !self.has_room() => {
                self.seen.insert("sessions full");
                Some(Outcome::Overloaded(OverloadCause::MaxSessions))
            }
            _ => None,
        }
    }

    fn has_room(&self) -> bool {
        self.sessions.known.len() < self.config.max_sessions || self.oldest().is_some()
    }

    fn makes_room(&mut self) {
        if self.sessions.known.len() == self.config.max_sessions
            && let Some((oldest, _)) = self.oldest()
        {
            self.seen.insert("session evicted");
            self.forgets(&oldest, SessionEnd::Evicted);
        }
    }

    pub(super) fn enters(&mut self, name: &Arc<str>) {
        if !self.sessions.known.contains_key(name) {
            self.makes_room();
            self.sessions.begin(name.clone());
        }
    }

    /// A use of the session is over: if it was the last, its time begins.
    pub(super) fn rests(&mut self, now: Instant, name: &Arc<str>) {
        if self.in_use(name) {
            return;
        }
        let turn = self.sessions.next();
        let Some(session) = self.sessions.known.get_mut(name) else { return };
        session.last_used = Some((now, turn));
        if session.owner == Owner::Nowhere {
            self.sessions.known.remove(name);
        }
    }

    /// A request that a worker served is over.
    pub(super) fn finishes(&mut self, now: Instant, served: Served) {
        let Some((name, begun)) = served.session else { return };
        if self.sessions.known.get(&name).is_some_and(|session| session.begun == begun) {
            self.rests(now, &name);
        }
    }

    /// The worker did not serve the session after all.
    pub(super) fn takes_place_back(&mut self, worker: WorkerId, name: &str, begun: u64) {
        let Some(session) = self.sessions.known.get_mut(name).filter(|it| it.begun == begun) else { return };
        // None once the session is lost and the worker has been told to drop its state.
        let Some(times) = session.places.get_mut(&worker) else { return };
        *times -= 1;
        if *times > 0 {
            return;
        }
        session.places.remove(&worker);
        let at_home = session.owner == Owner::At(worker.slot);
        if at_home {
            let instead = self.living_places(name).first().map(|it| it.slot);
            if instead.is_none() {
                self.seen.insert("session unbound");
            }
            self.sessions.known.get_mut(name).expect("known").owner =
                instead.map_or(Owner::Nowhere, Owner::At);
        }
    }

    /// The worker that the slot may have had is no more.
    pub(super) fn worker_gone(&mut self, now: Instant, slot: u32) {
        self.all_finish(now, slot);
        let at_home = self.sessions.known.iter().filter(|(_, it)| it.owner == Owner::At(slot));
        for name in at_home.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            let waiting = self.waiting.iter().filter(|it| it.is_of(&name)).map(|it| it.request);
            let waiting: Vec<RequestId> = waiting.collect();
            self.sessions.known.get_mut(&name).expect("known").owner = Owner::Lost;
            for request in waiting {
                self.tells_loss(&name, request);
                self.sessions.losing.insert(request);
            }
        }
    }

    /// The session's user ends it.
    pub(super) fn hear_end_of(&mut self, name: &Arc<str>) {
        let workers = self.living_places(name);
        let waits = self.waiting.iter().any(|waiter| waiter.is_of(name));
        self.seen.insert(match (self.sessions.known.contains_key(name), waits) {
            (false, _) => "session ended when unknown",
            (true, true) => "session ended while one waits",
            (true, false) if self.in_use(name) => "session ended in use",
            (true, false) => "session ended",
        });
        self.sessions.known.remove(name);
        if waits {
            self.sessions.begin(name.clone());
        }
        let (session, cause) = (name.clone(), SessionEnd::Ended);
        self.sessions.due.push(End { session, cause, workers, by_user: true });
    }

    /// Checks what the core says of where an assigned request went. The worker has the session's state by now.
    pub(super) fn check_placement(
        &mut self,
        worker: WorkerId,
        wanted: Option<SessionUse>,
        placement: Option<Placement>,
        simulator: &Simulator,
    ) -> Verdict {
        let Some(SessionUse { session: name, affinity }) = wanted else {
            prop_assert_eq!(placement, None);
            return Ok(());
        };
        let elsewhere = self.with_state_of(&name, worker, simulator);
        let session = self.sessions.known.get_mut(&name).expect("assigned, so known");
        let (expected, how) = match session.owner {
            Owner::Nowhere => (Placement::New, "session new"),
            Owner::At(slot) if slot == worker.slot => (Placement::Kept, "session kept"),
            Owner::At(_) => (Placement::Elsewhere, "session elsewhere"),
            Owner::Lost => return Err(TestCaseError::fail("served after the loss")),
        };
        prop_assert_eq!(placement, Some(expected));
        prop_assert!(affinity == Affinity::Hint || expected != Placement::Elsewhere);
        if expected == Placement::New {
            prop_assert_eq!(elsewhere, &[], "its state lives");
            session.owner = Owner::At(worker.slot);
        }
        *session.places.entry(worker).or_default() += 1;
        let begun = session.begun;
        let served = self.slots[worker.slot as usize].serving.last_mut().expect("just assigned");
        served.session = Some((name, begun));
        self.seen.insert(how);
        Ok(())
    }

    /// The living workers known to the core, but for this one, that really have state of the session.
    fn with_state_of(&self, name: &str, except: WorkerId, simulator: &Simulator) -> Vec<WorkerId> {
        let workers = (0..self.config.size).map(|slot| self.newest(slot));
        workers.filter(|it| *it != except && self.is_alive(*it) && simulator.holds(*it, name)).collect()
    }

    /// Checks what the core says of a session's end.
    pub(super) fn check_end(&mut self, now: Instant, said: End, simulator: &mut Simulator) -> Verdict {
        if said.cause == SessionEnd::Expired {
            self.marks_expire(now);
            let Some((name, last_used)) = self.oldest() else {
                return Err(TestCaseError::fail("no session is at rest"));
            };
            prop_assert!(last_used + self.config.session_ttl <= now, "expired early");
            self.seen.insert("session expired");
            self.forgets(&name, SessionEnd::Expired);
        }
        let Some(at) = self.sessions.due.iter().position(|due| *due == said) else {
            return Err(TestCaseError::fail(format!("{said:?} of {:?}", self.sessions.due)));
        };
        self.sessions.due.remove(at);
        for worker in &said.workers {
            prop_assert!(simulator.ends(*worker, &said.session), "{worker:?} has nothing of {said:?}");
        }
        prop_assert_eq!(
            self.with_state_of(&said.session, nobody(u32::MAX), simulator),
            &[],
            "not told: {:?}",
            said
        );
        Ok(())
    }

    /// Checks what must hold of sessions between any two events.
    pub(super) fn check_sessions(&self, counts: &Counts) -> Verdict {
        let it = &self.sessions;
        prop_assert!(it.due.is_empty(), "not said: {:?}", it.due);
        prop_assert!(it.losing.is_empty(), "not told of their loss: {:?}", it.losing);
        prop_assert!(it.known.len() <= self.config.max_sessions);
        let homes = it.known.values().filter(|session| matches!(session.owner, Owner::At(_)));
        prop_assert_eq!(counts.sessions, homes.count());
        Ok(())
    }
}
