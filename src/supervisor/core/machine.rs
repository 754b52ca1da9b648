//! The state machine: events in, commands out.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

use hashbrown::HashTable;

use super::{
    super::{
        AutoShutdown, Cause, ChildError, ChildOptions, ExitReason, Kind, ReportEvent, Restart, Shutdown,
        ShutdownCause, StartFailure, intensity::Intensity, options::SupervisorOptions,
    },
    child::{Child, ChildView, Down, Key, Starter, State, StateView, Stopping},
    children::Children,
    event::{Answer, Command, Ending, Event, Order},
    orphan::Orphan,
    plan::{Goal, Plan, Work},
    resize::Resizing,
};

/// How long after a kill a child that still lives is called unkillable, and how long a start waits for the end of one
/// that was. A nested supervisor gets longer, since it waits for its own children's grace.
pub(super) fn kill_grace(kind: Kind) -> Duration {
    match kind {
        Kind::Worker => Duration::from_secs(1),
        Kind::Supervisor => Duration::from_secs(10),
    }
}

pub(super) enum Phase {
    Booting,
    Up { since: Instant },
    ShuttingDown(Ending),
    Finished,
}

/// The state of one supervisor. `T` is the shell's data of a child, `C` a caller that waits for an answer.
pub(crate) struct Core<T, C> {
    pub(super) options: SupervisorOptions,
    pub(super) children: Children<T, C>,
    /// The keys by their ids, which the children have.
    ids: HashTable<Key>,
    hasher: RandomState,
    pub(super) timers: BTreeSet<(Instant, Key)>,
    /// Limits of children that have just been told to end: [`arm`](Self::arm) sets their timers.
    limits: Vec<(Key, Duration)>,
    /// Significant children that have not ended for good.
    pub(super) significant: BTreeSet<Key>,
    pub(super) intensity: Intensity,
    pub(super) phase: Phase,
    pub(super) plan: Option<Plan>,
    pub(super) queue: VecDeque<Work<T, C>>,
    /// How many children have a task, those that were given up not counted.
    pub(super) live: usize,
    /// Who waits for the end of a child: few, and so kept apart.
    pub(super) stoppers: BTreeMap<Key, Vec<C>>,
    /// Instances that live on although they were given up: rare, and so kept apart.
    pub(super) orphans: BTreeMap<Key, Orphan>,
    /// Of a partition supervisor: how many are in use.
    pub(super) in_use: usize,
    pub(super) resizing: Option<Resizing<C>>,
    next_incarnation: u64,
    random: fastrand::Rng,
}

impl<T, C> Core<T, C> {
    /// A supervisor with its declared children, none of them started. The first incarnation is
    /// `first_incarnation`; `seed` decides the jitter of back-offs.
    pub(crate) fn new(
        options: SupervisorOptions,
        declared: impl IntoIterator<Item = (ChildOptions, T)>,
        first_incarnation: u64,
        seed: u64,
    ) -> Self {
        let mut core = Self {
            intensity: Intensity::new(options.intensity, options.period),
            stoppers: BTreeMap::new(),
            orphans: BTreeMap::new(),
            in_use: options.partitions.unwrap_or(0),
            resizing: None,
            options,
            children: Children::new(),
            ids: HashTable::new(),
            hasher: RandomState::new(),
            timers: BTreeSet::new(),
            limits: Vec::new(),
            significant: BTreeSet::new(),
            phase: Phase::Booting,
            plan: None,
            queue: VecDeque::new(),
            live: 0,
            next_incarnation: first_incarnation,
            random: fastrand::Rng::with_seed(seed),
        };
        let declared = declared.into_iter();
        core.ids.reserve(declared.size_hint().0, |_| unreachable!("none was inserted"));
        for (options, payload) in declared {
            core.insert(options, payload);
        }
        core
    }

