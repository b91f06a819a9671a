//! The launcher as users meet it: the real `colonel`, real commands, real signals, no GPU.

#![allow(missing_docs, unreachable_pub, reason = "a test is its own documentation")]

mod control;
mod docs;
mod doctor;
mod environment;
mod evaluators;
mod exit_codes;
mod flavor;
mod session;
mod signals;
mod support;
