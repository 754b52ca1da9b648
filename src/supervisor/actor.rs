//! The task of one supervisor: a thin shell around the core.
//!
//! Messages and ends of children come in through one inbox, orders of the parent through the control, time
//! through one timer. All are handed to the core, and its commands are carried out.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot},
    time::Sleep,
};

use super::{
    Cause, ChildContext, ChildError, ExitReason, StartError,
    builder::Blueprint,
    control::{Control, ExitWatcher, Link, Upward},
    core::{Answer, Command, Core, Ending, Event, Key, Order},
    registry::Orphan,
    shared::{Entry, Shared},
    spec::{Spec, Starter},
};
use crate::guard::{discard, guarded};

/// Where the answer to a call goes.
pub(crate) type Caller = oneshot::Sender<Result<Answer, ChildError>>;

/// The core of a running supervisor.
pub(crate) type Roster = Core<Unit, Caller>;

/// A message to a supervisor's task.
pub(crate) enum Input {
    /// From the task of a child.
    Child {
        child: Key,
        incarnation: u64,
        fact: Fact,
    },
    StartChild {
        spec: Spec,
        caller: Caller,
    },
    TerminateChild {
        id: Arc<str>,
        caller: Caller,
    },
    RestartChild {
        id: Arc<str>,
        caller: Caller,
    },
    DeleteChild {
        id: Arc<str>,
        caller: Caller,
    },
    Resize {
        size: usize,
        caller: Caller,
    },
    /// End in order.
    Stop,
    /// A question.
    Inspect(Box<dyn FnOnce(&Roster) + Send>),
}

/// An event of a child's task.
#[derive(Debug)]
pub(crate) enum Fact {
    Started,
    StartFailed(Cause),
    Declined,
    /// It was not started, since this incarnation of it lives.
    StillRuns(u64),
    Ended(ExitReason),
}

/// The shell's data of a child.
pub(crate) struct Unit {
    id: Arc<str>,
    starter: Starter,
    entry: Entry,
    /// Whether the supervisor's table has it: a child that is added gets there with its first start.
    is_listed: bool,
    /// Of the last incarnation.
    control: Option<Arc<Control>>,
}

impl Unit {
    fn new(id: Arc<str>, starter: Starter, entry: Entry, is_listed: bool) -> Self {
        Self { id, starter, entry, is_listed, control: None }
    }
}

/// The time by tokio's clock, which tests can pause.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A running supervisor.
pub(crate) struct SupervisorTask {
    core: Roster,
    shared: Arc<Shared>,
    inbox: mpsc::UnboundedReceiver<Input>,
    sender: mpsc::UnboundedSender<Input>,
    commands: Vec<Command<Unit, Caller>>,
    timer: Pin<Box<Sleep>>,
    /// The parent's strongest order that the core knows.
    order: Option<Order>,
    /// `None` once the end has been reported.
    link: Option<Link>,
}

