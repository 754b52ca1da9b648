//! Dynamic supervisors: OTP's `simple_one_for_one`, and Elixir's `DynamicSupervisor`.

use hatchery::supervisor::{Backoff, ChildError, Restart, SendError, Supervisor};

use crate::support::*;

async fn pool(intensity: u32) -> Supervisor {
    Supervisor::dynamic("app").intensity(intensity, HOUR).start().await.unwrap()
}

#[actix::test]
async fn simple_one_for_one() {
    let diary = Diary::default();
    let app = pool(2).await;
    let ids = ["child1", "child2"];
    for id in ids {
        app.start_child(Puppet::spec(&diary, id)).await.unwrap();
    }
    let child2 = who(&app, "child2").await;
    crash(&app, "child1").await;
    assert_eq!(who(&app, "child2").await, child2);
    assert_eq!(counts(&app).await, [2, 2, 0, 2]);
    // Restart frequency.
    crash(&app, "child2").await;
    puppet(&app, "child1").do_send(End::Panic).unwrap();
    gave_up(&app, &diary).await;
}

#[actix::test]
async fn simple_one_for_one_escalation() {
    let diary = Diary::default();
    let app = pool(4).await;
    app.start_child(Puppet::scripted(&diary, "child1", &[Start::Up, Start::Fail])).await.unwrap();
    app.start_child(Puppet::spec(&diary, "child2")).await.unwrap();
    diary.take();
    puppet(&app, "child1").do_send(End::Panic).unwrap();
    gave_up(&app, &diary).await;
    assert_eq!(diary.take(), ["fail child1", "fail child1", "fail child1", "fail child1", "stop child2"]);
}

/// A child that declines its restart is gone, and that is no failure.
#[actix::test]
async fn simple_one_for_one_restart_ignore() {
    let diary = Diary::default();
    let app = pool(1).await;
    app.start_child(Puppet::scripted(&diary, "child1", &[Start::Up, Start::Decline])).await.unwrap();
    let child1 = puppet(&app, "child1");
    let mut reports = app.subscribe();
    child1.do_send(End::Panic).unwrap();
    terminated(&mut reports, "child1").await;
    next_report(&mut reports).await;
    assert_eq!(counts(&app).await, [0; 4]);
    assert!(is_up(&app).await);
    assert_eq!(child1.do_send(End::Stop), Err(SendError::Down));
    stop(app, &diary).await;
}

/// Each start gives something else, as does each restart.
#[actix::test]
async fn a_child_is_restarted_with_different_values() {
    let (diary, mut gate) = (Diary::default(), Gate::open());
    let app = pool(100_000).await;
    app.start_child(Puppet::spec(&diary, "up")).await.unwrap();
    crash(&app, "up").await;
    app.start_child(Puppet::scripted(&diary, "declines", &[Start::Up, Start::Decline])).await.unwrap();
    let mut reports = app.subscribe();
    puppet(&app, "declines").do_send(End::Panic).unwrap();
    terminated(&mut reports, "declines").await;
    next_report(&mut reports).await;
    assert_eq!(counts(&app).await, [1, 1, 0, 1]);
    app.start_child(gate.spec(&diary, "fails")).await.unwrap();
    gate.set_open(false);
    puppet(&app, "fails").do_send(End::shutdown()).unwrap();
    gate.next("fails").await.fail();
    let _hanging = gate.next("fails").await;
    assert_eq!(counts(&app).await, [2, 1, 0, 2]);
    stop(app, &diary).await;
}

/// A supervisor of one kind of children: what is left of each that ended so?
async fn left_after(restart: Restart, ends: &[End]) -> Vec<usize> {
    let diary = Diary::default();
    let app = pool(100_000).await;
    let mut left = Vec::new();
    for (number, how) in ends.iter().enumerate() {
        let id = number.to_string();
        app.start_child(Puppet::spec(&diary, &id).restart(restart)).await.unwrap();
        end(&app, &id, how.clone()).await;
        left.push(counts(&app).await[0]);
    }
    stop(app, &diary).await;
    left
}

#[actix::test]
async fn restart_types_of_dynamic_children() {
    let ends = [End::Stop, End::shutdown(), End::abnormal(), End::Panic];
    assert_eq!(left_after(Restart::Temporary, &ends).await, [0, 0, 0, 0]);
    assert_eq!(left_after(Restart::Transient, &ends).await, [0, 0, 1, 2]);
    assert_eq!(left_after(Restart::Permanent, &ends).await, [1, 2, 3, 4]);
}

#[actix::test]
async fn max_children_zero_refuses() {
    let diary = Diary::default();
    let app = Supervisor::dynamic("app").max_children(0).start().await.unwrap();
    let error = app.start_child(Puppet::spec(&diary, "a")).await.unwrap_err();
    assert!(matches!(error, ChildError::MaxChildren { max: 0 }));
    assert_eq!(diary.take(), [""; 0]);
    stop(app, &diary).await;
}

