//! Which NVTX ranges the nodes of CUDA graphs were captured in, as the table `graph_ranges` says. An executable that was
//! updated has several versions: that of a kernel is the newest before its launch.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, Int64Type, UInt32Type};
use arrow_array::{Array as _, RecordBatch, StringArray};
use rustc_hash::FxHashMap;

use crate::session::files::ProcessFolder;
use crate::session::kernel_paths::Texts;
use crate::session::scan::{Scan, folder_parts, wanted_schema};

const COLUMNS: [&str; 6] = [
    "graph_id",
    "since_ns",
    "since_correlation_id",
    "node_begin",
    "node_end",
    "nvtx_path",
];

/// Correlation ids wrap: so far from a version's beginning, time decides.
const ORDER_BY_TIME_NS: i64 = 60_000_000_000;

/// A kernel that was a node of a graph.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node {
    pub(crate) graph_id: u32,
    pub(crate) number: u32,
    pub(crate) correlation_id: u32,
    pub(crate) start_ns: i64,
}

/// What is known of a node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Captured {
    /// It was captured in these ranges, or in none while others were captured in some.
    In(Option<u32>),
    /// Nothing is known of the graph's capture.
    Unknown,
}

/// Versions of each executable of one process.
#[derive(Debug, Default)]
pub(crate) struct GraphPaths(FxHashMap<u32, Vec<Version>>);

#[derive(Debug)]
struct Version {
    since_ns: i64,
    since_id: Option<u32>,
    /// In order.
    runs: Vec<Run>,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    begin: u32,
    end: u32,
    path: Option<u32>,
}

impl Version {
    fn holds_for(&self, node: Node) -> bool {
        let after_ns = node.start_ns.saturating_sub(self.since_ns);
        match self.since_id {
            Some(id) if after_ns.saturating_abs() < ORDER_BY_TIME_NS => {
                node.correlation_id.wrapping_sub(id).cast_signed() > 0
            }
            _ => after_ns >= 0,
        }
    }
}

impl GraphPaths {
    /// Reads the table of one process. What can't be read of it says nothing.
    pub(crate) fn read(folder: &ProcessFolder, texts: &mut Texts) -> std::io::Result<Self> {
        let mut all = Self::default();
        for batch in Scan::new(folder_parts(folder)?, wanted_schema("graph_ranges", &COLUMNS)) {
            all.add(&batch, texts);
        }
        for versions in all.0.values_mut() {
            versions.sort_by_key(|version| version.since_ns);
            for version in versions {
                version.runs.sort_by_key(|run| run.begin);
            }
        }
        Ok(all)
    }

    fn add(&mut self, batch: &RecordBatch, texts: &mut Texts) {
        let unsigned = |index: usize| batch.column(index).as_primitive::<UInt32Type>();
        let since = batch.column(1).as_primitive::<Int64Type>();
        let (graphs, ids, begins, ends) = (unsigned(0), unsigned(2), unsigned(3), unsigned(4));
        let paths = batch.column(5).as_dictionary::<Int32Type>();
        let Some(paths) = paths.downcast_dict::<StringArray>() else {
            return;
        };
        for (row, path) in paths.into_iter().enumerate() {
            let versions = self.0.entry(graphs.value(row)).or_default();
            let since_ns = since.value(row);
            let at = versions.iter().rposition(|version| version.since_ns == since_ns);
            let at = at.unwrap_or_else(|| {
                versions.push(Version {
                    since_ns,
                    since_id: ids.is_valid(row).then(|| ids.value(row)),
                    runs: Vec::new(),
                });
                versions.len() - 1
            });
            versions[at].runs.push(Run {
                begin: begins.value(row),
                end: ends.value(row),
                path: path.map(|path| texts.number(path)),
            });
        }
    }

    /// True where nothing is known of any graph.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges of a node.
    pub(crate) fn find(&self, node: Node) -> Captured {
        let versions = self.0.get(&node.graph_id).into_iter().flatten().rev();
        let mut holding = versions.filter(|version| version.holds_for(node));
        let Some(version) = holding.next() else {
            return Captured::Unknown;
        };
        if version.runs.iter().all(|run| run.path.is_none()) {
            return Captured::Unknown;
        }
        let at = version.runs.partition_point(|run| run.end <= node.number);
        let run = version.runs.get(at).filter(|run| run.begin <= node.number);
        Captured::In(run.and_then(|run| run.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::columns::TableBuilder as _;
    use crate::schema::manifest::ProcessId;
    use crate::schema::tables::{GraphRangeRow, GraphRangesBuilder};
    use crate::session::synthetic::SyntheticGuest;

    /// Graph, since, id, nodes, path.
    type Row = (u32, i64, Option<u32>, (u32, u32), &'static str);

    fn paths(rows: &[Row]) -> (GraphPaths, Texts) {
        let folder = tempfile::tempdir().unwrap();
        let mut table = GraphRangesBuilder::default();
        for &(graph_id, since_ns, since_correlation_id, (node_begin, node_end), path) in rows {
            table.push(GraphRangeRow {
                pid: 7,
                graph_id,
                since_ns,
                since_correlation_id,
                node_begin,
                node_end,
                nvtx_path: (!path.is_empty()).then_some(path),
            });
        }
        let file = SyntheticGuest::new(folder.path(), 7).seal(&mut table).unwrap();
        let path = file.parent().unwrap().to_owned();
        let process = Some(ProcessId { pid: 7, start_ticks: 1 });
        let mut texts = Texts::default();
        (
            GraphPaths::read(&ProcessFolder { path, process }, &mut texts).unwrap(),
            texts,
        )
    }

    fn found((paths, texts): &(GraphPaths, Texts), graph_id: u32, number: u32, id: u32, start_ns: i64) -> String {
        let node = Node {
            graph_id,
            number,
            correlation_id: id,
            start_ns,
        };
        match paths.find(node) {
            Captured::In(path) => path.map_or("-", |path| texts.get(path)).to_owned(),
            Captured::Unknown => "?".to_owned(),
        }
    }

    #[test]
    fn a_node_has_the_path_of_its_run() {
        let paths = paths(&[
            (5, 10, None, (4, 6), "a/b"),
            (5, 10, None, (0, 2), "a"),
            (5, 10, None, (2, 4), ""),
        ]);
        let of = |number| found(&paths, 5, number, 1, 20);
        assert_eq!([0, 1, 2, 3, 4, 5, 6].map(of), ["a", "a", "-", "-", "a/b", "a/b", "-"]);
        assert_eq!(found(&paths, 6, 0, 1, 20), "?");
        assert_eq!(found(&paths, 5, 0, 1, 9), "?", "before it was made");
    }

    #[test]
    fn an_update_holds_for_what_was_launched_after_it() {
        let paths = paths(&[
            (5, 100, None, (0, 9), "old"),
            (5, 200, Some(u32::MAX), (0, 9), "new"),
            (5, 300, Some(40), (0, 0), ""),
        ]);
        let of = |id, start| found(&paths, 5, 3, id, start);
        assert_eq!(of(u32::MAX - 1, 150), "old");
        assert_eq!(of(u32::MAX, 250), "old", "launched before, ran after");
        assert_eq!([of(0, 250), of(40, 350)], ["new", "new"]);
        assert_eq!(of(41, 350), "?", "from then on nothing is known");
        let far = ORDER_BY_TIME_NS + 300;
        assert_eq!(of(3, far), "?", "by time");
    }
}
