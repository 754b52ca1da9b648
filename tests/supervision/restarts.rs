//! Who is restarted when a child ends.

use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use hatchery::supervisor::{
    Backoff, ChildState, ExitReason, ReportEvent, Restart, ShutdownCause, Strategy, Supervisor,
};

use crate::support::*;

const S: Duration = Duration::from_secs(1);

#[actix::test]
async fn one_for_one_restarts_the_dead_child_only() {
    let diary = Diary::default();
    let app = Supervisor::builder("app")
        .intensity(2, 60 * S)
        .child_spec(Puppet::spec(&diary, "a"))
        .child_spec(Puppet::spec(&diary, "b"))
        .start()
        .await
        .unwrap();
    assert_eq!(diary.take(), ["start a", "start b"]);
    let (a, b) = (who(&app, "a").await, who(&app, "b").await);
    assert!(crash(&app, "a").await > a);
    assert_eq!(who(&app, "b").await, b);
    assert_eq!(diary.take(), ["start a"]);
    stop(app, &diary).await;
    assert_eq!(diary.take(), ["stop b", "stop a"]);
}

#[actix::test]
async fn rest_for_one_restarts_the_later_ones() {
    let diary = Diary::default();
    let mut app = Supervisor::builder("app").strategy(Strategy::RestForOne);
    for name in ["a", "b", "c", "d"] {
        app = app.child_spec(Puppet::spec(&diary, name));
    }
    let app = app.start().await.unwrap();
    let a = who(&app, "a").await;
    diary.take();
    let mut reports = app.subscribe();
    crash(&app, "b").await;
    started(&mut reports, "d").await;
    assert_eq!(diary.take(), ["stop d", "stop c", "start b", "start c", "start d"]);
    assert_eq!(who(&app, "a").await, a);
    stop(app, &diary).await;
}

#[actix::test]
async fn one_for_all_restarts_all() {
    let diary = Diary::default();
    let mut app = Supervisor::builder("app").strategy(Strategy::OneForAll);
    for name in ["a", "b", "c"] {
        app = app.child_spec(Puppet::spec(&diary, name));
    }
    let app = app.start().await.unwrap();
    diary.take();
    let mut reports = app.subscribe();
    crash(&app, "b").await;
    started(&mut reports, "c").await;
    assert_eq!(diary.take(), ["stop c", "stop a", "start a", "start b", "start c"]);
    stop(app, &diary).await;
}

#[actix::test]
async fn restart_types() {
    for (restart, end, restarted, kept) in [
        (Restart::Permanent, End::Stop, true, true),
        (Restart::Permanent, End::Panic, true, true),
        (Restart::Transient, End::Stop, false, true),
        (Restart::Transient, End::Exit(ExitReason::Shutdown), false, true),
        (Restart::Transient, End::Exit(ExitReason::Abnormal("signal 9".into())), true, true),
        (Restart::Transient, End::Panic, true, true),
        (Restart::Temporary, End::Stop, false, false),
        (Restart::Temporary, End::Panic, false, false),
    ] {
        let diary = Diary::default();
        let app = Supervisor::builder("app")
            .child_spec(Puppet::spec(&diary, "a").restart(restart))
            .start()
            .await
            .unwrap();
        let mut reports = app.subscribe();
        let a = puppet(&app, "a");
        a.do_send(end).unwrap();
        terminated(&mut reports, "a").await;
        if restarted {
            started(&mut reports, "a").await;
        }
        let children = app.which_children().await.unwrap();
        assert_eq!(children.len(), usize::from(kept), "{restart:?}");
        if kept {
            let state = if restarted { ChildState::Running } else { ChildState::Down };
            assert_eq!(children[0].state, state, "{restart:?}");
        }
        assert_eq!(a.addr().is_some(), restarted);
        stop(app, &diary).await;
    }
}

#[actix::test]
async fn too_many_restarts_end_the_supervisor_and_escalate() {
    let diary = Diary::default();
    let nested = Supervisor::builder("nested")
        .intensity(1, 60 * S)
        .child_spec(Puppet::spec(&diary, "a"))
        .child_spec(Puppet::spec(&diary, "b"));
    let app =
        Supervisor::builder("app").intensity(1, 60 * S).supervisor("nested", nested).start().await.unwrap();
    let a = puppet(&app, "nested/a");
    let nested = app.supervisor("nested").unwrap();
    let first = a.incarnation().unwrap();
    let mut reports = app.subscribe();
    crash(&nested, "a").await;
    // The second death exceeds the intensity of `nested`, which the root starts anew.
    a.do_send(End::Panic).unwrap();
    let report =
        report_where(&mut reports, |report| matches!(report.event, ReportEvent::Shutdown { .. })).await;
    assert_eq!(&*report.supervisor, "app/nested");
    assert!(matches!(report.event, ReportEvent::Shutdown { cause: ShutdownCause::IntensityExceeded { .. } }));
    assert_eq!(terminated(&mut reports, "nested").await, ExitReason::Shutdown);
    started(&mut reports, "nested").await;
    // The reference follows, and incarnations rise over the restart of the supervisor.
    assert!(within("an answer", a.send(Who)).await.unwrap() > first + 1);
    // Once more, and the root ends as well.
    crash(&nested, "a").await;
    a.do_send(End::Panic).unwrap();
    assert_eq!(within("the end", app.ended()).await, ExitReason::Shutdown);
    assert_eq!(diary.living(), 0);
    assert!(a.addr().is_none());
}

#[actix::test]
async fn a_backoff_does_not_count_and_waits() {
    let diary = Diary::default();
    let failures = Arc::new(AtomicUsize::new(0));
    let backoff = Backoff { free: 2, first: Duration::from_millis(20), jitter: 0.0, ..Backoff::default() };
    let app = Supervisor::builder("app")
        .intensity(0, S)
        .child_spec(Puppet::failing(&diary, "a", &failures).backoff(backoff))
        .start()
        .await
        .unwrap();
    let mut reports = app.subscribe();
    failures.store(4, std::sync::atomic::Ordering::SeqCst);
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
async fn failed_restarts_are_retried_and_counted() {
    let diary = Diary::default();
    let failures = Arc::new(AtomicUsize::new(0));
    let app = Supervisor::builder("app")
        .intensity(3, 60 * S)
        .child_spec(Puppet::failing(&diary, "a", &failures))
        .start()
        .await
        .unwrap();
    failures.store(2, std::sync::atomic::Ordering::SeqCst);
    crash(&app, "a").await;
    assert_eq!(diary.take(), ["start a", "fail a", "fail a", "start a"]);
    failures.store(usize::MAX, std::sync::atomic::Ordering::SeqCst);
    puppet(&app, "a").do_send(End::Panic).unwrap();
    assert_eq!(within("the end", app.ended()).await, ExitReason::Shutdown);
}
