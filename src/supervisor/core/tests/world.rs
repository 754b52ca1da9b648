//! A whole tree of cores: each nested supervisor is a core of its own, whose end is the end of a child of another.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use super::sim::subject;
use crate::supervisor::{
    ChildError, ChildOptions, ExitReason, ReportEvent,
    core::{Answer, Command, Core, Ending, Event, Key},
    options::SupervisorOptions,
};

/// What a child is built from.
#[derive(Debug, Clone)]
pub(super) enum Spec {
    Worker,
    Supervisor(Blueprint),
}

#[derive(Debug, Clone)]
pub(super) struct Blueprint {
    pub(super) options: SupervisorOptions,
    pub(super) children: Vec<(ChildOptions, Spec)>,
}

/// An incarnation, as its parent knows it.
#[derive(Clone, Copy)]
struct Task {
    key: Key,
    incarnation: u64,
}

pub(super) struct World {
    pub(super) now: Instant,
    cores: BTreeMap<String, Core<Spec, u32>>,
    /// All that lives, actors and supervisors, but the root.
    tasks: HashMap<String, Task>,
    next_incarnations: HashMap<String, u64>,
    /// How many of the next starts of a worker will fail.
    failures: HashMap<String, u32>,
    agenda: VecDeque<(String, Event<Spec, u32>)>,
    /// By supervisor: "start app/a", "stop app/a", in order.
    pub(super) orders: BTreeMap<String, Vec<String>>,
    pub(super) reports: Vec<(String, ReportEvent)>,
    pub(super) replies: HashMap<u32, Result<Answer, ChildError>>,
    pub(super) ending: Option<Ending>,
    calls: u32,
}

pub(super) fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').expect("not the root").0
}

impl World {
    /// The tree "app", started.
    pub(super) fn new(root: &Blueprint) -> Self {
        let mut world = Self {
            now: Instant::now(),
            cores: BTreeMap::new(),
            tasks: HashMap::new(),
            next_incarnations: HashMap::new(),
            failures: HashMap::new(),
            agenda: VecDeque::new(),
            orders: BTreeMap::new(),
            reports: Vec::new(),
            replies: HashMap::new(),
            ending: None,
            calls: 0,
        };
        world.boot("app".into(), root);
        world.run();
        world
    }

    fn boot(&mut self, path: String, blueprint: &Blueprint) {
        let first = self.next_incarnations.get(&path).copied().unwrap_or(1);
        let core = Core::new(blueprint.options.clone(), blueprint.children.iter().cloned(), first, 7);
        assert!(self.cores.insert(path.clone(), core).is_none(), "{path} runs twice");
        self.agenda.push_back((path, Event::Boot));
    }

    /// Until nothing happens any more without time passing.
    fn run(&mut self) {
        loop {
            while let Some((path, event)) = self.agenda.pop_front() {
                // A supervisor that has ended hears nothing.
                let Some(core) = self.cores.get_mut(&path) else { continue };
                let mut out = Vec::new();
                core.handle(self.now, event, &mut out);
                for command in out {
                    self.carry_out(&path, command);
                }
                if let Some(core) = self.cores.get_mut(&path) {
                    core.arm(self.now);
                }
            }
            let due = |core: &Core<Spec, u32>| core.next_deadline().is_some_and(|at| at <= self.now);
            let Some((path, _)) = self.cores.iter().find(|(_, core)| due(core)) else { return };
            self.agenda.push_back((path.clone(), Event::Tick));
        }
    }

    fn carry_out(&mut self, supervisor: &str, command: Command<Spec, u32>) {
        match command {
            Command::Start { child, incarnation } => self.start(supervisor, child, incarnation),
            Command::Stop { child, .. } => {
                let path = self.path_of(supervisor, child);
                self.order(supervisor, format!("stop {path}"));
                if self.cores.contains_key(&path) {
                    self.agenda.push_back((path, Event::Stop));
                } else {
                    self.end(&path, ExitReason::Shutdown);
                }
            }
            Command::Reply { caller, result } => {
                assert!(self.replies.insert(caller, result).is_none(), "answered twice");
            }
            Command::Report { event, child } => {
                assert_eq!(child.map(|child| child.id), subject(&event), "{event:?}");
                self.reports.push((supervisor.to_owned(), event));
            }
            Command::Booted => {
                if let Some(&Task { key, incarnation }) = self.tasks.get(supervisor) {
                    let event = Event::Started { child: key, incarnation };
                    self.agenda.push_back((parent_of(supervisor).to_owned(), event));
                }
            }
            Command::Finished(ending) => self.finished(supervisor, ending),
            Command::Down { .. }
            | Command::GaveUp { .. }
            | Command::Removed(_)
            | Command::Done(_)
            | Command::Resized(_) => {}
        }
    }

