//! Whether a process named by pid and start time still runs. A pid alone is reused; with the start time it is not.

use std::fs;

use crate::schema::manifest::ProcessId;

/// Field 22 of /proc/PID/stat, if there is such a process.
pub fn start_ticks(pid: u32) -> Option<u64> {
    stat(pid).map(|stat| stat.start_ticks)
}

/// This process.
pub fn own_id() -> Option<ProcessId> {
    let pid = std::process::id();
    Some(ProcessId {
        pid,
        start_ticks: start_ticks(pid)?,
    })
}

/// Whether the process still runs. A zombie does not: it will write nothing more.
pub fn is_alive(pid: u32, start_ticks: u64) -> bool {
    stat(pid).is_some_and(|stat| stat.start_ticks == start_ticks && (!stat.ended || has_other_threads(pid)))
}

struct Stat {
    ended: bool,
    start_ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The command name, in parentheses, may hold anything: fields count from the last closing one.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let after_name = text.iter().rposition(|&byte| byte == b')')? + 1;
    let mut fields = std::str::from_utf8(&text[after_name..]).ok()?.split_ascii_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X" | "x");
    Some(Stat {
        ended,
        start_ticks: fields.nth(18)?.parse().ok()?,
    })
}

/// A main thread that ended before the others shows as a zombie, though the process runs on.
fn has_other_threads(pid: u32) -> bool {
    fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|tasks| tasks.count() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn names_with_spaces_and_parentheses_parse() {
        let text =
            b"4711 (a) b) (c) S 1 4711 4711 0 -1 4194560 1 0 0 0 5 6 0 0 20 0 3 0 86213 1000 10 18446744073709551615\n";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.ended, stat.start_ticks), (false, 86213));
        assert!(parse_stat(b"4711 (cut off) S 1").is_none());
    }

    #[test]
    fn we_are_alive_and_a_reused_pid_is_not() {
        let own = own_id().unwrap();
        assert!(is_alive(own.pid, own.start_ticks));
        assert!(!is_alive(own.pid, own.start_ticks + 1));
    }

    #[test]
    fn a_zombie_is_not_alive() {
        let mut child = Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap();
        let ticks = start_ticks(child.id()).unwrap();
        assert!(is_alive(child.id(), ticks));
        child.kill().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while is_alive(child.id(), ticks) {
            assert!(
                std::time::Instant::now() < deadline,
                "the killed child still counts as alive"
            );
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        child.wait().unwrap();
        assert!(!is_alive(child.id(), ticks));
    }
}
