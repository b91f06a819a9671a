//! When ranges are recorded: from the first window's opening until the last one has closed. Called at the gate, by one
//! thread at a time.

use std::sync::atomic::Ordering;

use crate::inject::guest::{Guest, lock};
use crate::inject::nvtx::events::{End, ask, claim, claim_started, tell_open, tell_started};
use crate::inject::nvtx::{EPOCH, HALTED, epoch, is_in_use, is_recording, set_epoch_mark, state};
use crate::inject::writer::Message;

/// The first window opens. `mark`: CUPTI's newest correlation id.
pub(crate) fn start(guest: &Guest, mark: Option<u32>) {
    let epoch = epoch();
    if is_recording(epoch) || epoch == HALTED {
        return;
    }
    if is_in_use() {
        guest.ranges.prepare();
    }
    set_epoch_mark(guest, epoch + 1, mark);
    if !turn(epoch) {
        return;
    }
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
    let epoch = epoch();
    if !is_recording(epoch) {
        return;
    }
    set_epoch_mark(guest, epoch + 1, mark);
    if !turn(epoch) || !is_in_use() {
        return;
    }
    let state = state();
    for thread in state.threads.all() {
        tell_open(&thread, End::Open);
    }
    tell_started(&state.started);
}

/// The next epoch; false if the guest has given up meanwhile.
fn turn(epoch: u64) -> bool {
    EPOCH
        .compare_exchange(epoch, epoch + 1, Ordering::AcqRel, Ordering::Acquire)
        .is_ok()
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
