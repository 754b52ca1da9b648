//! Users' code that panics where no hook runs: in `Drop`, in `Display`, in a logger. It ends no supervisor.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use actix::prelude::*;
use hatchery::supervisor::{
    ChildError, ChildSpec, ExitReason, ReportEvent, Restart, Shutdown, StartFailure, Supervisor,
};

use crate::support::*;

/// Panics when dropped, also as the payload of a panic.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("in drop");
    }
}

/// An error that can neither be printed nor dropped.
struct Bad(Bomb);

impl fmt::Debug for Bad {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("in debug")
    }
}

impl fmt::Display for Bad {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("in display")
    }
}

impl std::error::Error for Bad {}

/// Panics at each report of a shutdown, and prints all others.
struct BadLogger;

impl log::Log for BadLogger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let text = record.args().to_string();
        if text.contains("shuts down") {
            panic!("in the logger");
        }
        println!("{text}");
    }

    fn flush(&self) {}
}

fn with_bad_logger(body: impl Future<Output = ()>) {
    log::set_logger(&BadLogger).expect("no logger before");
    log::set_max_level(log::LevelFilter::Trace);
    System::new().block_on(body);
}

struct Idle;
impl Actor for Idle {
    type Context = Context<Self>;
}

/// Whether the supervisor still does its work.
async fn works(app: &Supervisor) {
    let spec = ChildSpec::new("works", || async { Ok::<_, Infallible>(Idle) });
    within("a start", app.start_child(spec)).await.unwrap();
    within("an end", app.terminate_child("works")).await.unwrap();
    within("a deletion", app.delete_child("works")).await.unwrap();
}

#[test]
fn an_error_that_cannot_be_printed_or_dropped() {
    alone("panics::an_error_that_cannot_be_printed_or_dropped", || {
        with_bad_logger(async {
            let diary = Diary::default();
            let inner =
                Supervisor::builder("inner").intensity(3, PATIENCE).child_spec(Puppet::spec(&diary, "a"));
            let app = Supervisor::builder("app").supervisor("inner", inner).start().await.unwrap();
            let inner = app.supervisor("inner").unwrap();
            for round in 0..3 {
                let bad = ChildSpec::new(format!("bad{round}"), || async { Err::<Idle, _>(Bad(Bomb)) });
                let error = within("an answer", inner.start_child(bad)).await.unwrap_err();
                assert!(matches!(&error, ChildError::Start { cause, .. } if cause.is::<Bad>()));
                // The last of the error is ours.
                std::mem::forget(error);
                // And now the last is the supervisor's: nobody waits for the answer.
                let bad = ChildSpec::new(format!("worse{round}"), || async { Err::<Idle, _>(Bad(Bomb)) });
                let mut start = Box::pin(inner.start_child(bad));
                let waker = std::task::Waker::noop();
                assert!(start.as_mut().poll(&mut TaskContext::from_waker(waker)).is_pending());
                drop(start);
            }
            assert!(who(&app, "inner/a").await > 0);
            assert_eq!(app.which_children().await.unwrap()[0].restarts, 0, "inner has not died");
            works(&app).await;
            // A nested supervisor that cannot start hands the error on.
            let bad = Supervisor::builder("bad").child("bad", || async { Err::<Idle, _>(Bad(Bomb)) });
            let error = within("an answer", app.start_child(bad)).await.unwrap_err();
            std::mem::forget(error);
            works(&app).await;
            stop(app, &diary).await;
        });
    });
}

#[test]
fn an_error_that_panics_when_it_is_turned_into_one() {
    struct Trap;
    impl From<Trap> for Box<dyn std::error::Error + Send + Sync> {
        fn from(_: Trap) -> Self {
            panic!("in from")
        }
    }
    alone("panics::an_error_that_panics_when_it_is_turned_into_one", || {
        System::new().block_on(async {
            let start = Supervisor::builder("app").child("a", || async { Err::<Idle, _>(Trap) }).start();
            let error = within("an answer", start).await.unwrap_err();
            assert_eq!(error.cause.downcast_ref(), Some(&StartFailure::Panicked("in from".into())));
        });
    });
}

/// The factory's closure holds a value whose drop panics; two of them at once would end the process.
fn bomb_spec(id: &str) -> ChildSpec<Idle> {
    let bombs = (Bomb,);
    ChildSpec::new(id, move || {
        let _ = &bombs;
        async { Ok::<_, Infallible>(Idle) }
    })
}

