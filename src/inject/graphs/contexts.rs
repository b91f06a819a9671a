//! What goes with a context: its executables and the captures on its streams. CUDA does not say of which context they are,
//! so all are forgotten with one of which some may be. What was told of them stays in the session.

use crate::inject::graphs::{Execs, Graphs, Handle};
use crate::inject::guest::lock;

impl Graphs {
    /// Graphs are made in the calling thread's context.
    pub(super) fn note_context(&self) {
        if let Some(context) = self.driver().and_then(|driver| driver.current_context()) {
            lock(&self.contexts).insert(context);
        }
    }

    /// A context is about to go.
    pub(super) fn forget_context(&self, context: Handle) {
        if lock(&self.contexts).remove(&context) {
            self.forget_all();
        }
    }

    /// A context is about to go, and perhaps others.
    pub(super) fn forget_all(&self) {
        drop(self.withhold());
        self.captures.forget_all();
        lock(&self.graphs).clear();
    }

    /// The executables, about which nobody asks from here on: one who holds the primary context of a device lets go of it,
    /// perhaps as the last.
    pub(super) fn withhold(&self) -> Execs {
        let execs = std::mem::take(&mut *lock(&self.execs));
        self.asking.wait_for_all();
        execs
    }

    /// That one has let go of it.
    pub(super) fn released(&self, device: i32, withheld: Execs) {
        if self.driver().is_none_or(|driver| driver.is_released(device)) {
            return self.forget_all();
        }
        let mut execs = lock(&self.execs);
        for (handle, exec) in withheld.known {
            execs.known.entry(handle).or_insert(exec);
        }
        execs.untold.extend(withheld.untold);
    }
}
