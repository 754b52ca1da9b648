//! The slots: their workers, and what each one does.

use std::time::Instant;

use super::message::{RequestId, WorkerId};
use super::sessions::SessionId;
use super::status::SlotStatus;
use crate::worker::Load;

/// What a slot does. `C` is the cause of a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SlotState<C> {
    /// Its first start has not ended.
    Starting,
    /// Its worker is ready and has nothing to do.
    Idle,
    /// Its worker has this load.
    Busy(Load),
    /// Its worker still has this load, takes no more, and will end.
    Leaving(Load),
    /// Its worker ended after it had been ready; the restart has not ended.
    Down { cause: C },
    /// Its last start ended before the worker was ready. It stays so while a retry is under way.
    Failed { cause: C },
}

impl<C> SlotState<C> {
    /// Of a worker that can serve.
    fn ready(load: Load) -> Self {
        if load == NOTHING { Self::Idle } else { Self::Busy(load) }
    }

    /// The load of its living worker.
    pub(crate) fn load(&self) -> Option<Load> {
        match self {
            Self::Idle => Some(NOTHING),
            Self::Busy(load) | Self::Leaving(load) => Some(*load),
            Self::Starting | Self::Down { .. } | Self::Failed { .. } => None,
        }
    }
}

const NOTHING: Load = Load::Calls(0);

/// The number of calls and leases.
fn count(load: Load) -> u32 {
    match load {
        Load::Calls(calls) => calls,
        Load::Lease => 1,
    }
}

/// The load when one of them has ended.
fn less(load: Load) -> Load {
    Load::Calls(count(load).saturating_sub(1))
}

/// A call or lease that a worker was given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Assignment {
    pub(super) request: RequestId,
    pub(super) session: Option<SessionId>,
    pub(super) begun: Instant,
}

struct Slot<C> {
    /// The newest worker heard of. Events of older ones are stale.
    newest: Option<WorkerId>,
    state: SlotState<C>,
    since: Instant,
    /// The calls and leases of its worker, in the order of their assignment.
    serving: Vec<Assignment>,
}

/// How many slots are in each state, and how many calls and leases they have.
#[derive(Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) starting: u32,
    pub(super) idle: u32,
    pub(super) busy: u32,
    pub(super) leaving: u32,
    pub(super) down: u32,
    pub(super) failed: u32,
    pub(super) in_flight: u32,
}

impl Tally {
    pub(super) fn ready(&self) -> u32 {
        self.idle + self.busy
    }

    fn of<C>(&mut self, state: &SlotState<C>) -> &mut u32 {
        match state {
            SlotState::Starting => &mut self.starting,
            SlotState::Idle => &mut self.idle,
            SlotState::Busy(_) => &mut self.busy,
            SlotState::Leaving(_) => &mut self.leaving,
            SlotState::Down { .. } => &mut self.down,
            SlotState::Failed { .. } => &mut self.failed,
        }
    }
}

/// All slots of the pool. The methods say whether an event was news; a stale one changes nothing.
pub(super) struct Slots<C> {
    slots: Vec<Slot<C>>,
    /// Calls that a worker has at most.
    in_flight: u32,
    tally: Tally,
}

impl<C> Slots<C> {
    pub(super) fn new(now: Instant, size: u32, in_flight: u32) -> Self {
        let fresh = || Slot { newest: None, state: SlotState::Starting, since: now, serving: Vec::new() };
        Self {
            slots: (0..size).map(|_| fresh()).collect(),
            in_flight,
            tally: Tally { starting: size, ..Tally::default() },
        }
    }

    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    pub(super) fn all_failed(&self) -> bool {
        self.tally.failed as usize == self.slots.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = SlotStatus<'_, C>> {
        (0..).zip(&self.slots).map(|(slot, it)| SlotStatus {
            slot,
            worker: it.newest,
            state: &it.state,
            since: it.since,
        })
    }

    /// Assignments of an earlier worker, whose end was not heard, remain for
    /// [`forget_assignments`](Self::forget_assignments).
    pub(super) fn ready(&mut self, now: Instant, worker: WorkerId) -> bool {
        let news = self.begin(worker).is_some();
        if news {
            self.set_load(now, worker.slot, NOTHING, false);
        }
        news
    }

