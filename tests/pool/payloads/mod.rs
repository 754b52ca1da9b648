//! Bytes and arrays, both ways.

mod arrays;
mod bytes;
mod codecs;
mod exhausted;
mod hostile;
mod lifetimes;

use std::path::PathBuf;

use hatchery::Buffer;

/// A Python that has numpy, orjson and msgspec: `HATCHERY_TEST_PYTHON_EXTRAS`. Where that is not set, or is empty, the test
/// is skipped and says what to do; on CI (`CI` is set) it fails.
pub(crate) fn python_with_extras() -> Option<PathBuf> {
    let python = std::env::var_os("HATCHERY_TEST_PYTHON_EXTRAS").filter(|python| !python.is_empty());
    let python = python.map(PathBuf::from);
    if python.is_none() {
        let missing = "HATCHERY_TEST_PYTHON_EXTRAS is not set to a Python that has numpy, orjson and msgspec \
             (python3 -m venv target/ci-venv && target/ci-venv/bin/pip install numpy orjson msgspec)";
        assert!(std::env::var_os("CI").is_none(), "{missing}");
        eprintln!("skipped: {missing}");
    }
    python
}

/// A frame's limit that sends everything that can be in a memfd there.
const NO_ROOM: u32 = 64 * 1024;

/// Bytes that are not all the same.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 251 + at) as u8).collect()
}

/// These bytes, written where they are sent from: in a memfd from 1 MiB on.
fn in_place(bytes: &[u8]) -> Buffer {
    let mut buffer = Buffer::new(bytes.len());
    buffer.copy_from_slice(bytes);
    buffer.freeze()
}

/// A pool of one worker over a module of this source.
fn pool_of(source: &str) -> hatchery::PoolBuilder {
    crate::support::pool_of(source).size(1)
}
