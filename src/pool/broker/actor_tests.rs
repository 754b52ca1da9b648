//! The broker's own death, and news that come in an unlucky order, under way with real workers.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use actix::{Context, Handler, Message, System};
use futures_util::future::{FutureExt, join_all};

use super::ReloadError;
use super::{PoolActor, PoolStatus};
use crate::Pool;
use crate::error::{CallError, UnavailableCause};
use crate::worker::Placement;

const MODULE: &str = r#"
import os, time

calls = 0


def hold(name):
    open(name + ".began", "w").close()
    end = time.monotonic() + 60
    while not os.path.exists(name + ".go"):
        if time.monotonic() > end:
            raise TimeoutError(name)
        time.sleep(0.002)
    return os.getpid()


def count():
    global calls
    calls += 1
    return calls
"#;

/// More than anything that is waited for may take, on a busy machine too.
const LONG: Duration = Duration::from_secs(30);

/// Stands for a bug of ours.
#[derive(Message)]
#[rtype(result = "()")]
struct Panic;

impl Handler<Panic> for PoolActor {
    type Result = ();

    fn handle(&mut self, Panic: Panic, _: &mut Context<Self>) {
        panic!("as ordered");
    }
}

/// Keeps the broker from all else until the sender is gone.
#[derive(Message)]
#[rtype(result = "()")]
struct Stall(mpsc::Receiver<()>);

impl Handler<Stall> for PoolActor {
    type Result = ();

    fn handle(&mut self, Stall(until): Stall, _: &mut Context<Self>) {
        let _ = until.recv_timeout(Duration::from_secs(30));
    }
}

