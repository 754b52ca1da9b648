//! A child's specification: how to start it, and what to do when it ends.

use std::{
    any::{Any, type_name},
    fmt,
    marker::PhantomData,
    sync::Arc,
};

use actix::{Actor, Context};
use actix_rt::{Arbiter, ArbiterHandle, System};

use super::{
    AutoShutdown, Backoff, ChildContext, ChildOptions, Kind, Restart, Shutdown, SpecError, StartFailure,
    child::ChildTask,
    control::Link,
    shared::{Entry, Shared},
    slot::Slot,
};

/// Knows how to start one kind of child, and nothing of the child's state.
pub(crate) trait Launch: Send + Sync {
    /// The child's place in the table of `parent`: the former one if it fits, so that references stay valid.
    fn entry(&self, id: &str, parent: &Arc<Shared>, former: Option<Entry>) -> Entry;

    /// Spawns a task for one incarnation on the current arbiter.
    fn launch(self: Arc<Self>, entry: Entry, link: Link, context: ChildContext);

    /// Checks what lies below the child of this id.
    fn validate(&self, parent: &str, id: &str) -> Result<(), SpecError>;
}

/// On which thread a child runs.
#[derive(Debug, Clone)]
enum Place {
    /// The supervisor's own arbiter.
    Here,
    On(ArbiterHandle),
    /// An arbiter of its own, as long as it lives.
    Dedicated,
}

/// The specification of one child.
///
/// The factory is an async, fallible function that is run again for each start; there is no trait to implement
/// beyond [`actix::Actor`].
///
/// ```
/// use actix::{Actor, Context};
/// use hatchery::supervisor::{ChildSpec, Restart, Shutdown};
/// use std::{convert::Infallible, time::Duration};
///
/// struct Http;
/// impl Actor for Http {
///     type Context = Context<Self>;
/// }
///
/// let spec = ChildSpec::new("http", || async { Ok::<_, Infallible>(Http) })
///     .restart(Restart::Transient)
///     .shutdown(Shutdown::Timeout(Duration::from_secs(10)));
/// ```
#[derive(Clone)]
pub struct ChildSpec {
    pub(crate) options: ChildOptions,
    pub(crate) starter: Starter,
}

/// What it takes to start a child: how, and where.
#[derive(Clone)]
pub(crate) struct Starter {
    pub(crate) launcher: Arc<dyn Launch>,
    place: Place,
}

impl ChildSpec {
    /// A child of this id, permanent, asked to stop and killed after 5 s. The factory runs on the arbiter of the
    /// child, which is that of its supervisor unless [`on`](Self::on) says otherwise.
    ///
    /// The id must not be empty and must not contain `/`.
    pub fn new<A, F, Fut, E>(id: impl AsRef<str>, factory: F) -> Self
    where
        A: Actor<Context = Context<A>>,
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<A, E>> + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        Self::with_context(id, move |_| factory())
    }

    /// The same, for a factory that wants to know its place in the tree.
    pub fn with_context<A, F, Fut, E>(id: impl AsRef<str>, factory: F) -> Self
    where
        A: Actor<Context = Context<A>>,
        F: Fn(ChildContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<A, E>> + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let launcher = Arc::new(ActorLauncher { factory, actor: PhantomData });
        Self::launched_by(ChildOptions::new(id.as_ref(), Kind::Worker), launcher)
    }

    pub(crate) fn launched_by(options: ChildOptions, launcher: Arc<dyn Launch>) -> Self {
        Self { options, starter: Starter { launcher, place: Place::Here } }
    }

    /// Whether the child is started again. Default: [`Restart::Permanent`].
    pub fn restart(mut self, restart: Restart) -> Self {
        self.options.restart = restart;
        self
    }

    /// How the child is stopped. Default: [`Shutdown::Timeout`] of 5 s for an actor, [`Shutdown::Infinity`] for a
    /// supervisor.
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.options.shutdown = shutdown;
        self
    }

    /// Waits between restarts, does not count them, and lets the supervisor boot without this child while its first start
    /// fails. Default: none, as in OTP.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.options.backoff = Some(Box::new(backoff));
        self
    }

    /// The child's final end may end the supervisor, as its
    /// [`auto_shutdown`](super::SupervisorBuilder::auto_shutdown) says. Default: not.
    pub fn significant(mut self) -> Self {
        self.options.significant = true;
        self
    }

    /// Runs the child on this arbiter. Default: the supervisor's.
    ///
    /// When that arbiter stops the child ends with
    /// [`ExitReason::ArbiterStopped`](super::ExitReason::ArbiterStopped), and restarts of it fail.
    pub fn on(mut self, arbiter: ArbiterHandle) -> Self {
        self.starter.place = Place::On(arbiter);
        self
    }

    /// Runs the child on an arbiter (a thread) of its own, which is started and stopped with it.
    pub fn on_dedicated_arbiter(mut self) -> Self {
        self.starter.place = Place::Dedicated;
        self
    }

    /// The child's plain settings.
    pub fn options(&self) -> &ChildOptions {
        &self.options
    }

    /// Refuses what could not work.
    pub(crate) fn validate(&self, parent: &str, auto_shutdown: AutoShutdown) -> Result<(), SpecError> {
        let id = &self.options.id;
        let refuse = |field, value, allowed| {
            Err(SpecError { path: format!("{parent}/{id}").into(), field, value, allowed })
        };
        if !is_id(id) {
            return refuse("id", format!("{id:?}"), ID);
        }
        if self.options.significant {
            if self.options.restart == Restart::Permanent {
                return refuse("significant", "true".into(), "false for a permanent child");
            }
            if auto_shutdown == AutoShutdown::Never {
                return refuse("significant", "true".into(), "false under auto_shutdown Never");
            }
        }
        if let Some((field, value, allowed)) = self.options.backoff.as_ref().and_then(|it| it.refusal()) {
            return refuse(field, value, allowed);
        }
        self.starter.launcher.validate(parent, id)
    }
}

