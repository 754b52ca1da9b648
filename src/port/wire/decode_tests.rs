use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use proptest::prelude::*;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::*;
use crate::port::memory::array::Array;
use crate::port::memory::buffer::{Buffer, LEAST_MEMFD_BYTES};
use crate::port::wire::value::call_body;

/// A result with these bytes in it.
fn body(json: &str, attachments: &[&[u8]]) -> Body {
    let attachments =
        attachments.iter().map(|bytes| Attachment::Inline(Bytes::copy_from_slice(bytes))).collect();
    Body::received(Bytes::copy_from_slice(json.as_bytes()), attachments).unwrap()
}

fn refused<T: DeserializeOwned + fmt::Debug>(body: &Body) -> String {
    decode_result::<T>(body).unwrap_err().to_string()
}

const ONE: &str = r#"{"\u0000":[0]}"#;

#[test]
fn bytes_come_as_whatever_deserializes_bytes() {
    let body = body(ONE, &[b"raw"]);
    assert_eq!(decode_result::<Bytes>(&body).unwrap(), "raw");
    assert_eq!(&decode_result::<Buffer>(&body).unwrap()[..], b"raw");
    assert_eq!(decode_result::<serde_bytes::ByteBuf>(&body).unwrap(), "raw");
    assert_eq!(decode_result::<Option<Bytes>>(&body).unwrap().unwrap(), "raw");
    assert_eq!(decode_result::<Vec<u8>>(&body).unwrap(), b"raw");
    assert_eq!(decode_result::<Array<u8>>(&body).unwrap().as_slice(), b"raw");
    decode_result::<IgnoredAny>(&body).unwrap();
}

#[test]
fn bytes_that_do_not_fit_a_tuple_are_no_such_tuple() {
    let body = body(ONE, &[b"raw"]);
    assert_eq!(decode_result::<[u8; 3]>(&body).unwrap(), *b"raw");
    assert_eq!(decode_result::<(u8, u8, u8)>(&body).unwrap(), (b'r', b'a', b'w'));
    for error in [refused::<[u8; 2]>(&body), refused::<(u8, u8)>(&body), refused::<[u8; 4]>(&body)] {
        assert!(error.contains("invalid length 3"), "{error}");
    }
}

#[test]
fn a_buffer_is_not_copied() {
    let body = body(ONE, &[b"raw"]);
    let at = body.attachments[0].buffer().as_ptr();
    assert_eq!(decode_result::<Buffer>(&body).unwrap().as_ptr(), at);
    assert_eq!(
        decode_result::<(Buffer,)>(&Body { json: format!("[{ONE}]").into(), ..body }).unwrap().0.as_ptr(),
        at
    );
}

#[derive(Debug, PartialEq, serde::Deserialize)]
struct Page {
    number: u32,
    image: Bytes,
    #[serde(default)]
    parts: HashMap<String, Buffer>,
    kind: Kind,
}

#[derive(Debug, PartialEq, serde::Deserialize)]
enum Kind {
    Plain,
    Raw(Bytes),
    Sized { width: u32, data: Buffer },
    Both(Bytes, Bytes),
}

#[test]
fn bytes_come_at_any_depth() {
    let text = r#"[{"number":1,"image":{"\u0000":[2]},"kind":"Plain"},
                   {"number":2,"image":{"\u0000":[0]},"parts":{"a":{"\u0000":[1]}},"kind":{"Raw":{"\u0000":[3]}}},
                   {"number":3,"image":{"\u0000":[4]},"kind":{"Sized":{"width":1,"data":{"\u0000":[5]}}}},
                   {"number":4,"image":{"\u0000":[6]},"kind":{"Both":[{"\u0000":[7]},{"\u0000":[8]}]}}]"#;
    let parts: [&[u8]; 9] = [b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8"];
    let pages: Vec<Page> = decode_result(&body(text, &parts)).unwrap();
    assert_eq!((&pages[0].image[..], &pages[1].image[..]), (&b"2"[..], &b"0"[..]));
    assert_eq!(&pages[1].parts["a"][..], b"1");
    assert_eq!(pages[1].kind, Kind::Raw("3".into()));
    assert_eq!(pages[2].kind, Kind::Sized { width: 1, data: Buffer::from(vec![b'5']) });
    assert_eq!(pages[3].kind, Kind::Both("7".into(), "8".into()));
}

#[test]
fn names_that_look_like_placeholders_are_read_back() {
    let text =
        r#"{"\u0000\u0000":1,"\u0000\u0000\u0000":2,"\u0000\u0000a":3,"a\u0000":4,"":[{"\u0000":[0]}]}"#;
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u32),
        Bytes(Vec<Buffer>),
    }
    let members: BTreeMap<String, Either> = decode_result(&body(text, &[b"x"])).unwrap();
    let names: Vec<_> = members.keys().map(String::as_str).collect();
    assert_eq!(names, ["", "\0", "\0\0", "\0a", "a\0"]);
    assert!(matches!(members["\0\0"], Either::Number(2)));
    assert!(matches!(&members[""], Either::Bytes(list) if list[0][..] == *b"x"));
}

