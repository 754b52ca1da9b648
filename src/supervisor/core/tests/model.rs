//! The reference: a tree whose starts and stops take no time, as nested lists and a few loops.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::world::{Blueprint, Spec};
use crate::supervisor::{AutoShutdown, ChildOptions, Restart, Strategy};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Is {
    Running,
    /// Until its group, or somebody, starts it.
    Down,
    /// For good, as far as its group is concerned.
    Finished,
}

/// A supervisor that runs.
pub(super) struct Node {
    path: String,
    blueprint: Blueprint,
    pub(super) children: Vec<Child>,
    restarts: VecDeque<u64>,
    in_use: usize,
}

pub(super) struct Child {
    pub(super) options: ChildOptions,
    spec: Spec,
    pub(super) is: Is,
    pub(super) node: Option<Node>,
    /// Of one that was declared.
    number: Option<usize>,
}

/// What all supervisors of the tree share.
#[derive(Default)]
pub(super) struct Book {
    pub(super) now_ms: u64,
    pub(super) failures: HashMap<String, u32>,
    pub(super) orders: BTreeMap<String, Vec<String>>,
}

/// The supervisor has ended.
pub(super) struct Over;

impl Book {
    fn write(&mut self, node: &Node, verb: &str, id: &str) {
        let line = format!("{verb} {}/{id}", node.path);
        self.orders.entry(node.path.clone()).or_default().push(line);
    }
}

impl Node {
    /// Starts a supervisor with all below it; `None` when something there cannot start.
    pub(super) fn start(path: String, blueprint: &Blueprint, book: &mut Book) -> Option<Node> {
        let child = |(number, (options, spec)): (usize, &(ChildOptions, Spec))| Child {
            options: options.clone(),
            spec: spec.clone(),
            is: Is::Down,
            node: None,
            number: Some(number),
        };
        let children: Vec<_> = blueprint.children.iter().enumerate().map(child).collect();
        let in_use = blueprint.options.partitions.unwrap_or(0);
        let restarts = VecDeque::new();
        let mut node = Node { path, blueprint: blueprint.clone(), children, restarts, in_use };
        for at in 0..node.children.len() {
            if !node.bring_up(at, book) {
                node.stop(book);
                return None;
            }
        }
        Some(node)
    }

    /// Stops all children.
    pub(super) fn stop(&mut self, book: &mut Book) {
        let mut order: Vec<usize> = (0..self.children.len()).collect();
        if !self.blueprint.options.dynamic {
            order.reverse();
        }
        for at in order {
            self.take_down(at, book);
        }
    }

    fn bring_up(&mut self, at: usize, book: &mut Book) -> bool {
        let id = self.children[at].options.id.clone();
        let path = format!("{}/{id}", self.path);
        book.write(self, "start", &id);
        let node = match &self.children[at].spec {
            Spec::Supervisor(blueprint) => match Node::start(path, blueprint, book) {
                Some(node) => Some(node),
                None => return false,
            },
            Spec::Worker => {
                if let Some(failures) = book.failures.get_mut(&path).filter(|failures| **failures > 0) {
                    *failures -= 1;
                    return false;
                }
                None
            }
        };
        self.children[at].node = node;
        self.children[at].is = Is::Running;
        true
    }

    fn take_down(&mut self, at: usize, book: &mut Book) {
        if self.children[at].is == Is::Running {
            book.write(self, "stop", &self.children[at].options.id);
            self.children[at].is = Is::Down;
            if let Some(mut node) = self.children[at].node.take() {
                node.stop(book);
            }
        }
    }

    fn position(&self, id: &str) -> Option<usize> {
        self.children.iter().position(|child| &*child.options.id == id)
    }

    /// The supervisor at a path below this one.
    pub(super) fn find(&mut self, path: &[&str]) -> Option<&mut Node> {
        match path {
            [] => Some(self),
            [id, rest @ ..] => {
                let at = self.position(id)?;
                self.children[at].node.as_mut()?.find(rest)
            }
        }
    }

    /// The actor at a path below this supervisor ends by itself.
    pub(super) fn exit(&mut self, path: &[&str], normal: bool, book: &mut Book) -> Result<(), Over> {
        let at = self.position(path[0]).expect("it is there");
        let normal = match path {
            [] | [_] => normal,
            [_, rest @ ..] => {
                let node = self.children[at].node.as_mut().expect("it runs");
                match node.exit(rest, normal, book) {
                    Ok(()) => return Ok(()),
                    // As a supervisor that has given up ends.
                    Err(Over) => true,
                }
            }
        };
        let child = &mut self.children[at];
        (child.is, child.node) = (Is::Down, None);
        let is_final = match child.options.restart {
            Restart::Permanent => false,
            Restart::Transient => normal,
            Restart::Temporary => true,
        };
        if !is_final {
            return self.restart(at, book);
        }
        child.is = Is::Finished;
        let significant = child.options.significant;
        if child.options.restart == Restart::Temporary || self.blueprint.options.dynamic {
            self.children.remove(at);
        }
        let lives = |child: &Child| child.options.significant && child.is == Is::Running;
        let ends = significant
            && match self.blueprint.options.auto_shutdown {
                AutoShutdown::Never => false,
                AutoShutdown::AnySignificant => true,
                AutoShutdown::AllSignificant => !self.children.iter().any(lives),
            };
        if ends { self.end(book) } else { Ok(()) }
    }

