//! OTP-style supervision for actix, and a pool of supervised Python workers.

mod error;
mod port;
pub mod supervisor;
mod timer;
