//! How a handle on bytes gets through serde, which knows slices only.
//!
//! Who serializes a handle offers it, in this thread, while it serializes the slice; an encoder of ours that is given the
//! very same slice takes the handle in its place. Any other serializer sees bytes. Decoding is the same the other way round:
//! the decoder offers the handle while it shows the slice to a visitor.

use std::cell::RefCell;

use crate::port::memory::buffer::Buffer;

/// A handle, and what its bytes are if they are more than bytes.
#[derive(Clone)]
pub(crate) struct Offer {
    pub(crate) buffer: Buffer,
    pub(crate) array: Option<ArrayType>,
}

/// The element type of an array, and its layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ArrayType {
    /// numpy's `dtype.str`, such as `<f4`.
    pub(crate) dtype: String,
    pub(crate) shape: Vec<usize>,
}

thread_local! {
    static OFFERED: RefCell<Option<Offer>> = const { RefCell::new(None) };
}

/// Runs a function while the handle is on offer.
pub(crate) fn with<R>(offer: Offer, run: impl FnOnce() -> R) -> R {
    /// Withdraws it, after a panic too.
    struct Withdraw(Option<Offer>);
    impl Drop for Withdraw {
        fn drop(&mut self) {
            OFFERED.set(self.0.take());
        }
    }
    let _withdraw = Withdraw(OFFERED.replace(Some(offer)));
    run()
}

/// The handle on this slice, if it is on offer.
pub(crate) fn take(slice: &[u8]) -> Option<Offer> {
    OFFERED.with_borrow_mut(|offered| {
        offered.take_if(|offer| {
            std::ptr::eq(offer.buffer.as_ptr_range().start, slice.as_ptr())
                && offer.buffer.len() == slice.len()
        })
    })
}
