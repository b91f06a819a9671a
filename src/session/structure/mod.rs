//! The layers of a model, found in the order of its kernels: a forward pass repeats one block of kernels per layer.
//!
//! Kernels are told apart by name alone: grid and block of attention change with the context, those of a layer's kernels
//! with the batch. A CUDA graph that holds a whole pass is looked at once, node by node. All other kernels, also those of
//! graphs that are only pieces of a step, are looked at in the order of launch. There, a number of layers counts when two
//! passes have it: a repetition that comes once may be any loop.
//!
//! What lies before the first layer and behind the last one has no layer, but for the norm right behind the last one, which
//! is the model's final one. Where a window opened or closed in the middle of a
//! step, its layers are counted from the end that is there.
//!
//! Ranges that name the layers of some kernels say where the others' begin, and their numbers.

mod anchors;
mod graphs;
mod names;
mod passes;
mod runs;
mod stream;
mod walk;

#[cfg(test)]
mod odd;
#[cfg(test)]
mod recorded;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, UInt32Type, UInt64Type};
use arrow_array::{Array as _, DictionaryArray, RecordBatch, StringArray};
use arrow_schema::ArrowError;
use rustc_hash::FxHashMap;

use crate::session::model_part::{Part, PathParts};
use crate::session::structure::graphs::Graph;
use crate::session::structure::names::Names;
use crate::session::structure::stream::{Launches, Mark, Stream, Waiting};

/// Columns of `kernels` that the search needs, beside `start_ns`, by which the rows must be sorted.
pub(crate) const COLUMNS: [&str; 9] = [
    "device_id",
    "correlation_id",
    "graph_id",
    "graph_node_id",
    "mangled_name",
    "short_name",
    "nvtx_path",
    "launch_nvtx_path",
    "window",
];

/// Passes with the same number of layers among all, at least: one in this many.
const RARE: usize = 20;

/// Where a kernel lies in a forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spot {
    /// In a layer, from 0.
    Layer(u16),
    /// It is the norm behind the last layer.
    FinalNorm,
}

/// A graph of a device.
type GraphKey = (u32, u32);

/// What is known of a graph.
enum Found {
    Collecting(Graph),
    /// It holds a pass: in the stream it is one symbol. With its last launch.
    Whole(i64),
    Piece,
}

/// Looks through the kernels of one process.
#[derive(Default)]
pub(crate) struct Finder {
    launches: Launches,
    parts: PathParts,
    names: Names,
    numbers: FxHashMap<String, u32>,
    graphs: FxHashMap<GraphKey, Found>,
    streams: BTreeMap<u32, Stream>,
    layers: Layers,
    counts: BTreeMap<u16, usize>,
}

impl Finder {
    /// Where ranges say these parts.
    pub(crate) fn new(parts: PathParts) -> Self {
        Self {
            parts,
            ..Self::default()
        }
    }

    /// Adds rows, in order of start.
    pub(crate) fn add(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let rows = Rows::of(batch)?;
        let numbers = self.number_names(batch)?;
        let said: Vec<Option<u16>> = {
            let parts = self.parts.of(batch);
            let layer = |part: &Part| match part {
                Part::Layer(layer) => Some(*layer),
                Part::Named(_) => None,
            };
            (0..batch.num_rows()).map(|row| parts(row).and_then(layer)).collect()
        };
        for (row, &said) in said.iter().enumerate() {
            let launch = self.launches.number(rows.correlations[row]);
            let Some(name) = rows.names.key(row).map(|key| numbers[key]) else {
                continue;
            };
            let device = rows.devices[row];
            let node = rows.node(row);
            let is_known = match node {
                Some((graph, node)) => self.add_node((device, graph), launch, node, name, said),
                None => false,
            };
            if is_known {
                continue;
            }
            let kernel = Waiting {
                place: (launch, node.map_or(0, |(_, node)| node)),
                name,
                graph: node.map(|(graph, _)| graph),
                said,
                window: rows.windows[row],
            };
            let stream = self.streams.entry(device).or_default();
            if stream.push(kernel) {
                let graphs = &self.graphs;
                stream.look_through(&self.names, false, |graph| {
                    matches!(graphs.get(&(device, graph)), Some(Found::Whole(_)))
                });
            }
        }
        Ok(())
    }

