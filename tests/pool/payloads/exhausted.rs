//! Processes without free descriptors: bytes go in the frame or the call fails; nothing hangs or leaks.

use std::fs::File;

use bytes::Bytes;
use hatchery::{Buffer, BufferMut, CallError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{SMALL_FRAME, buffer_of, pattern, pool_of};
use crate::support::{alone_test, status_when};

const SOURCE: &str = r#"
import os, resource
import hatchery._memfds as memfds

def echo(value): return value
def make(size): return bytearray(size)
kept = []
def keep(data): kept.append(data)
def give(): return kept[0]
def kind(value): return type(value).__name__

files = []
def exhaust():
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, most))
    try:
        while True: files.append(os.open(os.devnull, os.O_RDONLY))
    except OSError: pass

def recover():
    while files: os.close(files.pop())
    return len(os.listdir('/proc/self/fd'))

def refuse_to_send():
    real = memfds._connected
    class Full:
        def __init__(self, fd): self.recvmsg = real(fd).recvmsg
        def sendmsg(self, *_): raise OSError(109, 'Too many references: cannot splice')
    memfds._connected = Full
"#;

const MIB: usize = 1 << 20;

/// Holds all free descriptors of this process until it is dropped.
struct Exhausted {
    before: Rlimit,
    _files: Vec<File>,
}

fn exhaust() -> Exhausted {
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(200), ..before }).expect("the limit can be lowered");
    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
    }
    Exhausted { before, _files: files }
}

impl Drop for Exhausted {
    fn drop(&mut self) {
        setrlimit(Resource::Nofile, self.before).expect("the limit can be raised again");
    }
}

alone_test! {
    async fn host_without_descriptors_passes_bytes_in_the_frame() {
        let pool = pool_of(SOURCE).start().await.expect("the pool starts");
        pool.call::<_, Buffer>("echo", (BufferMut::new(MIB).freeze(),)).await.expect("it imports what it needs");
        let data = pattern(3 * MIB);
        {
            let _exhausted = exhaust();
            let back: Bytes = pool.call("echo", (Bytes::from(data.clone()),)).await.expect("ordinary bytes");
            assert!(back[..] == data[..]);
            let buffer = buffer_of(&data);
            let back: Buffer = pool.call("echo", (&buffer,)).await.expect("what would be copied into a memfd");
            assert!(back == buffer);
            let mut buffer = BufferMut::new(MIB);
            buffer[5] = 5;
            let buffer = buffer.freeze();
            let back: Buffer = pool.call("echo", (&buffer,)).await.expect("what would be in a memfd");
            assert!(back == buffer);
            let kind: String = pool.call("kind", (&buffer,)).await.expect("it is the same in Python");
            assert_eq!(kind, "memoryview");
        }
        assert_eq!(pool.status().await.expect("the pool runs").restarts, 0);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn host_without_descriptors_refuses_bytes_over_the_frame() {
        let pool = pool_of(SOURCE).max_frame_bytes(SMALL_FRAME).start().await.expect("the pool starts");
        {
            let _exhausted = exhaust();
            let error = pool.call::<_, Bytes>("echo", (Bytes::from(vec![0; MIB]),)).await.expect_err("no memfd");
            assert!(matches!(error, CallError::FrameTooLarge { limit: SMALL_FRAME_LIMIT, .. }), "{error:?}");
            let error = pool.call::<_, Bytes>("echo", (buffer_of(&vec![0; MIB]),)).await.expect_err("no memfd");
            assert!(matches!(error, CallError::FrameTooLarge { limit: SMALL_FRAME_LIMIT, .. }), "{error:?}");
            assert_eq!(pool.call::<_, u32>("echo", (1,)).await.expect("small calls go on"), 1);
            // The worker sends a memfd, which the host cannot receive.
            let error = pool.call::<_, Bytes>("make", (MIB,)).await.expect_err("no descriptor for it");
            assert!(matches!(&error, CallError::Protocol { detail, .. } if detail.contains("too many open files")), "{error:?}");
        }
        // The caller gets the error before the pool counts the death.
        status_when(&pool, "the worker is replaced", |status| status.restarts == 1 && status.ready == 1).await;
        let back: Bytes = pool.call("echo", (Bytes::from(vec![7; MIB]),)).await.expect("as before");
        assert!(back.len() == MIB && back[MIB - 1] == 7);
        pool.shutdown().await;
    }
}

/// The limit as the type of the field in `CallError`.
const SMALL_FRAME_LIMIT: u64 = SMALL_FRAME as u64;

alone_test! {
    async fn worker_without_descriptors_passes_bytes_in_the_frame() {
        let pool = pool_of(SOURCE).start().await.expect("the pool starts");
        let kept = buffer_of(&pattern(MIB));
        pool.call::<_, ()>("keep", (&kept,)).await.expect("it keeps it");
        let before: usize = pool.call("recover", ()).await.expect("the call succeeds");
        pool.call::<_, ()>("exhaust", ()).await.expect("it opens files");
        let data = pattern(2 * MIB);
        let back: Bytes = pool.call("echo", (Bytes::from(data.clone()),)).await.expect("bytes come back");
        assert!(back[..] == data[..]);
        let back: Buffer = pool.call("give", ()).await.expect("a view that cannot go as it is");
        assert!(back == kept);
        let made: Buffer = pool.call("make", (MIB,)).await.expect("what it has made");
        assert_eq!(made.len(), MIB);
        let error = pool.call::<_, Buffer>("make", (64 * MIB,)).await.expect_err("more than a frame holds");
        assert!(matches!(error, CallError::FrameTooLarge { .. }), "{error:?}");
        assert_eq!(pool.call::<_, usize>("recover", ()).await.expect("the call succeeds"), before, "nothing stays open");
        let made: Buffer = pool.call("make", (64 * MIB,)).await.expect("in a memfd");
        assert_eq!(made.len(), 64 * MIB);
        pool.call::<_, ()>("refuse_to_send", ()).await.expect("it bends what sends");
        let back: Buffer = pool.call("give", ()).await.expect("within the frame");
        assert!(back == kept);
        let error = pool.call::<_, Buffer>("make", (64 * MIB,)).await.expect_err("more than a frame holds");
        assert!(matches!(error, CallError::FrameTooLarge { .. }), "{error:?}");
        assert_eq!(pool.call::<_, usize>("recover", ()).await.expect("the call succeeds"), before, "nothing stays open");
        assert_eq!(pool.status().await.expect("the pool runs").restarts, 0);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn memfd_a_worker_cannot_receive_fails_only_its_call() {
        let pool = pool_of(SOURCE).start().await.expect("the pool starts");
        let data = buffer_of(&pattern(MIB));
        assert!(pool.call::<_, Buffer>("echo", (&data,)).await.expect("the echo succeeds") == data);
        pool.call::<_, ()>("exhaust", ()).await.expect("it opens files");
        let error = pool.call::<_, Buffer>("echo", (&data,)).await.expect_err("no descriptor for it");
        assert!(matches!(&error, CallError::Protocol { detail, .. } if detail.contains("too many open files")), "{error:?}");
        pool.call::<_, usize>("recover", ()).await.expect("it closes them");
        assert!(pool.call::<_, Buffer>("echo", (&data,)).await.expect("the worker serves on") == data);
        assert_eq!(pool.status().await.expect("the pool runs").restarts, 0);
        pool.shutdown().await;
    }
}
