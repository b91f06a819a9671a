//! The steward thread: control socket, timers, flushes (see `delivery`), and the process file. It sleeps in `poll` while
//! the gate is closed, and is the only thread that flushes CUPTI: two flushes at once deadlock.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::inject::command::{Command, Open, Trigger, Which};
use crate::inject::control::{self, Broken, ControlSocket};
use crate::inject::delivery::{Delivery, SEAL_TIMEOUT};
use crate::inject::gate::Answer;
use crate::inject::guest::Guest;
use crate::inject::log::log;
use crate::inject::process_file;
use crate::inject::threads::{self, now_ns};
use crate::schema::control::{Op, Reply, VERSION};
use crate::schema::manifest::ProcessState;

/// Rest after a client that could not be accepted.
const REST: Duration = Duration::from_millis(100);

/// The process file grows with each window: after a write it rests this many times as long as the write took.
const FILE_REST: u32 = 10;
/// Rest after a write that failed.
const FILE_RETRY: Duration = Duration::from_millis(500);

/// Open windows in a reply, so that it stays short.
const OPEN_SHOWN: usize = 100;

/// Starts the steward.
pub(crate) fn start(guest: &'static Guest) -> io::Result<()> {
    threads::spawn("colonel-steward", move || Steward::new(guest).run())
}

struct Steward {
    guest: &'static Guest,
    socket: Option<ControlSocket>,
    delivery: Delivery,
    /// The process file is not written before, unless somebody waits for it.
    file_due: Instant,
}

impl Steward {
    fn new(guest: &'static Guest) -> Steward {
        let socket = guest.config.runtime.as_deref().and_then(|folder| {
            let socket = ControlSocket::listen(folder, guest.identity.pid);
            if let Err(error) = &socket {
                let folder = folder.display();
                guest.problem(
                    "no_control_socket",
                    format!(
                        "failed to make the control socket in `{folder}`: {error}; `colonel start` and `stop` can't \
                         reach this process"
                    ),
                );
            }
            socket.ok()
        });
        Steward {
            guest,
            socket,
            delivery: Delivery::new(guest),
            file_due: Instant::now(),
        }
    }

    fn run(mut self) {
        loop {
            self.guest.catch_up();
            self.guest.carry_out(false);
            let timer = self.guest.run_timers();
            // First of all: a flush may never return, and this process must be known all the same.
            self.write_process_file_if_due();
            self.delivery.run_if_due();
            if self.guest.wake.finish.load(Ordering::Acquire) {
                self.finish();
                return;
            }
            self.write_process_file_if_due();
            let file = self
                .guest
                .is_dirty()
                .then(|| self.file_due.saturating_duration_since(Instant::now()));
            self.wait([timer, self.delivery.due_in(), file].into_iter().flatten().min());
        }
    }

