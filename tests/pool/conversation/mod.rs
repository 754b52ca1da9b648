//! Messages between Rust and Python while a call runs.
//!
//! ```text
//! gate        the caller drops its future at each await point
//! streams     items of generators, and the end of a stream
//! cancelling  the effect of a dropped call in Python
//! deadlines   the effect of an expired deadline
//! progress    updates before the result
//! sessions    calls that share state, and the end of that state
//! hooks       functions that run at the start and end of a worker
//! ```

mod cancelling;
mod deadlines;
mod gate;
mod hooks;
mod progress;
mod sessions;
mod streams;

use hatchery::{CallError, CallStream};
use serde::de::DeserializeOwned;

/// Functions that hang after they have written NAME.began, where NAME is the name of the function.
const HANGS: &str = r#"
import asyncio
import socket
import subprocess
import threading


def sleeping():
    touch("sleeping.began")
    time.sleep(1000)  # sleeping


def looping():
    touch("looping.began")
    number = 0
    while True:
        number += 1  # looping


def locking():
    lock = threading.Lock()
    lock.acquire()
    touch("locking.began")
    lock.acquire()  # locking


def receiving():
    ours, theirs = socket.socketpair()
    touch("receiving.began")
    ours.recv(1)  # receiving


def running_a_process():
    touch("running_a_process.began")
    subprocess.run(["sleep", "1000"])  # running_a_process


def waiting_in_c():
    while True:
        try:
            touch("waiting_in_c.began")
            wait_in_c()  # waiting_in_c
        except BaseException:
            pass  # the interrupt came before the wait in C


async def awaiting():
    touch("awaiting.began")
    await asyncio.Event().wait()  # awaiting


async def gathering():
    touch("gathering.began")
    await asyncio.gather(asyncio.sleep(1000), asyncio.sleep(1000))  # gathering


async def blocking():
    """Lets nothing else run on the event loop."""
    touch("blocking.began")
    time.sleep(1000)  # blocking
"#;

/// Reads a stream to its end. Returns the items and the final error, and asserts that nothing follows.
async fn read<T: DeserializeOwned>(mut items: CallStream<T>) -> (Vec<T>, Option<CallError>) {
    let mut seen = Vec::new();
    loop {
        match items.next().await {
            Some(Ok(item)) => seen.push(item),
            end => {
                assert!(
                    items.next().await.is_none() && items.next().await.is_none(),
                    "nothing follows the end"
                );
                return (seen, end.map(|end| end.err().expect("items are handled above")));
            }
        }
    }
}