#[actix::test]
async fn max_children() {
    let diary = Diary::default();
    let app = Supervisor::dynamic("app").max_children(2).start().await.unwrap();
    let start = |id: &str| app.start_child(Puppet::spec(&diary, id).restart(Restart::Temporary));
    start("a").await.unwrap();
    start("b").await.unwrap();
    assert!(matches!(start("c").await, Err(ChildError::MaxChildren { max: 2 })));
    // One that is there is what the caller has to learn first.
    assert!(matches!(start("a").await, Err(ChildError::AlreadyStarted { .. })));
    app.terminate_child("a").await.unwrap();
    start("c").await.unwrap();
    end(&app, "c", End::Stop).await;
    start("d").await.unwrap();
    // Neither a failed start nor one that was declined takes a place.
    app.terminate_child("d").await.unwrap();
    assert!(app.start_child(Puppet::scripted(&diary, "e", &[Start::Fail])).await.is_err());
    assert_eq!(
        app.start_child(Puppet::scripted(&diary, "e", &[Start::Decline])).await.unwrap().incarnation(),
        None
    );
    start("e").await.unwrap();
    stop(app, &diary).await;
}

/// A start in progress, a successful restart and a failing one all take a place.
#[actix::test]
async fn restarting_children_count_in_max_children() {
    let (diary, mut gate) = (Diary::default(), Gate::closed());
    let app = Supervisor::dynamic("app").max_children(1).intensity(9, HOUR).start().await.unwrap();
    let weak = app.downgrade();
    let spec = gate.spec(&diary, "a");
    let starting = actix_rt::spawn(async move { weak.start_child(spec).await });
    let start = gate.next("a").await;
    let is_full = || async {
        let error = app.start_child(Puppet::spec(&diary, "b")).await.unwrap_err();
        assert!(matches!(error, ChildError::MaxChildren { max: 1 }));
    };
    is_full().await;
    start.pass();
    within("the start", starting).await.unwrap().unwrap();
    is_full().await;

    puppet(&app, "a").do_send(End::Panic).unwrap();
    let restart = gate.next("a").await;
    is_full().await;
    restart.fail();
    let retry = gate.next("a").await;
    is_full().await;
    let mut reports = app.subscribe();
    retry.pass();
    started(&mut reports, "a").await;
    is_full().await;
    app.terminate_child("a").await.unwrap();

    // Between two attempts, too; a back-off makes that last.
    let backoff = Backoff { free: 0, first: HOUR, max: HOUR, ..Backoff::default() };
    app.start_child(Puppet::spec(&diary, "c").backoff(backoff)).await.unwrap();
    end(&app, "c", End::Panic).await;
    assert_eq!(listed(&app).await, ["c restarting"]);
    assert_eq!(diary.living(), 0);
    is_full().await;
    app.terminate_child("c").await.unwrap();
    app.start_child(Puppet::spec(&diary, "b")).await.unwrap();
    stop(app, &diary).await;
}

#[actix::test]
async fn a_failing_restart_is_retried_and_counts() {
    let diary = Diary::default();
    let app = pool(3).await;
    let starts = [Start::Up, Start::Fail, Start::Fail, Start::Up];
    app.start_child(Puppet::scripted(&diary, "a", &starts)).await.unwrap();
    crash(&app, "a").await;
    assert_eq!(counts(&app).await, [1, 1, 0, 1]);
    assert_eq!(diary.take(), ["start a", "fail a", "fail a", "start a"]);
    puppet(&app, "a").do_send(End::Panic).unwrap();
    gave_up(&app, &diary).await;
}

#[actix::test]
async fn max_restarts_exhausted_by_failing_restarts() {
    for max in [1, 10] {
        let diary = Diary::default();
        let app = pool(max).await;
        app.start_child(Puppet::scripted(&diary, "a", &[Start::Up, Start::Fail])).await.unwrap();
        diary.take();
        puppet(&app, "a").do_send(End::shutdown()).unwrap();
        gave_up(&app, &diary).await;
        let lines = diary.take();
        assert_eq!(lines.iter().filter(|line| *line == "fail a").count(), max as usize);
    }
}

#[actix::test]
async fn terminate_while_restarting() {
    let (diary, mut gate) = (Diary::default(), Gate::open());
    let app = pool(100_000).await;
    app.start_child(gate.spec(&diary, "a")).await.unwrap();
    gate.set_open(false);
    puppet(&app, "a").do_send(End::Panic).unwrap();
    gate.next("a").await.fail();
    let hanging = gate.next("a").await;
    app.terminate_child("a").await.unwrap();
    assert!(matches!(app.terminate_child("a").await, Err(ChildError::NotFound)));
    assert_eq!(counts(&app).await, [0; 4]);
    hanging.cancelled().await;

    // The same without a pause between the attempts: whatever the child is doing just then.
    app.start_child(Puppet::scripted(&diary, "b", &[Start::Up, Start::Fail])).await.unwrap();
    puppet(&app, "b").do_send(End::Panic).unwrap();
    diary.wait_for("fail b").await;
    app.terminate_child("b").await.unwrap();
    assert!(matches!(app.terminate_child("b").await, Err(ChildError::NotFound)));
    assert_eq!(counts(&app).await, [0; 4]);
    stop(app, &diary).await;
}
