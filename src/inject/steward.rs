//! The steward thread: control socket, timers, flushes, and the process file. It sleeps in `poll` while the gate is
//! closed, and is the only thread that flushes CUPTI: two flushes at once deadlock.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use crate::inject::descriptors;
use crate::inject::gate::Open;
use crate::inject::guest::Guest;
use crate::inject::log::log;
use crate::inject::losses::Reason;
use crate::inject::process_file;
use crate::inject::threads::{self, now_ns};
use crate::inject::writer::Message;
use crate::schema::control::{MAX_MESSAGE_BYTES, Op, Reply, Request, VERSION};
use crate::schema::manifest::ProcessState;

/// Between flushes while a window is open: with the writer's 0.9 s, a record is on disk within about a second.
const FLUSH_EVERY: Duration = Duration::from_millis(250);
/// Flushes after a window closed, for work launched before that still runs: every 10 ms at first, then ever rarer.
const DRAIN_FIRST: Duration = Duration::from_millis(10);
const DRAIN_LAST: Duration = Duration::from_secs(1);
/// Records stay on this long after a stop at most, for work launched before it.
const SETTLE_LIMIT: Duration = Duration::from_secs(1);
/// Flushes in a row that brought nothing, after which draining rests until the next window or the end.
const DRAIN_IDLE: u32 = 20;
/// Silence of CUPTI that makes us suspicious, and the CUDA calls that the program must have made meanwhile: a program
/// that polls one long kernel makes few.
const SILENCE: Duration = Duration::from_secs(2);
const SILENCE_CALLS: u32 = 1_000;
/// Flushes at the process's end before the forced one.
const FINISH_FLUSHES: u32 = 10;
/// A client that says nothing for this long is left.
const CLIENT_TIMEOUT: Duration = Duration::from_millis(500);
const MAX_REQUESTS: u32 = 16;
/// Longest wait for the writer to seal.
const SEAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Wakes the steward from any thread, without waiting.
#[derive(Debug)]
pub(crate) struct Wake {
    event: OwnedFd,
    drain: AtomicBool,
    finish: AtomicBool,
    finished: AtomicBool,
}

