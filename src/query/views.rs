//! The tables of docs/schema.md as DuckDB views over the files of some sessions.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use arrow_schema::DataType;

use crate::schema::columns::Table;
use crate::schema::manifest::{Loss, Problem, SessionState};
use crate::schema::tables;
use crate::session::{Session, SessionError};

/// The views of some sessions.
#[derive(Debug)]
pub struct Views {
    /// Statements that make them.
    pub sql: String,
    /// Files that could not be read and are in no view.
    pub problems: Vec<Problem>,
}

impl Views {
    /// One view a table, also where no session has it, with all columns of the definition and the column `session` in
    /// front.
    ///
    /// Of a session that was not compacted the files of `kernels` lack columns: with a folder to write them to, they are
    /// filled in.
    pub fn of(sessions: &[Session], folder: Option<&Path>) -> Result<Self, SessionError> {
        let names = names(sessions);
        let mut views = Self {
            sql: String::new(),
            problems: Vec::new(),
        };
        for table in tables::all() {
            let mut sources = vec![no_rows(&table)];
            for (number, (session, name)) in sessions.iter().zip(&names).enumerate() {
                let is_filled = table.name != "kernels" || session.manifest().state == SessionState::Compacted;
                let folder = folder
                    .filter(|_| !is_filled)
                    .map(|folder| folder.join(number.to_string()));
                let source = match table.name {
                    // The files have what a guest saw; the manifest also has what was found missing later.
                    "losses" => losses(&session.manifest().losses, name),
                    _ => views.files(session, name, table.name, folder.as_deref())?,
                };
                sources.extend(source);
            }
            let union = sources.join("\nUNION ALL BY NAME\n");
            let _ = writeln!(views.sql, "CREATE OR REPLACE TEMP VIEW {} AS\n{union};", table.name);
        }
        Ok(views)
    }

    /// Rows of a table of a session, if it has files.
    fn files(
        &mut self,
        session: &Session,
        name: &str,
        table: &str,
        folder: Option<&Path>,
    ) -> Result<Option<String>, SessionError> {
        let (mut files, problems) = match folder {
            Some(folder) => session.write_kernels(folder)?,
            None => {
                let parts = session.parts(table)?;
                let files = parts.parts.iter().map(|part| part.path().to_owned());
                (files.collect(), parts.problems)
            }
        };
        self.problems.extend(problems);
        files.dedup();
        if files.is_empty() {
            return Ok(None);
        }
        let files: Vec<_> = files.iter().map(|file| quoted(&file.to_string_lossy())).collect();
        Ok(Some(format!(
            "SELECT {} AS session, * FROM read_parquet([{}], union_by_name = true)",
            quoted(name),
            files.join(", ")
        )))
    }
}

/// What tells sessions apart: the id, and the folder where two have the same, as copies do.
fn names(sessions: &[Session]) -> Vec<String> {
    let mut uses = BTreeMap::<_, u32>::new();
    for session in sessions {
        *uses.entry(&session.manifest().id).or_default() += 1;
    }
    let name = |session: &Session| match uses[&session.manifest().id] {
        1 => session.manifest().id.clone(),
        _ => session.path().to_string_lossy().into_owned(),
    };
    sessions.iter().map(name).collect()
}

/// Names and types of the definition, so that a table without rows, or without a later column, can be asked too.
fn no_rows(table: &Table) -> String {
    let columns = table
        .columns
        .iter()
        .map(|column| format!("NULL::{} AS {}", sql_type(&column.data_type), identifier(column.name)));
    let columns: Vec<_> = std::iter::once("NULL::VARCHAR AS session".to_owned())
        .chain(columns)
        .collect();
    format!("SELECT {} WHERE false", columns.join(", "))
}

fn losses(losses: &[Loss], session: &str) -> Option<String> {
    let number = |value: Option<String>| value.unwrap_or_else(|| "NULL".to_owned());
    let rows = losses.iter().map(|loss| {
        format!(
            "({}, {}, {}, {}, {}, {}, {})",
            quoted(session),
            number(loss.pid.map(|pid| pid.to_string())),
            quoted(&loss.kind),
            quoted(&loss.reason),
            number(loss.count.map(|count| count.to_string())),
            loss.first_ns,
            loss.last_ns
        )
    });
    let rows: Vec<_> = rows.collect();
    (!rows.is_empty()).then(|| {
        format!(
            "SELECT * FROM (VALUES {}) AS told(session, pid, kind, reason, \"count\", first_ns, last_ns)",
            rows.join(", ")
        )
    })
}

fn sql_type(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Int32 => "INTEGER",
        DataType::Int64 => "BIGINT",
        DataType::UInt32 => "UINTEGER",
        DataType::UInt64 => "UBIGINT",
        DataType::Float64 => "DOUBLE",
        DataType::Boolean => "BOOLEAN",
        _ => "VARCHAR",
    }
}

/// A text as SQL writes it.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Some columns (`window`, `count`) are words of SQL.
fn identifier(name: &str) -> String {
    format!("\"{name}\"")
}
