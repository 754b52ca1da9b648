//! Calls that end their worker: `WorkerDied` says how, and the next call finds another one.

use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Mutex, mpsc};

use std::time::Duration;

use hatchery::supervisor::Backoff;
use hatchery::{CallError, HostCall, Phase, Pool, PoolBuilder, PoolStartError};
use serde_json::Value;

use super::pools::{pid, pool_of, serves, start, status};
use crate::support::{
    LONG_TIMEOUT, MODULE, SHORT_TIMEOUT, alone_test, is_alive, kill, pids, scratch, status_when, touch,
    wait_until,
};

const SOURCE: &str = "
import ctypes, os, resource, signal, sys, threading, time
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

def end(how):
    print('to stdout', flush=True)
    print(f'last words before {how}', file=sys.stderr)
    if how == 'exit 3':
        os._exit(3)
    elif how == 'exit 0':
        os._exit(0)
    elif how == 'segmentation fault':
        ctypes.string_at(0)
    elif how == 'kill':
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == 'abort':
        os.abort()
    elif how == 'terminate':
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # workers leave it to the host
        os.kill(os.getpid(), signal.SIGTERM)
    elif how == 'exec':
        os.execvp('true', ['true'])
    elif how == 'kill in a thread':
        threading.Thread(target=os._exit, args=(4,)).start()
    time.sleep(1000)

def use_memory(size):
    memory = bytearray(b'x') * size
    os._exit(len(memory) and 5)

def many_words():
    for n in range(1000):
        print(f'word {n}', file=sys.stderr)
    os._exit(6)

def once(folder):
    # The first time it ends its worker.
    try:
        os.mkdir(f'{folder}/been-here')
    except FileExistsError:
        return 'second'
    os._exit(7)

def never():
    os._exit(8)
";

async fn died(pool: &Pool, function: &str, args: impl serde::Serialize) -> CallError {
    let before = pid(pool).await;
    let error = pool.call::<_, Value>(function, args).await.expect_err("its worker dies");
    assert!(matches!(error, CallError::WorkerDied { started: true, attempts: 1, .. }), "{error:?}");
    assert!(!error.is_retryable() && !is_alive(before), "{error:?}");
    serves(pool).await;
    assert_ne!(pid(pool).await, before);
    error
}

alone_test! {
    async fn worker_died_error_reports_exit_or_signal() {
        // With more workers a death does not have to wait for the back-off of the one before.
        let pool = start(pool_of(SOURCE)).await;
        let cases = [
            ("exit 3", Some(3), None),
            ("exit 0", Some(0), None),
            ("segmentation fault", None, Some(11)),
            ("kill", None, Some(9)),
            ("abort", None, Some(6)),
            ("terminate", None, Some(15)),
            ("exec", Some(0), None),
            ("kill in a thread", Some(4), None),
        ];
        for (restarts, (how, code, by)) in (1..).zip(cases) {
            let error = died(&pool, "end", (how,)).await;
            let CallError::WorkerDied { exit, signal, stderr_tail, .. } = &error else { unreachable!() };
            assert_eq!((*exit, *signal), (code, by), "{how}");
            assert!(stderr_tail.contains(&format!("last words before {how}")), "{stderr_tail}");
            assert!(!stderr_tail.contains("to stdout"), "{stderr_tail}");
            let told = match (code, by) {
                (Some(code), _) => format!("exit code {code}"),
                (_, signal) => format!("signal {}", signal.unwrap_or_default()),
            };
            assert!(error.to_string().contains(&told), "{error}");
            let status = status(&pool).await;
            assert_eq!(status.restarts, restarts);
            assert!(status.workers[0].last_exit.as_ref().is_some_and(|why| why.contains(&told)), "{status:?}");
        }
        pool.shutdown().await;
    }
}

