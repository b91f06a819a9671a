//! CUDA graphs and the NVTX ranges that they were captured in. A replay is one launch, so its kernels carry the ranges
//! that were open when each node was captured.
//!
//! `calls` shadows the calls that begin and end a capture and make graphs; `captures` notes at each range how many nodes
//! there are; `runs` is what comes of it; `expand` numbers the nodes of an executable as records do. CUPTI alone knows
//! the ids of executables, so it is asked as a window opens, and not before. Only with NVTX; else the calls pass through.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

mod asking;
pub(crate) mod calls;
mod captures;
mod contexts;
mod driver;
mod expand;
mod runs;
mod unseen;
mod versions;

pub(crate) use captures::is_capturing;
pub(crate) use runs::Path;
pub(crate) use versions::push_rows;

use crate::inject::attach::Attached;
use crate::inject::graphs::asking::Asking;
use crate::inject::graphs::captures::Captures;
use crate::inject::graphs::driver::Driver;
use crate::inject::graphs::expand::{Known, Nodes, expand};
use crate::inject::graphs::runs::{Notes, Run, Runs, TooMany};
use crate::inject::graphs::unseen::Unseen;
use crate::inject::graphs::versions::{Version, Versions};
use crate::inject::guest::{Guest, lock};
use crate::inject::losses::Reason;
use crate::inject::nvtx;
use crate::inject::threads::now_ns;
use crate::schema::manifest::ProcessState;

/// Stream, graph, node or executable, as the API gives it.
pub(crate) type Handle = usize;

/// Graphs, and executables, that are known at a time.
const MAX_KNOWN: usize = 100_000;

/// What is known of the graphs of this process.
#[derive(Debug, Default)]
pub(crate) struct Graphs {
    driver: OnceLock<Option<Driver>>,
    captures: Captures,
    graphs: Mutex<HashMap<Handle, Graph>>,
    execs: Mutex<Execs>,
    /// Contexts in which graphs were captured or instantiated.
    contexts: Mutex<BTreeSet<Handle>>,
    asking: Asking,
    /// A window is open: what is new is told at once.
    is_open: AtomicBool,
    versions: Versions,
    unseen: Unseen,
}

/// A graph that can be instantiated.
#[derive(Debug, Default)]
struct Graph {
    runs: Arc<Runs>,
    /// Graphs that it holds copies of, to be forgotten with it.
    copies: Vec<Handle>,
}

#[derive(Debug, Default)]
struct Execs {
    known: HashMap<Handle, Exec>,
    /// Those whose newest ranges the session does not have.
    untold: BTreeSet<Handle>,
    /// Counts what came, went or was updated, so that nothing is put back over it.
    changes: u64,
}

impl Execs {
    fn forget(&mut self, exec: Handle) {
        self.changes += 1;
        self.known.remove(&exec);
        self.untold.remove(&exec);
    }
}

/// An executable graph.
#[derive(Debug)]
struct Exec {
    id: Option<u32>,
    runs: Arc<Runs>,
    since_ns: i64,
    since_mark: Option<u32>,
    /// The session has ranges of it, perhaps older ones.
    was_told: bool,
}

impl Graphs {
    fn driver(&self) -> Option<&Driver> {
        self.driver.get_or_init(Driver::find).as_ref()
    }

    /// A stream captures from here on, perhaps into a graph that has nodes already.
    fn begin(&self, stream: Handle, into: Option<Handle>, ranges: Path) {
        self.note_context();
        let mut notes = Notes::default();
        if let Some(graph) = into {
            let before = self.runs(graph).unwrap_or_default();
            notes = Notes::after(before.all());
        }
        let count = into.and_then(|graph| self.driver()?.count(graph)).unwrap_or(0);
        notes.note(count, ranges);
        self.captures.begin(stream, notes);
    }

    /// The ranges of the calling thread have changed, while it has a capture open.
    pub(crate) fn note(&self, guest: &Guest, path: &Path) {
        self.settle(guest);
        if let Some(driver) = self.driver() {
            captures::note(driver, path, || self.unseen.is_settled());
        }
    }

