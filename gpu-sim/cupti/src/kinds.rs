//! Which kinds of record are on, and for which graphs one that is off still records: with CUPTI 13.0 the first disable
//! does not reach graphs that were instantiated while the kind was on; after one more enable and disable it does.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use cupti_sys::constants::{KIND_CONCURRENT_KERNEL, KIND_DRIVER, KIND_RUNTIME};

use crate::faults::complain;

const KINDS: usize = 64;

/// Bit of a kind. All kinds are below 64.
pub(crate) fn bit(kind: u32) -> u64 {
    1 << (kind % KINDS as u32)
}

/// The state of one CUPTI.
pub(crate) struct Kinds {
    enabled: AtomicU64,
    /// Kinds of which a graph outlives the first disable.
    sticky: AtomicU64,
    graphs: Mutex<Option<HashMap<u32, Graph>>>,
}

/// What a graph executable remembers of the time it was made.
struct Graph {
    /// Kinds that were on then and have not been off since.
    untouched: u64,
    /// Kinds that were disabled once since then, and not enabled again.
    lingering: u64,
}

pub(crate) static KINDS_ENABLED: Kinds = Kinds::new();

impl Kinds {
    const fn new() -> Kinds {
        Kinds {
            enabled: AtomicU64::new(0),
            sticky: AtomicU64::new(0),
            graphs: Mutex::new(None),
        }
    }

    fn with_graphs<R>(&self, use_them: impl FnOnce(&mut HashMap<u32, Graph>) -> R) -> R {
        use_them(
            self.graphs
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert_default(),
        )
    }

    pub(crate) fn enable(&self, kind: u32) {
        self.enabled.fetch_or(bit(kind), Ordering::AcqRel);
        self.with_graphs(|graphs| graphs.values_mut().for_each(|graph| graph.lingering &= !bit(kind)));
        self.sticky.fetch_and(!bit(kind), Ordering::AcqRel);
    }

    pub(crate) fn disable(&self, kind: u32, first_disable: bool) {
        let was = self.enabled.fetch_and(!bit(kind), Ordering::AcqRel);
        if was & bit(kind) == 0 {
            return;
        }
        let lingering = self.with_graphs(|graphs| {
            let mut any = false;
            for graph in graphs.values_mut() {
                if first_disable {
                    graph.lingering |= graph.untouched & bit(kind);
                    any |= graph.lingering & bit(kind) != 0;
                }
                graph.untouched &= !bit(kind);
            }
            any
        });
        if lingering {
            self.sticky.fetch_or(bit(kind), Ordering::AcqRel);
        }
    }

    pub(crate) fn disable_all(&self) {
        self.enabled.store(0, Ordering::Release);
        self.sticky.store(0, Ordering::Release);
        self.with_graphs(HashMap::clear);
    }

    pub(crate) fn graph_created(&self, exec: u32) {
        let untouched = self.enabled.load(Ordering::Acquire);
        self.with_graphs(|graphs| {
            graphs.insert(
                exec,
                Graph {
                    untouched,
                    lingering: 0,
                },
            )
        });
    }

    pub(crate) fn graph_destroyed(&self, exec: u32) {
        self.with_graphs(|graphs| graphs.remove(&exec));
    }

    pub(crate) fn is_enabled(&self, kind: u32) -> bool {
        self.enabled.load(Ordering::Acquire) & bit(kind) != 0
    }

    /// Bits of the kinds to record for work of a graph executable (0: of no graph).
    #[inline]
    pub(crate) fn of_work(&self, exec: u32) -> u64 {
        let enabled = self.enabled.load(Ordering::Acquire);
        if exec == 0 || self.sticky.load(Ordering::Acquire) == 0 {
            return enabled;
        }
        enabled | self.with_graphs(|graphs| graphs.get(&exec).map_or(0, |graph| graph.lingering))
    }
}

/// The thread that launched a graph last while its kernels were recorded, 0 for none.
static GRAPH_LAUNCHER: AtomicI32 = AtomicI32::new(0);

/// A graph was launched by this thread, and is recorded.
pub(crate) fn graph_launched() {
    // SAFETY: has no preconditions.
    GRAPH_LAUNCHER.store(unsafe { libc::gettid() }, Ordering::Relaxed);
}

