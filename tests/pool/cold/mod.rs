//! Tests that need workers which each import the module by themselves. `tests/zygote` leaves them out.

mod failing;
mod ready;
mod status;
