//! From dropping what runs until its worker has served another call.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Instant;

use hatchery::Pool;

use super::served::{Served, call, us};
use crate::floor::Payload;
use crate::measure::median;

/// What is dropped.
#[derive(Clone, Copy)]
pub(crate) enum Cancel {
    /// An endless stream of which 100 items have been read.
    Stream,
    /// A synchronous call in a busy loop.
    Call,
}

impl Served {
    /// The median of so many, in us. The pool has one worker, so the next call is its.
    pub(crate) fn cancel_us(&mut self, what: Cancel, samples: usize) -> f64 {
        self.run(async move |pool| {
            let mut times = Vec::with_capacity(samples);
            for x in 0..samples as u64 {
                let start = match what {
                    Cancel::Stream => drop_stream(&pool).await,
                    Cancel::Call => drop_call(&pool).await,
                };
                call(&pool, x).await;
                times.push(us(start.elapsed()));
            }
            median(&mut times)
        })
    }
}

async fn drop_stream(pool: &Pool) -> Instant {
    let mut stream = pool.stream::<Payload>("endless", ()).await.expect("a worker takes it");
    for x in 0..100 {
        let item = stream.next().await.expect("it never ends").expect("it is an item");
        assert_eq!(item.x, x, "a wrong item");
    }
    let start = Instant::now();
    drop(stream);
    start
}

async fn drop_call(pool: &Pool) -> Instant {
    let runs = Arc::new(AtomicBool::new(false));
    let told = runs.clone();
    let request = pool.request("spin").on_progress(move |_| told.store(true, Ordering::Relaxed));
    let start;
    {
        let mut call = pin!(request.send::<()>());
        poll_fn(|cx| {
            let answer = call.as_mut().poll(cx);
            assert!(answer.is_pending(), "it has ended: {answer:?}");
            // The handler of progress has been called in this poll.
            if runs.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        start = Instant::now();
    }
    start
}
