//! The writer thread: buffers in, sealed segments out. It starts with the first window and never ends.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::inject::buffers::{Filled, POOL_BUFFERS};
use crate::inject::decode::{self, Rest};
use crate::inject::descriptors;
use crate::inject::dump;
use crate::inject::entry;
use crate::inject::graphs;
use crate::inject::guard;
use crate::inject::guest::{Guest, lock};
use crate::inject::log::log;
use crate::inject::losses::Reason;
use crate::inject::names::Names;
use crate::inject::nvtx;
use crate::inject::rows::{Converter, Rows};
use crate::inject::sealing::Sealing;
use crate::inject::threads;
use crate::inject::windows::WindowFinder;
use crate::schema::manifest::Progress;

/// Rows are sealed this long after the first of them came: a killed process loses no more.
const SEAL_AFTER: Duration = Duration::from_millis(900);
/// Ranges are looked for this often while a window is open: programs don't wake us, which would cost them a system call.
const RANGES_EVERY: Duration = Duration::from_millis(20);
/// Rows of a segment at most, so that memory stays bounded at any rate.
const SEAL_ROWS: usize = 1 << 20;
/// Failed seals in a row after which the guest gives up.
const MAX_FAILURES: u32 = 3;

/// What the writer is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// A buffer of records.
    Buffer(Filled),
    /// Ranges are recorded from here on: look for them.
    Ranges,
    /// Seal what has come before this message, then answer. All records of the first `closed` windows that
    /// closed have come.
    Seal {
        /// Answered when done.
        done: Sender<()>,
        /// Windows that had closed before the last flush.
        closed: usize,
    },
}

/// Starts the writer if it does not run yet.
pub(crate) fn ensure_running(guest: &'static Guest) -> io::Result<()> {
    if guest.writer.get().is_some() {
        return Ok(());
    }
    // Room for every buffer of the pool and some messages, so that a send from a callback can't fail.
    let (sender, receiver) = bounded(POOL_BUFFERS + 64);
    threads::spawn("colonel-writer", move || Writer::new(guest).run(&receiver))?;
    let _ = guest.writer.set(sender);
    Ok(())
}

struct Writer {
    guest: &'static Guest,
    rows: Rows,
    names: Names,
    api_names: BTreeMap<(u32, u32), String>,
    windows: WindowFinder,
    sealing: Sealing,
    unsealed_since: Option<Instant>,
    received: BTreeMap<&'static str, u64>,
    progress: Option<File>,
    progress_length: usize,
    dumped: u32,
    failures: u32,
    /// Rows were lost since the last window was said to be on disk.
    lost: bool,
}

impl Writer {
    fn new(guest: &'static Guest) -> Writer {
        Writer {
            guest,
            rows: Rows::default(),
            names: Names::default(),
            api_names: BTreeMap::new(),
            windows: WindowFinder::default(),
            sealing: Sealing::default(),
            unsealed_since: None,
            received: BTreeMap::new(),
            progress: descriptors::create(&guest.identity.progress_path(&guest.config.session)).ok(),
            progress_length: 0,
            dumped: 0,
            failures: 0,
            lost: false,
        }
    }

