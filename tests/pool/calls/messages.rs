//! An actix actor as the caller of a pool.

use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Message, ResponseFuture};
use hatchery::supervisor::{ChildRef, SendError};
use hatchery::{Call, CallError, Checkout, GetStatus, Phase, PoolActor};

use crate::support::{
    Guards, LONG_TIMEOUT, MODULE, alone_test, pool_of, started, status_when, touch, wait_for_file, wait_until,
};

/// An actor that has only a reference to the broker.
struct Asker {
    pool: ChildRef<PoolActor>,
    _guard: Box<dyn std::any::Any>,
}

impl Actor for Asker {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "u64")]
struct Ask(u64);

impl Handler<Ask> for Asker {
    type Result = ResponseFuture<u64>;

    fn handle(&mut self, Ask(number): Ask, _: &mut Context<Self>) -> Self::Result {
        let pool = self.pool.clone();
        Box::pin(async move {
            let call = Call::new("add", (number, 1)).expect("the arguments can be encoded");
            let reply = pool.send(call).await.expect("the broker is up").expect("the call succeeds");
            reply.decode().expect("a number")
        })
    }
}

alone_test! {
    async fn actor_can_send_call_checkout_and_get_status() {
        let pool = started(2).await;
        let guards = Guards::default();
        let asker = Asker { pool: pool.actor(), _guard: Box::new(guards.guard()) }.start();
        for number in 0..10 {
            assert_eq!(asker.send(Ask(number)).await.expect("the broker is up"), number + 1);
        }
        drop(asker);
        wait_until("the actor ends", LONG_TIMEOUT, || guards.live() == 0).await;

        let broker = pool.actor();
        let lease = broker.send(Checkout::default()).await.expect("the broker is up").expect("a worker is free");
        assert_eq!(lease.call::<_, u32>("pid", ()).await.expect("the call succeeds"), lease.pid());
        let status = broker.send(GetStatus).await.expect("the broker is up");
        assert_eq!((status.busy, status.idle), (1, 1));
        drop(lease);
        status_when(&pool, "the lease is returned", |status| status.idle == 2).await;
        pool.shutdown().await;
        assert!(matches!(broker.send(GetStatus).await, Err(SendError::Down)));
    }
}

alone_test! {
    async fn message_timeout_overrides_the_pool_timeout() {
        let pool = started(1).await;
        let broker = pool.actor();
        let (held, ()) = tokio::join!(pool.call::<_, u32>("hold", ("a",)), async {
            wait_for_file("a.began").await;
            let short = Duration::from_millis(50);
            let call = Call::new("pid", ()).expect("no arguments").timeout(short);
            let call = broker.send(call).await.expect("the broker is up").map(drop);
            let checkout = broker.send(Checkout::new().timeout(short)).await.expect("the broker is up").map(drop);
            for answer in [call, checkout] {
                assert!(
                    matches!(answer, Err(CallError::Timeout { phase: Phase::Queue, .. })),
                    "{answer:?}"
                );
            }
            touch("a.go");
        });
        held.expect("the held call returns");
        let refused = Call::new("pid", 5);
        assert!(matches!(refused, Err(CallError::Encode { .. })));
        pool.shutdown().await;
    }
}

alone_test! {
    async fn lease_held_by_actor_keeps_pool_alive() {
        struct Holder(Option<hatchery::Lease>);
        impl Actor for Holder {
            type Context = Context<Self>;
        }
        impl Handler<Ask> for Holder {
            type Result = ResponseFuture<u64>;
            fn handle(&mut self, Ask(number): Ask, ctx: &mut Context<Self>) -> Self::Result {
                let lease = self.0.take().expect("asked once");
                ctx.run_later(Duration::ZERO, |_, ctx| actix::ActorContext::stop(ctx));
                Box::pin(async move { lease.call("add", (number, 1)).await.expect("the call succeeds") })
            }
        }
        let pool = started(1).await;
        let broker = pool.actor();
        let lease = broker.send(Checkout::default()).await.expect("the broker is up").expect("a worker is free");
        drop(pool);
        assert_eq!(Holder(Some(lease)).start().send(Ask(1)).await.expect("the broker is up"), 2);
        wait_until("the pool ends with its last lease", LONG_TIMEOUT, || broker.addr().is_none()).await;
        let answer = broker.send(Call::new("pid", ()).expect("no arguments")).await;
        assert!(answer.is_err(), "{answer:?}");
    }
}

alone_test! {
    async fn call_over_the_frame_limit_keeps_the_worker() {
        let pool = pool_of(MODULE).size(1).max_frame_bytes(64 * 1024).start().await.expect("the pool starts");
        let call = Call::new("echo", ("x".repeat(64 * 1024),)).expect("the arguments can be encoded");
        let error = pool.actor().send(call).await.expect("the broker is up").expect_err("it is too large");
        assert!(matches!(error, CallError::FrameTooLarge { limit: 65_536, .. }), "{error:?}");
        let status = pool.status().await.expect("the pool runs");
        assert_eq!((status.idle, status.restarts), (1, 0));
        pool.shutdown().await;
    }
}
