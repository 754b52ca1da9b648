//! Whatever Python does: each fault ends in its documented result or error, the pool serves the next call, and nothing
//! is left behind (which the harness looks for after every test).
//!
//! ```text
//! start, interpreter, settings    before the first call
//! arguments, exceptions, values   calls that fail while the worker lives on
//! output, descriptors             what user code does to its standard streams and descriptors
//! deaths, protocol, children      what costs a worker
//! budgets                         floods, and what a worker may take of its host
//! shutdown                        how a worker ends
//! ```

mod arguments;
mod budgets;
mod children;
mod deaths;
mod descriptors;
mod exceptions;
mod interpreter;
mod launcher;
mod output;
pub(crate) mod pools;
mod protocol;
mod reports;
mod settings;
mod shutdown;
mod start;
mod values;
