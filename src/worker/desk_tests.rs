use std::future::poll_fn;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::*;
use crate::error::CallError;
use crate::port::{Body, Channel, Descriptors};
use crate::worker::dispatch::{Order, Outcome, ReplyTo, StreamId};

const LONG: Duration = Duration::from_secs(60);

/// A desk, and what Python would read.
fn desk() -> (Arc<Desk>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("there are sockets");
    let (descriptors, _) = Descriptors::pair().expect("there are sockets");
    (Desk::new(Channel::new(ours, descriptors, 1 << 20).writer), theirs)
}

fn call_within(left: Duration) -> (Dispatch, oneshot::Receiver<Outcome>) {
    let (reply, outcome) = oneshot::channel();
    let work = Work::Call { body: Body::default(), session: None, stream: None, depth: 0, idempotent: false };
    let order = Order { work, deadline: Instant::now() + left, reply: ReplyTo::once(reply) };
    (Dispatch::new(order, None), outcome)
}

fn call() -> Dispatch {
    call_within(LONG).0
}

/// The ids of calls that Python has; 0 for each that has to wait.
fn taken(desk: &Desk) -> Vec<u64> {
    let mut submitted = Vec::new();
    desk.take(&mut submitted);
    let id = |call: &Submitted| match call {
        Submitted::Sent(call_id, _) => *call_id,
        Submitted::Waits(_) => 0,
    };
    submitted.iter().map(id).collect()
}

/// The ids of the frames in the socket.
async fn written(python: &mut UnixStream, frames: usize) -> Vec<u64> {
    let mut bytes = vec![0; 24 * frames];
    python.read_exact(&mut bytes).await.expect("they are there");
    let id = |frame: &[u8]| u64::from_be_bytes(frame[12..20].try_into().expect("eight bytes"));
    bytes.chunks_exact(24).map(id).collect()
}

#[tokio::test]
async fn a_call_is_written_at_once_while_there_is_a_place_and_waits_else() {
    let (desk, mut python) = desk();
    assert!(desk.submit(call()), "nothing was offered: the worker must see to it");
    assert_eq!(taken(&desk), [0]);
    desk.offer(2, None);
    for _ in 0..4 {
        desk.submit(call());
    }
    assert_eq!(taken(&desk), [1, 2, 0, 0]);
    assert_eq!(written(&mut python, 2).await, [1, 2]);
    assert_eq!(desk.queue_call(&call(), Instant::now()).0, 3, "the worker's own ids go on from there");
}

