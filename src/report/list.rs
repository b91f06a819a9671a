//! The sessions of a folder, on the terminal and as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::report::show::{JSON_VERSION, exit_words, state_word};
use crate::report::table::{Column, fit};
use crate::report::time::utc;
use crate::run::words::{bytes, grouped, nanoseconds};
use crate::schema::manifest::Exit;
use crate::session::{Life, Listed, Session};

const COLUMNS: [Column; 8] = [
    Column {
        head: "session",
        right: false,
        weight: u8::MAX,
    },
    Column {
        head: "created (UTC)",
        right: false,
        weight: 4,
    },
    Column {
        head: "ran",
        right: true,
        weight: 2,
    },
    Column {
        head: "end",
        right: false,
        weight: 3,
    },
    Column {
        head: "kernels",
        right: true,
        weight: u8::MAX,
    },
    Column {
        head: "lost",
        right: true,
        weight: 5,
    },
    Column {
        head: "size",
        right: true,
        weight: 1,
    },
    Column {
        head: "command",
        right: false,
        weight: u8::MAX,
    },
];

/// The sessions as a table.
pub fn list_table(sessions: &[Listed], width: usize) -> String {
    let rows: Vec<_> = sessions.iter().map(row).collect();
    fit(&COLUMNS, &rows, width, 16)
}

fn row(listed: &Listed) -> Vec<String> {
    let session = match &listed.session {
        Ok(session) => session,
        // Why is said below the table, where there is room.
        Err(_) => {
            let mut row = vec![String::new(); COLUMNS.len()];
            row[0] = listed.id.clone();
            row[COLUMNS.len() - 1] = "! does not open".to_owned();
            return row;
        }
    };
    let manifest = session.manifest();
    let length = manifest
        .ended_ns
        .and_then(|ended| u64::try_from(ended - manifest.created_ns).ok());
    let command = manifest.command.join(" ").replace('\n', " ");
    vec![
        listed.id.clone(),
        utc(manifest.created_ns),
        length.map_or_else(|| "-".to_owned(), nanoseconds),
        match session.life() {
            Life::Running(_) => "running".to_owned(),
            Life::Recovered => "cut off".to_owned(),
            Life::Ended => exit_words(manifest.exit.as_ref()),
        },
        grouped(session.rows("kernels")),
        lost_words(session),
        bytes(session.disk_bytes()),
        match &manifest.name {
            Some(name) => format!("{name}: {command}"),
            None => command,
        },
    ]
}

fn lost(session: &Session) -> (u64, bool) {
    let losses = &session.manifest().losses;
    (
        losses.iter().filter_map(|loss| loss.count).sum(),
        losses.iter().any(|loss| loss.count.is_none()),
    )
}

fn lost_words(session: &Session) -> String {
    match lost(session) {
        (0, true) => "unknown".to_owned(),
        (count, true) => format!("{}+", grouped(count)),
        (count, false) => grouped(count),
    }
}

/// `colonel list --json`.
#[derive(Debug, Serialize)]
pub struct ListJson {
    version: u32,
    sessions: Vec<ListedJson>,
}

#[derive(Debug, Serialize)]
struct ListedJson {
    id: String,
    path: String,
    /// Why it does not open; the other fields are absent then.
    error: Option<String>,
    #[serde(flatten)]
    facts: Option<Facts>,
}

#[derive(Debug, Serialize)]
struct Facts {
    name: Option<String>,
    /// `running`, `sealed`, `compacted` or `recovered`.
    state: &'static str,
    command: Vec<String>,
    created_ns: i64,
    ended_ns: Option<i64>,
    exit: Option<Exit>,
    rows: BTreeMap<String, u64>,
    lost: u64,
    lost_uncounted: bool,
    problems: usize,
    bytes: u64,
}

impl ListJson {
    /// All of them.
    pub fn new(sessions: &[Listed]) -> Self {
        let listed = |listed: &Listed| ListedJson {
            id: listed.id.clone(),
            path: listed.path.to_string_lossy().into_owned(),
            error: listed.session.as_ref().err().map(ToString::to_string),
            facts: listed.session.as_ref().ok().map(facts),
        };
        Self {
            version: JSON_VERSION,
            sessions: sessions.iter().map(listed).collect(),
        }
    }
}

fn facts(session: &Session) -> Facts {
    let manifest = session.manifest();
    let (lost, lost_uncounted) = lost(session);
    let of_processes: usize = manifest.processes.iter().map(|process| process.problems.len()).sum();
    Facts {
        name: manifest.name.clone(),
        state: state_word(session),
        command: manifest.command.clone(),
        created_ns: manifest.created_ns,
        ended_ns: manifest.ended_ns,
        exit: manifest.exit.clone(),
        rows: manifest.rows.clone(),
        lost,
        lost_uncounted,
        problems: manifest.problems.len() + of_processes,
        bytes: session.disk_bytes(),
    }
}
