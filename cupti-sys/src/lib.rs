//! CUPTI as colonel uses it: the record layouts of 12.4 to 13.5, its constants, the functions it exports and a loader
//! that finds the right copy. Written by hand, checked against NVIDIA's own headers by the feature `bindgen` and
//! against the real library by `tests/oracle.rs`.
//!
//! A record has no length of its own: how far the next one is follows from its kind and from the version of the
//! *loaded* library ([`layouts`]). Kinds are plain `u32`, since a newer library may send kinds unknown here.

pub mod callbacks;
pub mod candidates;
pub mod constants;
pub mod counters;
pub mod functions;
pub mod layouts;
pub mod loader;
mod mapped;
pub mod names;
mod record;
pub mod records;
