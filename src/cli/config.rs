//! `colonel config`: settings that hold for every run.

use std::env;
use std::process::ExitCode;

use super::output::{answer, answer_json};
use crate::report::{rows_table, terminal_width};
use crate::run::config::{ConfigError, Files, Source, resolve, write};
use crate::run::flavors::Flavor;

/// Settings of nsys and ncu that hold for every run: show or set them
///
/// A setting comes from the command line of `colonel run`, else from its variable `COLONEL_NAME`, else from the project's
/// file, else from the user's, else from the flavor.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Write a setting into the project's file
    Set {
        /// Setting, such as `ncu_set`
        #[arg(value_name = "NAME")]
        name: String,
        /// Its value, as on the command line
        #[arg(value_name = "VALUE", allow_hyphen_values = true)]
        value: String,
        /// Write it into the user's file
        #[arg(long)]
        user: bool,
    },
    /// Show what is set, and by whom
    Show {
        /// Kind of workload whose defaults count
        #[arg(long, value_name = "FLAVOR", default_value = "generic", value_parser = super::run::parse_flavor)]
        flavor: &'static Flavor,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the paths of the files, the project's first
    Path,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let files = Files::here();
    match &args.what {
        What::Set { name, value, user } => {
            let path = match user {
                false => &files.project,
                true => files.user.as_ref().ok_or(ConfigError::NoHome)?,
            };
            write(path, name, value)?;
            answer(&format!("{name} = {value}  in {}\n", path.display()))?;
        }
        What::Show { flavor, json } => {
            let values = resolve(flavor, &files, |name| env::var_os(name), &[])?;
            if *json {
                let rows: serde_json::Map<String, serde_json::Value> = values
                    .iter()
                    .map(|(name, (value, source))| {
                        let row = serde_json::json!({ "value": value, "source": source.to_string() });
                        ((*name).to_owned(), row)
                    })
                    .collect();
                answer_json(&rows)?;
            } else {
                let heads = ["setting", "value", "from"].map(str::to_owned);
                let row = |(name, (value, source)): (&&str, &(String, Source))| {
                    vec![(*name).to_owned(), value.clone(), source.to_string()]
                };
                let rows: Vec<Vec<String>> = values.iter().map(row).collect();
                answer(&rows_table(&heads, &rows, terminal_width()))?;
            }
        }
        What::Path => {
            for path in [Some(&files.project), files.user.as_ref()].into_iter().flatten() {
                answer(&format!("{}\n", path.display()))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
