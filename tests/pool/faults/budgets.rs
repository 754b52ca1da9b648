//! Limits on what a worker takes from its host: a flood slows only its own worker.

use std::time::{Duration, Instant};

use hatchery::{CallError, Phase, PoolBuilder};
use log::Level;
use serde_json::Value;

use super::pools::{FRAMES, pid, pool_of, serves, start};
use crate::support::{
    LONG_TIMEOUT, SHORT_TIMEOUT, alone_test, lines, logged, rss_bytes, scratch, slow_down_logger,
    status_when, stop, touch, wait_until,
};

const TARGET: &str = "hatchery::python::faulty-1";

const MB: u64 = 1_000_000;

/// Functions that write frames to the worker's channel.
const FLOODS: &str = r#"
import asyncio, logging, time
import hatchery

def _write(fd, data):
    data = memoryview(data)
    while data:
        try:
            data = data[os.write(fd, data):]
        except BlockingIOError:
            select.select([], [fd], [], 1)

def flood(name, kind, body):
    """Write frames as fast as possible until NAME.go exists."""
    open(name + '.began', 'w').close()
    fd, some = _channel(), _frame(kind, 1, body.encode(), 1 if body else 0, number=20) * 2000
    while not os.path.exists(name + '.go'):
        _write(fd, some)

def sleep(seconds):
    time.sleep(seconds)

def unknown_host_functions(count, length):
    """Call host functions with long names and read no answer."""
    from hatchery import _calls
    fd, call = _channel(), _calls.current_call().id
    for n in range(count):
        body = '["%s", [], null, {"call": %d}]' % ('x' * length, call)
        _write(fd, _frame(10, 1_000_000 + n, body.encode()))
    return count

async def many_host_calls(count):
    """Return how many of these endless host calls are refused, and an error."""
    calls = [asyncio.ensure_future(hatchery.call_host('hang')) for _ in range(count)]
    done, pending = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    while len(done) < count - 1024:
        done |= (await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED))[0]
        pending = [call for call in calls if not call.done()]
    for call in pending:
        call.cancel()
    return [len(done), str(next(iter(done)).exception())]

async def items(count, size):
    for n in range(count):
        with open('items', 'a') as file:
            file.write(str(n) + '\n')
        yield 'x' * size
        await asyncio.sleep(0)

async def async_ping():
    return 'pong'
"#;

/// A pool builder over [`FRAMES`] and [`FLOODS`].
fn flooding_pool() -> PoolBuilder {
    pool_of(&[FRAMES, FLOODS].concat())
}

