//! How workers read and write JSON.

use serde::{Deserialize, Serialize};

/// What the workers read and write JSON with. The values that cross, and the errors of those that do not, are the same with
/// each.
///
/// ```
/// use hatchery::{Codec, Pool};
///
/// let pool = Pool::builder().module("rows").codec(Codec::Orjson);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Codec {
    /// The fastest that they can import, where it pays.
    #[default]
    Auto,
    /// Python's own `json`.
    Json,
    /// orjson; the pool does not start when it cannot be imported.
    Orjson,
    /// msgspec; the pool does not start when it cannot be imported.
    Msgspec,
}
