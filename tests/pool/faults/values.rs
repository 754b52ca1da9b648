//! Values in both directions under the rules of the wire, and results that have no form there.

use std::collections::BTreeMap;

use hatchery::{CallError, Pool};
use serde::ser::SerializeSeq as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::pools::{pid, pool_of, serves, start};
use crate::support::alone_test;

const SOURCE: &str = "
import collections, datetime, decimal
Point = collections.namedtuple('Point', 'x y')

def echo(value): return value
def say(value): return repr(value)
def evaluate(text): return eval(text)
def nested(depth):
    value = []
    for _ in range(depth - 1):
        value = [value]
    return value
def nested_map(depth):
    value = {}
    for _ in range(depth - 1):
        value = {'k': value}
    return value
def endless():
    value = []
    value.append(value)
    return value
def text(size): return 'x' * size
def length(text): return len(text)
";

async fn value(pool: &Pool, expression: &str) -> Result<Value, CallError> {
    pool.call("evaluate", (expression,)).await
}

/// Refused as a result; the worker lives on.
async fn refused(pool: &Pool, call: Result<Value, CallError>) -> String {
    match call {
        Err(CallError::Encode { message, .. }) => {
            serves(pool).await;
            message
        }
        other => panic!("no error of encoding: {other:?}"),
    }
}

/// A list in a list in a list.
struct Nested(usize);

impl Serialize for Nested {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        if self.0 > 1 {
            list.serialize_element(&Nested(self.0 - 1))?;
        }
        list.end()
    }
}

alone_test! {
    async fn python_results_arrive_as_json() {
        let pool = start(pool_of(SOURCE)).await;
        let cases = [
            ("None", Value::Null),
            ("[True, False]", json!([true, false])),
            ("float('nan')", Value::Null),
            ("[float('inf'), -float('inf'), 1.5]", json!([null, null, 1.5])),
            ("{'nan': float('nan'), 'list': [float('inf')]}", json!({"nan": null, "list": [null]})),
            ("(1, (2, 3))", json!([1, [2, 3]])),
            ("Point(1, y=(2,))", json!([1, [2]])),
            ("{1: 'a', True: 'b'}", json!({"1": "b"})),
            ("{2: 'int', False: 'bool', None: 'none', 1.5: 'float'}", json!({"2": "int", "false": "bool", "null": "none", "1.5": "float"})),
            ("{float('inf'): 1}", json!({"Infinity": 1})),
            ("collections.OrderedDict(b=1, a=2)", json!({"b": 1, "a": 2})),
            ("collections.Counter('aab')", json!({"a": 2, "b": 1})),
            ("2**64 - 1", json!(u64::MAX)),
            ("[-2**63, 2**63]", json!([i64::MIN, 1_u64 << 63])),
            ("'\\u00fc\\u20ac\\U0001f40d\\x00\\x1f\\x7f\\u2028\"\\\\'", json!("ü€🐍\0\u{1f}\u{7f}\u{2028}\"\\")),
            ("''", json!("")),
            ("{'': {'': []}}", json!({"": {"": []}})),
            ("1e308", json!(1e308)),
            ("5e-324", json!(5e-324)),
        ];
        for (expression, expected) in cases {
            assert_eq!(value(&pool, expression).await.expect(expression), expected, "{expression}");
        }
        pool.shutdown().await;
    }
}

