//! A child that takes its time to start and then fails, over and over. OTP's callers wait for the start in
//! progress; here they are answered at once.

use hatchery::supervisor::{ChildError, SendError, Shutdown, Strategy, Supervisor};

use crate::support::*;

/// Brings a child's restart to hang, after one that failed.
async fn hang(app: &Supervisor, gate: &mut Gate, child: &str) -> Verdict {
    gate.set_open(false);
    puppet(app, child).do_send(End::Panic).unwrap();
    gate.next(child).await.fail();
    gate.next(child).await
}

/// A stop need not wait for the restart that hangs.
async fn can_be_stopped(app: Supervisor, diary: &Diary, gate: &mut Gate, child: &str) {
    let hanging = hang(&app, gate, child).await;
    stop(app, diary).await;
    hanging.cancelled().await;
}

#[actix::test]
async fn hanging_restart_loop() {
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        let (diary, mut gate) = (Diary::default(), Gate::open());
        let app = group(&diary, strategy, 8, &[]).start().await.unwrap();
        let spec = gate.spec(&diary, "child1").shutdown(Shutdown::Brutal);
        app.start_child(spec.clone()).await.unwrap();
        let child1 = puppet(&app, "child1");

        let hanging = hang(&app, &mut gate, "child1").await;
        for _ in 0..2 {
            assert!(matches!(app.start_child(spec.clone()).await, Err(ChildError::AlreadyPresent)));
            assert!(matches!(app.restart_child("child1").await, Err(ChildError::Restarting)));
            assert!(matches!(app.delete_child("child1").await, Err(ChildError::Restarting)));
            assert_eq!(counts(&app).await, [1, 0, 0, 1]);
            assert_eq!(child1.do_send(End::Stop), Err(SendError::Restarting));
        }
        app.terminate_child("child1").await.unwrap();
        hanging.cancelled().await;
        assert_eq!(listed(&app).await, ["child1 down"]);
        assert_eq!(child1.do_send(End::Stop), Err(SendError::Down));

        gate.set_open(true);
        app.restart_child("child1").await.unwrap();
        can_be_stopped(app, &diary, &mut gate, "child1").await;
    }
}

#[actix::test]
async fn hanging_restart_loop_rest_for_one() {
    let (diary, mut gate) = (Diary::default(), Gate::open());
    let app = group(&diary, Strategy::RestForOne, 8, &["child1"]).start().await.unwrap();
    let spec = gate.spec(&diary, "child2").shutdown(Shutdown::Brutal);
    app.start_child(spec.clone()).await.unwrap();
    app.start_child(Puppet::spec(&diary, "child3")).await.unwrap();
    let (child1, child3) = (who(&app, "child1").await, puppet(&app, "child3"));

    let hanging = hang(&app, &mut gate, "child2").await;
    assert!(matches!(app.start_child(spec).await, Err(ChildError::AlreadyPresent)));
    assert!(matches!(app.restart_child("child2").await, Err(ChildError::Restarting)));
    assert!(matches!(app.delete_child("child2").await, Err(ChildError::Restarting)));
    assert_eq!(listed(&app).await, ["child1 running", "child2 restarting", "child3 down"]);
    assert_eq!(counts(&app).await, [3, 1, 0, 3]);
    assert_eq!(child3.do_send(End::Stop), Err(SendError::Restarting));

    app.terminate_child("child2").await.unwrap();
    hanging.cancelled().await;
    // With the retry goes what waited for it.
    assert_eq!(listed(&app).await, ["child1 running", "child2 down", "child3 down"]);
    assert_eq!(child3.do_send(End::Stop), Err(SendError::Down));

    gate.set_open(true);
    app.restart_child("child2").await.unwrap();
    assert_eq!(counts(&app).await, [3, 2, 0, 3]);
    assert_eq!(who(&app, "child1").await, child1);
    can_be_stopped(app, &diary, &mut gate, "child2").await;
}

/// The one whose end began it is left down as well, and each can be started by hand.
#[actix::test]
async fn a_cancelled_restart_leaves_the_group_down() {
    let (diary, mut gate) = (Diary::default(), Gate::open());
    let app = group(&diary, Strategy::OneForAll, 8, &[])
        .child_spec(gate.spec(&diary, "child1"))
        .child_spec(Puppet::spec(&diary, "child2"))
        .child_spec(Puppet::spec(&diary, "child3"))
        .start()
        .await
        .unwrap();
    gate.set_open(false);
    puppet(&app, "child2").do_send(End::Panic).unwrap();
    let hanging = gate.next("child1").await;
    app.terminate_child("child1").await.unwrap();
    hanging.cancelled().await;
    assert_eq!(listed(&app).await, ["child1 down", "child2 down", "child3 down"]);
    for id in ["child2", "child3"] {
        assert_eq!(puppet(&app, id).do_send(End::Stop), Err(SendError::Down));
        app.restart_child(id).await.unwrap();
    }
    assert_eq!(counts(&app).await, [3, 2, 0, 3]);
    stop(app, &diary).await;
}

#[actix::test]
async fn hanging_restart_loop_simple() {
    let (diary, mut gate) = (Diary::default(), Gate::open());
    let app = Supervisor::dynamic("app").intensity(8, HOUR).start().await.unwrap();
    let spec = gate.spec(&diary, "child1").shutdown(Shutdown::Brutal);
    app.start_child(spec.clone()).await.unwrap();

    let hanging = hang(&app, &mut gate, "child1").await;
    assert!(matches!(app.start_child(spec.clone()).await, Err(ChildError::AlreadyPresent)));
    assert!(matches!(app.restart_child("child1").await, Err(ChildError::Dynamic)));
    assert!(matches!(app.delete_child("child1").await, Err(ChildError::Dynamic)));
    assert_eq!(counts(&app).await, [1, 0, 0, 1]);
    app.terminate_child("child1").await.unwrap();
    hanging.cancelled().await;
    assert_eq!(counts(&app).await, [0; 4]);

    gate.set_open(true);
    app.start_child(spec).await.unwrap();
    can_be_stopped(app, &diary, &mut gate, "child1").await;
}

#[actix::test]
async fn count_restarting_children() {
    let (diary, mut gate) = (Diary::default(), Gate::open());
    let app = Supervisor::dynamic("app").intensity(20, HOUR).start().await.unwrap();
    for (count, id) in ["1", "2", "3"].iter().enumerate() {
        assert_eq!(counts(&app).await, [count, count, 0, count]);
        app.start_child(gate.spec(&diary, id)).await.unwrap();
    }
    for id in ["1", "2", "3"] {
        crash(&app, id).await;
    }
    assert_eq!(counts(&app).await, [3, 3, 0, 3]);

    let first = hang(&app, &mut gate, "1").await;
    let second = hang(&app, &mut gate, "2").await;
    assert_eq!(counts(&app).await, [3, 1, 0, 3]);
    let mut reports = app.subscribe();
    first.pass();
    second.pass();
    next_report(&mut reports).await;
    next_report(&mut reports).await;
    assert_eq!(counts(&app).await, [3, 3, 0, 3]);

    for left in [2, 1, 0] {
        app.terminate_child(&(left + 1).to_string()).await.unwrap();
        assert_eq!(counts(&app).await, [left, left, 0, left]);
    }
    stop(app, &diary).await;
}
