//! How actors end, and what the supervisor learns.

use std::{convert::Infallible, time::Duration};

use actix::prelude::*;
use hatchery::supervisor::{
    ChildSpec, ExitReason, ReportEvent, Restart, SendError, Shutdown, StartFailure, Supervisor,
};

use crate::support::*;

#[actix::test]
async fn reasons() {
    let diary = Diary::default();
    let app = Supervisor::builder("app")
        .intensity(100, Duration::from_secs(60))
        .child_spec(Puppet::spec(&diary, "a"))
        .start()
        .await
        .unwrap();
    let a = puppet(&app, "a");
    let abnormal = ExitReason::Abnormal("signal 9".into());
    for (end, reason) in [
        (End::Stop, ExitReason::Normal),
        (End::Panic, ExitReason::Panic("in a handler".into())),
        (End::PanicInFuture, ExitReason::Panic("in a future".into())),
        (End::Exit(abnormal.clone()), abnormal),
    ] {
        let mut reports = app.subscribe();
        a.do_send(end).unwrap();
        assert_eq!(terminated(&mut reports, "a").await, reason);
        started(&mut reports, "a").await;
    }
    stop(app, &diary).await;
}

#[actix::test]
async fn a_message_in_flight_is_lost_and_one_after_the_end_is_not_sent() {
    let diary = Diary::default();
    let app = Supervisor::builder("app").child_spec(Puppet::spec(&diary, "a")).start().await.unwrap();
    let a = puppet(&app, "a");
    assert_eq!(within("an error", a.send(End::Panic)).await, Err(SendError::Lost));
    // Its mailbox is closed before anybody can learn of the end; the next incarnation comes later.
    wait_until("the next incarnation", || a.addr().is_some()).await;
    stop(app, &diary).await;
    assert_eq!(a.do_send(End::Stop), Err(SendError::Down));
    assert_eq!(a.send(Who).await, Err(SendError::Down));
}

#[actix::test]
async fn a_waiting_actor_stops_when_asked() {
    let diary = Diary::default();
    let app = Supervisor::builder("app")
        .child_spec(Puppet::spec(&diary, "a").shutdown(Shutdown::Infinity))
        .start()
        .await
        .unwrap();
    puppet(&app, "a").do_send(End::WaitForEver).unwrap();
    let mut reports = app.subscribe();
    stop(app, &diary).await;
    report_where(&mut reports, |report| matches!(report.event, ReportEvent::Stopped { .. })).await;
    assert_eq!(diary.take(), ["start a", "stop a"]);
}

#[actix::test]
async fn a_panic_in_started_is_a_failed_start() {
    let diary = Diary::default();
    let manners = Manners { panics_in_started: true, ..Manners::default() };
    let error = Supervisor::builder("app")
        .child_spec(Puppet::spec(&diary, "a"))
        .child_spec(Puppet::spec_with(&diary, "b", manners))
        .start()
        .await
        .unwrap_err();
    assert_eq!(&*error.path, "app/b");
    assert_eq!(error.cause.downcast_ref(), Some(&StartFailure::Panicked("in started".into())));
    assert_eq!(diary.living(), 0);
    assert_eq!(diary.take(), ["start a", "start b", "stop a"]);
}

#[actix::test]
async fn a_panic_in_the_factory_is_a_failed_start() {
    struct Nobody;
    impl Actor for Nobody {
        type Context = Context<Self>;
    }
    fn no_actor() -> Nobody {
        panic!("in the factory")
    }
    for spec in [
        ChildSpec::new("a", || async { Ok::<_, Infallible>(no_actor()) }),
        ChildSpec::new("a", || {
            let nobody = no_actor();
            async { Ok::<_, Infallible>(nobody) }
        }),
    ] {
        let error = Supervisor::builder("app").child_spec(spec).start().await.unwrap_err();
        assert_eq!(error.cause.downcast_ref(), Some(&StartFailure::Panicked("in the factory".into())));
    }
}

#[actix::test]
async fn an_actor_that_stops_in_started_was_up() {
    let diary = Diary::default();
    let manners = Manners { stops_in_started: true, ..Manners::default() };
    let app = Supervisor::builder("app")
        .child_spec(Puppet::spec_with(&diary, "a", manners).restart(Restart::Transient))
        .start()
        .await
        .unwrap();
    wait_until("its end", || diary.living() == 0).await;
    assert!(puppet(&app, "a").addr().is_none());
    stop(app, &diary).await;
}

/// Plain actix aborts the process when an actor panics while it refuses to stop and work is pending.
#[test]
fn no_panic_aborts_the_process() {
    alone("ends::no_panic_aborts_the_process", || {
        System::new().block_on(async {
            for (manners, end) in [
                (Manners::stubborn(), End::Panic),
                (Manners::stubborn(), End::PanicInFuture),
                (Manners { panics_in_stopping: true, pending_work: true, ..Manners::default() }, End::Stop),
                (Manners { panics_in_stopping: true, pending_work: true, ..Manners::default() }, End::Panic),
                (Manners { panics_in_drop: true, pending_work: true, ..Manners::default() }, End::Stop),
            ] {
                let diary = Diary::default();
                let app = Supervisor::builder("app")
                    .child_spec(Puppet::spec_with(&diary, "a", manners))
                    .start()
                    .await
                    .unwrap();
                let mut reports = app.subscribe();
                puppet(&app, "a").do_send(end).unwrap();
                assert!(matches!(terminated(&mut reports, "a").await, ExitReason::Panic(_)));
                started(&mut reports, "a").await;
                drop(app);
                diary.wait_until_empty().await;
            }
        });
    });
}

/// Plain actix ends an actor whose last address is dropped; here the supervisor keeps one, and gives it up at the end.
#[actix::test]
async fn an_actor_lives_on_when_the_last_address_is_dropped() {
    let diary = Diary::default();
    let app = Supervisor::builder("app").child_spec(Puppet::spec(&diary, "a")).start().await.unwrap();
    let a = puppet(&app, "a");
    let incarnation = a.incarnation();
    drop(a.addr());
    tokio::task::yield_now().await;
    assert_eq!(within("an answer", a.send(Who)).await.ok(), incarnation);
    // A reference alone keeps nothing alive.
    within("the end", app.terminate_child("a")).await.unwrap();
    assert_eq!((diary.living(), a.addr().is_none()), (0, true));
    stop(app, &diary).await;
}

/// As in plain actix: it refuses its own stop as well, and goes on.
#[actix::test]
async fn one_that_refuses_its_own_stop_goes_on() {
    let diary = Diary::default();
    let manners = Manners { refuses_to_stop: true, pending_work: true, ..Manners::default() };
    let spec = Puppet::spec_with(&diary, "a", manners).shutdown(Shutdown::Timeout(Duration::from_millis(1)));
    let app = Supervisor::builder("app").child_spec(spec).start().await.unwrap();
    let a = puppet(&app, "a");
    let incarnation = within("an answer", a.send(Who)).await.unwrap();
    within("an answer", a.send(End::Stop)).await.unwrap();
    assert_eq!(within("an answer", a.send(Who)).await, Ok(incarnation));
    stop(app, &diary).await;
}
