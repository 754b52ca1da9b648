//! How supervisors and children start, decline to, and fail to.

use hatchery::supervisor::{
    ChildError, ChildSpec, ExitReason, Kind, Restart, SendError, Shutdown, SpecError, StartFailure,
    Supervisor,
};

use crate::support::*;

#[actix::test]
async fn sup_start_normal() {
    let diary = Diary::default();
    let app = Supervisor::builder("app").start().await.unwrap();
    assert_eq!(counts(&app).await, [0; 4]);
    stop(app.clone(), &diary).await;
    assert_eq!(app.ended().await, ExitReason::Shutdown);
}

#[actix::test]
async fn sup_start_ignore_child() {
    let diary = Diary::default();
    let app = Supervisor::builder("app").start().await.unwrap();
    let declining = Puppet::scripted(&diary, "child1", &[Start::Decline, Start::Up]);
    assert_eq!(app.start_child(declining).await.unwrap().incarnation(), None);
    assert!(app.start_child(Puppet::spec(&diary, "child2")).await.unwrap().incarnation().is_some());
    assert_eq!(listed(&app).await, ["child1 down", "child2 running"]);
    assert_eq!(counts(&app).await, [2, 1, 0, 2]);
    assert_eq!(puppet(&app, "child1").do_send(End::Stop), Err(SendError::Down));
    assert!(app.restart_child("child1").await.unwrap().is_some());
    assert_eq!(counts(&app).await, [2, 2, 0, 2]);
    stop(app, &diary).await;
}

fn declining(diary: &Diary, restart: Restart) -> ChildSpec<Puppet> {
    Puppet::scripted(diary, "child1", &[Start::Decline]).restart(restart)
}

#[actix::test]
async fn sup_start_ignore_temporary_child() {
    let diary = Diary::default();
    let app = Supervisor::builder("app")
        .child_spec(declining(&diary, Restart::Temporary))
        .child_spec(Puppet::spec(&diary, "child2").restart(Restart::Temporary))
        .start()
        .await
        .unwrap();
    assert_eq!(listed(&app).await, ["child2 running"]);
    assert_eq!(counts(&app).await, [1, 1, 0, 1]);
    assert!(app.child::<Puppet>("child1").is_err());
    stop(app, &diary).await;
}

/// A child that declines to start is followed by one that does not: the first is not there any more.
async fn declined_and_gone(app: Supervisor, diary: &Diary, restart: Restart) {
    assert_eq!(app.start_child(declining(diary, restart)).await.unwrap().incarnation(), None);
    assert!(
        app.start_child(Puppet::spec(diary, "child2").restart(restart))
            .await
            .unwrap()
            .incarnation()
            .is_some()
    );
    assert_eq!(listed(&app).await, ["child2 running"]);
    assert_eq!(counts(&app).await, [1, 1, 0, 1]);
    stop(app.clone(), diary).await;
    assert_eq!(app.ended().await, ExitReason::Shutdown);
}

#[actix::test]
async fn sup_start_ignore_temporary_child_start_child() {
    let app = Supervisor::builder("app").start().await.unwrap();
    declined_and_gone(app, &Diary::default(), Restart::Temporary).await;
}

#[actix::test]
async fn sup_start_ignore_temporary_child_start_child_simple() {
    let app = Supervisor::dynamic("app").start().await.unwrap();
    declined_and_gone(app, &Diary::default(), Restart::Temporary).await;
}

#[actix::test]
async fn sup_start_ignore_permanent_child_start_child_simple() {
    let app = Supervisor::dynamic("app").start().await.unwrap();
    declined_and_gone(app, &Diary::default(), Restart::Permanent).await;
}

/// OTP's `init` can return what makes no sense; here only a declaration can, and is refused before anything starts.
#[actix::test]
async fn sup_start_error_return() {
    let diary = Diary::default();
    let error = Supervisor::builder("app")
        .child_spec(Puppet::spec(&diary, "a"))
        .child_spec(Puppet::spec(&diary, "a"))
        .start()
        .await
        .unwrap_err();
    assert_eq!(error.cause.downcast_ref::<SpecError>().unwrap().field, "id");
    assert_eq!(diary.take(), [""; 0]);
}

