use super::*;

fn empty() -> OwnedFd {
    rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap()
}

fn received(fd: OwnedFd, len: u64) -> Result<Memfd, String> {
    Memfd::received(ReceivedFd::new(fd), len, &Arc::default())
}

fn unsealed(bytes: &[u8]) -> OwnedFd {
    let fd = empty();
    rustix::io::write(&fd, bytes).unwrap();
    fd
}

#[test]
fn a_copy_is_sealed_and_can_be_received() {
    for len in [0, 1, 4095, 4096, 1 << 20] {
        let bytes: Vec<u8> = (0..len).map(|at| at as u8).collect();
        let memfd = Memfd::copy_of(&bytes).unwrap();
        assert_eq!(memfd.as_slice(), bytes);
        assert!(rustix::io::write(memfd.descriptor().unwrap(), b"x").is_err());
        assert!(rustix::fs::ftruncate(memfd.descriptor().unwrap(), 0).is_err() || len == 0);
        let received =
            received(memfd.descriptor().unwrap().try_clone_to_owned().unwrap(), len as u64).unwrap();
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
    assert_eq!(received(memfd.fd.unwrap(), 4).unwrap().as_slice(), b"long");
}

#[test]
fn what_cannot_be_relied_on_is_refused() {
    let no_memfd = std::fs::File::open("/proc/version").unwrap().into();
    assert_eq!(received(no_memfd, 1).unwrap_err(), "it is no memfd");

    let refused = received(unsealed(b"bytes"), 5).unwrap_err();
    assert_eq!(refused, "it is not sealed against shrinking, growing and writing");
    for missing in [SealFlags::SHRINK, SealFlags::GROW, SealFlags::WRITE] {
        let fd = unsealed(b"bytes");
        rustix::fs::fcntl_add_seals(&fd, SEALS.difference(missing) | SealFlags::FUTURE_WRITE).unwrap();
        assert!(received(fd, 5).is_err(), "{missing:?}");
    }

    let short = Memfd::copy_of(b"bytes").unwrap();
    assert_eq!(received(short.fd.unwrap(), 6).unwrap_err(), "it has 5 bytes, not 6");
    let short = Memfd::copy_of(b"bytes").unwrap();
    assert!(received(short.fd.unwrap(), u64::MAX).is_err());
}

#[test]
fn memfd_that_is_too_large_or_has_holes_is_refused() {
    let sealed = |len: u64| {
        let fd = empty();
        rustix::fs::ftruncate(&fd, len).unwrap();
        rustix::fs::fcntl_add_seals(&fd, SEALS).unwrap();
        fd
    };
    assert!(received(sealed(1 << 40), 1).unwrap_err().contains("more than"));
    assert!(received(sealed(i64::MAX as u64 & !4095), 1 << 62).unwrap_err().contains("more than"));
    assert_eq!(received(sealed(1 << 30), 1 << 30).unwrap_err(), "it has holes");
    // One page is there, the others are not.
    let fd = empty();
    rustix::fs::ftruncate(&fd, 1 << 20).unwrap();
    rustix::io::pwrite(&fd, b"x", 0).unwrap();
    rustix::fs::fcntl_add_seals(&fd, SEALS).unwrap();
    assert_eq!(received(fd, 1).unwrap_err(), "it has holes");
}

#[test]
fn own_memfd_that_was_never_written_can_come_back() {
    let memfd = OpenMemfd::zeroed(3 << 20).unwrap().seal().unwrap();
    assert_eq!(received(memfd.fd.unwrap(), 3 << 20).unwrap().as_slice().len(), 3 << 20);
}

#[test]
fn own_memfd_cannot_change_its_size_while_it_is_written() {
    let open = OpenMemfd::zeroed(8192).unwrap();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open.fd));
    let other = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    assert!(other.set_len(0).is_err() && other.set_len(1 << 20).is_err());
}

#[test]
fn huge_pages_are_refused() {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
    let Ok(fd) = rustix::fs::memfd_create("huge", flags) else { return }; // the kernel has none
    rustix::fs::ftruncate(&fd, 1 << 21).unwrap();
    rustix::fs::fcntl_add_seals(&fd, SEALS).unwrap();
    assert_eq!(received(fd, 1).unwrap_err(), "it has pages of another size");
}

/// The limit is the whole process's, so a copy of this test runs in a process of its own.
#[test]
fn limit_of_file_sizes_is_asked_first() {
    const ALONE: &str = "HATCHERY_FSIZE_TEST";
    if std::env::var_os(ALONE).is_none() {
        let test = std::thread::current().name().expect("libtest names its threads").to_owned();
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([&test, "--exact", "--test-threads=1"])
            .env(ALONE, "1")
            .output()
            .unwrap();
        return assert!(output.status.success(), "{output:?}");
    }
    let before = rustix::process::getrlimit(rustix::process::Resource::Fsize);
    let limit = rustix::process::Rlimit { current: Some(4096), maximum: before.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
    let copied = Memfd::copy_of(&[1; 4097]).map(drop).map_err(|error| error.kind());
    let zeroed = OpenMemfd::zeroed(4097).map(drop).map_err(|error| error.kind());
    rustix::process::setrlimit(rustix::process::Resource::Fsize, before).unwrap();
    assert_eq!((copied, zeroed), (Err(io::ErrorKind::FileTooLarge), Err(io::ErrorKind::FileTooLarge)));
}

#[test]
fn descriptor_beyond_those_kept_is_closed_and_bytes_stay() {
    let (kept, sent) = (Arc::default(), Memfd::copy_of(b"bytes").unwrap());
    let receive = || {
        let fd = sent.descriptor().unwrap().try_clone_to_owned().unwrap();
        Memfd::received(ReceivedFd::new(fd), 5, &kept).unwrap()
    };
    let mut held: Vec<Memfd> = (0..KEPT_DESCRIPTORS).map(|_| receive()).collect();
    assert!(held.iter().all(|memfd| memfd.descriptor().is_some()));
    let beyond = receive();
    assert!(beyond.descriptor().is_none());
    assert_eq!(beyond.as_slice(), b"bytes");
    held.pop();
    assert!(receive().descriptor().is_some(), "one may be kept again");
}
