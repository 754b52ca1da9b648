//! The start of a pool: what is ready, what is refused, what goes on failing.

mod ancestor;
pub(crate) mod failing;
mod outside;
mod ready;
mod settings;
