//! The state of a supervisor that all threads share: its table of children, its inbox, its subscribers.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::sync::mpsc;

use super::{ChildOptions, Report, ReportEvent, actor::Input, registry::Registry, slot::AnySlot};
use crate::guard::guarded;
use crate::text::escaped_lines;

/// A child in its supervisor's table.
#[derive(Clone)]
pub(crate) enum Entry {
    Actor(Arc<dyn AnySlot>),
    Supervisor(Arc<Shared>),
}

impl Entry {
    pub(crate) fn expect(&self, incarnation: u64) {
        match self {
            Entry::Actor(slot) => slot.expect(incarnation),
            Entry::Supervisor(shared) => shared.inbox().is_down = false,
        }
    }

    /// The incarnation could not be killed. It gets no more messages.
    pub(crate) fn withdraw(&self, incarnation: u64) {
        match self {
            Entry::Actor(slot) => slot.withdraw(incarnation),
            Entry::Supervisor(shared) => shared.inbox().sender = None,
        }
    }

    pub(crate) fn mark_down(&self) {
        match self {
            Entry::Actor(slot) => slot.mark_down(),
            Entry::Supervisor(shared) => shared.mark_down(),
        }
    }

    /// The specification is deleted: the child is down for ever.
    pub(crate) fn forget(&self) {
        self.mark_down();
        if let Entry::Supervisor(shared) = self {
            shared.end_reports();
        }
    }

