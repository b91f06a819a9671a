//! What NVTX's calls mean: ranges that a thread pushes and pops, ranges that any thread ends, marks.
//!
//! The clock and CUPTI are asked with no lock held.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::inject::command::{Open as Wish, Trigger, Which};
use crate::inject::entry;
use crate::inject::guest::{Guest, lock};
use crate::inject::losses::Reason;
use crate::inject::nvtx::abi::Text;
use crate::inject::nvtx::registry::{DOMAINS, STRINGS};
use crate::inject::nvtx::stack::{Details, Kind, Moment, Path, Range, Snapshot};
use crate::inject::nvtx::thread::{Held, Holder, Open, Thread, lock_soon, with};
use crate::inject::nvtx::{
    epoch, filter, is_recording, is_told, mark, newest_mark, opening_mark, ranges_changed, state, text,
};
use crate::inject::threads::now_ns;

/// Returned by push and pop where there is no level to tell.
pub(crate) const NO_LEVEL: i32 = -1;
/// Ranges that wait for their end, of all threads; more are not kept.
const MAX_STARTED: usize = 100_000;
/// Open ranges that are told as recording stops, of each thread and of those that were started: the newest.
const MAX_TOLD: usize = 10_000;

/// Ids that we give; a chained tool's own are used where it gives any.
static NEXT_ID: AtomicU64 = AtomicU64::new(1 << 63);
static NEXT_WISH: AtomicU64 = AtomicU64::new(0);

/// A name as an event gives it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Name {
    Text(Text),
    Registered(usize),
    None,
}

impl Name {
    fn append(self, names: &mut String) {
        match self {
            // SAFETY: NVTX's callers promise a text that ends in a zero, for the length of the call.
            Name::Text(given) => unsafe { text::append(given, names) },
            Name::Registered(handle) => names.push_str(STRINGS.get(handle).unwrap_or_default()),
            Name::None => {}
        }
    }
}

/// A range that any thread may end.
#[derive(Debug, Clone)]
pub(crate) struct Started {
    pub(crate) thread: Arc<Thread>,
    pub(crate) path: Path,
    depth: u32,
    pub(crate) details: Details,
    start: Moment,
    /// It was told as open.
    is_told: bool,
}

impl Started {
    fn range(self, end: End) -> Range {
        let range = of(
            &self.thread,
            Kind::StartEnd,
            self.path,
            self.depth,
            self.details,
            self.start,
        );
        Range {
            is_again: self.is_told,
            ..range.told(end)
        }
    }
}

/// Ranges that were started and not ended, by id.
#[derive(Debug, Default)]
pub(crate) struct AllStarted(pub(crate) Mutex<OpenStarted>);

#[derive(Debug, Default)]
pub(crate) struct OpenStarted {
    /// The newest last.
    pub(crate) by_id: BTreeMap<u64, Started>,
    /// Epoch of the last sweep that told of them.
    pub(crate) swept: u64,
}

/// How a range ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    At(Moment),
    /// It is open as the last window closes.
    Open,
    /// Its thread has ended.
    Never,
}

impl Range {
    /// With its end, and with the marks that were not taken since records were off then.
    fn told(mut self, end: End) -> Range {
        self.start.mark = self.start.mark.or_else(opening_mark);
        (self.end_ns, self.end_mark, self.seen_ns) = match end {
            End::At(moment) => (Some(moment.ns), moment.mark.or_else(newest_mark), moment.ns),
            End::Open => (None, newest_mark(), now_ns()),
            End::Never => (None, None, now_ns()),
        };
        self
    }
}

fn of(thread: &Thread, kind: Kind, path: Path, depth: u32, details: Details, start: Moment) -> Range {
    Range {
        thread_id: thread.id,
        kind,
        path,
        depth,
        details,
        start,
        end_ns: None,
        end_mark: None,
        seen_ns: start.ns,
        is_again: false,
    }
}

fn now(epoch: u64) -> Moment {
    Moment {
        ns: now_ns(),
        mark: mark(epoch),
    }
}

fn tell(range: Option<Range>) {
    if let (Some(range), Some(guest)) = (range, entry::guest())
        && !guest.ranges.send(range)
    {
        guest.losses.add("nvtx_ranges", Reason::QueueFull, Some(1));
    }
}

fn too_many(epoch: u64) {
    if let Some(guest) = entry::guest().filter(|_| is_recording(epoch)) {
        guest.losses.add("nvtx_ranges", Reason::TooManyOpen, Some(1));
    }
}

