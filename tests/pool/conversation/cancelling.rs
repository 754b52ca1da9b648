//! The caller drops its call while Python runs it: the call is cancelled and the worker continues. A worker whose call ignores
//! the cancel is killed.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use hatchery::{CallError, Pool};

use super::HANGS;
use crate::support::{
    LONG_TIMEOUT, SHORT_TIMEOUT, Seed, alone_test, assert_workers_kept, is_alive, lines, pids, pool_with,
    python_module, scratch, scratch_file, status_when, wait_for_file,
};

const SOURCE: &str = r#"
import hatchery


def run(name):
    """Run a function of this module and write its exception to NAME.ended."""
    try:
        assert not hatchery.cancelled()
        globals()[name]()
    except BaseException as error:
        append(name + ".ended", f"{type(error).__name__} {hatchery.cancelled()}")
        raise


async def run_async(name):
    try:
        assert not hatchery.cancelled()
        await globals()[name]()
    except BaseException as error:
        append(name + ".ended", f"{type(error).__name__} {hatchery.cancelled()}")
        raise


def importing():
    import slow


def import_slow():
    import slow

    return slow.value


def in_finally():
    try:
        pass
    finally:
        touch("in_finally.began")
        time.sleep(1000)


def in_with():
    with Slow():
        pass


class Slow:
    def __enter__(self):
        pass

    def __exit__(self, *_):
        touch("in_with.began")
        time.sleep(1000)


class SlowToDie:
    def __del__(self):
        try:
            touch("in_del.began")
            time.sleep(1000)
        except BaseException:
            touch("in_del.interrupted")
            raise


def in_del():
    SlowToDie()
    time.sleep(1000)


def in_except():
    try:
        raise ValueError
    except ValueError:
        touch("in_except.began")
        time.sleep(1000)


def sorting():
    touch("sorting.began")
    sorted(range(1000), key=lambda _: time.sleep(1))


def with_thread():
    """A thread of the call polls hatchery.cancelled()."""
    def watch():
        while not hatchery.cancelled():
            time.sleep(0.002)
        touch("with_thread.seen")

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        touch("with_thread.began")
        time.sleep(1000)
    finally:
        thread.join()


async def cleaning_up():
    touch("cleaning_up.began")
    try:
        await asyncio.sleep(1000)
    finally:
        await asyncio.sleep(0.01)
        touch("cleaning_up.done")


async def shielding():
    touch("shielding.began")
    await asyncio.shield(asyncio.sleep(0.01, "done"))
    await asyncio.wait_for(asyncio.Event().wait(), 1000)


def ignoring():
    while True:
        try:
            touch("ignoring.began")
            time.sleep(1000)
        except BaseException:
            touch("ignoring.cancelled")


async def async_ignoring():
    while True:
        try:
            touch("async_ignoring.began")
            await asyncio.sleep(1000)
        except BaseException:
            touch("async_ignoring.cancelled")


def tried(name):
    append("tries", name)
    globals()[name]()


async def async_add(a, b):
    await asyncio.sleep(0)
    return a + b


def nap(seconds, answer):
    time.sleep(seconds)
    return answer
"#;

/// Functions that end when they are cancelled.
const SYNC: [&str; 12] = [
    "sleeping",
    "looping",
    "locking",
    "receiving",
    "running_a_process",
    "importing",
    "in_finally",
    "in_with",
    "in_del",
    "in_except",
    "sorting",
    "with_thread",
];
const ASYNC: [&str; 4] = ["awaiting", "gathering", "cleaning_up", "shielding"];

fn source() -> String {
    [HANGS, SOURCE].concat()
}

/// Starts `function(name)`, waits for NAME.began, and drops the call.
async fn leave(pool: &Pool, function: &'static str, name: &'static str) {
    let caller = actix::spawn({
        let pool = pool.clone();
        async move { pool.call::<_, ()>(function, (name,)).await }
    });
    wait_for_file(&format!("{name}.began")).await;
    caller.abort();
    assert!(caller.await.expect_err("it is gone").is_cancelled());
}

fn slow_module(source: &str) {
    python_module(&scratch(), "slow", source);
}

