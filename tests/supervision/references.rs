//! References to children, and what they tell.

use actix::System;
use hatchery::supervisor::{
    Backoff, ChildRecipient, ChildRef, ChildSpec, ReportEvent, SendError, Supervisor, SupervisorRef,
};

use crate::support::*;

#[actix::test]
async fn start_child_returns_a_reference_of_the_childs_type() {
    let diary = Diary::default();
    let app = Supervisor::dynamic("app").start().await.unwrap();
    let actor: ChildRef<Puppet> = app.start_child(Puppet::spec(&diary, "a")).await.unwrap();
    assert_eq!((actor.path(), actor.send(Who).await.is_ok()), ("app/a", true));
    let nested: SupervisorRef = app.start_child(Supervisor::dynamic("inner")).await.unwrap();
    let inner = nested.start_child(Puppet::spec(&diary, "b")).await.unwrap();
    assert_eq!((nested.path(), inner.path(), nested.root().path()), ("app/inner", "app/inner/b", "app"));
    let declined = app.start_child(Puppet::scripted(&diary, "c", &[Start::Decline])).await.unwrap();
    assert_eq!((declined.path(), declined.send(Who).await.unwrap_err()), ("app/c", SendError::Down));
    stop(app, &diary).await;
}

struct Plain;

impl actix::Actor for Plain {
    type Context = actix::Context<Self>;
}

#[actix::test]
async fn unnamed_children_have_ids_of_their_own() {
    let app = Supervisor::dynamic("app").start().await.unwrap();
    let spec = || ChildSpec::unnamed(|| async { Ok::<_, std::convert::Infallible>(Plain) });
    let (one, two) = (spec(), spec());
    let ids = [one.options().id.clone(), two.options().id.clone()];
    let paths = [app.start_child(one).await.unwrap(), app.start_child(two).await.unwrap()];
    assert_ne!(ids[0], ids[1]);
    for (id, child) in ids.iter().zip(&paths) {
        assert!(id.starts_with('#') && child.path() == format!("app/{id}") && child.addr().is_some());
    }
    app.start_child(ChildSpec::from_fn("named", || Plain)).await.unwrap();
    assert_eq!(app.count_children().await.unwrap().active, 3);
    app.stop().await;
}

#[actix::test]
async fn recipient_of_a_child_follows_its_restarts() {
    let diary = Diary::default();
    let app = Supervisor::builder("app").child_spec(Puppet::spec(&diary, "a")).start().await.unwrap();
    let recipient: ChildRecipient<Who> = puppet(&app, "a").recipient();
    let former = recipient.send(Who).await.unwrap();
    let mut reports = app.subscribe();
    puppet(&app, "a").do_send(End::Panic).unwrap();
    started(&mut reports, "a").await;
    let now = recipient.clone().send(Who).await.unwrap();
    assert_eq!((former, now), (1, 2));
    stop(app, &diary).await;
    assert_eq!(recipient.do_send(Who), Err(SendError::Down));
}

#[actix::test]
async fn stop_of_a_reference_ends_its_supervisor_for_good() {
    let diary = Diary::default();
    let inner = Supervisor::builder("inner").child_spec(Puppet::spec(&diary, "b"));
    let app = Supervisor::builder("app")
        .child_spec(Puppet::spec(&diary, "a"))
        .supervisor("inner", inner)
        .start()
        .await
        .unwrap();
    let inner = app.supervisor("inner").unwrap();
    within("the stop", inner.stop()).await.unwrap();
    assert!(inner.stop().await.is_ok(), "stopped twice");
    assert!(puppet(&app, "a").send(Who).await.is_ok(), "its sibling lives");
    assert!(app.child::<Puppet>("inner/b").unwrap().addr().is_none());
    app.restart_child("inner").await.unwrap();
    assert!(app.child::<Puppet>("inner/b").unwrap().send(Who).await.is_ok());
    let root = inner.root();
    let (stopped, ()) = within("the end", async { tokio::join!(root.stop(), inner.ended()) }).await;
    stopped.unwrap();
    assert_eq!(diary.living(), 0);
    within("the end that has been", root.ended()).await;
}

/// An hour of waiting costs no time when the clock is paused.
#[test]
fn paused_clock_rules_the_waits_of_a_supervisor() {
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    System::with_tokio_rt(runtime).block_on(async {
        let diary = Diary::default();
        let backoff = Backoff { free: 0, first: HOUR, max: HOUR, jitter: 0.0, ..Backoff::default() };
        let spec = Puppet::scripted(&diary, "a", &[Start::Fail, Start::Up]).backoff(backoff);
        let begin = tokio::time::Instant::now();
        let app = Supervisor::builder("app").child_spec(spec).start().await.unwrap();
        let mut reports = app.subscribe();
        let report = reports.recv().await.unwrap();
        assert!(matches!(report.event, ReportEvent::Started { .. }), "{report}");
        assert!(begin.elapsed() >= HOUR);
        app.stop().await;
    });
}
