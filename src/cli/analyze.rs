//! `colonel analyze`: what costs time in a session, and what to try.

use std::ffi::OsString;
use std::process::ExitCode;

use super::output::{answer, answer_json, talk};
use super::sessions_dir::SessionsDirArgs;
use super::show::read;
use crate::analysis::findings::Findings;
use crate::report::{Endpoint, FindingsJson, findings_markdown, findings_text, terminal_width};
use crate::schema::env;

/// Find what costs time in a session
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Session: an id, the first digits of one, `latest`, or a session's folder
    #[arg(default_value = "latest", value_name = "ID")]
    session: OsString,
    /// Print JSON
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// How to print
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// Show the SQL behind each finding, for DuckDB or `colonel query`
    #[arg(long)]
    sql: bool,
    /// Only this window, by number or name, with the windows within it
    #[arg(long, value_name = "N|NAME")]
    window: Option<String>,
    /// Send the findings to a language model for a narrative: an OpenAI-compatible endpoint, such as a local vLLM's
    /// `http://localhost:8000/v1`. The key, if it needs one, is read from COLONEL_LLM_API_KEY
    #[arg(long, value_name = "URL")]
    llm: Option<String>,
    /// The model asked [default: the first that the endpoint lists]
    #[arg(long, value_name = "NAME", requires = "llm")]
    llm_model: Option<String>,
    #[command(flatten)]
    sessions: SessionsDirArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Md,
}

/// Runs the command. Findings are an answer, so the exit code is 0 with and without any.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let sessions = args.sessions.resolve()?;
    let key = std::env::var(env::LLM_API_KEY).ok();
    let endpoint = args
        .llm
        .as_deref()
        .map(|url| Endpoint::new(url, args.llm_model.clone(), key));
    let endpoint = endpoint.transpose()?;
    let window = args.window.as_deref();
    let (session, findings) = read(&sessions, &args.session, window, Findings::of, |findings| {
        &findings.problems
    })?;
    let narrative = endpoint.map(|endpoint| endpoint.narrate(&findings)).transpose();
    // The findings are there whether or not the model is.
    let (narrative, failure) = match narrative {
        Ok(narrative) => (narrative, None),
        Err(error) => (None, Some(error)),
    };
    if args.json {
        answer_json(&FindingsJson::new(&session, &findings, window, narrative.as_deref()))?;
    } else {
        let mut text = match args.format {
            Format::Text => findings_text(&session, &findings, args.sql, terminal_width()),
            Format::Md => findings_markdown(&session, &findings),
        };
        if let Some(narrative) = &narrative {
            text += &format!("\n{}\n", without_controls(narrative));
        }
        answer(&text)?;
    }
    match failure {
        Some(error) => Err(error.into()),
        None => {
            if !args.json && args.format == Format::Text {
                talk(&format!("next: colonel report{}", args.sessions.option()));
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// A model's words on a terminal: lines, and nothing that moves the cursor.
fn without_controls(text: &str) -> String {
    text.chars().filter(|c| *c == '\n' || !c.is_control()).collect()
}
