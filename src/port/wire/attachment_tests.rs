use crate::port::memory::buffer::BufferMut;
use proptest::prelude::*;

use super::*;

#[test]
fn each_attachment_is_named_once() {
    let check = |json: &str, count| check_placeholders(json.as_bytes(), count);
    assert_eq!(check(r#"{"\u0000":[0]}"#, 1), Ok(()));
    assert_eq!(check(r#"[{ "\u0000" : [ 1 , "<f4", [2]] }, {"\u0000":[0]}]"#, 2), Ok(()));
    // None of these is a placeholder.
    assert!(check(r#"["\u0000",{"\u0000\u0000":[0]},"{\"\u0000\":[0]}"]"#, 1).is_err());
    assert_eq!(check(r#"{"\u0000":[1]}"#, 1).unwrap_err(), "a placeholder names attachment 1 of 1");
    let twice = r#"[{"\u0000":[0]},{"\u0000":[0]}]"#;
    assert_eq!(check(twice, 1).unwrap_err(), "two placeholders name attachment 0");
    assert_eq!(check(r#"{"\u0000":[0]}"#, 2).unwrap_err(), "no placeholder names attachment 1");
    for broken in [r#"{"\u0000":0}"#, r#"{"\u0000":[]}"#, r#"{"\u0000":[-1]}"#, r#"{"\u0000":["#] {
        assert_eq!(check(broken, 1).unwrap_err(), "a placeholder names no attachment", "{broken}");
    }
    assert!(check(r#"{"\u0000":[99999999999999999999999999]}"#, 1).is_err());
}

#[test]
fn at_most_250_of_a_frame_are_in_memfds() {
    let one = BufferMut::new(LEAST_MEMFD_BYTES).freeze();
    let mut collected = Collected::default();
    for index in 0..MOST_MEMFDS + 2 {
        assert_eq!(collected.push(&one).unwrap(), index);
    }
    let attachments = collected.into_attachments();
    assert!(attachments[..MOST_MEMFDS].iter().all(|part| matches!(part, Attachment::Memfd(_))));
    assert!(attachments[MOST_MEMFDS..].iter().all(|part| matches!(part, Attachment::Inline(_))));
    let body = Body { json: "1".into(), attachments };
    assert_eq!(body.frame_bytes(), 1 + 8 * (MOST_MEMFDS + 2) + 2 * LEAST_MEMFD_BYTES);
}

#[test]
fn more_than_a_frame_can_count_are_refused() {
    let mut collected = Collected::default();
    for _ in 0..u16::MAX {
        collected.push_copy(b"").unwrap();
    }
    let error = collected.push_copy(b"").unwrap_err().to_string();
    assert_eq!(error, "is more than the 65535 bytes values that one call carries: put them together");
}

proptest! {
    #[test]
    fn any_text_is_checked_without_a_panic(json in prop::collection::vec(any::<u8>(), 0..100), count in 0..4usize) {
        let _ = check_placeholders(&json, count);
    }

    #[test]
    fn text_of_pieces_is_checked_without_a_panic(
        pieces in prop::collection::vec(prop::sample::select(vec![r#"""#, r"\", r"\u0000", "{", "[", ":", "0", "1", " ", "]", "}", ","]), 0..30),
        count in 0..3usize,
    ) {
        let _ = check_placeholders(pieces.concat().as_bytes(), count);
    }
}
