use super::*;

fn unsealed(bytes: &[u8]) -> OwnedFd {
    let fd = create().unwrap();
    rustix::io::write(&fd, bytes).unwrap();
    fd
}

#[test]
fn a_copy_is_sealed_and_can_be_received() {
    for len in [0, 1, 4095, 4096, 1 << 20] {
        let bytes: Vec<u8> = (0..len).map(|at| at as u8).collect();
        let memfd = Memfd::copy_of(&bytes).unwrap();
        assert_eq!(memfd.as_slice(), bytes);
        assert!(rustix::io::write(&memfd.fd, b"x").is_err());
        assert!(rustix::fs::ftruncate(&memfd.fd, 0).is_err() || len == 0);
        let received = Memfd::received(memfd.fd.try_clone().unwrap(), len as u64).unwrap();
        drop(memfd);
        assert_eq!(received.as_slice(), bytes);
    }
}

#[test]
fn what_was_filled_in_place_is_there_when_sealed() {
    let mut open = OpenMemfd::zeroed(10_000).unwrap();
    assert!(open.as_slice().iter().all(|byte| *byte == 0));
    open.as_mut_slice()[9_999] = 7;
    let memfd = open.seal().unwrap();
    assert_eq!((memfd.as_slice()[0], memfd.as_slice()[9_999], memfd.as_slice().len()), (0, 7, 10_000));
}

#[test]
fn part_of_a_memfd_may_be_meant() {
    let memfd = Memfd::copy_of(b"longer").unwrap();
    assert_eq!(Memfd::received(memfd.fd, 4).unwrap().as_slice(), b"long");
}

#[test]
fn what_cannot_be_relied_on_is_refused() {
    let no_memfd = std::fs::File::open("/proc/version").unwrap().into();
    assert_eq!(Memfd::received(no_memfd, 1).unwrap_err(), "it is no memfd");

    let refused = Memfd::received(unsealed(b"bytes"), 5).unwrap_err();
    assert_eq!(refused, "it is not sealed against shrinking, growing and writing");
    for missing in [SealFlags::SHRINK, SealFlags::GROW, SealFlags::WRITE] {
        let fd = unsealed(b"bytes");
        rustix::fs::fcntl_add_seals(&fd, SEALS.difference(missing) | SealFlags::FUTURE_WRITE).unwrap();
        assert!(Memfd::received(fd, 5).is_err(), "{missing:?}");
    }

    let short = Memfd::copy_of(b"bytes").unwrap();
    assert_eq!(Memfd::received(short.fd, 6).unwrap_err(), "it has 5 bytes, not 6");
    let short = Memfd::copy_of(b"bytes").unwrap();
    assert!(Memfd::received(short.fd, u64::MAX).is_err());

    // Sealed, large, and with nothing behind it: more than there are addresses.
    let fd = create().unwrap();
    rustix::fs::ftruncate(&fd, i64::MAX as u64 & !4095).unwrap();
    rustix::fs::fcntl_add_seals(&fd, SEALS).unwrap();
    let refused = Memfd::received(fd, 1 << 62).unwrap_err();
    assert!(refused.starts_with("it cannot be mapped"), "{refused}");
}

#[test]
fn huge_pages_are_refused() {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
    let Ok(fd) = rustix::fs::memfd_create("huge", flags) else { return }; // the kernel has none
    rustix::fs::ftruncate(&fd, 1 << 21).unwrap();
    rustix::fs::fcntl_add_seals(&fd, SEALS).unwrap();
    assert_eq!(Memfd::received(fd, 1).unwrap_err(), "it has pages of another size");
}
