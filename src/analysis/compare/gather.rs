//! One pass over the kernels of a session: totals of each row, and steps as the bootstrap needs them.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::RecordBatch;
use rustc_hash::FxHashMap;

use super::By;
use super::cells::{Cell, Series};
use crate::analysis::classes::{Classes, Kind};
use crate::analysis::columns::i32s;
use crate::analysis::durations::DurationCounts;
use crate::analysis::items::{COLUMNS, ItemReader, each_batch};
use crate::analysis::kernels::{KernelGroup, LaunchShape};
use crate::analysis::phases::{Phase, Said};
use crate::analysis::steps::{Cut, Item, Layer, Splitter};
use crate::analysis::texts::Texts;
use crate::schema::manifest::Problem;
use crate::session::{Selection, Session, SessionError};

/// Columns behind those that steps are cut from.
const SHAPE: [&str; 5] = ["grid_y", "grid_z", "block_x", "block_y", "block_z"];
/// Where there are no steps, as many launches in a row are taken together.
const LAUNCHES_A_CELL: usize = 64;

/// A row of the comparison in one session.
#[derive(Debug, Default)]
pub(crate) struct RowTotals {
    pub(crate) text: String,
    pub(crate) launches: u64,
    pub(crate) total_ns: i64,
    /// Launches of a kernel.
    pub(crate) kernels: KernelGroup,
    /// A layer's time in each step.
    pub(crate) per_step: DurationCounts,
}

impl RowTotals {
    /// Grid and block of most launches.
    pub(crate) fn shape(&self) -> Option<LaunchShape> {
        self.kernels.shapes().first().map(|&(shape, _)| shape)
    }
}

/// Steps of one kind.
#[derive(Debug)]
pub(crate) struct KindSteps {
    pub(crate) phase: Phase,
    pub(crate) batch: Option<u64>,
    pub(crate) steps: u64,
    pub(crate) lengths: DurationCounts,
    pub(crate) cells: Vec<Cell>,
    /// Rows of the last such step's kernels, in order.
    pub(crate) sequence: Vec<u32>,
}

/// A session as the comparison sees it.
#[derive(Debug, Default)]
pub(crate) struct Side {
    pub(crate) rows: Vec<RowTotals>,
    pub(crate) kinds: Vec<KindSteps>,
    /// Launches of no step, in order, some together.
    pub(crate) others: Vec<Cell>,
    pub(crate) gpus: BTreeSet<String>,
    pub(crate) problems: Vec<Problem>,
}

impl Side {
    pub(crate) fn of(session: &Session, selection: Option<&Selection>, by: By) -> Result<Self, SessionError> {
        let mut fold = Fold::new(by);
        let problems = each_batch(session, selection, &[&COLUMNS[..], &SHAPE].concat(), |batch| {
            fold.add(batch)
        })?;
        let mut side = fold.finish();
        side.problems = problems;
        side.gpus = session.devices()?.into_values().map(|device| device.name).collect();
        if session.manifest().evaluator == "ncu" {
            // Its kernels ran one at a time, each on its own: their order is no step, and no stretch of time.
            (side.kinds, side.others) = (Vec::new(), Vec::new());
        }
        Ok(side)
    }

    pub(crate) fn steps(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.steps).sum()
    }
}

#[derive(Debug, Default)]
struct Lane {
    splitter: Splitter,
    classes: Classes,
    kinds: BTreeMap<Kind, (Series, Vec<u32>)>,
    others: Series,
}

#[derive(Debug)]
struct Fold {
    by: By,
    reader: ItemReader,
    rows: Rows,
    lanes: BTreeMap<(u32, u32), Lane>,
}

/// Rows by kernel name, which has its number already, or by layer.
#[derive(Debug, Default)]
struct Rows {
    totals: Vec<RowTotals>,
    layers: FxHashMap<Layer, u32>,
}

impl Rows {
    fn of(&mut self, item: &Item, by: By) -> u32 {
        let next = u32::try_from(self.layers.len()).unwrap_or(u32::MAX);
        let row = match by {
            By::Layer => *self.layers.entry(item.layer).or_insert(next),
            By::Kernel | By::Step => item.name,
        };
        if row as usize >= self.totals.len() {
            self.totals.resize_with(row as usize + 1, RowTotals::default);
        }
        row
    }
}

