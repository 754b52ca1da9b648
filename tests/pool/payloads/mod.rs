//! Bytes and arrays in arguments and results.

mod arrays;
mod bytes;
mod codecs;
mod exhausted;
mod hostile;
mod lifetimes;

use std::path::PathBuf;

use hatchery::{Buffer, BufferMut};

/// A Python with numpy, orjson and msgspec: `HATCHERY_TEST_PYTHON_EXTRAS`. When it is unset or empty, the test prints what to
/// do and is skipped; in CI (`CI` is set) it fails.
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

/// A frame limit so small that all large bytes go into memfds.
const SMALL_FRAME: u32 = 64 * 1024;

/// Bytes that vary, so that a shift or a gap is detected.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 251 + at) as u8).collect()
}

/// A buffer with these bytes. From 1 MiB on it is a memfd that is sent without a copy.
fn buffer_of(bytes: &[u8]) -> Buffer {
    let mut buffer = BufferMut::new(bytes.len());
    buffer.copy_from_slice(bytes);
    buffer.freeze()
}

/// A pool builder for one worker and a module with this source.
fn pool_of(source: &str) -> hatchery::PoolBuilder {
    crate::support::pool_of(source).size(1)
}
