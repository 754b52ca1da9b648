//! The budgets: how much of the host one worker may use.
//!
//! A worker that goes over a budget is slowed: the host reads less from it. Where that cannot help, the call or the worker
//! ends with a cause that names the budget. `docs/security.md` has the table.

/// Frames that a worker's actor reads in one turn of the pool's thread. A frame counts
/// once more for each 64 KiB and for each attachment.
pub(crate) const FRAMES_PER_TURN: usize = 256;

/// What counts as one frame of a turn, in bytes.
pub(crate) const FRAME_UNIT_BYTES: usize = 64 * 1024;

/// Lines of standard output and error that are taken in one turn of the pool's thread.
pub(crate) const LINES_PER_TURN: usize = 256;

/// Log records of a worker in a second: printed lines and records of Python's `logging`. More are dropped and counted.
pub(crate) const LOG_RECORDS_PER_SECOND: u32 = 10_000;

/// Bytes of a log record. A longer one is cut, and says so.
pub(crate) const LOG_RECORD_BYTES: usize = 64 * 1024;

/// Bytes of a frame with a log record. A longer one is not read; the log says how large it was.
pub(crate) const LOG_FRAME_BYTES: usize = 1024 * 1024;

/// Descriptors of passed memfds that the host keeps open for one worker. It closes further ones, whose bytes stay mapped.
pub(crate) const KEPT_DESCRIPTORS: usize = 64;

/// Host calls of a worker that are pending. One more is refused.
pub(crate) const HOST_CALLS: usize = 1024;

/// Bytes that wait to be written to a worker, beside the arguments of its calls. Answers to host calls wait in the host
/// until the worker has read what is before them; other frames end the worker.
pub(crate) const UNWRITTEN_BYTES: u64 = 16 * 1024 * 1024;

/// Bytes of stream items that a worker has sent and no reader has taken yet. At this bound the host stops reading from the worker.
pub(crate) const STREAM_BYTES: u64 = 64 * 1024 * 1024;

/// Updates of a call's progress that wait for its caller: the newest.
pub(crate) const UPDATES: usize = 64;

/// Bytes of those updates. The newest one may be larger.
pub(crate) const UPDATE_BYTES: u64 = 4 * 1024 * 1024;

/// Updates that a caller's handler is given in one poll.
pub(crate) const UPDATES_PER_POLL: usize = 64;

/// Bytes of a name from outside that a message repeats.
pub(crate) const NAME_BYTES: usize = 200;

/// How often a call that had not begun, but was the next to be read, is given to another worker because its worker died.
pub(crate) const FREE_ATTEMPTS: u32 = 3;