alone_test! {
    async fn unencodable_result_is_named_with_its_path() {
        let pool = start(pool_of(SOURCE)).await;
        let before = pid(&pool).await;
        let cases: [(&str, &[&str]); 14] = [
            ("{1, 2}", &["result is a set", "for example to a list"]),
            ("1j", &["result is a complex", "a list of two numbers"]),
            ("{'rows': [1, {2}]}", &["result['rows'][1] is a set"]),
            ("[datetime.date(2020, 1, 1)]", &["result[0] is a datetime.date", "isoformat"]),
            ("decimal.Decimal('1.5')", &["decimal.Decimal"]),
            ("object()", &["result is an object"]),
            ("(n for n in range(3))", &["generator", "list()"]),
            ("print", &["builtin_function_or_method"]),
            ("2**64", &["result is an integer of 65 bits"]),
            ("{'n': [-2**63 - 1]}", &["result['n'][0] is an integer of 64 bits"]),
            ("10**5000", &["result is an integer"]),
            ("['\\ud800']", &["result[0] has a lone surrogate (U+D800) at character 0"]),
            ("{'ab\\udfff': 1}", &["key", "U+DFFF", "character 2"]),
            ("{(1, 2): 3}", &["key of type tuple"]),
        ];
        for (expression, told) in cases {
            let message = refused(&pool, value(&pool, expression).await).await;
            assert!(told.iter().all(|part| message.contains(part)), "{expression}: {message}");
        }
        assert_eq!(pid(&pool).await, before);
        pool.shutdown().await;
    }
}

