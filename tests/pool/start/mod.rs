//! The start of a pool: what is ready, what is refused, what goes on failing.

mod ancestor;
mod failing;
mod outside;
mod ready;
mod settings;
