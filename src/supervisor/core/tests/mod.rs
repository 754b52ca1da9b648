//! The core on virtual time: OTP's cases by name, and random histories against a reference model.

mod backoff;
mod model;
mod otp;
mod otp_dynamic;
mod otp_tree;
mod property;
mod resize;
mod sim;
mod trees;
mod unkillable;
mod world;
