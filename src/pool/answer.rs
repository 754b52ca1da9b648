//! The answer to a message whose request may have to wait.

use actix::dev::{MessageResponse, OneshotSender};
use actix::{AsyncContext, Context, Message};
use futures_util::future::LocalBoxFuture;

use super::actor::PoolActor;
use super::core::RequestId;
use super::messages::Abandon;

/// An answer to come. When the sender of the message goes away before it, the request is taken out of the queue; a
/// message that was sent without interest in its answer is carried out all the same.
pub struct Answer<R> {
    pub(super) request: RequestId,
    pub(super) answer: LocalBoxFuture<'static, R>,
}

impl<M> MessageResponse<PoolActor, M> for Answer<M::Result>
where
    M: Message,
    M::Result: 'static,
{
    fn handle(self, ctx: &mut Context<PoolActor>, sender: Option<OneshotSender<M::Result>>) {
        let Self { request, answer } = self;
        let broker = ctx.address();
        actix_rt::spawn(async move {
            let Some(mut sender) = sender else {
                answer.await;
                return;
            };
            let answer = tokio::select! {
                answer = answer => Some(answer),
                () = sender.closed() => None,
            };
            match answer {
                // One who went away at the last moment drops it: a lease is then checked in.
                Some(answer) => drop(sender.send(answer)),
                None => broker.do_send(Abandon(request)),
            }
        });
    }
}
