//! docs/cli.md names every command and option that there is, and no other.

use std::collections::{BTreeMap, BTreeSet};

use clap::CommandFactory;
use colonel::cli::Cli;

/// Long options named in each section `## colonel COMMAND`.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cli.md")).unwrap();
    let mut sections = BTreeMap::new();
    for section in text.split("\n## ").skip(1) {
        let (title, body) = section.split_once('\n').unwrap();
        let Some(command) = title.strip_prefix("colonel ") else {
            continue;
        };
        let rows = body
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .filter_map(|row| row.split(" | ").next());
        let words = rows.flat_map(|names| names.split(['`', ' ', ',']).map(str::to_owned).collect::<Vec<_>>());
        sections.insert(
            command.to_owned(),
            words.filter(|word| word.starts_with("--")).collect(),
        );
    }
    sections
}

#[test]
fn every_command_and_option_is_documented_and_no_other() {
    let mut command = Cli::command();
    command.build();
    let defined: BTreeMap<String, BTreeSet<String>> = command
        .get_subcommands()
        .filter(|subcommand| subcommand.get_name() != "help")
        .map(|subcommand| {
            let longs = subcommand.get_arguments().filter_map(|argument| argument.get_long());
            let longs = longs.filter(|long| *long != "help").map(|long| format!("--{long}"));
            (subcommand.get_name().to_owned(), longs.collect())
        })
        .collect();
    assert!(defined["run"].contains("--gate-by"));
    assert_eq!(documented(), defined);
}

#[test]
fn every_command_has_its_own_help() {
    let mut command = Cli::command();
    command.build();
    for subcommand in command.get_subcommands() {
        assert!(subcommand.get_about().is_some(), "{}", subcommand.get_name());
        for argument in subcommand.get_arguments() {
            assert!(
                argument.get_help().is_some(),
                "{} {}",
                subcommand.get_name(),
                argument.get_id()
            );
        }
    }
}
