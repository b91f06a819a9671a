//! Sessions on disk: create, open, seal, compact, recover, list, remove.
//!
//! The launcher holds a [`SessionWriter`] and alone writes `session.json`; readers hold a [`Session`] and never write
//! into tables.

mod dir;
mod error;
mod liveness;
mod progress;
mod seal;
mod writer;

pub use dir::{DEFAULT_SESSIONS_DIR, SessionsDir};
pub use error::SessionError;
pub use liveness::{is_alive, own_id, start_ticks};
pub use progress::{Phase, ProgressSink};
pub use writer::{NewSession, SessionWriter};
