//! The model's part about workers: what each one is heard to do.

use std::time::Instant;

use super::super::{RequestId, WorkerId};
use super::model::{Model, Startup, Told};

impl Model {
    pub(super) fn hear_ready(&mut self, now: Instant, worker: WorkerId) {
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
        it.told = Told::Ready;
        self.seen.insert("ready");
        self.first_turn -= 1;
        let turn = self.first_turn;
        if self.count(|it| it.told == Told::Ready) >= self.config.min_ready {
            self.startup_ends(Startup::Succeeded);
        }
        self.worker_gone(now, worker.slot);
        let it = &mut self.slots[worker.slot as usize];
        it.lease = false;
        it.turn = turn;
    }

    /// Where among what the worker is known to serve this request is.
    pub(super) fn serves(&self, worker: WorkerId, request: RequestId) -> Option<usize> {
        let it = self.slots.get(worker.slot as usize)?;
        let alive = it.newest == worker && it.is_alive();
        it.serving.iter().position(|served| alive && served.request == request)
    }

    pub(super) fn hear_freed(&mut self, now: Instant, worker: WorkerId, request: RequestId) {
        let Some(at) = self.serves(worker, request) else {
            self.seen.insert("stale freed");
            return;
        };
        let it = &mut self.slots[worker.slot as usize];
        self.seen.insert(match (it.told, it.load()) {
            (Told::Leaving, _) => "freed while leaving",
            (_, 1) => "freed of all",
            _ => "freed of one",
        });
        self.last_turn += 1;
        it.turn = self.last_turn;
        it.lease = false;
        let served = it.serving.remove(at);
        if at > 0 {
            self.seen.insert("freed out of order");
        }
        self.finishes(now, served);
    }

    pub(super) fn hear_leaving(&mut self, worker: WorkerId) {
        let Some(it) = self.slots.get_mut(worker.slot as usize) else { return };
        if it.newest == worker && it.told == Told::Ready {
            it.told = Told::Leaving;
            self.seen.insert("leaving");
        }
    }

    /// An assignment came to nothing: one of the last event, or one that the worker has dropped.
    pub(super) fn hear_unassigned(&mut self, now: Instant, worker: WorkerId, request: RequestId) {
        let Some(at) = self.serves(worker, request) else { return };
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
        it.lease = false;
        while !self.slots[slot as usize].serving.is_empty() {
            let served = self.slots[slot as usize].serving.remove(0);
            self.finishes(now, served);
        }
    }
}
