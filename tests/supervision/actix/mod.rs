//! The cases of OTP's `supervisor_SUITE`, and of Elixir's suites for dynamic and partition supervisors, on real
//! actors and under their names. `docs/otp-cases.md` lists them all.

mod api;
mod dynamic;
mod dynamic_stop;
mod faults;
mod hanging;
mod names;
mod partition;
mod restart_types;
mod scale;
mod significant;
mod start;
mod stop;
mod strategies;
mod tree;
