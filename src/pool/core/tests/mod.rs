//! One scenario per rule, on a clock that the test turns.

mod in_flight;
mod leases;
mod reloads;
mod requests;
mod session_ends;
mod sessions;
mod unassigned;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{
    Affinity, Command, Config, Core, Event, Rejection, RequestId, SessionEnd, SessionUse, SlotState, WorkerId,
};
use crate::error::OverloadCause::{MaxSessions, QueueBound, QueueBytes};
use crate::worker::{Load, Placement};

type Out = Vec<Command<u64, &'static str>>;

/// A core, its clock and short words for its events. The item of a request is its number.
struct Fixture {
    core: Core<u64, &'static str>,
    now: Instant,
    /// Whether callers take the answers that tell them of a loss.
    callers_listen: bool,
    /// What each worker was assigned and has not been freed of.
    assigned: BTreeMap<WorkerId, Vec<RequestId>>,
}

/// A request that no worker was given.
const UNKNOWN: RequestId = RequestId(u64::MAX);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn worker(slot: u32, incarnation: u64) -> WorkerId {
    WorkerId { slot, generation: 0, incarnation }
}

fn assign(slot: u32, incarnation: u64, request: u64) -> Command<u64, &'static str> {
    placed(slot, incarnation, request, None)
}

fn placed(
    slot: u32,
    incarnation: u64,
    request: u64,
    placement: impl Into<Option<Placement>>,
) -> Command<u64, &'static str> {
    let (worker, placement) = (worker(slot, incarnation), placement.into());
    Command::Assign { worker, request: RequestId(request), item: request, placement }
}

fn reject(request: u64, reason: Rejection<&'static str>) -> Command<u64, &'static str> {
    Command::Reject { request: RequestId(request), item: request, reason }
}

/// These slots, all in their first incarnation, are told of a session's end.
fn ends(
    slots: &[u32],
    session: &str,
    cause: SessionEnd,
    item: impl Into<Option<u64>>,
) -> Command<u64, &'static str> {
    let workers = slots.iter().map(|slot| worker(*slot, 1)).collect();
    Command::EndSession { workers, session: session.into(), cause, item: item.into() }
}

fn lost(request: u64, session: &str) -> Command<u64, &'static str> {
    reject(request, Rejection::SessionLost { session: session.into() })
}

fn calls(calls: u32) -> SlotState<&'static str> {
    SlotState::Busy(Load::Calls(calls))
}

const CONFIG: Config = Config {
    size: 2,
    min_ready: 0,
    in_flight: 1,
    queue_bound: 1000,
    queue_bytes: 1000,
    session_ttl: Duration::from_secs(3600),
    max_sessions: 10,
};

impl Fixture {
    fn start(config: Config) -> (Self, Out) {
        let (now, mut out) = (Instant::now(), Out::new());
        let core = Core::start(now, config, &mut out);
        (Self::of(core, now), out)
    }

    fn of(core: Core<u64, &'static str>, now: Instant) -> Self {
        Self { core, now, callers_listen: true, assigned: BTreeMap::new() }
    }

    /// A running pool of `size`, every worker ready in its first incarnation, slot 0 to be handed out first.
    fn running(size: u32) -> Self {
        Self::running_with(Config { size, ..CONFIG })
    }

    /// One whose workers take so many calls at once.
    fn running_several(size: u32, in_flight: u32) -> Self {
        Self::running_with(Config { size, in_flight, ..CONFIG })
    }

    fn running_with(config: Config) -> Self {
        let (mut fixture, _) = Self::start(config);
        for slot in 0..config.size {
            fixture.ready(slot, 1);
        }
        fixture
    }

    fn tell(&mut self, event: Event<u64, &'static str>) -> Out {
        let mut out = Out::new();
        self.core.handle(self.now, event, &mut out);
        for command in &out {
            if let Command::Assign { worker, request, .. } = command {
                self.assigned.entry(*worker).or_default().push(*request);
            }
            if let Command::Reject { request, reason: Rejection::SessionLost { .. }, .. } = command
                && self.callers_listen
            {
                let mut more = Out::new();
                self.core.handle(self.now, Event::LossHeard { request: *request }, &mut more);
                assert_eq!(more, []);
            }
        }
        out
    }

