//! The raw page of ncu as CSV: a row a profiled launch, a column a metric, their units in the row below the names.
//!
//! ncu's own words (`==WARNING== …`) and the program's may stand in between, and where processes have other metrics the
//! names come again.
//!
//! ncu runs each kernel alone, several times over, and tells no start: launches follow each other here without a gap, in
//! the order in which they were profiled. Only their durations mean something.

use std::collections::HashMap;
use std::rc::Rc;

use super::{Ingest, IngestError, id_of};
use crate::schema::names::Name;
use crate::schema::tables::{KernelCounterRow, KernelCountersBuilder, KernelRow, KernelsBuilder};
use crate::session::Rows;

/// What ncu says of a launch beside its metrics.
const ABOUT: [&str; 13] = [
    "ID",
    "Process ID",
    "Process Name",
    "Host Name",
    "Kernel Name",
    "Kernel Time",
    "Context",
    "Stream",
    "Block Size",
    "Grid Size",
    "Device",
    "CC",
    "thread Domain:Push/Pop_Range:PL_Type:PL_Value:CLR_Type:Color:Msg_Type:Msg",
];

/// How long a kernel ran.
pub const DURATION: &str = "gpu__time_duration.sum";
/// What else a row of `kernels` has from metrics. They cost no pass.
pub const LAUNCH: [&str; 3] = [
    "launch__registers_per_thread",
    "launch__shared_mem_per_block_static",
    "launch__shared_mem_per_block_dynamic",
];

/// Names and units of the columns.
#[derive(Debug, Default)]
struct Header {
    names: Vec<String>,
    units: Vec<String>,
}

/// A row, read by the names of its columns.
struct Launch<'a> {
    header: &'a Header,
    cells: &'a csv::StringRecord,
}

impl<'a> Launch<'a> {
    fn text(&self, name: &str) -> Option<&'a str> {
        let place = self.header.names.iter().position(|known| known == name)?;
        self.cells.get(place).filter(|cell| !cell.is_empty())
    }

    fn number<T: TryFrom<u64> + Default>(&self, name: &str) -> T {
        let whole = self.text(name).and_then(number).filter(|value| *value >= 0.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "ids and sizes, not negative"
        )]
        whole
            .and_then(|value| T::try_from(value as u64).ok())
            .unwrap_or_default()
    }

    /// `(256, 1, 1)`.
    fn size(&self, name: &str) -> [i32; 3] {
        let mut size = [1; 3];
        let text = self.text(name).unwrap_or_default().trim_matches(['(', ')']);
        for (axis, word) in size.iter_mut().zip(text.split(',')) {
            *axis = word.trim().parse().unwrap_or(1);
        }
        size
    }

    /// Metrics with their values and units.
    fn metrics(&self) -> impl Iterator<Item = (&'a str, Option<f64>, Option<&'a str>)> {
        let (header, cells) = (self.header, self.cells);
        let columns = header.names.iter().zip(&header.units).zip(cells);
        columns
            .filter(|((name, _), cell)| !ABOUT.contains(&name.as_str()) && !cell.is_empty())
            .filter_map(|((name, unit), cell)| {
                let value = number(cell);
                // Words, such as a cache's configuration, are no figures; what could not be measured is a null.
                let is_figure = value.is_some() || is_unmeasured(cell);
                let unit = Some(unit.as_str()).filter(|unit| !unit.is_empty());
                is_figure.then_some((name.as_str(), value, unit))
            })
    }

    fn duration_ns(&self) -> Option<i64> {
        let (_, value, unit) = self.metrics().find(|(name, ..)| *name == DURATION)?;
        let scale = match unit? {
            "ns" | "nsecond" => 1.0,
            "us" | "usecond" => 1e3,
            "ms" | "msecond" => 1e6,
            "s" | "second" => 1e9,
            _ => return None,
        };
        #[expect(clippy::cast_possible_truncation, reason = "a duration in ns")]
        value.map(|value| (value * scale).round() as i64)
    }
}

/// What came of a page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Launches {
    /// Metrics that the page has a column for.
    pub metrics: Vec<String>,
    /// Rows read.
    pub launches: u64,
    /// Of those, without a duration that can be.
    pub without_duration: u64,
}

