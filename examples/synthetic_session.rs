//! Makes a session without a GPU, as two guests of a decode loop would leave it, and says how fast sealing, compaction
//! and the summary were: for the Python side's tests and for measurements.
//!
//!     cargo run --release --example synthetic_session -- SESSIONS_DIR KERNELS [sealed|compacted|cut-off]

use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use colonel::analysis::SessionSummary;
use colonel::schema::columns::TableBuilder as _;
use colonel::schema::manifest::{Exit, Loss, Progress};
use colonel::schema::tables::{
    DevicesBuilder, KernelsBuilder, MemcpysBuilder, MemsetsBuilder, WindowRow, WindowsBuilder,
};
use colonel::session::synthetic::{SyntheticGuest, h100, kernel, memcpy, memset};
use colonel::session::{NewSession, Session, SessionWriter, SessionsDir};

/// Unix ns at which the loop begins.
const BEGIN_NS: i64 = 1_795_000_000_000_000_000;
/// Rows of a segment: about what a busy decode gives in a second.
const SEGMENT_ROWS: usize = 100_000;
const KERNELS_A_STEP: u64 = 336;

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args_os().skip(1);
    let folder = args
        .next()
        .context("usage: synthetic_session SESSIONS_DIR KERNELS [sealed|compacted|cut-off]")?;
    let kernels: u64 = args.next().context("no number of kernels")?.to_string_lossy().parse()?;
    let end = args
        .next()
        .map_or_else(|| "compacted".to_owned(), |end| end.to_string_lossy().into_owned());
    let sessions = SessionsDir::resolve(Some(Path::new(&folder)))?;
    let new = NewSession {
        command: vec!["python".to_owned(), "decode.py".to_owned()],
        gate: "profiler".to_owned(),
        evaluator: "cupti".to_owned(),
        flavor: "generic".to_owned(),
        ..NewSession::default()
    };
    let mut writer = SessionWriter::create(&sessions, new)?;
    for (pid, share) in [(4711, kernels - kernels / 4), (4712, kernels / 4)] {
        write_guest(writer.path(), pid, share, end == "cut-off" && pid == 4712)?;
    }
    let path = writer.path().to_owned();
    let before = Session::load(&path)?.disk_bytes();
    let mut out = std::io::stdout().lock();
    let start = Instant::now();
    writer.seal(
        Some(Exit {
            code: Some(0),
            signal: None,
        }),
        &mut |_, _, _| {},
    )?;
    let seal_s = start.elapsed().as_secs_f64();
    let start = Instant::now();
    if end == "compacted" {
        writer.compact(&mut |_, _, _| {})?;
    }
    let compact_s = start.elapsed().as_secs_f64();
    let session = Session::load(&path)?;
    let start = Instant::now();
    let summary = SessionSummary::of(&session)?;
    let summary_s = start.elapsed().as_secs_f64();
    let line = serde_json::json!({
        "session": path, "kernels": summary.kernel_count, "names": summary.kernels.len(),
        "bytes_before": before, "bytes": session.disk_bytes(),
        "seal_s": seal_s, "compact_s": compact_s, "summary_s": summary_s,
    });
    writeln!(out, "{line}")?;
    Ok(())
}

/// Numbers that look random and are the same each time.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn below_i64(&mut self, limit: u64) -> i64 {
        i64::try_from(self.below(limit)).unwrap_or(0)
    }
}

/// Kernels of one step: name, mangled name, usual duration, grid.
fn kinds() -> Vec<(String, String, i64, i32)> {
    (0..48)
        .map(|kind: i32| {
            let name = match kind % 4 {
                0 => format!("void cutlass::device_kernel<flash::FlashAttnFwd<{kind}, cutlass::bfloat16_t>>(Params)"),
                1 => format!("nvjet_sm90_tst_{}x8_64x{kind}_2x1_v_bz_TNT", 64 << (kind % 3)),
                2 => format!(
                    "void at::native::vectorized_elementwise_kernel<{kind}, at::native::FillFunctor<float>>(int)"
                ),
                _ => format!("triton_red_fused_add_mul_native_layer_norm_{kind}"),
            };
            let mangled = format!(
                "_ZN{}{}E",
                name.len(),
                name.replace(|c: char| !c.is_alphanumeric(), "_")
            );
            (name, mangled, 1_500 + i64::from(kind) * 311, 1 + (kind * 37) % 528)
        })
        .collect()
}