    /// Notes the node of a graph that is not known yet. True where the stream needs no more of this launch.
    fn add_node(&mut self, key: GraphKey, launch: i64, node: u64, name: u32, said: Option<u16>) -> bool {
        let found = self
            .graphs
            .entry(key)
            .or_insert_with(|| Found::Collecting(Graph::default()));
        if let Found::Collecting(graph) = found {
            if graph.push(launch, node, name, said) {
                return false;
            }
            *found = self.layers.judge(key, graph, &self.names, &mut self.counts);
        }
        match found {
            Found::Whole(last) => std::mem::replace(last, launch) == launch,
            _ => false,
        }
    }

    /// The layers of all that was added.
    pub(crate) fn finish(mut self) -> Layers {
        for (&key, found) in &mut self.graphs {
            if let Found::Collecting(graph) = found {
                *found = self.layers.judge(key, graph, &self.names, &mut self.counts);
            }
        }
        for (&device, stream) in &mut self.streams {
            let graphs = &self.graphs;
            stream.look_through(&self.names, true, |graph| {
                matches!(graphs.get(&(device, graph)), Some(Found::Whole(_)))
            });
        }
        // A step that was cut has fewer layers than the model: it counts where whole ones are too few.
        let counts = |with_cut| {
            let mut counts = self.counts.clone();
            let streams = self.streams.values();
            streams.for_each(|stream| stream.count(with_cut, &mut counts));
            counts
        };
        let depths = Some(depths(&counts(false))).filter(|depths| !depths.is_empty());
        let depths = depths.unwrap_or_else(|| self::depths(&counts(true)));
        let streams = self.streams.into_iter();
        self.layers.streams = streams
            .map(|(device, stream)| (device, stream.finish(&depths)))
            .collect();
        self.layers
    }

    /// Our number of each entry of the batch's dictionary of mangled names.
    fn number_names(&mut self, batch: &RecordBatch) -> Result<Vec<u32>, ArrowError> {
        let mangled: &DictionaryArray<Int32Type> = column(batch, "mangled_name")?.as_dictionary();
        let short: &DictionaryArray<Int32Type> = column(batch, "short_name")?.as_dictionary();
        let (texts, shorts) = (strings(mangled)?, strings(short)?);
        let mut numbers = vec![u32::MAX; texts.len()];
        for row in 0..batch.num_rows() {
            let Some(key) = mangled.key(row).filter(|&key| numbers[key] == u32::MAX) else {
                continue;
            };
            let text = texts.value(key);
            if let Some(&number) = self.numbers.get(text) {
                numbers[key] = number;
                continue;
            }
            let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
            self.names.push(short.key(row).map_or(text, |key| shorts.value(key)));
            self.numbers.insert(text.to_owned(), number);
            numbers[key] = number;
        }
        Ok(numbers)
    }
}

/// Numbers of layers that enough passes have.
fn depths(counts: &BTreeMap<u16, usize>) -> Vec<u16> {
    let most = counts.values().copied().max().unwrap_or(0);
    let is_counted = |count: usize| count >= 2 && RARE * count >= most;
    let counted = counts.iter().filter(|&(_, &count)| is_counted(count));
    counted.map(|(&layers, _)| layers).collect()
}

/// The layers of one process's kernels.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    /// Nodes of the graphs that hold a whole pass.
    graphs: FxHashMap<GraphKey, FxHashMap<u64, Spot>>,
    streams: BTreeMap<u32, Vec<Mark>>,
}

