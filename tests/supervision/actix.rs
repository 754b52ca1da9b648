//! Cases of OTP's `supervisor_SUITE` that need real actors, under their names.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use ::actix::prelude::*;
use hatchery::supervisor::{
    AutoShutdown, ChildCount, ChildError, ChildSpec, Declined, ExitReason, ReportEvent, Restart, Shutdown,
    SpecError, Strategy, Supervisor, SupervisorBuilder,
};

use crate::support::*;

const S: Duration = Duration::from_secs(1);

fn counts(specs: usize, active: usize, supervisors: usize, workers: usize) -> ChildCount {
    ChildCount { specs, active, supervisors, workers }
}

fn declining(diary: &Diary, id: &str) -> ChildSpec {
    let (diary, first) = (diary.clone(), Arc::new(AtomicBool::new(true)));
    ChildSpec::with_context(id, move |cx| {
        let (diary, first) = (diary.clone(), first.clone());
        async move {
            if first.swap(false, Ordering::SeqCst) {
                Err(Declined)
            } else {
                Ok(Puppet::new(&diary, cx, Manners::default()))
            }
        }
    })
}

#[::actix::test]
async fn sup_start_ignore_child() {
    let diary = Diary::default();
    let app = Supervisor::builder("app")
        .child_spec(declining(&diary, "a"))
        .child_spec(Puppet::spec(&diary, "b"))
        .start()
        .await
        .unwrap();
    assert_eq!(app.count_children().await.unwrap(), counts(2, 1, 0, 2));
    assert!(app.restart_child("a").await.unwrap().is_some());
    assert_eq!(app.start_child(declining(&diary, "c").restart(Restart::Temporary)).await.unwrap(), None);
    assert_eq!(app.count_children().await.unwrap(), counts(2, 2, 0, 2));
    stop(app, &diary).await;
}

#[::actix::test]
async fn sup_start_child_returns_error() {
    let diary = Diary::default();
    let app = Supervisor::builder("app").start().await.unwrap();
    let failures = Arc::new(AtomicUsize::new(1));
    let error = app.start_child(Puppet::failing(&diary, "a", &failures)).await.unwrap_err();
    assert!(matches!(error, ChildError::Start { retrying: false, .. }));
    assert_eq!(app.count_children().await.unwrap(), counts(0, 0, 0, 0));
    assert!(app.child::<Puppet>("a").is_err());
    stop(app, &diary).await;
}

#[::actix::test]
async fn sup_start_map() {
    let diary = Diary::default();
    let app = Supervisor::builder("app")
        .child_spec(Puppet::spec(&diary, "a"))
        .child_spec(Puppet::spec(&diary, "b").shutdown(Shutdown::Brutal))
        .supervisor("c", Supervisor::builder("c"))
        .start()
        .await
        .unwrap();
    let mut shutdowns = Vec::new();
    for id in ["a", "b", "c"] {
        shutdowns.push(app.child_options(id).await.unwrap().shutdown);
    }
    assert_eq!(shutdowns, [Shutdown::Timeout(5 * S), Shutdown::Brutal, Shutdown::Infinity]);
    assert!(matches!(app.child_options("z").await, Err(ChildError::NotFound)));
    stop(app, &diary).await;
}

