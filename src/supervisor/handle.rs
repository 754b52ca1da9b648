//! The handles through which others use a supervisor.

use std::{
    any::Any,
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use actix::Actor;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    ChildCount, ChildError, ChildInfo, ChildOptions, ChildRef, ChildSpec, ExitReason, Kind, LookupError,
    Partitions, Reports, StopTimedOut, Supervised, SupervisorBuilder, Tree,
    actor::{Caller, Input, Roster},
    control::Control,
    core::{Answer, Order},
    shared::{Entry, Shared},
    slot::Slot,
};

/// A running tree of supervised actors: the handle of its root.
///
/// Cheap to clone, usable from any thread.
/// When the last clone is dropped the whole tree is killed, without blocking and in no particular order; call
/// [`stop`](Self::stop) for an orderly end. An actor of the tree should not keep one, since it would then keep the
/// tree alive; [`downgrade`](Self::downgrade) gives a reference that does not.
///
/// ```
/// use actix::{Actor, Context};
/// use hatchery::supervisor::Supervisor;
/// use std::convert::Infallible;
///
/// struct Db;
/// impl Actor for Db {
///     type Context = Context<Self>;
/// }
///
/// # #[actix::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let app = Supervisor::builder("app").child("db", || async { Ok::<_, Infallible>(Db) }).start().await?;
/// let db = app.child::<Db>("db")?;
/// assert!(db.addr().is_some());
/// app.stop().await;
/// assert!(db.addr().is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Supervisor {
    root: Arc<Root>,
    supervisor: SupervisorRef,
}

struct Root {
    control: Arc<Control>,
    ended: watch::Receiver<Option<ExitReason>>,
}

impl Drop for Root {
    fn drop(&mut self) {
        self.control.order(Order::Kill);
    }
}

impl Supervisor {
    /// A supervisor with declared children.
    pub fn builder(id: impl AsRef<str>) -> SupervisorBuilder {
        SupervisorBuilder::new(id.as_ref(), false)
    }

    /// A supervisor whose children are all added while it runs, are started concurrently, and stopped together.
    pub fn dynamic(id: impl AsRef<str>) -> SupervisorBuilder {
        SupervisorBuilder::new(id.as_ref(), true)
    }

    pub(crate) fn new(
        control: Arc<Control>,
        shared: Arc<Shared>,
        ended: watch::Receiver<Option<ExitReason>>,
    ) -> Self {
        Self { root: Arc::new(Root { control, ended }), supervisor: SupervisorRef { shared } }
    }

    /// Stops the tree in order, newest child to oldest, each awaited, and returns when all have ended.
    ///
    /// It takes as long as the children's [`Shutdown`](super::Shutdown) values allow. Dropping the future does not
    /// cancel the stop. Stopping twice is harmless. It works from any thread and any executor.
    pub async fn stop(&self) {
        self.root.control.order(Order::Ask);
        self.ended().await;
    }

    /// Stops the tree in order, as [`stop`](Self::stop), and kills the rest after `limit`.
    ///
    /// # Errors
    /// [`StopTimedOut`] when the tree had to be killed; the kill itself is not awaited.
    ///
    /// # Panics
    /// Outside of a tokio runtime, whose clock it uses.
    pub async fn stop_within(&self, limit: Duration) -> Result<(), StopTimedOut> {
        match tokio::time::timeout(limit, self.stop()).await {
            Ok(()) => Ok(()),
            Err(_) => {
                self.root.control.order(Order::Kill);
                Err(StopTimedOut)
            }
        }
    }

    /// Waits for the supervisor's end, and returns the reason.
    pub async fn ended(&self) -> ExitReason {
        let mut ended = self.root.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(ExitReason::ArbiterStopped),
            Err(_) => ExitReason::ArbiterStopped,
        }
    }

    /// A weak reference to the root.
    pub fn downgrade(&self) -> SupervisorRef {
        self.supervisor.clone()
    }
}

/// The operations of the root's [`SupervisorRef`].
impl Supervisor {
    /// See [`SupervisorRef::path`].
    pub fn path(&self) -> &str {
        self.supervisor.path()
    }

    /// See [`SupervisorRef::child`].
    pub fn child<A: Actor>(&self, path: &str) -> Result<ChildRef<A>, LookupError> {
        self.supervisor.child(path)
    }

