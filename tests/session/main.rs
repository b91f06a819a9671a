//! Sessions on disk, made as guests make them: sealing, recovery, compaction, reading, removing.

mod compact;
mod fixture;
mod open;
mod ranges;
mod seal;
