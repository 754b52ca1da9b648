//! Children that wait between restarts.

use hatchery::supervisor::{
    Backoff, ChildError, ChildState, ExitReason, ReportEvent, SendError, Strategy, Supervisor,
};

use crate::support::*;

#[actix::test]
async fn a_backoff_does_not_count_and_waits() {
    let diary = Diary::default();
    let starts = [Start::Up, Start::Fail, Start::Fail, Start::Fail, Start::Fail, Start::Up];
    let backoff = Backoff { free: 2, within: HOUR, first: S / 50, jitter: 0.0, ..Backoff::default() };
    let app = Supervisor::builder("app")
        .intensity(0, S)
        .child_spec(Puppet::scripted(&diary, "a", &starts).backoff(backoff))
        .start()
        .await
        .unwrap();
    let mut reports = app.subscribe();
    puppet(&app, "a").do_send(End::Panic).unwrap();
    assert_eq!(terminated(&mut reports, "a").await, ExitReason::Panic("in a handler".into()));
    let mut waits = Vec::new();
    loop {
        match next_report(&mut reports).await.event {
            ReportEvent::StartFailed { retry_in, .. } => waits.push(retry_in.unwrap().as_millis()),
            ReportEvent::Started { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(waits, [0, 20, 40, 80]);
    stop(app, &diary).await;
}

#[actix::test]
async fn a_failed_first_start_is_retried_with_a_backoff() {
    let diary = Diary::default();
    let pool = Supervisor::dynamic("pool").start().await.unwrap();
    let mut reports = pool.subscribe();
    let starts = [Start::Fail, Start::Fail, Start::Fail, Start::Fail, Start::Fail, Start::Up];
    let spec = Puppet::scripted(&diary, "x", &starts);
    let backoff = Backoff { first: S / 1000, ..Backoff::default() };
    let error = pool.start_child(spec.backoff(backoff)).await.unwrap_err();
    assert!(matches!(error, ChildError::Start { retrying: true, .. }));
    let x = puppet(&pool, "x");
    assert!(matches!(x.do_send(End::Stop), Err(SendError::Restarting)));
    started(&mut reports, "x").await;
    assert!(x.send(Who).await.is_ok());
    stop(pool, &diary).await;
}

/// The server that a child needs is away: nothing else waits for it, however long that takes.
#[actix::test]
async fn boot_goes_on_while_a_first_start_fails() {
    let diary = Diary::default();
    let backoff = Backoff { free: 0, first: S / 100, jitter: 0.0, ..Backoff::default() };
    let fails = [Start::Fail, Start::Fail, Start::Fail, Start::Up];
    let inner = Supervisor::builder("inner")
        .intensity(0, S)
        .child_spec(Puppet::scripted(&diary, "client", &fails).backoff(backoff))
        .child_spec(Puppet::spec(&diary, "other"));
    let app = Supervisor::builder("app").intensity(0, S).supervisor("inner", inner).start();
    let app = within("the start", app).await.unwrap();
    let inner = app.supervisor("inner").unwrap();
    let mut reports = app.subscribe();
    let client = puppet(&app, "inner/client");
    if client.incarnation().is_none() {
        started(&mut reports, "client").await;
    }
    assert_eq!(listed(&inner).await, ["client running", "other running"]);
    assert_eq!(diary.take(), ["fail client", "start other", "fail client", "fail client", "start client"]);
    assert_eq!(app.which_children().await.unwrap()[0].restarts, 0, "inner has started once");
    stop(app, &diary).await;
}

#[actix::test]
async fn boot_fails_when_the_first_start_must_succeed() {
    let diary = Diary::default();
    let backoff = Backoff { must_start: true, ..Backoff::default() };
    let error = Supervisor::builder("app")
        .child_spec(Puppet::spec(&diary, "a"))
        .child_spec(Puppet::scripted(&diary, "b", &[Start::Fail]).backoff(backoff))
        .start()
        .await
        .unwrap_err();
    assert_eq!(&*error.path, "app/b");
    assert_eq!(diary.take(), ["start a", "fail b", "stop a"]);
}

#[actix::test]
async fn retry_in_progress_shows_as_restarting_in_the_tree() {
    let (diary, mut gate) = (Diary::default(), Gate::open());
    let app = group(&diary, Strategy::OneForOne, 9, &[]).child_spec(gate.spec(&diary, "a"));
    let app = app.start().await.unwrap();
    gate.set_open(false);
    puppet(&app, "a").do_send(End::Panic).unwrap();
    for _ in 0..2 {
        let attempt = gate.next("a").await;
        assert_eq!(app.tree().await.unwrap().children[0].state, ChildState::Restarting);
        attempt.fail();
    }
    gate.next("a").await.pass();
    wait_until("a is up", || puppet(&app, "a").incarnation().is_some()).await;
    stop(app, &diary).await;
}

/// An actor that has done its work is restarted at once, however often it dies.
#[actix::test]
async fn settled_child_is_restarted_at_once() {
    let diary = Diary::default();
    let backoff = Backoff { free: 1, first: HOUR, max: HOUR, within: HOUR, ..Backoff::default() };
    let app = Supervisor::builder("app").child_spec(Puppet::spec(&diary, "a").backoff(backoff));
    let app = app.start().await.unwrap();
    for _ in 0..5 {
        within("an answer", puppet(&app, "a").send(Settle)).await.unwrap();
        crash(&app, "a").await;
    }
    // A second one in a row waits.
    end(&app, "a", End::Panic).await;
    assert_eq!(listed(&app).await, ["a restarting"]);
    within("the stop", app.stop()).await;
}
