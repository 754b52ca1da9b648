//! The connection between a supervisor and the task of one of its children.
//!
//! | type | held by | for |
//! |---|---|---|
//! | `Control` | supervisor and task | orders to one incarnation (stop, kill), which only ever add up |
//! | `Own` | `Control`, when needed | the exit reason that the child chose, its names, and the exit watchers |
//! | `Link` | the task | reports the start and the end of the task, also when the task is dropped |
//! | `Upward` | `Link` | where those reports go: a supervisor's inbox, or the root's handle |
//! | `ExitWatcher` | `Own` | a later supervisor that waits for the end of an orphan |
//! | `registry::Orphan` | the tree's registry | an incarnation that outlived its supervisor, by its path |
//! | `core::orphan::Orphan` | the core | an incarnation that could not be killed, and whether its end is reported |

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::Waker,
};

use actix_rt::ArbiterHandle;
use futures_util::task::AtomicWaker;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Cause, ExitReason, StartError,
    actor::{Fact, Input},
    core::{Key, Order},
    registry::Registration,
};

const ASK: u8 = 1;
const KILL: u8 = 2;
const EXIT: u8 = 4;
/// Set under the lock of `own`.
const OVER: u8 = 8;
const SETTLED: u8 = 16;

/// Tells one incarnation of a child to end. Orders only ever add up; any thread may give them.
#[derive(Debug, Default)]
pub(crate) struct Control {
    orders: AtomicU8,
    waker: AtomicWaker,
    /// Few children need any.
    own: Mutex<Option<Box<Own>>>,
}

/// The exit reason, names and exit watchers of a child.
#[derive(Debug, Default)]
struct Own {
    exit: Option<ExitReason>,
    names: Vec<Registration>,
    exit_watchers: Vec<ExitWatcher>,
}

/// A supervisor that waits for the end of an orphan, which another supervisor has started.
#[derive(Debug)]
pub(crate) struct ExitWatcher {
    pub(crate) inbox: mpsc::UnboundedSender<Input>,
    pub(crate) child: Key,
    /// Of the instance that has yet to end.
    pub(crate) incarnation: u64,
}

impl Control {
    pub(crate) fn order(&self, order: Order) {
        self.add(match order {
            Order::Ask => ASK,
            Order::Kill => KILL,
        });
    }

    /// The child wants to end, for this reason. The first reason counts.
    pub(crate) fn exit(&self, reason: ExitReason) {
        self.own().get_or_insert_default().exit.get_or_insert(reason);
        self.add(EXIT);
    }

    pub(crate) fn take_exit(&self) -> Option<ExitReason> {
        self.own().as_mut()?.exit.take()
    }

    /// The child has done its work.
    pub(crate) fn mark_settled(&self) {
        // Once is enough, and a pool's worker calls this after each call.
        if !self.is_settled() {
            self.orders.fetch_or(SETTLED, Ordering::AcqRel);
        }
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.orders.load(Ordering::Acquire) & SETTLED != 0
    }

    /// The child has this name until it ends: not at all when it has ended.
    pub(crate) fn keep(&self, name: Registration) {
        let mut own = self.own();
        if !self.is_over() {
            own.get_or_insert_default().names.push(name);
        }
    }

