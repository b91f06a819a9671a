//! Reports of nsys and ncu, put into sessions. The reports come from the stand-ins in tests/nsight.

#![allow(missing_docs, reason = "a test is its own documentation")]

mod ncu;
mod nsys;
mod support;
