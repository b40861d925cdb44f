//! `docs/cli.md`: the option reference, made from the definitions that parse the command line, and compared with the
//! file.
//!
//! Also holds the style of the help texts. Must not know what an option does.

use clap::{Arg, Command, CommandFactory};

use super::Cli;
use super::epilog::{ETCDLIFT, Epilog};

#[path = "../../tests/common/golden.rs"]
mod golden;

const INTRODUCTION: &str = "\
# Command-line reference

<!-- Generated from the definitions in src/cli. To update it: BLESS=1 cargo test --lib cli::reference -->

This page describes every command and every option. `etcdlift COMMAND --help` prints the same texts, `etcdlift COMMAND -h` a summary,
and `etcdlift man COMMAND` a manual page. Scripts can rely on the names of options, their values, and the exit statuses.

## Messages

Messages go to standard error. An error is one line, and its hint is another:

```text
etcdlift: error: FILE: byte OFFSET: what is wrong
hint: what to do
```

FILE and OFFSET are present if they are known. Wrong usage prints such an error and the usage of the command.

A summary starts with the result: `COMPLETE` or `INCOMPLETE`, the exit status and the output. That of `verify` starts with `VERIFIED` or
`NOT VERIFIED`, and has a line `wrong: MESSAGE` for each difference. Totals follow the result. Then each warning is a line
`warning: MESSAGE [CODE]`, and each loss is a line `loss: MESSAGE [CODE]`. Next steps follow, as commands that can be pasted. A loss means
that the output is possibly incomplete (exit status 8). On a terminal, long warnings and losses are wrapped at 80 columns.
";

/// The whole page.
fn page() -> String {
    let mut root = Cli::command();
    root.build();
    let mut text = INTRODUCTION.to_string();
    text.push_str("\n## Options of every command\n");
    root.get_arguments().filter(|arg| arg.is_global_set()).for_each(|arg| text.push_str(&option(arg)));
    text.push_str(
        "\n## Environment variables\n\nAn option on the command line takes precedence over its variable.\n\n",
    );
    text.push_str("| variable | option |\n|---|---|\n");
    let mut rows: Vec<String> = Vec::new();
    let commands = root.get_subcommands().filter(|command| command.get_name() != ONLINE);
    for arg in root.get_arguments().chain(commands.flat_map(Command::get_arguments)) {
        if let (Some(variable), Some(name)) = (arg.get_env(), arg.get_long()) {
            rows.push(format!("| `{}` | `--{name}` |\n", variable.to_string_lossy()));
        }
    }
    rows.push("| `NO_COLOR` | no colours, unless `--color` or its variable asks for them |\n".into());
    rows.sort();
    rows.dedup();
    text.push_str(&rows.concat());
    text.push_str(&statuses("## Exit status", &ETCDLIFT));
    for command in root.get_subcommands_mut().filter(|command| !["help", ONLINE].contains(&command.get_name())) {
        text.push_str(&section(command, Epilog::of(command.get_name())));
    }
    text
}

/// The command that only a feature has, and that has a page of its own.
const ONLINE: &str = "online";

fn section(command: &mut Command, epilog: Epilog) -> String {
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let name = command.get_bin_name().unwrap_or_default().trim_start_matches("etcdlift ");
    let mut text = format!("\n## etcdlift {name}\n\n{about}.\n\n```text\n{usage}\n```\n");
    let own = || command.get_arguments().filter(|arg| !arg.is_global_set() && !arg.is_hide_set());
    let mut headings: Vec<&str> = Vec::new();
    for arg in own() {
        let heading = arg.get_help_heading().unwrap_or("Arguments");
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    for heading in headings {
        text.push_str(&format!("\n### {heading}\n"));
        let arguments = own().filter(|arg| arg.get_help_heading().unwrap_or("Arguments") == heading);
        arguments.for_each(|arg| text.push_str(&option(arg)));
    }
    text.push_str("\n### Examples\n");
    for (what, command) in epilog.examples {
        text.push_str(&format!("\n{what}:\n\n```sh\n{command}\n```\n"));
    }
    text + &statuses("### Exit status", &epilog)
}

fn option(arg: &Arg) -> String {
    let values = arg.get_value_names().filter(|_| arg.get_num_args().is_some_and(|range| range.takes_values()));
    let value = values.map_or(String::new(), |names| format!("<{}>", names.join("> <")));
    let several = matches!(arg.get_action(), clap::ArgAction::Append);
    let mut title = match (arg.get_short(), arg.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long} {value}"),
        (None, Some(long)) => format!("--{long} {value}"),
        _ => format!("{value}{}", if several { "..." } else { "" }),
    };
    title.truncate(title.trim_end().len());
    let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut text = format!("\n#### `{title}`\n\n{}\n", paragraphs(&help));
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let takes_values = arg.get_num_args().is_some_and(|range| range.takes_values());
    let listed = arg.get_possible_values();
    if takes_values && !listed.is_empty() {
        text.push('\n');
        for value in listed.iter().filter(|value| !value.is_hide_set()) {
            let default = if defaults.iter().any(|default| default == value.get_name()) { " (default)" } else { "" };
            let help = value.get_help().map_or(String::new(), |help| format!(": {help}"));
            text.push_str(&format!("- `{}`{default}{help}\n", value.get_name()));
        }
    }
    let mut notes = Vec::new();
    if takes_values && listed.is_empty() && !arg.is_hide_default_value_set() && !defaults.is_empty() {
        notes.push(format!("Default: `{}`.", defaults.join(",")));
    }
    if several && !arg.is_positional() {
        notes.push("Can be given several times.".to_string());
    }
    if let Some(variable) = arg.get_env() {
        notes.push(format!("Variable: `{}`.", variable.to_string_lossy()));
    }
    if !notes.is_empty() {
        text.push_str(&format!("\n{}\n", notes.join(" ")));
    }
    text
}

