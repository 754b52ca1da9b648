//! Random histories of random supervisors, checked after every step, and their orders against a reference model.
//!
//! A failure names the seed; `SUPERVISOR_SEED=n cargo test --lib property` replays it alone.

use std::collections::{HashMap, HashSet, VecDeque};

use super::sim::*;
use crate::supervisor::{
    Backoff, ExitReason, ReportEvent, Restart, Shutdown, Strategy,
    core::{Event, StateView},
    options::SupervisorOptions,
};

pub(super) fn seeds() -> Vec<u64> {
    match std::env::var("SUPERVISOR_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => (0..3_000).collect(),
    }
}

/// Prints the seed when a check fails.
pub(super) struct Seed(pub(super) u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with SUPERVISOR_SEED={}", self.0);
        }
    }
}

pub(super) fn pick<T: Clone>(random: &mut fastrand::Rng, of: &[T]) -> T {
    of[random.usize(..of.len())].clone()
}

fn random_child(random: &mut fastrand::Rng, id: &str) -> crate::supervisor::ChildOptions {
    let mut child = with(
        pick(random, &[Restart::Permanent, Restart::Permanent, Restart::Transient, Restart::Temporary]),
        id,
    );
    child.shutdown = pick(random, &[Shutdown::Brutal, Shutdown::Timeout(S), Shutdown::Infinity]);
    if random.u8(..4) == 0 {
        child.backoff = Some(Box::new(Backoff { free: random.u32(..3), ..Backoff::default() }));
    }
    child
}

fn random_manner(random: &mut fastrand::Rng, sim: &mut Sim, id: &str) {
    let start = pick(
        random,
        &[
            Start::Up,
            Start::Up,
            Start::Up,
            Start::Up,
            Start::Fail,
            Start::Decline,
            Start::FailAfter(S),
            Start::Hang,
        ],
    );
    sim.starts(id, &[start, Start::Up]);
    let stops = [Stop::AtOnce, Stop::AtOnce, Stop::AtOnce, Stop::After(S / 2), Stop::Never, Stop::Unkillable];
    sim.stops(id, pick(random, &stops));
}

/// Exactly one end for each start, in order, for each child; one that was given up may end later.
fn check_reports(sim: &Sim, over: bool) {
    let mut up: HashMap<&str, u64> = HashMap::new();
    let mut given_up: HashMap<&str, u64> = HashMap::new();
    let mut highest: HashMap<&str, u64> = HashMap::new();
    for report in &sim.reports {
        match report {
            ReportEvent::Started { id, incarnation } => {
                assert_eq!(up.insert(id, *incarnation), None, "{id}: started twice");
                assert!(!given_up.contains_key(&**id), "{id}: started beside one that lives");
                let highest = highest.entry(id).or_default();
                assert!(incarnation > highest, "{id}: incarnations must rise");
                *highest = *incarnation;
            }
            ReportEvent::ChildTerminated { id, incarnation, .. }
            | ReportEvent::Stopped { id, incarnation }
            | ReportEvent::ShutdownError { id, incarnation, .. } => {
                let started = up.remove(&**id).or_else(|| given_up.remove(&**id));
                assert_eq!(started, Some(*incarnation), "{id}: an end without a start");
            }
            ReportEvent::Unkillable { id, incarnation } => {
                // Not, when it could not be killed while it was starting.
                if let Some(started) = up.remove(&**id) {
                    assert_eq!(started, *incarnation);
                    given_up.insert(id, started);
                }
            }
            _ => {}
        }
    }
    if over {
        assert!(up.is_empty(), "ends not reported: {up:?}");
    }
}

/// In a static supervisor one child at a time is stopped, newest first among those of one operation, and all are
/// stopped from newest to oldest in the end.
fn check_final_stop(orders: &[String], before: &[String]) {
    let mut asked: Vec<&str> = Vec::new();
    for order in orders {
        if let Some(id) = order.strip_prefix("ask ").or_else(|| order.strip_prefix("kill "))
            && asked.last() != Some(&id)
        {
            asked.push(id);
        }
    }
    let place: HashMap<&str, usize> = before.iter().enumerate().map(|(i, id)| (&**id, i)).collect();
    let places: Vec<usize> = asked.iter().map(|id| place[id]).collect();
    assert!(places.windows(2).all(|pair| pair[0] > pair[1]), "not newest to oldest: {asked:?} of {before:?}");
}

