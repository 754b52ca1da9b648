//! The sessions: their owners, and which of them are in use.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::message::RequestId;
use crate::worker::Placement;

/// Identifies one session from its beginning to its end. A later session of the same name has another id, so that the end of
/// an old call does not count for the new session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SessionId(u64);

/// The owner of a session: the worker that has its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// There is none yet: its first requests wait.
    Nowhere,
    /// The slot's living worker.
    At(u32),
    /// Its worker died, and the state with it. The session stays so until a caller has heard of the loss.
    Lost,
}

struct Session {
    name: Arc<str>,
    owner: Owner,
    /// The slots whose living workers have served it, its owner among them, and how often each one did.
    places: BTreeMap<u32, u64>,
    /// Its requests that wait or run.
    uses: usize,
    /// The end of the last use.
    last_used: Instant,
    /// Its position among the idle sessions, while it is idle.
    turn: Option<u64>,
}

/// All sessions of the pool.
///
/// All have the same time to live. So the order in which they became idle is the order in which they expire and are evicted.
pub(super) struct Sessions {
    ttl: Duration,
    max: usize,
    last_id: u64,
    last_turn: u64,
    ids: HashMap<Arc<str>, SessionId>,
    table: HashMap<SessionId, Session>,
    idle: BTreeMap<u64, SessionId>,
    /// By slot: the sessions that its living worker has served.
    by_slot: Vec<BTreeSet<SessionId>>,
    /// The requests that were rejected with a loss, and whose callers have neither heard it nor left.
    told: HashMap<RequestId, SessionId>,
    living: usize,
}

impl Sessions {
    pub(super) fn new(size: u32, ttl: Duration, max: usize) -> Self {
        Self {
            ttl,
            max,
            last_id: 0,
            last_turn: 0,
            ids: HashMap::new(),
            table: HashMap::new(),
            idle: BTreeMap::new(),
            by_slot: vec![BTreeSet::new(); size as usize],
            told: HashMap::new(),
            living: 0,
        }
    }

    /// Sessions that have an owner.
    pub(super) fn living(&self) -> usize {
        self.living
    }

    pub(super) fn owner(&self, id: SessionId) -> Option<Owner> {
        self.table.get(&id).map(|session| session.owner)
    }

    pub(super) fn name(&self, id: SessionId) -> Option<Arc<str>> {
        self.table.get(&id).map(|session| session.name.clone())
    }

    pub(super) fn find(&self, name: &str) -> Option<(SessionId, Owner)> {
        let id = *self.ids.get(name)?;
        Some((id, self.table.get(&id)?.owner))
    }

    /// Whether another session can begin, if necessary instead of an idle one.
    pub(super) fn has_room(&self) -> bool {
        self.table.len() < self.max || (self.max > 0 && !self.idle.is_empty())
    }

    /// The session that is evicted before another one begins.
    pub(super) fn surplus(&self) -> Option<SessionId> {
        if self.table.len() < self.max { None } else { self.idle.values().next().copied() }
    }

    /// Begins a session. A use of it must follow.
    pub(super) fn begin(&mut self, now: Instant, name: Arc<str>) -> SessionId {
        self.last_id += 1;
        let id = SessionId(self.last_id);
        self.ids.insert(name.clone(), id);
        let (owner, places) = (Owner::Nowhere, BTreeMap::new());
        self.table.insert(id, Session { name, owner, places, uses: 0, last_used: now, turn: None });
        id
    }

    /// A request of the session was accepted.
    pub(super) fn enter(&mut self, id: SessionId) {
        let Some(session) = self.table.get_mut(&id) else { return };
        session.uses += 1;
        if let Some(turn) = session.turn.take() {
            self.idle.remove(&turn);
        }
    }

    /// A request of the session is over. A request that waited in vain counts as a use, too.
    pub(super) fn leave(&mut self, now: Instant, id: SessionId) {
        let Some(session) = self.table.get_mut(&id) else { return };
        session.uses -= 1;
        if session.uses > 0 {
            return;
        }
        if session.owner == Owner::Nowhere {
            self.end(id);
        } else {
            self.set_idle(now, id);
        }
    }

    fn set_idle(&mut self, now: Instant, id: SessionId) {
        let Some(session) = self.table.get_mut(&id) else { return };
        self.last_turn += 1;
        session.last_used = now;
        session.turn = Some(self.last_turn);
        self.idle.insert(self.last_turn, id);
    }