    /// See [`SupervisorRef::supervisor`].
    pub fn supervisor(&self, path: &str) -> Result<SupervisorRef, LookupError> {
        self.supervisor.supervisor(path)
    }

    /// See [`SupervisorRef::whereis`].
    pub fn whereis<A: Actor>(&self, name: &str) -> Result<ChildRef<A>, LookupError> {
        self.supervisor.whereis(name)
    }

    /// See [`SupervisorRef::partitions`].
    pub fn partitions<A: Actor>(&self, path: &str) -> Result<Partitions<ChildRef<A>>, LookupError> {
        self.supervisor.partitions(path)
    }

    /// See [`SupervisorRef::supervisor_partitions`].
    pub fn supervisor_partitions(&self, path: &str) -> Result<Partitions<SupervisorRef>, LookupError> {
        self.supervisor.supervisor_partitions(path)
    }

    /// See [`SupervisorRef::start_child`].
    pub async fn start_child<T: Supervised>(
        &self,
        spec: impl Into<ChildSpec<T>>,
    ) -> Result<T::Ref, ChildError> {
        self.supervisor.start_child(spec).await
    }

    /// See [`SupervisorRef::terminate_child`].
    pub async fn terminate_child(&self, path: &str) -> Result<(), ChildError> {
        self.supervisor.terminate_child(path).await
    }

    /// See [`SupervisorRef::restart_child`].
    pub async fn restart_child(&self, path: &str) -> Result<Option<u64>, ChildError> {
        self.supervisor.restart_child(path).await
    }

    /// See [`SupervisorRef::delete_child`].
    pub async fn delete_child(&self, path: &str) -> Result<(), ChildError> {
        self.supervisor.delete_child(path).await
    }

    /// See [`SupervisorRef::which_children`].
    pub async fn which_children(&self) -> Result<Vec<ChildInfo>, ChildError> {
        self.supervisor.which_children().await
    }

    /// See [`SupervisorRef::count_children`].
    pub async fn count_children(&self) -> Result<ChildCount, ChildError> {
        self.supervisor.count_children().await
    }

    /// See [`SupervisorRef::child_options`].
    pub async fn child_options(&self, path: &str) -> Result<ChildOptions, ChildError> {
        self.supervisor.child_options(path).await
    }

    /// See [`SupervisorRef::tree`].
    pub async fn tree(&self) -> Result<Tree, ChildError> {
        self.supervisor.tree().await
    }

    /// See [`SupervisorRef::subscribe`].
    pub fn subscribe(&self) -> Reports {
        self.supervisor.subscribe()
    }
}

impl AsRef<SupervisorRef> for Supervisor {
    fn as_ref(&self) -> &SupervisorRef {
        &self.supervisor
    }
}

impl AsRef<SupervisorRef> for SupervisorRef {
    fn as_ref(&self) -> &SupervisorRef {
        self
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor").field("path", &self.supervisor.shared.path).finish()
    }
}

/// A reference to a supervisor that keeps nothing alive and follows its restarts.
///
/// Cheap to clone, usable from any thread. A path names what is below the supervisor: a child's id ("cache"), the ids on
/// the way to it ("pools/cache"), or the same after the supervisor's own [`path`](Self::path) ("app/pools/cache"). The empty path,
/// or its own, is the supervisor itself.
///
/// ```no_run
/// # async fn example(app: hatchery::supervisor::Supervisor) -> Result<(), Box<dyn std::error::Error>> {
/// let pools = app.supervisor("pools")?;
/// println!("{} holds {} children", pools.path(), pools.count_children().await?.active);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SupervisorRef {
    shared: Arc<Shared>,
}

impl SupervisorRef {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The supervisor's path, from the root ("app/pools").
    pub fn path(&self) -> &str {
        &self.shared.path
    }

    /// A reference to an actor below this supervisor, by its id or path ("pools/cache"). Does not wait: the actor
    /// may not be up yet.
    ///
    /// # Errors
    /// When there is no such child, or it is not an `A`.
    pub fn child<A: Actor>(&self, path: &str) -> Result<ChildRef<A>, LookupError> {
        let (full, entry) = self.lookup(path)?;
        child_ref(full, entry)
    }

    /// A reference to a supervisor below this one, by its id or path. Does not wait: it may not be up yet.
    ///
    /// # Errors
    /// When there is no such child, or it is an actor.
    pub fn supervisor(&self, path: &str) -> Result<SupervisorRef, LookupError> {
        match self.lookup(path)? {
            (_, Entry::Supervisor(shared)) => Ok(SupervisorRef { shared }),
            (path, _) => Err(LookupError::WrongKind { path, expected: "a supervisor" }),
        }
    }