#[test]
fn random_histories_keep_the_invariants() {
    for seed in seeds() {
        let _seed = Seed(seed);
        let mut random = fastrand::Rng::with_seed(seed);
        let is_dynamic = random.u8(..3) == 0;
        let options = SupervisorOptions {
            dynamic: is_dynamic,
            strategy: if is_dynamic {
                Strategy::OneForOne
            } else {
                pick(&mut random, &[Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne])
            },
            intensity: random.u32(..20),
            period: 5 * S,
            ..SupervisorOptions::default()
        };
        let ids = ["a", "b", "c", "d", "e"];
        let declared: Vec<_> = ids[..if is_dynamic { 0 } else { random.usize(..4) }]
            .iter()
            .map(|id| random_child(&mut random, id))
            .collect();
        let mut sim = Sim::new(options, &declared);
        sim.boot();
        let mut callers = HashSet::new();
        for _ in 0..40 {
            let id = pick(&mut random, &ids);
            random_manner(&mut random, &mut sim, id);
            match random.u8(..10) {
                0..=3 if sim.is_running(id) => {
                    let reason = pick(&mut random, &[0, 1, 2]);
                    sim.exit(
                        id,
                        match reason {
                            0 => ExitReason::Normal,
                            1 => ExitReason::Shutdown,
                            _ => ExitReason::Panic("crash".into()),
                        },
                    );
                }
                4 => {
                    let child = random_child(&mut random, id);
                    callers.insert(sim.start_later(child));
                }
                5 => {
                    callers.insert(sim.terminate_later(id));
                }
                6 if !is_dynamic && random.bool() => {
                    callers.insert(sim.restart_later(id));
                }
                6 => {
                    callers.insert(sim.delete_later(id));
                }
                9 if sim.lives(id) && sim.state(id) != Some(StateView::Starting) => {
                    sim.exit(id, ExitReason::Killed);
                }
                7 => sim.settle(),
                8 => sim.pass(pick(&mut random, &[S / 10, S, 6 * S])),
                _ => {}
            }
        }
        check_reports(&sim, false);
        if !sim.ended() {
            // Without what hangs, all that was asked is answered.
            sim.pass(40 * S);
            let before: Vec<String> = sim.core.children().map(|child| child.options.id.to_string()).collect();
            let calm = sim.core.plan.is_none();
            sim.log.clear();
            if random.bool() {
                sim.event(Event::Stop);
                sim.pass(60 * S);
                if !sim.ended() {
                    // An infinite patience with a child that never stops.
                    sim.event(Event::Kill);
                    sim.pass(S);
                } else if calm && !is_dynamic {
                    check_final_stop(&sim.take_orders(), &before);
                }
            } else {
                sim.event(Event::Kill);
                sim.pass(S);
            }
        } else {
            sim.pass(60 * S);
        }
        assert!(sim.ended(), "a kill always ends");
        check_reports(&sim, true);
        for caller in callers {
            assert!(sim.reply(caller).is_some(), "caller {caller} was forgotten");
        }
        assert_eq!(sim.core.live, 0);
    }
}

/// The reference: a supervisor whose starts and stops take no time and never fail, as a list and a few loops.
struct Model {
    strategy: Strategy,
    /// (id, restart type, what it is)
    children: Vec<(String, Restart, Is)>,
    intensity: usize,
    period_ms: u64,
    restarts: VecDeque<u64>,
    over: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Is {
    Running,
    Terminated,
    Finished,
}

impl Model {
    fn exit(&mut self, id: &str, normal: bool, now_ms: u64) -> Vec<String> {
        let Some(at) = self.position(id) else { return Vec::new() };
        let (_, restart, is) = self.children[at].clone();
        if is != Is::Running || self.over {
            return Vec::new();
        }
        match restart {
            Restart::Temporary => {
                self.children.remove(at);
                return Vec::new();
            }
            Restart::Transient if normal => {
                self.children[at].2 = Is::Finished;
                return Vec::new();
            }
            _ => {}
        }
        self.restarts.push_back(now_ms);
        self.restarts.retain(|&then| now_ms - then <= self.period_ms);
        let mut orders = Vec::new();
        if self.restarts.len() > self.intensity {
            self.over = true;
            for (other, _, is) in self.children.iter().rev() {
                if *is == Is::Running && other != id {
                    orders.push(format!("stop {other}"));
                }
            }
            return orders;
        }
        let group = match self.strategy {
            Strategy::OneForOne => at..at + 1,
            Strategy::RestForOne => at..self.children.len(),
            Strategy::OneForAll => 0..self.children.len(),
        };
        let members: Vec<String> = self.children[group].iter().map(|(id, ..)| id.clone()).collect();
        for other in members.iter().rev().filter(|other| *other != id) {
            let at = self.position(other).unwrap();
            if self.children[at].2 == Is::Running {
                orders.push(format!("stop {other}"));
                if self.children[at].1 == Restart::Temporary {
                    self.children.remove(at);
                }
            }
        }
        for other in &members {
            if let Some(at) = self.position(other)
                && self.children[at].2 != Is::Finished
            {
                self.children[at].2 = Is::Running;
                orders.push(format!("start {other}"));
            }
        }
        orders
    }

