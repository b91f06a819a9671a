//! `colonel compare`: two sessions side by side, by kernel, layer or kind of step.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;

use super::exit_code;
use super::output::{answer, answer_json, talk};
use super::report::{refuse, write};
use super::sessions_dir::SessionsDirArgs;
use crate::analysis::Comparison;
use crate::analysis::compare::{By, CountedRow, Regression, Unit, counted};
use crate::report::{CompareJson, Compared, compare_html, compare_markdown, compare_text, terminal_width};
use crate::session::{SESSION_CHANGED, Selection, Session, SessionsDir};

/// Rows of the table, unless told otherwise.
const DEFAULT_LIMIT: usize = 20;

/// Put two sessions side by side: what became slower, by how much, and whether that may be chance
#[derive(Debug, clap::Args)]
pub struct Args {
    /// First session, the one that is compared with: an id, the first digits of one, `latest`, or a session's folder
    #[arg(value_name = "A")]
    a: OsString,
    /// Second session
    #[arg(value_name = "B")]
    b: OsString,
    /// Rows: kernels by name, parts of the model, or kinds of steps
    #[arg(long, value_name = "WHAT", default_value = "kernel")]
    by: ByArg,
    /// Only this window of A, by number or name, with the windows within it
    #[arg(long, value_name = "N|NAME")]
    window_a: Option<String>,
    /// Only this window of B
    #[arg(long, value_name = "N|NAME")]
    window_b: Option<String>,
    /// Exit with 1 if B is slower than A by more than this, surely, and with 3 if that can't be told
    #[arg(long, value_name = "PERCENT", value_parser = percentage)]
    fail_on_regression: Option<f64>,
    /// Print JSON: all rows unless limited
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// How to print; `html` writes a page into a file
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// File for the page [default: colonel-A-B.html]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Overwrite what is there
    #[arg(long)]
    force: bool,
    /// Rows shown, what contributes most to the difference first; 0 for all [default: 20, with --json all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    sessions: SessionsDirArgs,
}

/// What `--by` takes.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ByArg {
    Kernel,
    Layer,
    Step,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Md,
    Html,
}

/// `3%` is 0.03.
fn percentage(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').map(str::trim_end);
    let percent: Option<f64> = number.and_then(|number| number.parse().ok());
    match percent.filter(|percent| percent.is_finite() && *percent >= 0.0) {
        Some(percent) => Ok(percent / 100.0),
        None => Err("expected a percentage that is not negative, such as `3%` or `0.5%`".to_owned()),
    }
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let sessions = args.sessions.resolve()?;
    let is_page = args.format == Format::Html;
    if args.output.is_some() && !is_page {
        bail!("only `--format html` writes a file: leave `--output` away, or redirect stdout");
    }
    let limit = match (args.limit, args.json || is_page) {
        (Some(0), _) | (None, true) => None,
        (Some(limit), _) => Some(limit),
        (None, false) => Some(DEFAULT_LIMIT),
    };
    let ([a, b], comparison, counted) = read(args, &sessions)?;
    let compared = Compared {
        sessions: [&a, &b],
        windows: [args.window_a.as_deref(), args.window_b.as_deref()],
        comparison: &comparison,
        counted: &counted,
        limit,
    };
    match args.format {
        _ if args.json => answer_json(&CompareJson::new(compared))?,
        Format::Text => answer(&compare_text(compared, terminal_width()))?,
        Format::Md => answer(&compare_markdown(compared))?,
        Format::Html => {
            let default = || format!("colonel-{}-{}.html", a.manifest().id, b.manifest().id).into();
            let path = args.output.clone().unwrap_or_else(default);
            refuse(&path, args.force)?;
            write(&path, &compare_html(compared), args.force)?;
            answer(&format!("{}\n", path.display()))?;
        }
    }
    let Some(limit) = args.fail_on_regression else {
        return Ok(ExitCode::SUCCESS);
    };
    let (code, words) = judge(&comparison, limit);
    talk(&words);
    Ok(ExitCode::from(code))
}

/// What the limit makes of it.
fn judge(comparison: &Comparison, limit: f64) -> (u8, String) {
    let percent = limit * 100.0;
    match comparison.regression(limit) {
        Regression::No => (exit_code::YES, format!("no regression of more than {percent} %")),
        Regression::Yes => (
            exit_code::NO,
            format!("regression: B is slower than A by more than {percent} %"),
        ),
        Regression::CannotTell => (
            exit_code::CANNOT_TELL,
            match &comparison.why_no_interval {
                Some(why) => format!("can't tell whether B is slower by more than {percent} %: {why}"),
                None => format!(
                    "can't tell whether B is slower by more than {percent} %: record more steps, so that the interval gets \
                     narrower"
                ),
            },
        ),
    }
}

/// The launcher may compact a session while it is read: then both are read again.
fn read(args: &Args, sessions: &SessionsDir) -> anyhow::Result<([Session; 2], Comparison, Vec<CountedRow>)> {
    const ATTEMPTS: u32 = 3;
    let by = match args.by {
        ByArg::Kernel => By::Kernel,
        ByArg::Layer => By::Layer,
        ByArg::Step => By::Step,
    };
    let mut attempt = 1;
    loop {
        let (a, b) = (Session::open(sessions, &args.a)?, Session::open(sessions, &args.b)?);
        let find = |session: &Session, window: &Option<String>| {
            let window = window.as_deref();
            window
                .map(|window| Selection::find(session.manifest(), window))
                .transpose()
        };
        let (in_a, in_b) = (find(&a, &args.window_a)?, find(&b, &args.window_b)?);
        let is_same = a.path().canonicalize().ok() == b.path().canonicalize().ok();
        if is_same && in_a.as_ref().map(Selection::windows) == in_b.as_ref().map(Selection::windows) {
            bail!(
                "A and B are both session `{}`: name another session, or two windows of it with `--window-a` and `--window-b`",
                a.manifest().id
            );
        }
        let comparison = Comparison::of([&a, &b], [in_a.as_ref(), in_b.as_ref()], by)?;
        let changed = comparison
            .problems
            .iter()
            .any(|problem| problem.code == SESSION_CHANGED);
        if by != By::Kernel && comparison.unit == Unit::Launch {
            bail!(
                "layers and kinds of steps need steps in both sessions; `colonel show --by step` says of each which it has, and \
                 what gives them"
            );
        }
        if !changed || attempt == ATTEMPTS {
            let counted = counted([&a, &b], [in_a.as_ref(), in_b.as_ref()])?;
            return Ok(([a, b], comparison, counted));
        }
        attempt += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_say_so() {
        assert_eq!(percentage("3%"), Ok(0.03));
        assert_eq!(percentage("0.5 %"), Ok(0.005));
        assert_eq!(percentage("0%"), Ok(0.0));
        for wrong in ["3", "", "%", "-1%", "nan%", "inf%", "three%", "3%%"] {
            assert!(percentage(wrong).is_err(), "{wrong}");
        }
    }
}
