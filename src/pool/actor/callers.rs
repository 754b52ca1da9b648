//! What callers say to the broker itself, without a handle.

use std::sync::Weak;
use std::time::Instant;

use actix::{Context, Handler, ResponseFuture};
use tokio::sync::oneshot;

use super::PoolActor;
use crate::error::{CallError, UnavailableCause};
use crate::pool::answer::Answer;
use crate::pool::core::{Event, RequestId};
use crate::pool::inbox::Submitted;
use crate::pool::lease::Lease;
use crate::pool::messages::{Call, Checkout, EndSession, Item};
use crate::pool::request::fitting;
use crate::port::CallOptions;
use crate::timer::deadline;
use crate::worker::{PendingCall, Reply, Work};

/// What a caller gets whose request went down with the broker.
fn lost<T>(_: oneshot::error::RecvError) -> Result<T, CallError> {
    Err(CallError::Unavailable { cause: UnavailableCause::BrokerRestarting })
}

impl Handler<Call> for PoolActor {
    type Result = Answer<Reply>;

    fn handle(&mut self, call: Call, ctx: &mut Context<Self>) -> Self::Result {
        self.collect(ctx);
        let request = RequestId::new();
        let Call { body, timeout, session } = call;
        let name = session.as_ref().map(|used| used.session.clone());
        let body = CallOptions { session: name.as_deref(), ..CallOptions::default() }.append_to(body);
        let body = match fitting(body, self.config.max_frame_bytes) {
            Ok(body) => body,
            Err(error) => return Answer { request, answer: Box::pin(async { Err(error) }) },
        };
        let (reply, answer) = oneshot::channel();
        let (now, timeout) = (Instant::now(), timeout.unwrap_or(self.config.call_timeout));
        let waits = deadline(now, timeout.min(self.config.checkout_timeout));
        let work = Work::Call { body, session: name, depth: 0, idempotent: false };
        let call = PendingCall::new(work, deadline(now, timeout), reply);
        let item = Item::Call { call, opened: None };
        self.submit(Submitted { request, deadline: waits, session, item }, ctx);
        let answer = Box::pin(async { answer.await.unwrap_or_else(lost) });
        Answer { request, answer }
    }
}

impl Handler<Checkout> for PoolActor {
    type Result = Answer<Lease>;

    fn handle(&mut self, checkout: Checkout, ctx: &mut Context<Self>) -> Self::Result {
        let request = RequestId::new();
        let (reply, answer) = oneshot::channel();
        let timeout = checkout.timeout.unwrap_or(self.config.checkout_timeout);
        let item = Item::Checkout { session: None, reply };
        let deadline = deadline(Instant::now(), timeout);
        self.submit(Submitted { request, deadline, session: None, item }, ctx);
        let handle = self.config.handle.clone();
        let answer = Box::pin(async move {
            let token = answer.await.unwrap_or_else(lost)?;
            // Without a handle left the pool is on its way out.
            let pool = handle.get().and_then(Weak::upgrade).ok_or(CallError::Draining)?;
            Ok(Lease::new(token, pool, 0))
        });
        Answer { request, answer }
    }
}

impl Handler<EndSession> for PoolActor {
    type Result = ResponseFuture<Result<(), CallError>>;

    fn handle(&mut self, EndSession(session): EndSession, ctx: &mut Context<Self>) -> Self::Result {
        let (reply, answer) = oneshot::channel();
        self.handle(Event::EndSession { session: session.into(), item: Item::EndSession { reply } }, ctx);
        Box::pin(async { answer.await.unwrap_or_else(lost) })
    }
}
