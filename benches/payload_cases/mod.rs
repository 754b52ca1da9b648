//! The cases of the payloads bench, and their floors.
//!
//! ```text
//! views      a call whose function reads one word of each page     floor: the same reads in this process
//! echo       a call that gives bytes back                          floor: raw.py and a blocking parent
//! documents  a call that gives 100 kB of JSON back                 floor: json_loop.py and a blocking parent
//! many       several calls in each worker                          floor: bare loops, pipelined; async_loop.py; sleepers.py
//! ```

mod documents;
mod echo;
mod many;
mod mapped;
mod served;
mod views;

pub(crate) use documents::Documents;
pub(crate) use echo::RawEcho;
pub(crate) use many::{Sleepers, asyncio_parents};
pub(crate) use served::Served;
pub(crate) use views::{view_in_place_us, view_of_copy_us};
