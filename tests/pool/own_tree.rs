//! A pool as a child in the tree of an application.

use std::sync::{Arc, Mutex};

use actix::prelude::*;
use futures_util::FutureExt;
use hatchery::supervisor::{ChildSpec, ReportEvent, Restart, Strategy, Supervisor, SupervisorRef};
use hatchery::{Call, CallError, Pool, PoolActor, PoolStartError, UnavailableCause};

use crate::support::{
    LONG_TIMEOUT, MODULE, alone_test, is_alive, kill, pids, pool_of, status_when, touch, wait_for_file,
    wait_until,
};

/// A sibling that records its start and stop.
struct Sibling {
    name: &'static str,
    events: Events,
}

type Events = Arc<Mutex<Vec<String>>>;

impl Actor for Sibling {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.events.lock().expect("no panic").push(format!("{} started", self.name));
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.events.lock().expect("no panic").push(format!("{} stopped", self.name));
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Crash;

impl Handler<Crash> for Sibling {
    type Result = ();

    fn handle(&mut self, Crash: Crash, _: &mut Self::Context) {
        panic!("intended failure");
    }
}

fn sibling(name: &'static str, events: &Events) -> ChildSpec<Sibling> {
    let events = events.clone();
    ChildSpec::new(name, move || {
        let events = events.clone();
        async move { Ok::<_, std::convert::Infallible>(Sibling { name, events }) }
    })
}

async fn serves(pool: &Pool) {
    assert_eq!(pool.call::<_, u32>("add", (1, 2)).await.expect("the call succeeds"), 3);
}

alone_test! {
    async fn pool_in_a_tree_is_ready_before_the_next_sibling_starts() {
        let (spec, pool) = pool_of(MODULE).size(2).child_spec("texts").expect("good settings");
        let before = pool.call::<_, u32>("pid", ()).await;
        let cause = UnavailableCause::BrokerRestarting;
        assert!(matches!(&before, Err(CallError::Unavailable { cause: it }) if it.to_string() == cause.to_string()), "{before:?}");
        let sibling_pool = pool.clone();
        let app = Supervisor::builder("app")
            .child_spec(spec)
            .child("after", move || {
                let pool = sibling_pool.clone();
                async move {
                    let status = pool.status().await?;
                    assert_eq!(status.ready, 2, "{status:#?}");
                    pool.call::<_, u32>("pid", ()).await?;
                    Ok::<_, CallError>(Sibling { name: "after", events: Events::default() })
                }
            })
            .start()
            .await
            .expect("the tree starts");
        serves(&pool).await;
        assert!(pool.ended().now_or_never().is_none(), "it runs");
        let tree = app.tree().await.expect("it runs").to_string();
        for part in ["texts [supervisor] running", "serving [supervisor]", "pool [worker] running", "1 [worker] running", "2 [worker] running"] {
            assert!(tree.contains(part), "{part} is not in\n{tree}");
        }
        let by_path = app.child::<PoolActor>("texts/serving/pool").expect("it is there");
        let reply = by_path.send(Call::new("add", (2, 3)).expect("JSON")).await.expect("the broker is up").expect("the call succeeds");
        assert_eq!(reply.decode::<u32>().expect("a number"), 5);
        let ((), ()) = tokio::join!(pool.ended(), app.stop());
        let after = pool.call::<_, u32>("pid", ()).await.expect_err("the pool has ended");
        assert!(matches!(after, CallError::Unavailable { cause: UnavailableCause::Stopped }), "{after:?}");
    }
}

alone_test! {
    async fn pool_in_a_tree_stops_in_order_after_its_calls() {
        let sibling_events = Events::default();
        let (spec, pool) = pool_of(MODULE).size(1).child_spec("texts").expect("good settings");
        let app = Supervisor::builder("app")
            .child_spec(sibling("before", &sibling_events))
            .child_spec(spec)
            .child_spec(sibling("after", &sibling_events))
            .start()
            .await
            .expect("the tree starts");
        let siblings = sibling_events.clone();
        let ((), held, refused) = tokio::join!(
            async {
                wait_for_file("a.began").await;
                app.stop().await;
            },
            async {
                let pid = pool.call::<_, u32>("hold", ("a",)).await;
                siblings.lock().expect("no panic").push("call ended".into());
                pid
            },
            async {
                wait_for_file("a.began").await;
                let stopped = || sibling_events.lock().expect("no panic").contains(&"after stopped".into());
                wait_until("the later sibling has stopped", LONG_TIMEOUT, stopped).await;
                let refused = pool.call::<_, u32>("pid", ()).await;
                touch("a.go");
                refused
            },
        );
        held.expect("a call that runs may end");
        assert!(refused.is_err(), "a call during the stop is refused");
        let order = sibling_events.lock().expect("no panic").clone();
        assert_eq!(order, ["before started", "after started", "after stopped", "call ended", "before stopped"]);
    }
}

alone_test! {
    async fn pool_handle_of_a_tree_follows_restarts() {
        let (spec, pool) = pool_of(MODULE).size(2).child_spec("texts").expect("good settings");
        let app = Supervisor::builder("app").child_spec(spec).start().await.expect("the tree starts");
        let (kept, actor) = (pool.clone(), pool.actor());
        let mut former = pids(&pool).await;
        for _ in 0..2 {
            app.terminate_child("texts").await.expect("it stops");
            assert!(former.iter().all(|pid| !is_alive(*pid)), "the workers ended with the pool");
            let down = kept.call::<_, u32>("pid", ()).await.expect_err("it does not run");
            assert!(matches!(down, CallError::Unavailable { cause: UnavailableCause::Stopped }), "{down:?}");
            app.restart_child("texts").await.expect("the pool starts");
            serves(&kept).await;
            let reply = actor.send(Call::new("add", (2, 3)).expect("JSON")).await.expect("the broker is up");
            assert_eq!(reply.expect("the call succeeds").decode::<u32>().expect("a number"), 5);
            let now = pids(&pool).await;
            assert!(now.iter().all(|pid| !former.contains(pid)), "{now:?} replace {former:?}");
            former = now;
        }
        app.stop().await;
    }
}

alone_test! {
    async fn deleted_pool_in_a_tree_can_be_added_again() {
        let (spec, pool) = pool_of(MODULE).size(1).child_spec("texts").expect("good settings");
        let app = Supervisor::dynamic("app").start().await.expect("the tree starts");
        for _ in 0..2 {
            app.start_child(spec.clone()).await.expect("the pool starts");
            serves(&pool).await;
            let error = app.start_child(renamed(&spec)).await;
            assert!(error.is_err(), "{error:?}");
            serves(&pool).await;
            app.terminate_child("texts").await.expect("it stops");
            pool.ended().await;
        }
        app.stop().await;
    }
}

/// A supervisor with another name and the same specification as its child.
fn renamed(spec: &ChildSpec<SupervisorRef>) -> ChildSpec<SupervisorRef> {
    Supervisor::builder("other").child_spec(spec.clone()).into()
}

alone_test! {
    async fn pool_in_a_tree_that_cannot_start_reports_why() {
        let (spec, pool) = pool_of("raise ValueError('no model')").size(1).child_spec("texts").expect("good settings");
        let error = Supervisor::builder("app").child_spec(spec).start().await.expect_err("it cannot start");
        assert_eq!(&*error.path, "app/texts/startup");
        let cause = error.cause.downcast_ref::<PoolStartError>().expect("the pool's own error");
        assert!(cause.to_string().contains("no model"), "{cause}");
        assert!(pool.call::<_, u32>("pid", ()).await.is_err());
        let wrong = pool_of(MODULE).size(0).child_spec("texts").expect_err("no pool has no worker");
        assert_eq!(wrong.field, "size");
    }
}

alone_test! {
    async fn worker_death_reaches_subscribers_of_the_application() {
        let (spec, pool) = pool_of(MODULE).size(1).child_spec("texts").expect("good settings");
        let app = Supervisor::builder("app").child_spec(spec).start().await.expect("the tree starts");
        let mut reports = app.subscribe();
        let pid = pids(&pool).await[0];
        kill(pid);
        let ended = async {
            loop {
                let report = reports.recv().await.expect("the tree runs");
                if let ReportEvent::ChildTerminated { id, .. } = &report.event {
                    return (report.supervisor.to_string(), id.to_string());
                }
            }
        };
        let ended = tokio::time::timeout(LONG_TIMEOUT, ended).await.expect("it is reported");
        assert_eq!(ended, ("app/texts/serving/workers".into(), "1".into()));
        status_when(&pool, "the worker is replaced", |status| status.ready == 1 && status.restarts == 1).await;
        serves(&pool).await;
        app.stop().await;
    }
}

alone_test! {
    async fn pool_in_a_tree_is_restarted_with_the_sibling_it_depends_on() {
        let siblings = Events::default();
        let (spec, pool) = pool_of(MODULE).size(1).child_spec("texts").expect("good settings");
        let app = Supervisor::builder("app")
            .strategy(Strategy::RestForOne)
            .child_spec(sibling("database", &siblings))
            .child_spec(spec)
            .start()
            .await
            .expect("the tree starts");
        let (former, incarnation) = (pids(&pool).await[0], pool.actor().incarnation().expect("it runs"));
        app.child::<Sibling>("database").expect("it is there").do_send(Crash).expect("it lives");
        let restarted = || siblings.lock().expect("no panic").len() == 2;
        wait_until("the database is started again", LONG_TIMEOUT, restarted).await;
        let is_restarted = || pool.actor().incarnation().is_some_and(|now| now > incarnation);
        wait_until("the pool is started again", LONG_TIMEOUT, is_restarted).await;
        status_when(&pool, "a worker is ready", |status| status.ready == 1).await;
        serves(&pool).await;
        assert_ne!(pids(&pool).await[0], former);
        assert!(!is_alive(former));
        app.stop().await;
    }
}

alone_test! {
    async fn pool_in_a_tree_on_its_own_arbiter_ends_with_the_tree() {
        let (spec, pool) = pool_of(MODULE).size(2).child_spec("texts").expect("good settings");
        let spec = spec.on_dedicated_arbiter().restart(Restart::Transient);
        let app = Supervisor::builder("app").child_spec(spec).start().await.expect("the tree starts");
        serves(&pool).await;
        let lease = pool.checkout().await.expect("a worker is free");
        drop(app);
        let ended = || pool.actor().addr().is_none();
        wait_until("the pool has ended", LONG_TIMEOUT, ended).await;
        let error = lease.call::<_, u32>("pid", ()).await.expect_err("its worker is gone");
        assert!(matches!(error, CallError::WorkerDied { .. } | CallError::Draining), "{error:?}");
        drop(lease);
    }
}
