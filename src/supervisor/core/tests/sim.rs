//! A supervisor without actors: children that do as they are told, and a clock that only moves when told to.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::supervisor::{
    ChildError, ChildOptions, ExitReason, Kind, ReportEvent, Restart, Shutdown, ShutdownCause, Strategy,
    core::{Answer, Command, Core, Ending, Event, Key, Order, StateView},
    options::SupervisorOptions,
};

pub(super) const S: Duration = Duration::from_secs(1);

/// What a child does when it is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Up,
    Fail,
    Decline,
    /// Until the test says what comes of it.
    Hang,
    /// Fails after this time.
    FailAfter(Duration),
}

/// What a child does when it is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    AtOnce,
    After(Duration),
    /// Only a kill ends it.
    Never,
    /// Nothing ends it.
    Unkillable,
}

#[derive(Debug, Clone)]
pub(super) struct Manner {
    /// The next starts; after these the last one again.
    pub(super) starts: VecDeque<Start>,
    pub(super) stop: Stop,
}

#[derive(Debug)]
struct Task {
    id: Arc<str>,
    incarnation: u64,
}

pub(super) type Result = std::result::Result<Answer, ChildError>;

pub(super) struct Sim {
    pub(super) core: Core<(), u32>,
    pub(super) now: Instant,
    pub(super) manners: HashMap<String, Manner>,
    /// "start a", "ask a", "kill a", "end a", in order.
    pub(super) log: Vec<String>,
    pub(super) reports: Vec<ReportEvent>,
    pub(super) replies: BTreeMap<u32, Result>,
    pub(super) ending: Option<Ending>,
    pub(super) booted: bool,
    /// Instances that an earlier supervisor has left behind; they end by `former_ends`.
    pub(super) orphans: HashMap<String, u64>,
    /// How many partitions are in use.
    pub(super) partitions: usize,
    tasks: HashMap<Key, Task>,
    agenda: VecDeque<Event<(), u32>>,
    later: Vec<(Instant, Key, u64, Later)>,
    calls: u32,
}

/// The child that a report names.
pub(super) fn subject(event: &ReportEvent) -> Option<Arc<str>> {
    match event {
        ReportEvent::Started { id, .. }
        | ReportEvent::StartFailed { id, .. }
        | ReportEvent::Declined { id }
        | ReportEvent::ChildTerminated { id, .. }
        | ReportEvent::Stopped { id, .. }
        | ReportEvent::ShutdownError { id, .. }
        | ReportEvent::Unkillable { id, .. } => Some(id.clone()),
        ReportEvent::Shutdown { cause } => match cause {
            ShutdownCause::StartFailed { id }
            | ShutdownCause::IntensityExceeded { id }
            | ShutdownCause::AutoShutdown { id } => Some(id.clone()),
            ShutdownCause::Requested | ShutdownCause::Killed => None,
        },
    }
}

#[derive(Debug, Clone, Copy)]
enum Later {
    End,
    Fail,
}

pub(super) fn worker(id: &str) -> ChildOptions {
    ChildOptions::new(id, Kind::Worker)
}

pub(super) fn with(restart: Restart, id: &str) -> ChildOptions {
    ChildOptions { restart, ..worker(id) }
}

pub(super) fn stopped_by(shutdown: Shutdown, id: &str) -> ChildOptions {
    ChildOptions { shutdown, ..worker(id) }
}

pub(super) fn options(strategy: Strategy, intensity: u32, period: Duration) -> SupervisorOptions {
    SupervisorOptions { strategy, intensity, period, ..SupervisorOptions::default() }
}

pub(super) fn dynamic(intensity: u32, period: Duration) -> SupervisorOptions {
    SupervisorOptions { dynamic: true, intensity, period, ..SupervisorOptions::default() }
}

impl Sim {
    /// A supervisor that has not booted.
    pub(super) fn new(options: SupervisorOptions, children: &[ChildOptions]) -> Self {
        Self {
            core: Core::new(options.clone(), children.iter().map(|child| (child.clone(), ())), 1, 7),
            now: Instant::now(),
            manners: HashMap::new(),
            log: Vec::new(),
            reports: Vec::new(),
            replies: BTreeMap::new(),
            ending: None,
            booted: false,
            orphans: HashMap::new(),
            partitions: options.partitions.unwrap_or(0),
            tasks: HashMap::new(),
            agenda: VecDeque::new(),
            later: Vec::new(),
            calls: 0,
        }
    }

    /// A supervisor that is up.
    pub(super) fn up(options: SupervisorOptions, children: &[ChildOptions]) -> Self {
        let mut sim = Self::new(options, children);
        sim.boot();
        assert!(sim.booted);
        sim.log.clear();
        sim
    }

    pub(super) fn boot(&mut self) {
        self.event(Event::Boot);
    }

    pub(super) fn manner(&mut self, id: &str) -> &mut Manner {
        self.manners
            .entry(id.to_owned())
            .or_insert_with(|| Manner { starts: VecDeque::from([Start::Up]), stop: Stop::AtOnce })
    }

    pub(super) fn starts(&mut self, id: &str, starts: &[Start]) {
        self.manner(id).starts = starts.iter().copied().collect();
    }

