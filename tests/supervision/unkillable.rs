//! Actors that block their threads, so that no kill ends them: nobody waits for ever, and no second one is started.

use std::{
    convert::Infallible,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use actix::prelude::*;
use hatchery::supervisor::{
    Backoff, ChildError, ChildSpec, ChildState, ReportEvent, SendError, Shutdown, StartFailure, Strategy,
    Supervisor, SupervisorBuilder,
};

use crate::support::*;

/// A door at which actors block their threads, until the test opens it.
#[derive(Clone, Default)]
struct Door(Arc<(Mutex<(bool, usize)>, Condvar)>);

impl Door {
    fn wait(&self) {
        let (state, opened) = &*self.0;
        let mut state = state.lock().unwrap();
        state.1 += 1;
        while !state.0 {
            state = opened.wait(state).unwrap();
        }
    }

    fn waiting(&self) -> usize {
        self.0.0.lock().unwrap().1
    }

    fn open(&self) {
        self.0.0.lock().unwrap().0 = true;
        self.0.1.notify_all();
    }
}

impl Drop for Door {
    /// A failed test must not leave a thread that its System waits for.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.open();
        }
    }
}

struct Blocker {
    door: Door,
    _guard: Guard,
}

impl Actor for Blocker {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "()")]
struct Block;

impl Handler<Block> for Blocker {
    type Result = ();
    fn handle(&mut self, _: Block, _: &mut Self::Context) {
        self.door.wait();
    }
}

/// On a thread of its own; killed at once when it is to stop.
fn blocker(diary: &Diary, door: &Door, id: &str) -> ChildSpec<Blocker> {
    let (diary, door) = (diary.clone(), door.clone());
    let spec = ChildSpec::with_context(id, move |cx| {
        diary.write(format!("start {}", cx.id()));
        let blocker = Blocker { door: door.clone(), _guard: diary.guard(&cx.path()) };
        async move { Ok::<_, Infallible>(blocker) }
    });
    spec.on_dedicated_arbiter().shutdown(Shutdown::Brutal)
}

async fn block(app: &Supervisor, path: &str, door: &Door) {
    let before = door.waiting();
    app.child::<Blocker>(path).unwrap().do_send(Block).unwrap();
    wait_until("the block to begin", || door.waiting() > before).await;
}

fn group(diary: &Diary, door: &Door, intensity: u32) -> SupervisorBuilder {
    Supervisor::builder("group")
        .strategy(Strategy::OneForAll)
        .intensity(intensity, Duration::from_secs(3600))
        .child_spec(Puppet::spec(diary, "a"))
        .child_spec(blocker(diary, door, "b"))
        .child_spec(Puppet::spec(diary, "c"))
}

fn is_unkillable(event: &ReportEvent) -> bool {
    matches!(event, ReportEvent::Unkillable { .. })
}

#[actix::test]
async fn a_child_that_blocks_its_thread_is_unkillable() {
    let (diary, door) = (Diary::default(), Door::default());
    let app = Supervisor::builder("app").child_spec(blocker(&diary, &door, "a")).start().await.unwrap();
    let mut reports = app.subscribe();
    block(&app, "a", &door).await;
    assert!(matches!(within("an answer", app.terminate_child("a")).await, Err(ChildError::Unkillable)));
    assert_eq!(diary.living(), 1, "and it is not claimed dead");
    report_where(&mut reports, |report| is_unkillable(&report.event)).await;
    within("the stop", app.stop()).await;
    assert_eq!(diary.living(), 1, "nobody waits for it");
    door.open();
    diary.wait_until_empty().await;
}

