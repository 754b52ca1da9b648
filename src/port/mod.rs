//! One Python process and its framed channel. No actors here.
//!
//! ```text
//!                    Port
//!   +-----------------------------------+            python, in a process group of its own
//!   | process   pidfd, kill, peak memory| . . . . .  told by the kernel
//!   |           lifeline                |----------  one more inherited socket: our death kills the group
//!   | channel   frames out, frames in   |<-------->  fd 0, a socket; moved away, then /dev/null
//!   | capture   lines to log, tails kept|<---------  fd 1 and fd 2, pipes
//!   | stacks    what it was doing       |<---------  one more pipe, written by faulthandler
//!   +-----------------------------------+
//! ```
//!
//! `frame`, `message` and `value` are the wire, pure; `interpreter` finds the Python; `start` brings all of it together.
//! `zygote` is the other way to get a process: forked of a template.

mod capture;
mod channel;
mod frame;
mod interpreter;
mod lifeline;
mod memory;
mod message;
mod package;
mod pidfd;
mod process;
mod reap;
mod stack;
mod start;
mod value;
mod zygote;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
#[cfg(test)]
mod golden;

pub(crate) use channel::ChannelError;
pub(crate) use frame::{Frame, HEADER_BYTES};
pub use memory::Memory;
pub(crate) use message::{
    CANCEL_SIGNAL, CallOptions, Ready, Reply, STACK_SIGNAL, WorkerError, call_frame, cancel_frame,
    credit_frame, session_end_frame, shutdown_frame, stack_frame,
};
pub use message::{Function, Parameter, ParameterKind};
pub(crate) use process::Exit;
pub(crate) use reap::wait_until_reaped;
pub(crate) use start::{CLOSED_GRACE, Port, PortSpec};
pub(crate) use value::{call_body, decode_result};
pub(crate) use zygote::{ForkError, ForkOrder, Template, TemplateSpec};
