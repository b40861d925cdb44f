//! `etcdlift completions` and `etcdlift man`: made from the same declaration that parses the command line.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, epilog, print};
use crate::error::{Error, Reason, Result};

/// Options of `completions`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = epilog::COMPLETIONS.help())]
pub struct CompletionsArgs {
    /// Shell that runs the script
    #[arg(value_enum)]
    shell: Shell,
}

/// Options of `man`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = epilog::MAN.help())]
pub struct ManArgs {
    /// Command to describe [default: etcdlift itself]
    command: Option<String>,
}

/// Prints completions.
///
/// # Errors
/// Standard output cannot be written.
pub fn completions(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "etcdlift", &mut script);
    print(&script)
}

/// Prints a manual page.
///
/// # Errors
/// There is no such command ([`Reason::Usage`]), or standard output cannot be written.
pub fn man(args: &ManArgs) -> Result<()> {
    let mut root = Cli::command();
    root.build();
    let page = match &args.command {
        None => root,
        Some(name) => root
            .find_subcommand(name)
            .cloned()
            .ok_or_else(|| Error::new(Reason::Usage, format!("there is no command {name:?}")))?
            .display_name(format!("etcdlift-{name}"))
            .version(env!("CARGO_PKG_VERSION")),
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page)
        .render(&mut text)
        .map_err(|e| Error::new(Reason::Internal, format!("cannot make the manual page: {e}")))?;
    print(&text)
}
