//! The answer to a message whose request may have to wait.

use actix::dev::{MessageResponse, OneshotSender};
use actix::{AsyncContext, Context, Message};
use futures_util::future::LocalBoxFuture;

use super::actor::PoolActor;
use super::core::RequestId;
use super::messages::{Abandon, LossHeard};
use crate::error::CallError;

/// An answer to come. When the sender of the message goes away before it, the request is taken out of the queue; a
/// message that was sent without interest in its answer is carried out all the same.
pub struct Answer<T> {
    pub(super) request: RequestId,
    pub(super) answer: LocalBoxFuture<'static, Result<T, CallError>>,
}

impl<M, T> MessageResponse<PoolActor, M> for Answer<T>
where
    M: Message<Result = Result<T, CallError>>,
    T: 'static,
{
    fn handle(self, ctx: &mut Context<PoolActor>, sender: Option<OneshotSender<M::Result>>) {
        let Self { request, answer } = self;
        let broker = ctx.address();
        actix_rt::spawn(async move {
            let Some(mut sender) = sender else {
                let _ = answer.await;
                broker.do_send(Abandon(request));
                return;
            };
            let answer = tokio::select! {
                answer = answer => Some(answer),
                () = sender.closed() => None,
            };
            match answer {
                Some(answer) => {
                    let is_loss = matches!(answer, Err(CallError::SessionLost { .. }));
                    // A sender that went away at the last moment drops the answer: a lease is then checked in.
                    match sender.send(answer) {
                        Ok(()) if is_loss => broker.do_send(LossHeard(request)),
                        Ok(()) => {}
                        Err(_) => broker.do_send(Abandon(request)),
                    }
                }
                None => broker.do_send(Abandon(request)),
            }
        });
    }
}
