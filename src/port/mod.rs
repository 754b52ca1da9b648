//! One Python process and its framed channel.
//!
//! ```text
//!                    Port
//!   +-----------------------------------+            python, in a process group of its own
//!   | spawn     pidfd, kill, peak memory| . . . . .  told by the kernel
//!   |           parent death            |----------  one more socket: the end of the host kills the group
//!   | channel   frames out, frames in   |<-------->  fd 0, a socket; moved away, then /dev/null
//!   | capture   lines to log, tails kept|<---------  fd 1 and fd 2, pipes
//!   | stacks    what Python was doing   |<---------  one more pipe, written by faulthandler
//!   | fd passing  memfds out and in     |<-------->  one more socket, for bytes too large to be copied
//!   +-----------------------------------+
//! ```
//!
//! `start` brings all of it together. `zygote` is the other way to get a process: forked of a template.

mod channel;
mod fd_passing;
mod memory;
mod process;
mod received_fd;
mod start;
mod wire;
mod write_buffer;
mod zygote;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;

#[cfg(test)]
pub(crate) use channel::Channel;
pub(crate) use channel::{ChannelError, FrameWriter};
#[cfg(test)]
pub(crate) use fd_passing::FdSocket;
pub use memory::array::{Array, Element, ShapeError};
pub use memory::buffer::{Buffer, BufferMut};
pub(crate) use process::interpreter::find_program;
pub use process::memory_use::Memory;
pub(crate) use process::reap::wait_until_reaped;
pub(crate) use process::records::python_record;
pub(crate) use process::spawn::Exit;
pub(crate) use start::{CLOSED_GRACE, Port, PortSpec};
pub(crate) use wire::attachment::{Attachment, Body};
pub use wire::codec::Codec;
pub(crate) use wire::decode::decode_result;
pub(crate) use wire::frame::{Frame, FrameError};
pub(crate) use wire::message::{
    CANCEL_SIGNAL, CallOptions, HostRequest, LogRecord, Ready, Reply, STACK_SIGNAL, WorkerError, call_frame,
    cancel_frame, credit_frame, host_result_frame, session_end_frame, shutdown_frame, stack_frame,
};
pub use wire::message::{Function, Parameter, ParameterKind};
pub(crate) use wire::value::{call_body, encode_value};
pub(crate) use write_buffer::Purpose;
pub(crate) use zygote::{Spawner, Trial};
pub use zygote::{ZygoteState, ZygoteStatus};