    fn start(&mut self, id: &str, restart: Restart) -> Vec<String> {
        if self.over || self.position(id).is_some() {
            return Vec::new();
        }
        self.children.push((id.to_owned(), restart, Is::Running));
        vec![format!("start {id}")]
    }

    fn terminate(&mut self, id: &str) -> Vec<String> {
        let Some(at) = self.position(id).filter(|_| !self.over) else { return Vec::new() };
        let was = self.children[at].2;
        if was == Is::Running && self.children[at].1 == Restart::Temporary {
            self.children.remove(at);
        } else {
            self.children[at].2 = Is::Terminated;
        }
        if was == Is::Running { vec![format!("stop {id}")] } else { Vec::new() }
    }

    fn position(&self, id: &str) -> Option<usize> {
        self.children.iter().position(|(child, ..)| child == id)
    }
}

#[test]
fn orders_are_those_of_the_reference_model() {
    for seed in seeds() {
        let _seed = Seed(seed);
        let mut random = fastrand::Rng::with_seed(seed);
        let strategy = pick(&mut random, &[Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne]);
        let ids = ["a", "b", "c", "d", "e", "f"];
        let intensity = random.u32(..6);
        let restarts = [Restart::Permanent, Restart::Transient, Restart::Temporary];
        let mut model = Model {
            strategy,
            children: Vec::new(),
            intensity: intensity as usize,
            period_ms: 5_000,
            restarts: VecDeque::new(),
            over: false,
        };
        let mut declared = Vec::new();
        for id in &ids[..random.usize(..5)] {
            let restart = pick(&mut random, &restarts);
            declared.push(with(restart, id));
            model.start(id, restart);
        }
        let mut sim = Sim::up(options(strategy, intensity, 5 * S), &declared);
        let mut now_ms = 0;
        for _ in 0..30 {
            let id = pick(&mut random, &ids);
            let expected = match random.u8(..6) {
                0..=2 => {
                    let normal = random.bool();
                    if sim.is_running(id) && !sim.ended() {
                        sim.exit(id, if normal { ExitReason::Normal } else { ExitReason::Killed });
                    }
                    model.exit(id, normal, now_ms)
                }
                3 => {
                    let restart = pick(&mut random, &restarts);
                    sim.start_later(with(restart, id));
                    model.start(id, restart)
                }
                4 => {
                    sim.terminate_later(id);
                    model.terminate(id)
                }
                _ => {
                    let ms = random.u64(..3_000);
                    sim.pass(std::time::Duration::from_millis(ms));
                    now_ms += ms;
                    Vec::new()
                }
            };
            let orders: Vec<String> =
                sim.take_orders().into_iter().map(|order| order.replace("ask ", "stop ")).collect();
            assert_eq!(orders, expected);
            assert_eq!(sim.ended(), model.over);
            if model.over {
                break;
            }
            let running: Vec<_> = ids.iter().filter(|id| sim.is_running(id)).copied().collect();
            let mut expected: Vec<_> = model
                .children
                .iter()
                .filter(|(_, _, is)| *is == Is::Running)
                .map(|(id, ..)| id.as_str())
                .collect();
            expected.sort_unstable();
            assert_eq!(running, expected);
            assert_eq!(sim.counts()[0], model.children.len());
            assert!(!ids.iter().any(|id| sim.state(id) == Some(StateView::Restarting)));
        }
    }
}