    fn run(mut self, messages: &Receiver<Message>) {
        loop {
            let seal = self.unsealed_since.map(|since| since + SEAL_AFTER);
            let look = nvtx::may_bring_ranges().then(|| Instant::now() + RANGES_EVERY);
            let message = match seal.into_iter().chain(look).min() {
                None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(next) => messages.recv_deadline(next),
            };
            guard::ffi((), || self.take_ranges());
            guard::ffi((), || self.take_graph_ranges());
            match message {
                Ok(Message::Buffer(filled)) => {
                    // A bug of ours in one buffer must not end the capture.
                    guard::ffi((), || self.take(filled));
                    self.guest.pool.recycle(filled);
                }
                Ok(Message::Seal { done, closed }) => {
                    if self.seal() && !std::mem::take(&mut self.lost) {
                        self.guest.windows.seal(closed, threads::now_ns());
                        self.guest.touch();
                        self.guest.wake.steward();
                    }
                    let _ = done.try_send(());
                }
                Ok(Message::Ranges) => self.guest.ranges.heard(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let overdue = self.unsealed_since.is_some_and(|since| since.elapsed() >= SEAL_AFTER);
            if overdue || self.rows.len() >= SEAL_ROWS {
                self.seal();
            }
        }
    }

    /// Turns NVTX ranges that have come into rows.
    fn take_ranges(&mut self) {
        let ranges = self.guest.ranges.take();
        if ranges.is_empty() {
            return;
        }
        self.windows.renew(&self.guest.windows);
        for range in ranges {
            match nvtx::window_of(&range, &self.windows) {
                Some(window) => {
                    nvtx::push_row(&mut self.rows.nvtx_ranges, self.guest.identity.pid, &range, window);
                    *self.received.entry("nvtx_ranges").or_default() += 1;
                }
                None => drop(self.guest.outside_windows.fetch_add(1, Ordering::Relaxed)),
            }
        }
        if self.rows.len() > 0 {
            self.unsealed_since.get_or_insert_with(Instant::now);
        }
        self.note_progress();
    }

    /// Turns the ranges of graphs that have come into rows.
    fn take_graph_ranges(&mut self) {
        let versions = self.guest.graphs.take();
        if versions.is_empty() {
            return;
        }
        let mut count = 0;
        for version in versions {
            count += graphs::push_rows(&mut self.rows.graph_ranges, self.guest.identity.pid, &version);
        }
        *self.received.entry("graph_ranges").or_default() += count;
        self.unsealed_since.get_or_insert_with(Instant::now);
        self.note_progress();
    }

    /// Turns a buffer into rows.
    fn take(&mut self, filled: Filled) {
        let guest = self.guest;
        let Some(attached) = guest.attached.get() else { return };
        let bytes = guest.pool.bytes(filled);
        self.dump(bytes);
        self.windows.renew(&guest.windows);
        self.names.next_buffer();
        let (mut outside, mut latest_outside_ns) = (0, 0);
        let own_threads = threads::own();
        let mut converter = Converter {
            pid: guest.identity.pid,
            api_version: attached.layout.api_version,
            clock_offset_ns: attached.clock_offset_ns,
            rows: &mut self.rows,
            names: &mut self.names,
            api_names: &mut self.api_names,
            api_name: |domain, cbid| {
                let functions = &entry::guest()?.attached.get()?.cupti.functions;
                // SAFETY: a libcupti is never unloaded, and CUDA is initialised once records come.
                let name = unsafe { cupti_sys::names::callback_name(functions, domain, cbid) }?;
                Some(cupti_sys::names::function_name(&name).to_owned())
            },
            windows: &self.windows,
            losses: &guest.losses,
            received: &mut self.received,
            outside_windows: &mut outside,
            latest_outside_ns: &mut latest_outside_ns,
            own_threads: &own_threads,
            marks_ranges: nvtx::are_marked(),
        };
        match decode::decode(bytes, &attached.layout, &mut converter) {
            None => {}
            Some(Rest::UnknownKind(kind)) => {
                guest.losses.add("records", Reason::UnknownKind, None);
                guest.problem(
                    "unknown_kind",
                    format!("a buffer held records of kind {kind}, whose size is unknown; the rest of it is lost"),
                );
            }
            Some(Rest::Truncated) => guest.losses.add("records", Reason::TruncatedBuffer, Some(1)),
        }
        guest.outside_windows.fetch_add(outside, Ordering::Relaxed);
        guest.latest_outside_ns.fetch_max(latest_outside_ns, Ordering::Release);
        self.guest
            .window_rows
            .store(self.received.values().sum(), Ordering::Release);
        if self.rows.len() > 0 && self.unsealed_since.is_none() {
            self.unsealed_since = Some(Instant::now());
        }
        self.note_progress();
    }

    /// Seals every table that has rows; false if some are lost.
    fn seal(&mut self) -> bool {
        self.unsealed_since = None;
        let waiting = self.rows.len() as u64;
        let (rows, names) = (&mut self.rows, &self.names);
        let failed = guard::ffi(None, || Some(self.sealing.seal(self.guest, rows, names)));
        let failed = failed.unwrap_or_else(|| {
            // A bug of ours: what the builders hold is no longer to be trusted.
            self.rows = Rows::default();
            self.guest.losses.add("records", Reason::WriteFailed, Some(waiting));
            Some(io::Error::other("colonel's own code failed"))
        });
        let whole = failed.is_none();
        self.lost |= !whole;
        self.note_progress();
        self.after_seal(failed);
        self.guest.touch();
        self.guest.wake.steward();
        whole
    }

    fn after_seal(&mut self, failed: Option<io::Error>) {
        let Some(error) = failed else {
            self.failures = 0;
            return;
        };
        self.failures += 1;
        let session = self.guest.config.session.display();
        let gone = error.kind() == io::ErrorKind::NotFound;
        let what = if gone {
            "the session folder was removed while the program ran"
        } else {
            "could not be written"
        };
        self.guest.problem(
            "write_failed",
            format!("`{session}` {what}: {error}; records were lost, the program ran on"),
        );
        if gone || self.failures >= MAX_FAILURES {
            self.guest.gate.turn_off();
            if let Some(attached) = self.guest.attached.get() {
                attached.disable_for_good();
            }
        }
    }

    /// Rewrites the progress file in place: what a SIGKILL leaves of the rows not sealed yet.
    fn note_progress(&mut self) {
        let Some(file) = &self.progress else { return };
        let sealed = lock(&self.guest.sealed);
        let owned = |map: &BTreeMap<&'static str, u64>| map.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        let progress = Progress {
            received: owned(&self.received),
            sealed: owned(&sealed),
        };
        drop(sealed);
        let Ok(mut text) = serde_json::to_vec(&progress) else {
            return;
        };
        // Numbers only grow, so text never shrinks: padding keeps it whole all the same.
        text.resize(text.len().max(self.progress_length), b' ');
        self.progress_length = text.len();
        if let Err(error) = file.write_all_at(&text, 0) {
            log!("progress file: {error}");
        }
    }

    /// Copies a raw buffer and the names it points to, for golden tests.
    fn dump(&mut self, bytes: &[u8]) {
        let Some(folder) = &self.guest.config.dump_buffers else {
            return;
        };
        let Some(attached) = self.guest.attached.get() else {
            return;
        };
        self.dumped += 1;
        let stem = format!(
            "{}-{:04}-api{}",
            self.guest.identity.pid, self.dumped, attached.layout.api_version
        );
        if let Err(error) = dump::write(folder, &stem, bytes, &attached.layout) {
            log!("dump: {error}");
        }
    }
}