alone_test! {
    async fn worker_died_error_reports_peak_memory() {
        const SIZE: u64 = 150_000_000;
        let pool = start(pool_of(SOURCE)).await;
        let error = died(&pool, "use_memory", (SIZE,)).await;
        let CallError::WorkerDied { exit: Some(5), max_rss_bytes: Some(most), .. } = error else { panic!("{error:?}") };
        assert!((SIZE..SIZE + 100_000_000).contains(&most), "{most}");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn worker_died_error_has_only_the_last_lines() {
        let pool = start(pool_of(SOURCE)).await;
        let error = died(&pool, "many_words", ()).await;
        let CallError::WorkerDied { exit: Some(6), stderr_tail, .. } = &error else { panic!("{error:?}") };
        let lines: Vec<&str> = stderr_tail.lines().collect();
        assert!(lines.len() < 100 && lines.last() == Some(&"word 999"), "{stderr_tail}");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn idempotent_call_is_retried_once_on_another_worker() {
        let pool = start(pool_of(SOURCE)).await;
        let second: String =
            pool.request("once").args((scratch(),)).idempotent().send().await.expect("the second worker lives");
        assert_eq!(second, "second");
        assert_eq!(status(&pool).await.restarts, 1);
        let error = pool.request("never").idempotent().send::<Value>().await.expect_err("every worker dies of it");
        assert!(matches!(error, CallError::WorkerDied { exit: Some(8), started: true, .. }), "{error:?}");
        assert_eq!(error.attempts(), 2);
        serves(&pool).await;
        assert_eq!(status(&pool).await.restarts, 3);
        pool.shutdown().await;
    }
}

/// A pool with the host function `block`, which takes a process id, tells it, and holds up the pool's thread until it is told to
/// go on: whatever dies meanwhile, the pool learns it late.
fn with_block(builder: PoolBuilder) -> (PoolBuilder, Receiver<u32>, Sender<()>) {
    let (tell, blocked) = mpsc::channel();
    let (go_on, told) = mpsc::channel();
    let told = Mutex::new(told);
    let block = move |call: HostCall| {
        let (pid,): (u32,) = call.args().expect("a process id");
        tell.send(pid).expect("the test waits for it");
        told.lock().expect("there is one such call").recv_timeout(LONG_TIMEOUT).expect("the test goes on");
        std::future::ready(Ok::<_, CallError>(()))
    };
    (builder.host_function("block", block), blocked, go_on)
}

alone_test! {
    async fn call_to_a_dead_worker_is_reassigned_before_writing() {
        let source = "import os, hatchery\ndef block():\n    hatchery.call_host('block', os.getpid())\n";
        let (builder, blocked, go_on) = with_block(pool_of(source).size(2));
        let pool = start(builder).await;
        let workers = pids(&pool).await;
        let (blocks, served) = tokio::join!(pool.call::<_, ()>("block", ()), async {
            let mut busy = None;
            wait_until("the pool's thread is held up", LONG_TIMEOUT, || {
                busy = busy.or(blocked.try_recv().ok());
                busy.is_some()
            })
            .await;
            let idle = *workers.iter().find(|pid| Some(**pid) != busy).expect("there is another");
            kill(idle);
            wait_until("the process is dead", LONG_TIMEOUT, || !is_alive(idle)).await;
            let (served, ()) = tokio::join!(pool.call::<_, String>("ping", ()), async {
                go_on.send(()).expect("it waits for that");
            });
            served
        });
        blocks.expect("its worker lives");
        assert_eq!(served.expect("another worker gets it"), "pong");
        status_when(&pool, "the worker is replaced", |status| status.restarts == 1 && status.ready == 2).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn items_written_before_a_death_still_arrive() {
        let source = format!(
            "import hatchery, threading\n{MODULE}
def items():
    yield 1
    yield 2
    threading.Thread(target=hatchery.call_host, args=('block', os.getpid())).start()
    wait_for('a.go')
    yield 3
    os._exit(5)"
        );
        let (builder, blocked, go_on) = with_block(pool_of(&source).current_dir(scratch()));
        let pool = start(builder).await;
        let worker = pid(&pool).await;
        let mut items = pool.request("items").window(4).stream::<u32>().await.expect("a worker is free");
        wait_until("the pool's thread is held up", LONG_TIMEOUT, || blocked.try_recv().is_ok()).await;
        touch("a.go");
        wait_until("the process is dead", LONG_TIMEOUT, || !is_alive(worker)).await;
        // After two of four the worker hears first that Python may send more, and cannot tell that any more.
        for before in [1, 2] {
            assert_eq!(items.next().await.expect("an item").expect("it has come before"), before);
        }
        go_on.send(()).expect("it waits for that");
        assert_eq!(items.next().await.expect("an item").expect("it was on its way"), 3);
        let error = items.next().await.expect("an end").expect_err("its worker is dead");
        assert!(matches!(error, CallError::WorkerDied { exit: Some(5), started: true, .. }), "{error:?}");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn lease_fails_when_its_worker_dies() {
        let pool = start(pool_of(SOURCE)).await;
        let lease = pool.checkout().await.expect("the worker is idle");
        assert_eq!(Some(lease.pid()), status(&pool).await.workers[0].pid);
        let (first, second) = tokio::join!(
            lease.call::<_, Value>("end", ("exit 3",)),
            // This one comes behind it, and is never begun.
            lease.call::<_, Value>("ping", ()),
        );
        let first = first.expect_err("its worker dies");
        assert!(matches!(first, CallError::WorkerDied { started: true, exit: Some(3), .. }), "{first:?}");
        let second = second.expect_err("so does this one's");
        // Which of the two a worker hears first, its end or this call, is the scheduler's: one that has ended tells nothing.
        assert!(matches!(second, CallError::WorkerDied { started: false, exit: Some(3) | None, .. }), "{second:?}");
        assert!(second.is_retryable() && !first.is_retryable());
        status_when(&pool, "the worker is replaced", |status| status.restarts == 1 && status.ready == 1).await;
        let third = lease.call::<_, Value>("ping", ()).await.expect_err("a lease is one worker's");
        assert!(matches!(third, CallError::WorkerDied { started: false, .. }), "{third:?}");
        // The next worker is not this lease's.
        serves(&pool).await;
        drop(lease);
        serves(&pool).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn timeout_of_interrupted_call_causes_no_restart() {
        let pool = start(pool_of(SOURCE)).await;
        let before = pid(&pool).await;
        let call = pool.request("end").args(("never",)).timeout(SHORT_TIMEOUT);
        let error = call.send::<Value>().await.expect_err("the call never returns");
        assert!(matches!(error, CallError::Timeout { phase: Phase::Run, attempts: 1, .. }), "{error:?}");
        serves(&pool).await;
        assert_eq!((pid(&pool).await, status(&pool).await.restarts), (before, 0));
        pool.shutdown().await;
    }
}

alone_test! {
    async fn timeout_of_uninterruptible_call_kills_the_worker() {
        let pool = start(pool_of(MODULE).cancel_grace(SHORT_TIMEOUT)).await;
        let before = pid(&pool).await;
        let call = pool.request("wait_in_c").timeout(SHORT_TIMEOUT);
        let error = call.send::<Value>().await.expect_err("the call never returns");
        assert!(is_alive(before), "the caller is answered before the kill");
        assert!(matches!(error, CallError::Timeout { phase: Phase::Run, attempts: 1, .. }), "{error:?}");
        serves(&pool).await;
        assert!(!is_alive(before));
        let why = status(&pool).await.workers[0].last_exit.clone().expect("one has ended");
        assert!(why.contains("a call did not give up in time"), "{why}");
        pool.shutdown().await;
    }
}

const HOUR: Duration = Duration::from_secs(3600);

alone_test! {
    async fn worker_that_served_is_replaced_without_backoff() {
        // A death that counted would cost the rest of the hour.
        let backoff = Backoff { free: 1, first: HOUR, max: HOUR, within: HOUR, ..Backoff::default() };
        let pool = start(pool_of(SOURCE).size(1).restart_backoff(backoff)).await;
        for _ in 0..5 {
            died(&pool, "never", ()).await; // and its replacement serves
        }
        pool.shutdown().await;
    }
}

alone_test! {
    async fn worker_that_died_before_serving_waits_for_backoff() {
        let backoff = Backoff { free: 0, first: HOUR, max: HOUR, ..Backoff::default() };
        let at_once = Backoff { max_once_up: Duration::ZERO, ..backoff };
        let never = async |pool: &Pool| pool.call::<_, Value>("never", ()).await.expect_err("nobody answers");
        let pool = start(pool_of(SOURCE).size(1).restart_backoff(at_once)).await;
        for _ in 0..5 {
            let error = never(&pool).await;
            assert!(matches!(error, CallError::WorkerDied { .. }), "{error:?}");
        }
        serves(&pool).await;
        pool.shutdown().await;

        let pool = start(pool_of(SOURCE).size(1).restart_backoff(backoff).checkout_timeout(SHORT_TIMEOUT)).await;
        let error = never(&pool).await;
        assert!(matches!(error, CallError::WorkerDied { .. }), "{error:?}");
        let error = never(&pool).await;
        assert!(!matches!(error, CallError::WorkerDied { .. }), "there is no worker for an hour: {error:?}");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn invalid_restart_backoff_is_refused() {
        let backoff = Backoff { jitter: 2.0, ..Backoff::default() };
        let error = pool_of(SOURCE).restart_backoff(backoff).start().await.expect_err("no such jitter");
        assert!(matches!(&error, PoolStartError::Config(error) if error.field == "backoff.jitter"), "{error:?}");
    }
}
