//! The gate: the one place that decides whether records count.
//!
//! Whoever wants a window opened or closed puts a command into the queue, then tries to be the one that carries the
//! queue out, command by command. Who finds another thread at that leaves it to the other, or to the steward. So no
//! lock is ever held while CUPTI is called, and a caller inside a CUPTI callback never waits.
//!
//! Windows may nest and overlap: records are on from the first one's opening until the last one has closed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use crate::inject::attach::{self, Attached};
use crate::inject::command::{Command, Open, Trigger, Which, is_burst};
use crate::inject::entry;
use crate::inject::guest::{Guest, lock};
use crate::inject::late::{Call, Late};
use crate::inject::log::log;
use crate::inject::nvtx;
use crate::inject::threads::now_ns;
use crate::inject::writer;
use crate::schema::manifest::{Problem, ProcessState};

/// Longest wait of a host thread in cudaProfilerStart for another thread that is just at the gate.
const MAX_WAIT: Duration = Duration::from_secs(2);

const ARMED: u8 = 0;
const CAPTURING: u8 = 1;
const OFF: u8 = 2;
const ENDED: u8 = 3;

/// Number of the window that a command opened or closed, the newest of several; or why it was not done.
pub(crate) type Answer = Result<u32, String>;

/// The state machine `Armed → Capturing → Armed`, and `Off` or `Ended`, which nothing leaves.
#[derive(Debug)]
pub(crate) struct Gate {
    actual: AtomicU8,
    queue: Mutex<VecDeque<Asked>>,
    /// Some thread carries the queue out.
    busy: AtomicBool,
    deferred: Mutex<Option<Open>>,
    timers: Mutex<Timers>,
    /// Numbers of the windows that wishes opened.
    wishes: Mutex<BTreeMap<u64, u32>>,
    late: Late,
}

#[derive(Debug)]
struct Asked {
    command: Command,
    answer: Arc<OnceLock<Answer>>,
}

#[derive(Debug, Default)]
struct Timers {
    open_at: Vec<(Instant, Open)>,
    /// By number of the window.
    close_at: BTreeMap<u32, Instant>,
    /// When the last burst was begun.
    burst: Option<Instant>,
}

