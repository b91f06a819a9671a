//! `colonel tables`: the tables of a session, their columns, types and units.

use std::process::ExitCode;

use serde::Serialize;

use super::exit_code;
use super::output::{answer, answer_json, talk};
use crate::report::{rows_table, terminal_width};
use crate::schema::columns::{Column, Table};
use crate::schema::tables;

/// List the tables of a session, with columns, types and units
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this table, with what each column means
    #[arg(value_name = "TABLE")]
    table: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct TableJson {
    name: &'static str,
    meaning: &'static str,
    columns: Vec<ColumnJson>,
}

#[derive(Serialize)]
struct ColumnJson {
    name: &'static str,
    r#type: String,
    unit: Option<&'static str>,
    nullable: bool,
    meaning: &'static str,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let all = tables::all();
    let chosen: Vec<&Table> = match &args.table {
        Some(name) => all.iter().filter(|table| table.name == name).collect(),
        None => all.iter().collect(),
    };
    if let (Some(name), true) = (&args.table, chosen.is_empty()) {
        let names: Vec<_> = all.iter().map(|table| table.name).collect();
        anyhow::bail!("there is no table `{name}`; there are {}", names.join(", "));
    }
    if args.json {
        answer_json(&chosen.into_iter().map(table_json).collect::<Vec<_>>())?;
        return Ok(ExitCode::from(exit_code::YES));
    }
    let texts: Vec<_> = chosen
        .iter()
        .map(|table| table_text(table, args.table.is_some()))
        .collect();
    answer(&texts.join("\n"))?;
    talk("next: colonel tables TABLE   colonel query \"SELECT short_name, count(*) FROM kernels GROUP BY ALL\"");
    Ok(ExitCode::from(exit_code::YES))
}

fn table_text(table: &Table, meanings: bool) -> String {
    let mut heads = vec!["column", "type", "unit", "null"];
    if meanings {
        heads.push("meaning");
    }
    let row = |column: &Column| {
        let null = if column.nullable { "yes" } else { "" };
        let mut row = vec![
            column.name.to_owned(),
            column.type_name(),
            column.unit().unwrap_or("").to_owned(),
            null.to_owned(),
        ];
        if meanings {
            row.push(column.doc.to_owned());
        }
        row
    };
    let heads: Vec<_> = heads.into_iter().map(str::to_owned).collect();
    let rows: Vec<_> = table.columns.iter().map(row).collect();
    format!(
        "{}: {}\n{}",
        table.name,
        table.doc,
        rows_table(&heads, &rows, terminal_width())
    )
}

fn table_json(table: &Table) -> TableJson {
    let column = |column: &Column| ColumnJson {
        name: column.name,
        r#type: column.type_name(),
        unit: column.unit(),
        nullable: column.nullable,
        meaning: column.doc,
    };
    TableJson {
        name: table.name,
        meaning: table.doc,
        columns: table.columns.iter().map(column).collect(),
    }
}