/// A folder of this test's own.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hatchery-broker-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).expect("a folder");
        std::fs::write(path.join("subject.py"), MODULE).expect("a module");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !condition().await {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn status_when(pool: &Pool, what: &str, wanted: impl Fn(&PoolStatus) -> bool) {
    until(what, async || pool.status().await.is_ok_and(|status| wanted(&status))).await;
}

async fn pids(pool: &Pool) -> Vec<Option<u32>> {
    pool.status().await.expect("the broker is up").workers.iter().map(|worker| worker.pid).collect()
}

async fn file(path: &Path) {
    until("Python is there", async || path.exists()).await;
}

/// A call in a task of its own.
fn hold(pool: &Pool, name: &'static str) -> actix_rt::task::JoinHandle<Result<u32, CallError>> {
    let pool = pool.clone();
    actix_rt::spawn(async move { pool.call("hold", (name,)).await })
}

#[track_caller]
fn assert_restarting<T: std::fmt::Debug>(answer: Result<T, CallError>) {
    let error = answer.expect_err("the broker is gone");
    assert!(
        matches!(error, CallError::Unavailable { cause: UnavailableCause::BrokerRestarting }),
        "{error:?}"
    );
    assert!(error.is_retryable() && error.attempts() == 0);
}

/// Whether the call ended with its worker, which the broker's death has killed.
#[track_caller]
fn assert_died_with_broker<T: std::fmt::Debug>(answer: Result<T, CallError>, has_begun: bool) {
    match answer.expect_err("its worker is gone") {
        CallError::WorkerDied { started, reason, .. } => {
            assert_eq!(started, has_begun);
            assert!(!has_begun || reason.as_deref() == Some("the pool's broker died"), "{reason:?}");
        }
        error => panic!("{error:?}"),
    }
}

#[test]
fn broker_panic_replaces_workers_and_answers_callers() {
    let folder = Folder::new("panic");
    System::new().block_on(async {
        let builder = Pool::builder().module("subject").path(&folder.0).current_dir(&folder.0).size(3);
        let pool = builder.checkout_timeout(LONG).start().await.expect("it starts");
        let before = pids(&pool).await;
        let incarnation = pool.actor().incarnation();

        let lease = pool.checkout().await.expect("a worker is free");
        assert_eq!(lease.call::<_, u32>("count", ()).await.expect("it serves"), 1);
        let running = [hold(&pool, "one"), hold(&pool, "other")];
        file(&folder.0.join("one.began")).await;
        file(&folder.0.join("other.began")).await;
        let waiting = hold(&pool, "never");
        let waiting_checkout = actix_rt::spawn({
            let pool = pool.clone();
            async move { pool.checkout().await.map(drop) }
        });
        status_when(&pool, "two wait", |status| status.waiting == 2).await;

        pool.actor().do_send(Panic).expect("it is up");
        assert_restarting(waiting.await.expect("no panic here"));
        assert_restarting(waiting_checkout.await.expect("no panic here"));
        for call in running {
            assert_died_with_broker(call.await.expect("no panic here"), true);
        }
        assert_died_with_broker(lease.call::<_, u32>("count", ()).await, false);

        status_when(&pool, "a new broker with its workers", |status| status.idle == 3).await;
        assert!(pool.actor().incarnation() > incarnation);
        let after = pids(&pool).await;
        assert!(after.iter().all(|pid| pid.is_some() && !before.contains(pid)), "{before:?} {after:?}");
        drop(lease);
        assert_eq!(pool.call::<_, u32>("count", ()).await.expect("it serves"), 1);
        assert!(!folder.0.join("never.began").exists());
        pool.shutdown().await;
    });
}

#[test]
fn session_after_broker_panic_begins_anew() {
    let folder = Folder::new("session");
    System::new().block_on(async {
        let builder = Pool::builder().module("subject").path(&folder.0).size(2);
        let pool = builder.checkout_timeout(LONG).start().await.expect("it starts");
        let alice = pool.session("alice");
        let placement = async || alice.request("count").send_raw().await.expect("it serves").placement();
        assert_eq!(placement().await, Some(Placement::New));
        assert_eq!(placement().await, Some(Placement::Kept));
        let incarnation = pool.actor().incarnation();
        pool.actor().do_send(Panic).expect("it is up");
        until("another broker", async || pool.actor().incarnation() > incarnation).await;
        assert_eq!(placement().await, Some(Placement::New));
        pool.shutdown().await;
    });
}

#[test]
fn callers_that_left_while_the_broker_was_busy_do_not_fill_the_queue() {
    let folder = Folder::new("left");
    System::new().block_on(async {
        let builder = Pool::builder().module("subject").path(&folder.0).current_dir(&folder.0).size(1);
        let pool = builder.queue_bound(2).start().await.expect("it starts");
        let holds = hold(&pool, "worker");
        file(&folder.0.join("worker.began")).await;
        let (goes_on, stalled) = mpsc::channel();
        pool.actor().do_send(Stall(stalled)).expect("it is up");
        for _ in 0..10 {
            assert!(pool.call::<_, u32>("count", ()).now_or_never().is_none(), "it is left");
        }
        let caller = pool.clone();
        let mut stays = Box::pin(async move { caller.call::<_, u32>("count", ()).await });
        assert!((&mut stays).now_or_never().is_none(), "the broker is busy");
        let stays = actix_rt::spawn(stays);
        drop(goes_on);
        status_when(&pool, "it waits", |status| status.waiting == 1).await;
        std::fs::write(folder.0.join("worker.go"), "").expect("the folder is there");
        holds.await.expect("no panic here").expect("it ends");
        assert_eq!(stays.await.expect("no panic").expect("the queue is not full"), 1);
        let status = pool.status().await.expect("it is up");
        // Three callers filled the inbox before they left; the other seven only announced their requests.
        assert_eq!((status.submitted, status.assigned, status.abandoned, status.overloaded), (5, 2, 3, 0));
        pool.shutdown().await;
    });
}

/// The first error of calls that follow each other.
async fn first_error(pool: &Pool) -> CallError {
    loop {
        let answer = tokio::time::timeout(LONG, pool.call::<_, u32>("count", ())).await;
        if let Err(error) = answer.expect("it is answered") {
            return error;
        }
    }
}

#[test]
fn whoever_calls_while_a_pool_shuts_down_hears_that() {
    let folder = Folder::new("closing");
    let system = System::new();
    for _ in 0..10 {
        let builder = Pool::builder().module("subject").path(&folder.0).size(1);
        let pool = system
            .block_on(builder.checkout_timeout(LONG).shutdown_timeout(LONG).start())
            .expect("it starts");
        std::thread::scope(|scope| {
            let callers = [(); 2].map(|()| {
                scope.spawn(|| System::new().block_on(join_all((0..4).map(|_| first_error(&pool)))))
            });
            system.block_on(async {
                status_when(&pool, "calls", |status| status.assigned > 20).await;
                pool.shutdown().await;
            });
            for error in callers.into_iter().flat_map(|caller| caller.join().expect("no panic")) {
                let told = matches!(
                    error,
                    CallError::Draining | CallError::Unavailable { cause: UnavailableCause::Stopped }
                );
                assert!(told, "{error:?}");
            }
        });
    }
}

/// Calls until it is over, and counts its calls.
fn call_until(over: &AtomicBool, calls: &AtomicUsize, pool: &Pool) {
    let one_after_the_other = async || {
        while !over.load(Ordering::SeqCst) {
            let answer = tokio::time::timeout(LONG, pool.call::<_, u32>("count", ())).await;
            match answer.expect("it is answered") {
                Err(CallError::Unavailable { cause: UnavailableCause::BrokerRestarting }) => {}
                Err(CallError::WorkerDied { reason: Some(reason), .. })
                    if reason == "the pool's broker died" => {}
                answer => drop(answer.expect("it serves")),
            }
            calls.fetch_add(1, Ordering::SeqCst);
        }
    };
    System::new().block_on(join_all((0..4).map(|_| one_after_the_other())));
}

#[test]
fn whatever_is_submitted_while_a_broker_dies_is_answered() {
    let folder = Folder::new("answers");
    let (calls, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let system = System::new();
    let builder =
        Pool::builder().module("subject").path(&folder.0).size(2).call_timeout(Duration::from_secs(60));
    let pool = system.block_on(builder.start()).expect("it starts");
    let before = pool.actor().incarnation();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| call_until(&over, &calls, &pool));
        }
        system.block_on(async {
            until("calls", async || calls.load(Ordering::SeqCst) >= 1000).await;
            pool.actor().do_send(Panic).expect("it is up");
            until("another broker", async || pool.actor().incarnation() > before).await;
            let so_far = calls.load(Ordering::SeqCst);
            until("more calls", async || calls.load(Ordering::SeqCst) >= so_far + 1000).await;
            over.store(true, Ordering::SeqCst);
        });
    });
    system.block_on(pool.shutdown());
}

