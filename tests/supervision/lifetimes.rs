//! What ends with what: handles, nested supervisors, arbiters, Systems.

use std::sync::mpsc;

use actix::prelude::*;
use hatchery::supervisor::{SendError, Supervisor};

use crate::support::*;

fn tree(diary: &Diary) -> hatchery::supervisor::SupervisorBuilder {
    let inner = Supervisor::builder("inner")
        .child_spec(Puppet::spec(diary, "c"))
        .child_spec(Puppet::spec(diary, "d"));
    Supervisor::builder("app")
        .child_spec(Puppet::spec(diary, "a"))
        .supervisor("inner", inner)
        .supervisor("pool", Supervisor::dynamic("pool"))
        .child_spec(Puppet::spec(diary, "b"))
}

#[actix::test]
async fn dropping_the_last_handle_kills_the_tree() {
    let diary = Diary::default();
    let app = tree(&diary).start().await.unwrap();
    let c = puppet(&app, "inner/c");
    let other = app.clone();
    drop(app);
    assert!(c.send(Who).await.is_ok());
    diary.take();
    std::thread::spawn(move || drop(other)).join().unwrap();
    diary.wait_until_empty().await;
    assert_eq!(diary.take(), [""; 0], "a kill runs no hook");
    // Its supervisor learns a moment later that all have ended.
    wait_until("it is down for good", || c.do_send(End::Stop) == Err(SendError::Down)).await;
}

#[actix::test]
async fn dropping_a_start_in_progress_kills_what_was_started() {
    let diary = Diary::default();
    let start = Supervisor::builder("app")
        .child_spec(Puppet::spec(&diary, "a"))
        .child_spec(Gate::closed().spec(&diary, "b"))
        .start();
    {
        let mut start = std::pin::pin!(start);
        wait_until("the start to hang", || {
            let waker = std::task::Waker::noop();
            let _ = start.as_mut().poll(&mut std::task::Context::from_waker(waker));
            diary.living() == 2
        })
        .await;
    }
    diary.wait_until_empty().await;
}

#[test]
fn stop_works_from_any_executor() {
    let diary = Diary::default();
    let (send, receive) = mpsc::channel();
    let (finish, finished) = tokio::sync::oneshot::channel();
    let thread = std::thread::spawn({
        let diary = diary.clone();
        move || {
            System::new().block_on(async {
                send.send(tree(&diary).start().await.unwrap()).unwrap();
                finished.await.unwrap();
            });
        }
    });
    let app = receive.recv().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        assert!(puppet(&app, "inner/d").send(Who).await.is_ok());
        within("the stop", app.stop()).await;
    });
    assert_eq!(diary.living(), 0);
    finish.send(()).unwrap();
    thread.join().unwrap();
}

