//! Supervisors below supervisors.

use hatchery::supervisor::{
    ChildSpec, ExitReason, ReportEvent, Restart, ShutdownCause, Strategy, Supervisor,
};

use crate::support::*;

#[actix::test]
async fn tree() {
    let diary = Diary::default();
    let sup = |id: &str| Supervisor::builder(id).intensity(4, HOUR);
    let sup1 = sup("sup1").child_spec(Puppet::spec(&diary, "w1")).child_spec(Puppet::spec(&diary, "w2"));
    let app = group(&diary, Strategy::OneForAll, 4, &[])
        .supervisor("sup1", sup1)
        .supervisor("sup2", sup("sup2"))
        .child_spec(ChildSpec::from(sup("sup3")).restart(Restart::Transient))
        .start()
        .await
        .unwrap();
    app.terminate_child("sup3").await.unwrap();
    assert_eq!(counts(&app).await, [3, 2, 3, 0]);
    let (sup1, sup2) = (app.supervisor("sup1").unwrap(), app.supervisor("sup2").unwrap());
    assert_eq!((counts(&sup1).await, counts(&sup2).await), ([2, 2, 0, 2], [0; 4]));

    sup2.start_child(Puppet::scripted(&diary, "w3", &[Start::Up, Start::Fail])).await.unwrap();
    sup2.start_child(Puppet::spec(&diary, "w4")).await.unwrap();
    assert_eq!((counts(&sup1).await, counts(&sup2).await), ([2, 2, 0, 2], [2, 2, 0, 2]));

    // Only the one that dies is restarted.
    let before = (incarnations(&sup1).await, incarnations(&sup2).await);
    let w4 = crash(&sup2, "w4").await;
    assert_eq!(incarnations(&sup1).await, before.0);
    assert_eq!(incarnations(&sup2).await, [before.1[0], Some(w4)]);

    // The whole tree is restarted, but not what was added; what was terminated comes up with its group.
    let before = incarnations(&app).await;
    let mut reports = app.subscribe();
    puppet(&sup2, "w3").do_send(End::Panic).unwrap();
    started(&mut reports, "sup3").await;
    let after = incarnations(&app).await;
    assert!(after.iter().zip(&before).all(|(after, before)| after > before), "{before:?} {after:?}");
    assert_eq!(counts(&app).await, [3, 3, 3, 0]);
    assert_eq!(listed(&sup1).await, ["w1 running", "w2 running"]);
    assert_eq!(counts(&sup2).await, [0; 4]);

    let tree = app.tree().await.unwrap();
    let paths: Vec<&str> = tree.nodes().map(|node| node.path.as_str()).collect();
    assert_eq!(paths, ["app", "app/sup1", "app/sup1/w1", "app/sup1/w2", "app/sup2", "app/sup3"]);
    let text = tree.to_string();
    assert!(text.starts_with("app [supervisor] running, up "), "{tree}");
    assert!(text.contains("|- sup1 [supervisor] running, up "), "{tree}");
    stop(app, &diary).await;
}

#[actix::test]
async fn a_supervisor_that_gives_up_is_a_crash_for_its_parent() {
    let diary = Diary::default();
    let nested = group(&diary, Strategy::OneForOne, 1, &["a", "b"]);
    let app =
        Supervisor::builder("app").intensity(1, HOUR).supervisor("nested", nested).start().await.unwrap();
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
    // It is known to those who ask it, too.
    let tree = nested.tree().await.unwrap();
    assert_eq!((tree.restarts, tree.last_exit), (1, Some(ExitReason::Shutdown)));
    assert!(tree.uptime.is_some() && tree.children[0].restarts == 0);
    // The reference follows, and incarnations rise over the restart of the supervisor.
    assert!(within("an answer", a.send(Who)).await.unwrap() > first + 1);
    // Once more, and the root ends as well.
    crash(&nested, "a").await;
    a.do_send(End::Panic).unwrap();
    gave_up(&app, &diary).await;
    assert!(a.addr().is_none());
}

/// Its parent sees `shutdown`: a transient supervisor that gave up is not restarted, a temporary one is gone.
#[actix::test]
async fn a_transient_supervisor_that_gives_up_stays_down() {
    for (restart, expected) in
        [(Restart::Transient, &["w running", "nested down"][..]), (Restart::Temporary, &["w running"])]
    {
        let diary = Diary::default();
        let nested = ChildSpec::from(
            Supervisor::builder("nested").intensity(0, HOUR).child_spec(Puppet::spec(&diary, "a")),
        );
        let app = group(&diary, Strategy::OneForOne, 0, &["w"])
            .child_spec(nested.restart(restart))
            .start()
            .await
            .unwrap();
        let a = puppet(&app, "nested/a");
        let mut reports = app.subscribe();
        a.do_send(End::Panic).unwrap();
        assert_eq!(terminated(&mut reports, "nested").await, ExitReason::Shutdown);
        assert_eq!(listed(&app).await, expected);
        assert_eq!(a.do_send(End::Stop), Err(hatchery::supervisor::SendError::Down));
        stop(app, &diary).await;
    }
}

/// A nested supervisor whose child cannot start is a failed start for its parent: retried, and counted there.
#[actix::test]
async fn a_nested_start_that_fails_is_retried_by_the_parent() {
    let diary = Diary::default();
    let starts = [Start::Up, Start::Fail, Start::Fail, Start::Up, Start::Fail];
    let nested = Supervisor::builder("nested")
        .intensity(0, HOUR)
        .child_spec(Puppet::spec(&diary, "a"))
        .child_spec(Puppet::scripted(&diary, "b", &starts));
    let app =
        Supervisor::builder("app").intensity(3, HOUR).supervisor("nested", nested).start().await.unwrap();
    diary.take();
    let mut reports = app.subscribe();
    puppet(&app, "nested/a").do_send(End::Panic).unwrap();
    started(&mut reports, "nested").await;
    let failed = ["start a", "fail b", "stop a"];
    assert_eq!(diary.take(), [&["stop b"][..], &failed, &failed, &["start a", "start b"]].concat());
    puppet(&app, "nested/a").do_send(End::Panic).unwrap();
    gave_up(&app, &diary).await;
}

/// The parent's end reaches the lowest level in order, and each level is stopped before the one above goes on.
#[actix::test]
async fn a_stop_reaches_all_levels_in_order() {
    let diary = Diary::default();
    let low = Supervisor::builder("low")
        .child_spec(Puppet::spec(&diary, "c"))
        .child_spec(Puppet::spec(&diary, "d"));
    let middle = Supervisor::builder("middle")
        .child_spec(Puppet::spec(&diary, "b"))
        .supervisor("low", low)
        .supervisor("pool", Supervisor::dynamic("pool"))
        .child_spec(Puppet::spec(&diary, "e"));
    let app = group(&diary, Strategy::OneForOne, 0, &["a"])
        .supervisor("middle", middle)
        .child_spec(Puppet::spec(&diary, "f"))
        .start()
        .await
        .unwrap();
    let pool = app.supervisor("middle/pool").unwrap();
    pool.start_child(Puppet::spec(&diary, "x")).await.unwrap();
    let starts = ["start a", "start b", "start c", "start d", "start e", "start f", "start x"];
    assert_eq!(diary.take(), starts);
    stop(app, &diary).await;
    assert_eq!(diary.take(), ["stop f", "stop e", "stop x", "stop d", "stop c", "stop b", "stop a"]);
}