#[::actix::test]
async fn child_specs() {
    let diary = Diary::default();
    let spec = |id: &str| Puppet::spec(&diary, id);
    let refused = |builder: SupervisorBuilder| builder.validate().unwrap_err().field;
    let app = || Supervisor::builder("app");
    assert_eq!(refused(app().child_spec(spec(""))), "id");
    assert_eq!(refused(app().child_spec(spec("a/b"))), "id");
    assert_eq!(refused(app().child_spec(spec("a")).child_spec(spec("a"))), "id");
    assert_eq!(refused(app().child_spec(spec("a").significant())), "significant");
    let temporary = || spec("a").restart(Restart::Temporary).significant();
    assert_eq!(refused(app().child_spec(temporary())), "significant");
    assert_eq!(refused(app().intensity(1, Duration::ZERO)), "intensity.period");
    assert_eq!(refused(app().max_children(1)), "max_children");
    let none = SupervisorBuilder::partition("none", 0, |_, _| async { Err::<Puppet, _>("never started") });
    assert_eq!(refused(none), "partitions");
    assert_eq!(refused(Supervisor::dynamic("app").strategy(Strategy::OneForAll)), "strategy");
    assert_eq!(refused(Supervisor::dynamic("app").child_spec(spec("a"))), "children");
    assert_eq!(refused(app().supervisor("x", Supervisor::dynamic("x").child_spec(spec("a")))), "children");
    let backoff = hatchery::supervisor::Backoff { jitter: f64::NAN, ..Default::default() };
    assert_eq!(refused(app().child_spec(spec("a").backoff(backoff))), "backoff.jitter");
    let error = app().child_spec(spec("a/b")).start().await.unwrap_err();
    assert!(error.cause.is::<SpecError>());

    for mode in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
        assert!(app().auto_shutdown(mode).child_spec(temporary()).validate().is_ok());
        let permanent = spec("a").significant();
        assert_eq!(refused(app().auto_shutdown(mode).child_spec(permanent)), "significant");
    }
    let app = app().start().await.unwrap();
    assert!(matches!(app.start_child(spec("a").significant()).await, Err(ChildError::Spec(_))));
    for restart in [Restart::Permanent, Restart::Transient, Restart::Temporary] {
        for shutdown in [Shutdown::Brutal, Shutdown::Timeout(S), Shutdown::Infinity] {
            let id = format!("{restart:?} {shutdown:?}");
            app.start_child(spec(&id).restart(restart).shutdown(shutdown)).await.unwrap();
        }
    }
    stop(app, &diary).await;
}

#[::actix::test]
async fn sup_stop_timeout() {
    let diary = Diary::default();
    let refuses = Manners { refuses_to_stop: true, pending_work: true, ..Manners::default() };
    for is_dynamic in [false, true] {
        let specs = [
            Puppet::spec(&diary, "obeys").shutdown(Shutdown::Timeout(S / 10)),
            Puppet::spec_with(&diary, "refuses", refuses.clone()).shutdown(Shutdown::Timeout(S / 10)),
        ];
        let app = if is_dynamic { Supervisor::dynamic("app") } else { Supervisor::builder("app") };
        let app = app.start().await.unwrap();
        for spec in specs {
            app.start_child(spec).await.unwrap();
        }
        let mut reports = app.subscribe();
        stop(app, &diary).await;
        let mut ends = Vec::new();
        while let Some(report) = reports.recv().await {
            match report.event {
                ReportEvent::Stopped { id, .. } => ends.push(format!("{id}: shutdown")),
                ReportEvent::ShutdownError { id, reason, .. } => ends.push(format!("{id}: {reason}")),
                _ => {}
            }
        }
        ends.sort();
        assert_eq!(ends, ["obeys: shutdown", "refuses: killed"]);
    }
}

#[::actix::test]
async fn sup_stop_brutal_kill() {
    let diary = Diary::default();
    let app = Supervisor::dynamic("app").start().await.unwrap();
    for i in 0..10 {
        app.start_child(Puppet::spec(&diary, &i.to_string()).shutdown(Shutdown::Brutal)).await.unwrap();
    }
    diary.take();
    stop(app, &diary).await;
    assert_eq!(diary.take(), [""; 0]);
}

#[::actix::test]
async fn sup_stop_manual_timeout() {
    let diary = Diary::default();
    let manners = Manners { refuses_to_stop: true, pending_work: true, ..Manners::default() };
    let app = Supervisor::builder("app")
        .child_spec(Puppet::spec(&diary, "a"))
        .child_spec(Puppet::spec_with(&diary, "b", manners).shutdown(Shutdown::Timeout(S / 5)))
        .start()
        .await
        .unwrap();
    assert!(actix_rt::time::timeout(S / 100, app.stop()).await.is_err());
    // The caller has gone; the supervisor still ends, in order.
    assert_eq!(within("the end", app.ended()).await, ExitReason::Shutdown);
    assert_eq!(diary.take(), ["start a", "start b", "stop a"]);
}