#[test]
fn names_are_numbers_where_numbers_are_asked_for() {
    let text = r#"[{"1":{"\u0000":[0]},"-2":{"\u0000":[1]}},{"true":1},{"B":2},{"2.5":3}]"#;
    #[derive(PartialEq, Eq, Hash, serde::Deserialize)]
    enum Letter {
        B,
    }
    type Maps = (BTreeMap<i64, Bytes>, HashMap<bool, u8>, HashMap<Letter, u8>, HashMap<String, u8>);
    let (numbers, truths, letters, others): Maps = decode_result(&body(text, &[b"a", b"b"])).unwrap();
    assert_eq!(numbers, BTreeMap::from([(1, "a".into()), (-2, "b".into())]));
    assert_eq!((truths[&true], letters[&Letter::B], others["2.5"]), (1, 2, 3));
}

#[test]
fn types_that_are_no_bytes_refuse_them_and_say_where() {
    let nested = body(r#"{"pages":[1,{"\u0000":[0]}],"z":0}"#, &[b"raw"]);
    let place = r#"result["pages"][1]: "#;
    let any = "invalid type: byte array, expected any valid JSON value";
    assert_eq!(refused::<Value>(&nested), format!("{place}{any}"));
    type Pages<T> = HashMap<String, Vec<T>>;
    let text = refused::<Pages<String>>(&body(r#"{"pages":["a",{"\u0000":[0]}]}"#, &[b"raw"]));
    assert_eq!(text, format!("{place}invalid type: bytes, expected a string"));
    let text = refused::<Pages<u32>>(&body(r#"{"pages":[1,{"\u0000":[0]}]}"#, &[b"raw"]));
    assert_eq!(text, format!("{place}invalid type: bytes, expected u32"));
    assert!(refused::<Box<RawValue>>(&nested).contains("which JSON text cannot hold"));
    let text = refused::<Bytes>(&body(r#"{"\u0000":[0,"<f4",[1]]}"#, &[b"1234"]));
    assert_eq!(text, "result: is an array of <f4: ask for a hatchery::Array");
    assert_eq!(decode_result::<Bytes>(&body(r#"{"\u0000":[0,"|u1",[2,2]]}"#, &[b"1234"])).unwrap(), "1234");
}

#[test]
fn broken_placeholders_are_errors() {
    for json in [
        r#"{"\u0000":[0],"a":1}"#,
        r#"{"\u0000":[0,"<f4"]}"#,
        r#"{"\u0000":[0,1,[1]]}"#,
        r#"{"\u0000":[0],"\u0000":1}"#,
        r#"{"\u0000":[0]}]"#,
    ] {
        let body = Body { json: json.into(), attachments: body(ONE, &[b"1234"]).attachments };
        assert!(decode_result::<Bytes>(&body).is_err(), "{json}");
    }
}

/// Any value, bytes included.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
enum Tree {
    Null(()),
    Number(i64),
    Text(String),
    Bytes(Bytes),
    Buffer(Buffer),
    Array(Array<f32>),
    List(Vec<Tree>),
    Map(BTreeMap<String, Tree>),
    Option(Option<Bytes>),
}

fn trees() -> impl Strategy<Value = Tree> {
    let bytes = || {
        prop_oneof![
            20 => prop::collection::vec(any::<u8>(), 0..40),
            1 => Just(vec![7; LEAST_MEMFD_BYTES]),
        ]
    };
    let leaf = prop_oneof![
        Just(Tree::Null(())),
        any::<i64>().prop_map(Tree::Number),
        "[\0a\"\\\\]{0,4}".prop_map(Tree::Text),
        bytes().prop_map(|bytes| Tree::Bytes(bytes.into())),
        bytes().prop_map(|bytes| Tree::Buffer(bytes.into())),
        prop::collection::vec(-9f32..9.0, 0..9).prop_map(|numbers| Tree::Array(numbers.into())),
        prop::option::of(bytes()).prop_map(|bytes| Tree::Option(bytes.map(Bytes::from))),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Tree::List),
            prop::collection::btree_map("[\0a\"\\\\]{0,3}", inner, 0..5).prop_map(Tree::Map),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn what_is_encoded_decodes_to_the_same(tree in trees()) {
        let body = call_body("f", &(&tree,), None::<&()>).unwrap();
        let body = Body::received(body.json, body.attachments).unwrap();
        let (_, (back,), ()): (String, (Tree,), ()) = decode_result(&body).unwrap();
        prop_assert_eq!(back, tree);
    }

    #[test]
    fn any_text_with_attachments_decodes_or_is_refused(
        pieces in prop::collection::vec(prop::sample::select(vec![r#"{"\u0000":[0]}"#, r#"{"\u0000":"#, r#""\u0000""#, "{", "[", ":", "0", "1", "]", "}", ","]), 0..12),
    ) {
        let attachments = vec![Attachment::Inline(Bytes::from_static(b"raw"))];
        let body = Body { json: pieces.concat().into(), attachments };
        let _ = decode_result::<Value>(&body);
        let _ = decode_result::<Vec<Bytes>>(&body);
        let _ = decode_result::<Page>(&body);
    }
}