    fn wait(&mut self, limit: Option<Duration>) {
        let entry = |fd: RawFd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        let listener = self.socket.as_ref().map_or(-1, ControlSocket::descriptor);
        let mut entries = [entry(self.guest.wake.event.as_raw_fd()), entry(listener)];
        // Rounded up: a timer that is not due yet would spin.
        let milliseconds = limit.map_or(-1, |limit| i32::try_from(limit.as_millis() + 1).unwrap_or(i32::MAX));
        // SAFETY: two valid entries; poll ignores a negative descriptor.
        unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, milliseconds) };
        self.guest.wake.clear();
        if entries[1].revents != 0 {
            self.accept();
        }
    }

    fn finish(&mut self) {
        let had_windows = self.guest.writer.get().is_some();
        let _ = self.guest.close_window(Which::All, None, true);
        self.guest.counters.end();
        let mut delivered = !had_windows || self.delivery.finish();
        delivered &= self.guest.counters.wait(SEAL_TIMEOUT);
        self.guest.counters.explain_silence(self.guest);
        self.guest.gate.end();
        self.guest.touch();
        // Without an end the launcher takes the process for cut off and counts what was received and is not on disk.
        self.write_process_file(delivered.then(now_ns));
        self.socket = None;
        self.guest.wake.finished.store(true, Ordering::Release);
    }

    fn write_process_file_if_due(&mut self) {
        if Instant::now() >= self.file_due {
            self.write_process_file(None);
        }
    }

    fn write_process_file(&mut self, ended_ns: Option<i64>) {
        if !self.guest.dirty.swap(false, Ordering::AcqRel) {
            return;
        }
        let started = Instant::now();
        let control = self
            .socket
            .as_ref()
            .map(ControlSocket::path)
            .filter(|_| ended_ns.is_none());
        let rest = match process_file::write(self.guest, control, ended_ns) {
            Ok(()) => started.elapsed() * FILE_REST,
            Err(error) => {
                log!("process file: {error}");
                // A full disk may have room again, if only for this file: once the segment that did not fit is gone.
                self.guest.touch();
                FILE_RETRY
            }
        };
        self.file_due = Instant::now() + rest;
    }

    fn accept(&mut self) {
        let Some(socket) = &self.socket else { return };
        let client = match socket.accept() {
            Ok(Some(client)) => client,
            Ok(None) => return,
            Err(error) => {
                // The host is out of descriptors: the client stays in the queue, and `poll` would come back at once.
                log!("accept: {error}");
                std::thread::sleep(REST);
                return;
            }
        };
        let mut opened = None;
        let served = control::serve(client, |op| {
            let opens = matches!(op, Ok(Op::Start { nested: true, .. }));
            let reply = match op {
                Ok(op) => self.answer(op),
                Err(refusal) => self.reply(Some(refusal)),
            };
            opened = reply.window.filter(|_| opens && reply.ok);
            reply
        });
        if let Err(error) = served {
            log!("{error}");
            // A region that gave up waiting will not close what it does not know to be open.
            if let (Broken::Undelivered(_), Some(window)) = (error, opened) {
                let _ = self.guest.close_window(Which::Number(window), None, true);
            }
        }
    }

    fn answer(&mut self, op: Op) -> Reply {
        match op {
            Op::Start { name, for_ns, nested } => {
                let open = Open {
                    trigger: if nested { Trigger::Region } else { Trigger::Manual },
                    name,
                    length: for_ns.map(Duration::from_nanos),
                    mark: None,
                    wish: None,
                };
                let opened = self.guest.ask(Command::Open(open), true);
                self.reply_about(opened)
            }
            Op::Stop { window } => {
                let which = window.map_or(Which::All, Which::Number);
                let closed = self.guest.close_window(which, None, true);
                if closed.is_ok() && !self.guest.gate.is_open() {
                    self.delivery.deliver();
                    self.guest.counters.wait(SEAL_TIMEOUT);
                    // The answer must not come before the process file says so.
                    self.write_process_file(None);
                }
                self.reply_about(closed)
            }
            Op::Status => self.reply(None),
            Op::Flush => {
                self.delivery.flush_and_seal(Some(SEAL_TIMEOUT));
                self.reply(None)
            }
        }
    }

    fn reply_about(&self, answer: Answer) -> Reply {
        match answer {
            Ok(window) => Reply {
                window: Some(window),
                ..self.reply(None)
            },
            Err(refusal) => self.reply(Some(refusal)),
        }
    }

    fn reply(&self, error: Option<String>) -> Reply {
        let state = match self.guest.gate.state() {
            ProcessState::Armed => "armed",
            ProcessState::Capturing => "capturing",
            ProcessState::Off => "off",
            ProcessState::Ended => "ended",
        };
        Reply {
            version: VERSION,
            ok: error.is_none(),
            state: state.to_owned(),
            window: self.guest.windows.newest(),
            open: self
                .guest
                .windows
                .open_now()
                .iter()
                .rev()
                .take(OPEN_SHOWN)
                .map(|w| w.number)
                .rev()
                .collect(),
            rows: self.guest.rows(),
            error,
        }
    }
}
