//! The rules: who gets a worker, who waits, who is refused.

use std::time::{Duration, Instant};

use super::message::{Command, Config, Event, Rejection, RequestId};
use super::queue::Queue;
use super::slots::Slots;
use super::status::{Counts, SlotStatus, Totals};

/// A caller told to come back sooner than this would only add to the overload.
const SHORTEST_RETRY: Duration = Duration::from_secs(1);

/// A new run time weighs an eighth (as in TCP's smoothed round trip): some ten calls move the mean, one does not.
const RUN_WEIGHT: u32 = 8;

/// The state of one pool. `T` is the item of a request, `C` the cause of a worker's failure.
pub(crate) struct Core<T, C> {
    config: Config,
    slots: Slots<C>,
    queue: Queue<T>,
    starting_up: bool,
    closed: bool,
    /// The most recent cause, while the last start of every slot has failed.
    unavailable: Option<C>,
    mean_run: Option<Duration>,
    totals: Totals,
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

    /// The pool of a restarted actor: no start-up phase, and workers are asked for only in the slots that are not
    /// among `existing`, the ones their supervisor still has. Of those, each is taken as starting until it is heard of.
    pub(crate) fn rebuilt(
        now: Instant,
        config: Config,
        existing: &[u32],
        out: &mut Vec<Command<T, C>>,
    ) -> Self {
        let missing = (0..config.size).filter(|slot| !existing.contains(slot));
        out.extend(missing.map(|slot| Command::StartSlot { slot }));
        Self::new(now, config)
    }

    fn new(now: Instant, config: Config) -> Self {
        debug_assert!(config.size > 0, "a pool has at least one slot");
        debug_assert!(config.min_ready <= config.size, "min_ready exceeds the size");
        Self {
            config,
            slots: Slots::new(now, config.size),
            queue: Queue::new(),
            starting_up: false,
            closed: false,
            unavailable: None,
            mean_run: None,
            totals: Totals::default(),
        }
    }

    /// Takes in what happened and appends to `out` what is to be done.
    ///
    /// Whoever's deadline has come is sent away first, whatever the event: so nobody is assigned at or after it, even
    /// when the tick is late, and the dead do not fill the queue against the living.
    pub(crate) fn handle(&mut self, now: Instant, event: Event<T, C>, out: &mut Vec<Command<T, C>>) {
        self.expire(now, out);
        match event {
            Event::Submitted { request, deadline, item } => self.submit(now, request, deadline, item, out),
            Event::Abandoned { request } => {
                if self.queue.remove(request).is_some() {
                    self.totals.abandoned += 1;
                }
            }
            Event::WorkerReady { worker, busy } => {
                if self.slots.ready(now, worker, busy) {
                    self.unavailable = None;
                    self.check_startup(out);
                    self.dispatch(now, out);
                }
            }
            Event::WorkerFreed { worker } => {
                if let Some(ran) = self.slots.freed(now, worker) {
                    self.measure(ran);
                }
                self.dispatch(now, out);
            }
            Event::WorkerExited { worker, cause } => {
                if self.slots.exited(now, worker, cause.clone()) {
                    self.unavailable = None;
                    self.fail_startup(cause, out);
                }
            }
            Event::StartFailed { slot, incarnation, cause } => {
                if self.slots.start_failed(now, slot, incarnation, cause.clone()) {
                    self.fail_startup(cause.clone(), out);
                    self.check_available(cause, out);
                }
            }
            Event::Closed => self.close(out),
            Event::Tick => {}
        }
    }