    /// The slot's worker serves a request of the session, whose owner it becomes if there is none.
    pub(super) fn assigned(&mut self, id: SessionId, slot: u32) -> Option<Placement> {
        let session = self.table.get_mut(&id)?;
        *session.places.entry(slot).or_default() += 1;
        self.by_slot[slot as usize].insert(id);
        Some(match session.owner {
            Owner::Nowhere => {
                session.owner = Owner::At(slot);
                self.living += 1;
                Placement::New
            }
            Owner::At(owner) if owner == slot => Placement::Kept,
            Owner::At(_) | Owner::Lost => Placement::Elsewhere,
        })
    }

    /// An assignment of the session's that came to nothing: a use is over, and whatever that assignment alone had
    /// made is taken back. Returns the owner that the session has instead, if it was one.
    pub(super) fn unassigned(&mut self, now: Instant, id: SessionId, slot: u32) -> Option<Owner> {
        let session = self.table.get_mut(&id)?;
        let mut moved = None;
        if let Some(times) = session.places.get_mut(&slot) {
            *times -= 1;
            if *times == 0 {
                session.places.remove(&slot);
                self.by_slot[slot as usize].remove(&id);
                if session.owner == Owner::At(slot) {
                    // Another that serves it has all that there is of its state.
                    let instead = session.places.keys().next();
                    session.owner = instead.map_or(Owner::Nowhere, |slot| Owner::At(*slot));
                    self.living -= usize::from(session.owner == Owner::Nowhere);
                    moved = Some(session.owner);
                }
            }
        }
        self.leave(now, id);
        moved
    }

    /// The slot's worker is gone, if it had one. The sessions that had their owner there are lost from now on; returns
    /// them in the order of their beginning.
    pub(super) fn worker_gone(&mut self, slot: u32) -> Vec<SessionId> {
        let mut lost = Vec::new();
        for id in std::mem::take(&mut self.by_slot[slot as usize]) {
            let Some(session) = self.table.get_mut(&id) else { continue };
            session.places.remove(&slot);
            if session.owner == Owner::At(slot) {
                session.owner = Owner::Lost;
                self.living -= 1;
                lost.push(id);
            }
        }
        lost
    }

    /// A request is told that the session is lost. Returns the slots that still have state of the session.
    pub(super) fn tell_loss(&mut self, id: SessionId, request: RequestId) -> Vec<u32> {
        self.told.insert(request, id);
        let Some(session) = self.table.get_mut(&id) else { return Vec::new() };
        let places = std::mem::take(&mut session.places);
        for slot in places.keys() {
            self.by_slot[*slot as usize].remove(&id);
        }
        places.into_keys().collect()
    }

    /// The caller of this request has heard what it was told, or has left. Returns the session of which it was told.
    pub(super) fn take_told(&mut self, request: RequestId) -> Option<SessionId> {
        self.told.remove(&request)
    }

    /// Forgets the session; returns its name and the slots to be told.
    pub(super) fn end(&mut self, id: SessionId) -> Option<(Arc<str>, Vec<u32>)> {
        let session = self.table.remove(&id)?;
        self.ids.remove(&session.name);
        if let Some(turn) = session.turn {
            self.idle.remove(&turn);
        }
        for slot in session.places.keys() {
            self.by_slot[*slot as usize].remove(&id);
        }
        if matches!(session.owner, Owner::At(_)) {
            self.living -= 1;
        }
        Some((session.name, session.places.into_keys().collect()))
    }

    /// One whose time to live is over.
    pub(super) fn expired(&self, now: Instant) -> Option<SessionId> {
        let (id, session) = self.first_at_rest()?;
        (now.saturating_duration_since(session.last_used) >= self.ttl).then_some(id)
    }

    /// When the next one expires. `None` also when that is beyond what a clock can say.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.first_at_rest()?.1.last_used.checked_add(self.ttl)
    }

    fn first_at_rest(&self) -> Option<(SessionId, &Session)> {
        let id = *self.idle.values().next()?;
        Some((id, self.table.get(&id)?))
    }

    /// Whether all views of the sessions are of the same ones, so that nothing stays behind.
    #[cfg(test)]
    pub(super) fn is_consistent(&self) -> bool {
        let places: usize = self.table.values().map(|session| session.places.len()).sum();
        let resident: usize = self.by_slot.iter().map(BTreeSet::len).sum();
        let idle = self.table.values().filter(|session| session.turn.is_some()).count();
        self.ids.len() == self.table.len() && resident == places && self.idle.len() == idle
    }
}
