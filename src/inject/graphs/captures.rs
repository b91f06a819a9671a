//! Captures under way. A thread knows those that it began: at each NVTX range that it opens or closes it notes how far
//! they are. A capture may end on another thread, unless its stream is the thread's own default one.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::inject::graphs::Handle;
use crate::inject::graphs::asking::Asking;
use crate::inject::graphs::driver::{Captured, Driver};
use crate::inject::graphs::runs::{Notes, Path};
use crate::inject::guest::lock;

/// A stream. The handle of the default stream of each thread is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Stream {
    handle: Handle,
    /// Whose default stream it is.
    thread: Option<libc::pid_t>,
}

/// `CU_STREAM_PER_THREAD`.
pub(crate) const PER_THREAD: Handle = 2;

impl Stream {
    /// The stream that the calling thread means.
    fn of(handle: Handle) -> Stream {
        // SAFETY: takes nothing and can't fail.
        let thread = (handle == PER_THREAD).then(|| unsafe { libc::gettid() });
        Stream { handle, thread }
    }
}

/// A capture under way.
#[derive(Debug)]
pub(crate) struct Capture {
    stream: Stream,
    notes: Mutex<Notes>,
    has_ended: AtomicBool,
    asking: Asking,
    /// Status of the driver where it would not say how far the capture was.
    refused: Mutex<Option<u32>>,
}