impl Wake {
    /// An eventfd of our own, closed on exec.
    pub(crate) fn new() -> io::Result<Wake> {
        // SAFETY: a plain system call; the descriptor is owned by nobody else.
        let event = unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            descriptors::above_standard(OwnedFd::from_raw_fd(fd))?
        };
        Ok(Wake {
            event,
            drain: AtomicBool::new(false),
            finish: AtomicBool::new(false),
            finished: AtomicBool::new(false),
        })
    }

    /// Something changed.
    pub(crate) fn steward(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: eight valid bytes; a full counter means that it is awake anyway.
        unsafe { libc::write(self.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// A window closed: what it launched is still to come.
    pub(crate) fn steward_to_drain(&self) {
        self.drain.store(true, Ordering::Release);
        self.steward();
    }

    /// Asks the steward to finish and waits for it, `limit` at most. Only the first call waits.
    pub(crate) fn finish(&self, limit: Duration) {
        if self.finish.swap(true, Ordering::AcqRel) {
            return;
        }
        self.steward();
        let started = Instant::now();
        while !self.finished.load(Ordering::Acquire) && started.elapsed() < limit {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn clear(&self) {
        let mut count = [0_u8; 8];
        // SAFETY: eight valid bytes.
        unsafe { libc::read(self.event.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

/// Starts the steward.
pub(crate) fn start(guest: &'static Guest) -> io::Result<()> {
    threads::spawn("colonel-steward", move || Steward::new(guest).run())
}

struct Steward {
    guest: &'static Guest,
    listener: Option<(UnixListener, PathBuf)>,
    next_flush: Option<Instant>,
    drain_step: Duration,
    idle_flushes: u32,
    canary: Canary,
    /// A window closed and the records are still on.
    settling: Option<Settling>,
    /// Windows that had closed at the last flush, and at the one before: the latter's records have all come.
    closed: usize,
    delivered: usize,
}

/// Waits for what a closed window launched, so that the records can be turned off.
#[derive(Debug, Clone, Copy)]
struct Settling {
    since: Instant,
    rows: u64,
}

/// Notices that no record reaches us any more though the program calls CUDA: somebody else registered buffers.
#[derive(Debug, Default)]
struct Canary {
    moved: u64,
    /// When buffers last moved, and the correlation id then.
    last: Option<(Instant, u32)>,
    silent: Option<Silence>,
}

/// How long, and how many calls.
#[derive(Debug, Clone, Copy)]
struct Silence {
    since: Instant,
    calls: u32,
}

impl Steward {
    fn new(guest: &'static Guest) -> Steward {
        let listener = guest.config.runtime.as_deref().and_then(|folder| match listen(folder, guest.identity.pid) {
            Ok(listener) => Some(listener),
            Err(error) => {
                let folder = folder.display();
                guest.problem(
                    "no_control_socket",
                    format!("failed to make the control socket in `{folder}`: {error}; `colonel start` and `stop` can't reach this process"),
                );
                None
            }
        });
        Steward {
            guest,
            listener,
            next_flush: None,
            drain_step: DRAIN_FIRST,
            idle_flushes: 0,
            canary: Canary::default(),
            settling: None,
            closed: 0,
            delivered: 0,
        }
    }

    fn run(mut self) {
        loop {
            self.guest.reconcile(false);
            let timer = self.guest.run_timers();
            // First of all: a flush may never return, and this process must be known all the same.
            self.write_process_file(None);
            self.flush_if_due();
            if self.guest.wake.finish.load(Ordering::Acquire) {
                self.finish();
                return;
            }
            self.write_process_file(None);
            let flush = self.next_flush.map(|at| at.saturating_duration_since(Instant::now()));
            self.wait([timer, flush].into_iter().flatten().min());
        }
    }

    fn wait(&mut self, limit: Option<Duration>) {
        let entry = |fd: RawFd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        let listener = self.listener.as_ref().map_or(-1, |(listener, _)| listener.as_raw_fd());
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

    fn flush_if_due(&mut self) {
        if self.guest.wake.drain.swap(false, Ordering::AcqRel) {
            self.drain_step = DRAIN_FIRST;
            self.idle_flushes = 0;
            self.flush_and_seal(Some(SEAL_TIMEOUT));
            self.bury_canary();
            let rows = self.guest.window_rows.load(Ordering::Acquire);
            self.settling = Some(Settling {
                since: Instant::now(),
                rows,
            });
            self.next_flush = Some(Instant::now() + self.drain_step);
            return;
        }
        let open = self.guest.gate.is_open();
        let Some(at) = self.next_flush else {
            self.next_flush = open.then(|| Instant::now() + FLUSH_EVERY);
            return;
        };
        if at > Instant::now() {
            return;
        }
        let brought = self.flush(false);
        self.next_flush = if open {
            self.settling = None;
            self.listen_to_canary(brought);
            if self.guest.windows.first_unsealed() < self.delivered {
                self.request_seal(None);
            }
            Some(Instant::now() + FLUSH_EVERY)
        } else {
            self.idle_flushes = if brought { 0 } else { self.idle_flushes + 1 };
            if brought || self.guest.windows.first_unsealed() < self.delivered {
                self.request_seal(self.settling.map(|_| SEAL_TIMEOUT));
            }
            self.settle();
            self.drain_step = (self.drain_step * 2).min(DRAIN_LAST);
            (self.idle_flushes < DRAIN_IDLE).then(|| Instant::now() + self.drain_step)
        };
    }

    /// Turns the records off once a flush brought nothing more of the closed window, or it took too long.
    fn settle(&mut self) {
        let Some(settling) = &mut self.settling else { return };
        let rows = self.guest.window_rows.load(Ordering::Acquire);
        if rows == settling.rows || settling.since.elapsed() > SETTLE_LIMIT {
            self.settling = None;
            self.guest.disable_if_closed();
        } else {
            settling.rows = rows;
        }
    }

    /// Flushes CUPTI and takes note of what is lost; true if buffers moved.
    fn flush(&mut self, forced: bool) -> bool {
        let Some(attached) = self.guest.attached.get() else {
            return false;
        };
        attached.flush(forced);
        let losses = &self.guest.losses;
        losses.add("records", Reason::DroppedByCupti, Some(attached.dropped()));
        losses.add(
            "records",
            Reason::BuffersExhausted,
            Some(self.guest.pool.overflowed.swap(0, Ordering::Relaxed)),
        );
        if self.guest.pool.foreign.load(Ordering::Relaxed) > 0 {
            self.guest.problem(
                "foreign_buffers",
                "CUPTI gave us buffers that another profiler in this process had lent it (torch.profiler?); its \
                 profile lacks their records"
                    .to_owned(),
            );
        }
        let moved = self.guest.pool.moved.load(Ordering::Relaxed);
        let brought = moved != self.canary.moved;
        self.canary.moved = moved;
        self.delivered = std::mem::replace(&mut self.closed, self.guest.windows.closed());
        brought
    }

    /// Looks after each flush of an open window whether records still come.
    fn listen_to_canary(&mut self, brought: bool) {
        let mark = self.guest.attached.get().and_then(|attached| attached.mark());
        match (mark, self.canary.last) {
            (Some(mark), Some((since, then))) if !brought => {
                let calls = mark.wrapping_sub(then);
                if since.elapsed() > SILENCE && calls > SILENCE_CALLS {
                    self.canary.silent = Some(Silence { since, calls });
                }
            }
            (mark, _) => {
                self.canary.last = mark.map(|mark| (Instant::now(), mark));
                self.canary.silent = None;
            }
        }
    }

    /// The window closed: if records had stopped coming, what they were is lost.
    fn bury_canary(&mut self) {
        self.canary.last = None;
        if let Some(silence) = self.canary.silent.take() {
            self.replaced(&format!(
                "no record came in the last {:.1} s of a window though the program made {} CUDA calls",
                silence.since.elapsed().as_secs_f64(),
                silence.calls
            ));
        }
    }

    /// After the last, forced flush CUPTI has no buffer of ours any more, unless somebody else gets them.
    fn count_missing_buffers(&self) {
        let lent = self.guest.pool.lent.load(Ordering::Relaxed);
        if lent > 0 {
            self.replaced(&format!("{lent} buffers never came back from CUPTI"));
        }
    }

    fn replaced(&self, what: &str) {
        self.guest.losses.add("records", Reason::CallbacksReplaced, None);
        self.guest.problem(
            "callbacks_replaced",
            format!(
                "{what}: another CUPTI client in the process (torch.profiler?) took them over; close that client, then \
                 run again"
            ),
        );
    }

    fn flush_and_seal(&mut self, wait: Option<Duration>) {
        self.flush(false);
        self.request_seal(wait);
    }

    /// Flushes until the closed windows are on disk and the process file says so: who asks to stop may end the process
    /// next.
    fn deliver(&mut self) {
        for _ in 0..FINISH_FLUSHES {
            self.flush_and_seal(Some(SEAL_TIMEOUT));
            if self.guest.windows.first_unsealed() >= self.guest.windows.closed() {
                break;
            }
            std::thread::sleep(DRAIN_FIRST);
        }
        self.write_process_file(None);
    }

    /// Asks the writer to seal; waits for it if a limit is given.
    fn request_seal(&self, wait: Option<Duration>) {
        let Some(writer) = self.guest.writer.get() else { return };
        let (done, answer) = bounded(1);
        let message = Message::Seal {
            done,
            closed: self.delivered,
        };
        if writer.send_timeout(message, SEAL_TIMEOUT).is_ok()
            && let Some(limit) = wait
        {
            let _ = answer.recv_timeout(limit);
        }
    }

    fn finish(&mut self) {
        let attached = self.guest.attached.get().is_some();
        self.guest.close_window(None, true);
        if attached {
            // Records that are on their way come within a few flushes.
            for _ in 0..FINISH_FLUSHES {
                if !self.flush(false) {
                    break;
                }
                std::thread::sleep(DRAIN_FIRST);
            }
            // What is still in flight at exit comes with end = 0 and is counted as lost.
            self.bury_canary();
            self.flush(true);
            self.count_missing_buffers();
            self.delivered = self.guest.windows.closed();
            self.request_seal(Some(SEAL_TIMEOUT));
        }
        self.guest.gate.end();
        self.guest.touch();
        self.write_process_file(Some(now_ns()));
        if let Some((_, path)) = &self.listener {
            let _ = std::fs::remove_file(path);
        }
        self.guest.wake.finished.store(true, Ordering::Release);
    }

    fn write_process_file(&self, ended_ns: Option<i64>) {
        if self.guest.dirty.swap(false, Ordering::AcqRel) {
            let control = self
                .listener
                .as_ref()
                .map(|(_, path)| path.as_path())
                .filter(|_| ended_ns.is_none());
            if let Err(error) = process_file::write(self.guest, control, ended_ns) {
                log!("process file: {error}");
                // A full disk may have room again, if only for this file: once the segment that did not fit is gone.
                self.guest.touch();
            }
        }
    }

    fn accept(&mut self) {
        let Some((listener, _)) = &self.listener else { return };
        if let Ok((client, _)) = listener.accept() {
            if !is_trusted(&client) {
                log!("a client of another user was turned away");
                return;
            }
            if let Err(error) = descriptors::above_standard(client).and_then(|client| self.serve(client)) {
                log!("client: {error}");
            }
        }
    }

    fn serve(&mut self, mut client: UnixStream) -> io::Result<()> {
        client.set_nonblocking(false)?;
        client.set_read_timeout(Some(CLIENT_TIMEOUT))?;
        client.set_write_timeout(Some(CLIENT_TIMEOUT))?;
        for _ in 0..MAX_REQUESTS {
            let Some(request) = read_message(&mut client)? else {
                return Ok(());
            };
            let reply = match serde_json::from_slice::<Request>(&request) {
                Ok(request) if request.version != VERSION => self.reply(Some(format!(
                    "protocol version {} is not spoken here (this guest speaks {VERSION}); use the colonel that started the session",
                    request.version
                ))),
                Ok(request) => self.answer(request.op),
                Err(error) => self.reply(Some(format!("not a request: {error}"))),
            };
            let reply = serde_json::to_vec(&reply)?;
            client.write_all(&u32::try_from(reply.len()).unwrap_or(0).to_le_bytes())?;
            client.write_all(&reply)?;
        }
        Ok(())
    }

    fn answer(&mut self, op: Op) -> Reply {
        match op {
            Op::Start { name, for_ns } => {
                if self.guest.gate.is_open() {
                    return self.reply(Some("a window is open already".to_owned()));
                }
                let length = for_ns.map(Duration::from_nanos);
                self.guest.open_window(
                    Open {
                        trigger: "manual",
                        name,
                        length,
                        mark: None,
                    },
                    true,
                );
                let failed = (!self.guest.gate.is_open()).then(|| {
                    let problems = self.guest.problems();
                    problems.last().map_or_else(
                        || "CUDA is not initialised in this process yet".to_owned(),
                        |problem| problem.message.clone(),
                    )
                });
                self.reply(failed)
            }
            Op::Stop => {
                if !self.guest.gate.is_open() {
                    return self.reply(Some("no window is open".to_owned()));
                }
                self.guest.close_window(None, true);
                self.deliver();
                self.reply(None)
            }
            Op::Status => self.reply(None),
            Op::Flush => {
                self.flush_and_seal(Some(SEAL_TIMEOUT));
                self.reply(None)
            }
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
            window: self.guest.windows.manifest().last().map(|window| window.number),
            rows: self.guest.rows(),
            error,
        }
    }
}

fn listen(folder: &Path, pid: u32) -> io::Result<(UnixListener, PathBuf)> {
    let path = folder.join(format!("{pid}.sock"));
    let _ = std::fs::remove_file(&path);
    let listener = descriptors::above_standard(UnixListener::bind(&path)?)?;
    // The folder is the owner's alone already.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok((listener, path))
}

/// The same user, or root.
fn is_trusted(client: &UnixStream) -> bool {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `peer` has room for `length` bytes.
    let status = unsafe {
        libc::getsockopt(
            client.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    // SAFETY: no arguments, can't fail.
    status == 0 && (peer.uid == 0 || peer.uid == unsafe { libc::geteuid() })
}

/// The next message, `None` at the end.
fn read_message(client: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0_u8; 4];
    match client.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_le_bytes(length);
    if length > MAX_MESSAGE_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a message of {length} bytes"),
        ));
    }
    let mut message = vec![0; length as usize];
    client.read_exact(&mut message)?;
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_a_length_and_a_limit() {
        let mut bytes: &[u8] = b"\x02\0\0\0{}\x01";
        assert_eq!(read_message(&mut bytes).expect("whole"), Some(b"{}".to_vec()));
        assert!(
            read_message(&mut bytes)
                .expect("cut in the length counts as the end")
                .is_none()
        );
        let mut long: &[u8] = &(MAX_MESSAGE_BYTES + 1).to_le_bytes();
        assert!(read_message(&mut long).is_err());
        let mut short: &[u8] = b"\x05\0\0\0{}";
        assert!(read_message(&mut short).is_err());
    }
}
