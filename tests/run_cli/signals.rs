//! Signals: passed on once, never twice, and the session is sealed after each.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use colonel::schema::columns::TableBuilder;
use colonel::schema::manifest::SessionState;
use colonel::schema::tables::KernelsBuilder;
use colonel::session::synthetic::{SyntheticGuest, kernel};
use colonel::session::{Session, own_id};
use nix::sys::signal::Signal;

use crate::session::waiting;
use crate::support::{Running, Workplace, assert_code, compile, stderr, stdout, wait_until};

/// Counts the signals that it gets: says `ready`, and 300 ms after the first signal `NUMBER COUNT` for each.
fn counter() -> &'static Path {
    static COUNTER: OnceLock<PathBuf> = OnceLock::new();
    const SOURCE: &str = r#"
        #include <signal.h>
        #include <stdio.h>
        #include <time.h>
        static volatile sig_atomic_t counts[65], any;
        static void count(int number) { counts[number]++; any = 1; }
        int main(void) {
            int numbers[] = { SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGTERM };
            for (int i = 0; i < 6; i++) {
                struct sigaction action = { .sa_handler = count };
                sigaction(numbers[i], &action, 0);
            }
            fclose(fopen("ready", "w"));
            struct timespec moment = { 0, 10000000 };
            for (int left = 30; left > 0; left -= any) nanosleep(&moment, 0);
            for (int i = 1; i < 65; i++) if (counts[i]) printf("%d %d\n", i, counts[i]);
            return 0;
        }
    "#;
    COUNTER.get_or_init(|| compile("count_signals", SOURCE, &[]))
}

fn started(place: &Workplace) -> Running {
    let running = place.start(&[], &[counter()]);
    wait_until("the command is ready", || place.path().join("ready").exists());
    running
}

#[track_caller]
fn assert_counted(running: Running, signal: Signal, place: &Workplace) {
    let output = running.end();
    assert_code(&output, 0);
    assert_eq!(stdout(&output), format!("{} 1\n", signal as i32), "{signal}");
    assert!(place.session().1.state != SessionState::Running, "sealed");
}

#[test]
fn what_was_sent_to_us_alone_is_passed_on_once() {
    use Signal::*;
    for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2] {
        let place = Workplace::new();
        let running = started(&place);
        running.send(signal);
        assert_counted(running, signal, &place);
    }
}

#[test]
fn what_was_sent_to_the_group_is_not_doubled() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGUSR1] {
        let place = Workplace::new();
        let running = started(&place);
        running.send_to_group(signal);
        assert_counted(running, signal, &place);
    }
}

#[test]
fn the_next_signal_is_judged_anew() {
    let place = Workplace::new();
    let running = started(&place);
    running.send_to_group(Signal::SIGUSR1);
    std::thread::sleep(Duration::from_millis(50));
    running.send(Signal::SIGUSR2);
    std::thread::sleep(Duration::from_millis(50));
    running.send(Signal::SIGUSR1);
    let output = running.end();
    assert_eq!(
        stdout(&output),
        "10 2\n12 1\n",
        "USR1 by the group and by us, USR2 by us"
    );
}

#[test]
fn the_terminals_interrupt_reaches_the_command_once() {
    let place = Workplace::new();
    let mut master = 0;
    let mut slave = 0;
    let null = std::ptr::null_mut();
    // SAFETY: two out-parameters of our own; the rest may be null.
    let opened = unsafe { libc::openpty(&raw mut master, &raw mut slave, null, null.cast(), null.cast()) };
    assert_eq!(opened, 0);
    // SAFETY: openpty gave both to us.
    let (mut master, slave) = unsafe {
        use std::os::fd::FromRawFd;
        (fs::File::from_raw_fd(master), OwnedFd::from_raw_fd(slave))
    };
    let mut command = place.colonel();
    command
        .arg("run")
        .arg("--")
        .arg(counter())
        .stdin(slave.try_clone().unwrap());
    command
        .stdout(fs::File::create(place.path().join("out")).unwrap())
        .stderr(Stdio::null());
    let terminal = slave.as_raw_fd();
    // SAFETY: setsid and ioctl are async-signal-safe, and the descriptor outlives the spawn.
    unsafe {
        command.pre_exec(move || {
            nix::unistd::setsid()?;
            if libc::ioctl(terminal, libc::TIOCSCTTY, 0) == 0 {
                Ok(())
            } else {
                Err(std::io::Error::last_os_error())
            }
        });
    }
    let mut child = command.spawn().unwrap();
    drop(slave);
    wait_until("the command is ready", || place.path().join("ready").exists());
    master.write_all(b"\x03").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(fs::read_to_string(place.path().join("out")).unwrap(), "2 1\n");
    assert!(place.session().1.state != SessionState::Running, "sealed after Ctrl-C");
}

#[test]
fn the_commands_death_by_a_signal_is_told_by_the_code() {
    let place = Workplace::new();
    let (running, _) = waiting(&place, &[]);
    running.send(Signal::SIGTERM);
    let output = running.end();
    assert_code(&output, 143);
    let (_, manifest) = place.session();
    assert_eq!(manifest.exit.unwrap().signal, Some(15));
    assert!(manifest.state != SessionState::Running);
}