/// Those of all threads, by stream.
#[derive(Debug, Default)]
pub(crate) struct Captures(Mutex<HashMap<Stream, Arc<Capture>>>);

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
        let stream = Stream::of(stream);
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

    /// The capture of a stream is about to end, or the stream to go: nobody asks about the stream from here on.
    pub(crate) fn take(&self, stream: Handle) -> Option<Arc<Capture>> {
        let capture = lock(&self.0).remove(&Stream::of(stream))?;
        capture.leave();
        mine(|_| ());
        Some(capture)
    }

    /// All streams are about to go. True if any captures.
    pub(crate) fn forget_all(&self) -> bool {
        let all = std::mem::take(&mut *lock(&self.0));
        all.values().for_each(|capture| capture.leave());
        !all.is_empty()
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
pub(crate) fn note(driver: &Driver, path: &Path, may_ask: impl Fn() -> bool) {
    mine(|mine| mine.iter().for_each(|capture| capture.note(driver, path, &may_ask)));
}

impl Capture {
    fn leave(&self) {
        self.has_ended.store(true, Ordering::SeqCst);
        self.asking.wait(self.stream.handle);
    }

    fn note(&self, driver: &Driver, path: &Path, may_ask: impl Fn() -> bool) {
        let is_known = || !self.has_ended.load(Ordering::SeqCst) && may_ask();
        // Only for a moment: never while the driver is asked.
        if lock(&self.notes).are_in(path) {
            return;
        }
        match self
            .asking
            .about(self.stream.handle, is_known, || driver.captured(self.stream.handle))
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Nodes of the graphs that streams 1 and 2 capture into; the graph of a stream is 10 times its handle.
    static NODES: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];

    /// Stream 3 does not capture, stream 4 may not be asked.
    unsafe extern "C" fn capture_info(
        stream: Handle,
        status: *mut u32,
        _: *mut u64,
        graph: *mut Handle,
        _: *mut Handle,
        _: *mut usize,
    ) -> u32 {
        // SAFETY: places of the caller's.
        unsafe {
            *status = u32::from(stream != 3);
            *graph = stream * 10;
        }
        if stream == 4 { 900 } else { 0 }
    }

    unsafe extern "C" fn graph_nodes(graph: Handle, _: *mut Handle, count: *mut usize) -> u32 {
        let nodes = NODES.get(graph / 10).map_or(0, |nodes| nodes.load(Ordering::SeqCst));
        // SAFETY: a place of the caller's.
        unsafe { *count = nodes };
        0
    }

    fn path(text: &str) -> Path {
        Some(Arc::from(text))
    }

    fn ended(captures: &Captures, stream: Handle, count: u32) -> Vec<(u32, u32, String)> {
        let runs = captures.take(stream).unwrap().into_notes().unwrap().finish(count);
        let texts = runs
            .iter()
            .map(|run| run.path.as_deref().unwrap_or_default().to_owned());
        texts.zip(&runs).map(|(text, run)| (run.begin, run.end, text)).collect()
    }

    #[test]
    fn the_driver_is_not_asked_of_a_stream_that_a_handler_may_have_ended() {
        let driver = Driver::of_captures(capture_info, graph_nodes);
        let captures = Captures::default();
        for (may_ask, refused) in [(false, None), (true, Some(900))] {
            captures.begin(4, Notes::default());
            note(&driver, &path("a"), || may_ask);
            assert_eq!(captures.take(4).unwrap().into_notes().err(), refused);
        }
    }

    #[test]
    fn a_thread_notes_each_capture_that_it_has_open() {
        let driver = Driver::of_captures(capture_info, graph_nodes);
        let captures = Captures::default();
        assert!(!is_capturing());
        captures.begin(1, Notes::default());
        NODES[1].store(2, Ordering::SeqCst);
        note(&driver, &path("a"), || true);
        captures.begin(2, Notes::default());
        NODES[1].store(5, Ordering::SeqCst);
        NODES[2].store(7, Ordering::SeqCst);
        note(&driver, &path("b"), || true);
        // Another thread has none open, and may end one.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert!(!is_capturing());
                note(&driver, &path("other"), || true);
                let first =
                    [(0, 2, ""), (2, 5, "a"), (5, 6, "b")].map(|(begin, end, text)| (begin, end, text.to_owned()));
                assert_eq!(ended(&captures, 1, 6), first);
            });
        });
        NODES[2].store(8, Ordering::SeqCst);
        note(&driver, &path("c"), || true);
        let second = [(0, 7, ""), (7, 8, "b"), (8, 9, "c")].map(|(begin, end, text)| (begin, end, text.to_owned()));
        assert_eq!(ended(&captures, 2, 9), second);
        assert!(!is_capturing() && captures.take(2).is_none());
    }

    #[test]
    fn the_default_stream_of_each_thread_is_its_own() {
        let driver = Driver::of_captures(capture_info, graph_nodes);
        let captures = Captures::default();
        captures.begin(PER_THREAD, Notes::default());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                captures.begin(PER_THREAD, Notes::default());
                note(&driver, &path("other"), || true);
                assert!(captures.take(PER_THREAD).is_some());
            });
        });
        assert!(is_capturing());
        assert!(captures.take(PER_THREAD).is_some() && !is_capturing());
    }

    #[test]
    fn nobody_asks_about_streams_that_were_taken() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        unsafe extern "C" fn ask(
            _: Handle,
            _: *mut u32,
            _: *mut u64,
            _: *mut Handle,
            _: *mut Handle,
            _: *mut usize,
        ) -> u32 {
            ASKED.fetch_add(1, Ordering::SeqCst);
            0
        }
        let driver = Driver::of_captures(ask, graph_nodes);
        let captures = Captures::default();
        for forget in [|captures: &Captures| captures.take(5).is_some(), Captures::forget_all] {
            captures.begin(5, Notes::default());
            assert!(forget(&captures));
            note(&driver, &path("a"), || true);
        }
        assert_eq!(ASKED.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_capture_whose_end_was_not_seen_is_left() {
        let driver = Driver::of_captures(capture_info, graph_nodes);
        let captures = Captures::default();
        captures.begin(3, Notes::default());
        note(&driver, &path("a"), || true);
        note(&driver, &path("b"), || true);
        assert!(!is_capturing());
    }

    #[test]
    fn a_capture_that_may_not_be_asked_about_is_not_known() {
        let driver = Driver::of_captures(capture_info, graph_nodes);
        let captures = Captures::default();
        captures.begin(4, Notes::default());
        note(&driver, &path("a"), || true);
        assert_eq!(captures.take(4).unwrap().into_notes().err(), Some(900));
    }
}
