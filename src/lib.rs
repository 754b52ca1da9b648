//! OTP-style supervision for actix, and a pool of supervised Python workers.

pub mod error;
pub mod pool;
pub mod port;
pub mod supervisor;
pub mod worker;
