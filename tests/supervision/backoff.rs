//! Children that wait between restarts.

use hatchery::supervisor::{Backoff, ChildError, ExitReason, ReportEvent, SendError, Supervisor};

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
