//! Where a child's current address is kept, and the reference that reads it.

use std::{
    any::{Any, type_name},
    fmt,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use actix::{Actor, Addr, Context, Handler, Message};

use tokio::sync::oneshot;

use super::SendError;
use crate::guard::discard;

/// The place of one child in its supervisor's table, over all its incarnations.
pub(crate) struct Slot<A: Actor> {
    state: RwLock<State<A>>,
}

struct State<A: Actor> {
    address: Option<Addr<A>>,
    /// The incarnation that may publish its address; 0: none.
    expected: u64,
    /// The incarnation that was up last; 0: none yet.
    incarnation: u64,
    /// Those who wait for the child to be up, or surely down.
    waiting: Vec<oneshot::Sender<()>>,
}

/// What a supervisor does with a slot, without the actor's type; the slot can be downcast.
pub(crate) trait AnySlot: Any + Send + Sync {
    /// Only this incarnation may publish its address from now on.
    fn expect(&self, incarnation: u64);
    /// The incarnation has ended, or is to get no more messages.
    fn withdraw(&self, incarnation: u64);
    /// No incarnation may publish an address, until [`expect`](Self::expect) allows one.
    fn mark_down(&self);
}

impl<A: Actor> Slot<A> {
    pub(crate) fn new() -> Self {
        // Until its supervisor decides otherwise a declared child is about to come up.
        let state = State { address: None, expected: u64::MAX, incarnation: 0, waiting: Vec::new() };
        Self { state: RwLock::new(state) }
    }

    fn read(&self) -> RwLockReadGuard<'_, State<A>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State<A>> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The incarnation is up.
    pub(crate) fn publish(&self, incarnation: u64, address: Addr<A>) {
        let mut state = self.write();
        if state.expected == incarnation {
            state.address = Some(address);
            state.incarnation = incarnation;
            state.wake();
        }
    }
}

impl<A: Actor> AnySlot for Slot<A> {
    fn expect(&self, incarnation: u64) {
        self.write().expected = incarnation;
    }

    fn withdraw(&self, incarnation: u64) {
        let address = {
            let mut state = self.write();
            if state.incarnation == incarnation { state.address.take() } else { None }
        };
        // Outside the lock: the last address drops messages that came too late.
        discard(address);
    }

    fn mark_down(&self) {
        let address = {
            let mut state = self.write();
            state.expected = 0;
            state.wake();
            state.address.take()
        };
        discard(address);
    }
}

/// A reference to a child that follows its restarts.
///
/// Cheap to clone, usable from any thread, and weak: it keeps nothing alive. It belongs to one specification:
/// when that is deleted (or its temporary child ends) the reference stays [`SendError::Down`], even if another
/// child of the same id is started later.
///
/// Errors tell whether a message may be sent again: with [`SendError::Restarting`] it was surely never
/// delivered; [`SendError::Lost`] stands for every doubt.
///
/// ```no_run
/// # struct Db;
/// # impl actix::Actor for Db { type Context = actix::Context<Self>; }
/// # #[derive(actix::Message)]
/// # #[rtype(result = "u32")]
/// # struct Count;
/// # impl actix::Handler<Count> for Db { type Result = u32; fn handle(&mut self, _: Count, _: &mut Self::Context) -> u32 { 42 } }
/// # async fn example(app: hatchery::supervisor::Supervisor) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::supervisor::ChildRef;
///
/// let db: ChildRef<Db> = app.child("db")?;
/// println!("{}", db.send(Count).await?); // follows restarts
/// # Ok(()) }
/// ```
pub struct ChildRef<A: Actor> {
    slot: Arc<Slot<A>>,
    path: Arc<str>,
}

impl<A: Actor> ChildRef<A> {
    pub(crate) fn new(slot: Arc<Slot<A>>, path: Arc<str>) -> Self {
        Self { slot, path }
    }

    /// A reference to a child that will never be started.
    pub(crate) fn down_for_ever(path: &str) -> Self {
        let slot = Slot::new();
        slot.mark_down();
        Self::new(Arc::new(slot), path.into())
    }

    /// A reference to a child that no supervisor has: it stays [`SendError::Restarting`].
    #[cfg(feature = "python")]
    pub(crate) fn unbound(path: &str) -> Self {
        Self::new(Arc::new(Slot::new()), path.into())
    }

    /// The child's path, from the root ("app/pools/cache").
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The address of the current incarnation; `None` while there is none. An address does not follow restarts.
    pub fn addr(&self) -> Option<Addr<A>> {
        self.slot.read().address.clone().filter(Addr::connected)
    }

    /// Why a message could not be sent now; `None` when it could.
    #[cfg(feature = "python")]
    pub(crate) fn down(&self) -> Option<SendError> {
        self.slot.read().address().err()
    }

    /// The incarnation that is up; `None` while there is none.
    pub fn incarnation(&self) -> Option<u64> {
        let state = self.slot.read();
        state.address.as_ref().filter(|address| address.connected()).map(|_| state.incarnation)
    }
}

impl<A: Actor<Context = Context<A>>> ChildRef<A> {
    /// Waits until the child is up, and gives its address.
    ///
    /// # Errors
    /// [`SendError::Restarting`] when it is not up after `timeout`, [`SendError::Down`] as soon as it
    /// will not be started again.
    ///
    /// # Panics
    /// Outside of a tokio runtime, whose clock it uses.
    pub async fn ready(&self, timeout: Duration) -> Result<Addr<A>, SendError> {
        tokio::time::timeout(timeout, self.up()).await.unwrap_or(Err(SendError::Restarting))
    }

    async fn up(&self) -> Result<Addr<A>, SendError> {
        loop {
            let changed = {
                let mut state = self.slot.write();
                match state.address() {
                    Ok(address) => return Ok(address.clone()),
                    Err(SendError::Restarting) => {}
                    Err(error) => return Err(error),
                }
                state.waiting.retain(|waiting| !waiting.is_closed());
                let (waiting, changed) = oneshot::channel();
                state.waiting.push(waiting);
                changed
            };
            let _ = changed.await;
        }
    }

    /// Sends a message without waiting for its result, and whether or not the mailbox is full.
    ///
    /// # Errors
    /// [`SendError::Restarting`] or [`SendError::Down`] when the child is not up. `Ok` does not mean that the
    /// message will be handled: the child may end before.
    pub fn do_send<M>(&self, message: M) -> Result<(), SendError>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
    {
        let state = self.slot.read();
        state.address()?.do_send(message);
        Ok(())
    }

    /// Sends a message and waits for its result. It is sent by the call itself, not when first awaited, and whether or not the
    /// mailbox is full. Dropping the future before the message is handled takes it back.
    ///
    /// There is no limit to the wait but the child's life; add one with `tokio::time::timeout`.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send<M>(&self, message: M) -> impl Future<Output = Result<M::Result, SendError>> + Send + use<A, M>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
    {
        // An address that has met a full mailbox holds later messages back; a new clone always has room for one.
        let address = self.slot.read().address().cloned();
        let request = address.map(|address| address.send(message));
        async move { request?.await.map_err(|_| SendError::Lost) }
    }
}

impl<A: Actor<Context = Context<A>>> ChildRef<A> {
    /// The child as a recipient of one message, without its type. It follows restarts, too.
    pub fn recipient<M>(&self) -> ChildRecipient<M>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
    {
        ChildRecipient { child: Arc::new(self.clone()) }
    }
}

/// A child that takes the message `M`, without its actor's type, from [`ChildRef::recipient`]. It follows restarts and keeps
/// nothing alive. (An actix `Recipient` belongs to one incarnation.)
///
/// ```no_run
/// # #[derive(actix::Message)]
/// # #[rtype(result = "u32")]
/// # struct Count;
/// # struct Db;
/// # impl actix::Actor for Db { type Context = actix::Context<Self>; }
/// # impl actix::Handler<Count> for Db { type Result = u32; fn handle(&mut self, _: Count, _: &mut Self::Context) -> u32 { 42 } }
/// # async fn example(app: hatchery::supervisor::Supervisor) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::supervisor::ChildRecipient;
///
/// let counter: ChildRecipient<Count> = app.child::<Db>("db")?.recipient();
/// println!("{}", counter.send(Count).await?);
/// # Ok(()) }
/// ```
pub struct ChildRecipient<M: Message> {
    child: Arc<dyn Receive<M>>,
}

type Sent<R> = Pin<Box<dyn Future<Output = Result<R, SendError>> + Send>>;

/// A [`ChildRef`] whose actor takes the message.
trait Receive<M: Message>: Send + Sync {
    fn path(&self) -> &str;

    fn do_send(&self, message: M) -> Result<(), SendError>;

    fn send(&self, message: M) -> Sent<M::Result>;
}

impl<A, M> Receive<M> for ChildRef<A>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn path(&self) -> &str {
        self.path()
    }

    fn do_send(&self, message: M) -> Result<(), SendError> {
        self.do_send(message)
    }

    fn send(&self, message: M) -> Sent<M::Result> {
        Box::pin(self.send(message))
    }
}

