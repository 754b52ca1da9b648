//! How a supervisor with declared children stops: in which order, and how those end that do not obey.

use std::time::Duration;

use hatchery::supervisor::{ChildError, ChildSpec, ExitReason, ReportEvent, Restart, Shutdown, Supervisor};

use crate::support::*;

#[actix::test]
async fn sup_stop_infinity() {
    let diary = Diary::default();
    let inner = Supervisor::builder("child1").child_spec(Puppet::spec(&diary, "inner"));
    let tidy = Puppet::spec_with(&diary, "child2", Manners::tidy(HOUR)).shutdown(Shutdown::Infinity);
    let app = Supervisor::builder("app").supervisor("child1", inner).child_spec(tidy).start().await.unwrap();
    let child2 = puppet(&app, "child2");
    diary.take();
    let mut reports = app.subscribe();
    let stopping = begin_stop(app, &diary);
    diary.wait_for("clean child2").await;
    assert!(!stopping.is_finished(), "it waits for as long as that takes");
    child2.do_send(End::Stop).unwrap();
    within("the stop", stopping).await.unwrap();
    assert_eq!(diary.take(), ["clean child2", "stop child2", "stop inner"]);
    let reports = shutdown_reports(&mut reports).await;
    assert_eq!(reports, ["requested", "child2 stopped", "requested", "inner stopped", "child1 stopped"]);
}

#[actix::test]
async fn sup_stop_timeout() {
    let diary = Diary::default();
    let app = Supervisor::builder("app").start().await.unwrap();
    for (id, manners, limit) in
        [("child1", Manners::default(), PATIENCE), ("child2", Manners::stubborn(), S / 20)]
    {
        let spec = Puppet::spec_with(&diary, id, manners).shutdown(Shutdown::Timeout(limit));
        app.start_child(spec).await.unwrap();
    }
    let mut reports = app.subscribe();
    let begin = std::time::Instant::now();
    stop(app, &diary).await;
    assert!(begin.elapsed() >= S / 20);
    let reports = shutdown_reports(&mut reports).await;
    assert_eq!(reports, ["requested", "child2 error: killed", "child1 stopped"]);
    // A kill runs no hook.
    assert_eq!(diary.take(), ["start child1", "start child2", "stop child1"]);
}

#[actix::test]
async fn sup_stop_brutal_kill() {
    let diary = Diary::default();
    let app = Supervisor::builder("app")
        .child_spec(Puppet::spec(&diary, "child1"))
        .child_spec(Puppet::spec(&diary, "child2").shutdown(Shutdown::Brutal))
        .start()
        .await
        .unwrap();
    app.terminate_child("child2").await.unwrap();
    assert_eq!(app.which_children().await.unwrap()[1].last_exit, Some(ExitReason::Killed));
    app.restart_child("child2").await.unwrap();
    diary.take();
    let mut reports = app.subscribe();
    stop(app, &diary).await;
    assert_eq!(diary.take(), ["stop child1"]);
    // As its specification says: no error.
    assert_eq!(shutdown_reports(&mut reports).await, ["requested", "child2 stopped", "child1 stopped"]);
}

#[actix::test]
async fn sup_stop_manual() {
    let diary = Diary::default();
    let app = Supervisor::builder("app")
        .child_spec(Puppet::spec(&diary, "a"))
        .child_spec(Puppet::spec(&diary, "b"))
        .start()
        .await
        .unwrap();
    diary.take();
    stop(app.clone(), &diary).await;
    assert_eq!(diary.take(), ["stop b", "stop a"]);
    stop(app.clone(), &diary).await;
    assert_eq!(app.ended().await, ExitReason::Shutdown);
    assert!(matches!(app.which_children().await, Err(ChildError::SupervisorDown)));
}

#[actix::test]
async fn sup_stop_manual_timeout() {
    let diary = Diary::default();
    let app = Supervisor::builder("app")
        .child_spec(Puppet::spec(&diary, "a"))
        .child_spec(Puppet::spec_with(&diary, "b", Manners::tidy(HOUR)).shutdown(Shutdown::Infinity))
        .start()
        .await
        .unwrap();
    assert!(actix_rt::time::timeout(S / 100, app.stop()).await.is_err());
    diary.wait_for("clean b").await;
    // The caller has gone; the supervisor still ends, in order.
    puppet(&app, "b").do_send(End::Stop).unwrap();
    gave_up(&app, &diary).await;
    assert_eq!(diary.take(), ["start a", "start b", "clean b", "stop b", "stop a"]);
}

