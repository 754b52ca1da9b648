//! The caller drops its future at every await point, before and after the awaited event.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_util::future::join_all;
use hatchery::{Call, CallError, Checkout, Pool};

use super::read;
use crate::support::{LONG_TIMEOUT, alone_test, assert_workers_kept, pids, pool_with, status_when};

const SOURCE: &str = r#"
import asyncio


def nap(seconds):
    time.sleep(seconds)
    return "rested"


async def async_nap(seconds):
    await asyncio.sleep(seconds)
    return "rested"


async def async_numbers(count, pause=0):
    for number in range(count):
        await asyncio.sleep(pause)
        yield number
"#;

/// Polls a future `polls` times, each time after a wake-up, and then drops it: at once, or after one more wake-up.
struct DropAfter<F> {
    future: Option<Pin<Box<F>>>,
    polls: u32,
    once_woken: bool,
}

impl<F: Future> Future for DropAfter<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Some(left) = this.polls.checked_sub(1) {
            this.polls = left;
            let future = this.future.as_mut().expect("the future is polled before the drop");
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            if left > 0 || this.once_woken {
                return Poll::Pending;
            }
        }
        this.future = None;
        Poll::Ready(None)
    }
}

/// Creates the future repeatedly and drops it one await point later each time, until it completes.
async fn drop_at_every_point<T, F>(pool: &Pool, make: impl Fn() -> F)
where
    F: Future<Output = Result<T, CallError>>,
{
    let workers = pids(pool).await;
    for once_woken in [false, true] {
        for polls in 0.. {
            assert!(polls < 1000, "the future never completes");
            let output = DropAfter { future: Some(Box::pin(make())), polls, once_woken }.await;
            // This drops a lease, too.
            let is_complete =
                output.map(|output| output.map(drop).expect("a complete request succeeds")).is_some();
            assert_workers_kept(pool, &workers).await;
            if is_complete {
                break;
            }
        }
    }
}

/// As [`drop_at_every_point`], with all workers leased until the future waits in the queue.
async fn drop_at_every_point_in_queue<T, F>(pool: &Pool, make: impl Fn() -> F)
where
    F: Future<Output = Result<T, CallError>>,
{
    let workers = pids(pool).await;
    for once_woken in [false, true] {
        for polls in 1.. {
            assert!(polls < 1000, "the future never completes");
            let leases = join_all(workers.iter().map(|_| pool.checkout())).await;
            let is_over = Rc::new(Cell::new(false));
            let release = actix::spawn({
                let (pool, is_over) = (pool.clone(), is_over.clone());
                async move {
                    let waits = |status: &hatchery::PoolStatus| status.waiting == 1 || is_over.get();
                    status_when(&pool, "the request is queued or dropped", waits).await;
                    drop(leases);
                }
            });
            let output = DropAfter { future: Some(Box::pin(make())), polls, once_woken }.await;
            is_over.set(true);
            release.await.expect("no panic");
            // This drops a lease, too.
            let is_complete =
                output.map(|output| output.map(drop).expect("a complete request succeeds")).is_some();
            assert_workers_kept(pool, &workers).await;
            if is_complete {
                break;
            }
        }
    }
}

/// Asserts that each request was either assigned or abandoned.
async fn assert_requests_add_up(pool: &Pool) {
    let status = pool.status().await.expect("the pool runs");
    assert_eq!(status.submitted, status.assigned + status.abandoned, "{status:?}");
}

async fn call(pool: &Pool, function: &str) -> Result<String, CallError> {
    pool.call(function, (0.003,)).await
}

async fn stream(pool: &Pool, function: &str) -> Result<(), CallError> {
    let items = pool.request(function).args((6, 0.001)).window(2).stream::<u32>().await?;
    let (items, error) = read(items).await;
    assert_eq!(items, [0, 1, 2, 3, 4, 5]);
    error.map_or(Ok(()), Err)
}

async fn checkout(pool: &Pool) -> Result<(), CallError> {
    let lease = pool.checkout().await?;
    let sum: u32 = lease.call("add", (1, 2)).await?;
    let _: String = lease.call("nap", (0.003,)).await?;
    let (items, error) = read(lease.stream::<u32>("numbers", (3, 0.001)).await?).await;
    assert_eq!((sum, items.len()), (3, 3));
    error.map_or(Ok(()), Err)
}

async fn pool() -> Pool {
    // A slow machine must not cause a kill.
    pool_with(SOURCE).size(2).cancel_grace(LONG_TIMEOUT).start().await.expect("the pool starts")
}

alone_test! {
    async fn call_can_be_dropped_at_every_await_point() {
        let pool = pool().await;
        for function in ["nap", "async_nap"] {
            drop_at_every_point(&pool, || call(&pool, function)).await;
            drop_at_every_point_in_queue(&pool, || call(&pool, function)).await;
        }
        drop_at_every_point(&pool, || pool.call::<_, u32>("add", (1, 2))).await;
        drop_at_every_point(&pool, || pool.request("nap").args((0.003,)).idempotent().send::<String>()).await;
        let session = pool.session("s");
        drop_at_every_point(&pool, || session.call::<_, u32>("add", (1, 2))).await;
        assert_requests_add_up(&pool).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn stream_can_be_dropped_at_every_await_point() {
        let pool = pool().await;
        for function in ["numbers", "async_numbers"] {
            drop_at_every_point(&pool, || stream(&pool, function)).await;
            drop_at_every_point_in_queue(&pool, || stream(&pool, function)).await;
        }
        assert_requests_add_up(&pool).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn lease_can_be_dropped_at_every_await_point() {
        let pool = pool().await;
        drop_at_every_point(&pool, || checkout(&pool)).await;
        drop_at_every_point_in_queue(&pool, || checkout(&pool)).await;
        let session = pool.session("s");
        drop_at_every_point(&pool, || session.checkout()).await;
        assert_requests_add_up(&pool).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn message_can_be_dropped_at_every_await_point() {
        let pool = pool().await;
        let broker = pool.actor();
        let call = Call::new("nap", (0.003,)).expect("the arguments can be encoded");
        let send_call = || async { broker.send(call.clone()).await.expect("the broker is up") };
        drop_at_every_point(&pool, send_call).await;
        drop_at_every_point_in_queue(&pool, send_call).await;
        let send_checkout = || async { broker.send(Checkout::default()).await.expect("the broker is up") };
        drop_at_every_point(&pool, send_checkout).await;
        drop_at_every_point_in_queue(&pool, send_checkout).await;
        assert_requests_add_up(&pool).await;
        pool.shutdown().await;
    }
}

alone_test! {
    tokio async fn requests_on_tokio_can_be_dropped_at_every_await_point() {
        let pool = pool().await;
        drop_at_every_point(&pool, || call(&pool, "nap")).await;
        drop_at_every_point(&pool, || stream(&pool, "numbers")).await;
        drop_at_every_point(&pool, || stream(&pool, "async_numbers")).await;
        drop_at_every_point(&pool, || checkout(&pool)).await;
        let broker = pool.actor();
        let message = Call::new("add", (1, 2)).expect("the arguments can be encoded");
        drop_at_every_point(&pool, || async { broker.send(message.clone()).await.expect("the broker is up") }).await;
        assert_requests_add_up(&pool).await;
        pool.shutdown().await;
    }
}
