//! A process that does nothing but tell whether a signal went to the whole process group.
//!
//! The kernel does not say so: `kill(-PGID)` by `timeout` or `os.killpg` looks like `kill(PID)`, and a hangup reaches
//! a session leader alone though the kernel sends it. So a child stays in our group with every signal blocked; what
//! is pending there was sent to the group. New members stand first in the kernel's list of a group, so by the time we
//! have a signal, the witness has it too.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::{ForkResult, Pid, fork};

/// Longer than any scheduling delay of a healthy machine; a witness that takes longer was stopped or killed.
const PATIENCE: Duration = Duration::from_millis(200);

/// The launcher's end.
#[derive(Debug)]
pub(crate) struct Witness {
    stream: Option<UnixStream>,
    pid: Pid,
}

impl Witness {
    /// Forks the witness. Must be called while the process has one thread.
    pub(crate) fn start() -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(PATIENCE))?;
        // Blocked before the fork, so that no signal finds the witness with our handlers.
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        // SAFETY: no other thread exists yet, and the child calls only async-signal-safe functions.
        let forked = unsafe { fork() };
        if let Ok(ForkResult::Child) = forked {
            testify(theirs.as_raw_fd());
        }
        mask.thread_set_mask()?;
        match forked? {
            ForkResult::Parent { child } => Ok(Self {
                stream: Some(ours),
                pid: child,
            }),
            ForkResult::Child => Err(io::Error::other("unreachable: the witness does not return")),
        }
    }

    /// Whether `signal` was sent to the group since the last question; `None` when nobody can tell any more.
    pub(crate) fn saw(&mut self, signal: Signal) -> Option<bool> {
        let answer = self.ask();
        if answer.is_none() {
            // A late answer would be taken for the next one's.
            self.stream = None;
        }
        answer.map(|mask| mask & bit(signal as i32) != 0)
    }

    fn ask(&mut self) -> Option<u64> {
        let stream = self.stream.as_mut()?;
        stream.write_all(&[0]).ok()?;
        let mut mask = [0; 8];
        stream.read_exact(&mut mask).ok()?;
        Some(u64::from_ne_bytes(mask))
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        drop(self.stream.take());
        let _ = nix::sys::signal::kill(self.pid, Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(self.pid, None);
    }
}

fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// The witness's life: answers each byte with the signals that came since the last, ends when the launcher does.
fn testify(question: RawFd) -> ! {
    // SAFETY: plain system calls on descriptors of our own; 0 becomes the socket, the rest is closed so that no pipe
    // of the launcher's stays open through us.
    unsafe {
        libc::dup2(question, 0);
        libc::syscall(libc::SYS_close_range, 1_u32, u32::MAX, 0_u32);
        libc::prctl(libc::PR_SET_NAME, c"colonel-witness".as_ptr());
    }
    loop {
        let mut byte = 0_u8;
        // SAFETY: reads one byte into a local.
        let read = unsafe { libc::read(0, (&raw mut byte).cast(), 1) };
        if read != 1 {
            // SAFETY: ends this process without running anything of the launcher's.
            unsafe { libc::_exit(0) };
        }
        let mask = take_pending();
        // SAFETY: writes eight bytes of a local; a launcher that is gone is noticed at the next read.
        unsafe { libc::send(0, (&raw const mask).cast(), size_of::<u64>(), libc::MSG_NOSIGNAL) };
    }
}

/// Takes every pending signal.
fn take_pending() -> u64 {
    let mut mask = 0;
    // SAFETY: all zero is a valid sigset_t and a valid timespec, and sigfillset writes the set.
    let (mut all, now): (libc::sigset_t, libc::timespec) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    // SAFETY: the set is a local.
    unsafe { libc::sigfillset(&raw mut all) };
    loop {
        // SAFETY: set and timeout are locals; a null siginfo is allowed.
        let signal = unsafe { libc::sigtimedwait(&raw const all, std::ptr::null_mut(), &raw const now) };
        if signal < 1 {
            return mask;
        }
        mask |= bit(signal);
    }
}
