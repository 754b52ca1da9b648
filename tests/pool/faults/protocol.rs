//! User code that writes to the socket of the worker: a `Protocol` error, and a new worker.

use hatchery::{CallError, Pool, PoolBuilder};
use serde_json::Value;

use super::pools::{FRAMES, pid, pool_of, serves, start, status};
use crate::support::{alone_test, is_alive, scratch, status_when};

const SOURCE: &str = r#"
import threading, time

def _sockets():
    for fd in map(int, os.listdir('/proc/self/fd')):
        try:
            if os.readlink(f'/proc/self/fd/{fd}').startswith('socket:'):
                yield fd
        except OSError:
            pass

def _write(data):
    for fd in list(_sockets()):
        os.write(fd, data)

WHAT = {
    'garbage': b'GET / HTTP/1.1\r\n\r\n',
    'ones': b'\xff' * 100_000,
    'an empty frame': bytes(4),
    'a short frame': b'\0\0\0\x05hello',
    'a length over the limit': struct.pack('>I', (64 << 20) + 1),
    'an unknown call': _frame(4, 999_999, b'1'),
    'call 0': _frame(4, 0, b'1'),
    'an error for an unknown call': _frame(5, 999_999, b'{"kind": "encode", "message": "mine"}'),
    'an item of no stream': _frame(6, 1, b'1'),
    'an item of an unknown stream': _frame(6, 999_999, b'1'),
    'an item without a value': _frame(6, 1, codec=0),
    'the end of no stream': _frame(7, 1, codec=0),
    'progress of an unknown call': _frame(17, 999_999, b'1'),
    'progress without a value': _frame(17, 1, codec=0),
    'a stack of an unknown call': _frame(18, 999_999, b'"here"'),
    'a stack that is no text': _frame(18, 1, b'[1]'),
    'a failed stop': _frame(5, 0, b'{"kind": "stop", "type": "E", "message": "now", "traceback": ""}'),
    'a cancel': _frame(8, 1, codec=0),
    'an unknown kind': _frame(77, 1, b'1'),
    'a call': _frame(3, 1, b'["ping", [], null]'),
    'ready': _frame(2, 0, b'{"protocol": 1, "pid": 1, "python": "3", "functions": [], "rss_bytes": null, "import_ms": 0}'),
    'an error that is no JSON': _frame(5, 1, b'{'),
    'an unknown codec': _frame(4, 1, b'1', codec=9),
    'a body without codec': _frame(4, 1, b'1', codec=0),
    'attachments': _frame(4, 1, struct.pack('>Q', 0)[:0] + b'1', attachments=1),
    'a wrong body length': struct.pack('>I', 21) + _frame(4, 1, b'12')[4:-1],
}

def write(what):
    _write(WHAT[what])
    return 'written'

def write_and_wait(what):
    _write(WHAT[what])
    time.sleep(1000)

def write_later(what, path):
    # In a thread that outlives the call.
    def later():
        while not os.path.exists(path):
            time.sleep(0.001)
        _write(WHAT[what])
    threading.Thread(target=later, daemon=True).start()

def one():
    yield 1

def stream(what, call_id):
    yield 'first'
    _write({
        'a result': _frame(4, call_id, b'1'),
        'a wrong item': _frame(6, call_id + 1, b'1'),
        'more items': _frame(6, call_id, b'1') * 3,
    }[what])
    time.sleep(1000)

def late(call_id):
    # A thread may still send frames for a finished call. They are ignored.
    _write(_frame(17, call_id, b'1') + _frame(18, call_id, b'"here"'))

def half_a_frame(then):
    _write(_frame(4, 1, b'"a long answer"')[:9])
    if then == 'exit':
        os._exit(3)
    return 'written'
"#;

/// What the worker writes, and a part of the error.
const CASES: [(&str, &str); 26] = [
    ("garbage", "over the limit"),
    ("ones", "over the limit"),
    ("an empty frame", "0 bytes is shorter"),
    ("a short frame", "5 bytes is shorter"),
    ("a length over the limit", "over the limit"),
    ("an unknown call", "unknown call 999999"),
    ("call 0", "unknown call 0"),
    ("an error for an unknown call", "unknown call 999999"),
    ("an item of no stream", "unknown stream 1"),
    ("an item of an unknown stream", "unknown stream 999999"),
    ("an item without a value", "there is none"),
    ("the end of no stream", "end of the unknown stream 1"),
    ("progress of an unknown call", "unknown call 999999"),
    ("progress without a value", "there is none"),
    ("a stack of an unknown call", "unknown call 999999"),
    ("a stack that is no text", "cannot be read"),
    ("a failed stop", "not told to stop"),
    ("a cancel", "was not expected"),
    ("an unknown kind", "unknown kind of frame: 77"),
    ("a call", "was not expected"),
    ("ready", "ready already"),
    ("an error that is no JSON", "cannot be read"),
    ("an unknown codec", "unknown codec: 9"),
    ("a body without codec", "without a codec"),
    ("attachments", "payload"),
    ("a wrong body length", "payload"),
];

/// A pool builder over [`FRAMES`] and [`SOURCE`].
fn writing_pool() -> PoolBuilder {
    pool_of(&[FRAMES, SOURCE].concat())
}

