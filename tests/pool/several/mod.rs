//! Several calls in one worker, calls of the host, declared functions, log records.

mod declared;
mod host;
mod in_flight;
mod logging;
