//! Children, their siblings, and references to them.

use std::time::Duration;

use hatchery::supervisor::{
    ChildError, ChildSpec, LookupError, ReportEvent, Restart, SendError, Supervisor, SupervisorRef,
};

use crate::support::*;

async fn dynamic() -> (Supervisor, SupervisorRef) {
    let app = Supervisor::builder("app")
        .supervisor("pool", Supervisor::dynamic("pool").intensity(1, Duration::from_secs(60)))
        .start()
        .await
        .unwrap();
    let pool = app.supervisor("pool").unwrap();
    (app, pool)
}

#[actix::test]
async fn a_slow_start_delays_nothing() {
    let diary = Diary::default();
    let (app, pool) = dynamic().await;
    let slow = actix_rt::spawn({
        let (pool, spec) = (pool.clone(), Gate::closed().spec(&diary, "slow"));
        async move { pool.start_child(spec).await }
    });
    within("a start", pool.start_child(Puppet::spec(&diary, "quick"))).await.unwrap();
    let mut states = listed(&pool).await;
    states.sort();
    assert_eq!(states, ["quick running", "slow starting"]);
    // Terminating it drops the factory's future.
    within("the end", pool.terminate_child("slow")).await.unwrap();
    assert_eq!(diary.living(), 1);
    assert!(matches!(within("an answer", slow).await.unwrap(), Err(ChildError::Cancelled)));
    stop(app, &diary).await;
}

#[actix::test]
async fn children_reach_their_siblings() {
    let diary = Diary::default();
    let spec = ChildSpec::with_context("boss", {
        let diary = diary.clone();
        move |cx| {
            let diary = diary.clone();
            async move {
                let workers = cx.parent().supervisor("workers")?;
                workers.start_child(Puppet::spec(&diary, "1")).await?;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Puppet::new(&diary, cx, Manners::default()))
            }
        }
    });
    let app = Supervisor::builder("app")
        .supervisor("workers", Supervisor::dynamic("workers"))
        .child_spec(spec)
        .start()
        .await
        .unwrap();
    assert!(who(&app, "workers/1").await > 0);
    assert!(matches!(app.child::<Puppet>("workers"), Err(LookupError::WrongKind { .. })));
    stop(app, &diary).await;
}

#[actix::test]
async fn one_end_for_each_start() {
    let diary = Diary::default();
    let (app, pool) = dynamic().await;
    let mut reports = pool.subscribe();
    for i in 0..50 {
        let spec = Puppet::spec(&diary, &format!("{i}")).restart(Restart::Temporary);
        pool.start_child(spec).await.unwrap();
    }
    for i in 0..25 {
        puppet(&pool, &format!("{i}")).do_send(if i % 2 == 0 { End::Stop } else { End::Panic }).unwrap();
    }
    stop(app, &diary).await;
    let mut up = std::collections::HashSet::new();
    while let Some(report) = within("the last report", reports.recv()).await {
        match report.event {
            ReportEvent::Started { incarnation, .. } => assert!(up.insert(incarnation)),
            ReportEvent::ChildTerminated { incarnation, .. }
            | ReportEvent::Stopped { incarnation, .. }
            | ReportEvent::ShutdownError { incarnation, .. } => assert!(up.remove(&incarnation)),
            _ => {}
        }
    }
    assert!(up.is_empty(), "no end reported: {up:?}");
}

#[actix::test]
async fn calls_take_paths() {
    let diary = Diary::default();
    let cache = Supervisor::builder("cache").child_spec(Puppet::spec(&diary, "a"));
    let pools = Supervisor::builder("pools").supervisor("cache", cache);
    let app = Supervisor::builder("app").supervisor("pools", pools).start().await.unwrap();
    assert_eq!(&*app.child_options("pools/cache/a").await.unwrap().id, "a");
    app.terminate_child("pools/cache/a").await.unwrap();
    assert_eq!(app.supervisor("pools/cache").unwrap().count_children().await.unwrap().active, 0);
    assert!(app.restart_child("pools/cache/a").await.unwrap().is_some());
    assert!(matches!(app.delete_child("pools/cache/a").await, Err(ChildError::Running)));
    app.terminate_child("pools/cache/a").await.unwrap();
    app.delete_child("pools/cache/a").await.unwrap();
    let cache = app.supervisor("pools/cache").unwrap();
    assert!(cache.which_children().await.unwrap().is_empty());
    assert!(cache.start_child(Puppet::spec(&diary, "a")).await.is_ok());
    for path in ["", "/", "pools/", "nobody/a", "pools/cache/a/b", "pools/cache/z"] {
        assert!(matches!(app.terminate_child(path).await, Err(ChildError::NotFound)), "{path}");
        assert!(matches!(app.child_options(path).await, Err(ChildError::NotFound)), "{path}");
    }
    app.terminate_child("pools/cache").await.unwrap();
    assert!(matches!(app.restart_child("pools/cache/a").await, Err(ChildError::SupervisorDown)));
    stop(app, &diary).await;
}

/// The way to wait for a child that is being restarted.
#[actix::test]
async fn ready() {
    let (diary, mut gate) = (Diary::default(), Gate::open());
    let app = Supervisor::builder("app").child_spec(gate.spec(&diary, "a")).start().await.unwrap();
    let a = puppet(&app, "a");
    assert!(a.ready(Duration::ZERO).await.is_ok());
    gate.set_open(false);
    a.do_send(End::Panic).unwrap();
    let restart = gate.next("a").await;
    assert_eq!(a.ready(Duration::ZERO).await.err(), Some(SendError::Restarting));
    let waiting = actix_rt::spawn({
        let a = a.clone();
        async move { a.ready(PATIENCE).await }
    });
    restart.pass();
    assert!(within("the restart", waiting).await.unwrap().is_ok());
    stop(app.clone(), &diary).await;
    assert_eq!(a.ready(PATIENCE).await.err(), Some(SendError::Down));
}

/// Who waits for a child learns at once that it will not come.
#[actix::test]
async fn ready_ends_with_the_supervisor() {
    let (diary, mut gate) = (Diary::default(), Gate::open());
    let app = Supervisor::builder("app").child_spec(gate.spec(&diary, "a")).start().await.unwrap();
    let a = puppet(&app, "a");
    gate.set_open(false);
    a.do_send(End::Panic).unwrap();
    let _restart = gate.next("a").await;
    let (waiting, ()) = futures_util::future::join(a.ready(PATIENCE), stop(app, &diary)).await;
    assert_eq!(waiting.err(), Some(SendError::Down));
}
