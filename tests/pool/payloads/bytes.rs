//! Bytes of all sizes, types and positions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hatchery::{Buffer, BufferMut, Call, CallError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{buffer_of, pattern, pool_of};
use crate::support::alone_test;

const SOURCE: &str = r#"
import hatchery

def echo(value): return value
def kinds(*values): return [type(value).__name__ for value in values]
def checksum(data): return [len(data), sum(data[:1000]), sum(data[-1000:])]
def make(size): return bytearray(size)
def many(count, size): return [bytes(size)] * count
def pages(count, data):
    for number in range(count):
        yield {'number': number, 'data': data}
def tell(data):
    hatchery.progress({'preview': data})
    return data
async def later(data): return {'data': data}
def grow(kept=[]):
    kept.append(bytes(1 << 20))
    return kept
"#;

const MIB: usize = 1 << 20;

alone_test! {
    async fn bytes_of_all_sizes_pass_in_both_directions() {
        let pool = pool_of(SOURCE).start().await.expect("the pool starts");
        for size in [0, 1, 1000, 70_000, MIB - 1, MIB, MIB + 1, 5 * MIB] {
            let data = Bytes::from(pattern(size));
            let back: Bytes = pool.call("echo", (&data,)).await.expect("bytes come back");
            assert!(back == data, "{size}");
            for sent in [Buffer::from(data.clone()), buffer_of(&data)] {
                let back: Buffer = pool.call("echo", (sent,)).await.expect("bytes come back");
                assert!(back[..] == data[..], "{size}");
            }
            let back: serde_bytes::ByteBuf =
                pool.call("echo", (serde_bytes::Bytes::new(&data),)).await.expect("bytes come back");
            assert!(back[..] == data[..], "{size}");
        }
        let large = BufferMut::new(MIB).freeze();
        let kinds: Vec<String> = pool.call("kinds", (&large, Bytes::from_static(b"x"), "x")).await.expect("the call succeeds");
        assert_eq!(kinds, ["memoryview", "bytes", "str"]);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn bytes_of_256_mib_pass_beside_a_64_kib_frame() {
        let pool = pool_of(SOURCE).max_frame_bytes(64 * 1024).start().await.expect("the pool starts");
        let mut data = BufferMut::new(256 * MIB);
        data[0] = 7;
        data[256 * MIB - 1] = 9;
        let data = data.freeze();
        let said: (usize, u32, u32) = pool.call("checksum", (&data,)).await.expect("it is read in place");
        assert_eq!(said, (256 * MIB, 7, 9));
        let back: Buffer = pool.call("echo", (&data,)).await.expect("the echo succeeds");
        assert_eq!((back.len(), back[0], back[256 * MIB - 1]), (256 * MIB, 7, 9));
        let made: Buffer = pool.call("make", (256 * MIB,)).await.expect("it is made");
        assert_eq!((made.len(), made[200 * MIB]), (256 * MIB, 0));
        pool.shutdown().await;
    }
}

alone_test! {
    async fn bytes_over_the_limits_are_refused_before_sending() {
        let pool = pool_of(SOURCE).max_frame_bytes(64 * 1024).start().await.expect("the pool starts");
        let error = pool.call::<_, Value>("echo", (Bytes::from(vec![0; 65_536]),)).await.expect_err("too large");
        let CallError::FrameTooLarge { size, limit: 65_536, .. } = error else { panic!("{error:?}") };
        assert!((65_536..65_700).contains(&size), "{size}");
        let error = pool.call::<_, Value>("make", (65_536,)).await.expect_err("too large");
        assert!(matches!(error, CallError::FrameTooLarge { limit: 65_536, .. }), "{error:?}");
        // A memfd does not count towards the frame.
        let back: Buffer = pool.call("echo", (Bytes::from(vec![1; MIB]),)).await.expect("it is beside the frame");
        assert_eq!(back.len(), MIB);

        let error = pool.call::<_, Value>("echo", (vec![Buffer::default(); 65_536],)).await.expect_err("too many");
        assert!(matches!(&error, CallError::Encode { message, .. } if message.contains("more than the 65535 bytes values")), "{error:?}");
        let error = pool.call::<_, Value>("many", (65_536, 0)).await.expect_err("too many");
        assert!(matches!(&error, CallError::Encode { message, .. } if message.contains("more than the 65535 bytes values")), "{error:?}");
        assert_eq!(pool.status().await.expect("the pool runs").restarts, 0);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn buffers_over_the_fd_limit_go_in_the_frame() {
        let pool = pool_of(SOURCE).start().await.expect("the pool starts");
        let one = BufferMut::new(MIB).freeze();
        let back: Vec<Buffer> = pool.call("echo", (vec![one; 253],)).await.expect("they come back");
        assert!(back.len() == 253 && back.iter().all(|buffer| buffer.len() == MIB));
        pool.shutdown().await;
    }
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Page {
    number: u32,
    data: Bytes,
    #[serde(default)]
    more: BTreeMap<String, Vec<Buffer>>,
}

alone_test! {
    async fn bytes_pass_at_any_depth_by_every_kind_of_request() {
        let pool = pool_of(SOURCE).start().await.expect("the pool starts");
        let more = [("\0".to_owned(), vec![Buffer::from(vec![1]), Buffer::default()]), ("a".to_owned(), vec![])];
        let page = Page { number: 1, data: Bytes::from(pattern(MIB)), more: more.into() };
        assert_eq!(pool.call::<_, (u8, Page)>("echo", ((2, &page),)).await.expect("the echo succeeds"), (2, page));

        for size in [10, MIB] {
            let data = Bytes::from(pattern(size));
            let mut pages = pool.stream::<Page>("pages", (50, &data)).await.expect("it streams");
            let mut number = 0;
            while let Some(page) = pages.next().await {
                let page = page.expect("a page");
                assert!(page.number == number && page.data == data);
                number += 1;
            }
            assert_eq!(number, 50);

            let seen = Arc::new(Mutex::new(Vec::new()));
            let sees = seen.clone();
            let back: Bytes = pool
                .request("tell")
                .args((&data,))
                .on_progress(move |progress| {
                    let said: BTreeMap<String, Bytes> = progress.decode().expect("bytes");
                    sees.lock().expect("nobody panicked").push(said["preview"].clone());
                })
                .send()
                .await
                .expect("it runs");
            assert!(back == data && *seen.lock().expect("nobody panicked") == [data.clone()]);

            let said: BTreeMap<String, Bytes> = pool.call("later", (&data,)).await.expect("the call succeeds");
            assert!(said["data"] == data);
            let lease = pool.checkout().await.expect("a worker");
            assert!(lease.call::<_, Bytes>("echo", (&data,)).await.expect("the echo succeeds") == data);
            drop(lease);
            let call = Call::new("echo", (&data,)).expect("it is encoded").timeout(Duration::from_secs(20));
            let reply = pool.actor().send(call).await.expect("it is there").expect("it runs");
            assert!(reply.decode::<Bytes>().expect("bytes") == data);
        }
        pool.shutdown().await;
    }
}

alone_test! {
    async fn json_value_refuses_bytes_and_reports_the_path() {
        let pool = pool_of(SOURCE).start().await.expect("the pool starts");
        let error = pool.call::<_, Value>("later", (Bytes::from_static(b"x"),)).await.expect_err("no JSON");
        let CallError::Decode { path, message, .. } = error else { panic!("{error:?}") };
        assert_eq!((&path[..], &message[..]), (r#"result["data"]"#, "invalid type: byte array, expected any valid JSON value"));
        pool.shutdown().await;
    }
}

alone_test! {
    async fn buffer_can_be_sent_many_times() {
        let pool = pool_of(SOURCE).size(2).start().await.expect("the pool starts");
        for data in [buffer_of(&pattern(3 * MIB)), Buffer::from(pattern(3 * MIB))] {
            for _ in 0..10 {
                let (one, other) = tokio::join!(
                    pool.call::<_, Buffer>("echo", (&data, )),
                    pool.call::<_, (usize, u32, u32)>("checksum", (&data, )),
                );
                assert!(one.expect("the echo succeeds") == data && other.expect("it is read").0 == data.len());
            }
        }
        pool.shutdown().await;
    }
}
