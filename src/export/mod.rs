//! Sessions in the formats that others read, one file a format. Rows are streamed: memory does not grow with them.

mod arrow;
mod chrome;
mod csv;
mod error;
mod lanes;
mod nsys;
mod perfetto;
mod source;
mod target;

pub use chrome::chrome;
pub use error::ExportError;
pub use nsys::nsys;
pub use perfetto::perfetto;
pub use source::Source;
pub use target::{Target, TargetError};

pub use arrow::arrow;
pub use csv::csv;
