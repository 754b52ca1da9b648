//! Several calls in one worker, host functions, declared functions and log records.

mod declared;
mod host;
mod in_flight;
mod logging;
