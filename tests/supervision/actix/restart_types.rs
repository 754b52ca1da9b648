//! Permanent, transient and temporary children, and all the ways to end.

use hatchery::supervisor::{ChildError, Restart, SendError, Strategy, Supervisor};

use crate::support::*;

const ABNORMAL: [fn() -> End; 3] = [End::abnormal, || End::Panic, || End::PanicInFuture];

/// A supervisor with one child.
async fn one(diary: &Diary, restart: Restart) -> Supervisor {
    group(diary, Strategy::OneForOne, 2, &[])
        .child_spec(Puppet::spec(diary, "child1").restart(restart))
        .start()
        .await
        .unwrap()
}

/// Ends the child, and waits for the next one.
async fn is_restarted(app: &Supervisor, how: End) {
    let before = incarnations(app).await[0];
    let mut reports = app.subscribe();
    puppet(app, "child1").do_send(how).unwrap();
    let after = started(&mut reports, "child1").await;
    assert!(Some(after) > before);
    assert_eq!(who(app, "child1").await, after);
    assert_eq!(counts(app).await, [1, 1, 0, 1]);
}

/// Ends the child, which stays known and down until somebody asks for it.
async fn is_kept(app: &Supervisor, how: End) {
    let child = puppet(app, "child1");
    end(app, "child1", how).await;
    assert_eq!(listed(app).await, ["child1 down"]);
    assert_eq!(counts(app).await, [1, 0, 0, 1]);
    assert_eq!(child.do_send(End::Stop), Err(SendError::Down));
}

/// Ends the child, and nothing is left of it.
async fn is_gone(app: &Supervisor, how: End) {
    let child = puppet(app, "child1");
    end(app, "child1", how).await;
    assert_eq!(counts(app).await, [0; 4]);
    assert!(matches!(app.restart_child("child1").await, Err(ChildError::NotFound)));
    assert!(app.child::<Puppet>("child1").is_err());
    assert_eq!(child.do_send(End::Stop), Err(SendError::Down));
}

#[actix::test]
async fn permanent_normal() {
    let diary = Diary::default();
    let app = one(&diary, Restart::Permanent).await;
    is_restarted(&app, End::Stop).await;
    stop(app, &diary).await;
}

#[actix::test]
async fn permanent_shutdown() {
    let diary = Diary::default();
    let app = one(&diary, Restart::Permanent).await;
    is_restarted(&app, End::shutdown()).await;
    is_restarted(&app, End::shutdown()).await;
    stop(app, &diary).await;
}

#[actix::test]
async fn permanent_abnormal() {
    for abnormal in ABNORMAL {
        let diary = Diary::default();
        let app = one(&diary, Restart::Permanent).await;
        is_restarted(&app, abnormal()).await;
        stop(app, &diary).await;
    }
}

#[actix::test]
async fn transient_normal() {
    let diary = Diary::default();
    let app = one(&diary, Restart::Transient).await;
    is_kept(&app, End::Stop).await;
    stop(app, &diary).await;
}

#[actix::test]
async fn transient_shutdown() {
    let diary = Diary::default();
    let app = one(&diary, Restart::Transient).await;
    is_kept(&app, End::shutdown()).await;
    app.restart_child("child1").await.unwrap();
    is_kept(&app, End::shutdown()).await;
    stop(app, &diary).await;
}

#[actix::test]
async fn transient_abnormal() {
    for abnormal in ABNORMAL {
        let diary = Diary::default();
        let app = one(&diary, Restart::Transient).await;
        is_restarted(&app, abnormal()).await;
        stop(app, &diary).await;
    }
}

#[actix::test]
async fn temporary_normal() {
    let diary = Diary::default();
    let app = one(&diary, Restart::Temporary).await;
    is_gone(&app, End::Stop).await;
    stop(app, &diary).await;
}

#[actix::test]
async fn temporary_shutdown() {
    let diary = Diary::default();
    let app = one(&diary, Restart::Temporary).await;
    is_gone(&app, End::shutdown()).await;
    app.start_child(Puppet::spec(&diary, "child1").restart(Restart::Temporary)).await.unwrap();
    is_gone(&app, End::shutdown()).await;
    stop(app, &diary).await;
}

#[actix::test]
async fn temporary_abnormal() {
    for abnormal in ABNORMAL {
        let diary = Diary::default();
        let app = one(&diary, Restart::Temporary).await;
        is_gone(&app, abnormal()).await;
        stop(app, &diary).await;
    }
}

/// A temporary child that is stopped with its group does not come back.
#[actix::test]
async fn temporary_bystander() {
    for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
        let diary = Diary::default();
        let app = group(&diary, strategy, 2, &["child1"])
            .child_spec(Puppet::spec(&diary, "child2").restart(Restart::Temporary))
            .start()
            .await
            .unwrap();
        let child2 = puppet(&app, "child2");
        diary.take();
        crash(&app, "child1").await;
        assert!(is_up(&app).await);
        assert_eq!(listed(&app).await, ["child1 running"]);
        assert_eq!(diary.take(), ["stop child2", "start child1"]);
        assert_eq!(child2.do_send(End::Stop), Err(SendError::Down));
        stop(app, &diary).await;
    }
}

/// OTP's `ignore`, at a restart: the child is kept, down, and nobody minds.
#[actix::test]
async fn a_restart_that_is_declined() {
    let diary = Diary::default();
    let app = group(&diary, Strategy::OneForAll, 1, &["a"])
        .child_spec(Puppet::scripted(&diary, "b", &[Start::Up, Start::Decline, Start::Up]))
        .child_spec(Puppet::spec(&diary, "c"))
        .start()
        .await
        .unwrap();
    crash_until(&app, "b", "c").await;
    assert_eq!(listed(&app).await, ["a running", "b down", "c running"]);
    assert!(app.restart_child("b").await.unwrap().is_some());
    stop(app, &diary).await;
}