/// Calls a function that breaks the protocol, and checks the error and the new worker.
async fn assert_broken(pool: &Pool, function: &str, what: &str, told: &str) {
    let before = status(pool).await;
    let pid = before.workers[0].pid.expect("it is ready");
    let error = pool.call::<_, Value>(function, (what,)).await.expect_err("the protocol is broken");
    let CallError::Protocol { detail, .. } = &error else { panic!("{what}: {error:?}") };
    assert!(detail.contains(told) && !error.is_retryable(), "{what}: {error}");
    serves(pool).await;
    let after = status(pool).await;
    assert!(!is_alive(pid) && after.restarts == before.restarts + 1, "{what}: {after:?}");
    let why = after.workers[0].last_exit.clone().expect("one has ended");
    assert!(why.contains("protocol error"), "{why}");
}

alone_test! {
    async fn caller_with_protocol_error_gets_another_worker() {
        let pool = start(writing_pool()).await;
        for restarts in 0..5 {
            let error = pool.call::<_, Value>("write_and_wait", ("garbage",)).await.expect_err("it is broken");
            assert!(matches!(error, CallError::Protocol { .. }), "{error:?}");
            // Unlike a call, a stream is not retried on another worker.
            let mut items = pool.stream::<u32>("one", ()).await.expect("another worker has it");
            assert_eq!(items.next().await.expect("an item").expect("its worker lives"), 1);
            assert_eq!(status(&pool).await.restarts, restarts + 1);
        }
        pool.shutdown().await;
    }
}

alone_test! {
    async fn invalid_frames_are_protocol_errors() {
        // Several pools, so that the back-off stays short.
        for cases in CASES.chunks(5) {
            let pool = start(writing_pool()).await;
            for (what, told) in cases {
                assert_broken(&pool, "write", what, told).await;
            }
            pool.shutdown().await;
        }
    }
}

alone_test! {
    async fn protocol_error_is_reported_before_the_deadline() {
        let pool = start(writing_pool()).await;
        for what in ["garbage", "an empty frame", "an unknown call"] {
            let told = CASES.iter().find(|case| case.0 == what).expect("it is one").1;
            assert_broken(&pool, "write_and_wait", what, told).await;
        }
        pool.shutdown().await;
    }
}

alone_test! {
    async fn idle_worker_that_breaks_the_protocol_is_replaced() {
        let pool = start(writing_pool()).await;
        let (before, go) = (pid(&pool).await, scratch().join("go"));
        pool.call::<_, ()>("write_later", ("an unknown call", &go)).await.expect("it only starts a thread");
        serves(&pool).await;
        std::fs::write(go, "").expect("the scratch folder is writable");
        status_when(&pool, "the worker is replaced", |status| status.restarts == 1 && status.ready == 1).await;
        assert!(!is_alive(before));
        serves(&pool).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn partial_frame_is_a_death_or_a_protocol_error() {
        let pool = start(writing_pool()).await;
        let error = pool.call::<_, Value>("half_a_frame", ("exit",)).await.expect_err("the worker dies");
        assert!(matches!(error, CallError::WorkerDied { started: true, exit: Some(3), .. }), "{error:?}");
        serves(&pool).await;
        let error = pool.call::<_, Value>("half_a_frame", ("return",)).await.expect_err("its answer is unreadable");
        assert!(matches!(error, CallError::Protocol { .. }), "{error:?}");
        serves(&pool).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn invalid_stream_frames_are_protocol_errors() {
        let cases = [
            ("a result", "a result of the unknown call 1", 1),
            ("a wrong item", "unknown stream 2", 1),
            ("more items", "more items than it may send", 3),
        ];
        for (what, told, before_it) in cases {
            let pool = start(writing_pool()).await;
            let before = pid(&pool).await;
            // The first call has the id 1.
            let request = pool.request("stream").args((what, 1)).window(3);
            let mut items = request.stream::<Value>().await.expect("a worker is free");
            status_when(&pool, "the worker is replaced", |status| status.restarts == 1 && status.ready == 1).await;
            assert_eq!(items.next().await.expect("the first one").expect("a good item"), "first", "{what}");
            for _ in 1..before_it {
                assert_eq!(items.next().await.expect("another one").expect("a good item"), 1, "{what}");
            }
            let error = items.next().await.expect("an error").expect_err("the protocol is broken");
            let CallError::Protocol { detail, .. } = &error else { panic!("{what}: {error:?}") };
            assert!(detail.contains(told), "{what}: {error}");
            assert!(items.next().await.is_none(), "{what}");
            serves(&pool).await;
            assert!(!is_alive(before), "{what}");
            pool.shutdown().await;
        }
    }
}

alone_test! {
    async fn late_frames_of_a_finished_call_are_ignored() {
        let pool = start(writing_pool()).await;
        serves(&pool).await;
        let before = pid(&pool).await;
        pool.call::<_, ()>("late", (1,)).await.expect("late frames are ignored");
        serves(&pool).await;
        assert_eq!((pid(&pool).await, status(&pool).await.restarts), (before, 0));
        pool.shutdown().await;
    }
}
