//! Starts that fail once or repeatedly.

use hatchery::{
    CallError, Pool, PoolStartError, StartPhase, UnavailableCause, WorkerStartError, WorkerState,
};

use crate::support::{
    MODULE, SHORT_START_TIMEOUT, alone_test, builder, descendants, pool_of, python_module, scratch, started,
    status_when,
};

pub(crate) const RAISES: &str =
    "def helper():\n    raise RuntimeError('no model on this machine')\n\n\nhelper()\n";

/// The first worker imports `{FIRST}`; the others wait forever.
const ONE_FAILS: &str = r#"
import os, time

try:
    os.close(os.open("first", os.O_CREAT | os.O_EXCL))
except FileExistsError:
    time.sleep(600)
print("on the way")
{FIRST}
"#;

/// Asserts that no process is alive when the error is returned.
#[track_caller]
fn refused(start: Result<Pool, PoolStartError>) -> WorkerStartError {
    let error = start.expect_err("the start fails");
    let left = descendants(std::process::id());
    assert!(left.is_empty(), "left alive: {left:?}");
    error.worker_error().unwrap_or_else(|| panic!("a worker's failure, not {error:?}")).clone()
}

#[track_caller]
pub(crate) fn start_failed(answer: Result<u32, CallError>) -> WorkerStartError {
    match answer {
        Err(error @ CallError::Unavailable { .. }) => {
            assert!(error.is_retryable() && error.attempts() == 0);
            let CallError::Unavailable { cause: UnavailableCause::StartFailed(cause) } = error else {
                panic!("another cause: {error:?}");
            };
            WorkerStartError::clone(&cause)
        }
        other => panic!("not unavailable: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn assert_traceback(error: &WorkerStartError) {
    let WorkerStartError::Python { phase, type_name, message, traceback, .. } = error else {
        panic!("not Python's own: {error:?}")
    };
    assert_eq!(
        (*phase, type_name.as_str(), message.as_str()),
        (StartPhase::Import, "RuntimeError", "no model on this machine")
    );
    assert!(traceback.contains("subject.py\", line 5, in <module>"), "{traceback}");
    assert!(traceback.contains("line 2, in helper"), "{traceback}");
    assert!(!traceback.contains("hatchery._"), "begins at the user's code: {traceback}");
}

alone_test! {
    async fn import_that_raises_fails_the_start_with_traceback() {
        let start = pool_of(RAISES).size(3).start().await;
        let text = start.as_ref().expect_err("it fails").to_string();
        assert!(text.contains("worker subject-") && text.contains("RuntimeError"), "{text}");
        assert_traceback(&refused(start));
    }
}

alone_test! {
    async fn import_error_in_one_worker_fails_the_whole_start() {
        let source = ONE_FAILS.replace("{FIRST}", RAISES);
        let error = refused(pool_of(&source).size(3).start().await);
        assert!(matches!(&error, WorkerStartError::Python { type_name, .. } if type_name == "RuntimeError"));
    }
}

alone_test! {
    tokio async fn worker_exit_during_import_fails_the_start() {
        let source = ONE_FAILS.replace("{FIRST}", "os._exit(3)");
        let error = refused(pool_of(&source).size(3).start().await);
        let WorkerStartError::Died { exit: Some(3), signal: None, output, .. } = &error else {
            panic!("it exited with 3: {error:?}")
        };
        assert!(output.contains("on the way"), "{output}");
    }
}

alone_test! {
    async fn worker_killed_during_import_fails_the_start() {
        let source = ONE_FAILS.replace("{FIRST}", "os.kill(os.getpid(), 9)");
        let error = refused(pool_of(&source).size(2).min_ready(1).start().await);
        assert!(matches!(error, WorkerStartError::Died { exit: None, signal: Some(9), .. }), "{error:?}");
    }
}

alone_test! {
    async fn import_that_hangs_fails_the_start_with_its_output() {
        // The interpreter is cached afterwards, so the timeout covers only the import.
        started(1).await.shutdown().await;
        let source = "import time\nprint('loading the model')\ntime.sleep(600)\n";
        let timeout = SHORT_START_TIMEOUT;
        let error = refused(pool_of(source).size(1).spawn_timeout(timeout).start().await);
        let WorkerStartError::TimedOut { after, output, .. } = &error else { panic!("it hung: {error:?}") };
        assert_eq!(*after, timeout);
        assert!(output.contains("loading the model"), "{output:?}");
    }
}

alone_test! {
    tokio async fn missing_module_fails_the_start() {
        let start = builder().module("no_such_module").size(1).start().await;
        let error = refused(start);
        assert!(
            matches!(&error, WorkerStartError::Python { type_name, message, .. }
                if type_name == "ModuleNotFoundError" && message.contains("no_such_module")),
            "{error:?}"
        );
    }
}

alone_test! {
    async fn pool_with_broken_module_recovers_after_repair() {
        let pool = pool_of(RAISES).size(2).min_ready(0).start().await.expect("the start does not wait for workers");
        // This call may arrive before the first start has failed; then it waits for the failure.
        assert_traceback(&start_failed(pool.call("pid", ()).await));
        // Later calls fail at once while the slots keep trying.
        for _ in 0..10 {
            assert_traceback(&start_failed(pool.call("pid", ()).await));
            let checkout = pool.checkout().await.map(|lease| lease.pid());
            assert_traceback(&start_failed(checkout));
        }
        let status = pool.status().await.expect("the pool itself runs");
        assert!(status.unavailable >= 21 && status.timed_out_waiting == 0 && status.restarts == 0);
        for worker in &status.workers {
            assert_eq!((worker.state, worker.pid), (WorkerState::Failed, None));
            assert!(worker.last_exit.as_deref().is_some_and(|how| how.contains("no model on this machine")));
        }
        python_module(&scratch(), "subject", MODULE);
        status_when(&pool, "both slots have tried again", |status| status.idle == 2).await;
        let one: u32 = pool.call("add", (1, 0)).await.expect("it is mended");
        assert_eq!(one, 1);
        pool.shutdown().await;
    }
}
