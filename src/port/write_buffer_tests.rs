use proptest::prelude::*;

use super::*;
use crate::port::wire::attachment::Attachment;
use crate::port::wire::frame::{Codec, Kind};

fn frame(body: usize, attachments: &[usize]) -> Frame {
    let bytes = |len: usize| Bytes::from((0..len).map(|at| at as u8).collect::<Vec<_>>());
    let attachments = attachments.iter().map(|len| Attachment::Inline(bytes(*len))).collect();
    Frame { attachments, ..Frame::new(Kind::Call, 1, Codec::Json, bytes(body)) }
}

/// What is on its way, taken `step` bytes at a time.
fn all(outgoing: &mut WriteBuffer, step: usize) -> Vec<u8> {
    let mut written = Vec::new();
    while !outgoing.is_empty() {
        let (slices, count) = outgoing.slices();
        let next: Vec<u8> =
            slices[..count].iter().flat_map(|slice| slice.iter().copied()).take(step).collect();
        assert!(!next.is_empty());
        outgoing.advance(next.len());
        written.extend(next);
    }
    written
}

#[test]
fn large_pieces_are_not_copied() {
    let frame = frame(10, &[LEAST_SHARED_BYTES, 10, LEAST_SHARED_BYTES, LEAST_SHARED_BYTES]);
    let mut outgoing = WriteBuffer::default();
    outgoing.append(&frame, u32::MAX).unwrap();
    assert!(outgoing.shared.iter().any(|piece| piece.as_ptr() == frame.attachments[0].buffer().as_ptr()));
    assert_eq!(outgoing.shared.len(), 5, "head and body, one, ten bytes, two");
}

#[test]
fn a_frame_over_the_limit_leaves_nothing() {
    let mut outgoing = WriteBuffer::default();
    outgoing.append(&frame(10, &[]), 100).unwrap();
    let before = outgoing.tail.clone();
    let error = outgoing.append(&frame(10, &[100_000]), 1000).unwrap_err();
    assert!(matches!(error, FrameError::TooLarge { size: 100_038, limit: 1000 }), "{error}");
    assert_eq!((outgoing.shared.len(), &outgoing.tail), (0, &before));
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![0..100usize, LEAST_SHARED_BYTES - 1..LEAST_SHARED_BYTES + 2]
}

proptest! {
    #[test]
    fn frames_go_out_whole_and_in_order_and_the_last_can_be_taken_back(
        sizes in prop::collection::vec((size(), prop::collection::vec(size(), 0..3), any::<bool>()), 1..6),
        step in prop_oneof![1000..5000usize, Just(usize::MAX)],
    ) {
        let (mut outgoing, mut expected) = (WriteBuffer::default(), Vec::new());
        for (body, attachments, taken_back) in sizes {
            let frame = frame(body, &attachments);
            outgoing.append(&frame, u32::MAX).unwrap();
            if taken_back {
                outgoing.take_back();
                continue;
            }
            let mut head = BytesMut::new();
            frame.encode_head(u32::MAX, &mut head).unwrap();
            expected.extend_from_slice(&head);
            frame.parts().for_each(|part| expected.extend_from_slice(part));
            prop_assert_eq!((outgoing.end(), outgoing.written()), (expected.len() as u64, 0));
        }
        prop_assert_eq!(all(&mut outgoing, step), expected);
        prop_assert_eq!(outgoing.end(), outgoing.written());
    }
}