/// Until 13.0 Update 1 turning kernel records off hung in 23 of 82 runs on an H100 while another thread launched
/// graphs, and that thread hung with it. Here it ends the process each time.
pub(crate) fn die_beside_graph_launches(kind: u32) {
    let launcher = GRAPH_LAUNCHER.load(Ordering::Relaxed);
    // SAFETY: has no preconditions.
    if kind == KIND_CONCURRENT_KERNEL && ![0, unsafe { libc::gettid() }].contains(&launcher) {
        complain("cuptiActivityDisable beside a thread that launches graphs: CUPTI before 13.0 Update 1 hangs here");
    }
}

/// API functions left out of the records of their kind: `cuptiActivityEnableDriverApi(cbid, 0)` and the same for the
/// runtime. A bit for each callback id, those of one domain after the other. Turning one on without its kind records
/// nothing, as measured on an H100 with 13.0.85.
static MUTED: [AtomicU64; 32] = [const { AtomicU64::new(0) }; 32];

fn place(domain: u32, cbid: u32) -> (usize, u64) {
    let index = (domain % 2) * 1024 + cbid % 1024;
    ((index / 64) as usize, 1 << (index % 64))
}

/// Leaves the calls of one function out of the records, or takes them in again.
pub(crate) fn mute(domain: u32, cbid: u32, muted: bool) {
    let (word, bit) = place(domain, cbid);
    if muted {
        MUTED[word].fetch_or(bit, Ordering::AcqRel)
    } else {
        MUTED[word].fetch_and(!bit, Ordering::AcqRel)
    };
}

/// The kind to record a call of this function with, None if it is not to be recorded.
#[inline]
pub(crate) fn of_call(kinds: &Kinds, domain: u32, cbid: u32) -> Option<u32> {
    let kind = if domain == 1 { KIND_DRIVER } else { KIND_RUNTIME };
    let (word, bit) = place(domain, cbid);
    (kinds.is_enabled(kind) && MUTED[word].load(Ordering::Acquire) & bit == 0).then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cupti_sys::constants::{KIND_CONCURRENT_KERNEL as KERNEL, KIND_MEMCPY};

    fn records(kinds: &Kinds, exec: u32) -> bool {
        kinds.of_work(exec) & bit(KERNEL) != 0
    }

    #[test]
    fn the_first_disable_misses_graphs_made_while_the_kind_was_on() {
        let kinds = Kinds::new();
        kinds.enable(KERNEL);
        kinds.graph_created(1);
        kinds.disable(KERNEL, true);
        assert!(records(&kinds, 1));
        assert!(!records(&kinds, 0), "work of no graph stops");
        kinds.graph_created(2);
        assert!(!records(&kinds, 2), "a graph made while off stops");
        kinds.disable(KERNEL, true);
        assert!(records(&kinds, 1), "disabling what is off changes nothing");

        kinds.enable(KERNEL);
        assert!(records(&kinds, 1) && records(&kinds, 2));
        kinds.disable(KERNEL, true);
        assert!(!records(&kinds, 1) && !records(&kinds, 2), "one pair later all stop");
    }

    #[test]
    fn without_the_quirk_the_first_disable_stops_all() {
        let kinds = Kinds::new();
        kinds.enable(KERNEL);
        kinds.graph_created(1);
        kinds.disable(KERNEL, false);
        assert!(!records(&kinds, 1));
    }

    #[test]
    fn kinds_do_not_mix_and_a_destroyed_graph_is_forgotten() {
        let kinds = Kinds::new();
        kinds.enable(KERNEL);
        kinds.enable(KIND_MEMCPY);
        kinds.graph_created(1);
        kinds.disable(KIND_MEMCPY, true);
        assert_eq!(kinds.of_work(1), bit(KERNEL) | bit(KIND_MEMCPY));
        kinds.graph_destroyed(1);
        assert_eq!(kinds.of_work(1), bit(KERNEL));
    }

    #[test]
    fn a_function_may_be_left_out_but_not_be_recorded_without_its_kind() {
        let kinds = Kinds::new();
        mute(2, 311, false);
        assert_eq!(of_call(&kinds, 2, 311), None);
        kinds.enable(KIND_RUNTIME);
        mute(2, 17, true);
        assert_eq!(
            [211, 17].map(|cbid| of_call(&kinds, 2, cbid)),
            [Some(KIND_RUNTIME), None]
        );
        assert_eq!(of_call(&kinds, 1, 211), None, "the other domain");
        mute(2, 17, false);
        assert_eq!(of_call(&kinds, 2, 17), Some(KIND_RUNTIME));
    }
}