#[::actix::test]
async fn a_stop_with_a_deadline() {
    let diary = Diary::default();
    let manners = Manners { refuses_to_stop: true, pending_work: true, ..Manners::default() };
    let app = Supervisor::builder("app")
        .supervisor(
            "inner",
            Supervisor::builder("inner")
                .child_spec(Puppet::spec_with(&diary, "b", manners).shutdown(Shutdown::Infinity)),
        )
        .start()
        .await
        .unwrap();
    assert!(app.stop_within(S / 50).await.is_err());
    diary.wait_until_empty().await;
    assert!(app.stop_within(PATIENCE).await.is_ok());
}

#[::actix::test]
async fn tree() {
    let diary = Diary::default();
    let sup1 = Supervisor::builder("sup1")
        .child_spec(Puppet::spec(&diary, "w1"))
        .child_spec(Puppet::spec(&diary, "w2"));
    let app = Supervisor::builder("app")
        .strategy(Strategy::OneForAll)
        .intensity(4, 3600 * S)
        .supervisor("sup1", sup1)
        .supervisor("sup2", Supervisor::builder("sup2").intensity(4, 3600 * S))
        .child_spec(ChildSpec::from(Supervisor::builder("sup3")).restart(Restart::Transient))
        .start()
        .await
        .unwrap();
    app.terminate_child("sup3").await.unwrap();
    assert_eq!(app.count_children().await.unwrap(), counts(3, 2, 3, 0));
    let sup2 = app.supervisor("sup2").unwrap();
    let failures = Arc::new(AtomicUsize::new(0));
    sup2.start_child(Puppet::failing(&diary, "error", &failures)).await.unwrap();
    sup2.start_child(Puppet::spec(&diary, "w3")).await.unwrap();
    let error = puppet(&sup2, "error");
    let before = error.incarnation();

    crash(&sup2, "w3").await;
    assert_eq!(error.incarnation(), before);

    let incarnations = |app: &Supervisor| {
        let app = app.downgrade();
        async move {
            let children = app.which_children().await.unwrap();
            children.into_iter().map(|child| child.incarnation).collect::<Vec<_>>()
        }
    };
    let old = incarnations(&app).await;
    let mut reports = app.subscribe();
    failures.store(usize::MAX, Ordering::SeqCst);
    error.do_send(End::Panic).unwrap();
    started(&mut reports, "sup3").await;
    let new = incarnations(&app).await;
    assert!(new.iter().zip(&old).all(|(new, old)| new > old), "all three are new: {old:?} {new:?}");
    let sup1 = app.supervisor("sup1").unwrap();
    assert_eq!(sup1.count_children().await.unwrap(), counts(2, 2, 0, 2));
    assert_eq!(sup2.count_children().await.unwrap(), counts(0, 0, 0, 0));

    let tree = app.tree().await.unwrap();
    let paths: Vec<&str> = tree.nodes().map(|node| node.path.as_str()).collect();
    assert_eq!(paths, ["app", "app/sup1", "app/sup1/w1", "app/sup1/w2", "app/sup2", "app/sup3"]);
    assert!(tree.to_string().contains("|- sup1 [supervisor] running, up "), "{tree}");
    stop(app, &diary).await;
}

