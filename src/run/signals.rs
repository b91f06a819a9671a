//! Signals while the command runs: what was sent to the whole process group is the command's already, what was sent
//! to the launcher alone is passed on. Job control is left alone: stop and continue are handled by nobody here.
//!
//! After the command ended the same signals mean "hurry": see [`Signals::into_hurry`].

use std::io;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Origin};

use super::witness::Witness;

/// What is passed on.
pub(crate) const FORWARDED: [Signal; 6] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];
/// What ends a program, and so asks the launcher to hurry once the command is gone.
const ENDING: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// The launcher's signals.
#[derive(Debug)]
pub struct Signals {
    received: SignalsInfo<WithOrigin>,
    witness: Option<Witness>,
    /// The caller's signal mask, for the command.
    mask: SigSet,
}

impl Signals {
    /// Starts to listen. To be called first thing, while the process has one thread.
    ///
    /// What the caller ignored (`nohup`, a background job of a script) stays ignored, for the command too.
    pub fn listen() -> io::Result<Self> {
        let mask = SigSet::thread_get_mask()?;
        let witness = Witness::start().ok();
        let mut listened = vec![libc::SIGCHLD];
        for signal in FORWARDED {
            if !is_ignored(signal)? {
                listened.push(signal as i32);
            }
        }
        let received = SignalsInfo::<WithOrigin>::new(listened)?;
        Ok(Self {
            received,
            witness,
            mask,
        })
    }

    /// The signal mask that the launcher was started with.
    pub fn mask(&self) -> SigSet {
        self.mask
    }

    /// A signal that came before the command was started and would have ended it.
    pub fn ended_before_start(&mut self) -> Option<Signal> {
        self.received
            .pending()
            .filter_map(|origin| Signal::try_from(origin.signal).ok())
            .find(|s| ENDING.contains(s))
    }

    /// Waits for the command, passing on what was sent to us alone.
    pub fn wait(&mut self, command: &mut Child) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = command.try_wait()? {
                return Ok(status);
            }
            let origins: Vec<Origin> = self.received.wait().collect();
            for origin in origins {
                let Ok(signal) = Signal::try_from(origin.signal) else {
                    continue;
                };
                if !FORWARDED.contains(&signal) {
                    continue;
                }
                // Not reaped yet, so the pid is still the command's.
                let pid = Pid::from_raw(command.id().cast_signed());
                let to_group = self.went_to_group(signal);
                if is_passed_on(&origin, to_group, pid) {
                    let _ = nix::sys::signal::kill(pid, signal);
                }
            }
        }
    }

    /// Whether the whole group was sent `signal`; `None` when the witness is gone.
    fn went_to_group(&mut self, signal: Signal) -> Option<bool> {
        let witness = self.witness.as_mut()?;
        if witness.saw(signal)? {
            return Some(true);
        }
        // The kernel's order makes this needless today; it costs a forwarded signal two milliseconds.
        std::thread::sleep(Duration::from_millis(2));
        witness.saw(signal)
    }

    /// From now on a signal that would end a program sets the flag returned.
    pub fn into_hurry(self) -> Arc<AtomicBool> {
        let hurry = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&hurry);
        let mut received = self.received;
        // Ends with the process.
        std::thread::spawn(move || {
            for origin in &mut received {
                if ENDING.iter().any(|ending| *ending as i32 == origin.signal) {
                    flag.store(true, Ordering::Relaxed);
                }
            }
        });
        hurry
    }
}

/// Whether a signal is the launcher's to pass on.
fn is_passed_on(origin: &Origin, to_group: Option<bool>, command: Pid) -> bool {
    let by_command = origin
        .process
        .as_ref()
        .is_some_and(|process| process.pid == command.as_raw());
    if by_command {
        // `kill -USR1 $PPID` is a message of the command's to its parent: returned to the sender, it would kill it.
        return false;
    }
    // Without a witness: the terminal's signals come from the kernel, all others from a process.
    !to_group.unwrap_or(origin.cause == Cause::Kernel)
}

fn is_ignored(signal: Signal) -> io::Result<bool> {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a null new action only asks, and the old one is written to a local.
    let status = unsafe { libc::sigaction(signal as i32, std::ptr::null(), action.as_mut_ptr()) };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: sigaction succeeded and so filled it.
    Ok(unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An origin as signal-hook makes it: the type can't be built outside its crate.
    fn origin_of_a_kill_by_ourselves() -> Origin {
        let mut received = SignalsInfo::<WithOrigin>::new([libc::SIGUSR2]).unwrap();
        nix::sys::signal::kill(Pid::this(), Signal::SIGUSR2).unwrap();
        received.wait().next().unwrap()
    }

    #[test]
    fn what_was_sent_to_us_alone_is_passed_on() {
        let origin = origin_of_a_kill_by_ourselves();
        let command = Pid::from_raw(1);
        assert!(is_passed_on(&origin, Some(false), command));
        assert!(!is_passed_on(&origin, Some(true), command), "the group has it already");
        assert!(
            is_passed_on(&origin, None, command),
            "without a witness the sender decides"
        );
        assert!(
            !is_passed_on(&origin, Some(false), Pid::this()),
            "the command's own signal is not returned to it"
        );
    }
}
