//! The types of arguments and results.

use std::collections::{BTreeMap, HashMap};

use hatchery::CallError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::support::{alone_test, started};

#[derive(Serialize)]
struct Keywords {
    a: i64,
    b: i64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Row {
    name: String,
    scores: Vec<f64>,
    next: Option<Box<Row>>,
}

alone_test! {
    async fn positional_and_keyword_arguments_arrive() {
        let pool = started(1).await;
        let echo = |args: Value| json!([args, {}]);
        assert_eq!(pool.call::<_, Value>("echo", ()).await.expect("none"), echo(json!([])));
        assert_eq!(pool.call::<_, Value>("echo", (1, "two", 3.5)).await.expect("a tuple"), echo(json!([1, "two", 3.5])));
        assert_eq!(pool.call::<_, Value>("echo", [1, 2]).await.expect("an array"), echo(json!([1, 2])));
        assert_eq!(pool.call::<_, Value>("echo", vec!["a"]).await.expect("a Vec"), echo(json!(["a"])));
        assert_eq!(pool.call::<_, Value>("echo", ([1, 2],)).await.expect("a list in a tuple"), echo(json!([[1, 2]])));
        let map = HashMap::from([("x", 1)]);
        assert_eq!(pool.call::<_, Value>("echo", &map).await.expect("a map"), json!([[], {"x": 1}]));
        assert_eq!(pool.call::<_, i64>("add", Keywords { a: 1, b: 2 }).await.expect("a struct"), 3);
        let both = pool.request("echo").args((1,)).kwargs(&map).send::<Value>().await;
        assert_eq!(both.expect("both"), json!([[1], {"x": 1}]));
        let only = pool.request("add").kwargs(Keywords { a: 1, b: 2 }).send::<i64>().await;
        assert_eq!(only.expect("keywords beside nothing"), 3);
        assert_eq!(pool.call::<_, i64>("add", (1,)).await.expect("Python's own default"), 11);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn argument_outside_a_tuple_is_refused_with_a_hint() {
        let pool = started(1).await;
        for error in [
            pool.call::<_, Value>("echo", 5).await.expect_err("a number"),
            pool.call::<_, Value>("echo", "text").await.expect_err("a text"),
            pool.call::<_, Value>("echo", true).await.expect_err("a bool"),
        ] {
            let CallError::Encode { message, .. } = &error else { panic!("{error:?}") };
            assert!(message.contains("(value,)"), "{message}");
            assert!(!error.is_retryable());
        }
        let twice = pool.request("echo").args(HashMap::from([("x", 1)])).kwargs(HashMap::from([("y", 1)]));
        assert!(matches!(twice.send::<Value>().await, Err(CallError::Encode { .. })));
        let status = pool.status().await.expect("the pool runs");
        assert_eq!(status.submitted, 0, "all calls were refused before they were sent");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn results_are_decoded_as_any_type() {
        let pool = started(1).await;
        let row = Row {
            name: "ä \u{1f409} \" \\ \n".into(),
            scores: vec![0.1, -1e300, 5e-324],
            next: Some(Box::new(Row { name: String::new(), scores: vec![], next: None })),
        };
        let ((back,), _): ((Row,), BTreeMap<String, Value>) =
            pool.call("echo", (&row,)).await.expect("a struct");
        assert_eq!(back, row);
        let edges = (i64::MIN, u64::MAX, true, 'c');
        let (back, _): ((i64, u64, bool, char), Value) = pool.call("echo", edges).await.expect("a tuple");
        assert_eq!(back, edges);
        let nothing = ((), Some(1), None::<i32>);
        let (back, _): (((), Option<i32>, Option<i32>), Value) =
            pool.call("echo", nothing).await.expect("a tuple");
        assert_eq!(back, nothing);
        pool.call::<_, ()>("touch", ("here",)).await.expect("None is nothing");
        let reply = pool.request("add").args((1, 2)).send_raw().await.expect("it adds");
        assert_eq!((reply.as_json(), reply.decode::<u8>().expect("a number")), (&b"3"[..], 3));
        let long = "x".repeat(5_000_000);
        let ((back,), _): ((String,), Value) = pool.call("echo", (&long,)).await.expect("5 MB each way");
        assert!(back == long);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn result_of_wrong_type_reports_its_path() {
        let pool = started(1).await;
        let answer = pool.call::<_, (Vec<u64>, Value)>("echo", (1, 2, "three")).await;
        let Err(error @ CallError::Decode { .. }) = &answer else { panic!("{answer:?}") };
        assert!(error.to_string().contains("[0][2]"), "{error}");
        assert!(!error.is_retryable());
        assert_eq!(error.attempts(), 1);
        assert_eq!(pool.call::<_, i64>("add", (1, 1)).await.expect("the worker is well"), 2);
        assert_eq!(pool.status().await.expect("the pool runs").restarts, 0);
        pool.shutdown().await;
    }
}
