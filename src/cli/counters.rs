//! `colonel counters`: which hardware counters there are, and the evaluation of samples that was left undone.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use super::exit_code;
use super::output::{answer, talk};
use super::sessions_dir::SessionsDirArgs;
use crate::counters;
use crate::counters::shard::{self, Shard};
use crate::report::{rows_table, terminal_width};
use crate::schema::counters::{self as metrics, BUNDLES, METRICS};
use crate::schema::manifest::Session as Manifest;
use crate::session::{LATEST, Life, Session, SessionWriter};

/// List the hardware counters that `colonel run --counters` samples
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Turn raw samples into rows of the table `counters`, where the run left that undone
    ///
    /// So does a run with --no-analyze, one that was interrupted, or one whose launcher was killed. It needs no GPU, but
    /// the libcupti that sampled, or one that knows the chip.
    Evaluate(EvaluateArgs),
    /// A share of an evaluation, in a process of its own
    #[command(name = shard::COMMAND[1], hide = true)]
    Shard(ShardArgs),
}

#[derive(Debug, clap::Args)]
struct EvaluateArgs {
    /// Session: an id, the first digits of one, or `latest`
    #[arg(default_value = LATEST, value_name = "ID")]
    id: OsString,
    /// Another libcupti than the one that sampled
    #[arg(long, value_name = "FILE")]
    cupti: Option<PathBuf>,
    /// Leave the raw samples in the session
    #[arg(long)]
    keep_samples: bool,
    #[command(flatten)]
    sessions: SessionsDirArgs,
}

#[derive(Debug, clap::Args)]
struct ShardArgs {
    #[arg(long)]
    session: PathBuf,
    #[arg(long)]
    raw: PathBuf,
    #[arg(long)]
    into: PathBuf,
    #[arg(long)]
    number: usize,
    #[arg(long)]
    of: usize,
    #[arg(long)]
    cupti: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.action {
        None => list(),
        Some(Action::Evaluate(args)) => evaluate(args),
        Some(Action::Shard(args)) => evaluate_shard(args),
    }
}

fn list() -> anyhow::Result<ExitCode> {
    let rows = METRICS.iter().map(|metric| {
        let cells = [metric.set, metric.name, metric.unit, metric.doc];
        cells.map(str::to_owned).to_vec()
    });
    let heads = ["set", "metric", "unit", "meaning"].map(str::to_owned);
    let by_set = rows_table(&heads, &rows.collect::<Vec<_>>(), terminal_width());
    let sets = BUNDLES.iter().map(|bundle| {
        let every = metrics::interval(&metrics::wanted(bundle.name).0);
        let cells = [bundle.name, &format!("{every:?}"), &bundle.words.join(", "), bundle.doc];
        cells.map(str::to_owned).to_vec()
    });
    let heads = ["set", "every", "has", "for"].map(str::to_owned);
    let sets = rows_table(&heads, &sets.collect::<Vec<_>>(), terminal_width());
    answer(&format!("{by_set}\n{sets}"))?;
    Ok(ExitCode::from(exit_code::YES))
}

fn evaluate(args: &EvaluateArgs) -> anyhow::Result<ExitCode> {
    let session = Session::open(&args.sessions.resolve()?, &args.id)?;
    let id = &session.manifest().id;
    if matches!(session.life(), Life::Running(_)) {
        talk(&format!(
            "session {id} still runs; its samples are evaluated when it has ended"
        ));
        return Ok(ExitCode::from(exit_code::NO));
    }
    if counters::raw_files(session.path())?.is_empty() {
        talk(&format!(
            "session {id} has no raw samples: they were evaluated, or none were taken"
        ));
        return Ok(ExitCode::from(exit_code::NO));
    }
    let options = counters::Options {
        keep: args.keep_samples,
        cupti: args.cupti.as_deref(),
        stop: &AtomicBool::new(false),
    };
    let (evaluation, failures) = counters::evaluate(session.path(), &[], options, &mut |_, _| {})?;
    let note = |manifest: &mut Manifest| {
        manifest
            .problems
            .retain(|problem| problem.code != counters::NOT_EVALUATED);
        manifest.evaluation.get_or_insert_default().add(&evaluation);
    };
    SessionWriter::amend(&session, "counters", note, &mut |_, _, _| {})?;
    talk(&format!(
        "session {id}: {} samples became {} rows",
        evaluation.samples, evaluation.rows
    ));
    for failure in &failures {
        talk(failure);
    }
    let code = if failures.is_empty() {
        exit_code::YES
    } else {
        exit_code::NO
    };
    Ok(ExitCode::from(code))
}

fn evaluate_shard(args: &ShardArgs) -> anyhow::Result<ExitCode> {
    shard::run(&Shard {
        session: args.session.clone(),
        raw: args.raw.clone(),
        into: args.into.clone(),
        number: args.number,
        of: args.of,
        cupti: args.cupti.clone(),
    })?;
    Ok(ExitCode::from(exit_code::YES))
}
