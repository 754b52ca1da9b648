use bytes::Bytes;
use hatchery::*;
use std::io::{Read, Write};
use std::time::{Duration, Instant};
fn med(mut v: Vec<Duration>) -> Duration {
    v.sort();
    v[v.len() / 2]
}
#[actix::main]
async fn main() {
    let dir = std::env::temp_dir().join("zzm");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(
        dir.join("m.py"),
        "
def echo(v): return v
def touch(a):
    import numpy as np
    return int(np.frombuffer(a, dtype='u1')[::4096].sum())
",
    )
    .unwrap();
    for codec in [Codec::Json, Codec::Orjson, Codec::Msgspec, Codec::Auto] {
        let pool = Pool::builder()
            .module("m")
            .path(&dir)
            .size(1)
            .python("/work/wt/pay/target/ci-venv/bin/python")
            .codec(codec)
            .on_current_arbiter()
            .start()
            .await
            .unwrap();
        let rows: Vec<serde_json::Value> = (0..800).map(|i| serde_json::json!({"id":i,"name":"some name here","email":"x@example.org","active":true,"score":12.25,"tags":["red","green"],"note":null})).collect();
        let mut t = vec![];
        for _ in 0..200 {
            let s = Instant::now();
            let _: Box<serde_json::value::RawValue> = pool.call("echo", (&rows,)).await.unwrap();
            t.push(s.elapsed());
        }
        println!("{codec:?} json 100kB rows echo {:?}", med(t));
        let mut t = vec![];
        for _ in 0..5000 {
            let s = Instant::now();
            let _: u64 = pool.call("echo", (7,)).await.unwrap();
            t.push(s.elapsed());
        }
        println!("{codec:?} small echo {:?}", med(t));
        if codec == Codec::Json {
            for size in [1_000_000usize, 1 << 20, 16_000_000] {
                let mut b = Buffer::new(size);
                b.fill(3);
                let b = b.freeze();
                let bytes = Bytes::from(vec![3u8; size]);
                let _: i64 = pool.call("touch", (&b,)).await.unwrap();
                let (mut view, mut viewb, mut e, mut eb, mut own) = (vec![], vec![], vec![], vec![], vec![]);
                for _ in 0..40 {
                    let s = Instant::now();
                    let _: i64 = pool.call("touch", (&b,)).await.unwrap();
                    view.push(s.elapsed());
                    let s = Instant::now();
                    let _: i64 = pool.call("touch", (&bytes,)).await.unwrap();
                    viewb.push(s.elapsed());
                    let s = Instant::now();
                    let _: Buffer = pool.call("echo", (&b,)).await.unwrap();
                    e.push(s.elapsed());
                    let s = Instant::now();
                    let _: Bytes = pool.call("echo", (&bytes,)).await.unwrap();
                    eb.push(s.elapsed());
                    let s = Instant::now();
                    let x: u64 = bytes.iter().step_by(4096).map(|b| u64::from(*b)).sum();
                    std::hint::black_box(x);
                    own.push(s.elapsed());
                }
                // raw echo
                let (mut a, mut c) = std::os::unix::net::UnixStream::pair().unwrap();
                let h = std::thread::spawn(move || {
                    let mut buf = vec![0; size];
                    while c.read_exact(&mut buf).is_ok() {
                        c.write_all(&buf).unwrap();
                    }
                });
                let mut raw = vec![];
                let mut back = vec![0; size];
                for _ in 0..40 {
                    let s = Instant::now();
                    a.write_all(&bytes).unwrap();
                    a.read_exact(&mut back).unwrap();
                    raw.push(s.elapsed());
                }
                drop(a);
                h.join().unwrap();
                println!(
                    "{size}: view Buffer {:?} Bytes {:?} own {:?} | echo Buffer {:?} Bytes {:?} raw socket {:?}",
                    med(view),
                    med(viewb),
                    med(own),
                    med(e),
                    med(eb),
                    med(raw)
                );
            }
        }
        pool.shutdown().await;
    }
}
