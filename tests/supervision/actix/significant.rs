//! Children whose final end may end their supervisor.

use hatchery::supervisor::{
    AutoShutdown, ChildSpec, ReportEvent, Restart, ShutdownCause, Strategy, Supervisor, SupervisorRef,
};

use crate::support::*;

const ANY: AutoShutdown = AutoShutdown::AnySignificant;
const ALL: AutoShutdown = AutoShutdown::AllSignificant;

/// Two significant children, and a third that is not.
async fn three(diary: &Diary, auto_shutdown: AutoShutdown, restart: Restart) -> Supervisor {
    group(diary, Strategy::OneForOne, 5, &[])
        .auto_shutdown(auto_shutdown)
        .child_spec(Puppet::spec(diary, "child1").restart(restart).significant())
        .child_spec(Puppet::spec(diary, "child2").restart(restart).significant())
        .child_spec(Puppet::spec(diary, "child3").restart(restart))
        .start()
        .await
        .unwrap()
}

/// Ends a child, and with it its supervisor.
async fn ends_all(app: Supervisor, diary: &Diary, child: &str, how: End) {
    let mut reports = app.subscribe();
    puppet(&app, child).do_send(how).unwrap();
    let report =
        report_where(&mut reports, |report| matches!(report.event, ReportEvent::Shutdown { .. })).await;
    let ReportEvent::Shutdown { cause } = report.event else { unreachable!() };
    assert_eq!(cause, ShutdownCause::AutoShutdown { id: child.into() });
    gave_up(&app, diary).await;
}

/// Ends a child, and nothing else.
async fn ends_alone(app: &impl AsRef<SupervisorRef>, child: &str, how: End) {
    let app = app.as_ref();
    let others = counts(app).await[1] - 1;
    end(app, child, how).await;
    assert!(is_up(app).await);
    assert_eq!(counts(app).await[1], others);
}

#[actix::test]
async fn nonsignificant_temporary() {
    for mode in [AutoShutdown::Never, ANY, ALL] {
        let diary = Diary::default();
        let app = group(&diary, Strategy::OneForOne, 5, &[]).auto_shutdown(mode).start().await.unwrap();
        let spec = || Puppet::spec(&diary, "child1").restart(Restart::Temporary);
        app.start_child(spec()).await.unwrap();
        app.terminate_child("child1").await.unwrap();
        assert!(is_up(&app).await);
        for how in [End::Panic, End::abnormal(), End::Stop] {
            app.start_child(spec()).await.unwrap();
            ends_alone(&app, "child1", how).await;
        }
        stop(app, &diary).await;
    }
}

#[actix::test]
async fn nonsignificant_transient() {
    for mode in [AutoShutdown::Never, ANY, ALL] {
        let diary = Diary::default();
        let app = group(&diary, Strategy::OneForOne, 5, &[]).auto_shutdown(mode).start().await.unwrap();
        app.start_child(Puppet::spec(&diary, "child1").restart(Restart::Transient)).await.unwrap();
        app.terminate_child("child1").await.unwrap();
        assert!(is_up(&app).await);
        app.restart_child("child1").await.unwrap();
        crash(&app, "child1").await;
        assert!(is_up(&app).await);
        ends_alone(&app, "child1", End::Stop).await;
        stop(app, &diary).await;
    }
}

#[actix::test]
async fn significant_temporary() {
    let diary = Diary::default();
    // By its supervisor: never.
    let app = three(&diary, ANY, Restart::Temporary).await;
    app.terminate_child("child1").await.unwrap();
    assert!(is_up(&app).await);
    assert_eq!(counts(&app).await, [2, 2, 0, 2]);
    let again = Puppet::spec(&diary, "child1").restart(Restart::Temporary).significant();
    app.start_child(again).await.unwrap();
    ends_all(app, &diary, "child1", End::Panic).await;
    // By itself: any.
    for how in [End::abnormal(), End::shutdown(), End::Stop] {
        ends_all(three(&diary, ANY, Restart::Temporary).await, &diary, "child1", how).await;
    }
    // All.
    let app = three(&diary, ALL, Restart::Temporary).await;
    ends_alone(&app, "child1", End::Stop).await;
    ends_all(app, &diary, "child2", End::Stop).await;
    // One that was terminated does not live: the last one is the other.
    let app = three(&diary, ALL, Restart::Temporary).await;
    app.terminate_child("child1").await.unwrap();
    assert!(is_up(&app).await);
    ends_all(app, &diary, "child2", End::abnormal()).await;
}

#[actix::test]
async fn significant_transient() {
    let diary = Diary::default();
    let app = three(&diary, ANY, Restart::Transient).await;
    app.terminate_child("child1").await.unwrap();
    assert!(is_up(&app).await);
    app.restart_child("child1").await.unwrap();
    // An abnormal end is not its last.
    crash(&app, "child1").await;
    assert!(is_up(&app).await);
    assert_eq!(counts(&app).await, [3, 3, 0, 3]);
    ends_all(app, &diary, "child1", End::Stop).await;
    ends_all(three(&diary, ANY, Restart::Transient).await, &diary, "child2", End::shutdown()).await;

    let app = three(&diary, ALL, Restart::Transient).await;
    ends_alone(&app, "child1", End::Stop).await;
    ends_alone(&app, "child3", End::Stop).await;
    // Started again, it counts again.
    app.restart_child("child1").await.unwrap();
    ends_alone(&app, "child2", End::Stop).await;
    ends_all(app, &diary, "child1", End::Stop).await;
}