#[::actix::test]
async fn hanging_restart_loop() {
    let diary = Diary::default();
    let (hang, spec_diary) = (Arc::new(AtomicBool::new(false)), diary.clone());
    let flag = hang.clone();
    let spec = ChildSpec::with_context("a", move |cx| {
        let (hang, diary) = (flag.clone(), spec_diary.clone());
        async move {
            if hang.load(Ordering::SeqCst) {
                let _guard = diary.guard(&cx.path());
                diary.write("hang");
                actix_rt::time::sleep(S / 5).await;
                return Err("told to fail");
            }
            Ok(Puppet::new(&diary, cx, Manners::default()))
        }
    });
    let app = Supervisor::builder("app").intensity(8, 10 * S).child_spec(spec.clone()).start().await.unwrap();
    let mut reports = app.subscribe();
    hang.store(true, Ordering::SeqCst);
    puppet(&app, "a").do_send(End::Panic).unwrap();
    report_where(&mut reports, |report| matches!(report.event, ReportEvent::StartFailed { .. })).await;
    assert!(matches!(app.start_child(spec).await, Err(ChildError::AlreadyPresent)));
    assert!(matches!(app.restart_child("a").await, Err(ChildError::Restarting)));
    assert!(matches!(app.delete_child("a").await, Err(ChildError::Restarting)));
    assert_eq!(app.count_children().await.unwrap(), counts(1, 0, 0, 1));
    app.terminate_child("a").await.unwrap();
    assert_eq!(diary.living(), 0);
    hang.store(false, Ordering::SeqCst);
    app.restart_child("a").await.unwrap();
    stop(app, &diary).await;
}

#[::actix::test]
async fn significant_children() {
    let diary = Diary::default();
    let spec = |id: &str| Puppet::spec(&diary, id).restart(Restart::Transient).significant();
    let app = Supervisor::builder("app")
        .auto_shutdown(AutoShutdown::AllSignificant)
        .child_spec(spec("a"))
        .child_spec(spec("b"))
        .child_spec(Puppet::spec(&diary, "c"))
        .start()
        .await
        .unwrap();
    let mut reports = app.subscribe();
    puppet(&app, "a").do_send(End::Stop).unwrap();
    terminated(&mut reports, "a").await;
    assert_eq!(app.count_children().await.unwrap(), counts(3, 2, 0, 3));
    puppet(&app, "b").do_send(End::Stop).unwrap();
    assert_eq!(within("the end", app.ended()).await, ExitReason::Shutdown);
    assert_eq!(diary.living(), 0);
}

#[::actix::test]
async fn max_children() {
    let diary = Diary::default();
    let app = Supervisor::dynamic("app").max_children(1).start().await.unwrap();
    app.start_child(Puppet::spec(&diary, "a")).await.unwrap();
    let error = app.start_child(Puppet::spec(&diary, "b")).await.unwrap_err();
    assert!(matches!(error, ChildError::MaxChildren { max: 1 }));
    stop(app, &diary).await;
}

#[::actix::test]
async fn partition() {
    let diary = Diary::default();
    let builder = |count: usize| {
        let diary = diary.clone();
        SupervisorBuilder::partition("parts", count, move |cx, _| {
            let puppet = Puppet::new(&diary, cx, Manners::default());
            async move { Ok::<_, Infallible>(puppet) }
        })
    };
    let app = Supervisor::builder("app")
        .supervisor("three", builder(3))
        .supervisor("eight", builder(8))
        .start()
        .await
        .unwrap();
    let three = app.partitions::<Puppet>("three").unwrap();
    let routes: Vec<&str> =
        [0, 1, 2, 3, -1].iter().map(|&key| three.route_number(key).unwrap().path()).collect();
    assert_eq!(routes, ["app/three/0", "app/three/1", "app/three/2", "app/three/0", "app/three/1"]);
    assert_eq!(three.route(&"key").unwrap().path(), three.route(&"key").unwrap().path());

    let eight = app.partitions::<Puppet>("eight").unwrap();
    let supervisor = app.supervisor("eight").unwrap();
    assert_eq!(eight.resize(0).await.unwrap(), 8);
    assert!(eight.route(&"key").is_none() && eight.route_number(i64::MIN).is_none());
    assert_eq!(supervisor.count_children().await.unwrap(), counts(8, 0, 0, 8));
    assert_eq!(eight.resize(8).await.unwrap(), 0);
    assert_eq!(supervisor.count_children().await.unwrap(), counts(8, 8, 0, 8));
    assert!(matches!(eight.resize(9).await, Err(ChildError::MaxChildren { max: 8 })));
    assert!(app.partitions::<Puppet>("eight/1").is_err());
    stop(app, &diary).await;
}

