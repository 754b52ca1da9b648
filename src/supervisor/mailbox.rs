//! The mailbox of a supervised actor.
//!
//! Actix keeps an actor's mailbox out of reach and drops all messages in it at once, together with the actor. If one of them
//! panics in `Drop`, the others are never dropped and their senders wait for ever; if the actor panics too, the
//! process aborts. So a supervised actor's context has an empty mailbox, and the real one is the first future in the
//! context. It hands the messages to the actor as actix would, and drops the remaining ones one by one.

use std::{
    pin::Pin,
    task::{Context as TaskContext, Poll, Waker},
};

use actix::{
    Actor, AsyncContext, Context,
    dev::{
        AsyncContextParts, ContextParts, EnvelopeProxy,
        channel::{AddressReceiver, channel},
    },
    fut::ActorFuture,
};
use futures_util::Stream;

use crate::guard::discard;

/// As in actix. An actor may change it by `Context::set_mailbox_capacity`.
const DEFAULT_CAPACITY: usize = 16;

/// A context whose messages go through a [`Mailbox`].
pub(crate) fn new_context<A: Actor<Context = Context<A>>>() -> Context<A> {
    let (_, messages) = channel(DEFAULT_CAPACITY);
    let mut context = Context::new();
    *context.parts() = ContextParts::new(messages.sender_producer());
    context.spawn(Mailbox { messages: Some(messages) });
    context
}

/// Hands messages to the actor until the context drops it.
struct Mailbox<A: Actor> {
    /// `None` while it is dropped.
    messages: Option<AddressReceiver<A>>,
}

impl<A: Actor<Context = Context<A>>> ActorFuture<A> for Mailbox<A> {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        actor: &mut A,
        context: &mut Context<A>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<()> {
        let Some(messages) = &mut self.get_mut().messages else { return Poll::Pending };
        while !context.waiting()
            && let Poll::Ready(Some(mut message)) = Pin::new(&mut *messages).poll_next(cx)
        {
            message.handle(actor, context);
            // A message whose sender has left is still in there, and its drop is not the actor's fault.
            discard(message);
        }
        Poll::Pending
    }
}

impl<A: Actor> Drop for Mailbox<A> {
    fn drop(&mut self) {
        let Some(mut messages) = self.messages.take() else { return };
        let mut cx = TaskContext::from_waker(Waker::noop());
        let mut left = Vec::new();
        while let Poll::Ready(Some(message)) = Pin::new(&mut messages).poll_next(&mut cx) {
            left.push(message);
        }
        // Closes it first: a message's drop may send another one.
        discard(messages);
        left.into_iter().for_each(discard);
    }
}
