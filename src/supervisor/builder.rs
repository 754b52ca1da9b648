//! A supervisor's specification.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
    time::Duration,
};

use actix::{Actor, Context};
use actix_rt::Arbiter;
use tokio::sync::{oneshot, watch};

use super::{
    AutoShutdown, ChildContext, ChildOptions, ChildSpec, Kind, Restart, SpecError, StartError, StartFailure,
    Strategy, Supervised, Supervisor, SupervisorRef,
    actor::SupervisorTask,
    control::{Control, Link, Upward},
    options::SupervisorOptions,
    shared::{Entry, Shared},
    spec::{ID, Launch, Spec, is_id},
};
use crate::guard::discard;

/// A supervisor that has yet to start; also the specification of a nested one, by [`supervisor`](Self::supervisor)
/// or by turning it into a [`ChildSpec`].
///
/// ```
/// # struct Db;
/// # impl actix::Actor for Db { type Context = actix::Context<Self>; }
/// use hatchery::supervisor::{Strategy, Supervisor};
/// use std::convert::Infallible;
/// use std::time::Duration;
///
/// let app = Supervisor::builder("app")
///     .strategy(Strategy::OneForAll)
///     .intensity(3, Duration::from_secs(5))
///     .child("db", || async { Ok::<_, Infallible>(Db) });
/// app.validate()?;
/// # Ok::<(), hatchery::supervisor::SpecError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it is started"]
pub struct SupervisorBuilder {
    id: Arc<str>,
    blueprint: Blueprint,
}

impl SupervisorBuilder {
    pub(crate) fn new(id: &str, dynamic: bool) -> Self {
        let options = SupervisorOptions { dynamic, ..SupervisorOptions::default() };
        Self { id: id.into(), blueprint: Blueprint { options, children: Vec::new() } }
    }

    /// Which children are restarted when one dies. Default: [`Strategy::OneForOne`], the only one that a dynamic
    /// supervisor may have.
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.blueprint.options.strategy = strategy;
        self
    }

    /// At most `restarts` in any time of `period`; one more, and the supervisor stops its children and ends.
    /// Default: 1 in 5 s, as in OTP. Restarts of children with a [`Backoff`](super::Backoff) do not count.
    pub fn intensity(mut self, restarts: u32, period: Duration) -> Self {
        self.blueprint.options.intensity = restarts;
        self.blueprint.options.period = period;
        self
    }

    /// When the end of significant children ends this supervisor. Default: [`AutoShutdown::Never`], the only one that
    /// a dynamic supervisor may have.
    pub fn auto_shutdown(mut self, auto_shutdown: AutoShutdown) -> Self {
        self.blueprint.options.auto_shutdown = auto_shutdown;
        self
    }

    /// How many children a dynamic supervisor may have, restarting ones included. Default: any number.
    pub fn max_children(mut self, max: usize) -> Self {
        self.blueprint.options.max_children = Some(max);
        self
    }

    pub(crate) fn partitioned(mut self, count: usize) -> Self {
        self.blueprint.options.partitions = Some(count);
        self
    }

    /// Adds a child with the default settings of [`ChildSpec::new`].
    pub fn child<A, F, Fut, E>(self, id: impl AsRef<str>, factory: F) -> Self
    where
        A: Actor<Context = Context<A>>,
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<A, E>> + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        self.child_spec(ChildSpec::new(id, factory))
    }

    /// Adds a child.
    pub fn child_spec<T: Supervised>(mut self, spec: ChildSpec<T>) -> Self {
        self.blueprint.children.push(spec.spec);
        self
    }

    /// Adds a nested supervisor under this id, permanent, and waited for without a limit when it stops.
    pub fn supervisor(self, id: impl AsRef<str>, builder: SupervisorBuilder) -> Self {
        self.child_spec(ChildSpec::from(SupervisorBuilder { id: id.as_ref().into(), ..builder }))
    }

    /// Rejects a specification that cannot work, of this supervisor or of one below it. [`start`](Self::start)
    /// and [`start_child`](super::SupervisorRef::start_child) call it first.
    ///
    /// # Errors
    /// Names the path, the field, its value, and what is allowed.
    pub fn validate(&self) -> Result<(), SpecError> {
        let (path, id) = (self.id.clone(), &self.id);
        if !is_id(id) {
            return Err(SpecError { path, field: "id", value: format!("{id:?}"), allowed: ID });
        }
        self.blueprint.check(&path)
    }

    /// Starts the supervisor on the current arbiter, and its children in the order of declaration, each when the
    /// one before it is up. Returns when all are up, nested ones included.
    ///
    /// Dropping the returned future, like dropping the last handle, kills the children that have been started.
    ///
    /// # Errors
    /// When a child cannot start, unless it has a [`Backoff`](super::Backoff): those started before it are stopped in reverse
    /// first. The error names the
    /// child's path and what its factory returned. It is a [`SpecError`] when the specification is refused, and
    /// [`StartFailure::NoSystem`] outside of an actix system.
    pub async fn start(self) -> Result<Supervisor, StartError> {
        let path = self.id.clone();
        let refuse = |cause| StartError { path: path.clone(), cause };
        self.validate().map_err(|error| StartError { path: error.path.clone(), cause: Arc::new(error) })?;
        if Arbiter::try_current().is_none() {
            return Err(refuse(Arc::new(StartFailure::NoSystem)));
        }
        let control = Arc::new(Control::default());
        let shared = Shared::new(path.clone(), Weak::new());
        let (started, on_started) = oneshot::channel();
        let (ended, on_ended) = watch::channel(None);
        let link = Link::new(control.clone(), Upward::Root { started: Some(started), ended });
        // From here on, dropping this future drops the handle.
        let handle = Supervisor::new(control, shared.clone(), on_ended);
        actix_rt::spawn(SupervisorTask::new(&self.blueprint, shared, link));
        match on_started.await {
            Ok(Ok(())) => Ok(handle),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(refuse(Arc::new(StartFailure::Cancelled))),
        }
    }
}

