//! Short questions to other programs, which may be missing, fail, print anything, or hang.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// More than any answer.
const LONGEST: u64 = 64 * 1024;
const POLL: Duration = Duration::from_millis(5);

/// What a command prints; `None` where it is missing, fails, or has not ended after `patience`: it is killed then.
pub(crate) fn output_of(command: &mut Command, patience: Duration) -> Option<String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let deadline = Instant::now() + patience;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(POLL),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    };
    // All that it printed is in the pipe. A child that it left behind may hold the other end: its words are not waited
    // for.
    let stdout = child.stdout.take()?;
    fcntl(&stdout, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).ok()?;
    let mut said = Vec::new();
    let _ = stdout.take(LONGEST).read_to_end(&mut said);
    status.success().then(|| String::from_utf8_lossy(&said).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, patience: Duration) -> Option<String> {
        output_of(Command::new("sh").args(["-c", script]), patience)
    }

    #[test]
    fn a_command_that_hangs_fails_or_never_stops_talking_says_nothing() {
        let long = Duration::from_secs(20);
        assert_eq!(sh("echo x", long).as_deref(), Some("x\n"));
        assert_eq!(sh("echo x; exit 1", long), None);
        assert_eq!(output_of(&mut Command::new("./no-such-program"), long), None);

        let started = Instant::now();
        assert_eq!(sh("exec sleep 60", Duration::from_millis(100)), None);
        assert_eq!(sh("exec yes", Duration::from_millis(100)), None);
        assert!(started.elapsed() < long);
    }

    #[test]
    fn a_child_that_is_left_behind_is_not_waited_for() {
        let started = Instant::now();
        let said = sh("sleep 60 & echo $!", Duration::from_secs(20)).unwrap();
        assert!(started.elapsed() < Duration::from_secs(20));
        let pid = nix::unistd::Pid::from_raw(said.trim().parse().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
}