/// Ends each paragraph with a full stop.
fn paragraphs(help: &str) -> String {
    let ended = |text: &str| if text.ends_with(['.', ']']) { text.to_string() } else { format!("{text}.") };
    help.split("\n\n").map(|text| ended(text.trim())).collect::<Vec<_>>().join("\n\n")
}

fn statuses(heading: &str, epilog: &Epilog) -> String {
    let rows: String = epilog.statuses.iter().map(|(code, what)| format!("| {code} | {what} |\n")).collect();
    format!("\n{heading}\n\n| status | meaning |\n|---|---|\n{rows}")
}

/// Every text of the help with its place: abouts, options, values, examples and statuses.
fn texts() -> Vec<(String, String)> {
    let mut root = Cli::command();
    root.build();
    let mut found = Vec::new();
    let mut commands: Vec<&Command> = std::iter::once(&root).chain(root.get_subcommands()).collect();
    commands.extend(root.find_subcommand(ONLINE).into_iter().flat_map(Command::get_subcommands));
    for command in commands.into_iter().filter(|command| command.get_name() != "help") {
        let name = command.get_name();
        let about = command.get_long_about().or_else(|| command.get_about());
        found.push((name.to_string(), about.map(ToString::to_string).unwrap_or_default()));
        for arg in command.get_arguments() {
            let place = format!("{name} {}", arg.get_id());
            let help = arg.get_long_help().or_else(|| arg.get_help());
            found.push((place.clone(), help.map(ToString::to_string).unwrap_or_default()));
            for value in arg.get_possible_values() {
                let help = value.get_help().map(ToString::to_string).unwrap_or_default();
                found.push((format!("{place} {}", value.get_name()), help));
            }
        }
        let epilog = Epilog::of(name);
        let parts = epilog.examples.iter().map(|(what, _)| *what).chain(epilog.statuses.iter().map(|(_, what)| *what));
        found.extend(parts.map(|text| (format!("{name} epilog"), text.to_string())));
    }
    found
}

#[test]
fn the_reference_is_up_to_date() {
    golden::golden("docs/cli.md", page());
}

#[cfg(feature = "online")]
const ONLINE_INTRODUCTION: &str = "\
# Command-line reference of `etcdlift online`

<!-- Generated from the definitions in src/cli/online. To update it: BLESS=1 cargo test --features online --lib cli::reference -->

This page describes the commands of `etcdlift online`, which a build with the feature `online` has. [cli.md](cli.md) describes all other
commands, and the options that every command has.
";

#[cfg(feature = "online")]
fn online_page() -> String {
    let mut root = Cli::command();
    root.build();
    let mut text = ONLINE_INTRODUCTION.to_string();
    let online = root.find_subcommand_mut(ONLINE).unwrap();
    for command in online.get_subcommands_mut().filter(|command| command.get_name() != "help") {
        let epilog = Epilog::of_online(command.get_name());
        text.push_str(&section(command, epilog));
    }
    text
}

#[cfg(feature = "online")]
#[test]
fn the_reference_of_online_is_up_to_date() {
    golden::golden("docs/cli-online.md", online_page());
}

#[test]
fn sentences_are_short() {
    for (place, text) in texts() {
        for sentence in text.split("\n\n").flat_map(|paragraph| paragraph.split(". ")) {
            assert!(sentence.split_whitespace().count() <= 25, "{place}: {sentence}");
        }
    }
}

#[test]
fn every_option_has_a_group_and_a_short_help() {
    let mut root = Cli::command();
    root.build();
    let nested = root.find_subcommand(ONLINE).into_iter().flat_map(Command::get_subcommands);
    for command in root.get_subcommands().chain(nested).filter(|command| command.get_name() != "help") {
        for arg in command.get_arguments() {
            let place = format!("{} {}", command.get_name(), arg.get_id());
            assert!(arg.is_positional() || arg.get_help_heading().is_some(), "{place} has no group");
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            assert!((5..=90).contains(&help.chars().count()) && !help.contains('\n'), "{place}: {help}");
            assert!(!help.ends_with('.'), "{place}: {help}");
        }
    }
}
