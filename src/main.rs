//! The command `colonel`.

fn main() {}
