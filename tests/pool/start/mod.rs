//! The start of a pool: readiness, refused settings and failing workers.

mod early_calls;
pub(crate) mod failing;
mod outside;
mod ready;
mod settings;
