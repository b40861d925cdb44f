//! `etcdlift completions` and `etcdlift man`: both are made from the definitions that parse the command line.
//!
//! Must not know what an option does.

use clap::builder::PossibleValuesParser;
use clap_complete::Shell;
use clap_mangen::roff::{Roff, roman};

use super::epilog::{self, Epilog};
use super::stdout::print;
use crate::error::{Error, Reason, Result};

/// Options of `completions`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = epilog::COMPLETIONS.help())]
pub(super) struct CompletionsArgs {
    /// Shell that runs the script
    #[arg(value_enum)]
    shell: Shell,
}

/// The commands that have a manual page of their own.
const COMMANDS: [&str; 11] =
    ["convert", "inspect", "compare", "check", "advise", "clean", "verify", "export", "lookup", "completions", "man"];

/// Options of `man`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = epilog::MAN.help())]
pub(super) struct ManArgs {
    /// Command to describe [default: etcdlift itself]
    #[arg(value_name = "COMMAND", value_parser = PossibleValuesParser::new(COMMANDS))]
    command: Option<String>,
}

/// Prints completions of the command line `root`.
///
/// # Errors
/// Standard output cannot be written.
pub(super) fn completions(args: &CompletionsArgs, root: clap::Command) -> Result<()> {
    print(script(args.shell, root).as_bytes())
}

fn script(shell: Shell, mut root: clap::Command) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut root, "etcdlift", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    if shell == Shell::Fish { script + &fish_arguments(&root) } else { script }
}

/// Completions of arguments with a list of values: clap_complete leaves them out for fish.
fn fish_arguments(root: &clap::Command) -> String {
    let mut text = String::new();
    for command in root.get_subcommands() {
        for argument in command.get_positionals() {
            let values: Vec<String> = argument.get_possible_values().iter().map(|v| v.get_name().to_string()).collect();
            if !values.is_empty() {
                let (name, values) = (command.get_name(), values.join(" "));
                let when = format!("__fish_etcdlift_using_subcommand {name}");
                text.push_str(&format!("complete -c etcdlift -n \"{when}\" -f -a \"{values}\"\n"));
            }
        }
    }
    text
}

/// Prints a manual page of the command line `root`.
///
/// # Errors
/// Standard output cannot be written.
pub(super) fn man(args: &ManArgs, root: clap::Command) -> Result<()> {
    let text = page(args.command.as_deref(), root)
        .map_err(|e| Error::new(Reason::Internal, format!("cannot make the manual page: {e}")))?;
    print(text.as_bytes())
}

/// Returns the manual page of a command, or of etcdlift itself, in roff.
fn page(command: Option<&str>, mut root: clap::Command) -> std::io::Result<String> {
    root.build();
    let about = match command.and_then(|name| root.find_subcommand(name).cloned()) {
        None => root,
        Some(found) => {
            let name = format!("etcdlift-{}", found.get_name());
            found.display_name(name).version(env!("CARGO_PKG_VERSION"))
        }
    };
    let has_commands = about.has_subcommands();
    let man = clap_mangen::Man::new(about).source(concat!("etcdlift ", env!("CARGO_PKG_VERSION")));
    let render = |section: &dyn Fn(&mut dyn std::io::Write) -> std::io::Result<()>| -> std::io::Result<String> {
        let mut text = Vec::new();
        section(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    let mut sections = vec![
        render(&|out| man.render_title(out))?,
        render(&|out| man.render_name_section(out))?,
        render(&|out| man.render_synopsis_section(out))?,
        render(&|out| man.render_description_section(out))?,
        options(&render(&|out| man.render_options_section(out))?),
    ];
    if has_commands {
        sections.push(render(&|out| man.render_subcommands_section(out))?);
    }
    sections.push(epilog(&Epilog::of(command.unwrap_or_default())));
    sections.push(render(&|out| man.render_version_section(out))?);
    let preamble = Roff::new().render();
    Ok(preamble.clone() + &sections.iter().map(|text| text.replace(&preamble, "")).collect::<String>())
}

/// Makes the groups of options parts of one section.
fn options(groups: &str) -> String {
    let text = groups.replace(".SH OPTIONS\n", "").replace(".SH ", ".SS ");
    format!(".SH OPTIONS\n{text}")
}

/// Returns the sections EXAMPLES and EXIT STATUS.
fn epilog(epilog: &Epilog) -> String {
    let mut roff = Roff::new();
    roff.control("SH", ["EXAMPLES"]);
    for (what, command) in epilog.examples {
        roff.control("PP", []).text([roman(format!("{what}:"))]);
        roff.control("RS", ["4"]).control("nf", []);
        for line in command.lines() {
            roff.text([roman(line)]);
        }
        roff.control("fi", []).control("RE", []);
    }
    roff.control("SH", ["EXIT STATUS"]);
    for (code, what) in epilog.statuses {
        roff.control("TP", []).text([roman(*code)]).text([roman(*what)]);
    }
    roff.render()
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory};

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn each_command_has_a_page() {
        let root = Cli::command();
        // A feature has one more.
        let names = root.get_subcommands().map(Command::get_name).filter(|name| *name != "online");
        assert_eq!(names.collect::<Vec<_>>(), COMMANDS);
    }

    #[test]
    fn a_page_has_the_sections_of_a_manual() {
        for command in COMMANDS.map(Some).into_iter().chain([None]) {
            let page = page(command, Cli::command()).unwrap();
            let at = |name: &str| page.find(&format!("\n.SH {name}\n")).unwrap_or_else(|| panic!("{name}: {page}"));
            let all = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES", "\"EXIT STATUS\"", "VERSION"].map(at);
            assert!(all.is_sorted(), "{command:?}");
            assert_eq!(page.matches(".ie ").count(), 1);
            assert!(!page.contains("EXTRA"));
        }
        let convert = page(Some("convert"), Cli::command()).unwrap();
        assert!(convert.contains(".SS TTLS\n") && convert.contains("\n.SS \"USERS AND ROLES\"\n"), "{convert}");
        assert!(convert.contains("\\-\\-report report.json"), "{convert}");
    }

    #[test]
    fn shells_complete_the_commands_of_man() {
        let commands = COMMANDS.join(" ");
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell, Cli::command());
            let listed = match shell {
                Shell::Bash => format!("{commands}\""),
                Shell::Zsh => format!("({commands})"),
                _ => format!("__fish_etcdlift_using_subcommand man\" -f -a \"{commands}\""),
            };
            assert!(script.contains(&listed), "{shell}: {script}");
        }
    }
}
