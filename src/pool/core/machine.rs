//! The rules: what each event does, which requests wait, which are rejected.

use std::time::{Duration, Instant};

use super::available::Available;
use super::message::{Command, Config, Event, Rejection, RequestId, SessionEnd, SessionUse, WorkerId};
use super::queue::{Queue, QueuedRequest};
use super::sessions::{SessionId, Sessions};
use super::slots::{Assignment, Slots};
use super::status::{Counts, SlotStatus, Totals};
use crate::error::OverloadCause;

/// A caller that comes back sooner would add to the overload.
pub(super) const SHORTEST_RETRY: Duration = Duration::from_secs(1);

/// A new run time weighs an eighth (as in TCP's smoothed round trip): some ten calls move the mean, one does not.
const RUN_WEIGHT: u32 = 8;

/// The state of one pool. `T` is the item of a request, `C` the cause of a worker's failure.
pub(crate) struct Core<T, C> {
    pub(super) config: Config,
    pub(super) slots: Slots<C>,
    pub(super) available: Available,
    pub(super) queue: Queue<T>,
    /// The slots whose free capacity or pinned requests have changed. [`dispatch`](Self::dispatch) looks at them.
    pub(super) dirty: Vec<u32>,
    pub(super) sessions: Sessions,
    starting_up: bool,
    closed: bool,
    /// The most recent cause, while the last start of every slot has failed.
    unavailable: Option<C>,
    mean_run: Option<Duration>,
    pub(super) totals: Totals,
}

impl<T, C: Clone> Core<T, C> {
    /// A new pool: asks for all its workers at once, and ends its start-up with exactly one of
    /// [`Command::StartupSucceeded`], [`Command::StartupFailed`] and [`Command::StartupAborted`].
    pub(crate) fn start(now: Instant, config: Config, out: &mut Vec<Command<T, C>>) -> Self {
        let mut core = Self::new(now, config);
        out.extend((0..config.size).map(|slot| Command::StartSlot { slot }));
        core.starting_up = true;
        core.check_startup(out);
        core
    }

    fn new(now: Instant, config: Config) -> Self {
        debug_assert!(config.size > 0, "a pool has at least one slot");
        debug_assert!(config.in_flight > 0, "a worker takes at least one call");
        debug_assert!(config.min_ready <= config.size, "min_ready exceeds the size");
        Self {
            config,
            slots: Slots::new(now, config.size, config.in_flight),
            available: Available::new(config.size),
            queue: Queue::new(config.size),
            dirty: Vec::new(),
            sessions: Sessions::new(config.size, config.session_ttl, config.max_sessions),
            starting_up: false,
            closed: false,
            unavailable: None,
            mean_run: None,
            totals: Totals::default(),
        }
    }

    /// Handles an event, and appends the commands to `out`.
    ///
    /// Requests and sessions whose time is over expire before any event is handled. So no request is assigned at or after its
    /// deadline, even when the tick is late, and expired requests do not fill the queue.
    pub(crate) fn handle(&mut self, now: Instant, event: Event<T, C>, out: &mut Vec<Command<T, C>>) {
        let some_expired = self.expire(now, out);
        match event {
            Event::Submitted { request, deadline, item, bytes, session, exclusive } => {
                // Requests behind an expired one come before the new request. Other events may concern the worker that those
                // requests would get, and are handled first.
                if some_expired {
                    self.dispatch(now, out);
                }
                let queued =
                    QueuedRequest { request, deadline, item, bytes, claim: None, exclusive, pinned_to: None };
                self.submit(now, queued, session, out);
            }
            Event::Announced { request, item } => {
                if some_expired {
                    self.dispatch(now, out);
                }
                match self.refuses_all() {
                    Some(reason) => {
                        self.totals.submitted += 1;
                        self.reject(request, item, reason, out);
                    }
                    None => out.push(Command::Admit { item }),
                }
            }
            Event::Abandoned { request } => {
                if let Some(queued) = self.queue.remove(request) {
                    self.left(now, &queued);
                    self.totals.abandoned += 1;
                }
                self.sessions.take_told(request);
            }
            Event::LossHeard { request } => self.loss_heard(request, out),
            Event::Unassigned { worker, request } => self.unassigned(now, worker, request),
            Event::EndSession { session, item } => self.end_session(now, session, item, out),
            Event::WorkerReady { worker } => {
                if self.slots.ready(now, worker) {
                    self.unavailable = None;
                    self.check_startup(out);
                    // The end of an earlier worker may not have been heard.
                    self.worker_gone(now, worker.slot, out);
                    self.available.fresh(worker.slot);
                }
            }
            Event::WorkerFreed { worker, request } => self.freed(now, worker, request),
            Event::WorkerLeaving { worker } => {
                if self.slots.leaving(now, worker) {
                    self.dirty.push(worker.slot);
                }
            }
            Event::WorkerExited { worker, cause } => {
                if self.slots.exited(now, worker, cause.clone()) {
                    self.unavailable = None;
                    self.fail_startup(cause, out);
                    self.worker_gone(now, worker.slot, out);
                }
            }
            Event::StartFailed { worker, cause } => {
                if self.slots.start_failed(now, worker, cause.clone()) {
                    self.fail_startup(cause.clone(), out);
                    self.worker_gone(now, worker.slot, out);
                    self.check_available(now, cause, out);
                }
            }
            Event::Closed => self.close(now, out),
            Event::Tick => {}
        }
        self.dispatch(now, out);
    }