impl Starter {
    pub(crate) fn launch(&self, entry: Entry, mut link: Link, context: ChildContext) {
        let launcher = self.launcher.clone();
        let arbiter = match &self.place {
            Place::Here => return launcher.launch(entry, link, context),
            Place::On(arbiter) => arbiter.clone(),
            Place::Dedicated => {
                if System::try_current().is_none() {
                    return link.start_failed(Arc::new(StartFailure::NoSystem));
                }
                match Arbiter::try_new() {
                    Ok(arbiter) => {
                        link.own(arbiter.handle());
                        arbiter.handle()
                    }
                    Err(error) => return link.start_failed(Arc::new(error)),
                }
            }
        };
        // A dead arbiter drops the closure, and with it the link, which tells.
        arbiter.spawn_fn(move || launcher.launch(entry, link, context));
    }
}

/// What a name must be.
pub(crate) const ID: &str = "a name that is not empty and has no `/`";

/// Whether a name can be part of a path.
pub(crate) fn is_id(id: &str) -> bool {
    !id.is_empty() && !id.contains('/')
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildSpec")
            .field("options", &self.options)
            .field("place", &self.starter.place)
            .finish()
    }
}

struct ActorLauncher<F, A, E> {
    factory: F,
    actor: PhantomData<fn() -> (A, E)>,
}

impl<A, F, Fut, E> Launch for ActorLauncher<F, A, E>
where
    A: Actor<Context = Context<A>>,
    F: Fn(ChildContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<A, E>> + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    fn entry(&self, _id: &str, _parent: &Arc<Shared>, former: Option<Entry>) -> Entry {
        match former {
            Some(Entry::Actor(slot)) if (&*slot as &dyn Any).is::<Slot<A>>() => Entry::Actor(slot),
            _ => Entry::Actor(Arc::new(Slot::<A>::new())),
        }
    }

    fn launch(self: Arc<Self>, entry: Entry, link: Link, context: ChildContext) {
        let slot = match entry {
            Entry::Actor(slot) => (slot as Arc<dyn Any + Send + Sync>).downcast::<Slot<A>>().ok(),
            Entry::Supervisor(_) => None,
        };
        // `entry` made it, so that there is one of the right type.
        let slot = slot.unwrap_or_else(|| panic!("no slot for {}", type_name::<A>()));
        let start = async move { (self.factory)(context).await };
        actix_rt::spawn(ChildTask::new(start, slot, link));
    }

    fn validate(&self, _parent: &str, _id: &str) -> Result<(), SpecError> {
        Ok(())
    }
}
