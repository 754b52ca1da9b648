//! What can be asked of a supervisor while it runs.

use std::{sync::Arc, time::Duration};

use hatchery::supervisor::{
    AutoShutdown, Backoff, ChildError, ChildSpec, ExitReason, Restart, SendError, Shutdown, SpecError,
    Strategy, Supervisor, SupervisorBuilder, SupervisorRef,
};

use crate::support::*;

/// Every call to a supervisor that has ended is an error, and none waits.
async fn all_refused(dead: &impl AsRef<SupervisorRef>, spec: ChildSpec<Puppet>) {
    let dead = dead.as_ref();
    assert!(matches!(dead.start_child(spec).await, Err(ChildError::SupervisorDown)));
    assert!(matches!(dead.terminate_child("child1").await, Err(ChildError::SupervisorDown)));
    assert!(matches!(dead.restart_child("child1").await, Err(ChildError::SupervisorDown)));
    assert!(matches!(dead.delete_child("child1").await, Err(ChildError::SupervisorDown)));
    assert!(matches!(dead.which_children().await, Err(ChildError::SupervisorDown)));
    assert!(matches!(dead.count_children().await, Err(ChildError::SupervisorDown)));
    assert!(matches!(dead.child_options("child1").await, Err(ChildError::SupervisorDown)));
    assert!(matches!(dead.tree().await, Err(ChildError::SupervisorDown)));
}

#[actix::test]
async fn child_adm() {
    let diary = Diary::default();
    let spec = Puppet::spec(&diary, "child1");
    let app = Supervisor::builder("app").child_spec(spec.clone()).start().await.unwrap();
    let first = incarnations(&app).await[0].unwrap();
    assert_eq!(counts(&app).await, [1, 1, 0, 1]);

    // Start of one that runs.
    let error = app.start_child(spec.clone()).await.unwrap_err();
    assert!(matches!(error, ChildError::AlreadyStarted { incarnation } if incarnation == first));

    // Termination.
    assert!(matches!(app.terminate_child("hej").await, Err(ChildError::NotFound)));
    app.terminate_child("child1").await.unwrap();
    assert_eq!(diary.living(), 0, "its end was awaited");
    assert_eq!(listed(&app).await, ["child1 down"]);
    assert_eq!(counts(&app).await, [1, 0, 0, 1]);
    assert_eq!(puppet(&app, "child1").do_send(End::Stop), Err(SendError::Down));
    app.terminate_child("child1").await.unwrap();

    // Start of one that is known and does not run.
    assert!(matches!(app.start_child(spec.clone()).await, Err(ChildError::AlreadyPresent)));

    // Restart.
    let second = app.restart_child("child1").await.unwrap().unwrap();
    assert!(second > first);
    assert_eq!(who(&app, "child1").await, second);
    assert_eq!(counts(&app).await, [1, 1, 0, 1]);
    assert!(matches!(app.restart_child("child1").await, Err(ChildError::Running)));
    assert!(matches!(app.restart_child("child2").await, Err(ChildError::NotFound)));

    // Deletion.
    assert!(matches!(app.delete_child("child1").await, Err(ChildError::Running)));
    assert!(matches!(app.delete_child("hej").await, Err(ChildError::NotFound)));
    app.terminate_child("child1").await.unwrap();
    app.delete_child("child1").await.unwrap();
    assert!(matches!(app.restart_child("child1").await, Err(ChildError::NotFound)));
    assert!(app.child::<Puppet>("child1").is_err());
    assert_eq!(counts(&app).await, [0; 4]);

    // Start: anew, with an incarnation that none has had.
    assert!(app.start_child(spec.clone()).await.unwrap().incarnation().unwrap() > second);
    assert_eq!(counts(&app).await, [1, 1, 0, 1]);

    let dead = app.downgrade();
    stop(app, &diary).await;
    all_refused(&dead, spec).await;
}

