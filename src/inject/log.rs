//! Lines on the host's stderr, only where `COLONEL_LOG` asks for them: one `write(2)` each.

use std::fmt::Arguments;
use std::sync::atomic::{AtomicBool, Ordering};

static ON: AtomicBool = AtomicBool::new(false);

/// Turns the lines on.
pub(crate) fn enable(on: bool) {
    ON.store(on, Ordering::Relaxed);
}

/// Writes one line if asked for. Use through [`log!`].
pub(crate) fn line(arguments: Arguments<'_>) {
    if ON.load(Ordering::Relaxed) {
        let text = format!("colonel[{}]: {arguments}\n", std::process::id());
        // SAFETY: the buffer is valid for its length; a failed write to the host's stderr is no concern of ours.
        unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
    }
}

macro_rules! log {
    ($($argument:tt)*) => { $crate::inject::log::line(format_args!($($argument)*)) };
}
pub(crate) use log;
