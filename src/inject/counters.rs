//! Hardware counters: PM sampling while a window is open, on a thread of its own. It needs no subscriber and no records,
//! so it costs the program nothing measurable; see docs/architecture.md.
//!
//! `contexts` finds the devices, `choice` the metrics that fit, `device` samples one; `refusals` say why not.

mod choice;
mod device;
mod refusals;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use cupti_sys::loader::Cupti;

use crate::inject::attach;
use crate::inject::config::CountersConfig;
use crate::inject::contexts::{self, Contexts};
use crate::inject::counters::device::Device;
use crate::inject::counters::refusals::Refusal;
use crate::inject::entry;
use crate::inject::guest::{Guest, lock};
use crate::inject::log::log;
use crate::inject::threads;
use crate::schema::manifest::Sampled;

/// Looks for devices: often until one is found, then rarely.
const LOOK_FIRST: Duration = Duration::from_millis(5);
const LOOK_LATER: Duration = Duration::from_millis(250);
/// A device is given back this long after the last window.
const KEEP: Duration = Duration::from_secs(5);
/// The process file tells of new samples this often.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Behind the program's own threads.
const NICENESS: i32 = 10;

/// What the gate and the sampling thread know of each other.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    wish: Mutex<Wish>,
    changed: Condvar,
    devices: Mutex<BTreeMap<u32, Sampled>>,
    /// The libcupti that samples, once found.
    pub(crate) cupti: OnceLock<Cupti>,
}

#[derive(Debug, Default)]
struct Wish {
    wanted: bool,
    /// The process ends.
    ends: bool,
    /// What a window counted is not all on disk yet, or a process that ends has not got its devices back.
    at_work: bool,
    /// The thread runs, or has given up.
    started: bool,
    /// It has: nothing can be counted in this process.
    given_up: bool,
}

impl Counters {
    /// A window opens: sample until [`Counters::stop`]. Does not wait.
    pub(crate) fn start(&self, guest: &'static Guest) -> io::Result<()> {
        if guest.config.counters.is_none() {
            return Ok(());
        }
        let is_new = {
            let mut wish = lock(&self.wish);
            if wish.given_up {
                return Ok(());
            }
            wish.wanted = true;
            wish.at_work = true;
            !std::mem::replace(&mut wish.started, true)
        };
        self.changed.notify_all();
        if is_new {
            let spawned = threads::spawn("colonel-counters", move || Sampler::new(guest).run());
            return spawned.inspect_err(|_| self.give_up());
        }
        Ok(())
    }

    /// The last window closed.
    pub(crate) fn stop(&self) {
        lock(&self.wish).wanted = false;
        self.changed.notify_all();
    }

    /// The process ends: devices are given back, for which it is to [`wait`](Counters::wait). CUPTI must not be called
    /// while it is torn down.
    pub(crate) fn end(&self) {
        let mut wish = lock(&self.wish);
        wish.wanted = false;
        wish.ends = true;
        wish.at_work = wish.started && !wish.given_up;
        drop(wish);
        self.changed.notify_all();
    }

    /// Waits until all samples of closed windows are on disk; false if that took too long.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let wish = lock(&self.wish);
        let waited = self.changed.wait_timeout_while(wish, limit, |wish| wish.at_work);
        let (wish, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !wish.at_work
    }

    /// The process ends, and all its records have come: says why none of its GPUs was sampled, where nothing else did.
    pub(crate) fn explain_silence(&self, guest: &Guest) {
        let is_explained = guest
            .problems()
            .iter()
            .any(|problem| problem.code.starts_with("counters_"));
        let has_worked = guest.window_rows.load(Ordering::Relaxed) > 0;
        if guest.config.counters.is_some() && has_worked && !is_explained && lock(&self.devices).is_empty() {
            let (code, message) = refusals::no_context();
            guest.problem(code, message);
        }
    }

    /// For the process file.
    pub(crate) fn manifest(&self) -> Vec<Sampled> {
        lock(&self.devices).values().cloned().collect()
    }

    fn is_wanted(&self) -> bool {
        lock(&self.wish).wanted
    }

    /// Sleeps until time is up, or the wish changes.
    fn sleep(&self, limit: Duration) {
        let wish = lock(&self.wish);
        drop(self.changed.wait_timeout_while(wish, limit, |wish| wish.wanted));
    }

    /// Nothing is left to do for closed windows.
    fn rest_unless_ending(&self) {
        let mut wish = lock(&self.wish);
        wish.at_work = wish.wanted || wish.ends;
        drop(wish);
        self.changed.notify_all();
    }

    /// Nothing is left to do at all.
    fn rest(&self) {
        lock(&self.wish).at_work = false;
        self.changed.notify_all();
    }

    /// Nothing can be counted.
    fn give_up(&self) {
        let mut wish = lock(&self.wish);
        wish.given_up = true;
        wish.at_work = false;
        drop(wish);
        self.changed.notify_all();
    }

    /// Waits for the next window: true once there is one; false when the process ends.
    fn next_window(&self, limit: Option<Duration>) -> Option<bool> {
        let wish = lock(&self.wish);
        let is_idle = |wish: &mut Wish| !wish.wanted && !wish.ends;
        let wish = match limit {
            Some(limit) => self
                .changed
                .wait_timeout_while(wish, limit, is_idle)
                .map(|(wish, _)| wish)
                .ok()?,
            None => self.changed.wait_while(wish, is_idle).ok()?,
        };
        match (wish.wanted, wish.ends) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        }
    }
}

