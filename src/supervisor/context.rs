//! A child's view of itself.

use std::{fmt, sync::Arc};

use super::{ExitReason, NameTaken, SupervisorRef, control::Control, registry::Named, shared::Shared};

/// A child's view of its own place in the tree, given to the factory of
/// [`ChildSpec::with_context`](super::ChildSpec::with_context), and made to be kept by the actor.
///
/// ```
/// # struct Db;
/// # impl actix::Actor for Db { type Context = actix::Context<Self>; }
/// use hatchery::supervisor::{ChildContext, ChildSpec};
/// use std::convert::Infallible;
///
/// let db = ChildSpec::with_context("db", |context: ChildContext| async move {
///     println!("{} starts, incarnation {}", context.path(), context.incarnation());
///     Ok::<_, Infallible>(Db)
/// });
/// ```
#[derive(Clone)]
pub struct ChildContext {
    id: Arc<str>,
    incarnation: u64,
    control: Arc<Control>,
    parent: Arc<Shared>,
}

impl ChildContext {
    pub(crate) fn new(id: Arc<str>, incarnation: u64, control: Arc<Control>, parent: Arc<Shared>) -> Self {
        Self { id, incarnation, control, parent }
    }

    /// The child's name among its siblings.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The child's path, from the root ("app/pools/cache").
    pub fn path(&self) -> Arc<str> {
        self.parent.path_of(&self.id)
    }

    /// Which incarnation of the child this is. The number rises with every start of the child, also over
    /// restarts of its supervisor; it need not rise by one.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Ends this incarnation with a reason: the actor stops, as by `ctx.stop()`, and the supervisor learns why.
    ///
    /// The first reason counts; a panic on the way out takes precedence. An actor that stops itself by
    /// `ctx.stop()` may call this before, to say why.
    pub fn exit(&self, reason: ExitReason) {
        self.control.exit(reason);
    }

    /// Tells the supervisor that this incarnation has done its work, such as serving a request: its
    /// [`Backoff`](super::Backoff) starts afresh with the next death, however soon that comes. Calling it again does nothing.
    pub fn mark_settled(&self) {
        self.control.mark_settled();
    }

    /// Gives this incarnation a name in the whole tree, until it ends: others find it by
    /// [`SupervisorRef::whereis`]. Made to be called by the factory, so that a start fails when the name is taken,
    /// and by the next incarnation again. An incarnation that has ended gets no name.
    ///
    /// # Errors
    /// When another living child has the name.
    pub fn register(&self, name: &str) -> Result<(), NameTaken> {
        let Some(entry) = self.parent.entry(&self.id) else { return Ok(()) };
        match self.parent.registry.register(name, Named { path: self.path(), entry }) {
            Ok(registration) => {
                self.control.keep(registration);
                Ok(())
            }
            Err(owner) => Err(NameTaken { name: name.to_owned(), owner }),
        }
    }

    /// The supervisor, for example to reach a sibling: `cx.parent().child::<Db>("db")`.
    pub fn parent(&self) -> SupervisorRef {
        SupervisorRef::new(self.parent.clone())
    }
}

impl fmt::Debug for ChildContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildContext")
            .field("path", &self.path())
            .field("incarnation", &self.incarnation)
            .finish()
    }
}