    fn end(&mut self, book: &mut Book) -> Result<(), Over> {
        self.stop(book);
        Err(Over)
    }

    /// Each attempt counts; the next one is for the child that could not start.
    fn restart(&mut self, mut at: usize, book: &mut Book) -> Result<(), Over> {
        loop {
            let period = self.blueprint.options.period.as_millis() as u64;
            self.restarts.push_back(book.now_ms);
            self.restarts.retain(|then| book.now_ms - then <= period);
            if self.restarts.len() > self.blueprint.options.intensity as usize {
                return self.end(book);
            }
            match self.attempt(at, book) {
                Ok(()) => return Ok(()),
                Err(failed) => at = failed,
            }
        }
    }

    fn attempt(&mut self, at: usize, book: &mut Book) -> Result<(), usize> {
        let (from, to) = match self.blueprint.options.strategy {
            Strategy::OneForOne => (at, at + 1),
            Strategy::RestForOne => (at, self.children.len()),
            Strategy::OneForAll => (0, self.children.len()),
        };
        let ids: Vec<_> = self.children[from..to].iter().map(|child| child.options.id.clone()).collect();
        for other in (from..to).rev() {
            let was_running = self.children[other].is == Is::Running;
            self.take_down(other, book);
            if was_running && self.children[other].options.restart == Restart::Temporary {
                self.children.remove(other);
            }
        }
        for id in ids {
            let Some(at) = self.position(&id) else { continue };
            if self.children[at].is == Is::Down && !self.bring_up(at, book) {
                return Err(at);
            }
        }
        Ok(())
    }

    pub(super) fn start_child(&mut self, options: ChildOptions, spec: Spec, book: &mut Book) -> bool {
        if self.position(&options.id).is_some() {
            return false;
        }
        self.children.push(Child { options, spec, is: Is::Down, node: None, number: None });
        let at = self.children.len() - 1;
        let is_up = self.bring_up(at, book);
        if !is_up {
            self.children.remove(at);
        }
        is_up
    }

    pub(super) fn terminate(&mut self, id: &str, book: &mut Book) -> bool {
        let Some(at) = self.position(id) else { return false };
        let was_running = self.children[at].is == Is::Running;
        self.take_down(at, book);
        let temporary = was_running && self.children[at].options.restart == Restart::Temporary;
        if temporary || self.blueprint.options.dynamic {
            self.children.remove(at);
        } else {
            self.children[at].is = Is::Down;
        }
        true
    }

    pub(super) fn restart_child(&mut self, id: &str, book: &mut Book) -> bool {
        match self.position(id) {
            Some(at) if self.children[at].is != Is::Running && !self.blueprint.options.dynamic => {
                let is_up = self.bring_up(at, book);
                if !is_up {
                    self.children[at].is = Is::Down;
                }
                is_up
            }
            _ => false,
        }
    }

    pub(super) fn delete_child(&mut self, id: &str) -> bool {
        match self.position(id) {
            Some(at) if self.children[at].is != Is::Running && !self.blueprint.options.dynamic => {
                self.children.remove(at);
                true
            }
            _ => false,
        }
    }

    /// The former size.
    pub(super) fn resize(&mut self, size: usize, book: &mut Book) -> Option<usize> {
        let count = self.blueprint.options.partitions.unwrap_or(0);
        if size > count {
            return None;
        }
        let at_number =
            |node: &Node, number| node.children.iter().position(|child| child.number == Some(number));
        for number in (size..count).rev() {
            if let Some(at) = at_number(self, number) {
                self.take_down(at, book);
                self.children[at].is = Is::Down;
            }
        }
        for number in self.in_use.min(size)..size {
            if let Some(at) = at_number(self, number)
                && self.children[at].is == Is::Down
                && !self.bring_up(at, book)
            {
                self.in_use = number;
                return None;
            }
        }
        Some(std::mem::replace(&mut self.in_use, size))
    }

    /// The paths of all supervisors, and of all actors, that run.
    pub(super) fn running(&self) -> (Vec<String>, Vec<String>) {
        let (mut supervisors, mut actors) = (vec![self.path.clone()], Vec::new());
        for child in self.children.iter().filter(|child| child.is == Is::Running) {
            match &child.node {
                Some(node) => {
                    let (more, most) = node.running();
                    supervisors.extend(more);
                    actors.extend(most);
                }
                None => actors.push(format!("{}/{}", self.path, child.options.id)),
            }
        }
        (supervisors, actors)
    }
}
