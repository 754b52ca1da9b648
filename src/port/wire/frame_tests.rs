use proptest::prelude::*;

use super::*;
use crate::port::wire::golden;

fn decoder() -> FrameDecoder {
    FrameDecoder { max_frame_bytes: DEFAULT_MAX_FRAME_BYTES }
}

#[test]
fn golden_frames_decode_and_encode() {
    for golden in golden::manifest().frames {
        let mut bytes = BytesMut::from(&golden::bytes(&golden.name)[..]);
        let frame = decoder().decode(&mut bytes).unwrap().expect(&golden.name);
        assert!(bytes.is_empty(), "{}", golden.name);
        assert_eq!(frame, golden.frame(), "{}", golden.name);
        let mut again = BytesMut::new();
        frame.encode(DEFAULT_MAX_FRAME_BYTES, &mut again).unwrap();
        assert_eq!(again, golden::bytes(&golden.name), "{}", golden.name);
    }
}

#[test]
fn golden_refusals_are_refused() {
    for golden in golden::manifest().refused {
        let mut bytes = BytesMut::from(&golden::bytes(&golden.name)[..]);
        let answer = decoder().decode(&mut bytes);
        assert!(answer.is_err(), "{} ({}): {answer:?}", golden.name, golden.why);
        assert!(bytes.capacity() < 1024, "{} made room", golden.name);
    }
}

#[test]
fn reserved_kinds_are_unsupported() {
    for kind in Kind::ALL.into_iter().filter(|kind| !kind.is_supported()) {
        let mut bytes = BytesMut::new();
        Frame::new(kind, 1, Codec::None, Bytes::new()).encode(1024, &mut bytes).unwrap();
        let answer = decoder().decode(&mut bytes);
        assert!(matches!(answer, Err(FrameError::UnsupportedKind(found)) if found == kind), "{answer:?}");
    }
    // The worker's, then the template's.
    let numbers: Vec<_> = Kind::ALL.into_iter().map(|kind| kind as u8).collect();
    assert_eq!(numbers, (1..=19).chain(32..=35).collect::<Vec<_>>());
}

#[test]
fn the_limit_counts_the_payload_and_is_inclusive() {
    let frame = Frame::new(Kind::Result, 1, Codec::Json, Bytes::from_static(b"12345"));
    let mut bytes = BytesMut::new();
    let answer = frame.encode(24, &mut bytes);
    assert!(matches!(answer, Err(FrameError::TooLarge { size: 25, limit: 24 })), "{answer:?}");
    assert!(bytes.is_empty());
    frame.encode(25, &mut bytes).unwrap();
    let answer = FrameDecoder { max_frame_bytes: 24 }.decode(&mut bytes.clone());
    assert!(matches!(answer, Err(FrameError::TooLarge { size: 25, limit: 24 })), "{answer:?}");
    assert_eq!(FrameDecoder { max_frame_bytes: 25 }.decode(&mut bytes).unwrap(), Some(frame));
}

#[test]
fn an_end_in_the_middle_of_a_frame_is_an_error() {
    let whole = golden::bytes("result_number");
    assert!(decoder().decode_eof(&mut BytesMut::new()).unwrap().is_none());
    for cut in 1..whole.len() {
        let answer = decoder().decode_eof(&mut BytesMut::from(&whole[..cut]));
        assert!(matches!(answer, Err(FrameError::Io(_))), "cut at {cut}: {answer:?}");
    }
}

#[test]
fn a_decoded_body_is_a_slice_of_what_was_read() {
    let mut bytes = BytesMut::from(&golden::bytes("result_attachments")[..]);
    let memory = bytes.as_ptr_range();
    let frame = decoder().decode(&mut bytes).unwrap().unwrap();
    assert!(memory.contains(&frame.body.as_ptr()));
    assert!(memory.contains(&frame.attachments[2].buffer().as_ptr()));
}

fn frames() -> impl Strategy<Value = Frame> {
    let supported: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| kind.is_supported()).collect();
    let inline = prop::collection::vec(any::<u8>(), 0..64).prop_map(|bytes| Attachment::Inline(bytes.into()));
    let awaited = (0..IN_MEMFD).prop_map(Attachment::Awaited);
    let parts = prop::collection::vec(prop_oneof![inline, awaited], 0..5);
    let body = prop::option::of(prop::collection::vec(any::<u8>(), 0..256));
    (prop::sample::select(supported), any::<u32>(), any::<u64>(), body, parts).prop_map(
        |(kind, number, call_id, body, parts)| Frame {
            kind,
            codec: if body.is_some() { Codec::Json } else { Codec::None },
            number,
            call_id,
            body: body.unwrap_or_default().into(),
            attachments: parts,
        },
    )
}

proptest! {
    #[test]
    fn a_header_with_any_lengths_decodes_or_is_refused(
        kind in 0u8..20, codec in 0u8..3, count in 0u16..4, body_bytes in 0u32..64, rest in prop::collection::vec(0u8..12, 0..64),
    ) {
        let mut payload = vec![kind, codec];
        payload.extend(count.to_be_bytes());
        payload.extend([0; 12]);
        payload.extend(body_bytes.to_be_bytes());
        payload.extend(&rest);
        if let Ok(frame) = Frame::decode(payload.clone().into()) {
            prop_assert_eq!(frame.payload_bytes(), payload.len() as u64);
        }
    }

    #[test]
    fn frames_make_the_round_trip_in_any_pieces(
        sent in prop::collection::vec(frames(), 1..4), piece in 1usize..50,
    ) {
        let mut stream = BytesMut::new();
        for frame in &sent {
            frame.encode(u32::MAX, &mut stream).unwrap();
        }
        let mut decoder = FrameDecoder { max_frame_bytes: 4096 };
        let mut bytes = BytesMut::new();
        let mut received = Vec::new();
        for piece in stream.chunks(piece) {
            bytes.extend_from_slice(piece);
            while let Some(frame) = decoder.decode(&mut bytes).unwrap() {
                received.push(frame);
            }
        }
        prop_assert!(bytes.is_empty());
        prop_assert_eq!(received, sent);
    }
}
