//! Colonel: the profiler that lives inside the process it profiles.
//!
//! Three programs share this crate. The **launcher** (`run`) makes a session and starts a command; the **guest**
//! (`inject`, built into `libcolonel_guest.so` without the feature `cli`) records inside each of its CUDA processes;
//! the **reader** (`analysis`, `report`, `query`, `export`) opens sessions. They meet in the session on disk (`schema`, `session`) only.
//! docs/architecture.md has the map.

pub mod inject;
pub mod schema;

#[cfg(feature = "cli")]
pub mod analysis;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub mod counters;
#[cfg(feature = "cli")]
pub mod export;
#[cfg(feature = "cli")]
pub mod ingest;
#[cfg(feature = "cli")]
pub mod query;
#[cfg(feature = "cli")]
pub mod report;
#[cfg(feature = "cli")]
pub mod run;
#[cfg(feature = "cli")]
pub mod session;

/// Version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Commit of this build.
pub const COMMIT: &str = env!("COLONEL_COMMIT");
