//! Children that have a name in the whole tree.

use std::convert::Infallible;

use hatchery::supervisor::{ChildError, ChildSpec, NameTaken, Restart, Strategy, Supervisor};

use crate::support::*;

/// The specification of a puppet that takes this name when it starts.
fn named(diary: &Diary, id: &str, name: &'static str) -> ChildSpec<Puppet> {
    let diary = diary.clone();
    ChildSpec::with_context(id, move |cx| {
        let diary = diary.clone();
        async move {
            cx.register(name)?;
            Ok::<_, NameTaken>(Puppet::new(&diary, cx, Manners::default()))
        }
    })
}

/// OTP's `start_link` says `already_started` when somebody else has the name.
#[actix::test]
async fn already_started_outside_supervisor() {
    let diary = Diary::default();
    let inner = Supervisor::builder("inner").child_spec(named(&diary, "a", "the one"));
    let app = Supervisor::builder("app").supervisor("inner", inner).start().await.unwrap();
    let error = app.start_child(named(&diary, "b", "the one")).await.unwrap_err();
    assert_eq!(error.to_string(), "could not start: the name `the one` is taken by `app/inner/a`");
    let ChildError::Start { cause, .. } = error else { panic!("not a failed start") };
    assert_eq!(&*cause.downcast_ref::<NameTaken>().unwrap().owner, "app/inner/a");
    assert!(app.child::<Puppet>("b").is_err());
    app.terminate_child("inner").await.unwrap();
    assert!(app.whereis::<Puppet>("the one").is_err());
    assert!(app.start_child(named(&diary, "b", "the one")).await.is_ok());
    stop(app, &diary).await;
}

/// A named child below a supervisor of its own: however the one that has the name ends, the next one has it.
#[actix::test]
async fn simple_global_supervisor() {
    let diary = Diary::default();
    let middle = group(&diary, Strategy::OneForAll, 3, &[]).child_spec(named(&diary, "child", "server"));
    let app = group(&diary, Strategy::OneForAll, 3, &[]).supervisor("middle", middle).start().await.unwrap();
    let middle = app.supervisor("middle").unwrap();
    let whereis = || app.whereis::<Puppet>("server").unwrap().incarnation();
    let mut server = whereis();
    for how in [End::Panic, End::Stop, End::abnormal()] {
        let mut reports = app.subscribe();
        puppet(&middle, "child").do_send(how).unwrap();
        let next = started(&mut reports, "child").await;
        assert!(whereis() == Some(next) && Some(next) > server);
        server = Some(next);
    }
    middle.terminate_child("child").await.unwrap();
    assert!(app.whereis::<Puppet>("server").is_err());
    assert!(middle.restart_child("child").await.unwrap() == whereis() && whereis() > server);
    // One restart more than the supervisor allows.
    server = whereis();
    let mut reports = app.subscribe();
    puppet(&middle, "child").do_send(End::Panic).unwrap();
    started(&mut reports, "middle").await;
    assert!(whereis() > server);
    let weak = app.downgrade();
    stop(app, &diary).await;
    assert!(weak.whereis::<Puppet>("server").is_err());
}

/// Whoever still holds the context of an ended child cannot take a name that nobody would give back.
#[actix::test]
async fn an_ended_child_gets_no_name() {
    let diary = Diary::default();
    let (send, contexts) = std::sync::mpsc::channel();
    let spec = ChildSpec::with_context("a", {
        let diary = diary.clone();
        move |cx| {
            send.send(cx.clone()).unwrap();
            let puppet = Puppet::new(&diary, cx, Manners::default());
            async move { Ok::<_, Infallible>(puppet) }
        }
    });
    let app = Supervisor::builder("app").child_spec(spec.restart(Restart::Transient)).start().await.unwrap();
    let old = contexts.recv().unwrap();
    old.register("early").unwrap();
    app.terminate_child("a").await.unwrap();
    old.register("late").unwrap();
    assert!(app.whereis::<Puppet>("early").is_err());
    assert!(app.whereis::<Puppet>("late").is_err());
    app.restart_child("a").await.unwrap();
    contexts.recv().unwrap().register("late").unwrap();
    assert!(app.whereis::<Puppet>("late").is_ok());
    stop(app, &diary).await;
}