impl From<SupervisorBuilder> for ChildSpec<SupervisorRef> {
    fn from(builder: SupervisorBuilder) -> Self {
        let options = ChildOptions::new(&builder.id, Kind::Supervisor);
        ChildSpec::launched_by(options, Arc::new(builder.blueprint))
    }
}

/// The specification of a supervisor, from which each incarnation is built.
#[derive(Debug, Clone)]
pub(crate) struct Blueprint {
    pub(crate) options: SupervisorOptions,
    pub(crate) children: Vec<Spec>,
}

impl Drop for Blueprint {
    /// What factories hold is the user's: one at a time, since two panics at once end the process.
    fn drop(&mut self) {
        self.children.drain(..).for_each(discard);
    }
}

impl Launch for Blueprint {
    fn entry(&self, id: &str, parent: &Arc<Shared>, former: Option<Entry>) -> Entry {
        let shared = match former {
            Some(Entry::Supervisor(shared)) => shared,
            _ => Shared::new(parent.path_of(id), Arc::downgrade(parent)),
        };
        self.declare(&shared);
        shared.set_declared();
        Entry::Supervisor(shared)
    }

    fn launch(self: Arc<Self>, entry: Entry, link: Link, _context: ChildContext) {
        if let Entry::Supervisor(shared) = entry {
            actix_rt::spawn(SupervisorTask::new(&self, shared, link));
        }
    }

    fn validate(&self, parent: &str, id: &str) -> Result<(), SpecError> {
        self.check(&[parent, id].join("/"))
    }
}

