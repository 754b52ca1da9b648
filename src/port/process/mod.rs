//! One Python process: which interpreter, how it is started, what it prints, how it is signalled, and how it is reaped.
//!
//! ```text
//!   interpreter, package    which Python, and the compiled package for it; asked once
//!   spawn                   starts a process in a group of its own, and owns it
//!   pidfd, reap             signals and the end, without mistaking one process for another
//!   parent_death            the kernel kills the group when the host is gone
//!   capture, records        standard output and error, as records of `log`
//!   stack_dump              the Python stack, from a signal handler
//!   start_marker            which calls have begun, in shared memory
//! ```

pub(crate) mod capture;
pub(crate) mod environment;
pub(crate) mod interpreter;
pub(crate) mod limits;
pub(crate) mod memory_use;
pub(crate) mod package;
pub(crate) mod parent_death;
pub(crate) mod pidfd;
pub(crate) mod reap;
pub(crate) mod records;
pub(crate) mod spawn;
pub(crate) mod stack_dump;
pub(crate) mod start_marker;