#[actix::test]
async fn a_group_restart_goes_on_when_it_has_ended() {
    let (diary, door) = (Diary::default(), Door::default());
    let app = Supervisor::builder("app")
        .child_spec(Puppet::spec(&diary, "aside"))
        .supervisor("group", group(&diary, &door, 1000))
        .start()
        .await
        .unwrap();
    block(&app, "group/b", &door).await;
    let b = app.child::<Blocker>("group/b").unwrap();
    let mut reports = app.subscribe();
    puppet(&app, "group/a").do_send(End::Panic).unwrap();
    report_where(&mut reports, |report| is_unkillable(&report.event)).await;

    // Nobody gets through to it any more, and nobody is told that it is dead.
    assert_eq!(b.do_send(Block), Err(SendError::Restarting));
    let group = app.supervisor("group").unwrap();
    let children = within("the list", group.which_children()).await.unwrap();
    assert_eq!(children[1].state, ChildState::Restarting);
    assert!(children[1].incarnation.is_some());
    assert!(matches!(within("an answer", group.restart_child("b")).await, Err(ChildError::Restarting)));
    // What does not concern it is carried out.
    within("a start", group.start_child(Puppet::spec(&diary, "d"))).await.unwrap();
    within("an end", app.terminate_child("group/d")).await.unwrap();
    assert!(within("an answer", puppet(&app, "aside").send(Who)).await.is_ok());

    let mut reports = app.subscribe();
    door.open();
    assert!(started(&mut reports, "b").await > children[1].incarnation.unwrap());
    started(&mut reports, "c").await;
    assert!(b.ready(PATIENCE).await.is_ok());
    stop(app, &diary).await;
}

/// Each supervisor on the way up gives up in its turn, and the whole ends.
#[actix::test]
async fn one_that_never_ends_makes_the_tree_give_up() {
    let (diary, door) = (Diary::default(), Door::default());
    let app = Supervisor::builder("app").supervisor("group", group(&diary, &door, 1)).start().await.unwrap();
    block(&app, "group/b", &door).await;
    let mut reports = app.subscribe();
    diary.take();
    puppet(&app, "group/a").do_send(End::Panic).unwrap();
    within("the end", app.ended()).await;
    let starts = diary.take();
    assert!(!starts.contains(&"start b".to_owned()), "{starts:?}");
    let mut causes = Vec::new();
    while let Some(report) = within("the last report", reports.recv()).await {
        if let ReportEvent::StartFailed { id, cause, .. } = report.event {
            causes.push(format!("{id}: {cause}"));
        }
    }
    let still = StartFailure::StillRunning;
    assert_eq!(causes[0], format!("b: {still}"));
    assert!(causes.contains(&format!("group: could not start `app/group/b`: {still}")), "{causes:?}");
    assert_eq!(diary.living(), 1, "it lives on, and nothing beside it");
    door.open();
    diary.wait_until_empty().await;
}

/// The supervisor that gave it up is started again by its parent while it lives.
#[actix::test]
async fn a_restarted_supervisor_waits_for_what_it_has_left_behind() {
    let (diary, door) = (Diary::default(), Door::default());
    let inner = Supervisor::builder("inner")
        .intensity(0, PATIENCE)
        .child_spec(Puppet::spec(&diary, "a"))
        .child_spec(blocker(&diary, &door, "b"));
    let backoff = Backoff { free: 0, first: Duration::from_millis(1), ..Backoff::default() };
    let app =
        Supervisor::builder("app").child_spec(ChildSpec::from(inner).backoff(backoff)).start().await.unwrap();
    block(&app, "inner/b", &door).await;
    diary.take();
    let mut reports = app.subscribe();
    puppet(&app, "inner/a").do_send(End::Panic).unwrap();
    let failed = report_where(
        &mut reports,
        |report| matches!(&report.event, ReportEvent::StartFailed { id, .. } if &**id == "inner"),
    );
    within("a failed start", failed).await;
    assert!(!diary.take().contains(&"start b".to_owned()));
    door.open();
    started(&mut reports, "inner").await;
    assert!(app.child::<Blocker>("inner/b").unwrap().ready(PATIENCE).await.is_ok());
    stop(app, &diary).await;
}