fn write_guest(session: &Path, pid: u32, kernels: u64, cut_off: bool) -> anyhow::Result<()> {
    let mut guest = SyntheticGuest::new(session, pid);
    let mut random = Lcg(pid.into());
    let kinds = kinds();
    let (mut rows, mut copies, mut fills) = (
        KernelsBuilder::default(),
        MemcpysBuilder::default(),
        MemsetsBuilder::default(),
    );
    let mut devices = DevicesBuilder::default();
    devices.push(h100(pid));
    guest.seal(&mut devices)?;
    // Two streams, so that rows arrive out of order and overlap.
    let mut time = BEGIN_NS;
    for index in 0..kernels {
        let (step, node) = (index / KERNELS_A_STEP, index % KERNELS_A_STEP);
        if node == 0 {
            time += 200_000 + random.below_i64(50_000);
            copies.push(memcpy(
                pid,
                if step % 3 == 0 { "DtoH" } else { "HtoD" },
                4096 + step % 7,
                time - 9_000,
                2_100,
            ));
            fills.push(memset(pid, 65_536, time - 5_000, 900 + random.below_i64(40)));
        }
        let (name, mangled, usual, grid) = &kinds[usize::try_from(random.below(3) + node % 45)?];
        let duration = usual + random.below_i64(120);
        let start = time - if index % 17 == 0 { 4_000 } else { 0 };
        let mut row = kernel(pid, name, start, duration);
        row.mangled_name = mangled;
        row.stream_id = if index % 17 == 0 { 11 } else { 7 };
        (row.grid_x, row.registers_per_thread) = (*grid, 32 + u32::try_from(node % 5)? * 16);
        row.correlation_id = u32::try_from(step)?;
        (row.graph_id, row.graph_node_id) = (Some(3), Some((3 << 32) | node));
        row.window = 1 + u32::try_from(index * 3 / kernels.max(1))?;
        rows.push(row);
        time += duration + 300 + random.below_i64(200);
        if rows.len() == SEGMENT_ROWS {
            guest.seal(&mut rows)?;
        }
    }
    guest.seal(&mut rows)?;
    guest.seal(&mut copies)?;
    guest.seal(&mut fills)?;
    end_guest(guest, time, cut_off)
}

fn end_guest(mut guest: SyntheticGuest, time: i64, cut_off: bool) -> anyhow::Result<()> {
    let length = (time - BEGIN_NS) / 3;
    let mut windows = WindowsBuilder::default();
    guest.process.windows.clear();
    for number in 1..=3_u32 {
        let start_ns = BEGIN_NS + length * i64::from(number - 1);
        let end_ns = (!cut_off || number < 3).then_some(start_ns + length);
        let trigger = "profiler".to_owned();
        windows.push(WindowRow {
            pid: guest.process.pid,
            window: number,
            start_ns,
            end_ns,
            trigger: &trigger,
            name: None,
        });
        guest.process.windows.push(colonel::schema::manifest::Window {
            number,
            start_ns,
            end_ns,
            trigger,
            name: None,
            sealed_ns: None,
            sampled: false,
        });
    }
    guest.seal(&mut windows)?;
    if !cut_off {
        return Ok(guest.end(time)?);
    }
    guest.process.losses.push(Loss {
        pid: None,
        kind: "kernels".to_owned(),
        reason: "invalid_timestamp".to_owned(),
        count: Some(3),
        first_ns: BEGIN_NS,
        last_ns: time,
    });
    let sealed = guest.process.rows.clone();
    let received = sealed
        .iter()
        .map(|(table, rows)| (table.clone(), rows + u64::from(table == "kernels") * 412))
        .collect();
    guest.write_progress(&Progress { received, sealed })?;
    Ok(guest.write_process()?)
}
