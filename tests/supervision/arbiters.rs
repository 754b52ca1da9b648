//! Children on other threads than their supervisor's.

use actix::prelude::*;
use hatchery::supervisor::{ChildError, ExitReason, ReportEvent, Restart, Shutdown, Supervisor};

use crate::support::*;

#[actix::test]
async fn children_on_other_arbiters() {
    let diary = Diary::default();
    let arbiter = Arbiter::new();
    let app = Supervisor::builder("app")
        .intensity(3, 60 * S)
        .child_spec(Puppet::spec(&diary, "named").on(arbiter.handle()).restart(Restart::Transient))
        .child_spec(Puppet::spec(&diary, "own").on_dedicated_arbiter())
        .supervisor("inner", Supervisor::builder("inner").child_spec(Puppet::spec(&diary, "c")))
        .start()
        .await
        .unwrap();
    let mut reports = app.subscribe();
    let before = who(&app, "own").await;
    puppet(&app, "own").do_send(End::Panic).unwrap();
    assert_eq!(terminated(&mut reports, "own").await, ExitReason::Panic("in a handler".into()));
    started(&mut reports, "own").await;
    assert!(who(&app, "own").await > before);
    // An arbiter that stops under its child: the end is seen, and restarts there fail until it is too much.
    arbiter.stop();
    assert_eq!(terminated(&mut reports, "named").await, ExitReason::ArbiterStopped);
    assert_eq!(within("the end", app.ended()).await, ExitReason::Shutdown);
    diary.wait_until_empty().await;
}

#[actix::test]
async fn a_child_that_blocks_its_thread_is_unkillable() {
    let diary = Diary::default();
    let app = Supervisor::builder("app")
        .child_spec(Puppet::spec(&diary, "a").on_dedicated_arbiter().shutdown(Shutdown::Brutal))
        .start()
        .await
        .unwrap();
    let mut reports = app.subscribe();
    puppet(&app, "a").do_send(End::Block(3 * S)).unwrap();
    wait_until("the block to begin", || diary.take().contains(&"block".to_owned())).await;
    assert!(matches!(within("an answer", app.terminate_child("a")).await, Err(ChildError::Unkillable)));
    assert_eq!(diary.living(), 1, "and it is not claimed dead");
    report_where(&mut reports, |report| matches!(report.event, ReportEvent::Unkillable { .. })).await;
    within("the stop", app.stop()).await;
    diary.wait_until_empty().await;
}
