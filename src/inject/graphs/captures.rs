//! Captures under way. A thread knows those that it began: at each NVTX range that it opens or closes it notes how far
//! they are. A capture may end on another thread.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::inject::graphs::Handle;
use crate::inject::graphs::asking::Asking;
use crate::inject::graphs::driver::{Captured, Driver};
use crate::inject::graphs::runs::{Notes, Path};
use crate::inject::guest::lock;

/// A capture under way.
#[derive(Debug)]
pub(crate) struct Capture {
    stream: Handle,
    notes: Mutex<Notes>,
    has_ended: AtomicBool,
    asking: Asking,
    /// Status of the driver where it would not say how far the capture was.
    refused: Mutex<Option<u32>>,
}

/// Those of all threads, by stream.
#[derive(Debug, Default)]
pub(crate) struct Captures(Mutex<HashMap<Handle, Arc<Capture>>>);

thread_local! {
    /// This thread began a capture that may go on. Apart from the list, since this one needs no destructor.
    static IS_CAPTURING: Cell<bool> = const { Cell::new(false) };
    static MINE: RefCell<Vec<Arc<Capture>>> = const { RefCell::new(Vec::new()) };
}

/// True where this thread has a capture open: all that a push or pop costs otherwise.
pub(crate) fn is_capturing() -> bool {
    IS_CAPTURING.get()
}

impl Captures {
    /// The calling thread has begun a capture.
    pub(crate) fn begin(&self, stream: Handle, notes: Notes) {
        let capture = Arc::new(Capture {
            stream,
            notes: Mutex::new(notes),
            has_ended: AtomicBool::new(false),
            asking: Asking::default(),
            refused: Mutex::default(),
        });
        let before = lock(&self.0).insert(stream, Arc::clone(&capture));
        // One whose end was not seen.
        if let Some(before) = before {
            before.has_ended.store(true, Ordering::SeqCst);
        }
        mine(|mine| mine.push(capture));
    }

    /// The capture of a stream is about to end: nobody asks about the stream from here on.
    pub(crate) fn take(&self, stream: Handle) -> Option<Arc<Capture>> {
        let capture = lock(&self.0).remove(&stream)?;
        capture.has_ended.store(true, Ordering::SeqCst);
        capture.asking.wait(stream);
        mine(|_| ());
        Some(capture)
    }
}

/// The calling thread's, without those that have ended.
fn mine(act: impl FnOnce(&mut Vec<Arc<Capture>>)) {
    let _ = MINE.try_with(|mine| {
        // It is borrowed where a signal handler came in between.
        let Ok(mut mine) = mine.try_borrow_mut() else { return };
        mine.retain(|capture| !capture.has_ended.load(Ordering::SeqCst));
        act(&mut mine);
        IS_CAPTURING.set(!mine.is_empty());
    });
}

/// The ranges of the calling thread are others from here on.
pub(crate) fn note(driver: &Driver, path: &Path) {
    mine(|mine| mine.iter().for_each(|capture| capture.note(driver, path)));
}

impl Capture {
    fn note(&self, driver: &Driver, path: &Path) {
        let is_known = || !self.has_ended.load(Ordering::SeqCst);
        // Only for a moment: never while the driver is asked.
        if lock(&self.notes).are_in(path) {
            return;
        }
        match self
            .asking
            .about(self.stream, is_known, || driver.captured(self.stream))
        {
            Some(Captured::Nodes(count)) => lock(&self.notes).note(count, path.clone()),
            Some(Captured::Refused(status)) => *lock(&self.refused) = Some(status),
            // Its end was not seen: the stream may go any time.
            Some(Captured::Nothing) => self.has_ended.store(true, Ordering::SeqCst),
            None => {}
        }
    }

    /// What was noted; the driver's status, where it would not say.
    pub(crate) fn into_notes(self: Arc<Self>) -> Result<Notes, u32> {
        match *lock(&self.refused) {
            Some(status) => Err(status),
            None => Ok(std::mem::take(&mut *lock(&self.notes))),
        }
    }
}
