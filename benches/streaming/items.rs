//! Streams that are read to their end.

use std::time::Instant;

use hatchery::CallStream;

use super::served::{Served, us};
use crate::floor::Payload;
use crate::measure::median;

impl Served {
    /// Items per second of one stream of so many, from asking for it until its end.
    pub(crate) fn stream_rate(&mut self, count: u32) -> f64 {
        self.run(async move |pool| {
            let start = Instant::now();
            let mut stream = pool.stream("items", (count,)).await.expect("a worker takes it");
            read(&mut stream, 0, u64::from(count)).await;
            f64::from(count) / start.elapsed().as_secs_f64()
        })
    }

    /// The median time from asking for a stream of `count` items until its first, in us. The rest is read without being
    /// timed.
    pub(crate) fn first_item_us(&mut self, streams: usize, count: u64) -> f64 {
        self.run(async move |pool| {
            let mut times = Vec::with_capacity(streams);
            for _ in 0..streams {
                let start = Instant::now();
                let mut stream = pool.stream("items", (count,)).await.expect("a worker takes it");
                let first: Payload = stream.next().await.expect("there is one").expect("it is an item");
                times.push(us(start.elapsed()));
                assert_eq!(first.x, 0, "a wrong item");
                read(&mut stream, 1, count).await;
            }
            median(&mut times)
        })
    }
}

/// Reads the items from `next` on, which must be all that come.
async fn read(stream: &mut CallStream<Payload>, mut next: u64, count: u64) {
    while let Some(item) = stream.next().await {
        assert_eq!(item.expect("it is an item").x, next, "a wrong item");
        next += 1;
    }
    assert_eq!(next, count, "too few items");
}
