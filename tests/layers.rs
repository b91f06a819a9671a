//! Layers on disk and on the terminal: a model's kernels in a session, compacted or not.

#![allow(missing_docs, reason = "a test is its own documentation")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, UInt32Type};
use arrow_array::{Array as _, StringArray};
use colonel::analysis::{LayerSummary, Phase};
use colonel::schema::columns::TableBuilder as _;
use colonel::schema::tables::KernelsBuilder;
use colonel::session::synthetic::bottlenecks;
use colonel::session::synthetic::model::{Engine, Launched, Model};
use colonel::session::synthetic::{SyntheticGuest, model_kernels};
use colonel::session::{NewSession, Session, SessionWriter, SessionsDir};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

const CREATED_NS: i64 = 1_795_497_123_000_000_000;

struct Sessions {
    folder: tempfile::TempDir,
}

impl Sessions {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A session of one process. `paths` says in which ranges a kernel lies, and in which it was launched.
    fn write(&self, launched: &[Launched], compact: bool, paths: impl Fn(&Launched) -> Paths) -> PathBuf {
        let new = NewSession {
            command: vec!["python".to_owned(), "decode.py".to_owned()],
            gate: "process".to_owned(),
            ..NewSession::default()
        };
        let mut writer = SessionWriter::create(&SessionsDir::resolve(Some(self.folder.path())).unwrap(), new).unwrap();
        let mut guest = SyntheticGuest::new(writer.path(), 4711);
        let paths: Vec<Paths> = launched.iter().map(paths).collect();
        let mut rows = model_kernels(4711, launched, CREATED_NS).zip(&paths);
        for _ in 0..launched.len().div_ceil(2500) {
            let mut builder = KernelsBuilder::default();
            for (mut row, (path, launch)) in rows.by_ref().take(2500) {
                (row.nvtx_path, row.launch_nvtx_path) = (path.as_deref(), launch.as_deref());
                builder.push(row);
            }
            guest.seal(&mut builder).unwrap();
        }
        guest.end(CREATED_NS + 2_000_000_000).unwrap();
        writer.seal(None, &mut |_, _, _| {}).unwrap();
        if compact {
            writer.compact(&mut |_, _, _| {}).unwrap();
        }
        writer.manifest_mut().id = "5e27fc0e".to_owned();
        writer.write().unwrap();
        let path = self.folder.path().join("5e27fc0e");
        fs::rename(writer.path(), &path).unwrap();
        path
    }

