//! A session in which every rule of `colonel analyze` finds something: two ranks, eager steps with long waits, a prefill
//! in between, a step that hangs, unpinned copies, waits of the host, a last wave that is almost empty.

use std::path::Path;

use crate::schema::columns::TableBuilder as _;
use crate::schema::counters::{DRAM_THROUGHPUT, INSTRUCTIONS};
use crate::schema::tables::{
    CounterRow, CountersBuilder, DeviceRow, DevicesBuilder, KernelRow, KernelsBuilder, MemcpysBuilder, NvtxRangeRow,
    NvtxRangesBuilder, SynchronizationRow, SynchronizationsBuilder,
};
use crate::session::synthetic::{SyntheticGuest, h100, kernel, memcpy};

/// Processes.
pub const PIDS: [u32; 2] = [100, 101];
/// Steps of each, the prefill and the one that hangs included.
pub const STEPS: i64 = 16;
/// Layers of each step.
pub const LAYERS: u32 = 6;

const PREFILL: i64 = 9;
const HANGS: i64 = 12;
/// A name that would be markup, and end a script.
const STEP: &str = "</script><b>step";
const STEP_NS: i64 = 600_000;
const SAMPLE_NS: i64 = 5_000;

/// Writes what the guests leave, in a session that is not sealed yet.
pub fn write(session: &Path, begin_ns: i64) -> std::io::Result<()> {
    for (rank, pid) in (0..).zip(PIDS) {
        let mut guest = SyntheticGuest::new(session, pid);
        guest.process.windows[0].start_ns = begin_ns - 50_000;
        let mut devices = DevicesBuilder::default();
        devices.push(DeviceRow {
            uuid: Some(
                [
                    "GPU-00000000-0000-0000-0000-000000000000",
                    "GPU-11111111-1111-1111-1111-111111111111",
                ][rank as usize],
            ),
            ..h100(pid)
        });
        guest.seal(&mut devices)?;
        let mut rows = Rows::default();
        for step in 0..STEPS {
            rows.step(pid, rank, step, begin_ns + step * STEP_NS);
        }
        // A second stream that does next to nothing.
        let mut lonely = kernel(pid, "spin<int>(int)", begin_ns + 1_000, 1_000);
        lonely.stream_id = 13;
        rows.kernels.push(lonely);
        if rank == 0 {
            guest.seal(&mut rows.counters(pid, begin_ns))?;
        }
        guest.seal(&mut rows.kernels)?;
        guest.seal(&mut rows.copies)?;
        guest.seal(&mut rows.waits)?;
        guest.seal(&mut rows.ranges)?;
        guest.end(begin_ns + STEPS * STEP_NS)?;
    }
    Ok(())
}

#[derive(Default)]
struct Rows {
    kernels: KernelsBuilder,
    copies: MemcpysBuilder,
    waits: SynchronizationsBuilder,
    ranges: NvtxRangesBuilder,
    /// Kernels: start, end, and what they use of device memory and of the SMs' instructions, %.
    used: Vec<(i64, i64, [f64; 2])>,
    /// Correlation id of the last launch.
    launched: u32,
}

