use super::*;

#[test]
fn what_is_written_in_place_stays_when_it_is_frozen() {
    for len in [0, 1, 7, 8, 4097, LEAST_MEMFD_BYTES - 1, LEAST_MEMFD_BYTES, LEAST_MEMFD_BYTES + 1] {
        let mut open = BufferMut::new(len);
        assert!(open.len() == len && open.iter().all(|byte| *byte == 0));
        open.iter_mut().enumerate().for_each(|(at, byte)| *byte = at as u8);
        let buffer = open.freeze();
        assert!(buffer.iter().enumerate().all(|(at, byte)| *byte == at as u8) && buffer.len() == len);
        assert_eq!(buffer.memfd().is_some(), len >= LEAST_MEMFD_BYTES, "{len}");
        let bytes = buffer.to_bytes();
        assert!(bytes.as_ptr() == buffer.as_ptr() || len == 0);
        drop(buffer);
        assert_eq!(bytes.len(), len);
    }
}

#[test]
fn ordinary_bytes_are_copied_into_a_memfd_once() {
    let buffer = Buffer::from(vec![7; LEAST_MEMFD_BYTES]);
    let again = buffer.clone();
    assert!(buffer.memfd().is_none());
    let memfd = buffer.copy_in_memfd().unwrap();
    assert!(Arc::ptr_eq(&memfd, &again.copy_in_memfd().unwrap()));
    assert_eq!(memfd.as_slice(), &buffer[..]);
}

#[test]
fn other_serializers_see_bytes() {
    assert_eq!(serde_json::to_string(&Buffer::from(vec![1, 2])).unwrap(), "[1,2]");
    let buffer: Buffer = serde_json::from_str("\"text\"").unwrap();
    assert_eq!(&buffer[..], b"text");
    assert!(serde_json::from_str::<Buffer>("1").is_err());
}

#[test]
fn debug_does_not_show_the_bytes() {
    assert_eq!(format!("{:?}", Buffer::from(vec![1, 2])), r#"Buffer { len: 2, memory: "plain" }"#);
    assert_eq!(format!("{:?}", BufferMut::new(3)), "BufferMut { len: 3, .. }");
}
