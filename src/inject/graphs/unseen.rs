//! Calls that could not be looked at: a signal handler made them, and came over our own code on the same thread, which may
//! hold locks. So they are only counted, and whoever looks next forgets all: any handle may have come to an end.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::inject::graphs::Graphs;
use crate::inject::guest::Guest;
use crate::inject::threads::now_ns;

/// How many there were.
#[derive(Debug, Default)]
pub(crate) struct Unseen {
    calls: AtomicU64,
    /// Those behind which all was forgotten.
    settled: AtomicU64,
    /// When the first came of those that are not settled; 0 for none.
    since_ns: AtomicI64,
}

impl Unseen {
    /// Waits for nothing and allocates nothing.
    pub(super) fn note(&self) {
        // An error: there was one before.
        let _ = self
            .since_ns
            .compare_exchange(0, now_ns(), Ordering::SeqCst, Ordering::SeqCst);
        self.calls.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// True where CUDA may be asked about what is known.
    pub(super) fn is_settled(&self) -> bool {
        self.calls() == self.settled.load(Ordering::SeqCst)
    }
}

impl Graphs {
    /// Before anything is looked at. Gives the number of unseen calls so far.
    pub(super) fn settle(&self, guest: &Guest) -> u64 {
        self.settle_since(guest, self.unseen.settled.load(Ordering::SeqCst))
    }

    /// The same, if there are more than before: at the end of a call, one in between may have ended what it noted.
    pub(super) fn settle_since(&self, guest: &Guest, before: u64) -> u64 {
        let calls = self.unseen.calls();
        if calls != before {
            self.forget_unseen(guest);
            // Only now: nobody asks CUDA meanwhile.
            self.unseen.settled.fetch_max(calls, Ordering::SeqCst);
        }
        calls
    }

    fn forget_unseen(&self, guest: &Guest) {
        let since_ns = self.unseen.since_ns.swap(0, Ordering::SeqCst);
        let forgotten = self.forget_all();
        if forgotten.is_any {
            self.disown(&forgotten.execs, since_ns, None);
            let message = "a signal handler called CUDA while its thread was in colonel's own code; kernels of the graphs \
                           of before have no `nvtx_path` from then on";
            guest.problem("graph_ranges_forgotten", message.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use crate::inject::graphs::Graph;
    use crate::inject::graphs::calls::{GraphCall, Role};
    use crate::inject::graphs::tests::guest;
    use crate::inject::guest::lock;
    use crate::inject::nvtx;

    #[test]
    fn a_call_over_our_own_code_waits_for_no_lock_and_is_settled_later() {
        static RESET: GraphCall = GraphCall::new(c"cudaDeviceReset", Role::Reset);
        let (done, is_done) = mpsc::channel();
        std::thread::spawn(move || {
            let guest = guest();
            let graphs = &guest.graphs;
            lock(&graphs.graphs).insert(1, Graph::default());
            let calls = graphs.settle(&guest);
            let held = (lock(&graphs.graphs), lock(&graphs.execs), lock(&graphs.contexts));
            // SAFETY: there is no such function here, so nothing is called.
            let status = nvtx::quietly(|| unsafe { RESET.watched(&guest, [0; 6]) });
            assert_ne!(status, 0);
            drop(held);
            assert!(!graphs.unseen.is_settled() && !lock(&graphs.graphs).is_empty());
            graphs.settle_since(&guest, calls);
            assert!(graphs.unseen.is_settled() && lock(&graphs.graphs).is_empty());
            assert_eq!(guest.problems()[0].code, "graph_ranges_forgotten");
            lock(&graphs.graphs).insert(1, Graph::default());
            graphs.settle(&guest);
            assert!(!lock(&graphs.graphs).is_empty(), "once");
            done.send(()).unwrap();
        });
        is_done.recv_timeout(Duration::from_secs(20)).expect("no deadlock");
    }

    #[test]
    fn what_nothing_was_known_of_is_not_told() {
        let guest = guest();
        guest.graphs.unseen.note();
        guest.graphs.settle(&guest);
        assert!(guest.graphs.unseen.is_settled() && guest.problems().is_empty());
    }
}