impl Layers {
    fn judge(&mut self, key: GraphKey, graph: &Graph, names: &Names, counts: &mut BTreeMap<u16, usize>) -> Found {
        let Some((nodes, layers)) = graph.layers(names) else {
            return Found::Piece;
        };
        // A graph is launched again and again: it confirms its number by itself.
        *counts.entry(layers).or_default() += 2;
        self.graphs.insert(key, nodes.into_iter().collect());
        Found::Whole(i64::MIN)
    }
}

/// Gives each kernel its layer. Rows must be those that were looked through, in the same order.
#[derive(Debug)]
pub(crate) struct Lookup {
    layers: Layers,
    launches: Launches,
    /// Of each device, how many marks lie at or before the last kernel.
    last: BTreeMap<u32, usize>,
}

impl Lookup {
    pub(crate) fn new(layers: Layers) -> Self {
        Self {
            layers,
            launches: Launches::default(),
            last: BTreeMap::new(),
        }
    }

    /// The place of each row.
    pub(crate) fn of(&mut self, batch: &RecordBatch) -> Result<Vec<Option<Spot>>, ArrowError> {
        let rows = Rows::of(batch)?;
        let spots = (0..batch.num_rows()).map(|row| {
            let launch = self.launches.number(rows.correlations[row]);
            self.spot(rows.devices[row], launch, rows.node(row))
        });
        Ok(spots.collect())
    }

    fn spot(&mut self, device: u32, launch: i64, node: Option<(u32, u64)>) -> Option<Spot> {
        if let Some((graph, node)) = node
            && let Some(nodes) = self.layers.graphs.get(&(device, graph))
        {
            return nodes.get(&node).copied();
        }
        let marks = self.layers.streams.get(&device)?;
        let place = (launch, node.map_or(0, |(_, node)| node));
        let last = self.last.entry(device).or_default();
        // Nearly always it is where the one before was, or one on.
        let fits = |passed: usize| {
            passed.checked_sub(1).is_none_or(|at| marks[at].place <= place)
                && marks.get(passed).is_none_or(|mark| mark.place > place)
        };
        if !fits(*last) {
            *last = match *last < marks.len() && fits(*last + 1) {
                true => *last + 1,
                false => marks.partition_point(|mark| mark.place <= place),
            };
        }
        marks.get(last.checked_sub(1)?)?.spot
    }
}

/// Columns of a batch.
struct Rows<'a> {
    devices: &'a [u32],
    correlations: &'a [u32],
    windows: &'a [u32],
    graphs: &'a arrow_array::UInt32Array,
    nodes: &'a arrow_array::UInt64Array,
    names: &'a DictionaryArray<Int32Type>,
}

impl<'a> Rows<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self, ArrowError> {
        Ok(Self {
            devices: column(batch, "device_id")?.as_primitive::<UInt32Type>().values(),
            correlations: column(batch, "correlation_id")?.as_primitive::<UInt32Type>().values(),
            windows: column(batch, "window")?.as_primitive::<UInt32Type>().values(),
            graphs: column(batch, "graph_id")?.as_primitive::<UInt32Type>(),
            nodes: column(batch, "graph_node_id")?.as_primitive::<UInt64Type>(),
            names: column(batch, "mangled_name")?.as_dictionary(),
        })
    }

    /// Graph and node.
    fn node(&self, row: usize) -> Option<(u32, u64)> {
        let is_node = self.graphs.is_valid(row) && self.nodes.is_valid(row);
        is_node.then(|| (self.graphs.value(row), self.nodes.value(row)))
    }
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a arrow_array::ArrayRef, ArrowError> {
    Ok(batch.column(batch.schema_ref().index_of(name)?))
}

fn strings(array: &DictionaryArray<Int32Type>) -> Result<&StringArray, ArrowError> {
    let wrong = || ArrowError::SchemaError("a text column holds no text".to_owned());
    array.values().as_any().downcast_ref().ok_or_else(wrong)
}