    pub(super) fn stops(&mut self, id: &str, stop: Stop) {
        self.manner(id).stop = stop;
    }

    /// Hands over an event, and all that follows from it without time passing.
    pub(super) fn event(&mut self, event: Event<(), u32>) {
        self.agenda.push_back(event);
        while let Some(event) = self.agenda.pop_front() {
            let mut out = Vec::new();
            self.core.handle(self.now, event, &mut out);
            for command in out {
                self.carry_out(command);
            }
            self.core.arm(self.now);
            self.check();
        }
    }

    fn carry_out(&mut self, command: Command<(), u32>) {
        let late = self.ending.is_some() && !matches!(command, Command::Reply { .. });
        assert!(!late, "nothing but refusals follows the end: {command:?}");
        match command {
            Command::Start { child, incarnation } => {
                let id = self.id_of(child);
                if let Some(&former) = self.orphans.get(&*id) {
                    return self.agenda.push_back(Event::StillRuns { child, incarnation, orphan: former });
                }
                assert!(!self.tasks.contains_key(&child), "two instances of {id} at once");
                self.log.push(format!("start {id}"));
                self.tasks.insert(child, Task { id: id.clone(), incarnation });
                let manner = self.manner(&id);
                let start = if manner.starts.len() > 1 {
                    manner.starts.pop_front()
                } else {
                    manner.starts.front().copied()
                };
                match start.unwrap_or(Start::Up) {
                    Start::Up => self.agenda.push_back(Event::Started { child, incarnation }),
                    Start::Hang => {}
                    Start::FailAfter(delay) => {
                        self.later.push((self.now + delay, child, incarnation, Later::Fail));
                    }
                    Start::Fail => self.fail_start(child, incarnation),
                    Start::Decline => {
                        self.tasks.remove(&child);
                        self.agenda.push_back(Event::Declined { child, incarnation });
                    }
                }
            }
            Command::Stop { child, order } => {
                // It may have ended meanwhile, on its own.
                let Some(task) = self.tasks.get(&child) else { return };
                let (id, incarnation) = (task.id.clone(), task.incarnation);
                let stop = self.manner(&id).stop;
                match order {
                    Order::Ask => {
                        self.log.push(format!("ask {id}"));
                        match stop {
                            Stop::AtOnce => self.end_task(child, ExitReason::Shutdown),
                            Stop::After(delay) => {
                                self.later.push((self.now + delay, child, incarnation, Later::End));
                            }
                            Stop::Never | Stop::Unkillable => {}
                        }
                    }
                    Order::Kill => {
                        self.log.push(format!("kill {id}"));
                        if stop != Stop::Unkillable {
                            self.end_task(child, ExitReason::Killed);
                        }
                    }
                }
            }
            Command::Reply { caller, result } => {
                assert!(self.replies.insert(caller, result).is_none(), "answered twice");
            }
            Command::Report { event, child } => {
                assert_eq!(child.map(|child| child.id), subject(&event), "{event:?}");
                self.reports.push(event);
            }
            Command::Down { .. } | Command::Removed(()) | Command::Done(()) | Command::GaveUp { .. } => {}
            Command::Resized(size) => self.partitions = size,
            Command::Booted => self.booted = true,
            Command::Finished(ending) => self.ending = Some(ending),
        }
    }

    fn id_of(&self, key: Key) -> Arc<str> {
        self.core.children[&key].options.id.clone()
    }

    fn key(&self, id: &str) -> Key {
        self.core.key(id).unwrap()
    }

    fn end_task(&mut self, child: Key, reason: ExitReason) {
        if let Some(task) = self.tasks.remove(&child) {
            self.log.push(format!("end {}", task.id));
            self.agenda.push_back(Event::Ended { child, incarnation: task.incarnation, reason });
        }
    }

    fn fail_start(&mut self, child: Key, incarnation: u64) {
        if self.tasks.get(&child).is_some_and(|task| task.incarnation == incarnation) {
            self.tasks.remove(&child);
            let cause = Arc::new(std::io::Error::other("told to fail"));
            self.agenda.push_back(Event::StartFailed { child, incarnation, cause });
        }
    }

    /// What must hold after every single step.
    fn check(&self) {
        if self.core.children.len() > 100 {
            return;
        }
        let counted = self.core.children.values().filter(|child| child.is_live()).count();
        assert_eq!(self.core.live, counted, "the count of live children has drifted");
        for child in self.core.children.values() {
            assert_eq!(self.core.key(&child.options.id), Some(child.key));
        }
        for (key, former) in &self.core.orphans {
            assert!(self.core.children.contains_key(key), "a former instance of nobody: {former:?}");
            assert!(!self.core.children[key].is_live(), "a second instance beside {former:?}");
        }
        let timers = self.core.children.values().filter(|child| child.timer.is_some()).count();
        assert_eq!(self.core.timers.len(), timers, "a timer without a child, or the reverse");
    }

    /// A child ends by itself.
    pub(super) fn exit(&mut self, id: &str, reason: ExitReason) {
        let key = self.key(id);
        self.end_task(key, reason);
        if let Some(event) = self.agenda.pop_front() {
            self.event(event);
        }
    }