#[test]
fn a_factory_that_panics_when_dropped() {
    alone("panics::a_factory_that_panics_when_dropped", || {
        System::new().block_on(async {
            let inner = Supervisor::builder("inner").child_spec(bomb_spec("a")).child_spec(bomb_spec("b"));
            let app = Supervisor::builder("app")
                .supervisor("inner", inner)
                .supervisor("pool", Supervisor::dynamic("pool").max_children(1))
                .child_spec(bomb_spec("c"))
                .child_spec(bomb_spec("d"))
                .start()
                .await
                .unwrap();
            // Refused, in each way there is.
            for spec in [bomb_spec("c"), bomb_spec("c").significant(), bomb_spec("in/valid")] {
                assert!(within("an answer", app.start_child(spec)).await.is_err());
            }
            let pool = app.supervisor("pool").unwrap();
            pool.start_child(bomb_spec("x")).await.unwrap();
            assert!(matches!(pool.start_child(bomb_spec("y")).await, Err(ChildError::MaxChildren { .. })));
            // Forgotten.
            within("an end", pool.terminate_child("x")).await.unwrap();
            within("an end", app.terminate_child("c")).await.unwrap();
            within("a deletion", app.delete_child("c")).await.unwrap();
            app.start_child(bomb_spec("e").restart(Restart::Temporary)).await.unwrap();
            within("an end", app.terminate_child("e")).await.unwrap();
            within("an end", app.terminate_child("inner")).await.unwrap();
            within("a deletion", app.delete_child("inner")).await.unwrap();
            works(&app).await;
            within("the stop", app.stop()).await;
        });
        // Dropped with its System, and while it starts.
        let app = System::new().block_on(async {
            let app =
                Supervisor::builder("app").child_spec(bomb_spec("a")).child_spec(bomb_spec("b")).start();
            app.await.unwrap()
        });
        drop(app);
    });
}

#[test]
fn a_panic_whose_payload_panics() {
    struct Thrower;
    impl Actor for Thrower {
        type Context = Context<Self>;
    }
    impl Handler<End> for Thrower {
        type Result = ();
        fn handle(&mut self, _: End, _: &mut Self::Context) {
            std::panic::panic_any(Bomb);
        }
    }
    alone("panics::a_panic_whose_payload_panics", || {
        System::new().block_on(async {
            let app = Supervisor::builder("app")
                .child("a", || async { Ok::<_, Infallible>(Thrower) })
                .start()
                .await
                .unwrap();
            let mut reports = app.subscribe();
            app.child::<Thrower>("a").unwrap().do_send(End::Panic).unwrap();
            let reason = terminated(&mut reports, "a").await;
            assert_eq!(reason, ExitReason::Panic("a value that is not text".into()));
            started(&mut reports, "a").await;
            let bad = ChildSpec::new("bad", || async {
                std::panic::panic_any(Bomb);
                #[expect(unreachable_code, reason = "for its type")]
                Ok::<_, Infallible>(Thrower)
            });
            assert!(within("an answer", app.start_child(bad)).await.is_err());
            works(&app).await;
            within("the stop", app.stop()).await;
        });
    });
}

/// The future of a start, which panics when it is dropped, whether or not it has ended.
struct BombFuture {
    ready: bool,
    _bomb: Bomb,
}

impl Future for BombFuture {
    type Output = Result<Idle, Infallible>;

    fn poll(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Self::Output> {
        if self.ready { Poll::Ready(Ok(Idle)) } else { Poll::Pending }
    }
}

#[test]
fn a_start_that_panics_when_dropped() {
    alone("panics::a_start_that_panics_when_dropped", || {
        System::new().block_on(async {
            let app = Supervisor::builder("app").start().await.unwrap();
            let ready = ChildSpec::new("a", || BombFuture { ready: true, _bomb: Bomb });
            let error = within("an answer", app.start_child(ready)).await.unwrap_err();
            assert!(matches!(error, ChildError::Start { cause, .. }
                if cause.downcast_ref() == Some(&StartFailure::Panicked("in drop".into()))));
            let pending = ChildSpec::new("b", || BombFuture { ready: false, _bomb: Bomb });
            let starting = actix_rt::spawn({
                let app = app.downgrade();
                async move { app.start_child(pending).await }
            });
            tokio::task::yield_now().await;
            within("an end", app.terminate_child("b")).await.unwrap();
            assert!(matches!(within("an answer", starting).await.unwrap(), Err(ChildError::Cancelled)));
            works(&app).await;
            within("the stop", app.stop()).await;
        });
    });
}

/// Asked, killed brutally, killed because it was late, or dropped with its thread: with a panic on each way.
#[test]
fn an_actor_that_panics_on_its_way_out() {
    alone("panics::an_actor_that_panics_on_its_way_out", || {
        for (panics_in_stopping, panics_in_drop) in [(true, false), (false, true), (true, true)] {
            for shutdown in [Shutdown::Brutal, Shutdown::Infinity, Shutdown::Timeout(Duration::ZERO)] {
                let diary = Diary::default();
                let manners =
                    Manners { panics_in_stopping, panics_in_drop, pending_work: true, ..Manners::default() };
                System::new().block_on(async {
                    let app = Supervisor::builder("app")
                        .child_spec(Puppet::spec_with(&diary, "a", manners.clone()).shutdown(shutdown))
                        .child_spec(Puppet::spec_with(&diary, "b", manners.clone()).on_dedicated_arbiter())
                        .start()
                        .await
                        .unwrap();
                    let mut reports = app.subscribe();
                    within("an end", app.terminate_child("a")).await.unwrap();
                    let end = |event: &ReportEvent| {
                        matches!(event, ReportEvent::Stopped { .. } | ReportEvent::ShutdownError { .. })
                    };
                    report_where(&mut reports, |report| end(&report.event)).await;
                    app.restart_child("a").await.unwrap();
                    works(&app).await;
                    stop(app, &diary).await;
                });
            }
        }
    });
}