/// The module, whose first process from now on waits at its start for "start.go".
const FIRST_WAITS: &str = r#"
import hatchery


@hatchery.on_start
def first_waits():
    if not os.path.exists("start.began"):
        hold("start")
        open("start.pid", "w").write(str(os.getpid()))
"#;

/// A pool of one worker, and a reload of it whose successor has begun to start.
async fn reloading(folder: &Folder) -> (Pool, actix_rt::task::JoinHandle<Result<(), ReloadError>>) {
    let builder = Pool::builder().module("subject").path(&folder.0).current_dir(&folder.0).size(1);
    let pool = builder.start().await.expect("it starts");
    std::fs::write(folder.0.join("subject.py"), [MODULE, FIRST_WAITS].concat()).expect("a module");
    let reload = actix_rt::spawn({
        let pool = pool.clone();
        async move { pool.reload().await }
    });
    file(&folder.0.join("start.began")).await;
    (pool, reload)
}

async fn count(pool: &Pool) -> u32 {
    pool.call("count", ()).await.expect("it serves")
}

#[test]
fn broker_panic_in_reload_leaves_pool_that_can_be_reloaded() {
    let folder = Folder::new("reload");
    System::new().block_on(async {
        let (pool, reload) = reloading(&folder).await;
        let before = pids(&pool).await;
        assert_eq!(count(&pool).await, 1);
        pool.actor().do_send(Panic).expect("it is up");
        let outcome = reload.await.expect("no panic here");
        let Err(ReloadError::Unavailable(UnavailableCause::BrokerRestarting)) = outcome else {
            panic!("{outcome:?}")
        };
        status_when(&pool, "a broker with its worker", |status| status.idle == 1).await;
        let second = pids(&pool).await;
        assert_ne!(second, before);
        assert_eq!(count(&pool).await, 1);
        pool.reload().await.expect("the code is good");
        assert_eq!(count(&pool).await, 1);
        assert_ne!(pids(&pool).await, second);
        pool.shutdown().await;
    });
}
