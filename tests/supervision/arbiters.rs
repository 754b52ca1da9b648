//! Children on other threads than their supervisor's.

use actix::prelude::*;
use hatchery::supervisor::{ExitReason, Restart, Supervisor};

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
