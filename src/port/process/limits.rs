//! What to do when the operating system refuses a process or a descriptor for want of room.

use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::port::start::PortSpec;

/// Descriptors for the pool's thread, for Python's start, and for the work of one moment.
const POOL_DESCRIPTORS: u64 = 24;
/// Descriptors that a zygote takes while workers start.
const ZYGOTE_DESCRIPTORS: u64 = 64;

/// The advice for this error, if a limit of the system caused it.
pub(crate) fn hint(error: &io::Error, spec: &PortSpec) -> Option<String> {
    match Errno::from_io_error(error)? {
        Errno::MFILE => Some(too_many_open_files(spec)),
        Errno::NFILE => Some("the whole system has too many files open: see `sysctl fs.file-max`".into()),
        Errno::TOOMANYREFS => Some(
            "this user's processes pass each other more descriptors at a time than `ulimit -n` allows".into(),
        ),
        Errno::AGAIN => Some(
            "this user may have no more processes: see `ulimit -u`, and the container's limit of pids".into(),
        ),
        _ => None,
    }
}

/// The same error, with the advice in its text.
pub(crate) fn explained(error: io::Error, spec: &PortSpec) -> io::Error {
    match hint(&error, spec) {
        Some(hint) => io::Error::new(error.kind(), format!("{error}; {hint}")),
        None => error,
    }
}

/// For a descriptor that did not arrive.
pub(crate) fn too_many_open_files(spec: &PortSpec) -> String {
    let each = if spec.needs_start_marker() { 8 } else { 7 };
    let zygote = if spec.zygote { ZYGOTE_DESCRIPTORS } else { 0 };
    let pool = u64::from(spec.workers) * each + POOL_DESCRIPTORS + zygote;
    let limit = match getrlimit(Resource::Nofile).current {
        Some(limit) => format!("this process may open {limit} files (`ulimit -n`)"),
        None => "this process may open any number of files".into(),
    };
    let workers = spec.workers;
    let plural = if workers == 1 { "" } else { "s" };
    format!(
        "{limit}; a pool of {workers} worker{plural} needs about {pool} beside the application's own: raise the limit, or \
         make the pool smaller"
    )
}