impl Gate {
    pub(crate) fn new() -> Gate {
        Gate {
            actual: AtomicU8::new(ARMED),
            queue: Mutex::default(),
            busy: AtomicBool::new(false),
            deferred: Mutex::default(),
            timers: Mutex::default(),
            wishes: Mutex::default(),
            late: Late::default(),
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

    fn is_done(&self) -> bool {
        self.actual.load(Ordering::Acquire) >= OFF
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
        nvtx::halt();
    }

    /// The process ends in order.
    pub(crate) fn end(&self) {
        if self.actual.load(Ordering::Acquire) != OFF {
            self.actual.store(ENDED, Ordering::Release);
        }
    }

    fn try_hold(&self) -> bool {
        self.busy
            .compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    fn release(&self) {
        self.busy.store(false, Ordering::Release);
    }

    fn next(&self) -> Option<Asked> {
        lock(&self.queue).pop_front()
    }

    fn has_work(&self) -> bool {
        !lock(&self.queue).is_empty()
    }
}

impl Guest {
    /// The host calls cudaProfilerStart or Stop. `mark`: correlation id of that call, where it is known.
    pub(crate) fn profiler_called(&'static self, call: Call, mark: Option<u32>, may_wait: bool) {
        if nvtx::is_quiet() {
            self.gate.late.note(call);
            return self.wake.steward();
        }
        nvtx::quietly(|| match call {
            Call::Start => {
                let open = Open::by(Trigger::Profiler);
                self.open_window(Open { mark, ..open }, may_wait);
            }
            Call::Stop => drop(self.close_window(Which::Profiler, mark, may_wait)),
        });
    }

    /// Carries out the calls that could not be as they came. Called by the steward.
    pub(crate) fn catch_up(&'static self) {
        for call in self.gate.late.take() {
            self.problem(
                "late_profiler_call",
                "cudaProfilerStart or cudaProfilerStop was called by a signal handler while its thread was in \
                 colonel's own code; the window opened or closed a moment later than that"
                    .to_owned(),
            );
            self.profiler_called(call, None, false);
        }
    }

    /// Opens a window of the gate's own, now or after the delay that the settings ask for.
    pub(crate) fn open_window(&'static self, open: Open, may_wait: bool) {
        match self.config.after {
            Some(delay) => {
                let mut timers = lock(&self.gate.timers);
                timers.open_at.retain(|(_, other)| other.wish != open.wish);
                timers.open_at.push((Instant::now() + delay, open));
                drop(timers);
                self.wake.steward();
            }
            None => {
                let _ = self.ask(Command::Open(open), may_wait);
            }
        }
    }

    /// Opens the window that was asked for before CUDA was initialised.
    pub(crate) fn reopen_deferred(&'static self) {
        let deferred = lock(&self.gate.deferred).take();
        if let Some(open) = deferred {
            let _ = self.ask(Command::Open(open), true);
        }
    }

    /// Closes windows. `mark`: correlation id of the call that asks, where it is known.
    pub(crate) fn close_window(&'static self, which: Which, mark: Option<u32>, may_wait: bool) -> Answer {
        self.forget_waiting(which);
        self.ask(Command::Close(which, mark), may_wait)
    }

    /// As `close_window`, from a thread that leaves it to the steward.
    pub(crate) fn leave(&'static self, which: Which) {
        self.forget_waiting(which);
        lock(&self.gate.queue).push_back(Asked {
            command: Command::Close(which, None),
            answer: Arc::default(),
        });
        self.wake.steward();
    }

    /// Windows that wait for their time, and are no longer wanted.
    fn forget_waiting(&self, which: Which) {
        let open_at = &mut lock(&self.gate.timers).open_at;
        match which {
            Which::Number(_) => return,
            Which::All => open_at.clear(),
            Which::Profiler => open_at.retain(|(_, open)| open.wish.is_some()),
            Which::Wish(wish) => return open_at.retain(|(_, open)| open.wish != Some(wish)),
        }
        *lock(&self.gate.deferred) = None;
    }

    /// Has a command carried out, by this thread or by another.
    pub(crate) fn ask(&'static self, command: Command, may_wait: bool) -> Answer {
        let answer = Arc::new(OnceLock::new());
        lock(&self.gate.queue).push_back(Asked {
            command,
            answer: Arc::clone(&answer),
        });
        self.carry_out(may_wait);
        answer.get().cloned().unwrap_or_else(|| {
            Err("asked for, but not done yet: another thread of the process is opening or closing a window".to_owned())
        })
    }

    /// Carries the queue out, unless another thread does; that one is waited for if the caller may.
    pub(crate) fn carry_out(&'static self, may_wait: bool) {
        let started = Instant::now();
        loop {
            let has_work = self.gate.has_work();
            if has_work && self.gate.try_hold() {
                while let Some(asked) = self.gate.next() {
                    let _ = asked.answer.set(self.execute(asked.command));
                }
                // Then look again: a command may have come since, whose thread did not wait.
                self.gate.release();
                continue;
            }
            let is_at_work = has_work || self.gate.busy.load(Ordering::Acquire);
            if is_at_work && may_wait && started.elapsed() < MAX_WAIT {
                std::thread::sleep(Duration::from_micros(50));
                continue;
            }
            if has_work {
                self.wake.steward();
            }
            return;
        }
    }

    fn execute(&'static self, command: Command) -> Answer {
        if self.gate.is_done() {
            let problems = self.problems();
            let why = problems.last().map(|problem| problem.message.clone());
            return Err(why.unwrap_or_else(|| "the process ends".to_owned()));
        }
        let answer = match command {
            Command::Open(open) => self.open_now(open),
            Command::Close(which, mark) => self.close_now(which, mark),
        };
        self.plan_burst();
        answer
    }

    /// Whether records count; between bursts they don't.
    pub(crate) fn is_recording(&self) -> bool {
        self.gate.is_open() && self.windows.is_recording()
    }

    /// The next burst, while a window is open that they are taken in.
    fn plan_burst(&self) {
        let Some(bursts) = self.config.bursts.filter(|_| self.config.records) else {
            return;
        };
        let open = self.windows.open_now();
        let mut timers = lock(&self.gate.timers);
        let is_planned = |(_, open): &(Instant, Open)| open.trigger == Trigger::Burst;
        if open.is_empty() {
            timers.open_at.retain(|waiting| !is_planned(waiting));
        } else if !open.iter().any(is_burst) && !timers.open_at.iter().any(is_planned) {
            let next = |began| bursts.next(began, now_ns().cast_unsigned());
            // Not sooner because it is another window: programs may open one for every step.
            let at = timers.burst.map_or_else(Instant::now, next);
            let burst = Open {
                length: Some(bursts.length),
                ..Open::by(Trigger::Burst)
            };
            timers.open_at.push((at, burst));
        }
        drop(timers);
        self.wake.steward();
    }

    fn open_now(&'static self, open: Open) -> Answer {
        open.check(&self.windows.open_now())?;
        let is_burst = open.trigger == Trigger::Burst;
        let began = || {
            if is_burst {
                lock(&self.gate.timers).burst = Some(Instant::now());
            }
        };
        // Also one that can't be had is not tried again at once.
        began();
        let records = self.config.records && (is_burst || self.config.bursts.is_none());
        // Also for a window of bursts: the sooner, the less there is that CUPTI has not seen.
        let attached = match self.attached_for(self.config.records) {
            Ok(Some(attached)) => attached,
            Ok(None) => {
                // Those that the program asks for come back to it in InitializeInjection.
                if open.trigger.is_gates_own() {
                    *lock(&self.gate.deferred) = Some(open);
                }
                return Err("CUDA is not initialised in this process yet".to_owned());
            }
            Err(problem) => return self.give_up(&problem.code, problem.message),
        };
        if let Err(error) = writer::ensure_running(self) {
            return self.give_up("no_thread", format!("failed to start the writer thread: {error}"));
        }
        let attached = attached.filter(|_| records);
        // Before anything can be launched in it.
        if let Some(attached) = attached {
            self.graphs.open(self, attached);
        }
        let mark = open.mark.or_else(|| self.attached.get()?.mark());
        let was_recording = self.is_recording();
        let is_sampled = self.config.records && !records;
        // The window is known before the first of its records can arrive.
        let number = self
            .windows
            .open(now_ns(), mark, open.trigger.name(), open.name, is_sampled);
        if !was_recording
            && let Some(attached) = attached
            && let Err(problem) = attached.enable(&self.config)
        {
            self.windows.close(number, now_ns(), attached.mark());
            return self.give_up(&problem.code, problem.message);
        }
        if let Err(error) = self.counters.start(self) {
            self.problem("no_thread", format!("failed to start the counters' thread: {error}"));
        }
        if !is_sampled {
            nvtx::start(self, mark);
        }
        // The first had to attach.
        began();
        if let Some(wish) = open.wish {
            lock(&self.gate.wishes).insert(wish, number);
        }
        if let Some(length) = open.length.or(self.config.length) {
            lock(&self.gate.timers).close_at.insert(number, Instant::now() + length);
        }
        self.gate.shift(ARMED, CAPTURING);
        log!("window {number} open ({}), mark {mark:?}", open.trigger.name());
        self.touch();
        self.wake.steward();
        Ok(number)
    }

    /// CUPTI, attached; nothing where no records are wanted. `Ok(None)`: it is too early.
    fn attached_for(&'static self, records: bool) -> Result<Option<Option<&'static Attached>>, Problem> {
        if records {
            return Ok(attach::attached(self)?.map(Some));
        }
        Ok(entry::cuda_is_initialized().then_some(None))
    }

    /// CUPTI calls back as a context was made, on the host's thread.
    pub(crate) fn context_made(&'static self) {
        // A signal handler's cudaProfilerStart within this would find CUPTI's locks held.
        nvtx::quietly(|| match self.attached.get().map(Attached::context_made) {
            None | Some(Ok(false)) => {}
            Some(Ok(true)) => self.wake.steward_to_drain(),
            Some(Err(problem)) => drop(self.give_up(&problem.code, problem.message)),
        });
    }

    fn give_up(&'static self, code: &str, message: String) -> Answer {
        self.gate.turn_off();
        self.problem(code, message.clone());
        self.wake.steward();
        Err(message)
    }

    fn close_now(&'static self, which: Which, mark: Option<u32>) -> Answer {
        let which = match which {
            Which::Wish(wish) => lock(&self.gate.wishes).remove(&wish).map_or(which, Which::Number),
            which => which,
        };
        let open = self.windows.open_now();
        let mut numbers = which.among(&open)?;
        let burst = |number: &&u32| open.iter().any(|window| window.number == **number && is_burst(window));
        let answer = numbers
            .iter()
            .rfind(|number| !burst(number))
            .or(numbers.last())
            .copied();
        // A burst ends with the last of the windows that it is taken in.
        if open
            .iter()
            .all(|window| is_burst(window) || numbers.contains(&window.number))
        {
            numbers = open.iter().map(|window| window.number).collect();
        }
        let was_recording = self.is_recording();
        let mark = mark.or_else(|| self.attached.get().and_then(|attached| attached.mark()));
        let end_ns = now_ns();
        // The inner ones first.
        for number in numbers.iter().rev() {
            self.windows.close(*number, end_ns, mark);
            lock(&self.gate.timers).close_at.remove(number);
            log!("window {number} closed, mark {mark:?}");
        }
        self.touch();
        let stops_recording = was_recording && !self.windows.is_recording();
        if stops_recording {
            nvtx::stop(self, mark);
            self.graphs.close(self);
        }
        let is_last = self.windows.open_now().is_empty();
        if is_last {
            self.counters.stop();
            // Records are turned off by the steward, once what was launched has arrived (see `disable_if_closed`).
            self.gate.shift(CAPTURING, ARMED);
        }
        if stops_recording || is_last {
            self.wake.steward_to_drain();
        } else {
            self.wake.steward();
        }
        Ok(answer.unwrap_or_default())
    }

    /// Turns the records off, unless a window is open again or just opening. False: somebody is at the gate, try again.
    ///
    /// Not at the stop itself: the nodes of a CUDA graph write their times to memory of the graph, and once the kinds
    /// are off CUPTI no longer reads them before the next replay overwrites them. On the H100 the last replay of a
    /// window then had kernels that ended with the next replay. So they stay on until the window's records are here.
    pub(crate) fn disable_if_closed(&'static self) -> bool {
        if !self.gate.try_hold() {
            return false;
        }
        if !self.is_recording()
            && !self.gate.has_work()
            && let Some(attached) = self.attached.get()
        {
            match attached.disable() {
                Ok(()) => log!("records off"),
                Err(why) => self.problem("records_stay_on", why),
            }
        }
        self.gate.release();
        // Whoever wanted a window meanwhile left it to us.
        self.carry_out(false);
        true
    }

    /// Lets the timers act; returns how long the steward may sleep.
    pub(crate) fn run_timers(&'static self) -> Option<Duration> {
        let now = Instant::now();
        let close: Vec<u32> = {
            let mut timers = lock(&self.gate.timers);
            // Queued before anyone can withdraw it in vain: a close looks here first, and is queued after.
            let due = timers.open_at.extract_if(.., |(at, _)| *at <= now);
            lock(&self.gate.queue).extend(due.map(|(_, open)| Asked {
                command: Command::Open(open),
                answer: Arc::default(),
            }));
            let due = timers.close_at.iter().filter(|(_, at)| **at <= now);
            due.map(|(number, _)| *number).collect()
        };
        self.carry_out(false);
        for number in close {
            lock(&self.gate.timers).close_at.remove(&number);
            let _ = self.close_window(Which::Number(number), None, false);
        }
        // A window just opened set a timer of its own.
        let timers = lock(&self.gate.timers);
        let open_at = timers.open_at.iter().map(|(at, _)| *at);
        let next = open_at.chain(timers.close_at.values().copied()).min();
        next.map(|at| at.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::sync::mpsc;

    use super::*;
    use crate::inject::config::Config;
    use crate::inject::process_file::Identity;
    use crate::inject::wake::Wake;
    use crate::schema::env;

    fn guest() -> &'static Guest {
        let config = Config::parse(|name| (name == env::SESSION).then(|| OsString::from("/nowhere")));
        let guest = Guest::new(config.unwrap(), Identity::of_this_process(), Wake::new().unwrap());
        Box::leak(Box::new(guest))
    }

    #[test]
    fn a_signal_handler_over_our_own_code_waits_for_no_lock_and_is_caught_up_with() {
        let guest = guest();
        let (done, is_done) = mpsc::channel();
        std::thread::spawn(move || {
            // As of a thread that is at the gate, or notes a graph, when the signal comes.
            let held = (lock(&guest.gate.queue), lock(&guest.gate.timers));
            nvtx::quietly(|| guest.profiler_called(Call::Start, None, true));
            drop(held);
            assert!(!guest.gate.has_work(), "it was only noted");
            guest.catch_up();
            done.send(lock(&guest.gate.deferred).clone()).unwrap();
        });
        let opened = is_done.recv_timeout(Duration::from_secs(20)).expect("no deadlock");
        // CUDA is not initialised in this test: the gate keeps what was asked for.
        assert_eq!(opened, Some(Open::by(Trigger::Profiler)));
        assert_eq!(guest.problems()[0].code, "late_profiler_call");
    }

    #[test]
    fn a_call_outside_of_our_code_is_carried_out_at_once() {
        let guest = guest();
        guest.profiler_called(Call::Start, None, true);
        assert_eq!(*lock(&guest.gate.deferred), Some(Open::by(Trigger::Profiler)));
        guest.profiler_called(Call::Stop, None, true);
        assert_eq!(*lock(&guest.gate.deferred), None);
        assert!(guest.problems().is_empty());
    }
}
