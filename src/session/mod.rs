//! Sessions on disk: create, open, seal, compact, recover, list, remove.
//!
//! The launcher holds a [`SessionWriter`] and alone writes `session.json`; readers hold a [`Session`] and never write
//! into tables.

mod annotate;
mod call_threads;
mod compact;
mod devices;
mod dir;
mod error;
mod files;
mod find;
mod gather;
mod graph_paths;
mod interner;
mod kernel_columns;
mod kernel_paths;
mod layer_names;
mod layered;
mod liveness;
mod model_part;
pub mod occupancy;
mod open;
mod progress;
mod range_paths;
mod recorder;
mod scan;
mod seal;
mod sorted;
mod structure;
#[doc(hidden)]
pub mod synthetic;
mod table_writer;
mod windows;
pub(crate) mod writer;

pub use devices::{Devices, KnownDevice};
pub use dir::{DEFAULT_SESSIONS_DIR, SessionsDir};
pub use error::SessionError;
pub use files::{parse_process as process_id_of, process_name as process_name_of};
pub use find::{LATEST, Listed};
pub(crate) use layer_names::draft_pattern;
pub use layered::{BY_STRUCTURE, LayeredScan};
pub use liveness::{is_alive, own_id, start_ticks};
pub use model_part::is_before_layers;
pub use open::{Life, Session};
pub use progress::{Phase, ProgressSink};
pub use recorder::{Recorder, Rows};
pub use scan::{Part, Parts, SESSION_CHANGED, Scan, wanted_schema};
pub use sorted::SortedScan;
pub use windows::{Selection, covered_ns, end_of, is_within};
pub use writer::{NewSession, SessionWriter, now_ns};