    /// The supervisor of the child at this path, and the child's id.
    fn owner_of(&self, path: &str) -> Result<(SupervisorRef, Arc<str>), ChildError> {
        match path.rsplit_once('/') {
            None => Ok((self.clone(), path.into())),
            Some((above, id)) => {
                let supervisor = self.supervisor(above).map_err(|_| ChildError::NotFound)?;
                Ok((supervisor, id.into()))
            }
        }
    }

    /// The full path and the entry that a path leads to. A child comes before this supervisor itself, should it have the
    /// id of the root.
    fn lookup(&self, path: &str) -> Result<(String, Entry), LookupError> {
        let below = |path: &str| {
            let mut ids = path.split('/');
            let first = ids.next().and_then(|id| self.shared.entry(id));
            ids.fold(first, |found, id| match found {
                Some(Entry::Supervisor(shared)) => shared.entry(id),
                _ => None,
            })
        };
        let own = &*self.shared.path;
        if let Some(entry) = below(path) {
            return Ok((format!("{own}/{path}"), entry));
        }
        if path.is_empty() || path == own {
            return Ok((own.to_owned(), Entry::Supervisor(self.shared.clone())));
        }
        match path.strip_prefix(own).and_then(|rest| rest.strip_prefix('/')).and_then(below) {
            Some(entry) => Ok((path.to_owned(), entry)),
            None => Err(LookupError::NotFound { path: format!("{own}/{path}") }),
        }
    }

    /// Adds a child to this supervisor (to one below it: `app.supervisor("pools")?.start_child(spec)`) and starts it.
    /// Returns a reference to it when it is up: a [`ChildRef`] to an actor, a [`SupervisorRef`] to a nested supervisor. The
    /// reference to a child that declined to start is down.
    ///
    /// A static supervisor starts one child at a time: a child's factory that waits for this on its own
    /// supervisor waits for ever.
    ///
    /// ```no_run
    /// # struct Session;
    /// # impl actix::Actor for Session { type Context = actix::Context<Self>; }
    /// # async fn example(app: hatchery::supervisor::Supervisor) -> Result<(), Box<dyn std::error::Error>> {
    /// use hatchery::supervisor::{ChildRef, ChildSpec};
    ///
    /// let sessions = app.supervisor("sessions")?;
    /// let alice: ChildRef<Session> = sessions.start_child(ChildSpec::from_fn("alice", || Session)).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ChildError::AlreadyStarted`] and [`ChildError::AlreadyPresent`] when the id is taken,
    /// [`ChildError::MaxChildren`], [`ChildError::Spec`]; [`ChildError::Start`] when it cannot start: it is then
    /// discarded, unless it has a [`Backoff`](super::Backoff), with which it stays and is tried again;
    /// [`ChildError::Cancelled`] when it is terminated before it is up; [`ChildError::SupervisorDown`].
    pub async fn start_child<T: Supervised>(
        &self,
        spec: impl Into<ChildSpec<T>>,
    ) -> Result<T::Ref, ChildError> {
        let spec = spec.into().spec;
        let id = spec.options.id.clone();
        self.call(|caller| Input::StartChild { spec, caller }).await?;
        Ok(T::reference(self, &id))
    }

    /// Stops a child, named by its id or its path below this supervisor ("pools/cache"), in the way its specification
    /// says, and returns when it has ended. A start in progress is cancelled. Also fine when the child is already down.
    ///
    /// The specification is kept, unless the child is temporary or the supervisor dynamic: a restart of the
    /// child's group brings it up again, as in OTP.
    ///
    /// # Errors
    /// [`ChildError::NotFound`]; [`ChildError::Unkillable`] when it blocks its thread: it is not started again by
    /// itself, and not by anybody before it has ended; [`ChildError::SupervisorDown`].
    pub async fn terminate_child(&self, path: &str) -> Result<(), ChildError> {
        let (supervisor, id) = self.owner_of(path)?;
        supervisor.call(|caller| Input::TerminateChild { id, caller }).await.map(drop)
    }

