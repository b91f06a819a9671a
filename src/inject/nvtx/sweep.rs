//! When ranges are recorded: from the first window's opening until the last one has closed. Called at the gate, by one
//! thread at a time.

use std::sync::atomic::Ordering;

use crate::inject::guest::{Guest, lock};
use crate::inject::nvtx::events::{End, ask, claim, claim_started, open_ranges};
use crate::inject::nvtx::{EPOCH, is_recording, set_epoch_mark, state};
use crate::inject::writer::Message;

/// The first window opens. `mark`: CUPTI's newest correlation id.
pub(crate) fn start(guest: &Guest, mark: Option<u32>) {
    if is_recording(EPOCH.load(Ordering::Acquire)) {
        return;
    }
    set_epoch_mark(guest, 1, mark);
    EPOCH.fetch_add(1, Ordering::AcqRel);
    // It looks by itself from here on.
    if let Some(writer) = guest.writer.get()
        && guest.ranges.must_call()
        && writer.try_send(Message::Ranges).is_err()
    {
        guest.ranges.heard();
    }
}

/// The last window closes: what is still open is told, as open.
pub(crate) fn stop(guest: &Guest, mark: Option<u32>) {
    if !is_recording(EPOCH.load(Ordering::Acquire)) {
        return;
    }
    set_epoch_mark(guest, 0, mark);
    let epoch = EPOCH.fetch_add(1, Ordering::AcqRel) + 1;
    let state = state();
    for thread in state.threads.all() {
        let mut open = lock(&thread.open);
        let ranges = open_ranges(&thread, &mut open, End::Open);
        open.swept = epoch;
        drop(open);
        guest.ranges.keep(ranges);
    }
    let mut started = lock(&state.started.0);
    let ranges = started.by_id.values().map(|started| started.range(End::Open)).collect();
    started.swept = epoch;
    drop(started);
    guest.ranges.keep(ranges);
}

/// CUDA is initialised: ranges that are open and match the gate's pattern get their windows.
pub(crate) fn open_waiting() {
    let state = state();
    for thread in state.threads.all() {
        let mut open = lock(&thread.open);
        let wish = (0..open.stack.frames().len()).find_map(|index| claim(&mut open, index));
        drop(open);
        ask(wish);
    }
    let started = lock(&state.started.0);
    let mut waiting: Vec<_> = started
        .by_id
        .iter()
        .map(|(id, range)| (*id, range.thread.clone(), range.path.clone(), range.details.domain))
        .collect();
    drop(started);
    waiting.sort_by_key(|(id, ..)| *id);
    for (id, thread, path, domain) in waiting {
        ask(claim_started(&thread, id, &path, domain));
    }
}