#[tokio::test]
async fn what_the_worker_queues_is_written_together_and_in_its_order() {
    let (desk, mut python) = desk();
    for _ in 0..2 {
        desk.queue_call(&call(), Instant::now()).1.expect("it is taken");
    }
    let error = python.try_read(&mut [0; 24]).expect_err("nothing is written yet");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    desk.offer(1, Some(Instant::now() + MEMORY_INTERVAL));
    assert!(desk.submit(call()), "the worker has to write what was before it");
    poll_fn(|cx| desk.poll_flush(cx)).await.expect("the socket takes it");
    let mut bytes = [0; 100];
    assert_eq!(python.read(&mut bytes).await.expect("they are there"), 3 * 24, "one write");
    assert_eq!(bytes[..72].chunks(24).map(|frame| frame[19]).collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test]
async fn nothing_overtakes_what_waits_and_no_place_is_given_twice() {
    let (desk, _python) = desk();
    desk.submit(call());
    desk.offer(8, None);
    desk.submit(call());
    assert_eq!(taken(&desk), [0, 0]);
    desk.offer(2, None);
    desk.submit(call());
    // The worker does not know of that one yet.
    desk.offer(2, None);
    desk.submit(call());
    desk.submit(call());
    assert_eq!(taken(&desk), [1, 2, 0]);
}

#[tokio::test]
async fn the_worker_is_told_to_look_only_where_it_would_look_too_late() {
    let (desk, _python) = desk();
    let look = |looks_at: Option<Instant>, call: Dispatch| {
        desk.offer(1, looks_at);
        let look = desk.submit(call);
        taken(&desk);
        look
    };
    let after = |wait| Some(Instant::now() + wait);
    assert!(look(None, call()), "it does not look of itself");
    assert!(look(after(Duration::ZERO), call()), "that is over");
    assert!(!look(after(MEMORY_INTERVAL), call()));
    assert!(look(after(LONG), call()), "its memory is looked at earlier");
    assert!(look(after(MEMORY_INTERVAL), call_within(MEMORY_INTERVAL / 2).0), "its deadline is earlier");
    let mut stream = call();
    let opened = Some((StreamId::new(), 1));
    stream.work =
        Work::Call { body: Body::default(), session: None, stream: opened, depth: 0, idempotent: false };
    assert!(look(after(MEMORY_INTERVAL), stream));
}

#[tokio::test]
async fn what_the_socket_does_not_take_is_the_workers_to_write() {
    let (desk, _python) = desk();
    desk.offer(1000, Some(Instant::now() + MEMORY_INTERVAL));
    let large = || {
        let mut call = call();
        let body = Body::from(bytes::Bytes::from(vec![b' '; 100_000]));
        call.work = Work::Call { body, session: None, stream: None, depth: 0, idempotent: false };
        call
    };
    assert!((0..1000).any(|_| desk.submit(large())), "the socket is full at some time");
    assert!(!taken(&desk).contains(&0));
}

#[tokio::test]
async fn what_was_queued_for_a_worker_that_is_gone_has_not_arrived() {
    let (desk, mut python) = desk();
    let queue = || {
        let mut call = call();
        call.mark_sent(desk.queue_call(&call, Instant::now()).1.expect("it is taken"));
        call
    };
    let calls = [queue(), queue()];
    poll_fn(|cx| desk.poll_flush(cx)).await.expect("the socket takes them");
    assert_eq!(written(&mut python, 2).await, [1, 2]);
    let late = queue();
    drop(python);
    let error = poll_fn(|cx| desk.poll_flush(cx)).await.expect_err("nobody reads");
    assert!(matches!(error, ChannelError::Closed), "{error}");
    let (_, written) = desk.close();
    assert!(calls.iter().all(|call| call.has_arrived(written)));
    assert!(late.is_sent() && !late.has_arrived(written));
}

#[tokio::test]
async fn a_call_without_time_left_is_not_sent() {
    let (desk, _python) = desk();
    desk.offer(1, None);
    desk.submit(call_within(Duration::ZERO).0);
    assert_eq!(taken(&desk), [0]);
}

#[tokio::test]
async fn after_the_end_a_call_answers_by_itself_and_what_lay_there_is_handed_over() {
    let (desk, mut python) = desk();
    desk.offer(1, None);
    desk.submit(call());
    desk.submit(call());
    assert_eq!(desk.close().0.len(), 2);
    let (late, outcome) = call_within(LONG);
    assert!(!desk.submit(late));
    let error = outcome.await.expect("it is answered").expect_err("nobody serves it");
    assert!(matches!(error, CallError::WorkerDied { started: false, .. }), "{error:?}");
    assert_eq!(desk.close().0.len(), 0);
    let mut all = Vec::new();
    python.read_to_end(&mut all).await.expect("the socket is closed, though the desk is still there");
    assert_eq!(all.len(), 24);
}

#[tokio::test]
async fn worker_that_reads_nothing_gets_16_mib_beside_its_calls() {
    let (desk, _python) = desk();
    let long = crate::port::session_end_frame(1, 0, &"x".repeat(1 << 19), "ended");
    let mut sent = 0;
    let error = loop {
        match desk.send(&long) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 100, "nothing bounds it");
    };
    assert!(matches!(error, ChannelError::Unread { bytes } if bytes > UNWRITTEN_BYTES), "{error}");
    assert!(sent > 30, "so many fit: {sent}");
    // Calls are the callers', and are not counted.
    assert!(desk.queue_call(&call(), Instant::now()).1.is_ok());
}