    fn is_same(&self, other: &Entry) -> bool {
        match (self, other) {
            (Entry::Actor(a), Entry::Actor(b)) => Arc::ptr_eq(a, b),
            (Entry::Supervisor(a), Entry::Supervisor(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

struct Inbox {
    sender: Option<mpsc::UnboundedSender<Input>>,
    /// The supervisor above will not start this one by itself.
    is_down: bool,
    /// The table was made for the next start, and nothing has happened to it since.
    is_declared: bool,
}

/// One supervisor, over all its incarnations. Owns no actor.
pub(crate) struct Shared {
    pub(crate) path: Arc<str>,
    parent: Weak<Shared>,
    children: RwLock<HashMap<Arc<str>, Entry>>,
    inbox: Mutex<Inbox>,
    /// None: this supervisor will never run again.
    subscribers: Mutex<Option<Vec<mpsc::UnboundedSender<Report>>>>,
    has_subscribers: AtomicBool,
    next_incarnation: AtomicU64,
    /// Of a partition supervisor: how many are in use.
    pub(crate) partitions: AtomicUsize,
    initial_partitions: AtomicUsize,
    /// Of the whole tree.
    pub(crate) registry: Arc<Registry>,
}

impl Shared {
    pub(crate) fn new(path: Arc<str>, parent: Weak<Shared>) -> Arc<Self> {
        let registry = parent.upgrade().map(|parent| parent.registry.clone()).unwrap_or_default();
        Arc::new(Self {
            path,
            parent,
            children: RwLock::default(),
            inbox: Mutex::new(Inbox { sender: None, is_down: false, is_declared: false }),
            subscribers: Mutex::new(Some(Vec::new())),
            has_subscribers: AtomicBool::new(false),
            next_incarnation: AtomicU64::new(1),
            partitions: AtomicUsize::new(0),
            initial_partitions: AtomicUsize::new(0),
            registry,
        })
    }

    pub(crate) fn path_of(&self, id: &str) -> Arc<str> {
        [&*self.path, id].join("/").into()
    }

    pub(crate) fn parent(&self) -> Option<Arc<Shared>> {
        self.parent.upgrade()
    }

    fn is_root(&self) -> bool {
        self.parent.strong_count() == 0
    }

    /// Whether no supervisor starts this one by itself when it has ended.
    pub(crate) fn is_down(&self) -> bool {
        self.is_root() || self.inbox().is_down
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The supervisor runs and reads from here.
    pub(crate) fn open(&self, sender: mpsc::UnboundedSender<Input>) {
        self.inbox().sender = Some(sender);
    }

    /// The supervisor has ended. Returns whether it is down: then its children are down, too.
    pub(crate) fn close(&self) -> bool {
        let is_root = self.is_root();
        if is_root {
            self.end_reports();
        }
        let mut inbox = self.inbox();
        inbox.sender = None;
        inbox.is_down |= is_root;
        inbox.is_down
    }

    pub(crate) fn sender(&self) -> Option<mpsc::UnboundedSender<Input>> {
        self.inbox().sender.clone()
    }

    /// Marks this supervisor and its children as down: they are not started by themselves.
    pub(crate) fn mark_down(&self) {
        {
            let mut inbox = self.inbox();
            inbox.is_down = true;
            inbox.is_declared = false;
        }
        for entry in self.children.read().unwrap_or_else(PoisonError::into_inner).values() {
            entry.mark_down();
        }
    }

    /// This supervisor will never run again: its subscriptions end.
    pub(crate) fn end_reports(&self) {
        {
            let mut subscribers = self.subscribers();
            *subscribers = None;
            self.set_subscribed(false);
        }
        for entry in self.children.read().unwrap_or_else(PoisonError::into_inner).values() {
            if let Entry::Supervisor(shared) = entry {
                shared.end_reports();
            }
        }
    }

    /// How many partitions were declared; 0 when this is no partition supervisor.
    pub(crate) fn initial_partitions(&self) -> usize {
        self.initial_partitions.load(Ordering::Acquire)
    }

    pub(crate) fn declare_partitions(&self, count: usize) {
        self.initial_partitions.store(count, Ordering::Release);
        self.partitions.store(count, Ordering::Release);
    }

    pub(crate) fn first_incarnation(&self) -> u64 {
        self.next_incarnation.load(Ordering::Acquire)
    }

    pub(crate) fn keep_incarnation(&self, next: u64) {
        self.next_incarnation.fetch_max(next, Ordering::AcqRel);
    }

    pub(crate) fn entry(&self, id: &str) -> Option<Entry> {
        self.children.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    pub(crate) fn insert(&self, id: Arc<str>, entry: Entry) {
        self.children.write().unwrap_or_else(PoisonError::into_inner).insert(id, entry);
    }

    /// The child's specification is gone.
    pub(crate) fn remove(&self, id: &str, entry: &Entry) {
        entry.forget();
        let mut children = self.children.write().unwrap_or_else(PoisonError::into_inner);
        if children.get(id).is_some_and(|current| current.is_same(entry)) {
            children.remove(id);
        }
    }

    pub(crate) fn children(&self) -> HashMap<Arc<str>, Entry> {
        self.children.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The table is ready for the next start.
    pub(crate) fn set_declared(&self) {
        self.inbox().is_declared = true;
    }

    /// The entries of these children if the table is ready for the start that begins now.
    pub(crate) fn take_declared<'a>(&self, ids: impl Iterator<Item = &'a str>) -> Option<Vec<Entry>> {
        if !std::mem::take(&mut self.inbox().is_declared) {
            return None;
        }
        let children = self.children.read().unwrap_or_else(PoisonError::into_inner);
        ids.map(|id| children.get(id).cloned()).collect()
    }

    /// Replaces the whole table at once, so that no reader finds a part of it.
    pub(crate) fn set_children(&self, children: HashMap<Arc<str>, Entry>) {
        *self.children.write().unwrap_or_else(PoisonError::into_inner) = children;
    }

    /// A subscription. It has ended already when there will be no more reports.
    pub(crate) fn subscribe(&self) -> mpsc::UnboundedReceiver<Report> {
        let (sender, receiver) = mpsc::unbounded_channel();
        if let Some(subscribers) = &mut *self.subscribers() {
            subscribers.push(sender);
            self.set_subscribed(true);
        }
        receiver
    }

    fn subscribers(&self) -> MutexGuard<'_, Option<Vec<mpsc::UnboundedSender<Report>>>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs a report and sends it to the subscribers of this supervisor and of the supervisors above.
    pub(crate) fn report(&self, event: ReportEvent, child: Option<ChildOptions>) {
        let level = event.level();
        let is_logged = log::log_enabled!(target: "hatchery::supervisor", level);
        // Asked of the whole tree: to ask each supervisor above would take a deep tree long.
        let has_subscribers = self.registry.subscribed.load(Ordering::Acquire) > 0;
        if !is_logged && !has_subscribers {
            return;
        }
        let report = Report { supervisor: self.path.clone(), child, event };
        if is_logged {
            // The cause of a failed start is the user's, and so may be the logger.
            let text = guarded(|| format!("{report:#}"));
            let text =
                text.unwrap_or_else(|message| format!("{}: no text: panic: {message}", report.supervisor));
            let text = escaped_lines(&text);
            let _ = guarded(|| log::log!(target: "hatchery::supervisor", level, "{text}"));
        }
        if !has_subscribers {
            return;
        }
        self.deliver(&report);
        let mut above = self.parent();
        while let Some(shared) = above {
            shared.deliver(&report);
            above = shared.parent();
        }
    }

    fn deliver(&self, report: &Report) {
        if !self.has_subscribers.load(Ordering::Acquire) {
            return;
        }
        if let Some(subscribers) = &mut *self.subscribers() {
            subscribers.retain(|subscriber| guarded(|| subscriber.send(report.clone()).is_ok()) == Ok(true));
            self.set_subscribed(!subscribers.is_empty());
        }
    }

    /// Keeps the tree's count of supervisors with subscribers. Called with the lock of `subscribers`.
    fn set_subscribed(&self, is_subscribed: bool) {
        let was_subscribed = self.has_subscribers.swap(is_subscribed, Ordering::AcqRel);
        match (was_subscribed, is_subscribed) {
            (false, true) => drop(self.registry.subscribed.fetch_add(1, Ordering::AcqRel)),
            (true, false) => drop(self.registry.subscribed.fetch_sub(1, Ordering::AcqRel)),
            _ => {}
        }
    }
}
