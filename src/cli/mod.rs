//! The command line: one file a command, arguments and messages, no logic.

pub mod list;
pub mod rm;
pub mod sessions_dir;
pub mod show;
