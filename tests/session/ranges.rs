//! The NVTX ranges of kernels: of their launch, and of the capture of their graph's nodes.

use arrow_array::cast::AsArray as _;
use arrow_array::types::Int32Type;
use arrow_array::{Array as _, ArrayAccessor as _, StringArray};
use colonel::schema::columns::TableBuilder as _;
use colonel::schema::tables::{GraphRangeRow, GraphRangesBuilder, KernelsBuilder, NvtxRangeRow, NvtxRangesBuilder};
use colonel::session::Session;
use colonel::session::synthetic::{SyntheticGuest, kernel};

use crate::fixture::{Fixture, compact, seal};

/// Kernels 1 and 2 are launched in `step`, kernel 3 in none; 2 and 3 are nodes of a graph captured in `layer`.
fn record(guest: &mut SyntheticGuest) {
    let mut ranges = NvtxRangesBuilder::default();
    ranges.push(NvtxRangeRow {
        pid: 7,
        thread_id: 1,
        domain: None,
        name: "step",
        category: None,
        payload: None,
        kind: "push_pop",
        depth: 0,
        path: "step",
        start_ns: 5,
        end_ns: Some(25),
        start_correlation_id: Some(0),
        end_correlation_id: Some(2),
        window: 1,
    });
    guest.seal(&mut ranges).unwrap();
    let mut graphs = GraphRangesBuilder::default();
    graphs.push(GraphRangeRow {
        pid: 7,
        graph_id: 4,
        since_ns: 1,
        since_correlation_id: None,
        node_begin: 0,
        node_end: 1,
        nvtx_path: Some("layer"),
    });
    guest.seal(&mut graphs).unwrap();
    let mut kernels = KernelsBuilder::default();
    for (correlation_id, node) in [(1, None), (2, Some(0)), (3, Some(1))] {
        let mut row = kernel(7, "gemm", i64::from(correlation_id) * 10, 2);
        row.correlation_id = correlation_id;
        row.graph_id = node.map(|_| 4);
        row.graph_node_id = node.map(|node| 4 << 32 | node);
        kernels.push(row);
    }
    guest.seal(&mut kernels).unwrap();
}

fn columns(session: &Session) -> Vec<(String, String)> {
    let (scans, problems) = session.layered_kernels(&["nvtx_path", "launch_nvtx_path"]).unwrap();
    assert!(problems.is_empty());
    let mut rows = Vec::new();
    for batch in scans.into_iter().flatten().map(Result::unwrap) {
        let text = |index: usize, row: usize| {
            let column = batch.column(index).as_dictionary::<Int32Type>();
            let texts = column.downcast_dict::<StringArray>().unwrap();
            if texts.is_null(row) { "" } else { texts.value(row) }.to_owned()
        };
        rows.extend((0..batch.num_rows()).map(|row| (text(0, row), text(1, row))));
    }
    rows
}

#[test]
fn a_session_has_the_same_ranges_before_and_after_its_compaction() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer();
    let mut guest = SyntheticGuest::new(writer.path(), 7);
    record(&mut guest);
    guest.end(100).unwrap();
    let expected = [("step", "step"), ("layer", "step"), ("", "")];
    let expected = expected.map(|(path, launch)| (path.to_owned(), launch.to_owned()));
    seal(&mut writer);
    assert_eq!(columns(&Session::load(writer.path()).unwrap()), expected);
    compact(&mut writer);
    let session = Session::load(writer.path()).unwrap();
    assert_eq!(columns(&session), expected);
    let mut written = session.scan("kernels", &["nvtx_path"]).unwrap();
    assert_eq!(written.next().unwrap().column(0).null_count(), 1, "on disk, too");
}
