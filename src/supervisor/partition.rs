//! Partitions: N equal children, and a key that decides which of them is meant.

use std::{
    fmt,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash},
    num::NonZero,
};

use actix::Actor;

use super::{ChildError, ChildRef, ChildSpec, LookupError, Supervised, SupervisorBuilder, SupervisorRef};

impl SupervisorBuilder {
    /// A supervisor of `count` equal children, one for each key. `None`: as many as the machine has cores for this
    /// process. `spec` is called with each number from 0; what it gives gets the number as its id, and may be an actor or a
    /// nested supervisor. (Elixir: `PartitionSupervisor`.)
    ///
    /// Its partitions are read by [`SupervisorRef::partitions`], or
    /// [`supervisor_partitions`](SupervisorRef::supervisor_partitions); those of a root by the empty path. They must not be
    /// temporary.
    ///
    /// ```
    /// # use actix::{Actor, Context};
    /// # use hatchery::supervisor::{ChildSpec, Supervisor, SupervisorBuilder};
    /// # use std::convert::Infallible;
    /// # struct Counter(usize);
    /// # impl Actor for Counter { type Context = Context<Self>; }
    /// # #[actix::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let counters = SupervisorBuilder::partition("counters", 4, |number| {
    ///     ChildSpec::new("counter", move || async move { Ok::<_, Infallible>(Counter(number)) })
    /// });
    /// // On each core a supervisor for as many actors as there are connections.
    /// let connections = SupervisorBuilder::partition("connections", None, |_| {
    ///     ChildSpec::from(Supervisor::dynamic("some")).on_dedicated_arbiter()
    /// });
    /// let app = Supervisor::builder("app")
    ///     .supervisor("counters", counters)
    ///     .supervisor("connections", connections)
    ///     .start()
    ///     .await?;
    ///
    /// let counters = app.partitions::<Counter>("counters")?;
    /// let alice = counters.route(&"alice").expect("there are partitions");
    /// # assert_eq!(alice.path(), counters.route(&"alice").unwrap().path());
    ///
    /// let connections = app.supervisor_partitions("connections")?;
    /// let some = connections.route(&"192.0.2.7").expect("there are partitions");
    /// some.start_child(ChildSpec::new("192.0.2.7", || async { Ok::<_, Infallible>(Counter(0)) })).await?;
    /// # app.stop().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn partition<S: Into<ChildSpec<T>>, T: Supervised>(
        id: impl AsRef<str>,
        count: impl Into<Option<usize>>,
        spec: impl Fn(usize) -> S,
    ) -> Self {
        let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
        let count = count.into().unwrap_or_else(cores);
        let children = (0..count).map(|number| {
            let mut spec: ChildSpec<T> = spec(number).into();
            spec.spec.options.id = number.to_string().into();
            spec
        });
        children.fold(Self::new(id.as_ref(), false), Self::child_spec::<T>).partitioned(count)
    }
}

impl SupervisorRef {
    /// The partitions of a partition supervisor below this one, by its id or path; of this one by the empty path.
    ///
    /// # Errors
    /// When there is no such supervisor, or it is none of partitions, or these are not `A`s.
    pub fn partitions<A: Actor>(&self, path: &str) -> Result<Partitions<ChildRef<A>>, LookupError> {
        Partitions::new(self.supervisor(path)?, SupervisorRef::child)
    }

    /// The partitions of a partition supervisor below this one whose partitions are supervisors, by its id or path.
    ///
    /// # Errors
    /// When there is no such supervisor, or it is none of partitions, or these are actors.
    pub fn supervisor_partitions(&self, path: &str) -> Result<Partitions<SupervisorRef>, LookupError> {
        Partitions::new(self.supervisor(path)?, SupervisorRef::supervisor)
    }
}

/// The children of a partition supervisor: [`ChildRef`]s from [`SupervisorRef::partitions`], or [`SupervisorRef`]s from
/// [`SupervisorRef::supervisor_partitions`]. Follows restarts.
///
/// ```no_run
/// # struct Db;
/// # impl actix::Actor for Db { type Context = actix::Context<Self>; }
/// # async fn example(app: hatchery::supervisor::Supervisor) -> Result<(), Box<dyn std::error::Error>> {
/// let shards = app.partitions::<Db>("shards")?;
/// if let Some(shard) = shards.route(&"alice") {
///     println!("alice's rows are in {}", shard.path()); // the same key, the same partition
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Partitions<R> {
    supervisor: SupervisorRef,
    children: Vec<R>,
}

impl<R> Partitions<R> {
    fn new(
        supervisor: SupervisorRef,
        child: impl Fn(&SupervisorRef, &str) -> Result<R, LookupError>,
    ) -> Result<Self, LookupError> {
        let count = supervisor.initial_partitions();
        if count == 0 {
            let path = supervisor.path().to_owned();
            return Err(LookupError::WrongKind { path, expected: "a partition supervisor" });
        }
        let children = (0..count).map(|number| child(&supervisor, &number.to_string()));
        Ok(Self { children: children.collect::<Result<_, _>>()?, supervisor })
    }

    /// How many partitions are in use.
    pub fn len(&self) -> usize {
        self.supervisor.partition_size().min(self.children.len())
    }

    /// Whether none is in use.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The partition of a number: its absolute value modulo [`len`](Self::len). `None` when none is in use.
    pub fn route_number(&self, key: i64) -> Option<&R> {
        let len = self.len() as u64;
        let index = key.unsigned_abs().checked_rem(len)?;
        self.children.get(usize::try_from(index).ok()?)
    }

    /// The partition of any other key, by its hash: the same for the same key as long as [`len`](Self::len) stays
    /// the same. `None` when none is in use.
    pub fn route(&self, key: &impl Hash) -> Option<&R> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
        let index = hash.checked_rem(self.len() as u64)?;
        self.children.get(usize::try_from(index).ok()?)
    }

    /// All partitions in use.
    pub fn all(&self) -> &[R] {
        &self.children[..self.len()]
    }

    /// Uses only the first `size` partitions: terminates the others, newest first, or restarts them, oldest first.
    /// Returns the former size. A restart of the supervisor brings all back. (Elixir: `resize!`.)
    ///
    /// The supervisor does it, as one operation: concurrent resizes follow one another, and dropping the future does not
    /// stop one that was asked for. A partition that is to stop is out of use at once, those that are started come
    /// into use when all are up.
    ///
    /// # Errors
    /// [`ChildError::MaxChildren`] for more than there were at first. [`ChildError::Start`] when one cannot start: those
    /// before it are in use. [`ChildError::Unkillable`] when one that is out of use now blocks its thread.
    /// [`ChildError::SupervisorDown`].
    pub async fn resize(&self, size: usize) -> Result<usize, ChildError> {
        self.supervisor.resize(size).await
    }
}

impl<R> fmt::Debug for Partitions<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partitions").field("path", &self.supervisor.path()).field("len", &self.len()).finish()
    }
}
