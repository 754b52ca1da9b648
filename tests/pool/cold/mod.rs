//! Tests that need each worker to import the module itself. `tests/zygote` leaves them out.

mod failing;
mod ready;
mod status;
