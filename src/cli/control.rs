//! `colonel start`, `stop` and `status`: windows of processes that run.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::exit_code;
use super::sessions_dir::SessionsDirArgs;
use crate::run::control::{ControlError, Guest, ask_all, select};
use crate::run::words::{counted, nanoseconds};
use crate::schema::control::{Op, Reply};

/// Which processes, and how to answer.
#[derive(Debug, clap::Args)]
struct Target {
    /// Session (its id, the first digits, or `latest`) or pid; by default the only session that runs
    #[arg(value_name = "SESSION|PID")]
    which: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sessions: SessionsDirArgs,
}

/// Open a window in processes that run
#[derive(Debug, clap::Args)]
pub struct StartArgs {
    #[command(flatten)]
    target: Target,
    /// Close it by itself after this long, such as `10s`
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    window: Option<Duration>,
    /// Name for the window
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

/// Close every open window
#[derive(Debug, clap::Args)]
pub struct StopArgs {
    #[command(flatten)]
    target: Target,
}

/// Say what the guests of a session that runs do
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    target: Target,
}

/// Runs `colonel start`.
pub fn start(args: &StartArgs) -> anyhow::Result<ExitCode> {
    let for_ns = args
        .window
        .map(|window| u64::try_from(window.as_nanos()).unwrap_or(u64::MAX));
    let op = Op::Start {
        name: args.name.clone(),
        for_ns,
        nested: false,
    };
    ask(&args.target, &op, |reply| {
        let window = reply.window.map_or(String::new(), |number| format!("window {number} "));
        let closing = for_ns.map_or(String::new(), |ns| format!(", for {}", nanoseconds(ns)));
        format!("{window}open{closing}")
    })
}

/// Runs `colonel stop`.
pub fn stop(args: &StopArgs) -> anyhow::Result<ExitCode> {
    ask(&args.target, &Op::Stop { window: None }, |reply| {
        let window = reply.window.map_or(String::new(), |number| format!("window {number} "));
        format!("{window}closed, {} sealed so far", counted(reply.rows, "row"))
    })
}

/// Runs `colonel status`.
pub fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    ask(&args.target, &Op::Status, |reply| {
        let window = match (reply.open.as_slice(), reply.window) {
            ([], None) => String::new(),
            ([], Some(newest)) => format!(", window {newest}"),
            ([open], _) => format!(", window {open}"),
            (several, _) => {
                let numbers: Vec<String> = several.iter().map(u32::to_string).collect();
                format!(", windows {}", numbers.join(", "))
            }
        };
        format!("{}{window}, {} sealed so far", reply.state, counted(reply.rows, "row"))
    })
}

/// A process's answer as JSON.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    session: &'a str,
    pid: u32,
    name: &'a str,
    ok: bool,
    state: Option<&'a str>,
    window: Option<u32>,
    open: &'a [u32],
    rows: Option<u64>,
    error: Option<String>,
}

/// Asks, prints one line a process, and says no if one did not do it.
fn ask(target: &Target, op: &Op, words: impl Fn(&Reply) -> String) -> anyhow::Result<ExitCode> {
    let guests = select(&target.sessions.resolve()?, target.which.as_deref())?;
    let replies = ask_all(&guests, op);
    let mut out = io::stdout().lock();
    if target.json {
        let answers: Vec<Answer<'_>> = guests
            .iter()
            .zip(&replies)
            .map(|(guest, reply)| answer(guest, reply))
            .collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&answers)?)?;
    } else {
        for (guest, reply) in guests.iter().zip(&replies) {
            let said = match reply {
                Ok(reply) if reply.ok => words(reply),
                Ok(reply) => failure(reply),
                Err(error) => error.to_string(),
            };
            writeln!(out, "{}  {} (pid {}): {said}", guest.session, guest.name, guest.pid)?;
        }
    }
    let done = replies.iter().all(|reply| reply.as_ref().is_ok_and(|reply| reply.ok));
    Ok(ExitCode::from(if done { exit_code::YES } else { exit_code::NO }))
}

fn failure(reply: &Reply) -> String {
    reply
        .error
        .clone()
        .unwrap_or_else(|| format!("not done, it is {}", reply.state))
}

fn answer<'a>(guest: &'a Guest, reply: &'a Result<Reply, ControlError>) -> Answer<'a> {
    let (session, pid, name) = (guest.session.as_str(), guest.pid, guest.name.as_str());
    match reply {
        Ok(reply) => Answer {
            session,
            pid,
            name,
            ok: reply.ok,
            state: Some(&reply.state),
            window: reply.window,
            open: &reply.open,
            rows: Some(reply.rows),
            error: (!reply.ok).then(|| failure(reply)),
        },
        Err(error) => Answer {
            session,
            pid,
            name,
            ok: false,
            state: None,
            window: None,
            open: &[],
            rows: None,
            error: Some(error.to_string()),
        },
    }
}
