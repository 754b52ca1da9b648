//! Streams: order of items, flow control, and the end of a stream.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use hatchery::{CallError, CallStream, Phase, Pool};
use serde_json::{Value, json};

use super::read;
use crate::support::{
    LONG_TIMEOUT, SHORT_TIMEOUT, Seed, alone_test, assert_workers_kept, is_alive, kill, lines, pids,
    pool_with, scratch_file, status_when, touch, wait_for_file, wait_until,
};

const SOURCE: &str = r#"
import asyncio

import hatchery


async def async_numbers(count, pause=0):
    for number in range(count):
        if pause:
            await asyncio.sleep(pause)
        yield number


async def async_endless(name):
    number = 0
    try:
        while True:
            append(name + ".items", str(number))
            yield number
            number += 1
    except BaseException as error:
        append(name + ".closed", type(error).__name__)
        raise


async def promised(count):
    """An async function whose result is a generator."""
    await asyncio.sleep(0)
    return numbers(count)


def listed(count):
    """Return an iterator that is not a generator."""
    return iter(range(count))


def breaks_off(count):
    yield from range(count)
    raise KeyError("half-way")


async def async_breaks_off(count):
    for number in range(count):
        yield number
    raise KeyError("half-way")


def big(count, size):
    for number in range(count):
        yield str(number) + "x" * size


def gated(number):
    wait_for("go")
    yield number
    yield number + 1


def odd_item(name):
    try:
        yield 1
        yield {"rows": [object()]}
    finally:
        touch(name + ".closed")


async def async_odd_item(name):
    try:
        yield 1
        yield {"rows": [object()]}
    finally:
        touch(name + ".closed")


def busy(name):
    """Never yield a second item."""
    try:
        yield 0
        touch(name + ".busy")
        time.sleep(1000)
    finally:
        touch(name + ".closed")


async def async_busy(name):
    try:
        yield 0
        touch(name + ".busy")
        await asyncio.sleep(1000)
    finally:
        touch(name + ".closed")


def tagged(tag):
    number = 0
    while True:
        yield [tag, number]
        number += 1


async def async_tagged(tag):
    for item in tagged(tag):
        yield item


def steps(count):
    for number in range(count):
        hatchery.progress(f"before {number}")
        yield number
    hatchery.progress("at the end")


async def async_steps(count):
    for item in steps(count):
        yield item
"#;

async fn pool(size: usize) -> Pool {
    pool_with(SOURCE).size(size).cancel_grace(LONG_TIMEOUT).start().await.expect("the pool starts")
}

async fn open(pool: &Pool, function: &str, name: &str) -> CallStream<u32> {
    pool.request(function).args((name,)).window(8).stream().await.expect("a worker is free")
}

async fn first(items: &mut CallStream<u32>) {
    assert_eq!(items.next().await.expect("there are items").expect("it yields"), 0);
}

alone_test! {
    async fn stream_items_arrive_in_order_with_any_window() {
        let pool = pool(1).await;
        let workers = pids(&pool).await;
        let all: Vec<u32> = (0..300).collect();
        for function in ["numbers", "async_numbers", "promised", "listed"] {
            for window in [0, 1, 2, 3, 32, 1000, u32::MAX] {
                let request = pool.request(function).args((300,)).window(window);
                let (items, error) = read(request.stream::<u32>().await.expect("a worker is free")).await;
                assert!(error.is_none() && items == all, "{function}, {window}: {error:?}, {items:?}");
            }
            let (items, error) = read(pool.stream::<u32>(function, (0,)).await.expect("a worker is free")).await;
            assert!(error.is_none() && items.is_empty(), "{function}: {error:?}, {items:?}");
        }
        assert_workers_kept(&pool, &workers).await;
        pool.shutdown().await;
    }
}

alone_test! {
    tokio async fn stream_items_of_a_megabyte_arrive_complete() {
        let pool = pool(1).await;
        let (items, error) = read(pool.stream::<String>("big", (24, 1 << 20)).await.expect("a worker is free")).await;
        assert!(error.is_none() && items.len() == 24, "{error:?}");
        for (number, item) in items.iter().enumerate() {
            let digits = number.to_string();
            assert!(item.len() == digits.len() + (1 << 20) && item.starts_with(&digits), "{number}");
        }
        pool.shutdown().await;
    }
}

