//! `colonel counters`: which hardware counters there are, and the evaluation of samples that was left undone.

use std::path::PathBuf;
use std::process::ExitCode;

use super::exit_code;
use super::output::answer;
use crate::counters::shard::{self, Shard};
use crate::report::{rows_table, terminal_width};
use crate::schema::counters::METRICS;

/// List the hardware counters that `colonel run --counters` samples
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// A share of an evaluation, in a process of its own
    #[command(name = shard::COMMAND[1], hide = true)]
    Shard(ShardArgs),
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
        Some(Action::Shard(args)) => evaluate_shard(args),
    }
}

fn list() -> anyhow::Result<ExitCode> {
    let rows = METRICS.iter().map(|metric| {
        let cells = [metric.set, metric.name, metric.unit, metric.doc];
        cells.map(str::to_owned).to_vec()
    });
    let heads = ["set", "metric", "unit", "meaning"].map(str::to_owned);
    let table = rows_table(&heads, &rows.collect::<Vec<_>>(), terminal_width());
    answer(&table)?;
    Ok(ExitCode::from(exit_code::YES))
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
