//! Large blocks of memory, kept for the next payload of about that size.
//!
//! Memory that the allocator returned to the kernel comes back page by page, at a fault each: for megabytes that costs more
//! than to copy them.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// From here on a payload is worth a block.
pub(crate) const LEAST_BYTES: usize = 512 * 1024;

/// How many unused bytes are kept.
const MOST_KEPT_BYTES: usize = 64 << 20;

/// The newest last.
static KEPT: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// An empty vector with room for this many bytes.
pub(crate) fn with_capacity(bytes: usize) -> Vec<u8> {
    if bytes >= LEAST_BYTES {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        // A vector that is much too large is not used: it may be held for long.
        let fits = |block: &Vec<u8>| (bytes..=bytes + bytes / 4).contains(&block.capacity());
        if let Some(found) = kept.iter().rposition(fits) {
            return kept.remove(found);
        }
    }
    Vec::with_capacity(bytes)
}

/// A copy of these bytes.
pub(crate) fn copy_of(bytes: &[u8]) -> Bytes {
    if bytes.len() < LEAST_BYTES {
        return Bytes::copy_from_slice(bytes);
    }
    let mut block = with_capacity(bytes.len());
    block.extend_from_slice(bytes);
    freeze(block)
}

/// Bytes whose memory is kept when the last handle on them is dropped.
pub(crate) fn freeze(block: Vec<u8>) -> Bytes {
    Bytes::from_owner(Block(block))
}

struct Block(Vec<u8>);

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut block = std::mem::take(&mut self.0);
        block.clear();
        if (LEAST_BYTES..=MOST_KEPT_BYTES).contains(&block.capacity()) {
            let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push(block);
            let mut bytes: usize = kept.iter().map(Vec::capacity).sum();
            let oldest = kept.iter().take_while(|block| {
                let over = bytes > MOST_KEPT_BYTES;
                bytes -= if over { block.capacity() } else { 0 };
                over
            });
            let count = oldest.count();
            let freed: Vec<_> = kept.drain(..count).collect();
            drop(kept);
            drop(freed); // not under the lock: it takes a while
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_used_again_and_kept_within_bounds() {
        let first = copy_of(&vec![7; 3 << 20]);
        let at = first.as_ptr();
        assert!(first.iter().all(|byte| *byte == 7));
        drop(first);
        // Other tests may use blocks at the same time, but none of about this size.
        let second = copy_of(&vec![8; (3 << 20) - 100]);
        assert_eq!(second.as_ptr(), at, "the same memory");
        assert!(second.len() == (3 << 20) - 100 && second.iter().all(|byte| *byte == 8));
        let third = copy_of(&second);
        assert_ne!(third.as_ptr(), at, "it is in use");
        let many: Vec<_> = (0..8).map(|_| copy_of(&vec![1; 20 << 20])).collect();
        drop(many);
        let kept = KEPT.lock().expect("nobody panicked");
        assert!(kept.iter().map(Vec::capacity).sum::<usize>() <= MOST_KEPT_BYTES);
    }
}
