use std::future::poll_fn;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::port::{Body, Channel, FdSocket, session_end_frame};
use crate::worker::call::{ItemSender, Outcome};

const LONG: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(2);

/// A table, and what Python would read.
fn table(capacity: usize) -> (Arc<CallTable>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("there are sockets");
    let (descriptors, _) = FdSocket::pair().expect("there are sockets");
    (CallTable::new(Channel::new(ours, descriptors, 1 << 20).writer, capacity, GRACE), theirs)
}

fn pending(body: Body, session: Option<&str>, left: Duration) -> (PendingCall, oneshot::Receiver<Outcome>) {
    let (reply, outcome) = oneshot::channel();
    let work = Work::Call { body, session: session.map(Arc::from), depth: 0, idempotent: false };
    (PendingCall::new(work, Instant::now() + left, reply).assigned(None, None), outcome)
}

/// A call whose caller waits for ever.
fn call() -> PendingCall {
    call_of(None)
}

fn call_of(session: Option<&str>) -> PendingCall {
    let (call, outcome) = pending(Body::default(), session, LONG);
    std::mem::forget(outcome);
    call
}

fn end_of(session: &str) -> PendingCall {
    let (reply, outcome) = oneshot::channel();
    std::mem::forget(outcome);
    let work = Work::EndSession { session: session.into(), cause: "ended", timeout: LONG };
    PendingCall::new(work, Instant::now() + LONG, reply).assigned(None, None)
}

/// The ids of the active calls, and how many calls wait.
fn state(table: &CallTable) -> (Vec<u64>, usize) {
    table.with(|state| (state.active.iter().map(|active| active.id).collect(), state.waiting.len()))
}

fn run(table: &CallTable, call: PendingCall) {
    let given = table.with(|state| state.run(call));
    assert!(given.refused.is_empty() && given.failure.is_none());
}

/// The ids of the frames in the socket.
async fn written(python: &mut UnixStream, frames: usize) -> Vec<u64> {
    let mut bytes = vec![0; 24 * frames];
    python.read_exact(&mut bytes).await.expect("they are there");
    let id = |frame: &[u8]| u64::from_be_bytes(frame[12..20].try_into().expect("eight bytes"));
    bytes.chunks_exact(24).map(id).collect()
}

#[tokio::test]
async fn submitted_call_is_written_while_there_is_capacity() {
    let (table, mut python) = table(2);
    for _ in 0..4 {
        table.submit(call());
    }
    assert_eq!(state(&table), (vec![1, 2], 2));
    assert_eq!(written(&mut python, 2).await, [1, 2]);
}

#[tokio::test]
async fn submitted_call_to_closed_table_waits_and_wakes_worker() {
    let (table, _python) = table(2);
    table.with(|state| state.set_open(false));
    assert!(table.submit(call()));
    assert_eq!(state(&table), (vec![], 1));
    assert!(table.with(State::give).refused.is_empty());
    assert_eq!(state(&table), (vec![], 1), "the table is closed for the worker, too");
    table.with(|state| state.set_open(true));
    table.with(State::give);
    assert_eq!(state(&table), (vec![1], 0));
}

#[tokio::test]
async fn submitted_call_does_not_overtake_waiting_call() {
    let (table, _python) = table(1);
    table.submit(call());
    table.submit(call());
    table.with(|state| state.take(1)).expect("it is active");
    assert!(table.submit(call()), "the worker gives the first one");
    assert_eq!(state(&table), (vec![], 2));
    table.with(State::give);
    assert_eq!(state(&table), (vec![2], 1));
}