#[actix::test]
async fn child_adm_simple() {
    let diary = Diary::default();
    let app = Supervisor::dynamic("app").start().await.unwrap();
    assert_eq!(counts(&app).await, [0; 4]);

    // Start.
    let first = app.start_child(Puppet::spec(&diary, "child1")).await.unwrap().incarnation().unwrap();
    assert_eq!(counts(&app).await, [1, 1, 0, 1]);
    app.start_child(Puppet::spec(&diary, "child2")).await.unwrap();
    assert_eq!(listed(&app).await, ["child1 running", "child2 running"]);
    assert_eq!(counts(&app).await, [2, 2, 0, 2]);
    let error = app.start_child(Puppet::spec(&diary, "child1")).await.unwrap_err();
    assert!(matches!(error, ChildError::AlreadyStarted { incarnation } if incarnation == first));

    // Termination, after which there is nothing.
    let child1 = puppet(&app, "child1");
    app.terminate_child("child1").await.unwrap();
    assert_eq!(diary.living(), 1, "its end was awaited");
    assert_eq!(counts(&app).await, [1, 1, 0, 1]);
    assert_eq!(child1.send(Who).await, Err(SendError::Down));
    assert!(app.child::<Puppet>("child1").is_err());
    assert!(matches!(app.terminate_child("child1").await, Err(ChildError::NotFound)));
    assert!(matches!(app.terminate_child("hej").await, Err(ChildError::NotFound)));

    // Restart and deletion.
    for id in ["child1", "child2"] {
        assert!(matches!(app.restart_child(id).await, Err(ChildError::Dynamic)));
        assert!(matches!(app.delete_child(id).await, Err(ChildError::Dynamic)));
    }

    // The same id is another child; a reference to the old one does not follow.
    assert!(app.start_child(Puppet::spec(&diary, "child1")).await.unwrap().incarnation().unwrap() > first);
    assert_eq!(child1.send(Who).await, Err(SendError::Down));

    let dead = app.downgrade();
    stop(app, &diary).await;
    all_refused(&dead, Puppet::spec(&diary, "child1")).await;
}

/// The field of a specification that is refused.
fn refused(builder: SupervisorBuilder) -> &'static str {
    builder.validate().unwrap_err().field
}

#[actix::test]
async fn child_specs() {
    let diary = Diary::default();
    let spec = |id: &str| Puppet::spec(&diary, id);
    let declared = |spec: ChildSpec<Puppet>| Supervisor::builder("app").child_spec(spec);
    assert_eq!(refused(declared(spec(""))), "id");
    assert_eq!(refused(declared(spec("a/b"))), "id");
    assert_eq!(refused(declared(spec("a")).child_spec(spec("a"))), "id");
    assert_eq!(refused(declared(spec("a").significant())), "significant");
    let backoff = Backoff { jitter: f64::NAN, ..Backoff::default() };
    assert_eq!(refused(declared(spec("a").backoff(backoff))), "backoff.jitter");
    let backoff = Backoff { first: 2 * S, max: S, ..Backoff::default() };
    assert_eq!(refused(declared(spec("a").backoff(backoff))), "backoff.first");
    // Below, too, with its path.
    let error = Supervisor::builder("app").supervisor("app", declared(spec("a/b"))).validate().unwrap_err();
    assert_eq!(&*error.path, "app/app/a/b");
    let error = declared(spec("a/b")).start().await.unwrap_err();
    assert!(error.cause.is::<SpecError>());

    for mode in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
        let app = |restart| declared(spec("a").restart(restart).significant()).auto_shutdown(mode);
        assert!(app(Restart::Temporary).validate().is_ok());
        assert!(app(Restart::Transient).validate().is_ok());
        assert_eq!(refused(app(Restart::Permanent)), "significant");
    }

    // At run time all legal combinations are accepted, and the illegal ones are refused.
    let app = Supervisor::builder("app").start().await.unwrap();
    for illegal in [spec("a").significant(), spec(""), spec("a/b")] {
        assert!(matches!(app.start_child(illegal).await, Err(ChildError::Spec(_))));
    }
    for restart in [Restart::Permanent, Restart::Transient, Restart::Temporary] {
        for shutdown in [Shutdown::Brutal, Shutdown::Timeout(S), Shutdown::Infinity] {
            let id = format!("{restart:?} {shutdown:?}");
            app.start_child(spec(&id).restart(restart).shutdown(shutdown)).await.unwrap();
            let nested = ChildSpec::from(Supervisor::builder(format!("nested {id}")));
            app.start_child(nested.restart(restart).shutdown(shutdown)).await.unwrap();
        }
    }
    assert_eq!(counts(&app).await, [18, 18, 9, 9]);
    stop(app, &diary).await;
}

