//! Bytes beside the JSON of a frame's body.

use std::sync::Arc;

use bytes::Bytes;

use crate::guard::discard;
use crate::port::memory::buffer::{Buffer, LEAST_MEMFD_BYTES};
use crate::port::memory::buffer_pool;
use crate::port::memory::memfd::Memfd;
use crate::port::wire::frame::HEADER_BYTES;
use crate::port::wire::value::EncodeError;

/// How many memfds a frame brings at most: the kernel's limit for one message is 253 descriptors.
pub(crate) const MOST_MEMFDS: usize = 250;

/// How many bytes a frame holds at most that could be in memfds. A memfd costs more than the socket does, but
/// does not delay other frames, and is in memory only once.
const MOST_INLINE_BYTES: usize = 32 << 20;

/// The name of the member of an object that stands for an attachment.
pub(crate) const PLACEHOLDER: &str = "\0";

/// One attachment of a frame.
#[derive(Clone, Debug)]
pub(crate) enum Attachment {
    /// Within the frame.
    Inline(Bytes),
    /// In a memfd that goes, or came, its own way.
    Memfd(Arc<Memfd>),
    /// In a memfd of this many bytes that has not been received yet.
    Awaited(u64),
}

impl Attachment {
    /// As a handle for users.
    pub(crate) fn buffer(&self) -> Buffer {
        match self {
            Self::Inline(bytes) => bytes.clone().into(),
            Self::Memfd(memfd) => Buffer::of_memfd(memfd.clone()),
            Self::Awaited(_) => Buffer::default(),
        }
    }

    /// How many of its bytes are within the frame.
    pub(crate) fn inline_bytes(&self) -> usize {
        match self {
            Self::Inline(bytes) => bytes.len(),
            Self::Memfd(_) | Self::Awaited(_) => 0,
        }
    }

    /// Its length as the frame's header has it, without the mark of a memfd.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Memfd(memfd) => memfd.as_slice().len() as u64,
            Self::Awaited(len) => *len,
        }
    }
}

impl PartialEq for Attachment {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Awaited(one), Self::Awaited(another)) => one == another,
            (Self::Awaited(_), _) | (_, Self::Awaited(_)) => false,
            _ => self.buffer() == other.buffer(),
        }
    }
}

impl Eq for Attachment {}

/// A value on the wire: JSON, and the bytes that its placeholders stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) json: Bytes,
    pub(crate) attachments: Vec<Attachment>,
}

impl From<Bytes> for Body {
    fn from(json: Bytes) -> Self {
        Self { json, attachments: Vec::new() }
    }
}

impl Body {
    /// How many bytes of memory it holds, memfds included.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.json.len() as u64 + self.attachments.iter().map(Attachment::len).sum::<u64>()
    }

    /// How many bytes of it a frame's limit is about, its header not counted.
    pub(crate) fn frame_bytes(&self) -> usize {
        let attachments: usize = self.attachments.iter().map(|part| 8 + part.inline_bytes()).sum();
        self.json.len() + attachments
    }

    /// Makes the value fit a frame of this many bytes, if memfds can: large bytes are copied into memfds.
    ///
    /// # Errors
    /// How many bytes its frame would have.
    pub(crate) fn fitting(mut self, max_frame_bytes: u32) -> Result<Self, usize> {
        let limit = max_frame_bytes as usize;
        let mut memfds = self.attachments.iter().filter(|part| matches!(part, Attachment::Memfd(_))).count();
        if HEADER_BYTES + self.frame_bytes() > limit {
            for part in &mut self.attachments {
                if memfds < MOST_MEMFDS
                    && let Attachment::Inline(bytes) = part
                    && bytes.len() >= LEAST_MEMFD_BYTES
                    && let Ok(memfd) = Memfd::copy_of(bytes)
                {
                    *part = Attachment::Memfd(Arc::new(memfd));
                    memfds += 1;
                }
            }
        }
        let size = HEADER_BYTES + self.frame_bytes();
        if size > limit { Err(size) } else { Ok(self) }
    }

    /// Checks a value from a worker: its placeholders must name each attachment once.
    ///
    /// # Errors
    /// Returns what is wrong with them.
    pub(crate) fn received(json: Bytes, attachments: Vec<Attachment>) -> Result<Self, String> {
        if !attachments.is_empty() {
            check_placeholders(&json, attachments.len())?;
        }
        Ok(Self { json, attachments })
    }
}

/// The memory of a caller. Dropping it may run the caller's code, on the pool's thread: a panic in it ends here.
struct CallersBytes(Bytes);