#[test]
fn a_message_of_the_command_to_its_parent_is_not_returned() {
    let place = Workplace::new();
    let output = place.run_sh(&[], "kill -USR1 $PPID; sleep 0.3; echo alive");
    assert_code(&output, 0);
    assert_eq!(stdout(&output), "alive\n");
}

#[test]
fn a_stopped_launcher_and_command_go_on() {
    let place = Workplace::new();
    let running = started(&place);
    running.send_to_group(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(100));
    running.send_to_group(Signal::SIGCONT);
    running.send(Signal::SIGTERM);
    assert_counted(running, Signal::SIGTERM, &place);
}

#[test]
fn what_the_caller_ignores_or_blocks_stays_so_for_the_command() {
    let place = Workplace::new();
    let mut command = place.colonel();
    command.args(["run", "--", "grep", "-E", "SigBlk|SigIgn", "/proc/self/status"]);
    // SAFETY: both calls are async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            nix::sys::signal::signal(Signal::SIGHUP, nix::sys::signal::SigHandler::SigIgn)?;
            let mut blocked = nix::sys::signal::SigSet::empty();
            blocked.add(Signal::SIGWINCH);
            Ok(blocked.thread_block()?)
        });
    }
    let output = command.output().unwrap();
    assert_code(&output, 0);
    let said = stdout(&output);
    let mask = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let mask = u64::from_str_radix(line.trim(), 16).unwrap();
        // From 32 on they are the C library's and of no interest.
        mask & ((1 << 31) - 1)
    };
    assert_eq!(mask("SigBlk:"), 1 << (libc::SIGWINCH - 1), "{said}");
    assert_eq!(mask("SigIgn:"), 1 << (libc::SIGHUP - 1), "{said}");
}

#[test]
fn a_second_interrupt_hurries_and_the_session_is_sealed_all_the_same() {
    let place = Workplace::new();
    let (running, session) = waiting(&place, &[]);
    // A process that outlives the command, so that the launcher waits for it: this test plays it.
    let own = own_id().unwrap();
    let mut guest = SyntheticGuest::new(&session, own.pid);
    guest.process.start_ticks = own.start_ticks;
    guest.write_process().unwrap();
    running.send_to_group(Signal::SIGINT);
    std::thread::sleep(Duration::from_millis(500));
    let second = Instant::now();
    running.send_to_group(Signal::SIGINT);
    let output = running.end();
    assert!(
        second.elapsed() < Duration::from_millis(1_200),
        "it waited on: {:?}",
        second.elapsed()
    );
    assert_code(&output, 130);
    assert_eq!(place.session().1.state, SessionState::Sealed, "{}", stderr(&output));
}

#[test]
fn an_interrupt_while_compacting_leaves_the_tables_as_they_were() {
    // So many that compaction takes a while.
    const KERNELS: i64 = if cfg!(debug_assertions) { 150_000 } else { 1_500_000 };
    let place = Workplace::new();
    let (running, session) = waiting(&place, &[]);
    let mut guest = SyntheticGuest::new(&session, 4711);
    let mut rows = KernelsBuilder::default();
    for start in 0..KERNELS {
        rows.push(kernel(4711, "decode", 1_000 + start, 1));
    }
    guest.seal(&mut rows).unwrap();
    guest.end(2_000_000).unwrap();
    place.write("go", "", 0o644);
    wait_until("compaction has begun", || session.join(".compacting").exists());
    let interrupted = Instant::now();
    running.send_to_group(Signal::SIGINT);
    let output = running.end();
    assert_code(&output, 0);
    assert!(
        interrupted.elapsed() < Duration::from_secs(2),
        "{:?}",
        interrupted.elapsed()
    );
    assert!(
        stderr(&output).contains("was not compacted: a signal came first"),
        "{}",
        stderr(&output)
    );
    assert_eq!(place.session().1.state, SessionState::Sealed);
    assert!(!session.join(".compacting").exists(), "no unfinished table is left");
    let read: usize = Session::load(&session)
        .unwrap()
        .scan("kernels", &["start_ns"])
        .unwrap()
        .map(|b| b.num_rows())
        .sum();
    assert_eq!(i64::try_from(read).unwrap(), KERNELS);
}

#[test]
fn nothing_of_a_killed_launcher_stays() {
    let place = Workplace::new();
    let mut running = place.colonel();
    running
        .args(["run", "--", "sh", "-c", "echo ready; sleep 0.5"])
        .stdout(Stdio::piped())
        .process_group(0);
    let mut child = running.spawn().unwrap();
    let mut line = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    let launcher = child.id();
    let children = || {
        let path = format!("/proc/{launcher}/task/{launcher}/children");
        fs::read_to_string(path)
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let witness = children()
        .into_iter()
        .find(|pid| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("colonel-witness"))
        })
        .expect("the launcher has a witness");
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the witness is gone", || {
        !Path::new(&format!("/proc/{witness}")).exists()
    });
}