/// The thread.
struct Sampler {
    guest: &'static Guest,
    devices: BTreeMap<u32, Device>,
    refused: BTreeSet<u32>,
    told: Instant,
}

/// What sampling needs, found at the first window.
struct Tools {
    cupti: Cupti,
    helpers: Vec<PathBuf>,
    contexts: Contexts,
}

impl Sampler {
    fn new(guest: &'static Guest) -> Sampler {
        Sampler {
            guest,
            devices: BTreeMap::new(),
            refused: BTreeSet::new(),
            told: Instant::now(),
        }
    }

    fn run(mut self) {
        // SAFETY: a call by value about this thread alone.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, libc::gettid().cast_unsigned(), NICENESS) };
        let counters = &self.guest.counters;
        let (Some(tools), Some(wanted)) = (self.tools(), &self.guest.config.counters) else {
            return counters.give_up();
        };
        loop {
            self.refused.clear();
            self.window(&tools, wanted);
            counters.rest_unless_ending();
            let next = counters.next_window(Some(KEEP)).or_else(|| {
                // Others may want to count meanwhile.
                self.devices.clear();
                counters.next_window(None)
            });
            if next != Some(true) {
                self.devices.clear();
                return counters.rest();
            }
        }
    }

    fn tools(&self) -> Option<Tools> {
        let found = self.find_tools();
        if let Err((code, message)) = found {
            self.guest.problem(code, message);
            self.guest.wake.steward();
            return None;
        }
        found.ok()
    }

    fn find_tools(&self) -> Result<Tools, Refusal> {
        let cupti = attach::find_cupti(self.guest).map_err(|problem| ("no_cupti", problem.message))?;
        log!("counters: {} (API {})", cupti.path.display(), cupti.version);
        let helpers = cupti_sys::counters::prepare(&cupti).map_err(|why| refusals::unavailable(&why))?;
        // A libcupti or libnvperf that is torn down before our last call takes the host with it.
        entry::finish_at_exit();
        let _ = self.guest.counters.cupti.set(cupti.clone());
        let no_driver = || {
            (
                "counters_failed",
                "this CUDA driver does not tell which devices are in use".to_owned(),
            )
        };
        contexts::relax_captures();
        Ok(Tools {
            contexts: Contexts::of_mapped_driver().ok_or_else(no_driver)?,
            cupti,
            helpers,
        })
    }

    /// Samples until the window closes.
    fn window(&mut self, tools: &Tools, wanted: &CountersConfig) {
        let counters = &self.guest.counters;
        let mut look = Instant::now();
        loop {
            if Instant::now() >= look {
                self.look_for_devices(tools, wanted);
                let later = if self.devices.is_empty() {
                    LOOK_FIRST
                } else {
                    LOOK_LATER
                };
                look = Instant::now() + later;
            }
            if !counters.is_wanted() {
                break;
            }
            self.each(Device::fetch);
            self.tell(false);
            let rest = self.devices.values().map(Device::rest).min().unwrap_or(LOOK_FIRST);
            counters.sleep(rest);
        }
        self.each(Device::stop);
        self.tell(true);
    }

    fn look_for_devices(&mut self, tools: &Tools, wanted: &CountersConfig) {
        let devices = self.devices.len();
        for ordinal in tools.contexts.devices() {
            if self.refused.contains(&ordinal) || self.devices.contains_key(&ordinal) {
                continue;
            }
            match Device::open(self.guest, &tools.cupti, &tools.helpers, wanted, ordinal) {
                Ok(device) => drop(self.devices.insert(ordinal, device)),
                Err(refusal) => self.refuse(ordinal, refusal),
            }
        }
        self.each(Device::start);
        if self.devices.len() > devices {
            self.each(Device::fetch);
            // What these calls were the first to make is torn down before what was there when the libraries were loaded.
            entry::finish_at_exit();
        }
    }

    /// Does this with every device; those that fail are given back.
    fn each(&mut self, action: impl Fn(&mut Device) -> Result<(), Refusal>) {
        let mut refused = Vec::new();
        for (ordinal, device) in &mut self.devices {
            if let Err(refusal) = action(device) {
                refused.push((*ordinal, refusal));
            }
        }
        for (ordinal, refusal) in refused {
            self.tell(true);
            self.devices.remove(&ordinal);
            self.refuse(ordinal, refusal);
        }
    }

    fn refuse(&mut self, ordinal: u32, (code, message): Refusal) {
        self.refused.insert(ordinal);
        self.guest.problem(code, message);
        self.guest.wake.steward();
    }

    /// Puts figures into the process file, now and then.
    fn tell(&mut self, now: bool) {
        if !now && self.told.elapsed() < TELL_EVERY {
            return;
        }
        self.told = Instant::now();
        let cpu_ns = cpu_ns();
        let mut told = lock(&self.guest.counters.devices);
        for (ordinal, device) in &mut self.devices {
            device.state.cpu_ns = cpu_ns;
            told.insert(*ordinal, device.state.clone());
        }
        drop(told);
        self.guest.touch();
        self.guest.wake.steward();
    }
}

/// CPU time of the calling thread.
fn cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec; the clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap_or(0)
}
