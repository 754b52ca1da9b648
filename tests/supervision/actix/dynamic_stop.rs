//! How the children of a dynamic supervisor end, one by one and all together.

use std::time::Instant;

use hatchery::supervisor::{ChildError, ChildSpec, ExitReason, Restart, Shutdown, Supervisor};

use crate::support::*;

async fn pool(specs: impl IntoIterator<Item = ChildSpec<Puppet>>) -> Supervisor {
    let app = Supervisor::dynamic("app").start().await.unwrap();
    for spec in specs {
        app.start_child(spec).await.unwrap();
    }
    app
}

/// Stops it, and gives what was reported meanwhile, in alphabetical order since they end together.
async fn ends_of(app: Supervisor, diary: &Diary) -> Vec<String> {
    let mut reports = app.subscribe();
    stop(app.clone(), diary).await;
    assert_eq!(app.ended().await, ExitReason::Shutdown);
    let mut lines = shutdown_reports(&mut reports).await;
    assert_eq!(lines.remove(0), "requested");
    lines.sort();
    lines
}

#[actix::test]
async fn sup_stop_timeout_dynamic() {
    let diary = Diary::default();
    let spec = |id, manners| Puppet::spec_with(&diary, id, manners).restart(Restart::Temporary);
    let app = pool([
        spec("child1", Manners::default()).shutdown(Shutdown::Timeout(PATIENCE)),
        spec("child2", Manners::stubborn()).shutdown(Shutdown::Timeout(S / 20)),
    ])
    .await;
    assert_eq!(ends_of(app, &diary).await, ["child1 stopped", "child2 error: killed"]);
}

#[actix::test]
async fn sup_stop_brutal_kill_dynamic() {
    let diary = Diary::default();
    let specs = (0..10).map(|i| Puppet::spec(&diary, &i.to_string()).shutdown(Shutdown::Brutal));
    let app = pool(specs).await;
    diary.take();
    let lines = ends_of(app, &diary).await;
    assert_eq!(lines, (0..10).map(|i| format!("{i} stopped")).collect::<Vec<_>>());
    assert_eq!(diary.take(), [""; 0], "a kill runs no hook");
}

/// They are all asked before any of them has ended, so that the stop takes as long as the slowest.
#[actix::test]
async fn simple_one_for_one_shutdown() {
    let diary = Diary::default();
    let spec = |id, cleanup, limit| {
        Puppet::spec_with(&diary, id, Manners::tidy(cleanup)).shutdown(Shutdown::Timeout(limit))
    };
    let app = pool([spec("1", S / 5, HOUR), spec("2", S / 5, HOUR), spec("3", HOUR, S)]).await;
    diary.take();
    let begin = Instant::now();
    assert_eq!(ends_of(app, &diary).await, ["1 stopped", "2 stopped", "3 error: killed"]);
    assert!(begin.elapsed() >= S);
    let mut asked = diary.take();
    asked.truncate(3);
    asked.sort();
    assert_eq!(asked, ["clean 1", "clean 2", "clean 3"]);
}

/// What a child says on its way out counts, not that it was asked.
#[actix::test]
async fn sup_stop_non_shutdown_exit_dynamic() {
    for (restart, normal) in [
        (Restart::Temporary, "normal stopped"),
        (Restart::Transient, "normal stopped"),
        (Restart::Permanent, "normal error: normal"),
    ] {
        let diary = Diary::default();
        let spec = |reason: ExitReason| {
            let manners = Manners { ends_with: Some(reason.clone()), ..Manners::default() };
            Puppet::spec_with(&diary, &reason.to_string(), manners).restart(restart)
        };
        let other = ExitReason::Abnormal("other".into());
        let app = pool([spec(ExitReason::Normal), spec(ExitReason::Shutdown), spec(other)]).await;
        assert_eq!(ends_of(app, &diary).await, [normal, "other error: other", "shutdown stopped"]);
    }
}

/// Brutal, with a limit kept, with one exceeded, and with none: each as it says, all at the same time.
#[actix::test]
async fn stop_with_mixed_shutdown_values() {
    let diary = Diary::default();
    let limit = S / 10;
    let patient = Puppet::spec_with(&diary, "patient", Manners::tidy(HOUR)).shutdown(Shutdown::Infinity);
    let app = pool([
        Puppet::spec(&diary, "brutal").shutdown(Shutdown::Brutal),
        Puppet::spec(&diary, "quick").shutdown(Shutdown::Timeout(HOUR)),
        Puppet::spec_with(&diary, "late", Manners::stubborn()).shutdown(Shutdown::Timeout(limit)),
        Puppet::spec_with(&diary, "later", Manners::stubborn()).shutdown(Shutdown::Timeout(2 * limit)),
        patient,
    ])
    .await;
    let patient = puppet(&app, "patient");
    let (mut reports, begin) = (app.subscribe(), Instant::now());
    let stopping = begin_stop(app, &diary);
    for (id, least) in [("late", limit), ("later", 2 * limit)] {
        report_where(&mut reports, |report| {
            report.to_string().starts_with(&format!("app/{id}: did not stop"))
        })
        .await;
        assert!(begin.elapsed() >= least);
    }
    assert_eq!(diary.living(), 1);
    assert!(!stopping.is_finished());
    patient.do_send(End::Stop).unwrap();
    within("the stop", stopping).await.unwrap();
    assert_eq!(shutdown_reports(&mut reports).await, ["patient stopped"]);
}

#[actix::test]
async fn terminate_child_in_all_ways() {
    let diary = Diary::default();
    let spec = |id, manners| Puppet::spec_with(&diary, id, manners);
    let app = pool([
        spec("brutal", Manners::stubborn()).shutdown(Shutdown::Brutal),
        spec("obeys", Manners::default()).shutdown(Shutdown::Timeout(HOUR)),
        spec("late", Manners::stubborn()).shutdown(Shutdown::Timeout(S / 20)),
        spec("tidy", Manners::tidy(S / 20)).shutdown(Shutdown::Infinity),
    ])
    .await;
    for (left, id) in [(3, "brutal"), (2, "obeys"), (1, "late"), (0, "tidy")] {
        within("the end", app.terminate_child(id)).await.unwrap();
        assert_eq!(diary.living(), left, "its end was awaited");
        assert!(matches!(app.terminate_child(id).await, Err(ChildError::NotFound)));
        assert_eq!(counts(&app).await, [left, left, 0, left]);
    }
    stop(app, &diary).await;
}

/// One that takes its time to end delays nobody else, and keeps its id until it has ended.
#[actix::test]
async fn a_slow_end_delays_nothing() {
    let diary = Diary::default();
    let tidy = Puppet::spec_with(&diary, "slow", Manners::tidy(HOUR)).shutdown(Shutdown::Infinity);
    let app = pool([tidy]).await;
    let weak = app.downgrade();
    let ending = actix_rt::spawn(async move { weak.terminate_child("slow").await });
    diary.wait_for("clean slow").await;
    within("a start", app.start_child(Puppet::spec(&diary, "quick"))).await.unwrap();
    within("an end", app.terminate_child("quick")).await.unwrap();
    let taken = app.start_child(Puppet::spec(&diary, "slow")).await;
    assert!(matches!(taken, Err(ChildError::AlreadyStarted { .. })));
    assert!(!ending.is_finished());
    puppet(&app, "slow").do_send(End::Stop).unwrap();
    within("the end", ending).await.unwrap().unwrap();
    within("a start", app.start_child(Puppet::spec(&diary, "slow"))).await.unwrap();
    stop(app, &diary).await;
}