    /// An exit may come before the event that its worker was ready; that event is stale from then on.
    pub(super) fn exited(&mut self, now: Instant, worker: WorkerId, cause: C) -> bool {
        let news = self.load_of(worker).is_some() || self.begin(worker).is_some();
        if news {
            self.change(now, worker.slot, SlotState::Down { cause });
        }
        news
    }

    pub(super) fn start_failed(&mut self, now: Instant, worker: WorkerId, cause: C) -> bool {
        let news = self.begin(worker).is_some();
        if news {
            self.change(now, worker.slot, SlotState::Failed { cause });
        }
        news
    }

    pub(super) fn leaving(&mut self, now: Instant, worker: WorkerId) -> bool {
        let Some((load, false)) = self.load_of(worker) else { return false };
        self.change(now, worker.slot, SlotState::Leaving(load));
        true
    }

    /// Gives the slot's worker a request that it [`takes`](Self::takes).
    pub(super) fn assigned(&mut self, now: Instant, slot: u32, exclusive: bool, assignment: Assignment) {
        let load = self.slots[slot as usize].state.load().unwrap_or(NOTHING);
        let load = if exclusive { Load::Lease } else { Load::Calls(count(load) + 1) };
        self.set_load(now, slot, load, false);
        self.slots[slot as usize].serving.push(assignment);
    }

    /// An assignment of a living worker is over. `None` when it is not known.
    pub(super) fn freed(&mut self, now: Instant, worker: WorkerId, request: RequestId) -> Option<Assignment> {
        let (load, leaving) = self.load_of(worker)?;
        let serving = &mut self.slots[worker.slot as usize].serving;
        let at = serving.iter().position(|it| it.request == request)?;
        let assignment = serving.remove(at);
        self.set_load(now, worker.slot, less(load), leaving);
        Some(assignment)
    }

    /// Removes the assignments of the slot's worker, which has ended.
    pub(super) fn forget_assignments(&mut self, slot: u32) -> Vec<Assignment> {
        std::mem::take(&mut self.slots[slot as usize].serving)
    }

    /// The number of calls of the slot's worker, if it has free capacity.
    pub(super) fn load_if_free(&self, slot: u32) -> Option<u32> {
        match self.slots[slot as usize].state {
            SlotState::Idle => Some(0),
            SlotState::Busy(Load::Calls(calls)) if calls < self.in_flight => Some(calls),
            _ => None,
        }
    }

    /// Whether the slot's worker can take a request.
    pub(super) fn takes(&self, slot: u32, exclusive: bool) -> bool {
        self.load_if_free(slot).is_some_and(|load| !exclusive || load == 0)
    }

    /// The newest worker of one of our slots; it need not be alive.
    pub(super) fn newest(&self, slot: u32) -> Option<WorkerId> {
        self.slots[slot as usize].newest
    }

    /// The load of this worker, and whether it is leaving; `None` when it is not known to live.
    fn load_of(&self, worker: WorkerId) -> Option<(Load, bool)> {
        let it = self.slots.get(worker.slot as usize).filter(|it| it.newest == Some(worker))?;
        Some((it.state.load()?, matches!(it.state, SlotState::Leaving(_))))
    }

    /// The slot, moved on to a worker not heard of before; `None` when it is an old one or no slot of ours has it.
    fn begin(&mut self, worker: WorkerId) -> Option<&mut Slot<C>> {
        let it = self.slots.get_mut(worker.slot as usize).filter(|it| it.newest < Some(worker))?;
        it.newest = Some(worker);
        Some(it)
    }

    fn set_load(&mut self, now: Instant, slot: u32, load: Load, leaving: bool) {
        self.change(now, slot, if leaving { SlotState::Leaving(load) } else { SlotState::ready(load) });
    }

    /// The one place where a state changes, so that the tally cannot drift.
    fn change(&mut self, now: Instant, slot: u32, state: SlotState<C>) {
        let it = &mut self.slots[slot as usize];
        let load = |state: &SlotState<C>| state.load().map_or(0, count);
        self.tally.in_flight = self.tally.in_flight - load(&it.state) + load(&state);
        *self.tally.of(&it.state) -= 1;
        *self.tally.of(&state) += 1;
        let before = std::mem::replace(&mut it.state, state);
        // The state is the same, only the load has changed.
        let same = matches!(
            (&before, &it.state),
            (SlotState::Busy(_), SlotState::Busy(_)) | (SlotState::Leaving(_), SlotState::Leaving(_))
        );
        if !same {
            it.since = now;
        }
    }
}