impl Fold {
    fn new(by: By) -> Self {
        let mut reader = ItemReader::default();
        reader.names.number("");
        Self {
            by,
            reader,
            rows: Rows::default(),
            lanes: BTreeMap::new(),
        }
    }

    fn add(&mut self, batch: &RecordBatch) {
        let [grid_y, grid_z, block_x, block_y, block_z] = std::array::from_fn(|axis| i32s(batch, COLUMNS.len() + axis));
        let mut reader = std::mem::take(&mut self.reader);
        reader.each(batch, |kernel, said| {
            let (at, mut item) = (kernel.row, kernel.item);
            if item.name == u32::MAX {
                item.name = 0;
            }
            let row = self.rows.of(&item, self.by);
            let totals = &mut self.rows.totals[row as usize];
            let ns = item.end_ns.saturating_sub(item.start_ns);
            totals.launches += 1;
            totals.total_ns = totals.total_ns.saturating_add(ns);
            if self.by == By::Kernel {
                let shape = LaunchShape {
                    grid: [item.grid_x, grid_y[at], grid_z[at]],
                    block: [block_x[at], block_y[at], block_z[at]],
                };
                totals.kernels.add(ns, shape);
            }
            let lane = self.lanes.entry((kernel.pid, kernel.device_id)).or_default();
            if let Some(cut) = lane.splitter.push(item) {
                lane.take(&cut, said, &mut self.rows, self.by);
            }
        });
        self.reader = reader;
    }

    fn finish(mut self) -> Side {
        let mut side = Side::default();
        for mut lane in std::mem::take(&mut self.lanes).into_values() {
            if let Some(cut) = std::mem::take(&mut lane.splitter).finish() {
                lane.take(&cut, self.reader.said(), &mut self.rows, self.by);
            }
            let phases = lane.classes.phases();
            for (kind, (series, sequence)) in lane.kinds {
                let Some(totals) = lane.classes.totals.get(&kind) else {
                    continue;
                };
                side.kinds.push(KindSteps {
                    phase: phases.get(&kind).copied().unwrap_or(Phase::Other),
                    batch: match kind {
                        Kind::Said(said) => said.batch,
                        _ => None,
                    },
                    steps: totals.steps,
                    lengths: totals.durations.clone(),
                    cells: series.cells().to_vec(),
                    sequence,
                });
            }
            side.others.extend_from_slice(lane.others.cells());
        }
        side.others.sort_by_key(|cell| cell.start_ns);
        side.rows = self.rows.totals;
        match self.by {
            By::Kernel | By::Step => {
                for (number, row) in (0..).zip(&mut side.rows) {
                    row.text = self.reader.names.get(number);
                }
            }
            By::Layer => {
                for (layer, row) in self.rows.layers {
                    side.rows[row as usize].text = layer_text(layer, &self.reader.layers);
                }
            }
        }
        side
    }
}

fn layer_text(layer: Layer, texts: &Texts) -> String {
    match layer {
        Layer::None => String::new(),
        Layer::Number(number) => number.to_string(),
        Layer::Before(name) | Layer::After(name) => texts.get(name),
    }
}

impl Lane {
    fn take(&mut self, cut: &Cut, said: &[Option<Said>], rows: &mut Rows, by: By) {
        let kind = self.classes.take(cut, said, &mut (0, 0));
        match (cut, kind) {
            (Cut::Step(items), Some(kind)) => {
                let cell = Cell::of(items, |item| rows.of(item, by));
                if by == By::Layer {
                    for sum in &cell.rows {
                        rows.totals[sum.row as usize].per_step.add(sum.ns);
                    }
                }
                let (series, sequence) = self.kinds.entry(kind).or_default();
                series.push(cell);
                if by == By::Kernel {
                    sequence.clear();
                    sequence.extend(items.iter().map(|item| item.name));
                }
            }
            (Cut::Step(items) | Cut::Other(items), _) => {
                for items in items.chunks(LAUNCHES_A_CELL) {
                    self.others.push(Cell::of(items, |item| rows.of(item, by)));
                }
            }
        }
    }
}
