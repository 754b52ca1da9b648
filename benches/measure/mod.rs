//! How a case is held against its floor, and how a row is printed.

mod alternate;
mod options;
mod paired;
mod pin;
mod row;

pub(crate) use alternate::{Plan, alternate};
pub(crate) use options::Options;
pub(crate) use paired::paired;
pub(crate) use pin::on_one_cpu;
pub(crate) use row::Target;
pub(crate) use row::{Row, median};