/// Its specification is gone with the supervisor's, and another child of its id asked for.
#[actix::test]
async fn a_forgotten_one_is_not_joined_by_another_of_its_path() {
    let (diary, door) = (Diary::default(), Door::default());
    let inner = || Supervisor::builder("inner").child_spec(blocker(&diary, &door, "b"));
    let app =
        Supervisor::builder("app").supervisor("pool", Supervisor::dynamic("pool")).start().await.unwrap();
    let pool = app.supervisor("pool").unwrap();
    pool.start_child(inner()).await.unwrap();
    block(&app, "pool/inner/b", &door).await;
    within("the end", app.terminate_child("pool/inner")).await.unwrap();
    assert_eq!(diary.living(), 1);
    let error = within("an answer", pool.start_child(inner())).await.unwrap_err();
    let text = "could not start: could not start `app/pool/inner/b`: an earlier instance still runs and cannot be killed";
    assert_eq!(error.to_string(), text);
    door.open();
    diary.wait_until_empty().await;
    within("a start", pool.start_child(inner())).await.unwrap();
    stop(app, &diary).await;
}

/// A supervisor that is dropped with its arbiter cannot wait for its children on other threads.
#[actix::test]
async fn a_supervisor_whose_arbiter_stopped_is_not_joined_by_its_children() {
    let (diary, door) = (Diary::default(), Door::default());
    let (send, handles) = std::sync::mpsc::channel();
    let inner = Supervisor::builder("inner")
        .child("arbiter", move || {
            // The thread on which the supervisor runs.
            send.send(Arbiter::current()).unwrap();
            async { Ok::<_, Infallible>(Idle) }
        })
        .child_spec(blocker(&diary, &door, "b"));
    let app = Supervisor::builder("app")
        .intensity(1000, PATIENCE)
        .child_spec(ChildSpec::from(inner).on_dedicated_arbiter())
        .start()
        .await
        .unwrap();
    block(&app, "inner/b", &door).await;
    let mut reports = app.subscribe();
    diary.take();
    handles.recv().unwrap().stop();
    let failed = report_where(
        &mut reports,
        |report| matches!(&report.event, ReportEvent::StartFailed { id, .. } if &**id == "b"),
    );
    within("a failed start", failed).await;
    assert!(!diary.take().contains(&"start b".to_owned()));
    door.open();
    started(&mut reports, "inner").await;
    assert_eq!(diary.take(), ["start b"]);
    stop(app, &diary).await;
}

struct Idle;
impl Actor for Idle {
    type Context = Context<Self>;
}

/// The factory, too, may block.
#[actix::test]
async fn a_start_that_blocks_is_given_up_and_leaves_no_actor() {
    let (diary, door) = (Diary::default(), Door::default());
    let spec = ChildSpec::new("b", {
        let (diary, door) = (diary.clone(), door.clone());
        move || {
            door.wait();
            diary.write("made");
            async { Ok::<_, Infallible>(Idle) }
        }
    });
    let app = Supervisor::builder("app").start().await.unwrap();
    let starting = actix_rt::spawn({
        let app = app.downgrade();
        async move { app.start_child(spec.on_dedicated_arbiter()).await }
    });
    wait_until("the block to begin", || door.waiting() == 1).await;
    assert!(matches!(within("an answer", app.terminate_child("b")).await, Err(ChildError::Unkillable)));
    assert!(matches!(within("an answer", starting).await.unwrap(), Err(ChildError::Unkillable)));
    door.open();
    wait_until("its end", || diary.take().contains(&"made".to_owned())).await;
    let restart = async {
        loop {
            match app.restart_child("b").await {
                // Its end has not come in yet.
                Err(ChildError::Running) => tokio::task::yield_now().await,
                answer => break answer,
            }
        }
    };
    assert!(within("the restart", restart).await.unwrap().is_some());
    stop(app, &diary).await;
}
