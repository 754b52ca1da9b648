//! The task of one actor: it starts the actor, runs it, and always tells how it ended.
//!
//! Actix's own future is polled inside `catch_unwind`, so that a panic anywhere ends the child and nothing else.
//! It must not be dropped while it is alive, because its `Drop` polls the actor once more, with user code that
//! may panic again; it is therefore terminated first.

use std::{
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, Waker},
};

use actix::{Actor, ActorContext, AsyncContext, Context, dev::ContextFut};

use super::{
    Cause, Declined, ExitReason, StartFailure,
    control::Link,
    mailbox::new_context,
    slot::{AnySlot, Slot},
};
use crate::guard::guarded;

// A start is short, and boxing what runs would cost each child an allocation and each poll a hop.
#[allow(clippy::large_enum_variant)]
enum Phase<A: Actor<Context = Context<A>>, F> {
    Starting(Pin<Box<F>>),
    Running(ContextFut<A, Context<A>>),
    Over,
}

/// One incarnation of an actor, from its factory to its end.
pub(crate) struct ChildTask<A: Actor<Context = Context<A>>, F, E> {
    phase: Phase<A, F>,
    slot: Arc<Slot<A>>,
    /// The wishes to stop that have been passed on: an actor may refuse each of them, once.
    passed_on: u8,
    /// Gone when all is told.
    link: Option<Link>,
    error: PhantomData<fn() -> E>,
}

impl<A, F, E> ChildTask<A, F, E>
where
    A: Actor<Context = Context<A>>,
    F: Future<Output = Result<A, E>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(crate) fn new(start: F, slot: Arc<Slot<A>>, link: Link) -> Self {
        Self {
            phase: Phase::Starting(Box::pin(start)),
            slot,
            passed_on: 0,
            link: Some(link),
            error: PhantomData,
        }
    }

    /// Runs the factory; the actor when it is up.
    fn poll_start(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        let Phase::Starting(start) = &mut self.phase else { return Poll::Ready(()) };
        let Some(link) = &self.link else { return Poll::Ready(()) };
        if link.control.is_killed() || link.control.is_asked() {
            self.end(ExitReason::Killed);
            return Poll::Ready(());
        }
        match guarded(|| start.as_mut().poll(cx)) {
            Ok(Poll::Pending) => Poll::Pending,
            Err(message) => {
                self.fail(Arc::new(StartFailure::Panicked(message)));
                Poll::Ready(())
            }
            Ok(Poll::Ready(Err(error))) => {
                let error: Box<dyn std::error::Error + Send + Sync> = match guarded(|| error.into()) {
                    Ok(error) => error,
                    Err(message) => StartFailure::Panicked(message).into(),
                };
                if error.is::<Declined>() {
                    self.discard();
                    if let Some(link) = self.link.take() {
                        link.declined();
                    }
                } else {
                    self.fail(Arc::from(error));
                }
                Poll::Ready(())
            }
            Ok(Poll::Ready(Ok(actor))) => {
                self.start_actor(actor, cx);
                Poll::Ready(())
            }
        }
    }

    /// The first poll runs `started`; only then is the actor up.
    fn start_actor(&mut self, actor: A, cx: &mut TaskContext<'_>) {
        let context = new_context();
        let address = context.address();
        // The factory's future goes first: it may hold what `started` wants.
        let dropped = self.discard();
        self.phase = Phase::Running(context.into_future(actor));
        if let Some(message) = dropped {
            return self.fail(Arc::new(StartFailure::Panicked(message)));
        }
        if self.link.as_ref().is_some_and(|link| link.control.is_killed()) {
            return self.end(ExitReason::Killed);
        }
        match self.poll_actor(cx) {
            Err(message) => self.fail(Arc::new(StartFailure::Panicked(message))),
            Ok(poll) => {
                if let Some(link) = &mut self.link {
                    if poll.is_pending() {
                        self.slot.publish(link.incarnation(), address);
                    }
                    link.started();
                }
                if poll.is_ready() {
                    self.end_as_told();
                }
            }
        }
    }

    fn poll_actor(&mut self, cx: &mut TaskContext<'_>) -> Result<Poll<()>, String> {
        let Phase::Running(actor) = &mut self.phase else { return Ok(Poll::Ready(())) };
        guarded(|| Pin::new(actor).poll(cx))
    }

    /// The actor has stopped without a panic.
    fn end_as_told(&mut self) {
        let Some(link) = &self.link else { return };
        let otherwise = if link.control.is_asked() { ExitReason::Shutdown } else { ExitReason::Normal };
        let reason = link.control.take_exit().unwrap_or(otherwise);
        self.end(reason);
    }

    fn fail(&mut self, cause: Cause) {
        self.discard();
        if let Some(link) = self.link.take() {
            link.start_failed(cause);
        }
    }
}