    /// What an earlier supervisor has left behind ends at last.
    pub(super) fn former_ends(&mut self, id: &str) {
        let incarnation = self.orphans.remove(id).expect("it lives");
        if let Some(child) = self.core.key(id) {
            self.event(Event::Ended { child, incarnation, reason: ExitReason::Killed });
        }
    }

    /// Whether a task of this child exists.
    pub(super) fn lives(&self, id: &str) -> bool {
        self.core.key(id).is_some_and(|key| self.tasks.contains_key(&key))
    }

    pub(super) fn crash(&mut self, id: &str) {
        self.exit(id, ExitReason::Panic("crash".into()));
    }

    /// Lets time pass, with all deadlines on the way.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let deadline = self.core.next_deadline();
            let later = self.later.iter().map(|&(at, ..)| at).min();
            let next = deadline.into_iter().chain(later).min().filter(|&at| at <= end);
            let Some(at) = next else { break };
            self.now = self.now.max(at);
            if later == Some(at) {
                let index = self.later.iter().position(|&(when, ..)| when == at).unwrap();
                let (_, child, incarnation, what) = self.later.remove(index);
                if self.tasks.get(&child).is_some_and(|task| task.incarnation == incarnation) {
                    match what {
                        Later::End => self.end_task(child, ExitReason::Shutdown),
                        Later::Fail => self.fail_start(child, incarnation),
                    }
                    if let Some(event) = self.agenda.pop_front() {
                        self.event(event);
                    }
                }
            } else {
                self.event(Event::Tick);
            }
        }
        self.now = end;
    }

    /// Handles what is due now, as OTP handles the message to itself of a failed restart.
    pub(super) fn settle(&mut self) {
        self.pass(Duration::ZERO);
    }

    fn call(&mut self, event: impl FnOnce(u32) -> Event<(), u32>) -> u32 {
        self.calls += 1;
        let caller = self.calls;
        self.event(event(caller));
        caller
    }

    /// The answer, if it is there.
    pub(super) fn reply(&mut self, caller: u32) -> Option<Result> {
        self.replies.remove(&caller)
    }

    pub(super) fn start_later(&mut self, options: ChildOptions) -> u32 {
        self.call(|caller| Event::StartChild { options, payload: (), caller })
    }

    pub(super) fn terminate_later(&mut self, id: &str) -> u32 {
        self.call(|caller| Event::TerminateChild { id: id.into(), caller })
    }

    pub(super) fn start(&mut self, options: ChildOptions) -> Result {
        let caller = self.start_later(options);
        self.reply(caller).expect("an answer at once")
    }

    pub(super) fn terminate(&mut self, id: &str) -> Result {
        let caller = self.terminate_later(id);
        self.reply(caller).expect("an answer at once")
    }

    pub(super) fn restart_later(&mut self, id: &str) -> u32 {
        self.call(|caller| Event::RestartChild { id: id.into(), caller })
    }

    pub(super) fn restart(&mut self, id: &str) -> Result {
        let caller = self.restart_later(id);
        self.reply(caller).expect("an answer at once")
    }

    pub(super) fn delete(&mut self, id: &str) -> Result {
        let caller = self.delete_later(id);
        self.reply(caller).expect("an answer at once")
    }

    pub(super) fn delete_later(&mut self, id: &str) -> u32 {
        self.call(|caller| Event::DeleteChild { id: id.into(), caller })
    }

    pub(super) fn resize_later(&mut self, size: usize) -> u32 {
        self.call(|caller| Event::Resize { size, caller })
    }

    /// [specs, active, supervisors, workers]
    pub(super) fn counts(&self) -> [usize; 4] {
        let mut counts = [0; 4];
        for child in self.core.children() {
            counts[0] += 1;
            counts[1] += usize::from(child.state.is_active());
            counts[if child.options.kind == Kind::Supervisor { 2 } else { 3 }] += 1;
        }
        counts
    }

    pub(super) fn incarnation(&self, id: &str) -> Option<u64> {
        self.core.child(id)?.incarnation
    }

    pub(super) fn state(&self, id: &str) -> Option<StateView> {
        Some(self.core.child(id)?.state)
    }

    pub(super) fn is_running(&self, id: &str) -> bool {
        self.state(id) == Some(StateView::Running)
    }

    /// Whether the supervisor has ended, and as one that gave up.
    pub(super) fn gave_up(&self) -> bool {
        let exceeded = self.reports.iter().any(|report| {
            matches!(report, ReportEvent::Shutdown { cause: ShutdownCause::IntensityExceeded { .. } })
        });
        let ended = matches!(self.ending, Some(Ending::Ended(ExitReason::Shutdown)));
        assert_eq!(exceeded, ended);
        ended
    }

    pub(super) fn ended(&self) -> bool {
        self.ending.is_some()
    }

    pub(super) fn take_log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    /// Orders and starts only.
    pub(super) fn take_orders(&mut self) -> Vec<String> {
        let log = self.take_log();
        log.into_iter().filter(|line| !line.starts_with("end ")).collect()
    }
}
