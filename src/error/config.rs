//! The error of an unusable setting.

use std::error::Error;
use std::fmt;

use super::report::one_line;

/// A setting that cannot be used. `Debug` writes the same text as `Display`.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use hatchery::{Pool, PoolStartError};
///
/// if let Err(PoolStartError::Config(error)) = Pool::builder().module("shop").size(0).start().await {
///     println!("{}: {} is not {}", error.field, error.value, error.allowed);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The name of the setting.
    pub field: &'static str,
    /// The value it was set to.
    pub value: String,
    /// What is allowed.
    pub allowed: &'static str,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, value, allowed } = self;
        write!(f, "the setting {field} = {} cannot be used; allowed: {allowed}", one_line(value))
    }
}

impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Error for ConfigError {}
