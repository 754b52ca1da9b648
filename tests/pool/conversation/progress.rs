//! Updates that a function sends with `hatchery.progress`.

use std::pin::pin;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use hatchery::{CallError, Progress};

use crate::support::{alone_test, assert_workers_kept, pids, pool_with, scratch_file, status_when, touch};

const SOURCE: &str = r#"
import asyncio
import threading

import hatchery


def steps(count):
    for number in range(count):
        hatchery.progress(number)
    return "done"


async def async_steps(count):
    for number in range(count):
        hatchery.progress(number)
        await asyncio.sleep(0)
    return "done"


def steps_then_fail(count):
    steps(count)
    raise ValueError("no more")


def steps_later(name, count):
    wait_for(name + ".go")
    return steps(count)


def mixed():
    for value in (1, "two", [3, {"four": None}], None, float("nan")):
        hatchery.progress(value)
    return "done"


def unsendable():
    hatchery.progress(object())
    return "done"


def too_large():
    hatchery.progress("x" * 100_000)


def from_threads(threads, count):
    def tell(thread):
        for number in range(count):
            hatchery.progress([thread, number])

    running = [threading.Thread(target=tell, args=(n,)) for n in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return "done"


def leaves_a_thread():
    """The thread sends updates after the call. They are discarded."""
    def tell():
        wait_for("over")
        for _ in range(100):
            hatchery.progress("late")
        touch("told")

    threading.Thread(target=tell).start()
    return "done"


def dies_once():
    hatchery.progress("first" if not os.path.exists("deaths") else "second")
    return die_once(3)
"#;

/// A progress handler and the list of updates that it collects.
fn collector() -> (impl FnMut(Progress) + Send + 'static, Arc<Mutex<Vec<Progress>>>) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let more = kept.clone();
    (move |progress| more.lock().expect("no panic").push(progress), kept)
}

fn decoded<T: serde::de::DeserializeOwned>(kept: &Arc<Mutex<Vec<Progress>>>) -> Vec<T> {
    kept.lock().expect("no panic").iter().map(|it| it.decode().expect("it is of this type")).collect()
}

alone_test! {
    async fn progress_arrives_in_order_before_the_result() {
        let pool = pool_with(SOURCE).size(1).start().await.expect("the pool starts");
        let workers = pids(&pool).await;
        for function in ["steps", "async_steps"] {
            let (handle, seen) = collector();
            let call = pool.request(function).args((50,)).on_progress(handle);
            assert_eq!(call.send::<String>().await.expect("the call succeeds"), "done");
            assert_eq!(decoded::<u32>(&seen), (0..50).collect::<Vec<_>>());
        }
        let (handle, seen) = collector();
        let call = pool.request("steps_then_fail").args((50,)).on_progress(handle);
        assert!(matches!(call.send::<String>().await, Err(CallError::Python { .. })));
        assert_eq!(decoded::<u32>(&seen).len(), 50, "before an error too");
        let lease = pool.checkout().await.expect("a worker is free");
        let (handle, seen) = collector();
        let call = lease.request("steps").args((50,)).on_progress(handle);
        assert_eq!(call.send::<String>().await.expect("the call succeeds"), "done");
        assert_eq!(decoded::<u32>(&seen).len(), 50, "in a lease too");
        drop(lease);
        assert_workers_kept(&pool, &workers).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn progress_of_any_value_is_decoded_by_the_listener() {
        let pool = pool_with(SOURCE).size(1).start().await.expect("the pool starts");
        let (handle, seen) = collector();
        assert_eq!(pool.request("mixed").on_progress(handle).send::<String>().await.expect("the call succeeds"), "done");
        let seen = std::mem::take(&mut *seen.lock().expect("no panic"));
        let texts: Vec<String> =
            seen.iter().map(|it| String::from_utf8_lossy(it.as_json()).replace(' ', "")).collect();
        assert_eq!(texts, ["1", "\"two\"", "[3,{\"four\":null}]", "null", "null"]);
        assert_eq!(seen[0].decode::<u32>().expect("a number"), 1);
        let error = seen[1].decode::<u32>().expect_err("it is a text");
        assert!(matches!(error, CallError::Decode { .. }), "{error:?}");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn unsendable_progress_raises_only_with_a_listener() {
        let pool = pool_with(SOURCE).size(1).max_frame_bytes(1 << 16).start().await.expect("the pool starts");
        let workers = pids(&pool).await;
        for function in ["unsendable", "too_large"] {
            let (handle, seen) = collector();
            let error = pool.request(function).on_progress(handle).send::<String>().await.expect_err("the function raises");
            let CallError::Python { type_name, message, .. } = &error else { panic!("{error:?}") };
            assert!(type_name == "ValueError" && message.contains("hatchery.progress()"), "{message}");
            assert!(seen.lock().expect("no panic").is_empty());
        }
        // Without a listener the value is not encoded.
        assert_eq!(pool.call::<_, String>("unsendable", ()).await.expect("it does nothing"), "done");
        assert_workers_kept(&pool, &workers).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn slow_progress_listener_gets_the_newest_updates() {
        let pool = pool_with(SOURCE).size(1).start().await.expect("the pool starts");
        let (handle, seen) = collector();
        let request = pool.request("steps_later").args(("steps", 1000)).on_progress(handle);
        let mut call = pin!(request.send::<String>());
        // The request is sent, and the future is not polled again until the worker is free.
        assert!((&mut call).now_or_never().is_none());
        touch("steps.go");
        status_when(&pool, "all is told", |status| status.assigned == 1 && status.idle == 1).await;
        assert!(decoded::<u32>(&seen).is_empty());
        assert_eq!(call.await.expect("the call succeeds"), "done");
        assert_eq!(decoded::<u32>(&seen), (936..1000).collect::<Vec<_>>());
        pool.shutdown().await;
    }
}

alone_test! {
    tokio async fn progress_of_threads_is_ordered_per_thread() {
        let pool = pool_with(SOURCE).size(1).start().await.expect("the pool starts");
        let workers = pids(&pool).await;
        let (handle, seen) = collector();
        let call = pool.request("from_threads").args((4, 16)).on_progress(handle);
        assert_eq!(call.send::<String>().await.expect("the call succeeds"), "done");
        let seen = decoded::<(u32, u32)>(&seen);
        assert_eq!(seen.len(), 64);
        for thread in 0..4 {
            let told: Vec<u32> = seen.iter().filter(|it| it.0 == thread).map(|it| it.1).collect();
            assert_eq!(told, (0..16).collect::<Vec<_>>());
        }
        let (handle, seen) = collector();
        let call = pool.request("leaves_a_thread").on_progress(handle);
        assert_eq!(call.send::<String>().await.expect("the call succeeds"), "done");
        touch("over");
        let told = || pool.call::<_, bool>("exists", ("told",));
        while !told().await.expect("the call succeeds") {}
        assert!(seen.lock().expect("no panic").is_empty() && scratch_file("told").exists());
        assert_workers_kept(&pool, &workers).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn second_attempt_reports_progress_to_the_same_listener() {
        let pool = pool_with(SOURCE).size(2).start().await.expect("the pool starts");
        let (handle, seen) = collector();
        let call = pool.request("dies_once").idempotent().on_progress(handle);
        assert_eq!(call.send::<String>().await.expect("the second attempt"), "alive");
        assert_eq!(decoded::<String>(&seen), ["first", "second"]);
        pool.shutdown().await;
    }
}