fn number(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Opens a range on the calling thread; its level.
pub(crate) fn push(details: Details, name: Name) -> i32 {
    let level = with(|thread| {
        let epoch = epoch();
        let start = now(epoch);
        let mut open = lock(&thread.open);
        let index = open.stack.frames().len();
        let (level, kept) = open.stack.push(details, start, |names| name.append(names));
        let wish = if kept { claim(&mut open, index) } else { None };
        drop(open);
        if !kept {
            too_many(epoch);
        }
        ranges_changed(thread);
        ask(wish);
        i32::try_from(level).unwrap_or(i32::MAX)
    });
    level.unwrap_or(NO_LEVEL)
}

/// Closes the innermost range of a domain on the calling thread; its level.
pub(crate) fn pop(domain: usize) -> i32 {
    let level = with(|thread| {
        let before = epoch();
        let end = is_recording(before).then(|| now(before));
        let mut open = lock(&thread.open);
        let is_told = is_told(epoch(), open.swept);
        let popped = open.stack.pop(domain, is_told)?;
        let wish = open.holder.and_then(|holder| match holder.range {
            Held::Pushed(index) if index == popped.index => {
                open.holder = None;
                Some(holder.wish)
            }
            Held::Pushed(index) if index > popped.index => {
                // One of another domain under it is gone.
                let range = Held::Pushed(index - 1);
                open.holder = Some(Holder { range, ..holder });
                None
            }
            Held::Pushed(_) | Held::Started(_) => None,
        });
        drop(open);
        ranges_changed(thread);
        if let Some((frame, Some(path))) = popped.range {
            let depth = number(popped.index);
            let end = end.unwrap_or_else(|| now(before));
            let range = of(thread, Kind::PushPop, path, depth, frame.details, frame.start);
            tell(Some(Range {
                is_again: popped.is_again,
                ..range.told(End::At(end))
            }));
        }
        withdraw(wish);
        Some(i32::try_from(popped.level).unwrap_or(i32::MAX))
    });
    level.flatten().unwrap_or(NO_LEVEL)
}

/// Opens a range that any thread may end; its id. `theirs`: the one that a chained tool gave.
pub(crate) fn start(details: Details, name: Name, theirs: Option<u64>) -> u64 {
    let given = theirs.filter(|id| *id != 0);
    let id = given.unwrap_or_else(|| NEXT_ID.fetch_add(1, Ordering::Relaxed));
    with(|thread| {
        let epoch = epoch();
        let start = now(epoch);
        let mut open = lock(&thread.open);
        let path = open.stack.path_of(|names| name.append(names));
        let depth = number(open.stack.frames().len());
        drop(open);
        let mut started = lock(&state().started.0);
        let kept = started.by_id.len() < MAX_STARTED;
        if kept {
            let new = Started {
                thread: Arc::clone(thread),
                path: path.clone(),
                depth,
                details,
                start,
                is_told: false,
            };
            started.by_id.insert(id, new);
        }
        drop(started);
        if kept {
            ask(claim_started(thread, id, &path, details.domain));
        } else {
            too_many(epoch);
        }
    });
    id
}

/// Ends a range, on whatever thread. One that is not known is nobody's.
pub(crate) fn end(id: u64) {
    with(|_| {
        let end = now(epoch());
        let mut all = lock(&state().started.0);
        let is_told = is_told(epoch(), all.swept);
        let Some(started) = all.by_id.remove(&id) else { return };
        drop(all);
        let mut open = lock(&started.thread.open);
        let holder = open.holder.take_if(|holder| holder.range == Held::Started(id));
        drop(open);
        tell(is_told.then(|| started.range(End::At(end))));
        withdraw(holder.map(|holder| holder.wish));
    });
}

/// A moment with a name.
pub(crate) fn mark_moment(details: Details, name: Name) {
    if !is_recording(epoch()) {
        return;
    }
    with(|thread| {
        let at = now(epoch());
        let mut open = lock(&thread.open);
        let path = open.stack.path_of(|names| name.append(names));
        let depth = number(open.stack.frames().len());
        drop(open);
        tell(Some(of(thread, Kind::Mark, path, depth, details, at).told(End::At(at))));
    });
}

/// A thread ends with ranges that it never popped.
pub(crate) fn thread_ends(thread: &Thread) {
    tell_open(thread, End::Never);
    let mut open = lock(&thread.open);
    let pushed = |holder: &mut Holder| matches!(holder.range, Held::Pushed(_));
    let holder = open.holder.take_if(pushed);
    drop(open);
    if let (Some(holder), Some(guest)) = (holder, entry::guest()) {
        // CUPTI is left alone on a thread that has lost its thread-locals.
        guest.leave(Which::Wish(holder.wish));
    }
}

/// Tells of the open ranges of a thread, where nobody sees their end; not twice of the same stretch of recording.
pub(crate) fn tell_open(thread: &Thread, end: End) {
    let Some(guest) = entry::guest() else { return };
    let mut copy = Snapshot::default();
    loop {
        let Some(mut open) = lock_soon(&thread.open) else {
            // They are told as they end, if they ever do.
            guest.losses.add("nvtx_ranges", Reason::NotSealed, None);
            return;
        };
        let epoch = epoch();
        if !is_told(epoch, open.swept) {
            return;
        }
        match open.stack.tell_open(&mut copy, MAX_TOLD) {
            Ok(()) => {
                open.swept = epoch;
                break;
            }
            Err(room) => {
                // With the lock free: the thread may be in malloc, in a handler that waits for the lock.
                drop(open);
                copy = Snapshot::with(room);
            }
        }
    }
    let left_out = copy.left_out() as u64;
    let ranges = copy.ranges().map(|seen| {
        let range = of(
            thread,
            Kind::PushPop,
            seen.path,
            number(seen.index),
            seen.details,
            seen.start,
        );
        Range {
            is_again: seen.is_again,
            ..range.told(end)
        }
    });
    keep(guest, ranges.collect(), left_out);
}

/// Tells of the ranges that any thread may end.
pub(crate) fn tell_started(all: &AllStarted) {
    let Some(guest) = entry::guest() else { return };
    let in_time = || {
        let started = lock_soon(&all.0);
        if started.is_none() {
            guest.losses.add("nvtx_ranges", Reason::NotSealed, None);
        }
        started
    };
    let Some(count) = in_time().map(|started| started.by_id.len()) else {
        return;
    };
    let mut copy = Vec::with_capacity(count.min(MAX_TOLD));
    let Some(mut started) = in_time() else { return };
    let left_out = started.by_id.len().saturating_sub(copy.capacity());
    for newest in started.by_id.values_mut().rev().take(copy.capacity()) {
        copy.push(newest.clone());
        newest.is_told = true;
    }
    started.swept = epoch();
    drop(started);
    let ranges = copy.into_iter().map(|started| started.range(End::Open));
    keep(guest, ranges.collect(), left_out as u64);
}

fn keep(guest: &Guest, ranges: Vec<Range>, left_out: u64) {
    let refused = guest.ranges.keep(ranges);
    guest.losses.add("nvtx_ranges", Reason::TooManyOpen, Some(left_out));
    guest.losses.add("nvtx_ranges", Reason::QueueFull, Some(refused));
}

fn matches(name: &str, domain: usize) -> bool {
    filter().is_some_and(|filter| filter.matches(name, || DOMAINS.get(domain).unwrap_or_default()))
}

/// A thread whose outermost matching range is a new one wishes for a window.
pub(crate) fn claim(open: &mut Open, index: usize) -> Option<Wish> {
    if open.holder.is_some() || filter().is_none() || !entry::cuda_is_initialized() {
        return None;
    }
    let domain = open.stack.frames().get(index)?.details.domain;
    let name = open.stack.name(index).filter(|name| matches(name, domain))?.to_owned();
    Some(hold(open, Held::Pushed(index), name))
}

pub(crate) fn claim_started(thread: &Thread, id: u64, path: &Path, domain: usize) -> Option<Wish> {
    if filter().is_none() || !entry::cuda_is_initialized() || !matches(path.name(), domain) {
        return None;
    }
    let mut open = lock(&thread.open);
    if open.holder.is_some() {
        return None;
    }
    Some(hold(&mut open, Held::Started(id), path.name().to_owned()))
}

fn hold(open: &mut Open, range: Held, name: String) -> Wish {
    let wish = NEXT_WISH.fetch_add(1, Ordering::Relaxed);
    open.holder = Some(Holder { wish, range });
    Wish {
        name: Some(name),
        wish: Some(wish),
        ..Wish::by(Trigger::Nvtx)
    }
}

pub(crate) fn ask(wish: Option<Wish>) {
    if let (Some(wish), Some(guest)) = (wish, entry::guest()) {
        guest.open_window(wish, true);
    }
}

fn withdraw(wish: Option<u64>) {
    if let (Some(wish), Some(guest)) = (wish, entry::guest()) {
        let _ = guest.close_window(Which::Wish(wish), None, true);
    }
}
