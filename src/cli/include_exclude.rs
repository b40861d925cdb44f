//! `--include` and `--exclude`: two options that make one list, in the order in which they are typed.
//!
//! clap derives lists for each option on its own, so this one is put together by hand. Must not know what a rule does.

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};

use crate::options::rules::{Choice, Pattern};

/// The choices, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Choices(pub Vec<Choice>);

impl FromArgMatches for Choices {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let typed = |id: &str, choice: fn(Pattern) -> Choice| -> Vec<(usize, Choice)> {
            let values = matches.get_many::<String>(id).into_iter().flatten();
            let indices = matches.indices_of(id).into_iter().flatten();
            indices.zip(values).map(|(at, value)| (at, choice(Pattern::Prefix(value.clone())))).collect()
        };
        let mut all = typed("include", Choice::Include);
        all.extend(typed("exclude", Choice::Exclude));
        all.sort_by_key(|(at, _)| *at);
        Ok(Choices(all.into_iter().map(|(_, choice)| choice).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for Choices {
    fn augment_args(command: Command) -> Command {
        let option = |name: &'static str, help: &'static str| {
            let value = clap::builder::NonEmptyStringValueParser::new();
            Arg::new(name).long(name).value_name("PREFIX").action(ArgAction::Append).value_parser(value).help(help)
        };
        command
            .arg(option("include", "Take this key and all keys below it").long_help(
                "Take this key and all keys below it\n\nWith any --include, all other keys are left out. Of --include and \
                 --exclude, the first that matches a key decides. /a matches /a and /a/b, but not /ab. /a/ matches only keys \
                 below /a. Keys of a v2 source have their v2 names here.",
            ))
            .arg(
                option("exclude", "Leave out this key and all keys below it")
                    .long_help("Leave out this key and all keys below it\n\nPREFIX matches as in --include."),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