    fn show(&self, args: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_colonel"));
        command
            .arg("show")
            .args(args)
            .env("COLONEL_SESSIONS_DIR", self.folder.path());
        let output = command.output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn model(engine: Engine) -> Vec<Launched> {
    let model = Model {
        layers: 24,
        engine,
        foreign: 0,
        lost: 0,
        first_id: 1000,
    };
    let round = |batch| std::iter::once((true, batch)).chain(std::iter::repeat_n((false, batch), 16));
    let steps: Vec<_> = [4, 1, 4].into_iter().flat_map(round).collect();
    model.launch(&steps)
}

/// What structure says of a kernel: its layer, or that it is the final norm.
fn by_structure(kernel: &Launched) -> Option<String> {
    let is_final_norm = kernel.layer.is_none() && kernel.name.contains("norm");
    let layer = kernel.layer.map(|layer| layer.to_string());
    layer.or_else(|| is_final_norm.then(|| "norm".to_owned()))
}

/// `nvtx_path` and `launch_nvtx_path`.
type Paths = (Option<String>, Option<String>);

fn nothing(_: &Launched) -> Paths {
    (None, None)
}

fn alone(path: String) -> Paths {
    (Some(path.clone()), Some(path))
}

/// Layer and source of each kernel, in order of start.
fn layers(path: &std::path::Path) -> Vec<(Option<String>, Option<String>)> {
    let session = Session::load(path).unwrap();
    let (scans, problems) = session.layered_kernels(&["layer", "layer_source"]).unwrap();
    assert!(problems.is_empty());
    let mut layers = Vec::new();
    for batch in scans.into_iter().flatten() {
        let batch = batch.unwrap();
        let text = |column: usize, row: usize| {
            let column = batch.column(column).as_dictionary::<Int32Type>();
            let texts = column.downcast_dict::<StringArray>().unwrap();
            (!column.is_null(row)).then(|| arrow_array::ArrayAccessor::value(&texts, row).to_owned())
        };
        layers.extend((0..batch.num_rows()).map(|row| (text(0, row), text(1, row))));
    }
    layers
}

#[test]
fn compaction_writes_what_a_reader_would_find() {
    for engine in [Engine::Full, Engine::Piecewise, Engine::Eager] {
        let launched = model(engine);
        let expected: Vec<_> = launched
            .iter()
            .map(|kernel| {
                let layer = by_structure(kernel);
                let source = layer.as_ref().map(|_| "structure".to_owned());
                (layer, source)
            })
            .collect();
        for compact in [true, false] {
            let sessions = Sessions::new();
            let path = sessions.write(&launched, compact, nothing);
            assert_eq!(layers(&path), expected, "{engine:?}, compacted: {compact}");
            if compact {
                let written: usize = Session::load(&path)
                    .unwrap()
                    .scan("kernels", &["layer", "device_id"])
                    .unwrap()
                    .map(|batch| batch.column(0).len() - batch.column(0).null_count())
                    .sum();
                assert_eq!(written, launched.iter().filter_map(by_structure).count());
            }
        }
    }
}

/// Kernels of a file, row by row, in order of start.
fn rows_of(files: &[PathBuf]) -> Vec<String> {
    let mut rows = Vec::new();
    for file in files {
        let file = fs::File::open(file).unwrap();
        for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            rows.extend((0..batch.num_rows()).map(|row| format!("{:?}", KernelsBuilder::row(&batch, row))));
        }
    }
    rows
}

#[test]
fn readers_of_files_get_the_columns_that_compaction_would_write() {
    let folder = tempfile::tempdir().unwrap();
    let dir = SessionsDir::resolve(Some(folder.path())).unwrap();
    let mut writer = SessionWriter::create(&dir, NewSession::default()).unwrap();
    bottlenecks::write(writer.path(), CREATED_NS).unwrap();
    writer.seal(None, &mut |_, _, _| {}).unwrap();
    let filled = folder.path().join("filled");
    let (files, problems) = Session::load(writer.path()).unwrap().write_kernels(&filled).unwrap();
    assert!(problems.is_empty(), "{problems:?}");
    let filled = rows_of(&files);
    writer.compact(&mut |_, _, _| {}).unwrap();
    let table = writer.path().join("kernels");
    let compacted = bottlenecks::PIDS.map(|pid| table.join(format!("{pid}-1/000001.parquet")));
    assert_eq!(filled, rows_of(&compacted));
    for column in [
        "nvtx_path",
        "layer",
        "layer_source",
        "waves",
        "theoretical_occupancy_pct",
    ] {
        let some = format!(" {column}: Some(");
        assert!(filled.iter().any(|row| row.contains(&some)), "{column}");
    }
}

#[test]
fn ranges_win_over_structure() {
    let launched = model(Engine::Full);
    let path_and_layer = |kernel: &Launched| match kernel.layer {
        Some(layer @ (0 | 7)) => Some((format!("forward/model.layers.{layer}/mlp"), layer.to_string())),
        None if kernel.name.starts_with("nvjet") => Some(("logits/lm_head".to_owned(), "lm_head".to_owned())),
        _ => None,
    };
    let path_of = |kernel: &Launched| {
        let path = path_and_layer(kernel).map(|(path, _)| path);
        alone(path.unwrap_or_else(|| "forward".to_owned()))
    };
    for compact in [true, false] {
        let found = layers(&Sessions::new().write(&launched, compact, path_of));
        for (kernel, (layer, source)) in launched.iter().zip(found) {
            let said = path_and_layer(kernel).map(|(_, layer)| (layer, "nvtx"));
            let expected = said.or(by_structure(kernel).map(|part| (part, "structure")));
            assert_eq!(
                layer.as_deref().zip(source.as_deref()),
                expected.as_ref().map(|(layer, by)| (layer.as_str(), *by))
            );
        }
    }
}

#[test]
fn steps_and_phases_are_counted() {
    for engine in [Engine::Full, Engine::Piecewise, Engine::Eager] {
        let launched = model(engine);
        for compact in [true, false] {
            let sessions = Sessions::new();
            let session = Session::load(&sessions.write(&launched, compact, nothing)).unwrap();
            let summary = LayerSummary::of(&session, None).unwrap();
            let steps = |phase| -> Vec<u64> {
                let classes = summary.classes.iter().filter(|class| class.phase == phase);
                let mut steps: Vec<_> = classes.map(|class| class.steps).collect();
                steps.sort_unstable();
                steps
            };
            assert_eq!(
                (steps(Phase::Prefill), steps(Phase::Decode)),
                (vec![1, 2], vec![16, 32]),
                "{engine:?}"
            );
            let of_layers = launched.iter().filter_map(by_structure).count() as u64;
            assert_eq!((summary.layered_by_structure, summary.layered_by_nvtx), (of_layers, 0));
            assert_eq!(
                summary.phases.iter().map(|phase| phase.kernels).sum::<u64>(),
                launched.len() as u64
            );
            check_class(&summary, &launched);
        }
    }
}

/// The decode of batch 1: every kernel is 2 us long, with 1 us between, and steps are 100 us apart.
fn check_class(summary: &LayerSummary, launched: &[Launched]) {
    let class = summary.classes.iter().find(|class| class.steps == 16).unwrap();
    let mine = || launched.iter().filter(|kernel| kernel.batch == 1 && !kernel.is_prefill);
    assert_eq!(class.kernels, mine().count() as u64);
    assert_eq!(class.kernels_ns, 2_000 * i64::try_from(class.kernels).unwrap());
    assert_eq!(class.busy.total_ns, class.kernels_ns);
    assert_eq!(
        class.durations.total_ns,
        class.kernels_ns + 1_000 * i64::try_from(class.kernels - 16).unwrap()
    );
    let between = class.between.unwrap();
    assert_eq!((between.count, between.min_ns, between.max_ns), (16, 101_000, 101_000));
    let layered: u64 = class
        .parts
        .iter()
        .filter(|part| part.first_layer.is_some())
        .map(|part| part.kernels)
        .sum();
    assert_eq!(layered, mine().filter(|kernel| kernel.layer.is_some()).count() as u64);
    let last = class.parts.iter().filter_map(|part| part.last_layer).max();
    assert_eq!(last, Some(23));
}

#[test]
fn a_window_limits_what_is_shown() {
    let sessions = Sessions::new();
    let path = sessions.write(&model(Engine::Eager), true, nothing);
    let session = Session::load(&path).unwrap();
    let windows: Vec<u32> = session
        .scan("kernels", &["window"])
        .unwrap()
        .flat_map(|batch| batch.column(0).as_primitive::<UInt32Type>().values().to_vec())
        .collect();
    assert!(windows.iter().all(|&window| window == 1));
    assert_eq!(
        sessions.show(&["--by", "step", "--window", "1"]),
        sessions.show(&["--by", "step"])
    );
}

#[test]
fn the_views_are_as_they_were() {
    let sessions = Sessions::new();
    sessions.write(&model(Engine::Full), true, nothing);
    for by in ["layer", "step", "phase", "nvtx"] {
        insta::assert_snapshot!(format!("full_{by}"), sessions.show(&["--by", by]));
    }
    let limited = sessions.show(&["--by", "layer", "--limit", "1"]);
    assert!(limited.contains("and 3 kinds more: --limit 0 shows all"), "{limited}");
    let json: serde_json::Value = serde_json::from_str(&sessions.show(&["--by", "step", "--json"])).unwrap();
    assert_eq!(
        (&json["by"], json["steps"].as_array().unwrap().len()),
        (&"step".into(), 4)
    );
    assert!(json.get("phases").is_none() && json.get("ranges").is_none());
}

#[test]
fn ranges_name_phases_and_batches() {
    let sessions = Sessions::new();
    let ranges = |kernel: &Launched| {
        let phase = if kernel.is_prefill { "prefill" } else { "decode" };
        alone(format!("{phase} batch={}/forward", kernel.batch))
    };
    sessions.write(&model(Engine::Eager), true, ranges);
    for by in ["step", "nvtx"] {
        insta::assert_snapshot!(format!("ranges_{by}"), sessions.show(&["--by", by]));
    }
}

/// The ranges of vLLM: around steps and their parts at launch, and in a graph those of its capture, which in compiled code
/// are around attention alone.
fn of_vllm(kernel: &Launched) -> Paths {
    let (phase, tokens) = if kernel.is_prefill {
        ("prefill", 64)
    } else {
        ("decode", 1)
    };
    let step = format!("{phase} batch={} tokens={}", kernel.batch, tokens * kernel.batch);
    let is = |names: &[&str]| names.iter().any(|name| kernel.name.starts_with(name));
    let attention = kernel.layer.filter(|_| is(&["device_kernel"]));
    let attention = attention.map(|layer| format!("model.layers.{layer}.self_attn.attn"));
    match (kernel.layer, attention) {
        (_, attention) if kernel.node.is_some() => (attention, Some(format!("{step}/forward"))),
        (_, Some(attention)) => alone(format!("{step}/forward/{attention}")),
        (Some(_), None) => alone(format!("{step}/forward")),
        (None, _) if is(&["_gumbel", "_bias", "reduce"]) => alone(format!("{step}/sampling")),
        (None, _) if is(&["nvjet", "vectorized_gather"]) => alone(format!("{step}/logits/lm_head")),
        (None, _) => alone(step),
    }
}

#[test]
fn the_views_of_vllm_with_ranges_are_as_they_were() {
    let sessions = Sessions::new();
    let launched = model(Engine::Full);
    let path = sessions.write(&launched, true, of_vllm);
    for by in ["layer", "step", "phase", "nvtx"] {
        insta::assert_snapshot!(format!("vllm_{by}"), sessions.show(&["--by", by, "--limit", "12"]));
    }
    for ((layer, source), kernel) in layers(&path).into_iter().zip(&launched) {
        let is = |names: &[&str]| names.iter().any(|name| kernel.name.starts_with(name));
        let (part, by) = match kernel.layer {
            Some(number) if is(&["device_kernel"]) => (number.to_string(), "nvtx"),
            Some(number) => (number.to_string(), "structure"),
            None if is(&["_gumbel", "_bias", "reduce"]) => ("sampling".to_owned(), "nvtx"),
            None if is(&["nvjet", "vectorized_gather"]) => ("lm_head".to_owned(), "nvtx"),
            None if is(&["triton"]) => ("norm".to_owned(), "structure"),
            None => {
                assert_eq!((layer, source), (None, None), "{}", kernel.name);
                continue;
            }
        };
        assert_eq!(
            (layer.as_deref(), source.as_deref()),
            (Some(part.as_str()), Some(by)),
            "{}",
            kernel.name
        );
    }
}

#[test]
fn without_layers_it_says_what_gives_them() {
    let sessions = Sessions::new();
    let mut launched = model(Engine::Eager);
    launched.truncate(300);
    sessions.write(&launched, true, nothing);
    for by in ["layer", "step", "phase"] {
        let text = sessions.show(&["--by", by]);
        assert!(
            text.contains("\nno layers: no NVTX range names one, and the kernels do not repeat"),
            "{text}"
        );
    }
}
