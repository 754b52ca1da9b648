//! Faults of user code: each one ends in its documented result or error, the pool serves the next call, and nothing
//! leaks (the harness checks this after every test).
//!
//! ```text
//! start, interpreter, settings    before the first call
//! arguments, exceptions, values   calls that fail while the worker continues
//! output, descriptors             what user code does to its standard streams and descriptors
//! deaths, protocol, children      faults that end a worker
//! budgets                         floods, and limits on the resources of the host
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
