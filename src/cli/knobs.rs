//! The options of `colonel run` that are settings of nsys and ncu: one for each of [`KNOBS`].

use clap::{Arg, ArgMatches, Command};

use crate::run::knobs::KNOBS;

/// Values given, by name of the setting.
#[derive(Debug, Clone, Default)]
pub struct KnobArgs {
    /// In the order of help.
    pub given: Vec<(&'static str, String)>,
}

impl clap::Args for KnobArgs {
    fn augment_args(command: Command) -> Command {
        let arguments = KNOBS.iter().map(|knob| {
            let check = |value: &str| knob.check(value).map(|()| value.to_owned());
            Arg::new(knob.name)
                .long(knob.option())
                .value_name(knob.takes)
                .help(knob.about)
                .help_heading("Settings of nsys and ncu (also by `colonel config`)")
                .value_parser(check)
        });
        command.args(arguments)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for KnobArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |name: &'static str| Some((name, matches.get_one::<String>(name)?.clone()));
        Ok(Self {
            given: KNOBS.iter().filter_map(|knob| given(knob.name)).collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
