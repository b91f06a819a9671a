//! `colonel report`: a session as a page of HTML, as Markdown, or on the terminal.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use super::output::{answer, talk};
use super::sessions_dir::SessionsDirArgs;
use super::show::read;
use crate::analysis::SessionSummary;
use crate::analysis::findings::{Evidence, Findings};
use crate::report::{
    findings_markdown, findings_text, report_html, show_text, speed_markdown, sum_up, summary_markdown, terminal_width,
};
use crate::session::{Selection, Session};

/// Write a report of a session: one HTML file that needs no network
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Session: an id, the first digits of one, `latest`, or a session's folder
    #[arg(default_value = "latest", value_name = "ID")]
    session: OsString,
    /// File to write; with `--format md`, the folder for summary.md and bottlenecks.md [default: colonel-ID.html, colonel-ID]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What to write
    #[arg(long, value_name = "FORMAT", default_value = "html")]
    format: Format,
    /// Only this window, by number or name, with the windows within it
    #[arg(long, value_name = "N|NAME")]
    window: Option<String>,
    /// Overwrite what is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    sessions: SessionsDirArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A page
    Html,
    /// Two files of Markdown
    Md,
    /// The terminal
    Text,
}

/// Kernels shown on a terminal.
const TEXT_KERNELS: usize = 20;

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let sessions = args.sessions.resolve()?;
    if args.format == Format::Text && args.output.is_some() {
        bail!("`--format text` goes to stdout: leave `--output` away, or redirect it");
    }
    let window = args.window.as_deref();
    let (session, summary) = read(
        &sessions,
        &args.session,
        window,
        SessionSummary::of_windows,
        |summary| &summary.problems,
    )?;
    let selection = window
        .map(|window| Selection::find(session.manifest(), window))
        .transpose()?;
    let selection = selection.as_ref();
    let run = sum_up(&session, &summary);
    match args.format {
        Format::Html => {
            let path = target(args, &session, ".html");
            // Before the work, which may take a while.
            refuse(&path, args.force)?;
            let (page, _) = report_html(&session, &run, &summary, selection)?;
            write(&path, &page, args.force)?;
            answer(&format!("{}\n", path.display()))?;
        }
        Format::Md => {
            let folder = target(args, &session, "");
            let files = ["summary.md", "bottlenecks.md"].map(|name| folder.join(name));
            files.iter().try_for_each(|path| refuse(path, args.force))?;
            let evidence = Evidence::of(&session, selection, &mut |_, _| {})?;
            let speed = speed_markdown(evidence.speed_of_light());
            let findings = Findings::by(evidence, selection);
            fs::create_dir_all(&folder).with_context(|| format!("failed to make the folder `{}`", folder.display()))?;
            let texts = [
                summary_markdown(&session, &run, &summary) + &speed,
                findings_markdown(&session, &findings),
            ];
            for (path, text) in files.iter().zip(&texts) {
                write(path, text, args.force)?;
                answer(&format!("{}\n", path.display()))?;
            }
        }
        Format::Text => {
            let findings = Findings::of(&session, selection)?;
            answer(&show_text(
                &session,
                &run,
                &summary,
                Some(TEXT_KERNELS),
                terminal_width(),
            ))?;
            answer(&format!(
                "\n{}",
                findings_text(&session, &findings, false, terminal_width())
            ))?;
        }
    }
    if summary.kernel_count == 0 {
        talk("the session has no kernels: the report says why");
    }
    Ok(ExitCode::SUCCESS)
}

fn target(args: &Args, session: &Session, end: &str) -> PathBuf {
    let default = || PathBuf::from(format!("colonel-{}{end}", session.manifest().id));
    args.output.clone().unwrap_or_else(default)
}

pub(super) fn refuse(path: &Path, force: bool) -> anyhow::Result<()> {
    if path.is_dir() {
        bail!("`{}` is a folder: name a file with `-o FILE`", path.display());
    }
    if !force && path.exists() {
        bail!("`{}` exists and is not overwritten without `--force`", path.display());
    }
    Ok(())
}

/// Leaves no half of a file behind.
pub(super) fn write(path: &Path, text: &str, force: bool) -> anyhow::Result<()> {
    let write = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(!force).create(force).truncate(force);
        let mut file = options.open(path)?;
        file.write_all(text.as_bytes()).inspect_err(|_| {
            let _ = fs::remove_file(path);
        })
    };
    write().with_context(|| format!("failed to write `{}`", path.display()))
}
