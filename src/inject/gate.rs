//! The gate: the one place that decides whether records count.
//!
//! What is asked for and what is are two variables. Whoever wants a change sets the first, then tries to bring the
//! second after it; who finds another thread at that leaves it to the other, or to the steward. So no lock is ever
//! held while CUPTI is called, and a caller inside a CUPTI callback never waits.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crate::inject::attach;
use crate::inject::guest::{Guest, lock};
use crate::inject::log::log;
use crate::inject::threads::now_ns;
use crate::inject::writer;
use crate::schema::manifest::ProcessState;

/// Longest wait of a host thread in cudaProfilerStart for another thread that is just opening the window.
const MAX_WAIT: Duration = Duration::from_secs(2);

const ARMED: u8 = 0;
const CAPTURING: u8 = 1;
const OFF: u8 = 2;
const ENDED: u8 = 3;

/// A wish to open a window.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Open {
    /// `process`, `profiler` or `manual`.
    pub(crate) trigger: &'static str,
    pub(crate) name: Option<String>,
    /// Close it by itself after this long.
    pub(crate) length: Option<Duration>,
    /// Correlation id of the call that asks, where it is known.
    pub(crate) mark: Option<u32>,
}

/// The state machine `Armed → Capturing → Armed`, and `Off` or `Ended`, which nothing leaves.
#[derive(Debug)]
pub(crate) struct Gate {
    actual: AtomicU8,
    wanted: AtomicBool,
    busy: AtomicBool,
    request: Mutex<Open>,
    deferred: Mutex<Option<Open>>,
    close_mark: Mutex<Option<u32>>,
    timers: Mutex<Timers>,
}

#[derive(Debug, Default)]
struct Timers {
    open_at: Option<(Instant, Open)>,
    close_at: Option<Instant>,
}

impl Gate {
    pub(crate) fn new() -> Gate {
        Gate {
            actual: AtomicU8::new(ARMED),
            wanted: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            request: Mutex::default(),
            deferred: Mutex::default(),
            close_mark: Mutex::default(),
            timers: Mutex::default(),
        }
    }

    /// What the gate does.
    pub(crate) fn state(&self) -> ProcessState {
        match self.actual.load(Ordering::Acquire) {
            ARMED => ProcessState::Armed,
            CAPTURING => ProcessState::Capturing,
            OFF => ProcessState::Off,
            _ => ProcessState::Ended,
        }
    }

    /// True while records count.
    pub(crate) fn is_open(&self) -> bool {
        self.actual.load(Ordering::Acquire) == CAPTURING
    }

    /// From one state to another, unless the gate was turned off meanwhile.
    fn shift(&self, from: u8, to: u8) {
        let _ = self
            .actual
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Out for good; the problems say why.
    pub(crate) fn turn_off(&self) {
        self.actual.store(OFF, Ordering::Release);
        self.wanted.store(false, Ordering::Release);
    }

    /// The process ends in order.
    pub(crate) fn end(&self) {
        if self.actual.load(Ordering::Acquire) != OFF {
            self.actual.store(ENDED, Ordering::Release);
        }
    }
}

impl Guest {
    /// Opens a window now, or after the delay that the settings ask for.
    pub(crate) fn open_window(&'static self, open: Open, may_wait: bool) {
        let open = Open {
            length: open.length.or(self.config.length),
            ..open
        };
        match self.config.after {
            Some(delay) if open.trigger != "manual" => {
                lock(&self.gate.timers).open_at = Some((Instant::now() + delay, open));
                self.wake.steward();
            }
            _ => self.want_open(open, may_wait),
        }
    }

    fn want_open(&'static self, open: Open, may_wait: bool) {
        if self.gate.is_open() {
            return;
        }
        *lock(&self.gate.request) = open;
        self.gate.wanted.store(true, Ordering::Release);
        self.reconcile(may_wait);
    }

    /// Opens the window that was asked for before CUDA was initialised.
    pub(crate) fn reopen_deferred(&'static self) {
        let deferred = lock(&self.gate.deferred).take();
        if let Some(open) = deferred {
            self.want_open(open, true);
        }
    }

    /// Closes the open window. `mark`: correlation id of the call that asks, where it is known.
    pub(crate) fn close_window(&'static self, mark: Option<u32>, may_wait: bool) {
        lock(&self.gate.timers).open_at = None;
        *lock(&self.gate.deferred) = None;
        *lock(&self.gate.close_mark) = mark;
        self.gate.wanted.store(false, Ordering::Release);
        self.reconcile(may_wait);
    }

