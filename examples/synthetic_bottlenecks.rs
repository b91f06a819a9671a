//! Makes a session in which every rule of `colonel analyze` finds something, and prints its folder.
//!
//!     cargo run --example synthetic_bottlenecks -- SESSIONS_DIR

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use colonel::session::synthetic::bottlenecks;
use colonel::session::{NewSession, SessionWriter, SessionsDir};

fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os()
        .nth(1)
        .context("usage: synthetic_bottlenecks SESSIONS_DIR")?;
    let new = NewSession {
        command: vec!["python".to_owned(), "serve.py".to_owned()],
        gate: "process".to_owned(),
        ..NewSession::default()
    };
    let mut writer = SessionWriter::create(&SessionsDir::resolve(Some(Path::new(&folder)))?, new)?;
    bottlenecks::write(writer.path(), 1_795_000_000_000_000_000)?;
    writer.seal(None, &mut |_, _, _| {})?;
    writer.compact(&mut |_, _, _| {})?;
    writeln!(std::io::stdout().lock(), "{}", writer.path().display())?;
    Ok(())
}
