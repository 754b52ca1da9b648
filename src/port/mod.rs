//! One Python process and its framed channel. No actors here.
//!
//! ```text
//!                    Port
//!   +-----------------------------------+            python, in a process group of its own
//!   | process   pidfd, kill, peak memory| . . . . .  told by the kernel
//!   |           lifeline                |----------  one more socket: our death kills the group
//!   | channel   frames out, frames in   |<-------->  fd 0, a socket; moved away, then /dev/null
//!   | capture   lines to log, tails kept|<---------  fd 1 and fd 2, pipes
//!   | stacks    what it was doing       |<---------  one more pipe, written by faulthandler
//!   | descriptors  memfds out and in    |<-------->  one more socket, for bytes too large to be copied
//!   +-----------------------------------+
//! ```
//!
//! `frame`, `message`, `value`, `decode` and `attachment` are the wire, pure; `memfd`, `blocks`, `buffer` and `array` the memory that crosses it; `interpreter` finds the Python; `start` brings all of it together.
//! `zygote` is the other way to get a process: forked of a template.

mod array;
mod attachment;
mod begun;
mod blocks;
mod buffer;
mod capture;
mod channel;
mod codec;
mod decode;
mod descriptors;
mod environment;
mod foreign;
mod frame;
mod interpreter;
mod lifeline;
mod limits;
mod memfd;
mod memory;
mod message;
mod offer;
mod outgoing;
mod package;
mod pidfd;
mod process;
mod reap;
mod records;
mod stack;
mod start;
mod value;
mod zygote;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
#[cfg(test)]
mod golden;

pub use array::{Array, Element, ShapeError};
pub(crate) use attachment::{Attachment, Body};
pub use buffer::{Buffer, BufferMut};
#[cfg(test)]
pub(crate) use channel::Channel;
pub(crate) use channel::{ChannelError, FrameWriter};
pub use codec::Codec;
pub(crate) use decode::decode_result;
#[cfg(test)]
pub(crate) use descriptors::Descriptors;
pub(crate) use frame::{Frame, FrameError};
pub(crate) use interpreter::find_program;
pub(crate) use limits::explained;
pub use memory::Memory;
pub(crate) use message::{
    CANCEL_SIGNAL, CallOptions, HostRequest, LogRecord, Ready, Reply, STACK_SIGNAL, WorkerError, call_frame,
    cancel_frame, credit_frame, host_result_frame, session_end_frame, shutdown_frame, stack_frame,
};
pub use message::{Function, Parameter, ParameterKind};
pub(crate) use outgoing::Purpose;
pub(crate) use process::Exit;
pub(crate) use reap::wait_until_reaped;
pub(crate) use records::python_record;
pub(crate) use start::{CLOSED_GRACE, Port, PortSpec};
pub(crate) use value::{call_body, encode_value};
pub(crate) use zygote::{ForkError, ForkOrder, Template, TemplateSpec};
