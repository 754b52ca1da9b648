//! Which calls are tried again, and how often.

use std::time::Duration;

use hatchery::{CallError, Phase};

use crate::support::{LONG_TIMEOUT, MODULE, SHORT_TIMEOUT, alone_test, lines, pool_of, started, status_when};

alone_test! {
    async fn idempotent_call_is_retried_when_its_worker_dies() {
        let pool = started(2).await;
        let call = pool.request("die_once").args((3,)).idempotent();
        assert_eq!(call.send::<String>().await.expect("the second attempt"), "alive");
        assert_eq!(lines("deaths"), ["3"]);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn idempotent_call_is_tried_at_most_twice() {
        let pool = started(2).await;
        let error = pool.request("die").args((3,)).idempotent().send::<()>().await.expect_err("the worker dies");
        let CallError::WorkerDied { started: true, exit: Some(3), signal: None, attempts: 2, .. } = &error else {
            panic!("{error:?}")
        };
        assert!(!error.is_retryable() && error.attempts() == 2);
        assert_eq!(lines("deaths"), ["3", "3"]);
        let status = status_when(&pool, "both are replaced", |status| status.idle == 2).await;
        assert_eq!(status.restarts, 2);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn plain_call_is_tried_once_when_its_worker_dies() {
        let pool = started(2).await;
        let error = pool.call::<_, ()>("die", (3,)).await.expect_err("the worker dies");
        assert!(matches!(error, CallError::WorkerDied { started: true, exit: Some(3), attempts: 1, .. }), "{error:?}");
        assert_eq!(lines("deaths"), ["3"]);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn exception_is_never_retried() {
        let pool = started(2).await;
        let error = pool.request("fail").args(("no",)).idempotent().send::<()>().await.expect_err("the function raises");
        let CallError::Python { type_name, message, traceback, attempts: 1, .. } = &error else { panic!("{error:?}") };
        assert_eq!((type_name.as_str(), message.as_str()), ("ValueError", "no"));
        assert!(traceback.contains("in fail"), "{traceback}");
        assert!(!error.is_retryable());
        assert_eq!(lines("failures"), ["no"]);
        assert_eq!(pool.status().await.expect("the pool runs").restarts, 0);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn timeout_is_never_retried() {
        // The first call is cancelled and keeps its worker; the second ignores the cancel and its worker is killed.
        for (function, grace, restarts) in [("hold", LONG_TIMEOUT, 0), ("stay", Duration::from_millis(300), 1)] {
            let pool = pool_of(MODULE).size(2).cancel_grace(grace).start().await.expect("the pool starts");
            let call = pool.request(function).args((function,)).timeout(SHORT_TIMEOUT).idempotent();
            let error = call.send::<u32>().await.expect_err("the call never returns");
            assert!(matches!(error, CallError::Timeout { phase: Phase::Run, attempts: 1, .. }), "{error:?}");
            let over = |status: &hatchery::PoolStatus| status.idle == 2 && status.restarts == restarts;
            let status = status_when(&pool, "the worker is idle or replaced", over).await;
            assert_eq!((status.submitted, status.assigned), (1, 1));
            pool.shutdown().await;
        }
    }
}
