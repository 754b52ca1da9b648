//! The model's part about workers: what each one is heard to do.

use std::sync::Arc;
use std::time::Instant;

use super::super::{RequestId, WorkerId};
use super::model::{Model, Startup, Told};
use crate::worker::Load;

impl Model {
    pub(super) fn hear_ready(&mut self, now: Instant, worker: WorkerId, load: Load, sessions: Vec<Arc<str>>) {
        let Some(it) = self.slots.get_mut(worker.slot as usize) else { return };
        if worker <= it.newest {
            let succeeded = worker.incarnation > it.newest.incarnation;
            self.seen.insert(if succeeded { "stale ready after its successor" } else { "stale ready" });
            return;
        }
        if it.is_alive() {
            let succeeds = worker.generation > it.newest.generation;
            self.seen.insert(if succeeds { "succeeded" } else { "replaced" });
        }
        if worker.incarnation < it.newest.incarnation {
            self.seen.insert("succeeded after a restart");
        }
        it.newest = worker;
        let (freed, leaving) = if it.early.0 == worker { (it.early.1, it.early.2) } else { (0, false) };
        it.told = if leaving { Told::Leaving } else { Told::Ready };
        let before = match load {
            Load::Calls(calls) => calls,
            Load::Lease => 1,
        };
        self.seen.insert(match (load, freed, leaving) {
            (_, _, true) => "left early",
            (Load::Calls(0), ..) => "ready",
            (_, 1.., _) => "freed early",
            (Load::Calls(1), ..) => "adopted",
            (Load::Calls(_), ..) => "adopted with several",
            (Load::Lease, ..) => "adopted with a lease",
        });
        self.first_turn -= 1;
        let turn = self.first_turn;
        if self.count(|it| it.told == Told::Ready) >= self.config.min_ready {
            self.startup_ends(Startup::Succeeded);
        }
        self.worker_gone(now, worker.slot);
        let it = &mut self.slots[worker.slot as usize];
        it.adopted = before.saturating_sub(freed) as usize;
        it.lease = load == Load::Lease && it.adopted > 0;
        it.turn = turn;
        let (known, new): (Vec<_>, Vec<_>) = sessions.into_iter().partition(|it| self.knows(it));
        for session in known.into_iter().chain(new) {
            self.adopts(now, worker, session);
        }
    }

    /// Where to note what is heard of this worker before it is heard to be ready.
    fn early(&mut self, worker: WorkerId) -> Option<&mut (WorkerId, u32, bool)> {
        let it = self.slots.get_mut(worker.slot as usize)?;
        if worker <= it.newest || worker < it.early.0 {
            return None;
        }
        if it.early.0 < worker {
            it.early = (worker, 0, false);
        }
        Some(&mut it.early)
    }

    /// Where among what the worker is known to serve this request is.
    pub(super) fn serves(&self, worker: WorkerId, request: RequestId) -> Option<usize> {
        let it = self.slots.get(worker.slot as usize)?;
        let alive = it.newest == worker && it.is_alive();
        it.serving.iter().position(|served| alive && served.request == request)
    }

    pub(super) fn hear_freed(&mut self, now: Instant, worker: WorkerId, request: RequestId) {
        if let Some((_, freed, _)) = self.early(worker) {
            *freed += 1;
            return;
        }
        let at = self.serves(worker, request);
        let Some(it) = self.slots.get_mut(worker.slot as usize) else { return };
        let alive = it.newest == worker && it.is_alive();
        if !alive || (at.is_none() && it.adopted == 0) {
            self.seen.insert("stale freed");
            return;
        }
        self.seen.insert(match (it.told, it.load()) {
            (Told::Leaving, _) => "freed while leaving",
            (_, 1) => "freed of all",
            _ => "freed of one",
        });
        self.last_turn += 1;
        it.turn = self.last_turn;
        it.lease = false;
        let Some(at) = at else {
            it.adopted -= 1;
            return;
        };
        let served = it.serving.remove(at);
        if at > 0 {
            self.seen.insert("freed out of order");
        }
        self.finishes(now, served);
    }

    pub(super) fn hear_leaving(&mut self, worker: WorkerId) {
        if let Some((_, _, leaving)) = self.early(worker) {
            *leaving = true;
            return;
        }
        let Some(it) = self.slots.get_mut(worker.slot as usize) else { return };
        if it.newest == worker && it.told == Told::Ready {
            it.told = Told::Leaving;
            self.seen.insert("leaving");
        }
    }

    /// An assignment came to nothing: one of the last event, or one that the worker has dropped.
    pub(super) fn hear_unassigned(&mut self, now: Instant, worker: WorkerId, request: RequestId) {
        let Some(at) = self.serves(worker, request) else { return self.hear_freed(now, worker, request) };
        let it = &mut self.slots[worker.slot as usize];
        let served = it.serving.remove(at);
        it.lease = false;
        self.abandoned += 1;
        self.seen.insert("unassigned");
        if let Some((name, begun)) = &served.session {
            self.takes_place_back(worker, name, *begun);
        }
        self.finishes(now, served);
    }

    pub(super) fn hear_end(&mut self, now: Instant, worker: WorkerId, end: Told) {
        let Some(it) = self.slots.get_mut(worker.slot as usize) else { return };
        let alive = it.newest == worker && it.is_alive();
        if it.newest < worker || (end == Told::Down && alive) {
            it.newest = worker;
            it.told = end;
            if end == Told::Failed {
                self.last_failure = Some(worker);
            }
            self.startup_ends(Startup::Failed(worker));
            self.worker_gone(now, worker.slot);
        } else if worker.incarnation > it.newest.incarnation {
            self.seen.insert("stale end after its successor");
        } else {
            self.seen.insert("stale end");
        }
    }

    /// What the worker that the slot may have had served is over.
    pub(super) fn all_finish(&mut self, now: Instant, slot: u32) {
        let it = &mut self.slots[slot as usize];
        (it.adopted, it.lease) = (0, false);
        while !self.slots[slot as usize].serving.is_empty() {
            let served = self.slots[slot as usize].serving.remove(0);
            self.finishes(now, served);
        }
    }
}