    /// Whether the instance has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.orders.load(Ordering::Acquire) & OVER != 0
    }

    /// The watcher will get the end; false when the instance has ended already.
    pub(crate) fn watch_exit(&self, watcher: ExitWatcher) -> bool {
        let mut own = self.own();
        let lives = !self.is_over();
        if lives {
            own.get_or_insert_default().exit_watchers.push(watcher);
        }
        lives
    }

    /// The instance has ended: its names are free, and a next one may be started.
    fn finish(&self) {
        let own = {
            let mut own = self.own();
            self.orders.fetch_or(OVER, Ordering::AcqRel);
            own.take()
        };
        // Outside the lock.
        let Some(Own { names, exit_watchers, .. }) = own.map(|own| *own) else { return };
        drop(names);
        for ExitWatcher { inbox, child, incarnation } in exit_watchers {
            let fact = Fact::Ended(ExitReason::Killed);
            // A supervisor that is gone has nothing to learn.
            let _ = inbox.send(Input::Child { child, incarnation, fact });
        }
    }

    fn own(&self) -> MutexGuard<'_, Option<Box<Own>>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, order: u8) {
        self.orders.fetch_or(order, Ordering::AcqRel);
        self.waker.wake();
    }

    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.orders.load(Ordering::Acquire) & KILL != 0
    }

    /// Whether the supervisor has asked for the end.
    pub(crate) fn is_asked(&self) -> bool {
        self.orders.load(Ordering::Acquire) & ASK != 0
    }

    /// Whether the supervisor has asked for the end and these [`wishes`](Self::wishes) do not hold the request.
    pub(crate) fn is_asked_beyond(&self, wishes: u8) -> bool {
        self.wishes() & !wishes & ASK != 0
    }

    /// The wishes, of the supervisor or the child itself, that the child should stop: more bits, more wishes.
    pub(crate) fn wishes(&self) -> u8 {
        self.orders.load(Ordering::Acquire) & (ASK | EXIT)
    }
}

/// Where a task reports its start and end.
#[derive(Debug)]
pub(crate) enum Upward {
    Supervisor {
        inbox: mpsc::UnboundedSender<Input>,
        child: Key,
        incarnation: u64,
    },
    Root {
        started: Option<oneshot::Sender<Result<(), StartError>>>,
        ended: watch::Sender<Option<ExitReason>>,
    },
}

/// The task's end of the connection. Dropped without a report, it reports that the arbiter has stopped.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) control: Arc<Control>,
    upward: Upward,
    /// An arbiter that is there for this task alone.
    arbiter: Option<ArbiterHandle>,
    closed: bool,
}

impl Link {
    pub(crate) fn new(control: Arc<Control>, upward: Upward) -> Self {
        Self { control, upward, arbiter: None, closed: false }
    }

    /// Makes the end of this task the end of an arbiter.
    pub(crate) fn own(&mut self, arbiter: ArbiterHandle) {
        self.arbiter = Some(arbiter);
    }

    pub(crate) fn incarnation(&self) -> u64 {
        match &self.upward {
            Upward::Supervisor { incarnation, .. } => *incarnation,
            Upward::Root { .. } => 1,
        }
    }

    pub(crate) fn started(&mut self) {
        match &mut self.upward {
            Upward::Supervisor { .. } => self.tell(Fact::Started),
            Upward::Root { started, .. } => {
                if let Some(started) = started.take() {
                    // A dropped receiver means that the handle is dropped, which kills.
                    let _ = started.send(Ok(()));
                }
            }
        }
    }

    pub(crate) fn start_failed(mut self, cause: Cause) {
        self.closed = true;
        match &mut self.upward {
            Upward::Supervisor { .. } => self.tell(Fact::StartFailed(cause)),
            Upward::Root { started, .. } => {
                if let Some(started) = started.take() {
                    let error = cause.downcast_ref::<StartError>().cloned();
                    let error = error.unwrap_or_else(|| StartError { path: "".into(), cause });
                    let _ = started.send(Err(error));
                }
            }
        }
    }

    pub(crate) fn declined(mut self) {
        self.closed = true;
        self.tell(Fact::Declined);
    }

    pub(crate) fn ended(mut self, reason: ExitReason) {
        self.end(reason);
    }

    fn end(&mut self, reason: ExitReason) {
        self.closed = true;
        match &self.upward {
            Upward::Supervisor { .. } => self.tell(Fact::Ended(reason)),
            Upward::Root { ended, .. } => {
                ended.send_replace(Some(reason));
            }
        }
    }

    fn tell(&self, fact: Fact) {
        if !matches!(fact, Fact::Started) {
            self.control.finish();
        }
        if let Upward::Supervisor { inbox, child, incarnation } = &self.upward {
            // A supervisor that is gone has nothing to learn.
            let _ = inbox.send(Input::Child { child: *child, incarnation: *incarnation, fact });
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if !self.closed {
            self.end(ExitReason::ArbiterStopped);
        }
        if let Some(arbiter) = &self.arbiter {
            arbiter.stop();
        }
    }
}