impl<M: Message> ChildRecipient<M> {
    /// The child's path, from the root ("app/pools/cache").
    pub fn path(&self) -> &str {
        self.child.path()
    }

    /// See [`ChildRef::do_send`].
    ///
    /// # Errors
    /// [`SendError::Restarting`] or [`SendError::Down`] when the child is not up.
    pub fn do_send(&self, message: M) -> Result<(), SendError> {
        self.child.do_send(message)
    }

    /// See [`ChildRef::send`].
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send(&self, message: M) -> impl Future<Output = Result<M::Result, SendError>> + Send + use<M> {
        self.child.send(message)
    }
}

impl<M: Message> Clone for ChildRecipient<M> {
    fn clone(&self) -> Self {
        Self { child: self.child.clone() }
    }
}

impl<M: Message> fmt::Debug for ChildRecipient<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildRecipient")
            .field("path", &self.path())
            .field("message", &type_name::<M>())
            .finish()
    }
}

impl<A: Actor> State<A> {
    fn wake(&mut self) {
        for waiting in self.waiting.drain(..) {
            // The waiting task may have timed out.
            let _ = waiting.send(());
        }
    }

    fn address(&self) -> Result<&Addr<A>, SendError> {
        match &self.address {
            Some(address) if address.connected() => Ok(address),
            _ if self.expected == 0 => Err(SendError::Down),
            _ => Err(SendError::Restarting),
        }
    }
}

impl<A: Actor> Clone for ChildRef<A> {
    fn clone(&self) -> Self {
        Self { slot: self.slot.clone(), path: self.path.clone() }
    }
}

impl<A: Actor> fmt::Debug for ChildRef<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildRef").field("path", &self.path).field("actor", &type_name::<A>()).finish()
    }
}