alone_test! {
    within 120 seconds:
    async fn flood_of_frames_does_not_delay_other_workers() {
        let pool = start(flooding_pool().current_dir(scratch()).size(2)).await;
        // Empty frames, log records, and log records with a logger that takes 20 us for each.
        let log = r#"{"logger": "flood", "message": "m", "request_id": null}"#;
        for (name, kind, body) in [("nothing", 19, ""), ("records", 12, log), ("slow", 12, log)] {
            if name == "slow" {
                slow_down_logger();
            }
            let flood = pool.call::<_, ()>("flood", (name, kind, body));
            let (flood, ()) = tokio::join!(flood, async {
                let began = scratch().join(format!("{name}.began"));
                wait_until("the flood has started", LONG_TIMEOUT, || began.exists()).await;
                for _ in 0..20 {
                    serves(&pool).await;
                }
                let error = pool.request("sleep").args((1000,)).timeout(Duration::from_secs(1)).send::<()>().await;
                let error = error.expect_err("it takes too long");
                assert!(matches!(error, CallError::Timeout { phase: Phase::Run, .. }), "{error:?}");
                touch(&format!("{name}.go"));
            });
            flood.expect("it ends when it is told to");
        }
        wait_until("the log says what it left out", LONG_TIMEOUT, || {
            logged(Level::Warn, TARGET).iter().chain(&logged(Level::Warn, "hatchery::python::faulty-2"))
                .any(|line| line.starts_with("suppressed "))
        })
        .await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn flood_of_output_lines_is_suppressed_and_reported() {
        let source = "
import os
def flood(lines):
    os.write(1, b'x\\n' * 1000)
    for _ in range(lines // 1000 - 1):
        os.write(1, b'x\\n' * 1000)
    os.write(1, b'last\\n')";
        let pool = start(pool_of(source)).await;
        pool.call::<_, ()>("flood", (500_000,)).await.expect("it only prints");
        wait_until("the log says what it left out", LONG_TIMEOUT, || {
            logged(Level::Warn, TARGET).iter().any(|line| line.starts_with("suppressed "))
        })
        .await;
        serves(&pool).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn worker_output_cannot_forge_log_records() {
        let source = "
import logging, os
def talk():
    os.write(1, b'10%\\r\\x1b[2K[ERROR] forged\\n')
    os.write(2, '\\u202egnp.exe \\x9b1A\\n'.encode())
    logging.getLogger('a\\n[ERROR] b').error('one\\n[ERROR] two\\r\\x1b[A')
    logging.getLogger('long').error('y' * 100_000)";
        let pool = start(pool_of(source)).await;
        pool.request("talk").request_id("r-7\n[ERROR] three").send::<()>().await.expect("it only talks");
        wait_until("all is logged", LONG_TIMEOUT, || {
            logged(Level::Error, TARGET).len() >= 2
                && !logged(Level::Warn, TARGET).is_empty()
                && !logged(Level::Info, TARGET).is_empty()
        })
        .await;
        assert_eq!(logged(Level::Info, TARGET), ["10%\\r\\u{1b}[2K[ERROR] forged"]);
        assert_eq!(logged(Level::Warn, TARGET), ["\\u{202e}gnp.exe \\u{9b}1A"]);
        let errors = logged(Level::Error, TARGET);
        let safe = "a\\n[ERROR] b: one\n  | [ERROR] two\\r\\u{1b}[A [request r-7\\n[ERROR] three]";
        assert_eq!(errors[0], safe);
        assert!(errors[1].len() < 70_000 && errors[1].starts_with("long: yyy"), "{}", errors[1].len());
        pool.shutdown().await;
    }
}

alone_test! {
    within 120 seconds:
    async fn unknown_host_functions_with_long_names_use_no_memory() {
        let pool = start(flooding_pool()).await;
        serves(&pool).await;
        let before = rss_bytes(std::process::id()).expect("it lives");
        let (called, peak) = {
            let mut call = std::pin::pin!(
                pool.request("unknown_host_functions").args((300, 1_000_000)).timeout(2 * LONG_TIMEOUT).send::<u32>()
            );
            let mut peak = before;
            loop {
                tokio::select! {
                    called = &mut call => break (called, peak),
                    () = tokio::time::sleep(Duration::from_millis(20)) => {
                        peak = peak.max(rss_bytes(std::process::id()).expect("it lives"));
                    }
                }
            }
        };
        assert_eq!(called.expect("the call succeeds"), 300);
        assert!(peak - before < 100 * MB, "{} MB more", (peak - before) / MB);
        serves(&pool).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn host_calls_over_the_limit_are_refused() {
        let pool = flooding_pool().host_function("hang", |_| std::future::pending::<Result<(), CallError>>());
        let pool = start(pool).await;
        let (refused, why): (u32, String) =
            pool.call("many_host_calls", (1030,)).await.expect("it gives the others up");
        assert_eq!(refused, 6);
        assert!(why.contains("the worker has 1024 host calls pending, which is the most"), "{why}");
        serves(&pool).await;
        pool.shutdown().await;
    }
}

alone_test! {
    within 120 seconds:
    async fn unread_stream_items_are_bounded_in_bytes() {
        const ITEM: usize = 8 << 20;
        let pool = start(flooding_pool().current_dir(scratch()).in_flight(2)).await;
        serves(&pool).await;
        let mut stream = pool.stream::<String>("items", (32, ITEM)).await.expect("the call succeeds");
        // 64 MiB are 8 items. One more is in flight and one may be in the socket.
        wait_until("the budget is used up", LONG_TIMEOUT, || lines("items").len() >= 8).await;
        let since = Instant::now();
        wait_until("some time has passed", LONG_TIMEOUT, || since.elapsed() > SHORT_TIMEOUT / 2).await;
        assert!(lines("items").len() <= 12, "{} items are made", lines("items").len());
        // Another call of this worker ends although the stream is not read.
        let pong: String = pool.call("async_ping", ()).await.expect("the call succeeds");
        assert_eq!(pong, "pong");
        let mut count = 0;
        while let Some(item) = stream.next().await {
            assert_eq!(item.expect("it is whole").len(), ITEM);
            count += 1;
        }
        assert_eq!(count, 32);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn call_that_kills_workers_before_start_is_given_up() {
        // The function that marks the start of a call ends the process.
        let source = "
import os
from hatchery import _calls
def _guarded(mark):
    return lambda call_id: (_die if os.path.exists('poison') else mark)(call_id)
_calls.mark_running, _calls.mark_started = _guarded(_calls.mark_running), _guarded(_calls.mark_started)
def _die(call_id):
    with open('deaths', 'a') as file:
        file.write('x')
    os._exit(3)
async def quick(): return 'pong'";
        let pool = start(pool_of(source).current_dir(scratch()).in_flight(2)).await;
        serves(&pool).await;
        touch("poison");
        let error = pool.call::<_, Value>("quick", ()).await.expect_err("no worker survives it");
        let CallError::WorkerDied { started: false, exit: Some(3), .. } = &error else { panic!("{error:?}") };
        assert_eq!(lines("deaths"), ["xxxx"], "the first attempt, and three more");
        std::fs::remove_file(scratch().join("poison")).expect("it is there");
        serves(&pool).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn idempotent_call_moves_away_from_a_stopped_worker() {
        let source = "
import os
def my_pid(): return os.getpid()";
        let pool = start(pool_of(source).in_flight(4).cancel_grace(SHORT_TIMEOUT)).await;
        let stopped = pid(&pool).await;
        stop(stopped);
        let began = Instant::now();
        let other = pool.request("my_pid").idempotent().timeout(2 * LONG_TIMEOUT).send::<u32>().await;
        assert_ne!(other.expect("another worker serves it"), stopped);
        assert!(began.elapsed() < LONG_TIMEOUT, "the call does not wait for its deadline");
        status_when(&pool, "the stopped one is replaced", |status| status.restarts == 1 && status.ready == 1).await;
        pool.shutdown().await;
    }
}
