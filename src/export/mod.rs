//! Sessions in the formats that others read.

mod target;

pub use target::{Target, TargetError};