    /// Why every request would be rejected now; `None` when one might be accepted.
    ///
    /// The answer holds for a session's request, too: a session gets only an available worker, and an available worker takes any
    /// request. Such a request may be rejected because of its session first.
    pub(crate) fn refuses_all(&self) -> Option<Rejection<C>> {
        if self.closed {
            Some(Rejection::Draining)
        } else if let Some(cause) = &self.unavailable {
            Some(Rejection::Unavailable { cause: cause.clone() })
        } else {
            let cause = self.queue_is_full().filter(|_| self.route(None, false).worker.is_none())?;
            Some(self.overloaded(cause))
        }
    }

    /// Which bound of the queue is reached, if one is.
    ///
    /// Whether the queue is full does not depend on the size of the next request: a caller learns it before encoding.
    fn queue_is_full(&self) -> Option<OverloadCause> {
        if self.queue.len() >= self.config.queue_bound {
            Some(OverloadCause::QueueBound)
        } else if self.queue.bytes() >= self.config.queue_bytes {
            Some(OverloadCause::QueueBytes)
        } else {
            None
        }
    }

    /// When an [`Event::Tick`] is due: at the earliest deadline of a queued request or expiry of a session.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        [self.queue.earliest_deadline(), self.sessions.next_expiry()].into_iter().flatten().min()
    }

    /// The pool in numbers.
    pub(crate) fn counts(&self) -> Counts {
        let tally = self.slots.tally();
        Counts {
            size: self.config.size,
            starting: tally.starting,
            idle: tally.idle,
            busy: tally.busy,
            leaving: tally.leaving,
            down: tally.down,
            failed: tally.failed,
            in_flight: tally.in_flight,
            waiting: self.queue.len(),
            sessions: self.sessions.living(),
            mean_run: self.mean_run,
            closed: self.closed,
            totals: self.totals,
        }
    }

    /// Whether no event of this worker, or of a later one of its slot, has been handled yet.
    pub(crate) fn is_news(&self, worker: WorkerId) -> bool {
        self.slots.newest(worker.slot) < Some(worker)
    }

    /// Every slot, in order.
    pub(crate) fn slots(&self) -> impl Iterator<Item = SlotStatus<'_, C>> {
        self.slots.iter()
    }

    /// A call or lease of the worker is over.
    pub(super) fn freed(&mut self, now: Instant, worker: WorkerId, request: RequestId) {
        if let Some(Assignment { begun, session, .. }) = self.slots.freed(now, worker, request) {
            self.measure(now.saturating_duration_since(begun));
            self.leave(now, session);
            self.available.used(worker.slot);
            self.dirty.push(worker.slot);
        }
    }

    fn submit(
        &mut self,
        now: Instant,
        mut queued: QueuedRequest<T>,
        session: Option<SessionUse>,
        out: &mut Vec<Command<T, C>>,
    ) {
        self.totals.submitted += 1;
        let route = self.route(session.as_ref(), queued.exclusive);
        let reason = if self.closed {
            Rejection::Draining
        } else if queued.deadline <= now {
            Rejection::TimedOut
        } else if let Some(cause) = &self.unavailable {
            Rejection::Unavailable { cause: cause.clone() }
        } else if let Some(reason) = self.refuse(queued.request, session.as_ref(), &route, out) {
            reason
        } else if let Some(cause) = self.queue_is_full().filter(|_| route.worker.is_none()) {
            self.overloaded(cause)
        } else {
            queued.claim = session.map(|session| self.enter(now, session, out));
            queued.pinned_to = route.pinned_to;
            match route.worker {
                // No queued request could be served by this worker, so none is overtaken.
                Some(worker) => self.assign(now, worker, queued, out),
                None => {
                    self.queue.push(queued);
                    self.dirty.extend(route.pinned_to);
                }
            }
            return;
        };
        self.reject(queued.request, queued.item, reason, out);
    }

    /// Rejects requests and ends sessions whose time is over. Returns whether a request was rejected.
    fn expire(&mut self, now: Instant, out: &mut Vec<Command<T, C>>) -> bool {
        let waiting = self.queue.len();
        while let Some(queued) = self.queue.pop_expired(now) {
            self.reject_queued(now, queued, Rejection::TimedOut, out);
        }
        while let Some(session) = self.sessions.expired(now) {
            self.forget(session, SessionEnd::Expired, out);
        }
        self.queue.len() < waiting
    }

    fn close(&mut self, now: Instant, out: &mut Vec<Command<T, C>>) {
        self.closed = true;
        if std::mem::take(&mut self.starting_up) {
            out.push(Command::StartupAborted);
        }
        self.reject_all_queued(now, &Rejection::Draining, out);
    }

    fn check_startup(&mut self, out: &mut Vec<Command<T, C>>) {
        if self.starting_up && self.slots.tally().ready() >= self.config.min_ready {
            self.starting_up = false;
            out.push(Command::StartupSucceeded);
        }
    }

    fn fail_startup(&mut self, cause: C, out: &mut Vec<Command<T, C>>) {
        if std::mem::take(&mut self.starting_up) {
            out.push(Command::StartupFailed { cause });
        }
    }

    fn check_available(&mut self, now: Instant, cause: C, out: &mut Vec<Command<T, C>>) {
        if self.slots.all_failed() {
            self.reject_all_queued(now, &Rejection::Unavailable { cause: cause.clone() }, out);
            self.unavailable = Some(cause);
        }
    }

    fn reject_all_queued(&mut self, now: Instant, reason: &Rejection<C>, out: &mut Vec<Command<T, C>>) {
        while let Some(queued) = self.queue.pop() {
            self.reject_queued(now, queued, reason.clone(), out);
        }
    }

    pub(super) fn reject_queued(
        &mut self,
        now: Instant,
        queued: QueuedRequest<T>,
        reason: Rejection<C>,
        out: &mut Vec<Command<T, C>>,
    ) {
        self.left(now, &queued);
        self.reject(queued.request, queued.item, reason, out);
    }

    /// A request left the queue without a worker.
    fn left(&mut self, now: Instant, queued: &QueuedRequest<T>) {
        self.dirty.extend(queued.pinned_to.filter(|slot| self.slots.load_if_free(*slot).is_some()));
        self.leave(now, queued.claim.map(|claim| claim.session));
    }

    /// A request of this session, if it had one, is over.
    pub(super) fn leave(&mut self, now: Instant, session: Option<SessionId>) {
        if let Some(session) = session {
            self.sessions.leave(now, session);
        }
    }

    fn reject(&mut self, request: RequestId, item: T, reason: Rejection<C>, out: &mut Vec<Command<T, C>>) {
        *match reason {
            Rejection::Overloaded { .. } => &mut self.totals.overloaded,
            Rejection::TimedOut => &mut self.totals.timed_out,
            Rejection::Unavailable { .. } => &mut self.totals.unavailable,
            Rejection::Draining => &mut self.totals.draining,
            Rejection::SessionLost { .. } => &mut self.totals.session_lost,
            Rejection::SessionBusy { .. } => &mut self.totals.session_busy,
        } += 1;
        out.push(Command::Reject { request, item, reason });
    }

    fn measure(&mut self, ran: Duration) {
        self.mean_run = Some(match self.mean_run {
            Some(mean) => mean - mean / RUN_WEIGHT + ran / RUN_WEIGHT,
            None => ran,
        });
    }

    /// The retry time is what the ready workers need for the present queue. Each of them ends as many requests in the mean run
    /// time as it may have at once.
    pub(super) fn overloaded(&self, cause: OverloadCause) -> Rejection<C> {
        let (queue_len, queue_bytes) = (self.queue.len(), self.queue.bytes());
        let retry_after = self.work(queue_len) / (self.slots.tally().ready().max(1) * self.config.in_flight);
        Rejection::Overloaded { cause, queue_len, queue_bytes, retry_after: retry_after.max(SHORTEST_RETRY) }
    }

    /// How long this many requests take, one after the other.
    pub(super) fn work(&self, requests: usize) -> Duration {
        let requests = u32::try_from(requests).unwrap_or(u32::MAX);
        self.mean_run.unwrap_or_default().saturating_mul(requests)
    }
}
