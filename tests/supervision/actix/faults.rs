//! Faults that other supervisors in Rust have shown.

use hatchery::supervisor::{ExitReason, Restart, Shutdown, Strategy, Supervisor};

use crate::support::*;

#[actix::test]
async fn a_group_restart_leaves_a_finished_sibling_alone() {
    for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
        let diary = Diary::default();
        let app = group(&diary, strategy, 9, &["a"])
            .child_spec(Puppet::spec(&diary, "b").restart(Restart::Transient))
            .child_spec(Puppet::spec(&diary, "c").restart(Restart::Temporary))
            .child_spec(Puppet::spec(&diary, "d"))
            .start()
            .await
            .unwrap();
        end(&app, "b", End::Stop).await;
        end(&app, "c", End::Stop).await;
        diary.take();
        crash_until(&app, "a", "d").await;
        assert_eq!(diary.take(), ["stop d", "start a", "start d"]);
        assert_eq!(listed(&app).await, ["a running", "b down", "d running"]);
        stop(app, &diary).await;
    }
}

/// Unlike one that has finished, one that was terminated comes back, as in OTP.
#[actix::test]
async fn a_group_restart_brings_a_terminated_sibling_back() {
    let diary = Diary::default();
    let app = group(&diary, Strategy::OneForAll, 9, &["a", "b"]).start().await.unwrap();
    app.terminate_child("b").await.unwrap();
    crash_until(&app, "a", "b").await;
    assert_eq!(listed(&app).await, ["a running", "b running"]);
    stop(app, &diary).await;
}

/// A group of three whose last child keeps a restart waiting until it is told to end.
async fn with_a_slow_end(diary: &Diary, strategy: Strategy) -> Supervisor {
    let slow = Puppet::spec_with(diary, "c", Manners::tidy(HOUR)).shutdown(Shutdown::Infinity);
    let app = group(diary, strategy, 9, &["a", "b"]).child_spec(slow).start().await.unwrap();
    puppet(&app, "a").do_send(End::Panic).unwrap();
    diary.wait_for("clean c").await;
    app
}

#[actix::test]
async fn a_group_restart_does_not_wait_for_a_sibling_that_has_ended() {
    let diary = Diary::default();
    let app = with_a_slow_end(&diary, Strategy::OneForAll).await;
    // While c takes its time, b dies by itself: nobody asks it, nobody waits for it.
    puppet(&app, "b").do_send(End::Stop).unwrap();
    diary.wait_for("stop b").await;
    diary.take();
    let mut reports = app.subscribe();
    puppet(&app, "c").do_send(End::Stop).unwrap();
    assert_eq!(terminated(&mut reports, "b").await, ExitReason::Normal);
    started(&mut reports, "c").await;
    assert_eq!(diary.take(), ["stop c", "start a", "start b", "start c"]);
    stop_slow(app, &diary).await;
}

/// Puppets refuse a second instance everywhere; here it would be at hand.
#[actix::test]
async fn no_second_instance_while_the_old_one_lives() {
    for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
        let diary = Diary::default();
        let app = with_a_slow_end(&diary, strategy).await;
        diary.take();
        // Calls in between make the supervisor work, but start nothing.
        for _ in 0..3 {
            assert_eq!(listed(&app).await, ["a restarting", "b running", "c stopping"]);
        }
        assert_eq!(diary.take(), [""; 0]);
        let mut reports = app.subscribe();
        puppet(&app, "c").do_send(End::Stop).unwrap();
        started(&mut reports, "c").await;
        assert_eq!(diary.take(), ["stop c", "stop b", "start a", "start b", "start c"]);
        stop_slow(app, &diary).await;
    }
}

async fn stop_slow(app: Supervisor, diary: &Diary) {
    let stopping = begin_stop(app.clone(), diary);
    diary.wait_for("clean c").await;
    puppet(&app, "c").do_send(End::Stop).unwrap();
    within("the stop", stopping).await.unwrap();
}