/// Children end by themselves, for all kinds of reasons, while the supervisor waits for another one.
#[actix::test]
async fn sup_stop_race() {
    let diary = Diary::default();
    let app = Supervisor::builder("app").start().await.unwrap();
    app.start_child(Puppet::spec(&diary, "a").restart(Restart::Temporary)).await.unwrap();
    let mut expected = Vec::new();
    for restart in [Restart::Temporary, Restart::Transient, Restart::Permanent] {
        for (end, reason) in
            [(End::Stop, "normal"), (End::shutdown(), "shutdown"), (End::abnormal(), "abnormal")]
        {
            let id = format!("{restart:?} {reason}");
            app.start_child(Puppet::spec(&diary, &id).restart(restart)).await.unwrap();
            expected.push((id, end, reason));
        }
    }
    let tidy = Puppet::spec_with(&diary, "z", Manners::tidy(HOUR)).restart(Restart::Temporary);
    app.start_child(tidy.shutdown(Shutdown::Infinity)).await.unwrap();

    let mut reports = app.subscribe();
    let stopping = begin_stop(app.clone(), &diary);
    diary.wait_for("clean z").await;
    for (id, end, _) in &expected {
        puppet(&app, id).do_send(end.clone()).unwrap();
        diary.wait_for(&format!("stop {id}")).await;
    }
    puppet(&app, "z").do_send(End::Stop).unwrap();
    within("the stop", stopping).await.unwrap();
    assert_eq!(app.ended().await, ExitReason::Shutdown);

    let mut lines = vec!["requested".to_owned(), "z stopped".to_owned()];
    lines.extend(expected.iter().rev().map(|(id, _, reason)| format!("{id} ended: {reason}")));
    lines.push("a stopped".to_owned());
    assert_eq!(shutdown_reports(&mut reports).await, lines);
}

/// What a child says on its way out is reported when it was not asked for: OTP's `shutdown_error`.
#[actix::test]
async fn an_unexpected_end_during_a_shutdown_is_reported() {
    for (restart, reason, reported) in [
        (Restart::Permanent, ExitReason::Normal, "a error: normal"),
        (Restart::Transient, ExitReason::Normal, "a stopped"),
        (Restart::Temporary, ExitReason::Normal, "a stopped"),
        (Restart::Permanent, ExitReason::Shutdown, "a stopped"),
        (Restart::Temporary, ExitReason::Abnormal("other".into()), "a error: other"),
    ] {
        let diary = Diary::default();
        let manners = Manners { ends_with: Some(reason), ..Manners::default() };
        let spec = Puppet::spec_with(&diary, "a", manners).restart(restart);
        let app = Supervisor::builder("app").child_spec(spec).start().await.unwrap();
        let mut reports = app.subscribe();
        stop(app, &diary).await;
        assert_eq!(shutdown_reports(&mut reports).await, ["requested", reported]);
    }
}

/// A nested supervisor that has to be killed is reported as that, as an actor is.
#[actix::test]
async fn a_nested_supervisor_that_stops_too_late_was_killed() {
    let diary = Diary::default();
    let child = Puppet::spec_with(&diary, "a", Manners::stubborn()).shutdown(Shutdown::Infinity);
    let inner = hatchery::supervisor::ChildSpec::from(Supervisor::builder("inner").child_spec(child));
    let app = Supervisor::builder("app")
        .child_spec(inner.shutdown(Shutdown::Timeout(S / 1000)))
        .start()
        .await
        .unwrap();
    let mut reports = app.subscribe();
    stop(app, &diary).await;
    report_where(&mut reports, |report| {
        matches!(&report.event, ReportEvent::ShutdownError { id, reason: ExitReason::Killed, .. } if &**id == "inner")
    })
    .await;
}

/// Without time to obey, an obedient child still runs once between the request and the kill.
#[actix::test]
async fn timeout_zero_asks_before_it_kills() {
    let zero = Shutdown::Timeout(Duration::ZERO);
    let diary = Diary::default();
    let nested = ChildSpec::from(Supervisor::builder("nested")).shutdown(zero);
    let app = Supervisor::builder("app")
        .child_spec(Puppet::spec(&diary, "a").shutdown(zero))
        .child_spec(Puppet::spec(&diary, "b").shutdown(zero).on_dedicated_arbiter())
        .child_spec(Puppet::spec_with(&diary, "c", Manners::stubborn()).shutdown(zero))
        .child_spec(nested)
        .start()
        .await
        .unwrap();
    for id in ["a", "b", "c", "nested"] {
        let mut reports = app.subscribe();
        within("an end", app.terminate_child(id)).await.unwrap();
        let event = report_where(&mut reports, |report| &*report.supervisor == "app").await.event;
        assert_eq!(matches!(event, ReportEvent::Stopped { .. }), id != "c", "{event:?}");
        within("a start", app.restart_child(id)).await.unwrap();
    }
    let mut reports = app.subscribe();
    diary.take();
    stop(app, &diary).await;
    let lines = shutdown_reports(&mut reports).await;
    let requests = ["requested", "requested"]; // of `app` and of `nested`
    assert_eq!(lines[..2], requests);
    assert_eq!(lines[2..], ["nested stopped", "c error: killed", "b stopped", "a stopped"]);
    assert_eq!(diary.take(), ["stop b", "stop a"], "their hooks have run");
}

/// It takes longer to ask all of them than each of them has.
#[actix::test]
async fn many_children_with_little_time_end_as_asked() {
    const COUNT: usize = 2_000;
    for limit in [Duration::ZERO, Duration::from_millis(1)] {
        let diary = Diary::default();
        let app = Supervisor::dynamic("app").start().await.unwrap();
        for number in 0..COUNT {
            let spec = Puppet::spec(&diary, &number.to_string()).shutdown(Shutdown::Timeout(limit));
            app.start_child(spec).await.unwrap();
        }
        diary.take();
        let mut reports = app.subscribe();
        stop(app, &diary).await;
        let lines = shutdown_reports(&mut reports).await;
        assert_eq!(lines.iter().filter(|line| line.ends_with(" stopped")).count(), COUNT);
        assert_eq!(diary.take().len(), COUNT, "each hook has run");
    }
}
