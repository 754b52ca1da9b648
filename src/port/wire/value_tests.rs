use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::*;
use crate::port::wire::decode::{DecodeError, decode_result};

fn body<A: Serialize + ?Sized>(args: &A) -> Result<String, String> {
    call_body::<A, ()>("f", args, None)
        .map(|body| String::from_utf8(body.json.to_vec()).unwrap())
        .map_err(|error| error.message)
}

fn decode_json<T: DeserializeOwned>(json: &[u8]) -> Result<T, DecodeError> {
    decode_result(&Bytes::copy_from_slice(json).into())
}

fn nested(depth: usize) -> Value {
    (1..depth).fold(json!([]), |inner, _| json!([inner]))
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

#[test]
fn tuples_and_lists_are_positional() {
    assert_eq!(body(&(1, "a", 2.5, None::<u8>)).unwrap(), r#"["f",[1,"a",2.5,null],null]"#);
    assert_eq!(body(&[1, 2]).unwrap(), r#"["f",[1,2],null]"#);
    assert_eq!(body(&Vec::<u8>::new()).unwrap(), r#"["f",[],null]"#);
}

#[test]
fn maps_and_structs_are_keywords() {
    #[derive(Serialize)]
    struct Arguments {
        text: &'static str,
        strict: bool,
    }
    let expected = r#"["f",null,{"text":"a","strict":true}]"#;
    assert_eq!(body(&Arguments { text: "a", strict: true }).unwrap(), expected);
    assert_eq!(body(&BTreeMap::from([("text", 1)])).unwrap(), r#"["f",null,{"text":1}]"#);
}

#[test]
fn unit_and_none_are_no_arguments() {
    assert_eq!(body(&()).unwrap(), r#"["f",null,null]"#);
    assert_eq!(body(&None::<(u8,)>).unwrap(), r#"["f",null,null]"#);
}

#[test]
fn both_kinds_go_together() {
    let both = call_body("f", &(1,), Some(&json!({"k": 2}))).unwrap();
    assert_eq!(both.json, &br#"["f",[1],{"k":2}]"#[..]);
    let none = call_body("f", &(), Some(&json!({"k": 2}))).unwrap();
    assert_eq!(none.json, &br#"["f",null,{"k":2}]"#[..]);
    assert!(call_body("f", &json!({"a": 1}), Some(&json!({"k": 2}))).is_err());
    assert!(call_body("f", &(), Some(&json!([1]))).is_err());
}

#[test]
fn a_single_value_belongs_in_a_tuple() {
    for scalar in [json!("text"), json!(1), json!(-1), json!(true), json!(false), json!(1.5)] {
        assert!(body(&scalar).unwrap_err().ends_with("wrap it in a tuple: (value,)"), "{scalar}");
    }
}

#[test]
fn names_and_keys_are_escaped() {
    let body = call_body::<_, ()>("a\"b", &(), None).unwrap();
    assert_eq!(body.json, &br#"["a\"b",null,null]"#[..]);
    assert_eq!(super::tests::body(&(BTreeMap::from([(7, 1)]),)).unwrap(), r#"["f",[{"7":1}],null]"#);
}

#[test]
fn what_is_no_number_becomes_null() {
    assert_eq!(
        body(&(f64::NAN, f64::INFINITY, f32::NEG_INFINITY)).unwrap(),
        r#"["f",[null,null,null],null]"#
    );
}

#[test]
fn integers_fit_64_bits() {
    let ends = (i128::from(i64::MIN), u128::from(u64::MAX), u64::MAX, i64::MIN);
    let numbers = "-9223372036854775808,18446744073709551615,18446744073709551615,-9223372036854775808";
    assert_eq!(body(&ends).unwrap(), format!(r#"["f",[{numbers}],null]"#));
    let over = json!({"rows": [1, 2]});
    let message = body(&(over, [i128::from(i64::MIN) - 1])).unwrap_err();
    assert_eq!(
        message,
        "args[1][0] is the integer -9223372036854775809; only those of i64 and u64 travel: convert it to a string"
    );
    assert!(body(&(u128::from(u64::MAX) + 1,)).is_err());
    assert!(body(&(i128::from(u64::MAX) + 1,)).is_err());
}

#[test]
fn errors_name_the_place() {
    let map = BTreeMap::from([("rows", vec![1u128, 2, u128::MAX])]);
    assert!(
        body(&("a,[{\"", map.clone())).unwrap_err().starts_with(r#"args[1]["rows"][2] is the integer 3402"#)
    );
    assert!(body(&map).unwrap_err().starts_with(r#"kwargs["rows"][2] is the integer"#));
    let keyed = call_body("f", &(), Some(&map)).unwrap_err().message;
    assert!(keyed.starts_with(r#"kwargs["rows"][2] is"#), "{keyed}");
    let message = body(&(0, BTreeMap::from([((1, 2), 3)]))).unwrap_err();
    assert_eq!(message, "args[1] key must be a string");
}

#[test]
fn nesting_ends_at_120() {
    assert!(body(&(nested(120),)).is_ok());
    let message = body(&(nested(121),)).unwrap_err();
    assert!(message.ends_with("nests deeper than 120 levels: flatten it"), "{message}");
    let result = serde_json::to_vec(&nested(120)).unwrap();
    assert_eq!(decode_json::<Value>(&result).unwrap(), nested(120));
    // A value of 10 000 levels would overflow the stack; it is refused on the way down.
    struct Deep(usize);
    impl Serialize for Deep {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            [Deep(self.0 + 1)].serialize(serializer)
        }
    }
    assert!(body(&Deep(0)).is_err());
}

#[test]
fn raw_text_obeys_too() {
    assert!(body(&(raw(r#"{"a" : [1e400, "\ud83d\udc4b \u00e9 \\"]}"#),)).is_ok());
    for (text, reason) in [
        ("[18446744073709551616]", "is the integer 18446744073709551616"),
        (r#"{"a":-9223372036854775809}"#, "is the integer -9223372036854775809"),
        ("1000000000000000000000000000000000000000000", "is the integer 1000"),
        (r#""\ud83d""#, "lone surrogate"),
        (r#""\ud83d\ud83d\udc4b""#, "lone surrogate"),
        (r#"["\\\udc4b"]"#, "lone surrogate"),
    ] {
        let message = body(&(raw(text),)).unwrap_err();
        assert!(message.starts_with("args[0] ") || message.starts_with("args "), "{message}");
        assert!(message.contains(reason), "{text}: {message}");
    }
    for text in [
        "18446744073709551615",
        "-9223372036854775808",
        "0.0000000000000000000001",
        r#""1844674407370955161600[[""#,
    ] {
        assert!(body(&(raw(text),)).is_ok(), "{text}");
    }
    let deep = "[".repeat(121) + &"]".repeat(121);
    // serde_json itself refuses deeper text than this when it makes a RawValue of it.
    assert!(body(&(raw(&deep),)).is_err());
    assert!(body(&(raw(&deep[1..241]),)).is_ok());
}

#[test]
fn a_result_of_another_type_names_the_place() {
    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code, reason = "only decoded")]
    struct Row {
        id: u8,
        names: Vec<String>,
    }
    for (text, path, message) in [
        (
            r#"[{"id":1,"names":[]},{"id":300,"names":[]}]"#,
            r#"result[1]["id"]"#,
            "invalid value: integer `300`",
        ),
        (r#"[{"id":1,"names":["a",null]}]"#, r#"result[0]["names"][1]"#, "invalid type: null"),
        (r#"[{"id":1,"names":{"a":1}}]"#, r#"result[0]["names"]"#, "invalid type: map"),
        (r#"[{"id":1,"names":[["x"]]}]"#, r#"result[0]["names"][0]"#, "invalid type: sequence"),
        (r#"[{"id":1}]"#, "result[0]", "missing field `names`"),
        (r#""text""#, "result", "invalid type: string"),
        ("", "result", "EOF"),
    ] {
        let error = decode_json::<Vec<Row>>(text.as_bytes()).unwrap_err();
        assert_eq!(error.path, path, "{text}: {}", error.message);
        assert!(error.message.starts_with(message), "{text}: {}", error.message);
    }
}

proptest! {
    #[test]
    fn values_make_the_round_trip(numbers in any::<(i64, u64, f64)>(), texts in any::<Vec<(String, Option<bool>)>>()) {
        let args = (numbers, &texts);
        let body = call_body::<_, ()>("f", &args, None).unwrap();
        type Back = (String, ((i64, u64, f64), Vec<(String, Option<bool>)>), Option<()>);
        let (_, (back, said), _) = decode_result::<Back>(&body).unwrap();
        prop_assert_eq!((back.0, back.1, back.2.to_bits()), (numbers.0, numbers.1, numbers.2.to_bits()));
        prop_assert_eq!(&said, &texts);
    }

    #[test]
    fn no_bytes_make_the_place_panic(bytes in prop::collection::vec(prop::sample::select(&b"[]{},:\"\\a1"[..]), 0..60)) {
        place(&bytes, "result");
        let _ = decode_json::<Value>(&bytes);
    }
}
