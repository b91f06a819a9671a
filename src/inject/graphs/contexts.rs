//! What goes with a context: its executables and the captures on its streams. CUDA does not say of which context they are,
//! so all are forgotten with one of which some may be. What was told of them stays in the session.

use std::sync::Arc;

use crate::inject::graphs::runs::Runs;
use crate::inject::graphs::versions::Version;
use crate::inject::graphs::{Execs, Graphs, Handle};
use crate::inject::guest::{Guest, lock};
use crate::inject::nvtx;
use crate::inject::threads::now_ns;

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
    pub(super) fn forget_all(&self) -> Forgotten {
        let execs = self.take_execs(1);
        let captures = self.captures.forget_all();
        let graphs = !std::mem::take(&mut *lock(&self.graphs)).is_empty();
        Forgotten {
            is_any: captures || graphs || !execs.known.is_empty(),
            execs,
        }
    }

    /// The executables, about which nobody asks from here on: one who holds the primary context of a device lets go of it,
    /// perhaps as the last.
    pub(super) fn withhold(&self) -> Execs {
        self.take_execs(0)
    }

    fn take_execs(&self, changes: u64) -> Execs {
        let mut execs = lock(&self.execs);
        let left = Execs {
            changes: execs.changes + changes,
            ..Execs::default()
        };
        let taken = std::mem::replace(&mut *execs, left);
        drop(execs);
        self.asking.wait_for_all();
        taken
    }

    /// That one has let go of it.
    pub(super) fn released(&self, guest: &Guest, device: i32, withheld: Execs) {
        if self.driver().is_none_or(|driver| driver.is_released(device)) {
            self.forget_all();
            return;
        }
        if withheld.known.is_empty() {
            return;
        }
        let mut execs = lock(&self.execs);
        // Another thread destroyed, made or updated some meanwhile: which of these still are is not known.
        if execs.changes != withheld.changes {
            drop(execs);
            self.disown(&withheld, now_ns(), nvtx::newest_id());
            let message = "graphs came or went while a primary context was released; kernels of the graphs of before have \
                           no `nvtx_path` in later windows";
            return guest.problem("graph_ranges_forgotten", message.to_owned());
        }
        execs.known.extend(withheld.known);
        execs.untold.extend(withheld.untold);
    }

    /// From some time on, what was told of these executables does not hold.
    pub(super) fn disown(&self, execs: &Execs, since_ns: i64, since_mark: Option<u32>) {
        for exec in execs.known.values().filter(|exec| exec.was_told) {
            let Some(graph_id) = exec.id else { continue };
            // Without runs it takes no room.
            let _ = self.versions.push(Version {
                graph_id,
                // Later than what it takes back, whatever was told while a handler came.
                since_ns: since_ns.max(exec.since_ns + 1),
                since_mark,
                runs: Arc::<Runs>::default(),
            });
        }
    }
}

/// What was known.
#[derive(Debug)]
pub(super) struct Forgotten {
    pub(super) is_any: bool,
    pub(super) execs: Execs,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inject::graphs::driver::Driver;
    use crate::inject::graphs::tests::{guest, runs};

    /// A guest in which the session has the ranges of executable 1, of the id 11; its primary context has other holders, too.
    fn told() -> Guest {
        extern "C" fn no_capture(
            _: Handle,
            _: *mut u32,
            _: *mut u64,
            _: *mut Handle,
            _: *mut Handle,
            _: *mut usize,
        ) -> u32 {
            1
        }
        extern "C" fn no_nodes(_: Handle, _: *mut Handle, _: *mut usize) -> u32 {
            1
        }
        let guest = guest();
        guest
            .graphs
            .driver
            .set(Some(Driver::of_captures(no_capture, no_nodes)))
            .unwrap();
        guest.graphs.renew(&guest, 1, runs("one"));
        guest.graphs.tell(&guest, 1, || Some(11));
        guest.graphs.take();
        guest
    }

    #[test]
    fn what_is_taken_back_is_later_than_what_was_told() {
        let guest = told();
        let since_ns = lock(&guest.graphs.execs).known[&1].since_ns;
        let forgotten = guest.graphs.forget_all();
        guest.graphs.disown(&forgotten.execs, 0, None);
        let taken_back = guest.graphs.take();
        assert_eq!(taken_back.len(), 1);
        assert!(taken_back[0].since_ns > since_ns && taken_back[0].runs.all().is_empty());
    }

    /// Executables that are known after one was done while the primary context was released.
    fn known_after(guest: &Guest, meanwhile: impl FnOnce(&Graphs)) -> Vec<Handle> {
        let graphs = &guest.graphs;
        let withheld = graphs.withhold();
        assert!(lock(&graphs.execs).known.is_empty(), "nobody asks about it meanwhile");
        meanwhile(graphs);
        graphs.released(guest, 0, withheld);
        let mut known: Vec<Handle> = lock(&graphs.execs).known.keys().copied().collect();
        known.sort_unstable();
        known
    }

    #[test]
    fn a_context_that_others_hold_keeps_its_executables() {
        let guest = told();
        assert_eq!(known_after(&guest, |_| ()), [1]);
        assert_eq!(
            known_after(&guest, |graphs| drop(graphs.withhold())),
            [1],
            "two at once"
        );
        assert!(guest.problems().is_empty() && guest.graphs.take().is_empty());
    }

    #[test]
    fn what_came_or_went_while_it_was_released_is_not_put_back() {
        type Meanwhile = fn(&Guest, &Graphs);
        let destroyed: Meanwhile = |guest, graphs| graphs.forget_exec(guest, 1);
        let made: Meanwhile = |guest, graphs| graphs.instantiated(guest, 1, 7);
        let updated: Meanwhile = |guest, graphs| graphs.updated(guest, 1, 7);
        let reset: Meanwhile = |_, graphs| drop(graphs.forget_all());
        for meanwhile in [destroyed, made, updated, reset] {
            let guest = told();
            assert!(known_after(&guest, |graphs| meanwhile(&guest, graphs)).is_empty());
            assert_eq!(guest.problems()[0].code, "graph_ranges_forgotten");
            // What the session has of it holds no longer: it may have other nodes by now.
            let versions = guest.graphs.take();
            assert_eq!(versions.len(), 1);
            assert!(versions[0].graph_id == 11 && versions[0].runs.all().is_empty());
        }
    }

    #[test]
    fn what_was_made_while_it_was_released_stays() {
        let guest = told();
        let make = |graphs: &Graphs| graphs.renew(&guest, 1, runs("another of the same handle"));
        assert_eq!(known_after(&guest, make), [1]);
        let execs = lock(&guest.graphs.execs);
        assert!(execs.known[&1].runs == runs("another of the same handle") && execs.untold.contains(&1));
    }

    #[test]
    fn the_last_holder_takes_all_with_it() {
        let guest = guest();
        guest.graphs.driver.set(None).unwrap();
        guest.graphs.renew(&guest, 1, runs("one"));
        assert!(known_after(&guest, |_| ()).is_empty());
        assert!(guest.problems().is_empty());
    }
}