    fn submit(&mut self, request: u64) -> Out {
        self.submit_for(request, 5000)
    }

    fn submit_for(&mut self, request: u64, timeout_ms: u64) -> Out {
        self.submit_as(request, timeout_ms, None)
    }

    fn submit_as(&mut self, request: u64, timeout_ms: u64, session: Option<SessionUse>) -> Out {
        self.submit_all(request, timeout_ms, session, false)
    }

    fn submit_all(
        &mut self,
        item: u64,
        timeout_ms: u64,
        session: Option<SessionUse>,
        exclusive: bool,
    ) -> Out {
        let deadline = self.now + ms(timeout_ms);
        let request = RequestId(item);
        self.tell(Event::Submitted { request, deadline, item, bytes: 0, session, exclusive })
    }

    fn submit_bytes(&mut self, item: u64, bytes: u64) -> Out {
        let (request, deadline) = (RequestId(item), self.now + ms(5000));
        self.tell(Event::Submitted { request, deadline, item, bytes, session: None, exclusive: false })
    }

    fn announce(&mut self, item: u64) -> Out {
        self.tell(Event::Announced { request: RequestId(item), item })
    }

    /// A request for a worker to itself.
    fn lease(&mut self, request: u64) -> Out {
        self.submit_all(request, 5000, None, true)
    }

    fn lease_with(&mut self, affinity: Affinity, session: &str, request: u64) -> Out {
        self.submit_all(request, 5000, Some(SessionUse { session: session.into(), affinity }), true)
    }

    fn unassigned(&mut self, slot: u32, request: u64) -> Out {
        let (worker, request) = (worker(slot, 1), RequestId(request));
        self.assigned.entry(worker).or_default().retain(|it| *it != request);
        self.tell(Event::Unassigned { worker, request })
    }

    fn with(&mut self, affinity: Affinity, session: &str, request: u64) -> Out {
        self.submit_as(request, 5000, Some(SessionUse { session: session.into(), affinity }))
    }

    fn hint(&mut self, session: &str, request: u64) -> Out {
        self.with(Affinity::Hint, session, request)
    }

    fn strict(&mut self, session: &str, request: u64) -> Out {
        self.with(Affinity::StrictQueue, session, request)
    }

    fn fail_fast(&mut self, session: &str, request: u64) -> Out {
        self.with(Affinity::StrictFailFast, session, request)
    }

    fn end(&mut self, session: &str, item: u64) -> Out {
        self.tell(Event::EndSession { session: session.into(), item })
    }

    fn abandon(&mut self, request: u64) -> Out {
        self.tell(Event::Abandoned { request: RequestId(request) })
    }

    fn ready(&mut self, slot: u32, incarnation: u64) -> Out {
        self.tell(Event::WorkerReady { worker: worker(slot, incarnation) })
    }

    fn leaving(&mut self, slot: u32, incarnation: u64) -> Out {
        self.tell(Event::WorkerLeaving { worker: worker(slot, incarnation) })
    }

    /// What the worker was assigned first is over; if there is nothing, something from before.
    fn freed(&mut self, slot: u32, incarnation: u64) -> Out {
        let assigned = self.assigned.entry(worker(slot, incarnation)).or_default();
        let request = if assigned.is_empty() { UNKNOWN } else { assigned.remove(0) };
        self.freed_of(slot, incarnation, request.0)
    }

    fn freed_of(&mut self, slot: u32, incarnation: u64, request: u64) -> Out {
        let (worker, request) = (worker(slot, incarnation), RequestId(request));
        self.assigned.entry(worker).or_default().retain(|it| *it != request);
        self.tell(Event::WorkerFreed { worker, request })
    }

    fn exited(&mut self, slot: u32, incarnation: u64) -> Out {
        self.tell(Event::WorkerExited { worker: worker(slot, incarnation), cause: "exited" })
    }

    fn failed(&mut self, slot: u32, incarnation: u64, cause: &'static str) -> Out {
        self.tell(Event::StartFailed { worker: worker(slot, incarnation), cause })
    }

    fn tick_after(&mut self, wait_ms: u64) -> Out {
        self.now += ms(wait_ms);
        self.tell(Event::Tick)
    }

    fn states(&self) -> Vec<SlotState<&'static str>> {
        self.core.slots().map(|slot| slot.state.clone()).collect()
    }
}
