//! The cases of `startup`.

mod floor;
mod pools;
mod subject;

pub(crate) use floor::cold_import_ms;
pub(crate) use pools::{grow_ms, pss_mb, restart_ms, start_ms};
pub(crate) use subject::Subject;