#[actix::test]
async fn sup_flags() {
    let diary = Diary::default();
    let spec = |id: &str| Puppet::spec(&diary, id);
    let app = || Supervisor::builder("app");
    assert_eq!(refused(Supervisor::builder("")), "id");
    assert_eq!(refused(app().intensity(1, Duration::ZERO)), "intensity.period");
    assert_eq!(refused(app().max_children(1)), "max_children");
    assert_eq!(refused(SupervisorBuilder::partition("parts", 0, |_| spec("part"))), "partitions");
    let temporary = |_| spec("part").restart(Restart::Temporary);
    assert_eq!(refused(SupervisorBuilder::partition("parts", 2, temporary)), "restart");
    for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
        assert_eq!(refused(Supervisor::dynamic("app").strategy(strategy)), "strategy");
    }
    assert_eq!(refused(Supervisor::dynamic("app").child_spec(spec("a"))), "children");
    assert_eq!(refused(app().supervisor("x", Supervisor::dynamic("x").child_spec(spec("a")))), "children");
    let error = app().intensity(1, Duration::ZERO).start().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "could not start `app`: `app`: intensity.period = 0 s is not allowed: more than 0 s"
    );
}

#[actix::test]
async fn which_children() {
    let diary = Diary::default();
    let app = Supervisor::builder("app").start().await.unwrap();
    assert_eq!(listed(&app).await, [""; 0]);
    for id in ["child1", "child2"] {
        app.start_child(Puppet::spec(&diary, id)).await.unwrap();
    }
    assert_eq!(listed(&app).await, ["child1 running", "child2 running"]);
    app.terminate_child("child1").await.unwrap();
    assert_eq!(listed(&app).await, ["child1 down", "child2 running"]);
    let children = app.which_children().await.unwrap();
    assert_eq!(children[0].last_exit, Some(ExitReason::Shutdown));
    assert_eq!((children[0].incarnation, children[0].up_since), (None, None));
    assert!(children[1].up_since.is_some());
    app.delete_child("child1").await.unwrap();
    assert_eq!(listed(&app).await, ["child2 running"]);
    assert!(matches!(app.child_options("child1").await, Err(ChildError::NotFound)));
    // A restart keeps the place.
    app.start_child(Puppet::spec(&diary, "child3")).await.unwrap();
    crash(&app, "child2").await;
    assert_eq!(listed(&app).await, ["child2 running", "child3 running"]);
    assert_eq!(app.which_children().await.unwrap()[0].restarts, 1);
    stop(app, &diary).await;
}

#[actix::test]
async fn which_children_simple_one_for_one() {
    let diary = Diary::default();
    let app = Supervisor::dynamic("app").start().await.unwrap();
    for id in ["child1", "child2"] {
        app.start_child(Puppet::spec(&diary, id).restart(Restart::Temporary)).await.unwrap();
    }
    assert_eq!(listed(&app).await, ["child1 running", "child2 running"]);
    app.terminate_child("child1").await.unwrap();
    assert_eq!(listed(&app).await, ["child2 running"]);
    assert!(matches!(app.child_options("child1").await, Err(ChildError::NotFound)));
    stop(app, &diary).await;
}

