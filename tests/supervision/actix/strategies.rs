//! Who shares the fate of a dead child, and how often that may happen.

use hatchery::supervisor::{ReportEvent, Restart, ShutdownCause, Strategy, Supervisor};

use crate::support::*;

#[actix::test]
async fn one_for_one() {
    let diary = Diary::default();
    let app = group(&diary, Strategy::OneForOne, 2, &["child1", "child2"]).start().await.unwrap();
    let before = incarnations(&app).await;
    diary.take();
    let child1 = crash(&app, "child1").await;
    assert_eq!(incarnations(&app).await, [Some(child1), before[1]]);
    assert_eq!(counts(&app).await, [2, 2, 0, 2]);
    assert_eq!(diary.take(), ["start child1"]);
    // Restart frequency.
    crash(&app, "child2").await;
    puppet(&app, "child2").do_send(End::Panic).unwrap();
    gave_up(&app, &diary).await;
    assert_eq!(diary.take(), ["start child2", "stop child1"]);
}

#[actix::test]
async fn one_for_one_escalation() {
    let diary = Diary::default();
    let app = group(&diary, Strategy::OneForOne, 4, &[]).start().await.unwrap();
    app.start_child(Puppet::scripted(&diary, "child1", &[Start::Up, Start::Fail])).await.unwrap();
    app.start_child(Puppet::spec(&diary, "child2")).await.unwrap();
    diary.take();
    puppet(&app, "child1").do_send(End::Panic).unwrap();
    gave_up(&app, &diary).await;
    // One for the crash, three for failed starts; the fourth failed start is one too many.
    assert_eq!(diary.take(), ["fail child1", "fail child1", "fail child1", "fail child1", "stop child2"]);
}

#[actix::test]
async fn one_for_all() {
    let diary = Diary::default();
    let app = group(&diary, Strategy::OneForAll, 2, &["child1", "child2", "child3"]).start().await.unwrap();
    let before = incarnations(&app).await;
    diary.take();
    crash_until(&app, "child2", "child3").await;
    let after = incarnations(&app).await;
    assert!(after.iter().zip(&before).all(|(after, before)| after > before), "no old child is alive");
    assert_eq!(counts(&app).await, [3, 3, 0, 3]);
    assert_eq!(diary.take(), ["stop child3", "stop child1", "start child1", "start child2", "start child3"]);
    // Restart frequency.
    crash_until(&app, "child3", "child3").await;
    puppet(&app, "child1").do_send(End::Panic).unwrap();
    gave_up(&app, &diary).await;
}

#[actix::test]
async fn one_for_all_escalation() {
    let diary = Diary::default();
    let app = group(&diary, Strategy::OneForAll, 4, &["child1"]).start().await.unwrap();
    app.start_child(Puppet::scripted(&diary, "child2", &[Start::Up, Start::Fail])).await.unwrap();
    diary.take();
    puppet(&app, "child1").do_send(End::Panic).unwrap();
    gave_up(&app, &diary).await;
    // Each retry also restarts the sibling that had just come up.
    let mut expected = vec!["stop child2"];
    for _ in 0..4 {
        expected.extend(["start child1", "fail child2", "stop child1"]);
    }
    assert_eq!(diary.take(), expected);
}

/// A supervisor of two children whose starts wait for the verdict, brought up.
async fn gated(diary: &Diary, gate: &mut Gate, strategy: Strategy) -> Supervisor {
    let starting = actix_rt::spawn(
        group(diary, strategy, 3, &[])
            .child_spec(gate.spec(diary, "child1"))
            .child_spec(gate.spec(diary, "child2"))
            .start(),
    );
    gate.next("child1").await.pass();
    gate.next("child2").await.pass();
    within("the start", starting).await.unwrap().unwrap()
}