#[::actix::test]
async fn names() {
    let diary = Diary::default();
    let named = |id: &str| {
        let diary = diary.clone();
        ChildSpec::with_context(id, move |cx| {
            let diary = diary.clone();
            async move {
                cx.register("the one")?;
                Ok::<_, hatchery::supervisor::NameTaken>(Puppet::new(&diary, cx, Manners::default()))
            }
        })
    };
    let app = Supervisor::builder("app")
        .supervisor("inner", Supervisor::builder("inner").child_spec(named("a")))
        .start()
        .await
        .unwrap();
    let inner = app.supervisor("inner").unwrap();
    assert_eq!(app.whereis::<Puppet>("the one").unwrap().path(), "app/inner/a");
    let error = app.start_child(named("b")).await.unwrap_err();
    assert_eq!(error.to_string(), "could not start: the name `the one` is taken by `app/inner/a`");
    // The next incarnation takes the name again.
    let incarnation = crash(&inner, "a").await;
    assert_eq!(app.whereis::<Puppet>("the one").unwrap().incarnation(), Some(incarnation));
    inner.terminate_child("a").await.unwrap();
    assert!(app.whereis::<Puppet>("the one").is_err());
    assert!(app.start_child(named("b")).await.is_ok());
    stop(app, &diary).await;
}

#[::actix::test]
async fn ready() {
    let diary = Diary::default();
    let failures = Arc::new(AtomicUsize::new(0));
    let backoff = hatchery::supervisor::Backoff { free: 0, first: S / 50, ..Default::default() };
    let app = Supervisor::builder("app")
        .child_spec(Puppet::failing(&diary, "a", &failures).backoff(backoff))
        .start()
        .await
        .unwrap();
    let a = puppet(&app, "a");
    assert!(a.ready(Duration::ZERO).await.is_ok());
    let mut reports = app.subscribe();
    a.do_send(End::Panic).unwrap();
    terminated(&mut reports, "a").await;
    assert_eq!(a.ready(Duration::ZERO).await.err(), Some(hatchery::supervisor::SendError::Restarting));
    assert!(a.ready(PATIENCE).await.is_ok());
    a.do_send(End::Panic).unwrap();
    terminated(&mut reports, "a").await;
    let (waiting, stopping) = futures_util::future::join(a.ready(PATIENCE), app.stop()).await;
    assert_eq!((waiting.err(), stopping), (Some(hatchery::supervisor::SendError::Down), ()));
}

#[::actix::test]
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

#[::actix::test]
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

struct Idle;
impl Actor for Idle {
    type Context = Context<Self>;
}

async fn per_child(count: usize, abort: bool) -> Duration {
    let app = Supervisor::dynamic("app").start().await.unwrap();
    let begin = Instant::now();
    for i in 0..count {
        let spec = ChildSpec::new(i.to_string(), || async { Ok::<_, Infallible>(Idle) });
        app.start_child(spec.restart(Restart::Temporary)).await.unwrap();
    }
    if abort {
        let mut reports = app.subscribe();
        for i in 0..count {
            app.child::<Idle>(&i.to_string()).unwrap().addr().unwrap().do_send(Die);
        }
        for _ in 0..count {
            next_report(&mut reports).await;
        }
    }
    app.stop().await;
    begin.elapsed() / u32::try_from(count).unwrap()
}

#[derive(Message)]
#[rtype(result = "()")]
struct Die;
impl Handler<Die> for Idle {
    type Result = ();
    fn handle(&mut self, _: Die, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

/// The smallest ratio of the time per child among five runs.
async fn ratio(few: usize, many: usize, abort: bool) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let ratio = per_child(many, abort).await.as_secs_f64() / per_child(few, abort).await.as_secs_f64();
        best = best.min(ratio);
    }
    best
}

#[::actix::test]
async fn scale_start_stop_many_children() {
    let ratio = ratio(1_000, 10_000, false).await;
    assert!(ratio < 10.0, "per child {ratio} times as long");
}

#[::actix::test]
async fn scale_mass_exit_children() {
    let ratio = ratio(1_000, 5_000, true).await;
    assert!(ratio < 12.0 / 5.0 * 2.0, "per child {ratio} times as long");
}
