//! Kernels as steps are cut from them: each with its layer, and with the ranges that say of which step it is.

use arrow_array::cast::AsArray as _;
use arrow_array::types::UInt32Type;
use arrow_array::{Array as _, ArrayAccessor as _, RecordBatch, StringArray};

use crate::analysis::columns::{EntryMap, i32s, i64s, texts, u32s};
use crate::analysis::phases::Said;
use crate::analysis::steps::{Item, Layer};
pub(crate) use crate::analysis::texts::Texts;
use crate::schema::manifest::Problem;
use crate::session::{BY_STRUCTURE, Selection, Session, SessionError, now_ns};

/// Columns that a batch begins with.
pub(crate) const COLUMNS: [&str; 12] = [
    "start_ns",
    "end_ns",
    "pid",
    "device_id",
    "window",
    "name",
    "layer",
    "layer_source",
    "nvtx_path",
    "grid_x",
    "launch_nvtx_path",
    "graph_id",
];

/// Batches of each process in the order of start, of the selected windows only if there is a selection. Gives what could
/// not be read.
pub(crate) fn each_batch(
    session: &Session,
    selection: Option<&Selection>,
    columns: &[&str],
    mut take: impl FnMut(&RecordBatch),
) -> Result<Vec<Problem>, SessionError> {
    let (scans, mut problems) = session.layered_kernels(columns)?;
    for mut scan in scans {
        for batch in scan.by_ref() {
            match batch {
                Ok(batch) => take(&selection.map_or_else(|| batch.clone(), |s| s.filter(&batch))),
                Err(error) => problems.push(Problem {
                    code: "table_file_broken".to_owned(),
                    message: format!("part of `kernels` could not be read: {error}"),
                    time_ns: now_ns(),
                }),
            }
        }
        problems.extend(scan.into_problems());
    }
    Ok(problems)
}

/// A kernel, and where it is from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KernelItem {
    pub(crate) item: Item,
    pub(crate) pid: u32,
    pub(crate) device_id: u32,
    /// Its row in the batch.
    pub(crate) row: usize,
    /// Paths of the ranges around its launch, and around itself.
    pub(crate) launch: Option<u32>,
    pub(crate) path: Option<u32>,
    /// Whether structure says its layer; none without a layer.
    pub(crate) is_by_structure: Option<bool>,
}

/// Takes batches apart.
#[derive(Debug, Default)]
pub(crate) struct ItemReader {
    pub(crate) names: Texts,
    pub(crate) layers: Texts,
    pub(crate) paths: Texts,
    said: Vec<Option<Said>>,
    entries: [EntryMap; 4],
}

impl ItemReader {
    /// What each path says.
    pub(crate) fn said(&self) -> &[Option<Said>] {
        &self.said
    }

    /// Rows of a batch, in its order, with what each path says so far.
    pub(crate) fn each(&mut self, batch: &RecordBatch, mut take: impl FnMut(KernelItem, &[Option<Said>])) {
        let [name_map, layer_map, path_map, launch_map] = &mut self.entries;
        let (names, layers) = (texts(batch, 5), texts(batch, 6));
        let (paths, launches) = (texts(batch, 8), texts(batch, 10));
        let name_map = name_map.of(names, |text| self.names.number(text));
        let layer_map = layer_map.of(layers, |text| self.layers.number(text));
        let said = &mut self.said;
        let mut number = |text: &str| {
            let number = self.paths.number(text);
            if number as usize == said.len() {
                said.push(Said::by(text));
            }
            number
        };
        let path_map = path_map.of(paths, &mut number);
        let launch_map = launch_map.of(launches, &mut number);
        let says = |path: &u32| self.said[*path as usize].is_some();
        let numbered: Vec<Layer> = layer_map
            .iter()
            .map(|&number| Layer::named(&self.layers.all()[number as usize], number))
            .collect();
        let sources = texts(batch, 7).downcast_dict::<StringArray>();
        let graphs = batch.column(11).as_primitive::<UInt32Type>();
        let (starts, ends) = (i64s(batch, 0), i64s(batch, 1));
        let (pids, devices, windows) = (u32s(batch, 2), u32s(batch, 3), u32s(batch, 4));
        let grids = i32s(batch, 9);
        for row in 0..batch.num_rows() {
            let layer = layers.key(row).map_or(Layer::None, |key| numbered[key]);
            let source = sources.as_ref().filter(|sources| sources.is_valid(row));
            let is_by_structure = || source.map(|sources| sources.value(row)) == Some(BY_STRUCTURE);
            let path = paths.key(row).map(|key| path_map[key]);
            let launch = launches.key(row).map(|key| launch_map[key]);
            let item = Item {
                start_ns: starts[row],
                end_ns: ends[row],
                name: names.key(row).map_or(u32::MAX, |key| name_map[key]),
                layer,
                graph: graphs.is_valid(row).then(|| graphs.value(row)),
                grid_x: grids[row],
                // A graph may have been captured in any step.
                path: launch.filter(says).or(path.filter(says)),
                window: windows[row],
            };
            let kernel = KernelItem {
                item,
                pid: pids[row],
                device_id: devices[row],
                row,
                launch,
                path,
                is_by_structure: (layer != Layer::None).then(is_by_structure),
            };
            take(kernel, &self.said);
        }
    }
}