    /// Starts a child that is known but down, named by its id or path. Returns its
    /// incarnation when it is up, and `None` when it declined to start. Its [`Backoff`](super::Backoff) starts afresh.
    ///
    /// # Errors
    /// [`ChildError::Running`], [`ChildError::Restarting`], [`ChildError::NotFound`], [`ChildError::Start`] (the
    /// specification stays), [`ChildError::Cancelled`], [`ChildError::Dynamic`], [`ChildError::SupervisorDown`].
    pub async fn restart_child(&self, path: &str) -> Result<Option<u64>, ChildError> {
        let (supervisor, id) = self.owner_of(path)?;
        supervisor.call(|caller| Input::RestartChild { id, caller }).await.map(incarnation_of)
    }

    /// Forgets a child that is down, named by its id or path.
    ///
    /// # Errors
    /// [`ChildError::Running`], [`ChildError::Restarting`], [`ChildError::NotFound`], [`ChildError::Dynamic`],
    /// [`ChildError::SupervisorDown`].
    pub async fn delete_child(&self, path: &str) -> Result<(), ChildError> {
        let (supervisor, id) = self.owner_of(path)?;
        supervisor.call(|caller| Input::DeleteChild { id, caller }).await.map(drop)
    }

    /// The supervisor's children, in start order.
    ///
    /// # Errors
    /// [`ChildError::SupervisorDown`].
    pub async fn which_children(&self) -> Result<Vec<ChildInfo>, ChildError> {
        self.inspect(|core| core.children().map(ChildInfo::from).collect()).await
    }

    /// How many children there are, of which kind, and how many of them live.
    ///
    /// # Errors
    /// [`ChildError::SupervisorDown`].
    pub async fn count_children(&self) -> Result<ChildCount, ChildError> {
        self.inspect(|core| {
            let mut count = ChildCount::default();
            for child in core.children() {
                count.specs += 1;
                count.active += usize::from(child.state.is_active());
                match child.options.kind {
                    Kind::Worker => count.workers += 1,
                    Kind::Supervisor => count.supervisors += 1,
                }
            }
            count
        })
        .await
    }

    /// The plain settings of a child, named by its id or path. (OTP: `get_childspec`.)
    ///
    /// # Errors
    /// [`ChildError::NotFound`], [`ChildError::SupervisorDown`].
    pub async fn child_options(&self, path: &str) -> Result<ChildOptions, ChildError> {
        let (supervisor, id) = self.owner_of(path)?;
        supervisor
            .inspect(move |core| core.child(&id).map(|child| child.options.clone()))
            .await?
            .ok_or(ChildError::NotFound)
    }

    /// A reference to the living child that has this name in the whole tree, by
    /// [`ChildContext::register`](super::ChildContext::register).
    ///
    /// # Errors
    /// When no child has the name, or it is not an `A`.
    pub fn whereis<A: Actor>(&self, name: &str) -> Result<ChildRef<A>, LookupError> {
        match self.shared.registry.whereis(name) {
            Some(named) => child_ref(named.path.to_string(), named.entry),
            None => Err(LookupError::NotFound { path: name.to_owned() }),
        }
    }

    pub(crate) fn initial_partitions(&self) -> usize {
        self.shared.initial_partitions()
    }

    pub(crate) fn partition_size(&self) -> usize {
        self.shared.partitions.load(Ordering::Acquire)
    }

    pub(crate) async fn resize(&self, size: usize) -> Result<usize, ChildError> {
        match self.call(|caller| Input::Resize { size, caller }).await? {
            Answer::Resized { former } => Ok(former),
            // Nothing else answers a resize.
            _ => Ok(size),
        }
    }

    /// A snapshot of this supervisor and all below it.
    ///
    /// # Errors
    /// [`ChildError::SupervisorDown`] for this supervisor; those below it that do not run have no children.
    pub async fn tree(&self) -> Result<Tree, ChildError> {
        let id: Arc<str> = self.path().rsplit('/').next().unwrap_or_default().into();
        let (state, up_since) = self.inspect(Roster::itself).await?;
        let mut itself = ChildInfo {
            options: ChildOptions::new(&id, Kind::Supervisor),
            state: state.into(),
            incarnation: None,
            restarts: 0,
            up_since,
            last_exit: None,
        };
        // Only its supervisor knows the restarts of a nested one.
        if let Some(shared) = self.shared.parent() {
            let parent = SupervisorRef { shared };
            let seen = parent.inspect(move |core| core.child(&id).map(ChildInfo::from)).await;
            itself = seen.ok().flatten().unwrap_or(itself);
        }
        Ok(Tree::new(self.path().to_owned(), itself, self.trees().await?))
    }