impl<A: Actor<Context = Context<A>>, F, E> ChildTask<A, F, E> {
    /// Drops the running future, closes the mailbox, and reports the end.
    fn end(&mut self, mut reason: ExitReason) {
        if let Some(message) = self.discard()
            && reason.is_normal()
        {
            reason = ExitReason::Panic(message);
        }
        if let Some(link) = self.link.take() {
            self.slot.withdraw(link.incarnation());
            link.ended(reason);
        }
    }

    /// Drops the running future; returns the message of a panic in the `Drop` of the actor, of its futures or of the factory's future. What
    /// waits in the mailbox does not count.
    fn discard(&mut self) -> Option<String> {
        let phase = std::mem::replace(&mut self.phase, Phase::Over);
        guarded(|| match phase {
            Phase::Running(mut actor) => {
                actor.ctx().terminate();
                drop(actor);
            }
            other => drop(other),
        })
        .err()
    }
}

impl<A, F, E> Future for ChildTask<A, F, E>
where
    A: Actor<Context = Context<A>>,
    F: Future<Output = Result<A, E>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(link) = &this.link else { return Poll::Ready(()) };
        link.control.register(cx.waker());
        if let Phase::Starting(_) = this.phase {
            if this.poll_start(cx).is_pending() {
                return Poll::Pending;
            }
            // An order may have come while the actor started, before it could be carried out.
            if !this.link.as_ref().is_some_and(|link| link.control.wishes() != 0 || link.control.is_killed())
            {
                return if this.link.is_some() { Poll::Pending } else { Poll::Ready(()) };
            }
        }
        let Some(link) = &this.link else { return Poll::Ready(()) };
        let is_killed = link.control.is_killed();
        // A request that came together with the kill came first: the actor may obey it in one poll.
        if is_killed && !link.control.is_asked_beyond(this.passed_on) {
            this.end(ExitReason::Killed);
            return Poll::Ready(());
        }
        let wishes = link.control.wishes();
        if wishes & !this.passed_on != 0
            && let Phase::Running(actor) = &mut this.phase
        {
            this.passed_on = wishes;
            actor.ctx().stop();
        }
        match this.poll_actor(cx) {
            Ok(Poll::Pending) if is_killed => {
                this.end(ExitReason::Killed);
                Poll::Ready(())
            }
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => {
                this.end_as_told();
                Poll::Ready(())
            }
            Err(message) => {
                this.end(ExitReason::Panic(message));
                Poll::Ready(())
            }
        }
    }
}

impl<A: Actor<Context = Context<A>>, F, E> Drop for ChildTask<A, F, E> {
    /// The arbiter stops under its children: their hooks run, as in plain actix, but cannot do harm.
    fn drop(&mut self) {
        let Some(link) = &self.link else { return };
        if let Phase::Running(actor) = &mut self.phase
            && !link.control.is_killed()
            && !std::thread::panicking()
        {
            let _ = guarded(|| {
                actor.ctx().stop();
                let _ = Pin::new(actor).poll(&mut TaskContext::from_waker(Waker::noop()));
            });
        }
        let reason = if link.control.is_killed() { ExitReason::Killed } else { ExitReason::ArbiterStopped };
        self.end(reason);
    }
}
