//! What waits in a mailbox when its actor ends, above all messages that panic in `Drop`: how the actor ended does not
//! depend on them, nothing aborts, and each sender is told.

use std::{future::pending, time::Duration};

use actix::prelude::*;
use actix_rt::Arbiter;
use futures_util::future::join_all;
use hatchery::supervisor::{ExitReason, ReportEvent, SendError, Shutdown, Strategy, Supervisor};

use crate::support::*;

/// Panics when it is dropped; a handler that takes it forgets it.
#[derive(Message)]
#[rtype(result = "()")]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("in a message's drop");
    }
}

impl Handler<Bomb> for Puppet {
    type Result = ();

    fn handle(&mut self, bomb: Bomb, _: &mut Self::Context) {
        std::mem::forget(bomb);
    }
}

/// Fills the actor's mailbox with so many bombs, and then does something.
#[derive(Message)]
#[rtype(result = "()")]
struct Fill(usize, Then);

type Then = fn(&mut Puppet, &mut Context<Puppet>);

impl Handler<Fill> for Puppet {
    type Result = ();

    fn handle(&mut self, Fill(bombs, then): Fill, ctx: &mut Self::Context) {
        for _ in 0..bombs {
            ctx.address().do_send(Bomb);
        }
        then(self, ctx);
    }
}

fn wait(puppet: &mut Puppet, ctx: &mut Context<Puppet>) {
    ctx.wait(pending::<()>().into_actor(puppet));
}

/// Something that shows when all messages before it were handled.
#[derive(Message)]
#[rtype(result = "()")]
struct Note(usize);

impl Handler<Note> for Puppet {
    type Result = ();

    fn handle(&mut self, Note(number): Note, _: &mut Self::Context) {
        self.diary.write(number.to_string());
    }
}

/// With the reason of one whose own drop does not panic.
fn ways_to_end() -> [(Then, ExitReason); 5] {
    [
        (|_, ctx| ctx.stop(), ExitReason::Normal),
        (|_, _| panic!("in a handler"), ExitReason::Panic("in a handler".into())),
        (
            |puppet, ctx| ctx.wait(async { panic!("in a future") }.into_actor(puppet)),
            ExitReason::Panic("in a future".into()),
        ),
        (
            |puppet, ctx| {
                wait(puppet, ctx);
                puppet.cx.exit(ExitReason::Abnormal("own".into()));
            },
            ExitReason::Abnormal("own".into()),
        ),
        (
            |puppet, ctx| {
                wait(puppet, ctx);
                puppet.cx.exit(ExitReason::Normal);
            },
            ExitReason::Normal,
        ),
    ]
}

#[test]
fn end_does_not_depend_on_what_the_mailbox_holds() {
    alone("mailboxes::end_does_not_depend_on_what_the_mailbox_holds", || {
        System::new().block_on(async {
            for panics_in_drop in [false, true] {
                let diary = Diary::default();
                let manners = Manners { panics_in_drop, ..Manners::default() };
                let app = Supervisor::builder("app")
                    .intensity(u32::MAX, HOUR)
                    .child_spec(Puppet::spec_with(&diary, "a", manners.clone()))
                    .child_spec(Puppet::spec_with(&diary, "b", manners).on_dedicated_arbiter())
                    .start()
                    .await
                    .unwrap();
                let mut reports = app.subscribe();
                for (id, bombs) in ["a", "b"].into_iter().flat_map(|id| (0..4).map(move |n| (id, n))) {
                    for (then, reason) in ways_to_end() {
                        puppet(&app, id).do_send(Fill(bombs, then)).unwrap();
                        let expected = match reason.is_normal() && panics_in_drop {
                            true => ExitReason::Panic("in drop".into()),
                            false => reason,
                        };
                        assert_eq!(terminated(&mut reports, id).await, expected, "{id}: {bombs} bombs");
                        started(&mut reports, id).await;
                    }
                }
                stop(app, &diary).await;
            }
        });
    });
}