#[actix::test]
async fn one_for_all_other_child_fails_restart() {
    let (diary, mut gate) = (Diary::default(), Gate::closed());
    let app = gated(&diary, &mut gate, Strategy::OneForAll).await;
    puppet(&app, "child1").do_send(End::Panic).unwrap();
    // child1 restarts, child2 does not.
    gate.next("child1").await.pass();
    let child2 = gate.next("child2").await;
    assert_eq!(listed(&app).await, ["child1 running", "child2 restarting"]);
    diary.take();
    child2.fail();
    // child1 is stopped, and all is tried again.
    let child1 = gate.next("child1").await;
    assert_eq!(diary.take(), ["fail child2", "stop child1"]);
    child1.pass();
    let mut reports = app.subscribe();
    gate.next("child2").await.pass();
    started(&mut reports, "child2").await;
    assert_eq!(listed(&app).await, ["child1 running", "child2 running"]);
    stop(app, &diary).await;
}

#[actix::test]
async fn rest_for_one() {
    let diary = Diary::default();
    let app = group(&diary, Strategy::RestForOne, 2, &["child1", "child2", "child3"]).start().await.unwrap();
    let before = incarnations(&app).await;
    assert_eq!(counts(&app).await, [3, 3, 0, 3]);
    diary.take();
    crash_until(&app, "child2", "child3").await;
    let after = incarnations(&app).await;
    assert_eq!(after[0], before[0]);
    assert!(after[1] > before[1] && after[2] > before[2]);
    assert_eq!(counts(&app).await, [3, 3, 0, 3]);
    assert_eq!(diary.take(), ["stop child3", "start child2", "start child3"]);
    // Restart frequency.
    crash(&app, "child3").await;
    puppet(&app, "child2").do_send(End::Panic).unwrap();
    gave_up(&app, &diary).await;
}

#[actix::test]
async fn rest_for_one_escalation() {
    let diary = Diary::default();
    let app = group(&diary, Strategy::RestForOne, 4, &["child1"]).start().await.unwrap();
    app.start_child(Puppet::scripted(&diary, "child2", &[Start::Up, Start::Fail])).await.unwrap();
    diary.take();
    puppet(&app, "child1").do_send(End::Panic).unwrap();
    gave_up(&app, &diary).await;
    // The one before it has come up and is kept by the retries.
    let mut expected = vec!["stop child2", "start child1"];
    expected.extend(["fail child2"; 4]);
    expected.push("stop child1");
    assert_eq!(diary.take(), expected);
}

#[actix::test]
async fn rest_for_one_other_child_fails_restart() {
    let (diary, mut gate) = (Diary::default(), Gate::closed());
    let app = gated(&diary, &mut gate, Strategy::RestForOne).await;
    puppet(&app, "child1").do_send(End::Panic).unwrap();
    gate.next("child1").await.pass();
    gate.next("child2").await.fail();
    // It goes on from child2: child1, which has come up, is not touched.
    let child2 = gate.next("child2").await;
    let before = who(&app, "child1").await;
    let mut reports = app.subscribe();
    child2.pass();
    started(&mut reports, "child2").await;
    assert_eq!(listed(&app).await, ["child1 running", "child2 running"]);
    assert_eq!(who(&app, "child1").await, before);
    stop(app, &diary).await;
}

/// Later ones are not running while an earlier one is tried again.
#[actix::test]
async fn rest_for_one_holds_the_later_ones_back() {
    let (diary, mut gate) = (Diary::default(), Gate::open());
    let app = group(&diary, Strategy::RestForOne, 9, &["child1"]).start().await.unwrap();
    app.start_child(gate.spec(&diary, "child2")).await.unwrap();
    app.start_child(Puppet::spec(&diary, "child3")).await.unwrap();
    gate.set_open(false);
    puppet(&app, "child1").do_send(End::Panic).unwrap();
    for _ in 0..3 {
        let child2 = gate.next("child2").await;
        assert_eq!(listed(&app).await, ["child1 running", "child2 restarting", "child3 down"]);
        child2.fail();
    }
    let child2 = gate.next("child2").await;
    let mut reports = app.subscribe();
    child2.pass();
    started(&mut reports, "child3").await;
    assert_eq!(counts(&app).await, [3, 3, 0, 3]);
    stop(app, &diary).await;
}