    /// A capture became this graph.
    fn captured(&self, guest: &Guest, graph: Handle, notes: Result<Notes, u32>) {
        let notes = match notes {
            Ok(notes) => notes,
            Err(status) => return tell_refused(guest, &format!("cuStreamGetCaptureInfo gave {status}")),
        };
        let Some(count) = self.driver().and_then(|driver| driver.count(graph)) else {
            return tell_refused(guest, "its nodes could not be counted");
        };
        let runs = notes.finish(count);
        let copies = lock(&self.graphs).remove(&graph).unwrap_or_default().copies;
        if copies.is_empty() && runs.iter().all(|run| run.path.is_none()) {
            return;
        }
        if let Some(runs) = keep(guest, runs) {
            self.remember(guest, graph, Graph { runs, copies });
        }
    }

    fn remember(&self, guest: &Guest, handle: Handle, graph: Graph) -> bool {
        let mut graphs = lock(&self.graphs);
        let has_room = graphs.len() < MAX_KNOWN;
        if has_room {
            graphs.insert(handle, graph);
        } else {
            drop(graphs);
            too_many(guest, graph.runs.all().len() as u64);
        }
        has_room
    }

    /// A graph was copied, by itself or as a child graph into `parent`. The copies of its own child graphs are new, too.
    fn copied(&self, guest: &Guest, from: Handle, to: Handle, parent: Option<Handle>) {
        let (Some(driver), Some(runs)) = (self.driver(), self.runs(from)) else {
            return;
        };
        let copies = Vec::new();
        if !self.remember(guest, to, Graph { runs, copies }) {
            return;
        }
        if let Some(parent) = parent {
            lock(&self.graphs).entry(parent).or_default().copies.push(to);
        }
        let children = driver.nodes(from).zip(driver.nodes(to));
        for ((_, from), (_, inner)) in children
            .into_iter()
            .flat_map(|(a, b)| a.children.into_iter().zip(b.children))
        {
            self.copied(guest, from, inner, Some(to));
        }
    }

    /// A child graph was added to `parent`, which holds a copy of it.
    fn added(&self, guest: &Guest, parent: Handle, node: Handle, child: Handle) {
        if let Some(copy) = self.driver().and_then(|driver| driver.child(node)) {
            self.copied(guest, child, copy, Some(parent));
        }
    }

    /// A graph is about to go, with the copies that it holds.
    fn forget(&self, graph: Handle) {
        let mut graphs = lock(&self.graphs);
        let mut gone = vec![graph];
        while let Some(graph) = gone.pop() {
            gone.extend(graphs.remove(&graph).unwrap_or_default().copies);
        }
    }

    /// An executable was made of a graph.
    fn instantiated(&self, guest: &Guest, exec: Handle, graph: Handle) {
        let runs = self.expanded(guest, graph);
        // Its handle may have been that of one whose end was not seen.
        lock(&self.execs).forget(exec);
        if let Some(runs) = runs.filter(|runs| runs.name_any()) {
            self.note_context();
            self.renew(guest, exec, runs);
        }
    }

    /// An executable was updated by a graph.
    fn updated(&self, guest: &Guest, exec: Handle, graph: Handle) {
        let runs = self.expanded(guest, graph).unwrap_or_default();
        let mut execs = lock(&self.execs);
        execs.changes += 1;
        let before = execs.known.get(&exec).map(|exec| Arc::clone(&exec.runs));
        drop(execs);
        let is_new = before.map_or(runs.name_any(), |before| before != runs);
        if is_new {
            self.renew(guest, exec, runs);
        }
    }

    fn expanded(&self, guest: &Guest, graph: Handle) -> Option<Arc<Runs>> {
        self.runs(graph)?;
        keep(guest, expand(graph, self)?)
    }

    /// An executable has these ranges from here on.
    fn renew(&self, guest: &Guest, handle: Handle, runs: Arc<Runs>) {
        let since_mark = nvtx::newest_id();
        let mut execs = lock(&self.execs);
        if execs.known.len() >= MAX_KNOWN && !execs.known.contains_key(&handle) {
            drop(execs);
            return too_many(guest, runs.all().len() as u64);
        }
        execs.changes += 1;
        let before = execs.known.remove(&handle);
        let exec = Exec {
            id: before.as_ref().and_then(|before| before.id),
            runs,
            since_ns: now_ns(),
            since_mark,
            was_told: before.is_some_and(|before| before.was_told),
        };
        execs.known.insert(handle, exec);
        execs.untold.insert(handle);
        drop(execs);
        self.tell_own(guest, handle);
    }

    /// An executable is about to go. It may just have been launched, in a window that opens now.
    fn forget_exec(&self, guest: &Guest, exec: Handle) {
        self.tell_own(guest, exec);
        lock(&self.execs).forget(exec);
        self.asking.wait(exec);
    }