#[test]
fn stop_does_not_depend_on_what_the_mailbox_holds() {
    alone("mailboxes::stop_does_not_depend_on_what_the_mailbox_holds", || {
        System::new().block_on(async {
            for shutdown in [Shutdown::Brutal, Shutdown::Infinity, Shutdown::Timeout(Duration::ZERO)] {
                for panics_in_drop in [false, true] {
                    let diary = Diary::default();
                    let manners = Manners { panics_in_drop, ..Manners::default() };
                    let spec = Puppet::spec_with(&diary, "a", manners).shutdown(shutdown);
                    let app = Supervisor::builder("app").child_spec(spec).start().await.unwrap();
                    for bombs in 0..4 {
                        let mut reports = app.subscribe();
                        within("an answer", puppet(&app, "a").send(Fill(bombs, wait))).await.unwrap();
                        within("an end", app.terminate_child("a")).await.unwrap();
                        let event = next_report(&mut reports).await.event;
                        let as_asked = shutdown == Shutdown::Brutal || !panics_in_drop;
                        assert_eq!(matches!(event, ReportEvent::Stopped { .. }), as_asked, "{event:?}");
                        within("a start", app.restart_child("a")).await.unwrap();
                    }
                    stop(app, &diary).await;
                }
            }
        });
    });
}

#[test]
fn stopped_arbiter_is_told_whatever_the_mailbox_holds() {
    alone("mailboxes::stopped_arbiter_is_told_whatever_the_mailbox_holds", || {
        System::new().block_on(async {
            for (bombs, panics_in_drop) in (0..4).flat_map(|bombs| [(bombs, false), (bombs, true)]) {
                let diary = Diary::default();
                let arbiter = Arbiter::new();
                let manners = Manners { panics_in_drop, ..Manners::default() };
                let spec = Puppet::spec_with(&diary, "a", manners).on(arbiter.handle());
                let app = Supervisor::builder("app").child_spec(spec).start().await.unwrap();
                let mut reports = app.subscribe();
                within("an answer", puppet(&app, "a").send(Fill(bombs, wait))).await.unwrap();
                arbiter.stop();
                assert_eq!(terminated(&mut reports, "a").await, ExitReason::ArbiterStopped);
                within("the end", app.ended()).await;
                arbiter.join().unwrap();
            }
        });
        // The System of the whole tree.
        let app = System::new().block_on(async {
            let diary = Diary::default();
            let app = Supervisor::builder("app").child_spec(Puppet::spec(&diary, "a")).start().await.unwrap();
            within("an answer", puppet(&app, "a").send(Fill(3, wait))).await.unwrap();
            app
        });
        drop(app);
    });
}

#[test]
fn senders_of_messages_that_are_left_learn_that_they_are_lost() {
    alone("mailboxes::senders_of_messages_that_are_left_learn_that_they_are_lost", || {
        System::new().block_on(async {
            let diary = Diary::default();
            let app = Supervisor::builder("app").child_spec(Puppet::spec(&diary, "a")).start().await.unwrap();
            let a = puppet(&app, "a");
            let address = a.addr(); // keeps the channel
            within("an answer", a.send(Fill(0, wait))).await.unwrap();
            let bombs = join_all((0..3).map(|_| a.send(Bomb)));
            let notes = join_all((0..3).map(|number| a.send(Note(number))));
            let more = join_all((0..30).map(|_| a.send(Bomb)));
            within("an end", app.terminate_child("a")).await.unwrap();
            let (bombs, notes, more) =
                within("answers", async { (bombs.await, notes.await, more.await) }).await;
            for answer in bombs.into_iter().chain(notes).chain(more) {
                assert_eq!(answer, Err(SendError::Lost));
            }
            drop(address);
            stop(app, &diary).await;
        });
    });
}

