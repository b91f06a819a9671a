//! stdout is the answer, stderr the talk.

use std::io::{self, Write as _};

use serde::Serialize;

/// Writes to stdout. That its reader has gone is an error here, which the command line takes for success.
pub(super) fn answer(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes JSON to stdout.
pub(super) fn answer_json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    Ok(answer(&(text + "\n"))?)
}

/// Writes a line to stderr. A closed stderr is no reason to fail.
pub(super) fn talk(text: &str) {
    let _ = io::stderr().write_all(format!("colonel: {text}\n").as_bytes());
}
