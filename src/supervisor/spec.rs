//! A child's specification: how to start it, and what to do when it ends.

use std::{
    any::{Any, type_name},
    fmt,
    marker::PhantomData,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use actix::{Actor, Context};
use actix_rt::{Arbiter, ArbiterHandle, System};

use super::{
    AutoShutdown, Backoff, ChildContext, ChildOptions, ChildRef, Kind, Restart, Shutdown, SpecError,
    StartFailure, SupervisorRef,
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
///
/// `T` is the actor, or [`SupervisorRef`] for a nested supervisor.
pub struct ChildSpec<T> {
    pub(crate) spec: Spec,
    child: PhantomData<fn() -> T>,
}

/// A specification whose child's type is not known.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) options: ChildOptions,
    pub(crate) starter: Starter,
}

/// What a supervisor may have as a child: an actor, or another supervisor. No other type needs to implement it.
///
/// ```no_run
/// use hatchery::supervisor::{ChildError, ChildSpec, Supervised, SupervisorRef};
///
/// async fn start_twice<T: Supervised>(pool: &SupervisorRef, one: ChildSpec<T>, two: ChildSpec<T>) -> Result<[T::Ref; 2], ChildError> {
///     Ok([pool.start_child(one).await?, pool.start_child(two).await?])
/// }
/// ```
pub trait Supervised: 'static {
    /// The reference to such a child.
    type Ref;

    /// The reference to the child of this id, even if the supervisor does not have it any more.
    fn reference(supervisor: &SupervisorRef, id: &str) -> Self::Ref;
}

impl<A: Actor<Context = Context<A>>> Supervised for A {
    type Ref = ChildRef<A>;

    fn reference(supervisor: &SupervisorRef, id: &str) -> ChildRef<A> {
        supervisor
            .child(id)
            .unwrap_or_else(|_| ChildRef::down_for_ever(&format!("{}/{id}", supervisor.path())))
    }
}

impl Supervised for SupervisorRef {
    type Ref = SupervisorRef;

    fn reference(supervisor: &SupervisorRef, id: &str) -> SupervisorRef {
        let path = || format!("{}/{id}", supervisor.path());
        supervisor
            .supervisor(id)
            .unwrap_or_else(|_| SupervisorRef::new(Shared::new(path().into(), Weak::new())))
    }
}

/// How and where a child is started.
#[derive(Clone)]
pub(crate) struct Starter {
    pub(crate) launcher: Arc<dyn Launch>,
    place: Place,
}

impl<A: Actor<Context = Context<A>>> ChildSpec<A> {
    /// A child of this id, permanent, asked to stop and killed after 5 s. The factory runs on the arbiter of the
    /// child, which is that of its supervisor unless [`on`](Self::on) says otherwise.
    ///
    /// The id must not be empty and must not contain `/`.
    pub fn new<F, Fut, E>(id: impl AsRef<str>, factory: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<A, E>> + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        Self::with_context(id, move |_| factory())
    }

    /// The same, for a factory that neither waits nor fails.
    ///
    /// ```
    /// # struct Db;
    /// # impl actix::Actor for Db { type Context = actix::Context<Self>; }
    /// let db = hatchery::supervisor::ChildSpec::from_fn("db", || Db);
    /// ```
    pub fn from_fn<F>(id: impl AsRef<str>, factory: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
    {
        Self::new(id, move || std::future::ready(Ok::<_, std::convert::Infallible>(factory())))
    }

    /// A child with a generated id, such as `#7`, which no other specification of this process has. For children that are
    /// started while their supervisor runs; [`options`](Self::options) tell the id.
    pub fn unnamed<F, Fut, E>(factory: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<A, E>> + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self::new(format!("#{}", NEXT.fetch_add(1, Ordering::Relaxed)), factory)
    }

    /// The same as [`new`](Self::new), for a factory that wants to know its place in the tree.
    pub fn with_context<F, Fut, E>(id: impl AsRef<str>, factory: F) -> Self
    where
        F: Fn(ChildContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<A, E>> + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let launcher = Arc::new(ActorLauncher { factory, actor: PhantomData });
        Self::launched_by(ChildOptions::new(id.as_ref(), Kind::Worker), launcher)
    }
}

impl<T> ChildSpec<T> {
    pub(crate) fn launched_by(options: ChildOptions, launcher: Arc<dyn Launch>) -> Self {
        let spec = Spec { options, starter: Starter { launcher, place: Place::Here } };
        Self { spec, child: PhantomData }
    }

    /// Whether the child is started again. Default: [`Restart::Permanent`].
    pub fn restart(mut self, restart: Restart) -> Self {
        self.spec.options.restart = restart;
        self
    }

    /// How the child is stopped. Default: [`Shutdown::Timeout`] of 5 s for an actor, [`Shutdown::Infinity`] for a
    /// supervisor.
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.spec.options.shutdown = shutdown;
        self
    }

    /// Waits between restarts, does not count them, and lets the supervisor boot without this child while its first start
    /// fails. Default: none, as in OTP.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.spec.options.backoff = Some(Box::new(backoff));
        self
    }

    /// The child's final end may end the supervisor, as its
    /// [`auto_shutdown`](super::SupervisorBuilder::auto_shutdown) says. Default: not.
    pub fn significant(mut self) -> Self {
        self.spec.options.significant = true;
        self
    }

    /// Runs the child on this arbiter. Default: the supervisor's.
    ///
    /// When that arbiter stops the child ends with
    /// [`ExitReason::ArbiterStopped`](super::ExitReason::ArbiterStopped), and restarts of it fail.
    pub fn on(mut self, arbiter: ArbiterHandle) -> Self {
        self.spec.starter.place = Place::On(arbiter);
        self
    }

    /// Runs the child on an arbiter (a thread) of its own, which is started and stopped with it.
    pub fn on_dedicated_arbiter(mut self) -> Self {
        self.spec.starter.place = Place::Dedicated;
        self
    }

    /// The child's plain settings.
    pub fn options(&self) -> &ChildOptions {
        &self.spec.options
    }
}

impl Spec {
    /// Rejects settings that cannot work.
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

/// The allowed names, for errors.
pub(crate) const ID: &str = "a name that is not empty and has no `/`";

/// Whether a name can be part of a path.
pub(crate) fn is_id(id: &str) -> bool {
    !id.is_empty() && !id.contains('/')
}

impl fmt::Debug for Starter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Starter").field("place", &self.place).finish_non_exhaustive()
    }
}

impl<T> Clone for ChildSpec<T> {
    fn clone(&self) -> Self {
        Self { spec: self.spec.clone(), child: PhantomData }
    }
}

impl<T> fmt::Debug for ChildSpec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildSpec")
            .field("options", &self.spec.options)
            .field("place", &self.spec.starter.place)
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
