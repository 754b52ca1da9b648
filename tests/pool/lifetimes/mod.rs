//! Where a pool lives, and how it ends.

mod dropped;
mod places;
mod shutdown;
mod stopped;