#[actix::test]
async fn sup_start_fail() {
    let diary = Diary::default();
    let inner = Supervisor::builder("inner")
        .child_spec(Puppet::spec(&diary, "c"))
        .child_spec(Puppet::scripted(&diary, "d", &[Start::Fail, Start::Up]));
    let error = Supervisor::builder("app")
        .intensity(9, HOUR)
        .child_spec(Puppet::spec(&diary, "a"))
        .child_spec(Puppet::spec(&diary, "b"))
        .supervisor("inner", inner)
        .child_spec(Puppet::spec(&diary, "e"))
        .start()
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "could not start `app/inner/d`: told to fail");
    // In reverse, and not tried again.
    assert_eq!(diary.take(), ["start a", "start b", "start c", "fail d", "stop c", "stop b", "stop a"]);
    assert_eq!(diary.living(), 0);
}

/// Whatever goes wrong with a first start, the caller learns it and nothing stays.
async fn returns_error(app: Supervisor) {
    let diary = Diary::default();
    let failing = app.start_child(Puppet::scripted(&diary, "a", &[Start::Fail])).await.unwrap_err();
    assert!(
        matches!(&failing, ChildError::Start { cause, retrying: false } if cause.to_string() == "told to fail")
    );
    let manners = Manners { panics_in_started: true, ..Manners::default() };
    let ChildError::Start { cause, retrying: false } =
        app.start_child(Puppet::spec_with(&diary, "a", manners)).await.unwrap_err()
    else {
        panic!("not a failed start")
    };
    assert_eq!(cause.downcast_ref(), Some(&StartFailure::Panicked("in started".into())));
    assert_eq!(counts(&app).await, [0; 4]);
    assert!(app.child::<Puppet>("a").is_err());
    assert!(app.start_child(Puppet::spec(&diary, "a")).await.is_ok(), "the id is free");
    stop(app, &diary).await;
}

#[actix::test]
async fn sup_start_child_returns_error() {
    returns_error(Supervisor::builder("app").start().await.unwrap()).await;
}

#[actix::test]
async fn sup_start_child_returns_error_simple() {
    returns_error(Supervisor::dynamic("app").start().await.unwrap()).await;
}

#[actix::test]
async fn sup_start_restart_child_returns_error() {
    let diary = Diary::default();
    let spec = Puppet::scripted(&diary, "child1", &[Start::Up, Start::Fail, Start::Up]);
    let app = Supervisor::builder("app").child_spec(spec.clone()).start().await.unwrap();
    app.terminate_child("child1").await.unwrap();
    let error = app.restart_child("child1").await.unwrap_err();
    assert!(matches!(error, ChildError::Start { retrying: false, .. }));
    assert_eq!(listed(&app).await, ["child1 down"]);
    assert_eq!(counts(&app).await, [1, 0, 0, 1]);
    assert_eq!(puppet(&app, "child1").do_send(End::Stop), Err(SendError::Down));
    assert!(matches!(app.start_child(spec).await, Err(ChildError::AlreadyPresent)));
    assert!(app.restart_child("child1").await.unwrap().is_some());
    stop(app, &diary).await;
}

#[actix::test]
async fn sup_start_map() {
    let diary = Diary::default();
    let app = Supervisor::builder("app")
        .child_spec(Puppet::spec(&diary, "child1"))
        .child_spec(Puppet::spec(&diary, "child2").shutdown(Shutdown::Brutal))
        .supervisor("child3", Supervisor::builder("child3"))
        .start()
        .await
        .unwrap();
    for (id, shutdown, kind) in [
        ("child1", Shutdown::Timeout(5 * S), Kind::Worker),
        ("child2", Shutdown::Brutal, Kind::Worker),
        ("child3", Shutdown::Infinity, Kind::Supervisor),
    ] {
        let options = app.child_options(id).await.unwrap();
        assert_eq!(&*options.id, id);
        assert_eq!((options.shutdown, options.kind), (shutdown, kind));
        assert_eq!((options.restart, options.significant), (Restart::Permanent, false));
        assert_eq!(options.backoff, None);
    }
    assert!(matches!(app.child_options("child4").await, Err(ChildError::NotFound)));
    stop(app, &diary).await;
}

#[actix::test]
async fn sup_start_map_simple() {
    let diary = Diary::default();
    let app = Supervisor::dynamic("app").start().await.unwrap();
    for id in ["1", "2", "3"] {
        app.start_child(Puppet::spec(&diary, id).restart(Restart::Temporary)).await.unwrap();
    }
    for id in ["1", "2", "3"] {
        let options = app.child_options(id).await.unwrap();
        assert_eq!((options.shutdown, options.kind), (Shutdown::Timeout(5 * S), Kind::Worker));
        assert_eq!((options.restart, options.significant), (Restart::Temporary, false));
    }
    assert!(matches!(app.child_options("4").await, Err(ChildError::NotFound)));
    stop(app, &diary).await;
}
