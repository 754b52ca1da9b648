//! Partitions: N equal children, and a key that decides which of them is meant.

use std::{
    fmt,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash},
};

use actix::{Actor, Context};

use super::{ChildContext, ChildError, ChildRef, ChildSpec, LookupError, SupervisorBuilder, SupervisorRef};

impl SupervisorBuilder {
    /// A supervisor of `count` equal children, named "0", "1" and so on; the factory learns the number. Read it by
    /// [`SupervisorRef::partitions`]. (Elixir: `PartitionSupervisor`.)
    ///
    /// ```
    /// # use actix::{Actor, Context};
    /// # use hatchery::supervisor::{Supervisor, SupervisorBuilder};
    /// # use std::convert::Infallible;
    /// # struct Counter(usize);
    /// # impl Actor for Counter { type Context = Context<Self>; }
    /// # #[actix::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let counters = SupervisorBuilder::partition("counters", 4, |_, number| async move {
    ///     Ok::<_, Infallible>(Counter(number))
    /// });
    /// let app = Supervisor::builder("app").supervisor("counters", counters).start().await?;
    /// let counters = app.partitions::<Counter>("counters")?;
    /// let alice = counters.route(&"alice").expect("there are partitions");
    /// # assert_eq!(alice.path(), counters.route(&"alice").unwrap().path());
    /// # Ok(())
    /// # }
    /// ```
    pub fn partition<A, F, Fut, E>(id: impl AsRef<str>, count: usize, factory: F) -> Self
    where
        A: Actor<Context = Context<A>>,
        F: Fn(ChildContext, usize) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<A, E>> + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let factory = std::sync::Arc::new(factory);
        let mut builder = Self::new(id.as_ref(), false);
        for number in 0..count {
            let factory = factory.clone();
            let spec = ChildSpec::with_context(number.to_string(), move |cx| factory(cx, number));
            builder = builder.child_spec(spec);
        }
        builder.partitioned(count)
    }
}

/// The children of a partition supervisor, from [`SupervisorRef::partitions`]. Follows restarts.
pub struct Partitions<A: Actor> {
    supervisor: SupervisorRef,
    children: Vec<ChildRef<A>>,
}

impl<A: Actor> Partitions<A> {
    pub(crate) fn new(supervisor: SupervisorRef, count: usize) -> Result<Self, LookupError> {
        let children =
            (0..count).map(|number| supervisor.child(&number.to_string())).collect::<Result<_, _>>()?;
        Ok(Self { supervisor, children })
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
    pub fn route_number(&self, key: i64) -> Option<&ChildRef<A>> {
        let len = self.len() as u64;
        let index = key.unsigned_abs().checked_rem(len)?;
        self.children.get(usize::try_from(index).ok()?)
    }

    /// The partition of any other key, by its hash: the same for the same key as long as [`len`](Self::len) stays
    /// the same. `None` when none is in use.
    pub fn route(&self, key: &impl Hash) -> Option<&ChildRef<A>> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
        let index = hash.checked_rem(self.len() as u64)?;
        self.children.get(usize::try_from(index).ok()?)
    }

    /// All partitions in use.
    pub fn all(&self) -> &[ChildRef<A>] {
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

impl<A: Actor> Clone for Partitions<A> {
    fn clone(&self) -> Self {
        Self { supervisor: self.supervisor.clone(), children: self.children.clone() }
    }
}

impl<A: Actor> fmt::Debug for Partitions<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partitions").field("path", &self.supervisor.path()).field("len", &self.len()).finish()
    }
}