/// A child that is being restarted lives.
#[actix::test]
async fn significant_restarting() {
    let (diary, mut gate) = (Diary::default(), Gate::open());
    let app = group(&diary, Strategy::OneForOne, 5, &[])
        .auto_shutdown(ALL)
        .child_spec(Puppet::spec(&diary, "child1").restart(Restart::Transient).significant())
        .child_spec(Puppet::spec(&diary, "child2").restart(Restart::Transient).significant())
        .child_spec(gate.spec(&diary, "child3").restart(Restart::Transient).significant())
        .start()
        .await
        .unwrap();
    ends_alone(&app, "child1", End::Stop).await;
    gate.set_open(false);
    puppet(&app, "child3").do_send(End::Panic).unwrap();
    let restarting = gate.next("child3").await;
    puppet(&app, "child2").do_send(End::Stop).unwrap();
    diary.wait_for("stop child2").await;
    let mut reports = app.subscribe();
    // The end of child2 is looked at between this failure and the next attempt.
    restarting.fail();
    terminated(&mut reports, "child2").await;
    let restarting = gate.next("child3").await;
    assert!(is_up(&app).await);
    restarting.pass();
    started(&mut reports, "child3").await;
    ends_all(app, &diary, "child3", End::Stop).await;
}

/// As in OTP, a dynamic supervisor has no significant children.
#[actix::test]
async fn significant_simple() {
    let diary = Diary::default();
    for mode in [ANY, ALL] {
        let error = Supervisor::dynamic("app").auto_shutdown(mode).start().await.unwrap_err();
        let error: &hatchery::supervisor::SpecError = error.cause.downcast_ref().unwrap();
        assert_eq!(error.field, "auto_shutdown");
    }
    let app = Supervisor::dynamic("app").auto_shutdown(AutoShutdown::Never).start().await.unwrap();
    let significant = Puppet::spec(&diary, "a").restart(Restart::Temporary).significant();
    assert!(matches!(
        app.start_child(significant).await,
        Err(hatchery::supervisor::ChildError::Spec(error)) if error.field == "significant"
    ));
    stop(app, &diary).await;
}

/// An end that a sibling's restart has caused is not the child's own.
#[actix::test]
async fn significant_bystander() {
    for mode in [ANY, ALL] {
        for (strategy, last) in [
            (Strategy::OneForOne, "child2"),
            (Strategy::OneForAll, "child3"),
            (Strategy::RestForOne, "child3"),
        ] {
            let diary = Diary::default();
            let spec = |id| Puppet::spec(&diary, id).restart(Restart::Transient);
            let app = group(&diary, strategy, 5, &[])
                .auto_shutdown(mode)
                .child_spec(spec("child1").significant())
                .child_spec(spec("child2"))
                .child_spec(spec("child3").significant())
                .start()
                .await
                .unwrap();
            crash_until(&app, "child2", last).await;
            assert!(is_up(&app).await);
            assert_eq!(counts(&app).await, [3, 3, 0, 3]);
            stop(app, &diary).await;
        }
        // A temporary one is even gone for good.
        let diary = Diary::default();
        let app = group(&diary, Strategy::OneForAll, 5, &["child1"])
            .auto_shutdown(mode)
            .child_spec(Puppet::spec(&diary, "child2").restart(Restart::Temporary).significant())
            .start()
            .await
            .unwrap();
        crash(&app, "child1").await;
        assert!(is_up(&app).await);
        assert_eq!(listed(&app).await, ["child1 running"]);
        stop(app, &diary).await;
    }
}

/// A supervisor that ends itself is, for its parent, a child that ended.
#[actix::test]
async fn significant_escalation() {
    for significant in [true, false] {
        let diary = Diary::default();
        let worker = Puppet::spec(&diary, "child1").restart(Restart::Transient).significant();
        let sup1 = Supervisor::builder("sup1").auto_shutdown(ANY).child_spec(worker);
        let mut sup1 = ChildSpec::from(sup1).restart(Restart::Transient);
        if significant {
            sup1 = sup1.significant();
        }
        let app = Supervisor::builder("app").auto_shutdown(ANY).child_spec(sup1).start().await.unwrap();
        let mut reports = app.subscribe();
        puppet(&app, "sup1/child1").do_send(End::Stop).unwrap();
        terminated(&mut reports, "sup1").await;
        if significant {
            gave_up(&app, &diary).await;
        } else {
            assert!(is_up(&app).await);
            assert_eq!(listed(&app).await, ["sup1 down"]);
            stop(app, &diary).await;
        }
    }
}

/// A significant child that ends by itself while its group is stopped is started again with the group, as in OTP.
#[actix::test]
async fn significant_end_in_a_group_restart_is_restarted() {
    for mode in [ANY, ALL] {
        for (strategy, order) in
            [(Strategy::OneForAll, ["sig", "b", "slow"]), (Strategy::RestForOne, ["b", "sig", "slow"])]
        {
            let diary = Diary::default();
            let spec = |id| match id {
                "sig" => Puppet::spec(&diary, id).restart(Restart::Transient).significant(),
                "slow" => Puppet::spec_with(&diary, id, Manners::tidy(S / 20)),
                _ => Puppet::spec(&diary, id),
            };
            let app = group(&diary, strategy, 5, &[]).auto_shutdown(mode);
            let app = order.iter().fold(app, |app, id| app.child_spec(spec(id))).start().await.unwrap();
            let mut reports = app.subscribe();
            puppet(&app, "b").do_send(End::Panic).unwrap();
            diary.wait_for("clean slow").await;
            puppet(&app, "sig").do_send(End::Stop).unwrap();
            started(&mut reports, "slow").await;
            assert_eq!(listed(&app).await, order.map(|id| format!("{id} running")));
            ends_all(app, &diary, "sig", End::Stop).await;
        }
    }
}
