//! Children added and removed while the supervisor runs.

use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use hatchery::supervisor::{
    Backoff, ChildError, ChildSpec, ChildState, LookupError, ReportEvent, Restart, SendError, Supervisor,
    SupervisorRef,
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
async fn dynamic_children_come_and_go() {
    let diary = Diary::default();
    let (app, pool) = dynamic().await;
    let first = pool.start_child(Puppet::spec(&diary, "x")).await.unwrap().unwrap();
    let error = pool.start_child(Puppet::spec(&diary, "x")).await.unwrap_err();
    assert!(matches!(error, ChildError::AlreadyStarted { incarnation } if incarnation == first));
    let x = puppet(&app, "pool/x");
    assert_eq!(x.send(Who).await, Ok(first));
    pool.terminate_child("x").await.unwrap();
    assert_eq!(diary.living(), 0);
    assert_eq!(x.send(Who).await, Err(SendError::Down));
    assert!(matches!(pool.terminate_child("x").await, Err(ChildError::NotFound)));
    assert!(matches!(pool.restart_child("x").await, Err(ChildError::Dynamic)));
    assert!(matches!(pool.child::<Puppet>("x"), Err(LookupError::NotFound { .. })));
    assert!(pool.which_children().await.unwrap().is_empty());
    // The same id again: another child, with a higher incarnation.
    assert!(pool.start_child(Puppet::spec(&diary, "x")).await.unwrap().unwrap() > first);
    stop(app, &diary).await;
}

#[actix::test]
async fn a_slow_start_delays_nothing() {
    let diary = Diary::default();
    let (app, pool) = dynamic().await;
    let slow = actix_rt::spawn({
        let (pool, spec) = (pool.clone(), Puppet::hanging(&diary, "slow"));
        async move { pool.start_child(spec).await }
    });
    within("a start", pool.start_child(Puppet::spec(&diary, "quick"))).await.unwrap();
    let children = within("the list", pool.which_children()).await.unwrap();
    let mut states: Vec<_> = children.iter().map(|child| (&*child.options.id, child.state)).collect();
    states.sort_by_key(|&(id, _)| id);
    assert_eq!(states, [("quick", ChildState::Running), ("slow", ChildState::Starting)]);
    // Terminating it drops the factory's future.
    within("the end", pool.terminate_child("slow")).await.unwrap();
    assert_eq!(diary.living(), 1);
    assert!(matches!(within("an answer", slow).await.unwrap(), Err(ChildError::Cancelled)));
    stop(app, &diary).await;
}

#[actix::test]
async fn a_failed_first_start_is_discarded_without_a_backoff() {
    let diary = Diary::default();
    let (app, pool) = dynamic().await;
    let failures = Arc::new(AtomicUsize::new(1));
    let error = pool.start_child(Puppet::failing(&diary, "x", &failures)).await.unwrap_err();
    assert!(matches!(error, ChildError::Start { retrying: false, .. }));
    assert!(pool.which_children().await.unwrap().is_empty());
    stop(app, &diary).await;
}

#[actix::test]
async fn a_failed_first_start_is_retried_with_a_backoff() {
    let diary = Diary::default();
    let (app, pool) = dynamic().await;
    let mut reports = pool.subscribe();
    let failures = Arc::new(AtomicUsize::new(5));
    let backoff = Backoff { first: Duration::from_millis(1), ..Backoff::default() };
    let spec = Puppet::failing(&diary, "x", &failures).backoff(backoff);
    let error = pool.start_child(spec.clone()).await.unwrap_err();
    assert!(matches!(error, ChildError::Start { retrying: true, .. }));
    let x = puppet(&pool, "x");
    assert!(matches!(x.do_send(End::Stop), Err(SendError::Restarting)));
    started(&mut reports, "x").await;
    assert!(x.send(Who).await.is_ok());
    stop(app, &diary).await;
}

#[actix::test]
async fn static_child_administration() {
    let diary = Diary::default();
    let app = Supervisor::builder("app").child_spec(Puppet::spec(&diary, "a")).start().await.unwrap();
    let again = Puppet::spec(&diary, "a");
    assert!(matches!(app.start_child(again.clone()).await, Err(ChildError::AlreadyStarted { .. })));
    assert!(matches!(app.terminate_child("z").await, Err(ChildError::NotFound)));
    app.terminate_child("a").await.unwrap();
    app.terminate_child("a").await.unwrap();
    assert_eq!(puppet(&app, "a").do_send(End::Stop), Err(SendError::Down));
    assert!(matches!(app.start_child(again.clone()).await, Err(ChildError::AlreadyPresent)));
    app.restart_child("a").await.unwrap();
    assert!(who(&app, "a").await > 1);
    assert!(matches!(app.restart_child("a").await, Err(ChildError::Running)));
    assert!(matches!(app.delete_child("a").await, Err(ChildError::Running)));
    app.terminate_child("a").await.unwrap();
    app.delete_child("a").await.unwrap();
    assert!(app.which_children().await.unwrap().is_empty());
    assert!(app.start_child(again).await.is_ok());
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