    /// When a [`Event::Tick`] is due: the earliest deadline of those who wait.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.queue.earliest_deadline()
    }

    /// The pool in numbers.
    pub(crate) fn counts(&self) -> Counts {
        let tally = self.slots.tally();
        Counts {
            size: self.config.size,
            starting: tally.starting,
            idle: tally.idle,
            busy: tally.busy,
            down: tally.down,
            failed: tally.failed,
            waiting: self.queue.len(),
            mean_run: self.mean_run,
            closed: self.closed,
            totals: self.totals,
        }
    }

    /// Every slot, in order.
    pub(crate) fn slots(&self) -> impl Iterator<Item = SlotStatus<'_, C>> {
        self.slots.iter()
    }

    fn submit(
        &mut self,
        now: Instant,
        request: RequestId,
        deadline: Instant,
        item: T,
        out: &mut Vec<Command<T, C>>,
    ) {
        self.totals.submitted += 1;
        let reason = if self.closed {
            Rejection::Draining
        } else if deadline <= now {
            Rejection::TimedOut
        } else if let Some(cause) = &self.unavailable {
            Rejection::Unavailable { cause: cause.clone() }
        } else if let Some(worker) = self.slots.next_idle() {
            // An idle worker means an empty queue, so nobody is overtaken.
            self.slots.assigned(now, worker);
            self.totals.assigned += 1;
            out.push(Command::Assign { worker, request, item });
            return;
        } else if self.queue.len() >= self.config.queue_bound {
            Rejection::Overloaded { queue_len: self.queue.len(), retry_after: self.retry_after() }
        } else {
            self.queue.push(request, deadline, item);
            return;
        };
        self.reject(request, item, reason, out);
    }

    fn dispatch(&mut self, now: Instant, out: &mut Vec<Command<T, C>>) {
        while let Some(worker) = self.slots.next_idle()
            && let Some(waiter) = self.queue.pop()
        {
            self.slots.assigned(now, worker);
            self.totals.assigned += 1;
            out.push(Command::Assign { worker, request: waiter.request, item: waiter.item });
        }
    }

    fn expire(&mut self, now: Instant, out: &mut Vec<Command<T, C>>) {
        while let Some(waiter) = self.queue.pop_expired(now) {
            self.reject(waiter.request, waiter.item, Rejection::TimedOut, out);
        }
    }

    fn close(&mut self, out: &mut Vec<Command<T, C>>) {
        self.closed = true;
        if std::mem::take(&mut self.starting_up) {
            out.push(Command::StartupAborted);
        }
        self.reject_waiters(&Rejection::Draining, out);
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

    fn check_available(&mut self, cause: C, out: &mut Vec<Command<T, C>>) {
        if self.slots.all_failed() {
            self.reject_waiters(&Rejection::Unavailable { cause: cause.clone() }, out);
            self.unavailable = Some(cause);
        }
    }

    fn reject_waiters(&mut self, reason: &Rejection<C>, out: &mut Vec<Command<T, C>>) {
        while let Some(waiter) = self.queue.pop() {
            self.reject(waiter.request, waiter.item, reason.clone(), out);
        }
    }

    fn reject(&mut self, request: RequestId, item: T, reason: Rejection<C>, out: &mut Vec<Command<T, C>>) {
        *match reason {
            Rejection::Overloaded { .. } => &mut self.totals.overloaded,
            Rejection::TimedOut => &mut self.totals.timed_out,
            Rejection::Unavailable { .. } => &mut self.totals.unavailable,
            Rejection::Draining => &mut self.totals.draining,
        } += 1;
        out.push(Command::Reject { request, item, reason });
    }

    fn measure(&mut self, ran: Duration) {
        self.mean_run = Some(match self.mean_run {
            Some(mean) => mean - mean / RUN_WEIGHT + ran / RUN_WEIGHT,
            None => ran,
        });
    }

    /// The time the ready workers need for the queue as it is.
    fn retry_after(&self) -> Duration {
        let queue_len = u32::try_from(self.queue.len()).unwrap_or(u32::MAX);
        let work = self.mean_run.unwrap_or_default().saturating_mul(queue_len);
        (work / self.slots.tally().ready().max(1)).max(SHORTEST_RETRY)
    }
}
