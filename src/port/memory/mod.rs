//! Memory that crosses to Python and back: memfds, buffers, arrays, and memory that is used again.

pub(crate) mod array;
pub(crate) mod buffer;
pub(crate) mod buffer_pool;
pub(crate) mod memfd;
pub(crate) mod passthrough;