#[actix::test]
async fn order_of_children() {
    let ids = ["ch7", "ch3", "ch10", "ch2", "ch5"];
    let diary = Diary::default();
    let app = group(&diary, Strategy::RestForOne, 2, &ids).start().await.unwrap();
    assert_eq!(diary.take(), ["start ch7", "start ch3", "start ch10", "start ch2", "start ch5"]);
    crash_until(&app, "ch10", "ch5").await;
    assert_eq!(diary.take(), ["stop ch5", "stop ch2", "start ch10", "start ch2", "start ch5"]);
    let order: Vec<String> = ids.iter().map(|id| format!("{id} running")).collect();
    assert_eq!(listed(&app).await, order);
    stop(app, &diary).await;
    assert_eq!(diary.take(), ["stop ch5", "stop ch2", "stop ch10", "stop ch3", "stop ch7"]);
}

/// OTP's case has a period of 1 s and pauses of 2.1 s. Any period will do, as long as the pauses are longer: they
/// begin when the restart is seen, after it was counted, and can only become longer.
#[actix::test]
async fn multiple_restarts() {
    let (diary, period) = (Diary::default(), S / 20);
    let app = Supervisor::builder("app")
        .intensity(1, period)
        .child_spec(Puppet::spec(&diary, "child1").shutdown(hatchery::supervisor::Shutdown::Brutal))
        .start()
        .await
        .unwrap();
    crash(&app, "child1").await;
    for _ in 0..3 {
        actix_rt::time::sleep(period + S / 100).await;
        crash(&app, "child1").await;
    }
    assert!(is_up(&app).await);
    app.terminate_child("child1").await.unwrap();
    app.delete_child("child1").await.unwrap();
    stop(app, &diary).await;
}

#[actix::test]
async fn intensity_zero_allows_nothing() {
    let diary = Diary::default();
    let app = group(&diary, Strategy::OneForOne, 0, &["a", "b"]).start().await.unwrap();
    let mut reports = app.subscribe();
    puppet(&app, "a").do_send(End::Panic).unwrap();
    gave_up(&app, &diary).await;
    let report =
        report_where(&mut reports, |report| matches!(report.event, ReportEvent::Shutdown { .. })).await;
    let ReportEvent::Shutdown { cause } = report.event else { unreachable!() };
    assert_eq!(cause, ShutdownCause::IntensityExceeded { id: "a".into() });
}

/// The defaults are OTP's: 1 in 5 s.
#[actix::test]
async fn intensity_by_default() {
    let diary = Diary::default();
    let app = Supervisor::builder("app").child_spec(Puppet::spec(&diary, "a")).start().await.unwrap();
    crash(&app, "a").await;
    puppet(&app, "a").do_send(End::Panic).unwrap();
    gave_up(&app, &diary).await;
}

#[actix::test]
async fn only_restarts_count() {
    let diary = Diary::default();
    let app = group(&diary, Strategy::OneForAll, 1, &["a", "b"]).start().await.unwrap();
    for _ in 0..5 {
        app.terminate_child("a").await.unwrap();
        app.restart_child("a").await.unwrap();
        app.start_child(Puppet::spec(&diary, "c").restart(Restart::Temporary)).await.unwrap();
        end(&app, "c", End::Panic).await;
    }
    let failing = Puppet::scripted(&diary, "d", &[Start::Fail]);
    assert!(app.start_child(failing).await.is_err());
    // A group counts once.
    crash_until(&app, "a", "b").await;
    assert!(is_up(&app).await);
    puppet(&app, "a").do_send(End::Panic).unwrap();
    gave_up(&app, &diary).await;
}

#[actix::test]
async fn failed_restarts_are_retried_and_counted() {
    let diary = Diary::default();
    let starts = [Start::Up, Start::Fail, Start::Fail, Start::Up, Start::Fail];
    let app = group(&diary, Strategy::OneForOne, 3, &[])
        .child_spec(Puppet::scripted(&diary, "a", &starts))
        .start()
        .await
        .unwrap();
    crash(&app, "a").await;
    assert_eq!(diary.take(), ["start a", "fail a", "fail a", "start a"]);
    puppet(&app, "a").do_send(End::Panic).unwrap();
    gave_up(&app, &diary).await;
    assert_eq!(diary.take(), [""; 0], "the crash was the fourth");
}
