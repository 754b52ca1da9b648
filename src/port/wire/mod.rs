//! The wire: frames, the messages in them, and the values in those. Pure: bytes in, bytes out.
//!
//! ```text
//!   arguments --value--> Body (JSON, attachments) --message--> Frame --frame--> bytes
//!   result   <--decode-- Body                     <--message-- Frame <--frame-- bytes
//! ```

pub(crate) mod attachment;
pub(crate) mod codec;
pub(crate) mod decode;
pub(crate) mod frame;
pub(crate) mod message;
pub(crate) mod value;

#[cfg(test)]
pub(crate) mod golden;