#[actix::test]
async fn start_returns_when_all_are_up() {
    let (diary, mut gate) = (Diary::default(), Gate::closed());
    let inner = Supervisor::builder("inner").child_spec(gate.spec(&diary, "b"));
    let builder = group(&diary, Strategy::OneForOne, 0, &["a"]).supervisor("inner", inner);
    let starting = actix_rt::spawn(builder.child_spec(gate.spec(&diary, "c")).start());
    for id in ["b", "c"] {
        let start = gate.next(id).await;
        assert!(!starting.is_finished());
        start.pass();
    }
    let app = within("the start", starting).await.unwrap().unwrap();
    assert_eq!(diary.take(), ["start a", "start b", "start c"]);
    assert!(who(&app, "c").await > 0);
    stop(app, &diary).await;
}

#[actix::test]
async fn a_slot_taken_meanwhile_is_not_started_by_an_old_retry() {
    for app in [Supervisor::builder("app"), Supervisor::dynamic("app")] {
        let (diary, mut gate) = (Diary::default(), Gate::open());
        let app = app.intensity(9, HOUR).start().await.unwrap();
        app.start_child(gate.spec(&diary, "a").restart(Restart::Transient)).await.unwrap();
        gate.set_open(false);
        puppet(&app, "a").do_send(End::Panic).unwrap();
        gate.next("a").await.fail();
        let retry = gate.next("a").await;
        app.terminate_child("a").await.unwrap();
        retry.cancelled().await;
        // A static supervisor keeps the specification.
        if counts(&app).await[0] == 1 {
            app.delete_child("a").await.unwrap();
        }
        diary.take();
        let incarnation = app.start_child(Puppet::spec(&diary, "a")).await.unwrap().incarnation();
        for _ in 0..3 {
            assert_eq!(incarnations(&app).await, [incarnation]);
        }
        assert_eq!(diary.take(), ["start a"]);
        stop(app, &diary).await;
    }
}

/// A window that quiet time resets would forget the second of four crashes. The pauses are long compared to what
/// lies between the second and the fourth: 1 s of a period of 6 s.
#[actix::test]
async fn the_window_slides() {
    let (diary, period) = (Diary::default(), 6 * S);
    let app = Supervisor::builder("app")
        .intensity(2, period)
        .child_spec(Puppet::spec(&diary, "a"))
        .start()
        .await
        .unwrap();
    crash(&app, "a").await;
    let first = std::time::Instant::now();
    let since_first = |time| actix_rt::time::sleep_until((first + time).into());
    since_first(period - S).await;
    crash(&app, "a").await;
    // The first is forgotten, the second is not.
    since_first(period + S / 50).await;
    crash(&app, "a").await;
    puppet(&app, "a").do_send(End::Panic).unwrap();
    gave_up(&app, &diary).await;
}

#[actix::test]
async fn an_end_is_awaited_not_slept_for() {
    let diary = Diary::default();
    let tidy = Puppet::spec_with(&diary, "a", Manners::tidy(HOUR)).shutdown(Shutdown::Infinity);
    let app = Supervisor::builder("app").child_spec(tidy).start().await.unwrap();
    let weak = app.downgrade();
    let ending = actix_rt::spawn(async move { weak.terminate_child("a").await });
    diary.wait_for("clean a").await;
    assert_eq!(listed(&app).await, ["a stopping"]);
    assert!(!ending.is_finished());
    puppet(&app, "a").do_send(End::Stop).unwrap();
    within("the end", ending).await.unwrap().unwrap();
    assert_eq!(diary.living(), 0);
    stop(app, &diary).await;
}

#[actix::test]
async fn a_reference_follows_restarts() {
    let diary = Diary::default();
    let app = group(&diary, Strategy::OneForAll, 9, &["a", "b"]).start().await.unwrap();
    let (a, b) = (puppet(&app, "a"), puppet(&app, "b"));
    let old = a.addr().unwrap();
    crash_until(&app, "b", "b").await;
    assert!(!old.connected());
    assert_eq!(within("an answer", a.send(Who)).await.ok(), a.incarnation());
    assert_eq!(within("an answer", b.send(Who)).await.ok(), b.incarnation());
    stop(app, &diary).await;
}