    /// A window opens now: the session gets what it does not have yet. Called at the gate, by one thread at a time.
    pub(crate) fn open(&self, guest: &Guest, attached: &Attached) {
        self.settle(guest);
        self.is_open.store(true, Ordering::SeqCst);
        let untold: Vec<Handle> = lock(&self.execs).untold.iter().copied().collect();
        for exec in untold {
            let is_known = || self.unseen.is_settled() && lock(&self.execs).known.contains_key(&exec);
            let ask = || self.asking.about(exec, is_known, || attached.graph_exec_id(exec));
            self.tell(guest, exec, || ask().flatten());
        }
    }

    /// The last window closes: what is new waits for the next.
    pub(crate) fn close(&self, guest: &Guest) {
        self.settle(guest);
        self.is_open.store(false, Ordering::SeqCst);
    }

    /// Tells of an executable that the calling thread makes, updates or destroys, so that nobody else does the last.
    fn tell_own(&self, guest: &Guest, exec: Handle) {
        if self.is_open.load(Ordering::SeqCst)
            && guest.gate.state() != ProcessState::Off
            && let Some(attached) = guest.attached.get()
        {
            let ask = || attached.graph_exec_id(exec);
            self.tell(guest, exec, || self.unseen.is_settled().then(ask).flatten());
        }
    }

    /// Puts an executable's ranges on their way to the session, once.
    fn tell(&self, guest: &Guest, handle: Handle, ask: impl FnOnce() -> Option<u32>) {
        let execs = lock(&self.execs);
        let Some(exec) = execs.known.get(&handle).filter(|_| execs.untold.contains(&handle)) else {
            return;
        };
        let id = exec.id;
        drop(execs);
        let id = id.or_else(ask);
        let mut execs = lock(&self.execs);
        let is_untold = execs.untold.remove(&handle);
        let Some(exec) = execs.known.get_mut(&handle).filter(|_| is_untold) else {
            return;
        };
        let Some(id) = id else {
            drop(execs);
            return tell_refused(guest, "CUPTI gave an executable no id");
        };
        exec.id = Some(id);
        let has_any = exec.runs.name_any() || exec.was_told;
        exec.was_told |= has_any;
        let version = Version {
            graph_id: id,
            since_ns: exec.since_ns,
            since_mark: exec.since_mark,
            runs: Arc::clone(&exec.runs),
        };
        drop(execs);
        if has_any && let Err(TooMany(rows)) = self.versions.push(version) {
            too_many(guest, rows);
        }
    }

    /// What is on its way to the writer.
    pub(crate) fn take(&self) -> Vec<Version> {
        self.versions.take()
    }
}

impl Known for Graphs {
    fn nodes(&self, graph: Handle) -> Option<Nodes> {
        self.driver()?.nodes(graph)
    }

    fn runs(&self, graph: Handle) -> Option<Arc<Runs>> {
        lock(&self.graphs).get(&graph).map(|graph| Arc::clone(&graph.runs))
    }
}

fn keep(guest: &Guest, runs: Vec<Run>) -> Option<Arc<Runs>> {
    Runs::keep(runs).map_err(|TooMany(rows)| too_many(guest, rows)).ok()
}

fn too_many(guest: &Guest, rows: u64) {
    guest.losses.add("graph_ranges", Reason::TooManyGraphs, Some(rows));
}

fn tell_refused(guest: &Guest, why: &str) {
    guest.problem(
        "graph_ranges_unknown",
        format!(
            "the NVTX ranges of some captured CUDA graphs are not known: {why}; their kernels have no `nvtx_path` of \
                 their capture"
        ),
    );
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::inject::config::Config;
    use crate::inject::process_file::Identity;
    use crate::inject::wake::Wake;
    use crate::schema::env;

    pub(super) fn guest() -> Guest {
        let config = Config::parse(|name| (name == env::SESSION).then(|| OsString::from("/nowhere")));
        Guest::new(config.unwrap(), Identity::of_this_process(), Wake::new().unwrap())
    }

    /// As of an executable that was captured in one range.
    pub(super) fn runs(path: &str) -> Arc<Runs> {
        let path: Path = Some(Arc::from(path));
        let run = Run { begin: 0, end: 1, path };
        Runs::keep(vec![run]).unwrap()
    }
}