#[tokio::test]
async fn frames_of_the_worker_are_written_together_and_in_order() {
    let (table, mut python) = table(3);
    run(&table, call());
    run(&table, call());
    let error = python.try_read(&mut [0; 24]).expect_err("nothing is written yet");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    table.with(|state| state.set_wakes_at(Some(Instant::now() + MEMORY_INTERVAL)));
    assert!(table.submit(call()), "the worker has to write what was before it");
    poll_fn(|cx| table.poll_flush(cx)).await.expect("the socket takes it");
    let mut bytes = [0; 100];
    assert_eq!(python.read(&mut bytes).await.expect("they are there"), 3 * 24, "one write");
    assert_eq!(bytes[..72].chunks(24).map(|frame| frame[19]).collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test]
async fn worker_is_woken_only_where_its_timer_is_too_late() {
    let (table, _python) = table(1);
    let wakes = |wakes_at: Option<Instant>, call: PendingCall| {
        table.with(|state| state.set_wakes_at(wakes_at));
        let wakes = table.submit(call);
        table.with(State::take_all);
        wakes
    };
    let after = |wait| Some(Instant::now() + wait);
    assert!(wakes(None, call()), "the timer is not armed");
    assert!(wakes(after(Duration::ZERO), call()), "the timer is over");
    assert!(!wakes(after(MEMORY_INTERVAL), call()));
    assert!(wakes(after(LONG), call()), "the memory is sampled earlier");
    let (short, _outcome) = pending(Body::default(), None, MEMORY_INTERVAL / 2);
    assert!(wakes(after(MEMORY_INTERVAL), short), "its deadline is earlier");
    let mut stream = call();
    stream.stream = Some(ItemSender { id: StreamId::new(), window: 1, items: mpsc::unbounded_channel().0 });
    assert!(wakes(after(MEMORY_INTERVAL), stream));
}

#[tokio::test]
async fn worker_is_woken_for_bytes_that_the_socket_refuses() {
    let (table, _python) = table(1000);
    table.with(|state| state.set_wakes_at(Some(Instant::now() + MEMORY_INTERVAL)));
    let large = || pending(Body::from(Bytes::from(vec![b' '; 100_000])), None, LONG);
    let calls: Vec<_> = std::iter::repeat_with(large).take(1000).collect();
    let (calls, _outcomes): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
    assert!(calls.into_iter().any(|call| table.submit(call)), "the socket is full at some time");
    assert_eq!(state(&table).1, 0);
}

#[tokio::test]
async fn frame_after_the_last_flush_has_not_arrived() {
    let (table, mut python) = table(3);
    run(&table, call());
    run(&table, call());
    poll_fn(|cx| table.poll_flush(cx)).await.expect("the socket takes them");
    assert_eq!(written(&mut python, 2).await, [1, 2]);
    run(&table, call());
    drop(python);
    let error = poll_fn(|cx| table.poll_flush(cx)).await.expect_err("nobody reads");
    assert!(matches!(error, ChannelError::Closed), "{error}");
    let (calls, written) = table.close();
    let arrived: Vec<_> = calls.iter().map(|(id, call)| (*id, call.has_arrived(written))).collect();
    assert_eq!(arrived, [(Some(1), true), (Some(2), true), (Some(3), false)]);
    assert!(calls.iter().all(|(_, call)| call.is_sent()));
}

#[tokio::test]
async fn submitted_call_without_time_left_is_not_written() {
    let (table, _python) = table(1);
    let (late, _outcome) = pending(Body::default(), None, Duration::ZERO);
    assert!(table.submit(late));
    assert_eq!(state(&table), (vec![], 1));
    let refused = table.with(State::give).refused;
    assert!(matches!(refused[0].1, CallError::Timeout { .. }));
}

#[tokio::test]
async fn call_to_an_ended_worker_answers_by_itself() {
    let (table, mut python) = table(1);
    table.submit(call());
    table.submit(call());
    assert_eq!(table.close().0.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [Some(1), None]);
    let (late, outcome) = pending(Body::default(), None, LONG);
    assert!(!table.submit(late));
    let error = outcome.await.expect("it is answered").expect_err("nobody serves it");
    assert!(matches!(error, CallError::WorkerDied { started: false, .. }), "{error:?}");
    assert_eq!(table.close().0.len(), 0);
    let mut all = Vec::new();
    python.read_to_end(&mut all).await.expect("the socket is closed although the table is still there");
    assert_eq!(all.len(), 24);
}

#[tokio::test]
async fn end_of_session_waits_for_its_calls_and_is_not_overtaken() {
    let (table, _python) = table(3);
    run(&table, call_of(Some("a")));
    run(&table, end_of("a"));
    run(&table, call_of(Some("a")));
    run(&table, call_of(Some("b")));
    assert_eq!(state(&table), (vec![1, 2], 2), "only the call of another session passes");
    table.with(|state| state.take(1)).expect("it is active");
    table.with(State::give);
    assert_eq!(state(&table), (vec![2, 3, 4], 0));
    table.with(|state| {
        assert!(matches!(state.active[1].call.as_ref().unwrap().work, Work::EndSession { .. }))
    });
}

#[tokio::test]
async fn worker_that_reads_nothing_gets_16_mib_beside_its_calls() {
    let (table, _python) = table(1);
    let long = session_end_frame(1, 0, &"x".repeat(1 << 19), "ended");
    let mut sent = 0;
    let error = loop {
        match table.send(&long) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 100, "nothing bounds it");
    };
    assert!(matches!(error, ChannelError::Unread { bytes } if bytes > UNWRITTEN_BYTES), "{error}");
    assert!(sent > 30, "so many fit: {sent}");
    // Calls are the callers', and are not counted.
    run(&table, call());
}

/// Arguments whose memory, when it is dropped, submits a call.
struct Submits(Arc<CallTable>);

impl AsRef<[u8]> for Submits {
    fn as_ref(&self) -> &[u8] {
        b"[]"
    }
}

impl Drop for Submits {
    fn drop(&mut self) {
        self.0.submit(call());
    }
}

#[tokio::test]
async fn arguments_of_a_caller_that_left_are_dropped_without_the_lock() {
    let (table, _python) = table(1);
    let body = Body::from(Bytes::from_owner(Submits(table.clone())));
    let (left, outcome) = pending(body, None, LONG);
    table.submit(left);
    poll_fn(|cx| table.poll_flush(cx)).await.expect("the socket takes it");
    drop(outcome);
    let step = poll_fn(|cx| Poll::Ready(table.with(|state| state.poll_left(cx)))).await;
    assert_eq!(step, Some((1, CallStep::Cancel)));
    assert_eq!(state(&table).1, 1, "the drop has submitted a call");
}