    /// Handles an event that happened at `now`, and appends the commands.
    pub(crate) fn handle(&mut self, now: Instant, event: Event<T, C>, out: &mut Vec<Command<T, C>>) {
        if matches!(self.phase, Phase::Finished) {
            return self.refuse(event, out);
        }
        match event {
            Event::Boot => self.plan = Some(Plan::boot()),
            Event::Started { child, incarnation } => self.started(now, child, incarnation, out),
            Event::StartFailed { child, incarnation, .. } | Event::Declined { child, incarnation }
                if self.is_orphan(child, incarnation) =>
            {
                self.orphan_ended(child, ExitReason::Killed, out)
            }
            Event::Ended { child, incarnation, reason } if self.is_orphan(child, incarnation) => {
                self.orphan_ended(child, reason, out)
            }
            Event::StillRuns { child, incarnation, orphan } => {
                self.still_runs(now, child, incarnation, orphan, out)
            }
            Event::StartFailed { child, incarnation, cause } => {
                self.start_failed(now, child, incarnation, cause, out)
            }
            Event::Declined { child, incarnation } => self.declined(child, incarnation, out),
            Event::Settled { child, incarnation } => self.settled(child, incarnation),
            Event::Ended { child, incarnation, reason } => self.ended(now, child, incarnation, reason, out),
            Event::StartChild { options, payload, caller } => self.start_child(options, payload, caller, out),
            Event::TerminateChild { id, caller } => self.terminate_child(id, caller, out),
            Event::RestartChild { id, caller } => self.restart_child(id, caller, out),
            Event::DeleteChild { id, caller } => self.delete_child(id, caller, out),
            Event::Resize { size, caller } => self.resize(size, caller, out),
            Event::Tick => self.tick(now, out),
            Event::Stop => self.stop(out),
            Event::Kill => self.kill(out),
        }
        self.pump(now, out);
    }

    /// The commands of the last [`handle`](Self::handle) have been carried out. The time that a child has to obey begins now: a
    /// supervisor may tell thousands of children to end before the first of them can run.
    pub(crate) fn arm(&mut self, now: Instant) {
        for (key, limit) in std::mem::take(&mut self.limits) {
            let is_stopping =
                self.children.get(&key).is_some_and(|child| matches!(child.state, State::Stopping { .. }));
            // A limit that the clock cannot express is no limit.
            if is_stopping && let Some(at) = now.checked_add(limit) {
                self.set_timer(key, at);
            }
        }
    }

    /// Whether [`arm`](Self::arm) has something to do.
    pub(crate) fn is_unarmed(&self) -> bool {
        !self.limits.is_empty()
    }