impl Blueprint {
    /// Rejects settings that cannot work, of this supervisor or below it.
    fn check(&self, path: &str) -> Result<(), SpecError> {
        let options = &self.options;
        let refuse =
            |field, value: String, allowed| Err(SpecError { path: path.into(), field, value, allowed });
        if options.period.is_zero() {
            return refuse("intensity.period", "0 s".into(), "more than 0 s");
        }
        if options.dynamic && options.strategy != Strategy::OneForOne {
            let value = format!("{:?}", options.strategy);
            return refuse("strategy", value, "OneForOne for a dynamic supervisor");
        }
        if options.dynamic && options.auto_shutdown != AutoShutdown::Never {
            let value = format!("{:?}", options.auto_shutdown);
            return refuse("auto_shutdown", value, "Never for a dynamic supervisor");
        }
        if options.dynamic && !self.children.is_empty() {
            let value = format!("{} declared", self.children.len());
            return refuse("children", value, "none: a dynamic supervisor starts empty");
        }
        if options.partitions == Some(0) {
            return refuse("partitions", "0".into(), "at least 1");
        }
        if !options.dynamic && options.max_children.is_some() {
            return refuse("max_children", "set".into(), "only for a dynamic supervisor");
        }
        let mut ids = HashSet::with_capacity(self.children.len());
        for child in &self.children {
            if !ids.insert(&child.options.id) {
                return refuse("id", format!("{:?}", child.options.id), "each id once");
            }
            if options.partitions.is_some() && child.options.restart == Restart::Temporary {
                return refuse("restart", "Temporary".into(), "Permanent or Transient for a partition");
            }
            child.validate(path, options.auto_shutdown)?;
        }
        Ok(())
    }

    /// The entries of a supervisor that is about to start. Its table is made only if the supervisor above has not just
    /// done so: else each level of a deep tree would make the tables of all levels below it once more.
    pub(crate) fn entries(&self, shared: &Arc<Shared>) -> Vec<Entry> {
        let ids = self.children.iter().map(|spec| &*spec.options.id);
        match shared.take_declared(ids) {
            Some(entries) => entries,
            None => self.declare(shared),
        }
    }

    /// Makes the table of a supervisor that is about to start, and of all below it: the declared children keep their
    /// places, so that references to them stay valid, and all others are forgotten.
    fn declare(&self, shared: &Arc<Shared>) -> Vec<Entry> {
        let mut former = shared.children();
        let mut table = HashMap::with_capacity(self.children.len());
        if let Some(count) = self.options.partitions {
            shared.declare_partitions(count);
        }
        let mut entries = Vec::with_capacity(self.children.len());
        for spec in &self.children {
            let id = &spec.options.id;
            let entry = spec.starter.launcher.entry(id, shared, former.remove(id));
            entry.expect(u64::MAX);
            table.insert(id.clone(), entry.clone());
            entries.push(entry);
        }
        shared.set_children(table);
        former.values().for_each(Entry::forget);
        entries
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::supervisor::slot::Slot;

    struct Leaf;
    impl Actor for Leaf {
        type Context = Context<Self>;
    }

    /// Counts how often its place in a table is looked up, and declines to start.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Launch for Counting {
        fn entry(&self, _: &str, _: &Arc<Shared>, _: Option<Entry>) -> Entry {
            self.0.fetch_add(1, Ordering::Relaxed);
            Entry::Actor(Arc::new(Slot::<Leaf>::new()))
        }

        fn launch(self: Arc<Self>, _: Entry, link: Link, _: ChildContext) {
            link.declined();
        }

        fn validate(&self, _: &str, _: &str) -> Result<(), SpecError> {
            Ok(())
        }
    }

    #[test]
    fn deep_tree_makes_each_table_once_when_it_starts() {
        for depth in [1, 10, 100] {
            let leaf = Arc::new(Counting::default());
            let spec = ChildSpec::<Leaf>::launched_by(ChildOptions::new("leaf", Kind::Worker), leaf.clone());
            let mut builder = Supervisor::builder("level").child_spec(spec);
            for _ in 0..depth {
                builder = Supervisor::builder("level").supervisor("level", builder);
            }
            actix_rt::System::new().block_on(async {
                let root = builder.start().await.unwrap();
                assert_eq!(leaf.0.load(Ordering::Relaxed), 1, "of {depth} levels");
                assert_eq!(root.tree().await.unwrap().nodes().count(), depth + 2);
                // A restart of the uppermost nested one makes all below it anew, once.
                root.terminate_child("level").await.unwrap();
                root.restart_child("level").await.unwrap();
                assert_eq!(leaf.0.load(Ordering::Relaxed), 2, "of {depth} levels");
                root.stop().await;
            });
        }
    }
}
