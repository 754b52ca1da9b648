//! The texts, sources and accessors of errors.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use super::{
    CallContext, CallError, Direction, OverloadCause, Phase, StartPhase, UnavailableCause, WorkerStartError,
};

fn failed_import(traceback: &str) -> WorkerStartError {
    WorkerStartError::Python {
        phase: StartPhase::Import,
        type_name: "ModuleNotFoundError".into(),
        message: "No module named 'shop'".into(),
        traceback: traceback.into(),
        environment: None,
    }
}

#[test]
fn one_line_traceback_prints_its_message_once() {
    let error = failed_import("ModuleNotFoundError: No module named 'shop'\n");
    for text in [format!("{error}"), format!("{error:#}"), format!("{error:?}")] {
        assert_eq!(text.matches("No module named 'shop'").count(), 1, "{text}");
    }
    let call = CallError::Python {
        type_name: "E".into(),
        message: "only once".into(),
        traceback: "E: only once\n".into(),
        environment: None,
        attempts: 1,
        context: Box::default(),
    };
    assert_eq!(format!("{call:#}").matches("only once").count(), 1, "{call:#}");
}

#[test]
fn traceback_of_several_lines_is_in_the_report_only() {
    let error = failed_import("Traceback (most recent call last):\n  File \"/srv/shop.py\", line 1\nE: x\n");
    assert!(format!("{error:#}").contains("Traceback (most recent call last)"));
    assert!(
        !error.to_string().contains('\n') && error.to_string().ends_with("raised at shop.py:1"),
        "{error}"
    );
    assert!(error.traceback().is_some_and(|text| text.ends_with("E: x\n")));
    assert_eq!((error.stack(), error.output()), (None, None));
}

#[test]
fn unavailable_pool_gives_the_failed_start_as_source_once() {
    let cause = Arc::new(failed_import("ModuleNotFoundError: No module named 'shop'\n"));
    let error = CallError::Unavailable { cause: UnavailableCause::StartFailed(cause.clone()) };
    assert_eq!(error.to_string(), "the pool is unavailable: no worker can start");
    assert_eq!(error.source().expect("a cause").to_string(), cause.to_string());
    let report = format!("{error:#}");
    assert_eq!(report.matches("No module named 'shop'").count(), 1, "{report}");
    assert!(report.starts_with("the pool is unavailable: no worker can start: the import"), "{report}");
    let stopped = CallError::Unavailable { cause: UnavailableCause::Stopped };
    assert!(stopped.source().is_none());
}

#[test]
fn call_errors_report_retryability_and_attempts() {
    let context = || Box::<CallContext>::default();
    let timeout = |phase, attempts| CallError::Timeout { phase, stack: None, attempts, context: context() };
    let died = |started, attempts| CallError::WorkerDied {
        started,
        exit: None,
        signal: Some(9),
        max_rss_bytes: None,
        stderr_tail: String::new(),
        reason: None,
        attempts,
        context: context(),
    };
    let unavailable = |cause| CallError::Unavailable { cause };
    let ended = Arc::new(WorkerStartError::Ended { reason: "x".into() });
    let text = || String::from("text");
    let python = CallError::Python {
        type_name: text(),
        message: text(),
        traceback: text(),
        environment: None,
        attempts: 1,
        context: context(),
    };
    let encode = |direction| CallError::Encode { message: text(), direction, context: context() };
    let too_large = |direction| CallError::FrameTooLarge { size: 1, limit: 0, direction, context: context() };
    let direction = Direction::Result;
    let cases = [
        (
            CallError::Overloaded {
                cause: OverloadCause::QueueBound,
                queue_len: 3,
                queue_bytes: 0,
                retry_after: Duration::from_secs(1),
            },
            true,
            0,
        ),
        (timeout(Phase::Queue, 0), true, 0),
        (timeout(Phase::Run, 2), false, 2),
        (python, false, 1),
        (died(false, 0), true, 0),
        (died(true, 2), false, 2),
        (encode(Direction::Arguments), false, 0),
        (encode(direction), false, 1),
        (CallError::Decode { path: text(), message: text(), direction, context: context() }, false, 1),
        (CallError::Protocol { detail: text(), context: context() }, false, 1),
        (
            CallError::NoSuchFunction { name: text(), similar: vec![], reason: None, context: context() },
            false,
            1,
        ),
        (CallError::Arguments { message: text(), context: context() }, false, 1),
        (too_large(Direction::Arguments), false, 0),
        (too_large(direction), false, 1),
        (CallError::Draining, false, 0),
        (unavailable(UnavailableCause::StartFailed(ended)), true, 0),
        (unavailable(UnavailableCause::BrokerRestarting), true, 0),
        (unavailable(UnavailableCause::Stopped), false, 0),
    ];
    for (error, retryable, attempts) in cases {
        assert_eq!((error.is_retryable(), error.attempts()), (retryable, attempts), "{error:?}");
        assert!(!error.to_string().is_empty());
    }
}
