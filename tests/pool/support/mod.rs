//! The test harness. It runs each test of real processes in a child process and checks that process for leaks.
//!
//! ```text
//! cargo test -- outer test: Alone::run ---- runs this binary again, --exact, marked, own TMPDIR
//!                   |                            '- child: baseline, body, no descendant, fd or thread more
//!                   '- after its end: exit status, marked processes on the machine, TMPDIR empty
//! ```

mod alone;
mod guard;
mod inside;
mod logs;
mod outside;
mod pools;
mod processes;
mod python;
mod role;
mod seed;
mod wait;

pub(crate) use alone::{Alone, Failure, alone_test, test_path};
pub(crate) use guard::Guards;
pub(crate) use inside::{in_system, in_tokio, is_child, scratch};
pub(crate) use logs::{logged, slow_down_logger};
pub(crate) use pools::{
    LONG_TIMEOUT, MODULE, SHORT_START_TIMEOUT, SHORT_TIMEOUT, assert_workers_kept, builder, fill_worker,
    lines, pending_calls, pids, pool_of, pool_with, scratch_file, started, status_when, touch, wait_for_file,
    wait_for_file_blocking,
};
pub(crate) use processes::{
    cont, descendants, describe, fds, is_alive, kill, marked, pgid, rss_bytes, state, stop, terminate,
    threads, zombies,
};
pub(crate) use python::{python, python_module, unittest, unittest_with};
pub(crate) use role::{role, role_command, start_role};
pub(crate) use seed::Seed;
pub(crate) use wait::{wait_until, wait_until_blocking};
