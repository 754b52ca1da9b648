//! Views outlive their calls; descriptors do not leak.

use std::time::Duration;

use bytes::Bytes;
use hatchery::{Buffer, Call, CallError, Phase};
use serde_json::Value;

use super::{SMALL_FRAME, buffer_of, pattern, pool_of};
use crate::support::{LONG_TIMEOUT, alone_test, fds, kill, status_when, wait_until};

const SOURCE: &str = r#"
import os, time
kept = []
def keep(data): kept.append(memoryview(data)[5:10])
def look(): return [bytes(view) for view in kept]
def forget(): kept.clear()
def memfds(): return sum('memfd:hatchery ' in os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{fd}'))
def make(size): return bytes(size)
def hold(data): time.sleep(1000)
def pages(data):
    while True:
        yield data
def die(data): os._exit(3)
"#;

const MIB: usize = 1 << 20;

/// How many memfds this process has open.
fn memfds() -> usize {
    fds(std::process::id()).values().filter(|target| target.contains("memfd:hatchery ")).count()
}

alone_test! {
    async fn views_outlive_their_calls_on_both_sides() {
        let pool = pool_of(SOURCE).max_frame_bytes(SMALL_FRAME).start().await.expect("the pool starts");
        for round in 0..3 {
            let data = buffer_of(&pattern(MIB + round));
            pool.call::<_, ()>("keep", (&data,)).await.expect("it keeps it");
        }
        assert_eq!(memfds(), 0, "what was sent is closed with its handle");
        let looked: Vec<Bytes> = pool.call("look", ()).await.expect("the call succeeds");
        assert_eq!(looked, vec![Bytes::from(pattern(10).split_off(5)); 3]);
        assert_eq!(pool.call::<_, usize>("memfds", ()).await.expect("the call succeeds"), 3);
        pool.call::<_, ()>("forget", ()).await.expect("it forgets");
        assert_eq!(pool.call::<_, usize>("memfds", ()).await.expect("the call succeeds"), 0);

        let made: Vec<Buffer> = {
            let mut made = Vec::new();
            for _ in 0..3 {
                made.push(pool.call("make", (MIB,)).await.expect("it is made"));
            }
            made
        };
        assert_eq!(memfds(), 3);
        pool.shutdown().await;
        assert!(made.iter().all(|buffer| buffer.iter().all(|byte| *byte == 0)), "the worker is gone, they are not");
        let bytes = made[0].to_bytes();
        drop(made);
        assert_eq!((memfds(), bytes.len()), (1, MIB));
        drop(bytes);
        assert_eq!(memfds(), 0);
    }
}

alone_test! {
    async fn failed_calls_leave_no_memfd_open() {
        let pool = pool_of(SOURCE).cancel_grace(Duration::from_millis(50)).start().await.expect("the pool starts");
        let data = buffer_of(&pattern(MIB));
        let late = pool.request("hold").args((&data,)).timeout(Duration::from_millis(100)).send::<Value>().await;
        assert!(matches!(late, Err(CallError::Timeout { .. })), "{late:?}");
        let left = tokio::time::timeout(Duration::from_millis(100), pool.call::<_, Value>("hold", (&data,))).await;
        assert!(left.is_err());
        let error = pool.call::<_, Value>("die", (&data,)).await.expect_err("the worker dies");
        assert!(matches!(error, CallError::WorkerDied { .. }), "{error:?}");
        let mut pages = pool.stream::<Buffer>("pages", (&data,)).await.expect("it streams");
        assert!(pages.next().await.expect("a page").expect("a page") == data);
        drop(pages);
        // A stream that is still open would occupy the worker of the next one.
        status_when(&pool, "the stream is over", |status| status.idle == 1).await;
        let mut pages = pool.stream::<Buffer>("pages", (&data,)).await.expect("it streams");
        pages.next().await.expect("a page").expect("a page");
        let status = status_when(&pool, "it is there", |status| status.ready + status.busy > 0).await;
        status.workers.iter().filter_map(|worker| worker.pid).for_each(kill);
        while let Some(Ok(_)) = pages.next().await {}
        drop(pages);
        drop(data);
        wait_until("all is closed", LONG_TIMEOUT, || memfds() == 0).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn held_results_keep_at_most_64_descriptors_open() {
        let pool = pool_of(SOURCE).max_frame_bytes(SMALL_FRAME).start().await.expect("the pool starts");
        let mut held: Vec<Buffer> = Vec::new();
        for _ in 0..80 {
            held.push(pool.call("make", (MIB,)).await.expect("it is made"));
        }
        assert_eq!(memfds(), 64);
        assert!(held.iter().all(|buffer| buffer.len() == MIB && buffer.iter().all(|byte| *byte == 0)));
        // A buffer without a descriptor is sent as a copy.
        pool.call::<_, ()>("keep", (&held[79],)).await.expect("it keeps it");
        let looked: Vec<Bytes> = pool.call("look", ()).await.expect("the call succeeds");
        assert_eq!(looked, [Bytes::from_static(&[0; 5])]);
        drop(held);
        assert_eq!(memfds(), 0);
        pool.shutdown().await;
    }
}

/// Memory of a caller whose drop panics.
struct PanicsInDrop;

impl AsRef<[u8]> for PanicsInDrop {
    fn as_ref(&self) -> &[u8] {
        &[7; 100]
    }
}

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        panic!("in the drop of a caller's memory");
    }
}

alone_test! {
    async fn panic_in_drop_of_callers_bytes_leaves_the_broker_alive() {
        let pool = pool_of("import time\n\ndef take(data):\n    return len(data)\n").start().await.expect("it starts");
        let broker = pool.actor().incarnation();
        let lease = pool.checkout().await.expect("the worker is free");
        let bytes = Buffer::from(Bytes::from_owner(PanicsInDrop));
        // The broker drops the arguments when the call has waited for its time, and the worker when it has sent them.
        let call = Call::new("take", (bytes,)).expect("it has a form").timeout(Duration::from_millis(50));
        let late = pool.actor().send(call).await.expect("the broker lives").expect_err("no worker is free");
        assert!(matches!(late, CallError::Timeout { phase: Phase::Queue, .. }), "{late:?}");
        drop(lease);
        let bytes = Buffer::from(Bytes::from_owner(PanicsInDrop));
        let call = Call::new("take", (bytes,)).expect("it has a form");
        let reply = pool.actor().send(call).await.expect("the broker lives").expect("it is served");
        assert_eq!(reply.decode::<u64>().expect("a number"), 100);
        let status = pool.status().await.expect("it runs");
        assert_eq!((pool.actor().incarnation(), status.restarts), (broker, 0));
        pool.shutdown().await;
    }
}