#[actix::test]
async fn count_children() {
    let diary = Diary::default();
    let app = Supervisor::dynamic("app").start().await.unwrap();
    for count in [1_000, 2_000] {
        for i in count - 1_000..count {
            let spec = Puppet::spec(&diary, &i.to_string()).restart(Restart::Temporary);
            app.start_child(spec).await.unwrap();
        }
        assert_eq!(counts(&app).await, [count, count, 0, count]);
        assert_eq!(listed(&app).await.len(), count);
        assert_eq!(counts(&app).await, [count, count, 0, count]);
    }
    let mut reports = app.subscribe();
    for i in 0..2_000 {
        puppet(&app, &i.to_string()).do_send(End::Stop).unwrap();
    }
    for _ in 0..2_000 {
        next_report(&mut reports).await;
    }
    assert_eq!(counts(&app).await, [0; 4]);
    stop(app, &diary).await;
}

#[actix::test]
async fn count_children_supervisor() {
    let diary = Diary::default();
    let app = Supervisor::dynamic("app").start().await.unwrap();
    for i in 0..1_000 {
        let nested = Supervisor::builder(i.to_string()).child_spec(Puppet::spec(&diary, "a"));
        app.start_child(nested).await.unwrap();
    }
    assert_eq!(counts(&app).await, [1_000, 1_000, 1_000, 0]);
    assert_eq!(diary.living(), 1_000);
    for i in 0..500 {
        app.terminate_child(&i.to_string()).await.unwrap();
    }
    assert_eq!(counts(&app).await, [500, 500, 500, 0]);
    stop(app, &diary).await;
}

#[actix::test]
async fn do_not_save_child_specs_for_temporary_children() {
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        for end_by in [None, Some(End::Stop), Some(End::abnormal()), Some(End::Panic)] {
            let diary = Diary::default();
            let app = group(&diary, strategy, 9, &[]).start().await.unwrap();
            let is_normal = matches!(end_by, Some(End::Stop));
            for restart in [Restart::Permanent, Restart::Transient, Restart::Temporary] {
                let id = format!("{restart:?}");
                let spec = Puppet::spec(&diary, &id).restart(restart);
                app.start_child(spec.clone()).await.unwrap();
                match &end_by {
                    None => app.terminate_child(&id).await.unwrap(),
                    Some(how) => drop(end(&app, &id, how.clone()).await),
                }
                let again = app.start_child(spec).await;
                let saved = end_by.is_none() || is_normal && restart == Restart::Transient;
                match restart {
                    Restart::Temporary => assert!(again.is_ok(), "{again:?}"),
                    _ if saved => {
                        assert!(matches!(again, Err(ChildError::AlreadyPresent)));
                        app.restart_child(&id).await.unwrap();
                    }
                    // On its way up, or there already.
                    _ => assert!(matches!(
                        again,
                        Err(ChildError::AlreadyPresent | ChildError::AlreadyStarted { .. })
                    )),
                }
            }
            stop(app, &diary).await;
        }
    }
}

/// What the factory of an ended temporary child has captured is dropped with it.
#[actix::test]
async fn do_not_save_start_parameters_for_temporary_children() {
    let diary = Diary::default();
    for app in [Supervisor::builder("app"), Supervisor::dynamic("app")] {
        let app = app.start().await.unwrap();
        let parameters = Arc::new("potentially large");
        for restart in [Restart::Temporary, Restart::Transient] {
            let (diary, parameters) = (diary.clone(), parameters.clone());
            let spec = ChildSpec::with_context(format!("{restart:?}"), move |cx| {
                let (diary, _parameters) = (diary.clone(), parameters.clone());
                async move { Ok::<_, std::convert::Infallible>(Puppet::new(&diary, cx, Manners::default())) }
            });
            app.start_child(spec.restart(restart)).await.unwrap();
        }
        assert_eq!(Arc::strong_count(&parameters), 3);
        end(&app, "Temporary", End::Panic).await;
        assert_eq!(counts(&app).await[0], 1);
        assert_eq!(Arc::strong_count(&parameters), 2);
        crash(&app, "Transient").await;
        assert_eq!(Arc::strong_count(&parameters), 2);
        stop(app, &diary).await;
    }
}