    fn start(&mut self, supervisor: &str, child: Key, incarnation: u64) {
        let path = self.path_of(supervisor, child);
        self.order(supervisor, format!("start {path}"));
        let task = Task { key: child, incarnation };
        assert!(self.tasks.insert(path.clone(), task).is_none(), "two instances of {path} at once");
        let spec = self.cores[supervisor].payload(child).expect("it is being started").clone();
        match spec {
            Spec::Supervisor(blueprint) => self.boot(path, &blueprint),
            Spec::Worker => {
                let event = match self.failures.get_mut(&path) {
                    Some(failures) if *failures > 0 => {
                        *failures -= 1;
                        self.tasks.remove(&path);
                        let cause = Arc::new(std::io::Error::other("told to fail"));
                        Event::StartFailed { child, incarnation, cause }
                    }
                    _ => Event::Started { child, incarnation },
                };
                self.agenda.push_back((supervisor.to_owned(), event));
            }
        }
    }

    fn finished(&mut self, path: &str, ending: Ending) {
        let below = format!("{path}/");
        let left: Vec<_> = self.tasks.keys().filter(|task| task.starts_with(&below)).collect();
        assert!(left.is_empty(), "{path} has ended before {left:?}");
        let core = self.cores.remove(path).expect("it runs");
        self.next_incarnations.insert(path.to_owned(), core.next_incarnation());
        match (self.tasks.get(path).copied(), ending) {
            (None, ending) => self.ending = Some(ending),
            (Some(_), Ending::Ended(reason)) => self.end(path, reason),
            (Some(Task { key: child, incarnation }), Ending::NotStarted { cause, .. }) => {
                self.tasks.remove(path);
                let event = Event::StartFailed { child, incarnation, cause };
                self.agenda.push_back((parent_of(path).to_owned(), event));
            }
        }
    }

    fn end(&mut self, path: &str, reason: ExitReason) {
        if let Some(Task { key: child, incarnation }) = self.tasks.remove(path) {
            let event = Event::Ended { child, incarnation, reason };
            self.agenda.push_back((parent_of(path).to_owned(), event));
        }
    }

    fn path_of(&self, supervisor: &str, child: Key) -> String {
        format!("{supervisor}/{}", self.cores[supervisor].children[&child].options.id)
    }

    fn order(&mut self, supervisor: &str, order: String) {
        self.orders.entry(supervisor.to_owned()).or_default().push(order);
    }

    /// A worker ends by itself.
    pub(super) fn exit(&mut self, path: &str, reason: ExitReason) {
        assert!(self.tasks.contains_key(path), "{path} does not live");
        self.end(path, reason);
        self.run();
    }

    /// The next starts of this worker will fail.
    pub(super) fn fail(&mut self, path: &str, times: u32) {
        self.failures.insert(path.to_owned(), times);
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.run();
    }

    /// Asks something of a supervisor, and waits for the answer.
    pub(super) fn call(
        &mut self,
        supervisor: &str,
        event: impl FnOnce(u32) -> Event<Spec, u32>,
    ) -> Result<Answer, ChildError> {
        self.calls += 1;
        let caller = self.calls;
        self.agenda.push_back((supervisor.to_owned(), event(caller)));
        self.run();
        self.replies.remove(&caller).expect("each call is answered")
    }

    pub(super) fn stop(&mut self) {
        self.agenda.push_back(("app".into(), Event::Stop));
        self.run();
    }

    /// All that lives, but the root.
    pub(super) fn living(&self) -> HashSet<&str> {
        self.tasks.keys().map(String::as_str).collect()
    }
}