    async fn trees(&self) -> Result<Vec<Tree>, ChildError> {
        let mut trees = Vec::new();
        for child in self.which_children().await? {
            let id = &child.options.id;
            let below = match self.shared.entry(id) {
                Some(Entry::Supervisor(shared)) => {
                    Box::pin(SupervisorRef { shared }.trees()).await.unwrap_or_default()
                }
                _ => Vec::new(),
            };
            trees.push(Tree::new(self.shared.path_of(id).to_string(), child, below));
        }
        Ok(trees)
    }

    /// The supervisor at the top of the tree; this one if no other supervises it.
    pub fn root(&self) -> SupervisorRef {
        let mut root = self.shared.clone();
        while let Some(parent) = root.parent() {
            root = parent;
        }
        Self { shared: root }
    }

    /// Stops this supervisor in order, newest child to oldest, and returns when it has ended. A nested one is stopped as by
    /// [`terminate_child`](Self::terminate_child) of its parent: it is not started again by itself. The root ends the tree.
    ///
    /// Stopping a supervisor that does not run is harmless. An actor of the tree that waits for the stop of its own supervisor
    /// waits until it is killed.
    ///
    /// # Errors
    /// [`ChildError::Unkillable`], as in [`terminate_child`](Self::terminate_child).
    pub async fn stop(&self) -> Result<(), ChildError> {
        let stopped = match self.shared.parent() {
            Some(shared) => {
                let id = self.path().rsplit('/').next().unwrap_or_default().to_owned();
                Self { shared }.terminate_child(&id).await
            }
            None => {
                let stopped = self
                    .inbox()
                    .and_then(|inbox| inbox.send(Input::Stop).map_err(|_| ChildError::SupervisorDown));
                self.ended().await;
                stopped
            }
        };
        match stopped {
            Err(ChildError::SupervisorDown | ChildError::NotFound) => Ok(()),
            stopped => stopped,
        }
    }

    /// Waits until this supervisor has ended and nobody will start it again: the tree has ended, or its specification is
    /// deleted.
    pub async fn ended(&self) {
        let mut reports = self.subscribe();
        while reports.recv().await.is_some() {}
    }

    /// Subscribes to the reports of this supervisor and all below it.
    ///
    /// To lose nothing, subscribe first and list the children then; incarnations tell which events are in both.
    pub fn subscribe(&self) -> Reports {
        Reports::new(self.shared.subscribe())
    }

    async fn call(&self, input: impl FnOnce(Caller) -> Input) -> Result<Answer, ChildError> {
        let (caller, answer) = oneshot::channel();
        self.inbox()?.send(input(caller)).map_err(|_| ChildError::SupervisorDown)?;
        answer.await.unwrap_or(Err(ChildError::SupervisorDown))
    }

    async fn inspect<R: Send + 'static>(
        &self,
        question: impl FnOnce(&Roster) -> R + Send + 'static,
    ) -> Result<R, ChildError> {
        let (caller, answer) = oneshot::channel();
        let question = Box::new(move |core: &Roster| drop(caller.send(question(core))));
        self.inbox()?.send(Input::Inspect(question)).map_err(|_| ChildError::SupervisorDown)?;
        answer.await.map_err(|_| ChildError::SupervisorDown)
    }

    fn inbox(&self) -> Result<mpsc::UnboundedSender<Input>, ChildError> {
        self.shared.sender().ok_or(ChildError::SupervisorDown)
    }
}

fn child_ref<A: Actor>(path: String, entry: Entry) -> Result<ChildRef<A>, LookupError> {
    let Entry::Actor(slot) = entry else {
        return Err(LookupError::WrongKind { path, expected: "an actor" });
    };
    match (slot as Arc<dyn Any + Send + Sync>).downcast::<Slot<A>>() {
        Ok(slot) => Ok(ChildRef::new(slot, path.into())),
        Err(_) => Err(LookupError::WrongType { path, expected: std::any::type_name::<A>() }),
    }
}

fn incarnation_of(answer: Answer) -> Option<u64> {
    match answer {
        Answer::Started { incarnation } => Some(incarnation),
        Answer::Declined | Answer::Done | Answer::Resized { .. } => None,
    }
}

impl fmt::Debug for SupervisorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SupervisorRef").field("path", &self.shared.path).finish()
    }
}