impl Ingest {
    /// Adds the raw page of a report. `what` names it in errors; its launches lie from `start_ns` on, which is when the
    /// command started.
    pub fn ncu_csv(&mut self, page: &str, what: &str, start_ns: i64) -> Result<Launches, IngestError> {
        let refuse = |reason: String| IngestError::NotNcu {
            what: what.to_owned(),
            reason,
        };
        self.window += 1;
        let mut header = Header::default();
        let mut read = Launches::default();
        let mut names: HashMap<String, Rc<Name>> = HashMap::new();
        let mut kernels = Rows::<KernelsBuilder>::default();
        let mut counters = Rows::<KernelCountersBuilder>::default();
        let mut ends: HashMap<u32, i64> = HashMap::new();
        let text = only_csv(page);
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .from_reader(text.as_bytes());
        for record in reader.records() {
            let record = record.map_err(|error| refuse(error.to_string()))?;
            let first = record.get(0).unwrap_or_default();
            if first == ABOUT[0] {
                header.names = record.iter().map(str::to_owned).collect();
                header.units = vec![String::new(); header.names.len()];
                let is_new = |name: &&String| !ABOUT.contains(&name.as_str()) && !read.metrics.contains(name);
                let new: Vec<String> = header.names.iter().filter(is_new).cloned().collect();
                read.metrics.extend(new);
                continue;
            }
            if header.names.is_empty() {
                return Err(refuse("no line begins with \"ID\"".to_owned()));
            }
            if first.is_empty() {
                header.units = record.iter().map(str::to_owned).collect();
                continue;
            }
            let launch = Launch {
                header: &header,
                cells: &record,
            };
            let Some(kernel) = launch.text("Kernel Name") else {
                return Err(refuse(format!("launch {first} has no \"Kernel Name\"")));
            };
            let name = names
                .entry(kernel.to_owned())
                .or_insert_with(|| Rc::new(Name::new(kernel.to_owned())));
            let pid: u32 = launch.number("Process ID");
            if !ends.contains_key(&pid) {
                self.take_part(
                    pid,
                    launch.text("Process Name").unwrap_or_default(),
                    (start_ns, start_ns),
                );
            }
            let start = *ends.entry(pid).or_insert(start_ns);
            read.launches += 1;
            // Ids count from 0, and 0 is no correlation id.
            let correlation_id = launch.number::<u32>("ID").saturating_add(1);
            for (metric, value, unit) in launch.metrics() {
                let row = KernelCounterRow {
                    pid,
                    correlation_id: Some(correlation_id),
                    device_id: launch.number("Device"),
                    name: &name.demangled,
                    short_name: &name.short,
                    metric,
                    value,
                    low: None,
                    high: None,
                    unit,
                    source: "ncu",
                };
                counters.push(&mut self.recorder, id_of(pid), row)?;
            }
            let end = launch.duration_ns().and_then(|duration| start.checked_add(duration));
            let Some(end) = end.filter(|&end| end >= start) else {
                read.without_duration += 1;
                self.lose(pid, "kernels", "invalid_timestamp", 1, start);
                continue;
            };
            ends.insert(pid, end);
            let row = kernel_row(&launch, pid, name, correlation_id, (start, end), self.window);
            kernels.push(&mut self.recorder, id_of(pid), row)?;
        }
        kernels.finish(&mut self.recorder)?;
        counters.finish(&mut self.recorder)?;
        for (pid, end_ns) in ends {
            self.end_window(pid, end_ns);
        }
        Ok(read)
    }
}

fn kernel_row<'a>(
    launch: &Launch<'_>,
    pid: u32,
    name: &'a Name,
    correlation_id: u32,
    (start_ns, end_ns): (i64, i64),
    window: u32,
) -> KernelRow<'a> {
    let (grid, block) = (launch.size("Grid Size"), launch.size("Block Size"));
    KernelRow {
        pid,
        start_ns,
        end_ns,
        name: &name.demangled,
        short_name: &name.short,
        mangled_name: &name.mangled,
        device_id: launch.number("Device"),
        context_id: launch.number("Context"),
        stream_id: launch.number("Stream"),
        correlation_id,
        graph_id: None,
        graph_node_id: None,
        grid_x: grid[0],
        grid_y: grid[1],
        grid_z: grid[2],
        block_x: block[0],
        block_y: block[1],
        block_z: block[2],
        cluster_x: 0,
        cluster_y: 0,
        cluster_z: 0,
        registers_per_thread: launch.number(LAUNCH[0]),
        static_shared_bytes: launch.number(LAUNCH[1]),
        dynamic_shared_bytes: launch.number(LAUNCH[2]),
        local_bytes_per_thread: 0,
        priority: None,
        window,
        nvtx_path: None,
        launch_nvtx_path: None,
        layer: None,
        layer_source: None,
        waves: None,
        theoretical_occupancy_pct: None,
    }
}

/// The lines of the table: those that begin with a quote, and those that go on within one.
fn only_csv(page: &str) -> String {
    let mut text = String::with_capacity(page.len());
    let mut is_open = false;
    for line in page.lines() {
        if is_open || line.starts_with('"') {
            text.push_str(line);
            text.push('\n');
            is_open ^= line.matches('"').count() % 2 == 1;
        }
    }
    text
}

/// `1,234.50`, and `54.12 (3.2; 5.4)` of metrics with instances, whose first figure is the whole.
fn number(cell: &str) -> Option<f64> {
    let first = cell.split(" (").next().unwrap_or_default();
    let value: f64 = first.replace(',', "").parse().ok()?;
    value.is_finite().then_some(value)
}

/// What ncu prints in the place of a figure: `n/a`, `(!) nan`, `(!) n/a`.
fn is_unmeasured(cell: &str) -> bool {
    let word = cell.trim_start_matches("(!)").trim().to_lowercase();
    ["n/a", "nan", "inf", "-nan"].contains(&word.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_told_from_words() {
        for (cell, expected) in [
            ("1,234.50", Some(1234.5)),
            ("0", Some(0.0)),
            ("54.12 (3.2; 5.4)", Some(54.12)),
            ("n/a", None),
            ("(!) nan", None),
            ("CachePreferNone", None),
        ] {
            assert_eq!(number(cell), expected, "{cell}");
        }
        assert!(is_unmeasured("n/a") && is_unmeasured("(!) nan") && !is_unmeasured("CachePreferNone"));
    }

    #[test]
    fn lines_of_others_are_left_out() {
        let page = "==PROF== Connected to process 7\n\"ID\",\"a\"\nhello \"world\"\n==WARNING== no \"x\"\n\"0\",\"two\nlines\"\n";
        assert_eq!(only_csv(page), "\"ID\",\"a\"\n\"0\",\"two\nlines\"\n");
    }
}