impl SupervisorTask {
    pub(crate) fn new(blueprint: &Blueprint, shared: Arc<Shared>, link: Link) -> Self {
        let (sender, inbox) = mpsc::unbounded_channel();
        let entries = blueprint.entries(&shared);
        let declared = blueprint.children.iter().zip(entries).map(|(spec, entry)| {
            (spec.options.clone(), Unit::new(spec.options.id.clone(), spec.starter.clone(), entry, true))
        });
        let core =
            Core::new(blueprint.options.clone(), declared, shared.first_incarnation(), fastrand::u64(..));
        shared.open(sender.clone());
        let mut task = Self {
            core,
            shared,
            inbox,
            sender,
            commands: Vec::new(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            order: None,
            link: Some(link),
        };
        task.core.handle(now(), Event::Boot, &mut task.commands);
        task
    }

    fn handle(&mut self, event: Event<Unit, Caller>) {
        self.core.handle(now(), event, &mut self.commands);
        self.carry_out();
        if self.core.is_unarmed() {
            self.core.arm(now());
        }
    }

    fn take(&mut self, input: Input) {
        let event = match input {
            Input::Child { child, incarnation, fact } => match fact {
                Fact::Started => Event::Started { child, incarnation },
                Fact::StartFailed(cause) => {
                    // Kept, so that the user's error is not dropped within the core.
                    self.handle(Event::StartFailed { child, incarnation, cause: cause.clone() });
                    return discard(cause);
                }
                Fact::StillRuns(orphan) => Event::StillRuns { child, incarnation, orphan },
                Fact::Declined => Event::Declined { child, incarnation },
                Fact::Ended(reason) => {
                    let control = self.core.payload(child).and_then(|unit| unit.control.as_ref());
                    if control.is_some_and(|control| control.is_settled()) {
                        self.handle(Event::Settled { child, incarnation });
                    }
                    Event::Ended { child, incarnation, reason }
                }
            },
            Input::StartChild { spec, caller } => {
                if let Err(error) = spec.validate(&self.shared.path, self.core.auto_shutdown()) {
                    return discard((caller.send(Err(error.into())), spec));
                }
                let Spec { options, starter } = spec;
                let entry = starter.launcher.entry(&options.id, &self.shared, None);
                let payload = Unit::new(options.id.clone(), starter, entry, false);
                Event::StartChild { options, payload, caller }
            }
            Input::TerminateChild { id, caller } => Event::TerminateChild { id, caller },
            Input::RestartChild { id, caller } => Event::RestartChild { id, caller },
            Input::DeleteChild { id, caller } => Event::DeleteChild { id, caller },
            Input::Resize { size, caller } => Event::Resize { size, caller },
            Input::Stop => {
                if let Some(link) = &self.link {
                    link.control.order(Order::Ask);
                }
                return self.obey();
            }
            Input::Inspect(question) => return question(&self.core),
        };
        self.handle(event);
    }

    fn carry_out(&mut self) {
        let mut commands = std::mem::take(&mut self.commands);
        for command in commands.drain(..) {
            // Each may run user code (a drop, a logger), and none depends on the one before.
            let _ = guarded(|| self.obey_core(command));
        }
        self.commands = commands;
    }

    fn obey_core(&mut self, command: Command<Unit, Caller>) {
        match command {
            Command::Start { child, incarnation } => self.start(child, incarnation),
            Command::Stop { child, order } => {
                if let Some(control) = self.core.payload(child).and_then(|unit| unit.control.as_ref()) {
                    control.order(order);
                }
            }
            // The caller may have left.
            Command::Reply { caller, result } => drop(caller.send(result)),
            Command::Report { event, child } => self.shared.report(event, child),
            Command::GaveUp { child, incarnation } => {
                if let Some(unit) = self.core.payload(child) {
                    unit.entry.withdraw(incarnation);
                    self.leave_orphan(unit, incarnation);
                }
            }
            Command::Down { child } => {
                if let Some(unit) = self.core.payload(child) {
                    unit.entry.mark_down();
                }
            }
            Command::Removed(unit) => self.shared.remove(&unit.id, &unit.entry),
            Command::Done(unit) => {
                if self.shared.is_down() {
                    unit.entry.mark_down();
                }
            }
            Command::Resized(size) => self.shared.partitions.store(size, Ordering::Release),
            Command::Booted => {
                if let Some(link) = &mut self.link {
                    link.started();
                }
            }
            Command::Finished(ending) => self.finish(ending),
        }
    }

    fn start(&mut self, child: Key, incarnation: u64) {
        let Some(unit) = self.core.payload_mut(child) else { return };
        unit.entry.expect(incarnation);
        let id = &unit.id;
        if !std::mem::replace(&mut unit.is_listed, true) {
            self.shared.insert(id.clone(), unit.entry.clone());
        }
        if let Some(orphan) = self.shared.registry.orphan(|| self.shared.path_of(id)) {
            let watcher = ExitWatcher { inbox: self.sender.clone(), child, incarnation: orphan.incarnation };
            if orphan.control.watch_exit(watcher) {
                let fact = Fact::StillRuns(orphan.incarnation);
                // To ourselves: it cannot fail.
                let _ = self.sender.send(Input::Child { child, incarnation, fact });
                return;
            }
        }
        let control = Arc::new(Control::default());
        let upward = Upward::Supervisor { inbox: self.sender.clone(), child, incarnation };
        let link = Link::new(control.clone(), upward);
        unit.control = Some(control.clone());
        let context = ChildContext::new(id.clone(), incarnation, control, self.shared.clone());
        unit.starter.launch(unit.entry.clone(), link, context);
    }

    fn finish(&mut self, ending: Ending) {
        let Some(link) = self.link.take() else { return };
        self.close();
        match ending {
            Ending::Ended(reason) => link.ended(reason),
            Ending::NotStarted { id, cause } => {
                // The deepest child that could not start is the one to be named.
                let error = cause.downcast_ref::<StartError>().cloned().unwrap_or_else(|| {
                    let path =
                        if id.is_empty() { self.shared.path.clone() } else { self.shared.path_of(&id) };
                    StartError { path, cause }
                });
                link.start_failed(Arc::new(error));
            }
        }
    }

    /// The children are put down before anybody can learn of the end.
    fn close(&mut self) {
        self.shared.keep_incarnation(self.core.next_incarnation());
        let is_down = self.shared.close();
        // One at a time, since what factories hold is the user's, and two panics at once end the process; and in start
        // order, which is that of their memory.
        for unit in self.core.take_payloads() {
            if is_down {
                unit.entry.mark_down();
            }
            discard(unit);
        }
    }

    /// This instance of a child lives on as an orphan: no later supervisor may start another one beside it.
    fn leave_orphan(&self, unit: &Unit, incarnation: u64) {
        if let Some(control) = unit.control.clone().filter(|control| !control.is_over()) {
            self.shared.registry.add_orphan(self.shared.path_of(&unit.id), Orphan { control, incarnation });
        }
    }

    /// The parent's orders, as far as the core does not know them. A request that comes together with a kill comes first.
    fn obey(&mut self) {
        let Some(control) = self.link.as_ref().map(|link| link.control.clone()) else { return };
        if control.is_asked() && self.order.is_none() {
            self.order = Some(Order::Ask);
            self.handle(Event::Stop);
        }
        if control.is_killed() && self.order != Some(Order::Kill) && self.link.is_some() {
            self.order = Some(Order::Kill);
            self.handle(Event::Kill);
        }
    }
}

impl Future for SupervisorTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if let Some(link) = &this.link {
            link.control.register(cx.waker());
        }
        this.carry_out();
        this.obey();
        while this.link.is_some() {
            if let Poll::Ready(Some(input)) = this.inbox.poll_recv(cx) {
                this.take(input);
                continue;
            }
            // Time comes after all that waits in the inbox: a retry queues behind calls, as in OTP, and a child whose
            // end is in there is not late. The runtime may have cut the reading short, and has then woken us.
            if !this.inbox.is_empty() {
                return Poll::Pending;
            }
            let Some(deadline) = this.core.next_deadline() else { return Poll::Pending };
            if deadline <= now() {
                this.handle(Event::Tick);
                continue;
            }
            if this.timer.deadline().into_std() != deadline {
                this.timer.as_mut().reset(deadline.into());
            }
            if this.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }
}

impl Drop for SupervisorTask {
    /// The arbiter stops under its supervisor: the children, wherever they run, are killed.
    fn drop(&mut self) {
        if self.link.is_some() {
            for (unit, incarnation) in self.core.live() {
                if let Some(control) = &unit.control {
                    control.order(Order::Kill);
                    self.leave_orphan(unit, incarnation);
                }
            }
            self.close();
        }
        while let Ok(input) = self.inbox.try_recv() {
            discard(input);
        }
    }
}