    /// When [`Event::Tick`] is due, if nothing happens before.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.timers.first().map(|&(at, _)| at)
    }

    /// The incarnation that the next start will have.
    pub(crate) fn next_incarnation(&self) -> u64 {
        self.next_incarnation
    }

    pub(crate) fn payload(&self, child: Key) -> Option<&T> {
        self.children.get(&child).map(|child| &child.payload)
    }

    pub(crate) fn payload_mut(&mut self, child: Key) -> Option<&mut T> {
        self.children.get_mut(&child).map(|child| &mut child.payload)
    }

    /// Takes all children away: for one whose supervisor has ended.
    pub(crate) fn take_payloads(&mut self) -> impl Iterator<Item = T> + use<T, C> {
        std::mem::replace(&mut self.children, Children::new()).into_values().map(|child| child.payload)
    }

    /// The children that have a task, and the incarnation of that.
    pub(crate) fn live(&self) -> impl Iterator<Item = (&T, u64)> {
        let live = |child: &Child<T, C>| child.is_live().then(|| child.view(None).incarnation).flatten();
        self.children.values().filter_map(move |child| Some((&child.payload, live(child)?)))
    }

    pub(crate) fn auto_shutdown(&self) -> AutoShutdown {
        self.options.auto_shutdown
    }

    /// The state of this supervisor itself, and since when it has been up.
    pub(crate) fn itself(&self) -> (StateView, Option<Instant>) {
        match self.phase {
            Phase::Booting => (StateView::Starting, None),
            Phase::Up { since } => (StateView::Running, Some(since)),
            Phase::ShuttingDown(_) | Phase::Finished => (StateView::Stopping, None),
        }
    }

    /// All children, in start order.
    pub(crate) fn children(&self) -> impl Iterator<Item = ChildView<'_>> {
        self.children.values().map(|child| child.view(self.orphan(child.key)))
    }

    /// One child.
    pub(crate) fn child(&self, id: &str) -> Option<ChildView<'_>> {
        let key = self.key(id)?;
        self.children.get(&key).map(|child| child.view(self.orphan(key)))
    }

    /// The child of this id.
    pub(super) fn key(&self, id: &str) -> Option<Key> {
        // Those of an ending supervisor leave their keys behind.
        let is_it = |key: &Key| self.children.get(key).is_some_and(|child| &*child.options.id == id);
        self.ids.find(self.hasher.hash_one(id), is_it).copied()
    }

    pub(super) fn insert(&mut self, options: ChildOptions, payload: T) -> Key {
        let id = options.id.clone();
        let key = self.children.insert(|key| Child::new(key, options, payload));
        let hash = |id: &str| self.hasher.hash_one(id);
        self.ids.insert_unique(hash(&id), key, |key| hash(&self.children[key].options.id));
        key
    }

    pub(super) fn remove(&mut self, key: Key, out: &mut Vec<Command<T, C>>) {
        self.clear_timer(key);
        self.significant.remove(&key);
        self.orphans.remove(&key);
        if let Some(child) = self.children.remove(&key) {
            let hash = self.hasher.hash_one(&*child.options.id);
            if let Ok(entry) = self.ids.find_entry(hash, |&other| other == key) {
                entry.remove();
            }
            out.push(Command::Removed(child.payload));
        }
    }

    /// Marks a child without a task as down, for good or until a caller restarts it.
    pub(super) fn mark_down(&mut self, key: Key, down: Down, out: &mut Vec<Command<T, C>>) {
        self.clear_timer(key);
        self.significant.remove(&key);
        if let Some(child) = self.children.get_mut(&key) {
            child.state = State::Down(down);
            // An idle child comes up again with its group or its supervisor.
            if down != Down::Idle {
                out.push(Command::Down { child: key });
            }
        }
    }

    pub(super) fn set_timer(&mut self, key: Key, at: Instant) {
        self.clear_timer(key);
        if let Some(child) = self.children.get_mut(&key) {
            child.timer = Some(at);
            self.timers.insert((at, key));
        }
    }

    pub(super) fn clear_timer(&mut self, key: Key) {
        if let Some(at) = self.children.get_mut(&key).and_then(|child| child.timer.take()) {
            self.timers.remove(&(at, key));
        }
    }

    pub(super) fn random(&mut self) -> f64 {
        self.random.f64()
    }

    pub(super) fn begin_start(&mut self, key: Key, now: Instant, out: &mut Vec<Command<T, C>>) {
        self.clear_timer(key);
        let Some(child) = self.children.get_mut(&key) else { return };
        let incarnation = self.next_incarnation;
        self.next_incarnation += 1;
        child.up_since = None;
        child.is_again = match child.state {
            State::Restarting => true,
            State::Down(Down::Idle) => child.starts > 0 || child.deaths > 0,
            _ => false,
        };
        if child.options.significant {
            self.significant.insert(key);
        }
        if self.orphans.contains_key(&key) {
            return self.block(key, incarnation, now);
        }
        child.state = State::Starting { incarnation };
        self.live += 1;
        out.push(Command::Start { child: key, incarnation });
    }

    /// Begins to stop a child; true when there is an end to wait for.
    pub(super) fn begin_stop(&mut self, key: Key, out: &mut Vec<Command<T, C>>) -> bool {
        let Some(child) = self.children.get_mut(&key) else { return false };
        match &child.state {
            State::Stopping { .. } => true,
            State::Running { incarnation } => {
                let incarnation = *incarnation;
                match child.options.shutdown {
                    Shutdown::Brutal => {
                        child.state = State::Stopping { incarnation, how: Stopping::Brutal };
                        self.order_kill(key, out);
                        return true;
                    }
                    Shutdown::Timeout(limit) => self.limits.push((key, limit)),
                    Shutdown::Infinity => {}
                }
                child.state = State::Stopping { incarnation, how: Stopping::Asked };
                out.push(Command::Stop { child: key, order: Order::Ask });
                true
            }
            State::Starting { incarnation } => {
                child.state = State::Stopping { incarnation: *incarnation, how: Stopping::Cancelled };
                self.order_kill(key, out);
                true
            }
            State::Dead { .. } => {
                self.overtaken(key, out);
                false
            }
            State::Restarting => {
                self.mark_down(key, Down::Idle, out);
                false
            }
            State::Blocked { .. } => {
                self.cancel_blocked(key, Down::Idle, out);
                false
            }
            State::Down(_) => false,
        }
    }

    /// Tells a child's task to end at once.
    pub(super) fn order_kill(&mut self, key: Key, out: &mut Vec<Command<T, C>>) {
        let Some(child) = self.children.get(&key) else { return };
        let grace = kill_grace(child.options.kind);
        self.clear_timer(key);
        self.limits.push((key, grace));
        out.push(Command::Stop { child: key, order: Order::Kill });
    }

    fn started(&mut self, now: Instant, key: Key, incarnation: u64, out: &mut Vec<Command<T, C>>) {
        let Some(child) = self.children.get_mut(&key) else { return };
        if !matches!(child.state, State::Starting { incarnation: i } if i == incarnation) {
            // Cancelled meanwhile: its end is still to come, and an end without a start is not reported.
            return;
        }
        child.state = State::Running { incarnation };
        child.up_since = Some(now);
        child.starts += 1;
        let starter = child.starter.take();
        out.push(child.report(|id| ReportEvent::Started { id, incarnation }));
        if let Some(Starter { caller, .. }) = starter {
            out.push(Command::Reply { caller, result: Ok(Answer::Started { incarnation }) });
        }
        self.resolved(key);
    }

    fn start_failed(
        &mut self,
        now: Instant,
        key: Key,
        incarnation: u64,
        cause: Cause,
        out: &mut Vec<Command<T, C>>,
    ) {
        let Some(child) = self.children.get_mut(&key) else { return };
        match child.state {
            State::Starting { incarnation: i } if i == incarnation => self.live -= 1,
            State::Blocked { incarnation: i } if i == incarnation => {}
            State::Stopping { incarnation: i, .. } if i == incarnation => {
                return self.settle(key, ExitReason::Killed, out);
            }
            _ => return,
        }
        let options = child.options.clone();
        let report = |cause, retry_in| Command::Report {
            event: ReportEvent::StartFailed { id: options.id.clone(), incarnation, cause, retry_in },
            child: Some(options.clone()),
        };
        let starter = child.starter.take();
        let may_fail = options.backoff.as_ref().is_some_and(|backoff| !backoff.must_start);
        self.resolved(key);
        match (&self.phase, starter) {
            (Phase::Booting, None) if may_fail => {
                let retry = self.schedule_retry(key, now);
                out.push(report(cause, Some(retry)));
                // Siblings that share its fate come up with it.
                let group = self.group(key);
                if group.end - group.start > 1
                    && let Some(plan) = &mut self.plan
                {
                    plan.abandon();
                }
            }
            (Phase::Booting, None) => {
                out.push(report(cause.clone(), None));
                self.mark_down(key, Down::Idle, out);
                let id = options.id.clone();
                let reason = ShutdownCause::StartFailed { id: id.clone() };
                self.shut_down(reason, Some(options), Ending::NotStarted { id, cause }, out);
            }
            (Phase::ShuttingDown(_) | Phase::Finished, starter) => {
                self.mark_down(key, Down::Idle, out);
                if let Some(Starter { caller, .. }) = starter {
                    out.push(Command::Reply { caller, result: Err(ChildError::SupervisorDown) });
                }
            }
            (_, starter) => {
                let retry = match starter {
                    None if self.resizing.is_some() => {
                        self.resize_failed(key, cause.clone(), out);
                        None
                    }
                    None => Some(self.schedule_retry(key, now)),
                    Some(Starter { caller, keep }) => {
                        let retry = may_fail.then(|| self.schedule_retry(key, now));
                        match (retry, keep) {
                            (Some(_), _) => {}
                            (None, true) => self.mark_down(key, Down::Terminated, out),
                            (None, false) => self.remove(key, out),
                        }
                        let error = ChildError::Start { cause: cause.clone(), retrying: retry.is_some() };
                        out.push(Command::Reply { caller, result: Err(error) });
                        retry
                    }
                };
                out.push(report(cause, retry));
                // The rest of the group waits for the retry.
                if let Some(plan) = &mut self.plan
                    && plan.goal == Goal::Restart
                {
                    plan.abandon();
                }
            }
        }
    }

    fn settled(&mut self, key: Key, incarnation: u64) {
        if let Some(child) = self.children.get_mut(&key)
            && matches!(child.state, State::Running { incarnation: i } if i == incarnation)
        {
            child.deaths = 0;
        }
    }

    fn declined(&mut self, key: Key, incarnation: u64, out: &mut Vec<Command<T, C>>) {
        let Some(child) = self.children.get_mut(&key) else { return };
        match child.state {
            State::Starting { incarnation: i } if i == incarnation => {}
            State::Stopping { incarnation: i, .. } if i == incarnation => {
                return self.settle(key, ExitReason::Killed, out);
            }
            _ => return,
        }
        self.live -= 1;
        let starter = child.starter.take();
        let temporary = child.options.restart == Restart::Temporary;
        out.push(child.report(|id| ReportEvent::Declined { id }));
        self.resolved(key);
        if temporary || self.options.dynamic {
            self.remove(key, out);
        } else {
            self.mark_down(key, Down::Declined, out);
        }
        if let Some(Starter { caller, .. }) = starter {
            out.push(Command::Reply { caller, result: Ok(Answer::Declined) });
        }
    }

    fn ended(
        &mut self,
        now: Instant,
        key: Key,
        incarnation: u64,
        reason: ExitReason,
        out: &mut Vec<Command<T, C>>,
    ) {
        let Some(child) = self.children.get_mut(&key) else { return };
        match child.state {
            State::Running { incarnation: i } if i == incarnation => {
                child.state = State::Dead { incarnation, reason };
                self.live -= 1;
                self.queue.push_back(Work::Exit { child: key, incarnation });
            }
            State::Stopping { incarnation: i, .. } if i == incarnation => self.settle(key, reason, out),
            State::Starting { incarnation: i } if i == incarnation => {
                let cause = StartFailure::ArbiterStopped;
                self.start_failed(now, key, incarnation, Arc::new(cause), out);
            }
            _ => {}
        }
    }

    fn tick(&mut self, now: Instant, out: &mut Vec<Command<T, C>>) {
        while let Some(&(at, key)) = self.timers.first() {
            if at > now {
                break;
            }
            self.clear_timer(key);
            let Some(child) = self.children.get_mut(&key) else { continue };
            match &mut child.state {
                State::Restarting => self.queue.push_back(Work::Retry { child: key }),
                State::Stopping { how: how @ Stopping::Asked, .. } => {
                    *how = Stopping::TimedOut;
                    self.order_kill(key, out);
                }
                State::Stopping { .. } => self.unkillable(key, out),
                &mut State::Blocked { incarnation } => {
                    let cause = Arc::new(StartFailure::StillRunning);
                    self.start_failed(now, key, incarnation, cause, out);
                }
                _ => {}
            }
        }
    }
}