alone_test! {
    async fn generator_exception_arrives_after_its_items() {
        let pool = pool(1).await;
        let workers = pids(&pool).await;
        for function in ["breaks_off", "async_breaks_off"] {
            for count in [0, 1, 100] {
                let items = pool.stream::<u32>(function, (count,)).await.expect("a worker is free");
                let (items, error) = read(items).await;
                assert_eq!(items, (0..count).collect::<Vec<_>>());
                let Some(CallError::Python { type_name, message, traceback, attempts: 1, .. }) = &error else {
                    panic!("{error:?}")
                };
                assert_eq!((type_name.as_str(), message.as_str()), ("KeyError", "'half-way'"));
                assert!(traceback.contains("subject.py\", line") && traceback.contains(function), "{traceback}");
            }
        }
        assert_workers_kept(&pool, &workers).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn dropped_stream_closes_its_generator() {
        let pool = pool(1).await;
        let workers = pids(&pool).await;
        // The first two generators wait for credit; the others run.
        for function in ["endless", "async_endless", "busy", "async_busy"] {
            let mut items = open(&pool, function, function).await;
            first(&mut items).await;
            if function.ends_with("busy") {
                wait_for_file(&format!("{function}.busy")).await;
            }
            drop(items);
            wait_for_file(&format!("{function}.closed")).await;
            assert_workers_kept(&pool, &workers).await;
        }
        // The same for a stream that was never read.
        for function in ["endless", "async_endless"] {
            drop(open(&pool, function, "unread").await);
            assert_workers_kept(&pool, &workers).await;
        }
        pool.shutdown().await;
    }
}

alone_test! {
    async fn unread_stream_stops_the_generator_at_the_window() {
        let pool = pool(4).await;
        let workers = pids(&pool).await;
        let unread = ["endless", "async_endless"].into_iter().flat_map(|it| [(it, 1), (it, 7)]);
        join_all(unread.map(|(function, window)| {
            let (pool, name) = (&pool, format!("{function}-{window}"));
            async move {
                let request = pool.request(function).args((&name,)).window(window);
                let items = request.timeout(SHORT_TIMEOUT).stream::<u32>().await.expect("a worker is free");
                // The stream is not read before its deadline.
                wait_for_file(&format!("{name}.closed")).await;
                assert_eq!(lines(&format!("{name}.items")).len() as u32, window);
                let (items, error) = read(items).await;
                assert_eq!(items, (0..window).collect::<Vec<_>>(), "sent items are not lost");
                assert!(matches!(error, Some(CallError::Timeout { phase: Phase::Run, .. })), "{error:?}");
            }
        }))
        .await;
        assert_workers_kept(&pool, &workers).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn timeout_stack_shows_where_a_generator_is_suspended() {
        let pool = pool(1).await;
        let workers = pids(&pool).await;
        for function in ["endless", "async_endless"] {
            // On a busy machine the stack may arrive too late.
            let mut stack = None;
            for _ in 0..10 {
                let request = pool.request(function).args(("s",)).window(1).timeout(SHORT_TIMEOUT);
                let (_, error) = read(request.stream::<u32>().await.expect("a worker is free")).await;
                let Some(CallError::Timeout { phase: Phase::Run, stack: seen, .. }) = error else {
                    panic!("{error:?}")
                };
                stack = seen;
                assert_workers_kept(&pool, &workers).await;
                if stack.is_some() {
                    break;
                }
            }
            let stack = stack.expect("the worker reports the suspended generator");
            assert!(stack.contains("subject.py\", line") && stack.contains(&format!("in {function}")), "{stack}");
        }
        pool.shutdown().await;
    }
}

alone_test! {
    async fn slow_consumer_keeps_generator_one_window_ahead() {
        let pool = pool(1).await;
        let workers = pids(&pool).await;
        for function in ["endless", "async_endless"] {
            let mut items = pool.request(function).args((function,)).window(4).stream::<usize>().await.expect("a worker is free");
            let sent = || lines(&format!("{function}.items")).len();
            for taken in 0..30 {
                // Credit is granted in halves of the window.
                let allowed = 4 + taken / 2 * 2;
                wait_until("the credit is used up", LONG_TIMEOUT, || sent() >= allowed).await;
                assert_eq!(items.next().await.expect("there are more").expect("a number"), taken);
                assert!(sent() <= allowed + 2, "{} of {allowed} after {taken}", sent());
            }
            drop(items);
            assert_workers_kept(&pool, &workers).await;
        }
        pool.shutdown().await;
    }
}

alone_test! {
    async fn thousand_streams_run_up_to_the_pool_capacity() {
        const CAPACITY: usize = 2 * crate::IN_FLIGHT;
        let pool = pool_with(SOURCE).size(2).checkout_timeout(2 * LONG_TIMEOUT).start().await.expect("the pool starts");
        let workers = pids(&pool).await;
        let streams = join_all((0..1000_u32).map(|number| {
            let pool = &pool;
            async move {
                let request = pool.request("gated").args((number,)).timeout(2 * LONG_TIMEOUT);
                let (items, error) = read(request.stream::<u32>().await.expect("the request is queued")).await;
                assert!(error.is_none() && items == [number, number + 1], "{number}: {error:?}, {items:?}");
            }
        }));
        tokio::join!(streams, async {
            let status = status_when(&pool, "the others wait", |status| status.waiting == 1000 - CAPACITY).await;
            assert_eq!((status.busy, status.assigned), (2, CAPACITY as u64));
            touch("go");
        });
        let status = assert_workers_kept(&pool, &workers).await;
        assert_eq!((status.assigned, status.overloaded, status.timed_out_waiting), (1000, 0, 0));
        pool.shutdown().await;
    }
}

alone_test! {
    async fn call_of_generator_and_stream_of_function_are_refused() {
        let pool = pool(1).await;
        let workers = pids(&pool).await;
        for function in ["numbers", "async_numbers"] {
            let error = pool.call::<_, Value>(function, (3,)).await.expect_err("it is no value");
            let CallError::Encode { message, .. } = &error else { panic!("{error:?}") };
            assert!(message.contains("generator") && message.contains("stream"), "{message}");
        }
        for (function, args, told) in [
            ("add", json!([1, 2]), "an int, not an iterator"),
            ("echo", json!([]), "a list, not an iterator"),
            ("exists", json!(["x"]), "a bool, not an iterator"),
        ] {
            let (items, error) = read(pool.stream::<Value>(function, args).await.expect("a worker is free")).await;
            let Some(CallError::Encode { message, .. }) = &error else { panic!("{function}: {error:?}") };
            assert!(items.is_empty() && message.contains(told), "{message}");
        }
        assert_workers_kept(&pool, &workers).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn stream_that_cannot_begin_yields_only_the_error() {
        let pool = pool(1).await;
        let workers = pids(&pool).await;
        let (items, error) = read(pool.stream::<u32>("numberz", (3,)).await.expect("a worker is free")).await;
        let Some(CallError::NoSuchFunction { name, similar, .. }) = &error else { panic!("{error:?}") };
        assert!(items.is_empty() && name == "numberz" && similar.contains(&"numbers".to_owned()), "{error:?}");
        for function in ["numbers", "async_numbers"] {
            let (items, error) = read(pool.stream::<u32>(function, (1, 2, 3)).await.expect("a worker is free")).await;
            let Some(CallError::Arguments { message, .. }) = &error else { panic!("{error:?}") };
            assert!(items.is_empty() && message.contains("count"), "{message}");
        }
        assert_workers_kept(&pool, &workers).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn unencodable_item_ends_stream_and_generator() {
        let pool = pool(1).await;
        let workers = pids(&pool).await;
        for function in ["odd_item", "async_odd_item"] {
            let (items, error) = read(pool.stream::<u32>(function, (function,)).await.expect("a worker is free")).await;
            let Some(CallError::Encode { message, .. }) = &error else { panic!("{error:?}") };
            assert!(items == [1] && message.contains("item['rows'][0]"), "{items:?}, {message}");
            wait_for_file(&format!("{function}.closed")).await;
        }
        for function in ["endless", "async_endless"] {
            let name = format!("{function} of text");
            let (items, error) = read(pool.stream::<String>(function, (&name,)).await.expect("a worker is free")).await;
            assert!(items.is_empty() && matches!(error, Some(CallError::Decode { .. })), "{error:?}");
            wait_for_file(&format!("{name}.closed")).await;
        }
        assert_workers_kept(&pool, &workers).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn stream_fails_when_its_worker_dies() {
        let pool = pool(1).await;
        let worker = pids(&pool).await[0];
        let mut items = open(&pool, "endless", "a").await;
        first(&mut items).await;
        wait_until("the credit is used up", LONG_TIMEOUT, || lines("a.items").len() == 8).await;
        kill(worker);
        let (rest, error) = read(items).await;
        assert!(rest.len() <= 7 && rest.iter().zip(1..).all(|(item, number)| *item == number), "{rest:?}");
        let died = matches!(error, Some(CallError::WorkerDied { started: true, signal: Some(9), attempts: 1, .. }));
        assert!(died, "{error:?}");
        assert_ne!(pool.call::<_, u32>("pid", ()).await.expect("another one serves"), worker);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn stream_outlives_its_lease_and_keeps_the_worker() {
        let pool = pool(1).await;
        let workers = pids(&pool).await;
        let lease = pool.checkout().await.expect("a worker is free");
        let (items, error) = read(lease.stream::<u32>("numbers", (5,)).await.expect("it is open")).await;
        assert!(error.is_none() && items == [0, 1, 2, 3, 4], "{error:?}");
        let mut items = lease.stream::<u32>("endless", ("a",)).await.expect("it is open");
        assert_eq!(items.worker(), lease.worker());
        first(&mut items).await;
        drop(lease);
        let (served, ()) = tokio::join!(pool.call::<_, bool>("exists", ("a.closed",)), async {
            let status = status_when(&pool, "the next one waits", |status| status.waiting == 1).await;
            assert_eq!((status.busy, status.idle), (1, 0));
            assert_eq!(items.next().await.expect("it goes on").expect("it yields"), 1);
            drop(items);
        });
        assert!(served.expect("the call succeeds"), "the stream had ended by then");
        assert_workers_kept(&pool, &workers).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn streams_of_one_lease_run_one_after_another() {
        let pool = pool(1).await;
        let lease = pool.checkout().await.expect("a worker is free");
        let one = lease.stream::<u32>("gated", (1,)).await.expect("it is open");
        let never = lease.stream::<u32>("endless", ("never",)).await.expect("the request is queued");
        let two = lease.stream::<u32>("gated", (2,)).await.expect("the request is queued");
        drop(never);
        touch("go");
        for (number, items) in (1..).zip([one, two]) {
            let (items, error) = read(items).await;
            assert!(error.is_none() && items == [number, number + 1], "{error:?}, {items:?}");
        }
        // With several calls in the worker, the dropped stream may have started before it was cancelled.
        assert!(crate::IN_FLIGHT > 1 || !scratch_file("never.items").exists());
        if scratch_file("never.items").exists() {
            wait_for_file("never.closed").await;
        }
        pool.shutdown().await;
    }
}

alone_test! {
    async fn stream_dropped_in_the_queue_never_begins() {
        let pool = pool(1).await;
        let workers = pids(&pool).await;
        let lease = pool.checkout().await.expect("a worker is free");
        let opening = actix::spawn({
            let pool = pool.clone();
            async move { pool.stream::<u32>("endless", ("never",)).await.map(drop) }
        });
        status_when(&pool, "the request is queued", |status| status.waiting == 1).await;
        opening.abort();
        let status = status_when(&pool, "the request has left the queue", |status| status.waiting == 0).await;
        assert_eq!(status.abandoned, 1);
        let late = pool.request("endless").args(("never",)).timeout(Duration::from_millis(50));
        let error = late.stream::<u32>().await.map(drop).expect_err("the worker is taken");
        assert!(matches!(error, CallError::Timeout { phase: Phase::Queue, .. }), "{error:?}");
        drop(lease);
        assert_workers_kept(&pool, &workers).await;
        assert!(!scratch_file("never.items").exists());
        pool.shutdown().await;
    }
}

alone_test! {
    async fn shutdown_awaits_finite_stream_and_kills_endless_one() {
        for ends in [true, false] {
            let timeout = if ends { LONG_TIMEOUT } else { SHORT_TIMEOUT };
            let pool = pool_with(SOURCE).size(1).shutdown_timeout(timeout).start().await.expect("the pool starts");
            let worker = pids(&pool).await[0];
            let function = if ends { "numbers" } else { "endless" };
            let args = if ends { json!([100]) } else { json!(["a"]) };
            let items = pool.request(function).args(args).window(8).stream::<u32>().await.expect("a worker is free");
            if !ends {
                wait_until("the credit is used up", LONG_TIMEOUT, || lines("a.items").len() == 8).await;
            }
            let shutdown = actix::spawn({
                let pool = pool.clone();
                async move { pool.shutdown().await }
            });
            wait_until_draining(&pool).await;
            if ends {
                let (items, error) = read(items).await;
                assert!(error.is_none() && items.len() == 100, "{error:?}");
                shutdown.await.expect("no panic");
            } else {
                shutdown.await.expect("no panic");
                let (items, error) = read(items).await;
                assert!(items.len() == 8 && matches!(error, Some(CallError::WorkerDied { .. })), "{error:?}");
            }
            assert!(!is_alive(worker));
        }
    }
}

/// Waits until the pool refuses new calls.
async fn wait_until_draining(pool: &Pool) {
    let end = std::time::Instant::now() + LONG_TIMEOUT;
    while pool.call::<_, u32>("pid", ()).await.is_ok() {
        assert!(std::time::Instant::now() < end, "it never shuts down");
    }
}

alone_test! {
    async fn stream_keeps_its_pool_alive() {
        let pool = pool(1).await;
        let worker = pids(&pool).await[0];
        let mut items = pool.request("endless").args(("a",)).window(2).stream::<u32>().await.expect("a worker is free");
        drop(pool);
        for expected in 0..20 {
            assert_eq!(items.next().await.expect("it goes on").expect("it yields"), expected);
        }
        drop(items);
        wait_until("the pool ends with it", LONG_TIMEOUT, || !is_alive(worker)).await;
    }
}

alone_test! {
    async fn successive_streams_on_a_worker_do_not_mix() {
        let seed = Seed::new();
        let mut random = seed.rng();
        let pool = pool(1).await;
        let workers = pids(&pool).await;
        for tag in 0..300_u32 {
            let function = if random.bool() { "tagged" } else { "async_tagged" };
            let request = pool.request(function).args((tag,)).window(random.u32(1..20));
            let mut items = request.stream::<(u32, u32)>().await.expect("the one before has ended");
            for number in 0..random.u32(0..20) {
                assert_eq!(items.next().await.expect("it is endless").expect("it yields"), (tag, number));
            }
            if random.bool() {
                let sum: u32 = tokio::join!(pool.call("add", (tag, 1)), async { drop(items) }).0.expect("the call succeeds");
                assert_eq!(sum, tag + 1);
            }
        }
        assert_workers_kept(&pool, &workers).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn stream_progress_arrives_before_the_item_after_it() {
        let pool = pool(1).await;
        for function in ["steps", "async_steps"] {
            let seen = Arc::new(Mutex::new(Vec::new()));
            let told = seen.clone();
            let request = pool.request(function).args((20,)).window(3).on_progress(move |progress| {
                told.lock().expect("no panic").push(progress.decode::<String>().expect("a text"));
            });
            let mut items = request.stream::<u32>().await.expect("a worker is free");
            while let Some(item) = items.next().await {
                let item = item.expect("it yields");
                let seen = seen.lock().expect("no panic");
                assert!(seen.len() > item as usize && seen[item as usize] == format!("before {item}"), "{seen:?}");
            }
            let seen = seen.lock().expect("no panic");
            assert_eq!((seen.len(), seen[20].as_str()), (21, "at the end"));
        }
        pool.shutdown().await;
    }
}