alone_test! {
    async fn nesting_depth_is_bounded_in_both_directions() {
        let pool = start(pool_of(SOURCE)).await;
        for function in ["nested", "nested_map"] {
            pool.call::<_, Value>(function, (120,)).await.expect("as deep as the wire carries");
            for depth in [121, 900, 10_000, 200_000] {
                let message = refused(&pool, pool.call(function, (depth,)).await).await;
                assert!(message.contains("nesting deeper than 120"), "{message}");
            }
        }
        let message = refused(&pool, pool.call("endless", ()).await).await;
        assert!(message.contains("contains itself"), "{message}");

        let back: Value = pool.call("echo", (Nested(120),)).await.expect("the list of arguments does not count");
        assert_eq!(back, serde_json::to_value(Nested(120)).expect("lists are JSON"));
        for depth in [121, 10_000] {
            let message = refused(&pool, pool.call("echo", (Nested(depth),)).await).await;
            assert!(message.contains("120"), "{message}");
        }
        let raw = RawValue::from_string(format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)));
        let message = refused(&pool, pool.call("echo", (raw.expect("lists are JSON"),)).await).await;
        assert!(message.contains("120"), "{message}");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn rust_arguments_arrive_as_python_values() {
        let pool = start(pool_of(SOURCE)).await;
        let say = async |value: Value| pool.call::<_, String>("say", (value,)).await.expect("it is JSON");
        assert_eq!(say(json!([null, true, -1, 1.5, "a\u{1f40d}\0"])).await, "[None, True, -1, 1.5, 'a🐍\\x00']");
        assert_eq!(say(json!([u64::MAX, i64::MIN])).await, format!("[{}, {}]", u64::MAX, i64::MIN));
        let say = async |value: f64| pool.call::<_, String>("say", (value,)).await.expect("it is JSON");
        assert_eq!(say(f64::NAN).await, "None");
        assert_eq!(say(f64::NEG_INFINITY).await, "None");
        let by_number = BTreeMap::from([(2_u8, 'a'), (10, 'b')]);
        let said: String = pool.call("say", (by_number,)).await.expect("keys become texts");
        assert_eq!(said, "{'2': 'a', '10': 'b'}");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn unencodable_argument_is_named_with_its_path() {
        let pool = start(pool_of(SOURCE)).await;
        let raw = |text: &str| RawValue::from_string(text.to_owned()).expect("it is JSON");
        let message = refused(&pool, pool.call("echo", (vec![1, 1_u128 << 64],)).await).await;
        assert!(message.contains("args[0][1]"), "{message}");
        let message = refused(&pool, pool.call("echo", (i128::from(i64::MIN) - 1,)).await).await;
        assert!(message.contains("args[0]"), "{message}");
        let message = refused(&pool, pool.call("echo", (raw("18446744073709551616"),)).await).await;
        assert!(message.contains("args[0]"), "{message}");
        let message = refused(&pool, pool.call("echo", (raw(r#"["\ud800"]"#),)).await).await;
        assert!(message.contains("lone surrogate"), "{message}");
        let message = refused(&pool, pool.call("echo", (raw(r#"{"\ud800\ud801": 1}"#),)).await).await;
        assert!(message.contains("lone surrogate"), "{message}");
        let keys = BTreeMap::from([((1, 2), 3)]);
        let message = refused(&pool, pool.call("echo", (keys,)).await).await;
        assert!(message.contains("key"), "{message}");
        let pair: String = pool.call("echo", (raw(r#""\ud83d\udc0d""#),)).await.expect("a pair is a character");
        assert_eq!(pair, "🐍");
        pool.shutdown().await;
    }
}

alone_test! {
    async fn result_of_wrong_type_is_named_with_its_path() {
        #[derive(Debug, Deserialize)]
        struct Report {
            rows: Vec<Row>,
        }
        #[derive(Debug, Deserialize)]
        struct Row {
            n: u8,
        }
        let pool = start(pool_of(SOURCE)).await;
        let report: Report = pool.call("echo", (json!({"rows": [{"n": 1}], "more": 2}),)).await.expect("it fits");
        assert_eq!(report.rows[0].n, 1);
        for (rows, place) in [
            (json!([{"n": 1}, {"n": "x"}]), "result[\"rows\"][1][\"n\"]"),
            (json!([{"n": 256}]), "result[\"rows\"][0][\"n\"]"),
            (json!(3), "result[\"rows\"]"),
        ] {
            let error = pool.call::<_, Report>("echo", (json!({"rows": rows}),)).await.expect_err("it does not fit");
            let told = matches!(&error, CallError::Decode { path, .. } if path == place);
            assert!(told && !error.is_retryable(), "{error:?}");
        }
        let error = pool.call::<_, String>("echo", (1,)).await.expect_err("it does not fit");
        let told = matches!(&error, CallError::Decode { path, message, .. } if path == "result" && message.contains("string"));
        assert!(told, "{error:?}");
        serves(&pool).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn frames_over_the_limit_are_refused() {
        const LIMIT: usize = 1 << 20;
        let pool = start(pool_of(SOURCE).max_frame_bytes(LIMIT as u32)).await;
        let before = pid(&pool).await;
        // Header 20 bytes, quotes 2.
        let most = LIMIT - 22;
        assert_eq!(pool.call::<_, String>("text", (most,)).await.expect("just so").len(), most);
        for size in [most + 1, 30_000_000] {
            let error = pool.call::<_, String>("text", (size,)).await.expect_err("too large");
            let told = matches!(error, CallError::FrameTooLarge { size: told, limit, .. }
                if told == size as u64 + 22 && limit == LIMIT as u64);
            assert!(told, "{error:?}");
            serves(&pool).await;
            let error = pool.call::<_, usize>("length", ("x".repeat(size),)).await.expect_err("too large");
            let told = matches!(error, CallError::FrameTooLarge { size: told, limit, .. }
                if told > size as u64 && limit == LIMIT as u64);
            assert!(told, "{error:?}");
            serves(&pool).await;
        }
        assert_eq!(pid(&pool).await, before);
        pool.shutdown().await;

        const LARGE: usize = 30_000_000;
        let pool = start(pool_of(SOURCE)).await;
        assert_eq!(pool.call::<_, String>("text", (LARGE,)).await.expect("it fits").len(), LARGE);
        assert_eq!(pool.call::<_, usize>("length", ("ü".repeat(LARGE / 2),)).await.expect("it fits"), LARGE / 2);
        serves(&pool).await;
        pool.shutdown().await;
    }
}

alone_test! {
    async fn error_longer_than_a_frame_is_shortened() {
        let source = "def fail():\n    raise type('E' * 100_000, (Exception,), {})('x' * 100_000)";
        let pool = start(pool_of(source).max_frame_bytes(64 * 1024)).await;
        let error = pool.call::<_, Value>("fail", ()).await.expect_err("the function raises");
        let CallError::Python { type_name, message, .. } = &error else { panic!("{error:?}") };
        assert!(type_name.contains("EEE") && message.starts_with("xxx"), "{}", type_name.len());
        serves(&pool).await;
        pool.shutdown().await;
    }
}