impl AsRef<[u8]> for CallersBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for CallersBytes {
    fn drop(&mut self) {
        discard(std::mem::take(&mut self.0));
    }
}

/// Collects attachments while a value is encoded.
#[derive(Default)]
pub(crate) struct Collected {
    attachments: Vec<Attachment>,
    memfds: usize,
    inline_bytes: usize,
}

impl Collected {
    pub(crate) fn len(&self) -> usize {
        self.attachments.len()
    }

    /// Takes a handle; `Err` when there are too many.
    pub(crate) fn push(&mut self, buffer: &Buffer) -> Result<usize, TooMany> {
        let memfd = match buffer.memfd() {
            Some(memfd) => Some(memfd),
            None if self.is_for_a_memfd(buffer.len()) => buffer.copy_in_memfd(),
            None => None,
        };
        let attachment = match memfd.filter(|_| self.memfds < MOST_MEMFDS) {
            Some(memfd) => {
                self.memfds += 1;
                Attachment::Memfd(memfd)
            }
            None => Attachment::Inline(Bytes::from_owner(CallersBytes(buffer.to_bytes()))),
        };
        self.add(attachment)
    }

    fn add(&mut self, attachment: Attachment) -> Result<usize, TooMany> {
        if self.attachments.len() == usize::from(u16::MAX) {
            return Err(TooMany);
        }
        self.inline_bytes += attachment.inline_bytes();
        self.attachments.push(attachment);
        Ok(self.attachments.len() - 1)
    }

    /// Whether this many more bytes in ordinary memory are too many for the frame.
    fn is_for_a_memfd(&self, len: usize) -> bool {
        self.memfds < MOST_MEMFDS && len >= LEAST_MEMFD_BYTES && self.inline_bytes + len > MOST_INLINE_BYTES
    }

    /// Takes bytes, by a copy.
    pub(crate) fn push_copy(&mut self, bytes: &[u8]) -> Result<usize, TooMany> {
        if self.is_for_a_memfd(bytes.len())
            && let Ok(memfd) = Memfd::copy_of(bytes)
        {
            return self.push(&Buffer::of_memfd(Arc::new(memfd)));
        }
        self.add(Attachment::Inline(buffer_pool::copy_of(bytes)))
    }

    pub(crate) fn into_attachments(self) -> Vec<Attachment> {
        self.attachments
    }
}

/// More attachments than a frame can count.
#[derive(Debug, thiserror::Error)]
#[error("is more than the {} bytes values that one call carries: put them together", u16::MAX)]
pub(crate) struct TooMany;

impl From<TooMany> for EncodeError {
    fn from(error: TooMany) -> Self {
        EncodeError { message: error.to_string() }
    }
}

/// Whether the placeholders of a text name each attachment exactly once. It looks no further than is needed for that: the
/// text may be no JSON at all.
fn check_placeholders(json: &[u8], count: usize) -> Result<(), String> {
    let mut named = vec![false; count];
    let mut at = 0;
    while let Some(found) = json.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'"')) {
        let start = at + found + 1;
        at = start;
        while json.get(at).is_some_and(|byte| *byte != b'"') {
            at += if json[at] == b'\\' { 2 } else { 1 };
        }
        let Some(string) = json.get(start..at) else { break };
        at += 1;
        if string != br"\u0000" {
            continue;
        }
        let Some(value) = json.get(at..).and_then(|rest| after(rest, b':')) else { continue };
        let index = after(value, b'[').map(<[u8]>::trim_ascii_start).map(|list| {
            let digits = list.iter().take_while(|byte| byte.is_ascii_digit()).count();
            std::str::from_utf8(&list[..digits]).ok().and_then(|digits| digits.parse::<usize>().ok())
        });
        let Some(Some(index)) = index else { return Err("a placeholder names no attachment".into()) };
        match named.get_mut(index) {
            None => return Err(format!("a placeholder names attachment {index} of {count}")),
            Some(true) => return Err(format!("two placeholders name attachment {index}")),
            Some(named) => *named = true,
        }
    }
    match named.iter().position(|named| !named) {
        Some(index) => Err(format!("no placeholder names attachment {index}")),
        None => Ok(()),
    }
}

/// What follows this byte, when it comes next.
fn after(text: &[u8], byte: u8) -> Option<&[u8]> {
    text.trim_ascii_start().strip_prefix(&[byte])
}

#[cfg(test)]
#[path = "attachment_tests.rs"]
mod tests;
