//! What goes with a context: its executables and the captures on its streams. CUDA does not say of which context they are,
//! so all are forgotten with one of which some may be. What was told of them stays in the session.

use std::sync::atomic::Ordering;

use crate::inject::graphs::{Execs, Graphs, Handle};
use crate::inject::guest::{Guest, lock};

/// Executables about which nobody asks.
#[derive(Debug)]
pub(super) struct Withheld {
    execs: Execs,
    /// Of [`Graphs::changes`] when they were taken.
    changes: u64,
}

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

    /// A context is about to go, and perhaps others. True if anything was known.
    pub(super) fn forget_all(&self) -> bool {
        self.changes.fetch_add(1, Ordering::AcqRel);
        let executables = !self.withhold().execs.known.is_empty();
        let captures = self.captures.forget_all();
        let graphs = !std::mem::take(&mut *lock(&self.graphs)).is_empty();
        executables || captures || graphs
    }

    /// The executables, about which nobody asks from here on: one who holds the primary context of a device lets go of it,
    /// perhaps as the last.
    pub(super) fn withhold(&self) -> Withheld {
        let changes = self.changes.load(Ordering::Acquire);
        let execs = std::mem::take(&mut *lock(&self.execs));
        self.asking.wait_for_all();
        Withheld { execs, changes }
    }

    /// That one has let go of it.
    pub(super) fn released(&self, guest: &Guest, device: i32, withheld: Withheld) {
        if self.driver().is_none_or(|driver| driver.is_released(device)) {
            self.forget_all();
            return;
        }
        let Withheld {
            execs: withheld,
            changes,
        } = withheld;
        if withheld.known.is_empty() {
            return;
        }
        let mut execs = lock(&self.execs);
        // Another thread destroyed or made some meanwhile: which of these still are is not known.
        if self.changes.load(Ordering::Acquire) != changes {
            drop(execs);
            let message = "graphs came or went while a primary context was released; kernels of the graphs of before have \
                           no `nvtx_path` in later windows";
            return guest.problem("graph_ranges_forgotten", message.to_owned());
        }
        for (handle, exec) in withheld.known {
            execs.known.entry(handle).or_insert(exec);
        }
        execs.untold.extend(withheld.untold);
    }
}