impl Rows {
    fn step(&mut self, pid: u32, rank: i64, step: i64, start_ns: i64) {
        let is_prefill = step == PREFILL;
        let step_ids = (self.launched, self.launched + 2 + 4 * LAYERS);
        self.launch(kernel(pid, "embedding", start_ns, 1_200));
        let mut at = start_ns + 7_200;
        let ids = (self.launched - 1, self.launched);
        let path = format!("model/{STEP}/embedding");
        self.ranges
            .push(range(pid, "embedding", (&path, 2), (start_ns, start_ns + 1_000), ids));
        for copy in 0..3 {
            let mut row = memcpy(pid, "HtoD", 64, at + 500 * copy, 400);
            row.src_kind = "pageable";
            self.copies.push(row);
            self.waits.push(wait(pid, at + 500 * copy, 450));
        }
        for layer in 0..LAYERS {
            let (layer_ns, before) = (at, self.launched);
            // Norm and activation are tiny; the product has 1.2 waves, and is longer on the second rank and in prefill.
            let product_ns = (6_000 + 2_000 * rank) * if is_prefill { 8 } else { 1 };
            for (name, ns, grid) in [
                ("rms_norm<__nv_bfloat16>(int)", 1_500, 4),
                ("gemm_1_2_waves", product_ns, 1_267),
                ("silu_and_mul", 1_400, 19),
                ("residual_add<x & y>", 1_300, 19),
            ] {
                let mut row = kernel(pid, name, at, ns);
                row.grid_x = grid * if is_prefill { 2 } else { 1 };
                self.launch(row);
                at += ns + 6_000;
            }
            let name = format!("layers.{layer}");
            let path = format!("model/{STEP}/{name}");
            self.ranges.push(range(
                pid,
                &name,
                (&path, 2),
                (layer_ns, at - 6_000),
                (before, self.launched),
            ));
            if step == HANGS && layer == 2 {
                at += 230_000;
            }
        }
        self.launch(kernel(pid, "ncclDevKernel_AllReduce", at, 3_500));
        let ids = (self.launched - 1, self.launched);
        let path = format!("model/{STEP}/lm_head");
        self.ranges
            .push(range(pid, "lm_head", (&path, 2), (at - 1_000, at), ids));
        let path = format!("model/{STEP}");
        self.ranges.push(range(
            pid,
            "model",
            ("model", 0),
            (start_ns - 10_000, at + 5_000),
            step_ids,
        ));
        self.ranges
            .push(range(pid, STEP, (&path, 1), (start_ns - 8_000, at), step_ids));
    }

    /// Samples of 5 us. The product is bound by memory, the activation by its instructions.
    fn counters(&self, pid: u32, begin_ns: i64) -> CountersBuilder {
        let mut rows = CountersBuilder::default();
        for start_ns in (begin_ns..begin_ns + STEPS * STEP_NS).step_by(SAMPLE_NS as usize) {
            let end_ns = start_ns + SAMPLE_NS;
            let mut values = [0.0; 2];
            let first = self.used.partition_point(|(_, end, _)| *end <= start_ns);
            for (start, end, used) in self.used[first..].iter().take_while(|(start, ..)| *start < end_ns) {
                let part = ((*end).min(end_ns) - (*start).max(start_ns)) as f64 / SAMPLE_NS as f64;
                values = [values[0] + part * used[0], values[1] + part * used[1]];
            }
            for (metric, value) in [DRAM_THROUGHPUT, INSTRUCTIONS].into_iter().zip(values) {
                rows.push(CounterRow {
                    pid,
                    device_id: 0,
                    start_ns,
                    end_ns,
                    metric,
                    value: Some(value),
                    unit: "%",
                    window: 1,
                });
            }
        }
        rows
    }

    fn launch(&mut self, mut row: KernelRow<'_>) {
        let used = match row.name {
            name if name.starts_with("gemm") => [81.0, 30.0],
            "silu_and_mul" => [20.0, 72.0],
            _ => [35.0, 10.0],
        };
        self.used.push((row.start_ns, row.end_ns, used));
        self.launched += 1;
        row.correlation_id = self.launched;
        self.kernels.push(row);
    }
}

fn wait(pid: u32, start_ns: i64, ns: i64) -> SynchronizationRow<'static> {
    SynchronizationRow {
        pid,
        start_ns,
        end_ns: start_ns + ns,
        sync_kind: "stream",
        context_id: 1,
        stream_id: Some(7),
        event_id: None,
        correlation_id: 1,
        window: 1,
    }
}

fn range<'a>(
    pid: u32,
    name: &'a str,
    (path, depth): (&'a str, u32),
    (start_ns, end_ns): (i64, i64),
    (before, last): (u32, u32),
) -> NvtxRangeRow<'a> {
    NvtxRangeRow {
        pid,
        thread_id: pid,
        domain: None,
        name,
        category: None,
        payload: None,
        kind: "push_pop",
        depth,
        path,
        start_ns,
        end_ns: Some(end_ns),
        start_correlation_id: Some(before),
        end_correlation_id: Some(last),
        window: 1,
    }
}