/// Run alone, so that an abort of the process would be seen.
#[test]
fn a_stopped_system_drops_the_tree_without_an_abort() {
    alone("lifetimes::a_stopped_system_drops_the_tree_without_an_abort", || {
        let diary = Diary::default();
        let manners = Manners::stubborn();
        let bad =
            Manners { panics_in_stopping: true, panics_in_drop: true, pending_work: true, ..manners.clone() };
        let app = System::new().block_on(async {
            Supervisor::builder("app")
                .child_spec(Puppet::spec(&diary, "a"))
                .child_spec(Puppet::spec_with(&diary, "b", manners))
                .child_spec(Puppet::spec_with(&diary, "c", bad))
                .supervisor("inner", Supervisor::builder("inner").child_spec(Puppet::spec(&diary, "d")))
                .start()
                .await
                .unwrap()
        });
        // The System is gone, and with it all that ran on it.
        assert_eq!(diary.living(), 0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(within("the stop", app.stop()));
        assert_eq!(puppet(&app, "inner/d").do_send(End::Stop), Err(SendError::Down));
    });
}

#[test]
fn an_arbiter_stopped_under_its_children() {
    alone("lifetimes::an_arbiter_stopped_under_its_children", || {
        System::new().block_on(async {
            let diary = Diary::default();
            let arbiter = Arbiter::new();
            let (send, receive) = tokio::sync::oneshot::channel();
            let manners = Manners::stubborn();
            let builder = tree(&diary).child_spec(Puppet::spec_with(&diary, "e", manners));
            arbiter.spawn(async move {
                let _ = send.send(builder.start().await.unwrap());
            });
            let app = receive.await.unwrap();
            arbiter.stop();
            within("the end", app.ended()).await;
            diary.wait_until_empty().await;
            arbiter.join().unwrap();
        });
    });
}

#[actix::test]
async fn stop_cancels_a_hanging_restart() {
    let diary = Diary::default();
    let app = Supervisor::builder("app").child_spec(Puppet::spec(&diary, "a")).start().await.unwrap();
    let starting = actix_rt::spawn({
        let (app, spec) = (app.downgrade(), Gate::closed().spec(&diary, "b"));
        async move { app.start_child(spec).await }
    });
    wait_until("the start to hang", || diary.living() == 2).await;
    within("the stop", app.stop()).await;
    assert_eq!(diary.living(), 0);
    assert!(within("an answer", starting).await.unwrap().is_err());
}

#[test]
fn without_a_system_there_is_an_error() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let error = runtime.block_on(Supervisor::builder("app").start()).unwrap_err();
    assert_eq!(error.cause.downcast_ref(), Some(&hatchery::supervisor::StartFailure::NoSystem));
}

#[actix::test]
async fn a_subscription_after_the_end_has_ended() {
    let app = Supervisor::builder("app").start().await.unwrap();
    app.stop().await;
    assert!(within("the end of reports", app.subscribe().recv()).await.is_none());
}

/// Those added at run time are not there after a restart of their supervisor: nothing will be reported by them.
#[actix::test]
async fn a_subscription_to_a_forgotten_supervisor_has_ended() {
    let diary = Diary::default();
    let inner = Supervisor::builder("inner").intensity(0, PATIENCE).child_spec(Puppet::spec(&diary, "a"));
    let app = Supervisor::builder("app").supervisor("inner", inner).start().await.unwrap();
    let inner = app.supervisor("inner").unwrap();
    inner.start_child(Supervisor::builder("late")).await.unwrap();
    let late = inner.supervisor("late").unwrap();
    let mut reports = late.subscribe();
    let mut restarts = app.subscribe();
    puppet(&inner, "a").do_send(End::Panic).unwrap();
    started(&mut restarts, "inner").await;
    within("the end of reports", async { while reports.recv().await.is_some() {} }).await;
    assert!(late.tree().await.is_err());
    stop(app, &diary).await;
}

/// Many ends at once are not taken for lateness.
#[actix::test]
async fn a_mass_kill_finds_nobody_unkillable() {
    let diary = Diary::default();
    let app = Supervisor::dynamic("app").start().await.unwrap();
    for i in 0..2_000 {
        let spec = Puppet::spec(&diary, &i.to_string()).shutdown(hatchery::supervisor::Shutdown::Brutal);
        app.start_child(spec).await.unwrap();
    }
    let mut reports = app.subscribe();
    app.stop().await;
    assert_eq!(diary.living(), 0);
    while let Some(report) = reports.recv().await {
        use hatchery::supervisor::ReportEvent;
        assert!(
            matches!(report.event, ReportEvent::Stopped { .. } | ReportEvent::Shutdown { .. }),
            "{report}"
        );
    }
}

#[actix::test]
async fn a_stop_with_a_deadline() {
    let diary = Diary::default();
    let app = Supervisor::builder("app")
        .supervisor(
            "inner",
            Supervisor::builder("inner").child_spec(
                Puppet::spec_with(&diary, "b", Manners::stubborn())
                    .shutdown(hatchery::supervisor::Shutdown::Infinity),
            ),
        )
        .start()
        .await
        .unwrap();
    assert!(app.stop_within(S / 50).await.is_err());
    diary.wait_until_empty().await;
    assert!(app.stop_within(PATIENCE).await.is_ok());
}