alone_test! {
    async fn dropped_call_is_interrupted_in_any_python_code() {
        slow_module("open('importing.began', 'a').close()\nimport time\ntime.sleep(1000)");
        let pool = pool_with(&source()).size(1).cancel_grace(LONG_TIMEOUT).start().await.expect("the pool starts");
        let workers = pids(&pool).await;
        for (function, names, error) in
            [("run", &SYNC[..], "Cancelled True"), ("run_async", &ASYNC[..], "CancelledError True")]
        {
            for name in names {
                let ended = format!("{name}.ended");
                let _ = std::fs::remove_file(scratch_file(&ended));
                leave(&pool, function, name).await;
                wait_for_file(&ended).await;
                assert_workers_kept(&pool, &workers).await;
                assert_eq!(lines(&ended), [error], "{name}");
            }
        }
        for name in ["in_del.interrupted", "with_thread.seen", "cleaning_up.done"] {
            assert!(scratch_file(name).exists(), "{name}");
        }
        // The interrupted import can be repeated.
        slow_module("value = 5");
        assert_eq!(pool.call::<_, u32>("import_slow", ()).await.expect("no lock is left"), 5);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn call_that_ignores_cancel_is_killed_and_replaced() {
        const NAMES: [&str; 4] = ["waiting_in_c", "ignoring", "async_ignoring", "blocking"];
        let pool = pool_with(&source()).size(NAMES.len()).cancel_grace(SHORT_TIMEOUT);
        let pool = pool.start().await.expect("the pool starts");
        let workers = pids(&pool).await;
        let callers: Vec<_> = NAMES
            .into_iter()
            .map(|name| {
                let pool = pool.clone();
                actix::spawn(async move { pool.call::<_, ()>(name, ()).await })
            })
            .collect();
        for name in NAMES {
            wait_for_file(&format!("{name}.began")).await;
        }
        callers.iter().for_each(|caller| caller.abort());
        let replaced = |status: &hatchery::PoolStatus| status.restarts == 4 && status.idle == 4;
        let status = status_when(&pool, "all are replaced", replaced).await;
        for worker in &status.workers {
            let how = worker.last_exit.as_deref().expect("one has ended");
            assert!(worker.restarts == 1 && how.contains("did not give up in time"), "{how}");
        }
        assert!(workers.iter().all(|pid| !is_alive(*pid)));
        assert!(scratch_file("ignoring.cancelled").exists() && scratch_file("async_ignoring.cancelled").exists());
        assert_eq!(pool.call::<_, u32>("add", (1, 2)).await.expect("they serve"), 3);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn dropped_lease_calls_are_removed_or_cancelled() {
        let pool = pool_with(&source()).size(1).cancel_grace(LONG_TIMEOUT).start().await.expect("the pool starts");
        let workers = pids(&pool).await;
        let lease = pool.checkout().await.expect("a worker is free");
        {
            let mut running = Box::pin(lease.call::<_, ()>("run", ("sleeping",)));
            let mut waiting = Box::pin(lease.call::<_, ()>("append", ("never", "x")));
            let mut begun = pin!(wait_for_file("sleeping.began"));
            std::future::poll_fn(|cx| {
                assert!(running.as_mut().poll(cx).is_pending() && waiting.as_mut().poll(cx).is_pending());
                begun.as_mut().poll(cx)
            })
            .await;
            // When Python has both calls, the waiting one would start as soon as the other ends.
            drop(waiting);
            // The status reply proves that the worker has handled earlier messages.
            pool.status().await.expect("the pool runs");
        }
        assert_eq!(lease.call::<_, u32>("add", (1, 2)).await.expect("the lease goes on"), 3);
        assert_eq!(lines("sleeping.ended"), ["Cancelled True"]);
        assert!(!scratch_file("never").exists());
        drop(lease);
        assert_workers_kept(&pool, &workers).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn dropped_idempotent_call_is_not_retried() {
        // The worker of the first call continues; the worker of the second is killed.
        let short = Duration::from_millis(500);
        for (restarts, name, grace) in [(0, "sleeping", LONG_TIMEOUT), (1, "ignoring", short)] {
            let pool = pool_with(&source()).size(2).cancel_grace(grace).start().await.expect("the pool starts");
            let caller = actix::spawn({
                let pool = pool.clone();
                async move { pool.request("tried").args((name,)).idempotent().send::<()>().await }
            });
            wait_for_file(&format!("{name}.began")).await;
            caller.abort();
            let over = |status: &hatchery::PoolStatus| status.idle == 2 && status.restarts == restarts;
            let status = status_when(&pool, "the worker is idle or replaced", over).await;
            assert_eq!(status.submitted, 1);
            pool.shutdown().await;
        }
        assert_eq!(lines("tries"), ["sleeping", "ignoring"]);
    }
}

alone_test! {
    async fn cancelled_raised_by_function_reaches_the_caller() {
        let source = "
import hatchery
def give_up():
    raise hatchery.Cancelled
def counted():
    yield 1
    raise hatchery.Cancelled
";
        let pool = pool_with(source).size(1).start().await.expect("the pool starts");
        let workers = pids(&pool).await;
        let error = pool.call::<_, ()>("give_up", ()).await.expect_err("it gives up");
        assert!(matches!(error, CallError::Cancelled) && !error.is_retryable(), "{error:?}");
        let (items, error) = super::read(pool.stream::<u32>("counted", ()).await.expect("a worker is free")).await;
        assert!(items == [1] && matches!(error, Some(CallError::Cancelled)), "{error:?}");
        assert_workers_kept(&pool, &workers).await;
        pool.shutdown().await;
    }
}

/// Wakes a parked thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls a future on this thread for at most this time, then drops it. More precise than a runtime timer.
fn run_for_at_most<F: Future>(time: Duration, future: F) -> Option<F::Output> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let (mut future, end) = (pin!(future), Instant::now() + time);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        let left = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        std::thread::park_timeout(left);
    }
}

/// Makes a random call and drops it after a random time. Returns whether a result arrived, which must be correct. One call in
/// fifty waits for its result.
fn drop_at_random(pool: &Pool, random: &mut fastrand::Rng, number: u64) -> bool {
    let time = if random.u8(0..50) == 0 { LONG_TIMEOUT } else { Duration::from_micros(random.u64(0..300)) };
    let rest = random.u64(0..300) as f64 / 1e6;
    match random.u8(0..10) {
        0..5 => run_for_at_most(time, pool.call::<_, u64>("add", (number, 1)))
            .map(|sum| assert_eq!(sum.expect("the call was not dropped"), number + 1)),
        5..7 => run_for_at_most(time, pool.call::<_, u64>("nap", (rest, number)))
            .map(|answer| assert_eq!(answer.expect("the call was not dropped"), number)),
        7..9 => run_for_at_most(time, pool.call::<_, u64>("async_add", (number, 2)))
            .map(|sum| assert_eq!(sum.expect("the call was not dropped"), number + 2)),
        _ => run_for_at_most(time, async {
            let (items, error) =
                super::read(pool.stream::<u64>("numbers", (4,)).await.expect("the request is queued")).await;
            assert!(error.is_none() && items == [0, 1, 2, 3], "{error:?}, {items:?}");
        }),
    }
    .is_some()
}

alone_test! {
    tokio async fn ten_thousand_cancels_race_with_results() {
        const CALLERS: u64 = 4;
        const CALLS: u64 = 2500;
        let seed = Seed::new();
        let mut random = seed.rng();
        let pool = pool_with(&source()).size(2).cancel_grace(LONG_TIMEOUT).start().await.expect("the pool starts");
        let workers = pids(&pool).await;
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let (pool, mut random) = (pool.clone(), random.fork());
                let numbers = caller * CALLS..(caller + 1) * CALLS;
                let calls = move || {
                    numbers.filter(|&number| drop_at_random(&pool, &mut random, number)).count() as u64
                };
                std::thread::spawn(calls)
            })
            .collect();
        let mut answered = 0;
        for caller in callers {
            answered += caller.join().expect("every result is correct");
        }
        let status = assert_workers_kept(&pool, &workers).await;
        assert!(0 < answered && answered < CALLERS * CALLS, "{answered}");
        assert_eq!(status.submitted, status.assigned + status.abandoned);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn late_cancel_never_hits_the_next_call() {
        let seed = Seed::new();
        let mut random = seed.rng();
        let pool = pool_with(&source()).size(1).cancel_grace(LONG_TIMEOUT).start().await.expect("the pool starts");
        let workers = pids(&pool).await;
        for number in 0..2000_u64 {
            // The next call is sent at once and starts as soon as the first one ends.
            drop_at_random(&pool, &mut random, number);
            let function = if random.bool() { "add" } else { "async_add" };
            let answer: u64 = pool.call(function, (number, 0)).await.expect("the call was not dropped");
            assert_eq!(answer, number);
        }
        assert_workers_kept(&pool, &workers).await;
        pool.shutdown().await;
    }
}
