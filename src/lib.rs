//! OTP-style supervision for actix, and a pool of supervised Python workers.

mod error;
pub mod supervisor;
mod timer;
