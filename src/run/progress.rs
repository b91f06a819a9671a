//! Progress of what the launcher does after the command: shown only where it takes longer than half a second, as a
//! bar on a terminal, else as one plain line.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What takes less is not worth a line.
const PATIENCE: Duration = Duration::from_millis(500);

/// One shower for all the phases.
#[derive(Debug)]
pub(crate) struct Progress {
    phase: &'static str,
    started: Instant,
    bar: Option<ProgressBar>,
    said: bool,
}

impl Progress {
    /// Nothing is shown yet.
    pub(crate) fn new() -> Self {
        Self {
            phase: "",
            started: Instant::now(),
            bar: None,
            said: false,
        }
    }

    /// To be called now and then: what is being done, and how far it is.
    pub(crate) fn report(&mut self, phase: &'static str, done: u64, whole: u64) {
        if self.phase != phase {
            self.clear();
            (self.phase, self.started, self.said) = (phase, Instant::now(), false);
        }
        if self.started.elapsed() < PATIENCE {
            return;
        }
        if io::stderr().is_terminal() {
            let bar = self.bar.get_or_insert_with(|| bar(phase, whole));
            bar.set_length(whole);
            bar.set_position(done);
        } else if !self.said {
            let _ = writeln!(io::stderr(), "colonel: {phase} …");
        }
        self.said = true;
    }

    /// Takes the bar away.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn bar(phase: &'static str, whole: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(whole), ProgressDrawTarget::stderr());
    // The template is a constant: a mistake in it leaves the default style.
    if let Ok(style) = ProgressStyle::with_template("colonel: {prefix} {bar:24} {percent:>3} %  {eta}") {
        bar.set_style(style);
    }
    bar.set_prefix(phase);
    bar
}
