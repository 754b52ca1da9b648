//! What passes between Rust and Python while a call runs.
//!
//! ```text
//! gate        the caller leaves, at each point at which it waits
//! streams     the items of generators, and how a stream ends
//! cancelling  what happens in Python when the caller leaves
//! deadlines   what happens when its time is up
//! progress    updates beside the result
//! sessions    calls that belong together, and the end of what they share
//! hooks       code of the module that runs at a worker's start and end
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

/// Functions that hang, each after it has told NAME.began, where NAME is its own.
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
            pass  # it was not there yet


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

/// Reads a stream to its end: its items, and the error after them, which nothing follows.
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
                return (seen, end.map(|end| end.err().expect("an item was dealt with")));
            }
        }
    }
}
