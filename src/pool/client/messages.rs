//! The messages that an actor may send to a pool's [`PoolActor`]. They do what the handles do: [`Call`] and [`OpenStream`] are a
//! [`Request`](crate::Request), [`Checkout`] is [`Pool::checkout`](crate::Pool::checkout), and so on.

use std::marker::PhantomData;
use std::time::Duration;

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Context, Handler, Message, ResponseFuture};
use futures_util::future::LocalBoxFuture;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::call::{Call, Target};
use super::lease::{Lease, PendingCheckout};
use super::pool::Pool;
use super::progress::Listener;
use super::stream::{CallStream, open};
use crate::error::{CallError, UnavailableCause};
use crate::pool::broker::{PoolActor, PoolStatus};
use crate::pool::core::{Affinity, SessionUse};
use crate::worker::Reply;

/// Call a generator, and answer with its items as a stream as soon as a worker has it. See
/// [`Request::stream`](crate::Request::stream).
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::{Call, OpenStream};
///
/// let mut words = pool.actor().send(OpenStream::<String>::new(Call::new("describe", ("pen",))?)).await??;
/// while let Some(word) = words.next().await {
///     println!("{}", word?);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct OpenStream<T> {
    call: Call,
    item: PhantomData<fn() -> T>,
}

impl<T> OpenStream<T> {
    /// The stream of this call.
    pub fn new(call: Call) -> Self {
        Self { call, item: PhantomData }
    }
}

impl<T: 'static> Message for OpenStream<T> {
    type Result = Result<CallStream<T>, CallError>;
}

/// Ask for a worker of one's own. Answered with a [`Lease`], or why there is none.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::Checkout;
/// use std::time::Duration;
///
/// let lease = pool.actor().send(Checkout::new().timeout(Duration::from_secs(1))).await??;
/// let answer: String = lease.call("ask", ("to be?",)).await?;
/// # Ok(()) }
/// ```
#[derive(Message, Debug, Clone, Default)]
#[rtype(result = "Result<Lease, CallError>")]
pub struct Checkout {
    timeout: Option<Duration>,
    session: Option<SessionUse>,
}

impl Checkout {
    /// A checkout of any worker.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long to wait for a worker. Default: the pool's checkout timeout (5 s).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The calls of the lease belong to this session, and its worker is the session's, as far as `affinity` says. Default: of no
    /// session.
    #[must_use]
    pub fn session(mut self, name: &str, affinity: Affinity) -> Self {
        self.session = Some(SessionUse { session: name.into(), affinity });
        self
    }
}

/// End a session: its state is dropped in every worker that has some, and the module's `@on_session_end` hooks run
/// there. Answered when they have.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::EndSession;
///
/// pool.actor().send(EndSession("alice".into())).await??;
/// # Ok(()) }
/// ```
#[derive(Message, Debug, Clone)]
#[rtype(result = "Result<(), CallError>")]
pub struct EndSession(
    /// The session's name.
    pub String,
);

/// Ask for the state of the pool, the memory of its processes included.
///
/// ```no_run
/// # async fn example(pool: hatchery::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::GetStatus;
///
/// let status = pool.actor().send(GetStatus).await?;
/// # Ok(()) }
/// ```
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "PoolStatus")]
pub struct GetStatus;

/// The answer to a message whose request may have to wait. When the sender of the message goes away before the answer, the
/// request is given up; a message that was sent without interest in its answer is carried out all the same.
pub struct Answer<T>(LocalBoxFuture<'static, Result<T, CallError>>);

impl<T: 'static> Answer<T> {
    fn new(answer: impl Future<Output = Result<T, CallError>> + 'static) -> Self {
        Self(Box::pin(answer))
    }
}

impl<M, T> MessageResponse<PoolActor, M> for Answer<T>
where
    M: Message<Result = Result<T, CallError>>,
    T: 'static,
{
    fn handle(self, _: &mut Context<PoolActor>, sender: Option<OneshotSender<M::Result>>) {
        let Self(answer) = self;
        actix_rt::spawn(async move {
            let Some(mut sender) = sender else {
                let _ = answer.await;
                return;
            };
            let answer = tokio::select! {
                answer = answer => answer,
                // The answer is dropped, which gives the request up.
                () = sender.closed() => return,
            };
            // A sender that went away at the last moment drops the answer: a lease is then checked in.
            let _ = sender.send(answer);
        });
    }
}

impl Handler<Call> for PoolActor {
    type Result = Answer<Reply>;

    fn handle(&mut self, mut call: Call, ctx: &mut Context<Self>) -> Self::Result {
        self.collect(ctx);
        let broker = self.itself().clone();
        let (deadline, listener) = (call.deadline(&broker), call.listener());
        let progress = listener.as_ref().map(Listener::sender);
        let first = call
            .complete(Target::pool(&broker), None, listener.is_some())
            .and_then(|()| call.submit_to_pool(&broker, deadline, progress));
        Answer::new(async move { call.outcome(Target::pool(&broker), deadline, first, listener).await })
    }
}

impl<T: DeserializeOwned + 'static> Handler<OpenStream<T>> for PoolActor {
    type Result = Answer<CallStream<T>>;

    fn handle(
        &mut self,
        OpenStream { mut call, .. }: OpenStream<T>,
        ctx: &mut Context<Self>,
    ) -> Self::Result {
        self.collect(ctx);
        let broker = self.itself();
        let (deadline, listener) = (call.deadline(broker), call.listener());
        let opening = open(call, Target::pool(broker), deadline, listener);
        let pool = Pool::of(broker.clone(), 0);
        Answer::new(async move { opening?.stream(pool).await })
    }
}

impl Handler<Checkout> for PoolActor {
    type Result = Answer<Lease>;

    fn handle(&mut self, checkout: Checkout, ctx: &mut Context<Self>) -> Self::Result {
        self.collect(ctx);
        let pool = Pool::of(self.itself().clone(), 0);
        let pending = PendingCheckout::submit(&pool, checkout.session, checkout.timeout);
        Answer::new(async move { pending?.lease(pool).await })
    }
}

impl Handler<EndSession> for PoolActor {
    type Result = ResponseFuture<Result<(), CallError>>;

    fn handle(&mut self, EndSession(session): EndSession, ctx: &mut Context<Self>) -> Self::Result {
        self.collect(ctx);
        let (reply, answer) = oneshot::channel();
        self.end_session(session.into(), reply, ctx);
        Box::pin(async move {
            let lost = || CallError::Unavailable { cause: UnavailableCause::BrokerRestarting };
            answer.await.unwrap_or_else(|_| Err(lost()))
        })
    }
}

impl Handler<GetStatus> for PoolActor {
    type Result = ResponseFuture<PoolStatus>;

    fn handle(&mut self, GetStatus: GetStatus, ctx: &mut Context<Self>) -> Self::Result {
        self.collect(ctx);
        Box::pin(self.status().with_memory())
    }
}