#[test]
fn message_taken_back_that_panics_in_drop_ends_nobody() {
    alone("mailboxes::message_taken_back_that_panics_in_drop_ends_nobody", || {
        System::new().block_on(async {
            let diary = Diary::default();
            let app = Supervisor::builder("app").child_spec(Puppet::spec(&diary, "a")).start().await.unwrap();
            let incarnation = who(&app, "a").await;
            for _ in 0..3 {
                drop(puppet(&app, "a").send(Bomb));
            }
            assert_eq!(who(&app, "a").await, incarnation);
            stop(app, &diary).await;
        });
    });
}

/// The mailbox has room for 16; what is sent beyond that goes the same way.
#[actix::test]
async fn send_sends_at_once_also_to_a_full_mailbox() {
    const COUNT: usize = 100;
    let diary = Diary::default();
    let app = Supervisor::builder("app").child_spec(Puppet::spec(&diary, "a")).start().await.unwrap();
    let a = puppet(&app, "a");
    diary.take();
    // Nobody polls these before all have been handled.
    let requests: Vec<_> = (0..COUNT).map(|number| a.send(Note(number))).collect();
    a.do_send(Note(COUNT)).unwrap();
    diary.wait_for(&COUNT.to_string()).await;
    assert_eq!(diary.take(), (0..=COUNT).map(|number| number.to_string()).collect::<Vec<_>>());
    for answer in within("answers", join_all(requests)).await {
        assert_eq!(answer, Ok(()));
    }
    stop(app, &diary).await;
}

#[derive(Message)]
#[rtype(result = "()")]
struct PanicLater;

impl Handler<PanicLater> for Puppet {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: PanicLater, _: &mut Self::Context) -> Self::Result {
        Box::pin(async { panic!("in a response") }.into_actor(self))
    }
}

/// Unlike a `ResponseFuture`, which actix runs outside the actor.
#[actix::test]
async fn response_act_future_panics_as_its_actor() {
    let diary = Diary::default();
    let app = Supervisor::builder("app").child_spec(Puppet::spec(&diary, "a")).start().await.unwrap();
    let mut reports = app.subscribe();
    let answer = within("an answer", puppet(&app, "a").send(PanicLater)).await;
    assert_eq!(answer, Err(SendError::Lost));
    assert_eq!(terminated(&mut reports, "a").await, ExitReason::Panic("in a response".into()));
    started(&mut reports, "a").await;
    stop(app, &diary).await;
}

/// A future of the actor's is the actor's own: its panic counts, unlike those of the messages beside it.
#[test]
fn future_that_panics_in_drop_counts_as_its_actor() {
    fn spawn_bomb(puppet: &mut Puppet, ctx: &mut Context<Puppet>) {
        let bomb = Bomb;
        let future = async move {
            pending::<()>().await;
            drop(bomb);
        };
        ctx.spawn(future.into_actor(puppet));
    }
    let ways: [(Then, &str); 2] = [
        (
            |puppet, ctx| {
                spawn_bomb(puppet, ctx);
                ctx.stop();
            },
            "in a message's drop",
        ),
        (
            |puppet, ctx| {
                spawn_bomb(puppet, ctx);
                ctx.wait(async { panic!("in a future") }.into_actor(puppet));
            },
            "in a future",
        ),
    ];
    alone("mailboxes::future_that_panics_in_drop_counts_as_its_actor", || {
        System::new().block_on(async {
            let diary = Diary::default();
            let app = group(&diary, Strategy::OneForOne, u32::MAX, &["a"]).start().await.unwrap();
            let mut reports = app.subscribe();
            for (bombs, (then, message)) in (0..4).flat_map(|bombs| ways.map(|way| (bombs, way))) {
                puppet(&app, "a").do_send(Fill(bombs, then)).unwrap();
                assert_eq!(terminated(&mut reports, "a").await, ExitReason::Panic(message.into()));
                started(&mut reports, "a").await;
            }
            stop(app, &diary).await;
        });
    });
}
