//! Invalid settings.

use std::time::Duration;

use hatchery::{ConfigError, Pool, PoolBuilder, PoolStartError};

use crate::support::{alone_test, descendants};

async fn refused(builder: PoolBuilder) -> ConfigError {
    match builder.start().await {
        Err(PoolStartError::Config(error)) => error,
        other => panic!("not refused as a setting: {other:?}"),
    }
}

alone_test! {
    tokio async fn invalid_setting_error_names_the_field() {
        let good = || Pool::builder().module("json");
        let cases = [
            (Pool::builder(), "module", "\"\"", "must be set"),
            (Pool::builder().module(""), "module", "\"\"", "a Python module's name"),
            (Pool::builder().module("a-b"), "module", "\"a-b\"", "a Python module's name"),
            (Pool::builder().module("json."), "module", "\"json.\"", "a Python module's name"),
            (Pool::builder().module("1st"), "module", "\"1st\"", "a Python module's name"),
            (Pool::builder().module("hatchery"), "module", "\"hatchery\"", "the workers' own package"),
            (Pool::builder().module("hatchery.x"), "module", "\"hatchery.x\"", "the workers' own package"),
            (good().size(0), "size", "0", "1 to 1024"),
            (good().size(1025), "size", "1025", "1 to 1024"),
            (good().size(2).min_ready(3), "min_ready", "3", "at most the pool's size"),
            (good().in_flight(0), "in_flight", "0", "1 to 1024"),
            (good().in_flight(1025), "in_flight", "1025", "1 to 1024"),
            (good().threads(2), "threads", "2", "unless in_flight is more than 1"),
            (good().in_flight(2).threads(1025), "threads", "1025", "at most 1024"),
            (good().max_frame_bytes(1000), "max_frame_bytes", "1000", "at least 65536"),
            (good().spawn_timeout(Duration::ZERO), "spawn_timeout", "0ns", "more than zero"),
            (good().checkout_timeout(Duration::ZERO), "checkout_timeout", "0ns", "more than zero"),
            (good().call_timeout(Duration::ZERO), "call_timeout", "0ns", "more than zero"),
            (good().shutdown_timeout(Duration::ZERO), "shutdown_timeout", "0ns", "more than zero"),
            (good().env("", "x"), "env", "\"\"", "not empty"),
            (good().env("A=B", "x"), "env", "\"A=B\"", "neither `=`"),
            (good().env("A\0B", "x"), "env", "\"A\\0B\"", "zero byte"),
            (good().name(""), "name", "\"\"", "not empty"),
            (good().name("a/b"), "name", "\"a/b\"", "neither `/`"),
            (good().name("a\0b"), "name", "\"a\\0b\"", "control character"),
            (good().on_current_arbiter(), "on_current_arbiter", "set", "only where an actix arbiter runs"),
        ];
        for (builder, field, value, allowed) in cases {
            let error = refused(builder).await;
            assert_eq!((error.field, error.value.as_str()), (field, value));
            assert!(error.allowed.contains(allowed), "{error}");
            let text = error.to_string();
            assert!([field, value, allowed].iter().all(|part| text.contains(part)), "{text}");
        }
        assert!(descendants(std::process::id()).is_empty());
    }
}

alone_test! {
    tokio async fn env_value_with_zero_byte_is_refused() {
        let error = refused(Pool::builder().module("json").env("A", "b\0c")).await;
        assert_eq!(error.field, "env");
    }
}
