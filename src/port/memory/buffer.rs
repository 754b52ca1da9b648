//! Bytes that cross to Python and back without being copied.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::port::memory::memfd::{Memfd, OpenMemfd};
use crate::port::memory::passthrough::{self, Offer};

/// From here on bytes may travel in a memfd of their own, below it within the frame.
pub(crate) const LEAST_MEMFD_BYTES: usize = 1 << 20;

/// Bytes that do not change any more, cheap to clone.
///
/// As an argument, or anywhere within one, it is Python's `bytes` when it is smaller than 1 MiB, else a read-only
/// `memoryview`. In a result it takes what Python returned as `bytes`, `bytearray`, `memoryview` or an array of bytes, without a copy of
/// ours, safe to keep for as long as you like.
///
/// Made by [`BufferMut`], written in place and frozen: from 1 MiB on it is then in a memfd, Python's view is of the very same
/// memory, and returned whole it comes back as it is. Or made of a `Vec<u8>` or [`Bytes`], which are sent through the socket from where
/// they are; what does not fit the frame then, or makes it larger than 32 MiB, is copied into a memfd.
///
/// ```
/// use hatchery::BufferMut;
///
/// let mut image = BufferMut::new(1920 * 1080);
/// image.fill(255);
/// let image = image.freeze();
/// assert_eq!(image[0], 255);
/// ```
///
/// Each that is in a memfd keeps a file descriptor open as long as it lives, clones not counted. Of what one worker returned, at most 64
/// have one; others are read as quickly, and are copied when they are passed on.
#[derive(Clone)]
pub struct Buffer {
    memory: Memory,
}

#[derive(Clone)]
enum Memory {
    Memfd(Arc<Memfd>),
    Plain {
        bytes: Bytes,
        /// The copy that was made when it was sent; `None` when that could not be.
        copy: Arc<OnceLock<Option<Arc<Memfd>>>>,
    },
}

impl Buffer {
    pub(crate) fn of_memfd(memfd: Arc<Memfd>) -> Self {
        Self { memory: Memory::Memfd(memfd) }
    }

    /// The memfd that it is in, if it can be passed on.
    pub(crate) fn memfd(&self) -> Option<Arc<Memfd>> {
        match &self.memory {
            Memory::Memfd(memfd) => memfd.descriptor().map(|_| memfd.clone()),
            Memory::Plain { .. } => None,
        }
    }

    /// A memfd with its bytes; `None` when the kernel has none. Ordinary bytes are copied once for all clones.
    pub(crate) fn copy_in_memfd(&self) -> Option<Arc<Memfd>> {
        match &self.memory {
            Memory::Memfd(memfd) => Memfd::copy_of(memfd.as_slice()).ok().map(Arc::new),
            Memory::Plain { bytes, copy } => {
                copy.get_or_init(|| Memfd::copy_of(bytes).ok().map(Arc::new)).clone()
            }
        }
    }

    /// The bytes, without a copy.
    pub fn to_bytes(&self) -> Bytes {
        match &self.memory {
            Memory::Memfd(memfd) => Bytes::from_owner(Mapped(memfd.clone())),
            Memory::Plain { bytes, .. } => bytes.clone(),
        }
    }
}

/// Makes [`Bytes`] of a memfd.
struct Mapped(Arc<Memfd>);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.memory {
            Memory::Memfd(memfd) => memfd.as_slice(),
            Memory::Plain { bytes, .. } => bytes,
        }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Bytes::new().into()
    }
}

impl From<Bytes> for Buffer {
    fn from(bytes: Bytes) -> Self {
        Self { memory: Memory::Plain { bytes, copy: Arc::default() } }
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<Buffer> for Bytes {
    fn from(buffer: Buffer) -> Self {
        buffer.to_bytes()
    }
}

impl PartialEq for Buffer {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Buffer {}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = match &self.memory {
            Memory::Memfd(_) => "memfd",
            Memory::Plain { .. } => "plain",
        };
        f.debug_struct("Buffer").field("len", &self.len()).field("memory", &memory).finish()
    }
}

impl Serialize for Buffer {
    /// Bytes, with any serializer; with this crate's, a handle on them.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        passthrough::with(Offer { buffer: self.clone(), array: None }, || serializer.serialize_bytes(self))
    }
}

impl<'de> Deserialize<'de> for Buffer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Taken;

        impl<'de> Visitor<'de> for Taken {
            type Value = Buffer;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Buffer, E> {
                Ok(match passthrough::take(bytes) {
                    Some(offer) => offer.buffer,
                    None => bytes.to_vec().into(),
                })
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Buffer, E> {
                Ok(bytes.into())
            }
        }

        deserializer.deserialize_bytes(Taken)
    }
}

/// Memory to be written in place. [`freeze`](Self::freeze) makes it a [`Buffer`].
///
/// ```
/// let mut image = hatchery::BufferMut::new(2 << 20);
/// image[0] = 255;
/// let image = image.freeze(); // Python reads it in place
/// assert_eq!(image[0], 255);
/// ```
pub struct BufferMut {
    memory: OpenMemory,
}

enum OpenMemory {
    Memfd(OpenMemfd),
    /// Words, so that numbers of any kind can be written into it.
    Plain {
        words: Vec<u64>,
        len: usize,
    },
}

impl BufferMut {
    /// Memory of `len` zeroes: in a memfd from 1 MiB on.
    pub fn new(len: usize) -> Self {
        let memfd = if len < LEAST_MEMFD_BYTES { None } else { OpenMemfd::zeroed(len).ok() };
        let memory = match memfd {
            Some(memfd) => OpenMemory::Memfd(memfd),
            None => OpenMemory::Plain { words: vec![0; len.div_ceil(8)], len },
        };
        Self { memory }
    }

    /// Ends the writing. The bytes can then be read and sent any number of times.
    pub fn freeze(self) -> Buffer {
        match self.memory {
            OpenMemory::Memfd(memfd) => match memfd.seal() {
                Ok(memfd) => Buffer::of_memfd(Arc::new(memfd)),
                Err(bytes) => bytes.into(),
            },
            OpenMemory::Plain { words, len } => Bytes::from_owner(Words { words, len }).into(),
        }
    }
}

/// Makes [`Bytes`] of words.
struct Words {
    words: Vec<u64>,
    len: usize,
}

impl AsRef<[u8]> for Words {
    fn as_ref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }
}

impl Deref for BufferMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.memory {
            OpenMemory::Memfd(memfd) => memfd.as_slice(),
            OpenMemory::Plain { words, len } => &bytemuck::cast_slice(words)[..*len],
        }
    }
}

impl DerefMut for BufferMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            OpenMemory::Memfd(memfd) => memfd.as_mut_slice(),
            OpenMemory::Plain { words, len } => &mut bytemuck::cast_slice_mut(words)[..*len],
        }
    }
}

impl fmt::Debug for BufferMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferMut").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "buffer_tests.rs"]
mod tests;