    /// Brings what is after what is wanted.
    pub(crate) fn reconcile(&'static self, may_wait: bool) {
        let started = Instant::now();
        loop {
            let actual = self.gate.actual.load(Ordering::Acquire);
            let wanted = self.gate.wanted.load(Ordering::Acquire);
            if actual >= OFF || (actual == CAPTURING) == wanted {
                return;
            }
            if self
                .gate
                .busy
                .compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
            {
                // Another thread may have finished between the look and the lock: look again inside.
                let open_now = self.gate.is_open();
                match (open_now, self.gate.wanted.load(Ordering::Acquire)) {
                    (false, true) => self.open_now(),
                    (true, false) => self.close_now(),
                    _ => {}
                }
                self.gate.busy.store(false, Ordering::Release);
            } else if may_wait && started.elapsed() < MAX_WAIT {
                std::thread::sleep(Duration::from_micros(50));
            } else {
                self.wake.steward();
                return;
            }
        }
    }

    fn open_now(&'static self) {
        let open = std::mem::take(&mut *lock(&self.gate.request));
        let attached = match attach::attached(self) {
            Ok(Some(attached)) => attached,
            // CUDA is not initialised yet: InitializeInjection comes back to it.
            Ok(None) => {
                *lock(&self.gate.deferred) = Some(open);
                self.gate.wanted.store(false, Ordering::Release);
                return;
            }
            Err(problem) => {
                self.gate.turn_off();
                self.problem(&problem.code, problem.message);
                self.wake.steward();
                return;
            }
        };
        if let Err(error) = writer::ensure_running(self) {
            self.gate.turn_off();
            self.problem("no_thread", format!("failed to start the writer thread: {error}"));
            return;
        }
        let mark = open.mark.or_else(|| attached.mark());
        // The window is known before the first of its records can arrive.
        let number = self.windows.open(now_ns(), mark, open.trigger, open.name);
        if let Err(problem) = attached.enable(&self.config) {
            self.windows.close(now_ns(), attached.mark());
            self.gate.turn_off();
            self.problem(&problem.code, problem.message);
            self.wake.steward();
            return;
        }
        lock(&self.gate.timers).close_at = open.length.map(|length| Instant::now() + length);
        self.gate.shift(ARMED, CAPTURING);
        log!("window {number} open ({}), mark {mark:?}", open.trigger);
        self.touch();
        self.wake.steward();
    }

    fn close_now(&'static self) {
        let Some(attached) = self.attached.get() else { return };
        let mark = lock(&self.gate.close_mark).take().or_else(|| attached.mark());
        // Records are turned off by the steward, once what the window launched has arrived (see `disable_if_closed`).
        let number = self.windows.close(now_ns(), mark);
        lock(&self.gate.timers).close_at = None;
        self.gate.shift(CAPTURING, ARMED);
        log!("window {} closed, mark {mark:?}", number.unwrap_or_default());
        self.touch();
        self.wake.steward_to_drain();
    }

    /// Turns the records off, unless a window is open again or just opening.
    ///
    /// Not at the stop itself: the nodes of a CUDA graph write their times to memory of the graph, and once the kinds
    /// are off CUPTI no longer reads them before the next replay overwrites them. On the H100 the last replay of a
    /// window then had kernels that ended with the next replay. So they stay on until the window's records are here.
    pub(crate) fn disable_if_closed(&'static self) {
        if self
            .gate
            .busy
            .compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire)
            .is_err()
        {
            return;
        }
        if !self.gate.is_open()
            && !self.gate.wanted.load(Ordering::Acquire)
            && let Some(attached) = self.attached.get()
        {
            attached.disable();
            log!("records off");
        }
        self.gate.busy.store(false, Ordering::Release);
        // Whoever wanted a window meanwhile left it to us.
        self.reconcile(false);
    }

    /// Lets the timers act; returns how long the steward may sleep.
    pub(crate) fn run_timers(&'static self) -> Option<Duration> {
        let now = Instant::now();
        let (open, close, next) = {
            let mut timers = lock(&self.gate.timers);
            let open = timers.open_at.take_if(|(at, _)| *at <= now).map(|(_, open)| open);
            let close = timers.close_at.take_if(|at| *at <= now).is_some();
            let next = [timers.open_at.as_ref().map(|(at, _)| *at), timers.close_at]
                .into_iter()
                .flatten()
                .min();
            (open, close, next)
        };
        if let Some(open) = open {
            self.want_open(open, false);
        }
        if close {
            self.close_window(None, false);
        }
        // A window just opened sets a timer of its own.
        let close_at = lock(&self.gate.timers).close_at;
        [next, close_at]
            .into_iter()
            .flatten()
            .min()
            .map(|at| at.saturating_duration_since(now))
    }
}
