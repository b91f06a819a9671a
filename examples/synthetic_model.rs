//! Makes a session of a language model's kernels without a GPU, and says how many were given the right layer and how long
//! that took: for the Python side's tests and for measurements.
//!
//!     cargo run --release --example synthetic_model -- SESSIONS_DIR KERNELS full|piecewise|eager sealed|compacted [ranges]

use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, bail};
use arrow_array::cast::AsArray as _;
use arrow_array::types::Int32Type;
use arrow_array::{Array as _, ArrayAccessor as _, StringArray};
use colonel::analysis::LayerSummary;
use colonel::schema::columns::TableBuilder as _;
use colonel::schema::tables::{DevicesBuilder, KernelsBuilder};
use colonel::session::synthetic::model::{Engine, Launched, Model};
use colonel::session::synthetic::{SyntheticGuest, h100, model_kernels};
use colonel::session::{NewSession, Session, SessionWriter, SessionsDir};

const USAGE: &str = "usage: synthetic_model SESSIONS_DIR KERNELS full|piecewise|eager sealed|compacted [ranges]";
const BEGIN_NS: i64 = 1_795_000_000_000_000_000;
const PID: u32 = 4711;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [folder, kernels, engine, end, rest @ ..] = args.as_slice() else {
        bail!(USAGE)
    };
    let engine = match engine.as_str() {
        "full" => Engine::Full,
        "piecewise" => Engine::Piecewise,
        "eager" => Engine::Eager,
        _ => bail!(USAGE),
    };
    let new = NewSession {
        command: vec!["python".to_owned(), "serve.py".to_owned()],
        gate: "process".to_owned(),
        ..NewSession::default()
    };
    let mut writer = SessionWriter::create(&SessionsDir::resolve(Some(Path::new(folder)))?, new)?;
    let truth = write_guest(writer.path(), engine, kernels.parse().context(USAGE)?, !rest.is_empty())?;
    writer.seal(None, &mut |_, _, _| {})?;
    let start = Instant::now();
    if end == "compacted" {
        writer.compact(&mut |_, _, _| {})?;
    }
    let compact_s = start.elapsed().as_secs_f64();
    let session = Session::load(writer.path())?;
    let start = Instant::now();
    let right = right(&session, &truth)?;
    let scan_s = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let summary = LayerSummary::of(&session, None)?;
    let summary_s = start.elapsed().as_secs_f64();
    let line = serde_json::json!({
        "session": session.path(), "kernels": summary.kernel_count,
        "of_layers": truth.iter().filter(|layer| layer.is_some()).count(), "right": right.0, "wrong_outside": right.1,
        "compact_s": compact_s, "scan_s": scan_s, "summary_s": summary_s,
    });
    writeln!(std::io::stdout().lock(), "{line}")?;
    Ok(())
}

/// Rounds of one prefill and 60 decode steps, some kernels from elsewhere. Gives the layer of each kernel.
fn write_guest(session: &Path, engine: Engine, kernels: usize, with_ranges: bool) -> anyhow::Result<Vec<Option<u16>>> {
    let mut guest = SyntheticGuest::new(session, PID);
    let mut devices = DevicesBuilder::default();
    devices.push(h100(PID));
    guest.seal(&mut devices)?;
    let mut truth = Vec::with_capacity(kernels + 30_000);
    let mut model = Model {
        layers: 24,
        engine,
        foreign: 5,
        lost: 0,
        first_id: 1,
    };
    let mut time = BEGIN_NS;
    for round in 0_u32.. {
        if truth.len() >= kernels {
            break;
        }
        let batch = 1 << (round % 4);
        let steps: Vec<_> = std::iter::once((true, batch))
            .chain(std::iter::repeat_n((false, batch), 60))
            .collect();
        let launched = model.launch(&steps);
        let path = |kernel: &Launched| {
            let phase = if kernel.is_prefill { "prefill" } else { "decode" };
            with_ranges.then(|| format!("{phase} batch={}", kernel.batch))
        };
        let paths: Vec<_> = launched.iter().map(path).collect();
        let mut rows = KernelsBuilder::default();
        let mut end = time;
        for (index, (mut row, path)) in model_kernels(PID, &launched, time).zip(&paths).enumerate() {
            row.end_ns += (index as i64 * 7919) % 997;
            row.nvtx_path = path.as_deref();
            end = row.end_ns;
            rows.push(row);
        }
        guest.seal(&mut rows)?;
        time = end + 5_000_000;
        model.first_id = launched
            .last()
            .map_or(0, |kernel| kernel.correlation_id.wrapping_add(9));
        truth.extend(launched.iter().map(|kernel| kernel.layer));
    }
    guest.end(time)?;
    Ok(truth)
}

/// Kernels of layers with the right layer, and others with any.
fn right(session: &Session, truth: &[Option<u16>]) -> anyhow::Result<(usize, usize)> {
    let (mut right, mut wrong, mut at) = (0, 0, 0);
    let (scans, _) = session.layered_kernels(&["layer"])?;
    for batch in scans.into_iter().flatten() {
        let batch = batch?;
        let layers = batch.column(0).as_dictionary::<Int32Type>();
        let texts = layers.downcast_dict::<StringArray>().context("`layer` is no text")?;
        for row in 0..batch.num_rows() {
            let found = layers.is_valid(row).then(|| texts.value(row));
            match truth[at] {
                Some(layer) => right += usize::from(found.and_then(|found| found.parse().ok()) == Some(layer)),
                None => wrong += usize::from(found.is_some()),
            }
            at += 1;
        }
    }
    Ok((right, wrong))
}
