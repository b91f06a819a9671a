//! Ends nsys where it hangs after the command has ended: making its report it writes files and talks all the while.

use std::path::Path;
use std::time::{Duration, Instant};

use super::super::tree;
use super::super::words::nanoseconds;
use super::tool::bytes_in;
use super::watch::{Ended, Watched};
use crate::schema::manifest::ProcessId;
use crate::session::is_alive;

/// Looks at the files in `folder` until none grows for as long as `limit` without a command that runs, or nsys has ended.
pub(super) fn look(root: ProcessId, session: &Path, folder: &Path, limit: Duration, ended: &Ended) -> Watched {
    // Looking through all processes has its price, so it is done when the one that was found is gone.
    let mut known: Option<ProcessId> = None;
    let runs = || {
        known = known
            .filter(|process| is_alive(process.pid, process.start_ticks))
            .or_else(|| tree::one_of_command(root, session));
        known.is_some()
    };
    silence(|| bytes_in(folder), runs, limit, ended)
}

fn silence(bytes: impl Fn() -> u64, mut runs: impl FnMut() -> bool, limit: Duration, ended: &Ended) -> Watched {
    let pause = (limit / 5).min(Duration::from_secs(1));
    let (mut size, mut since, mut looked) = (0, Instant::now(), Instant::now());
    while !ended.is_so() {
        if looked.elapsed() < pause {
            continue;
        }
        looked = Instant::now();
        let now = bytes();
        if now != size || runs() {
            (size, since) = (now, Instant::now());
        }
        if since.elapsed() >= limit {
            let limit = nanoseconds(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
            return Watched::Stopped(format!(
                "nsys had written nothing for {limit} after the command had ended, and was stopped; what came is kept, the \
                 command's exit code is lost\nwhere its report takes longer: `--nsys-report-timeout 30min`"
            ));
        }
    }
    Watched::Well
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn only_silence_without_a_command_counts() {
        let limit = Duration::from_millis(500);
        let ended = || Ended::after(Duration::from_secs(2));
        let none = silence(|| 7, || false, limit, &ended());
        assert!(matches!(none, Watched::Stopped(_)), "{none:?}");
        assert_eq!(silence(|| 7, || true, limit, &ended()), Watched::Well);
        let size = Cell::new(0);
        let grows = || {
            size.set(size.get() + 1);
            size.get()
        };
        assert_eq!(silence(grows, || false, limit, &ended()), Watched::Well);
    }
}
