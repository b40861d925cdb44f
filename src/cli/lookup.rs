//! `etcdlift lookup`: its options as typed, and its run.
//!
//! Prints what the library found. Must not know how an index map is read.

use std::ffi::OsString;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::epilog;
use super::exit::{self, usage};
use super::stdout::print;
use crate::cli::output_format::Form;
use crate::error::{Error, Reason, Result};
use crate::export::index_map::{Query, lookup};
use crate::output::report_file;
use crate::report::lookup::Answer;

const QUERY: &str = "Query";

/// Options of `lookup`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = epilog::LOOKUP.help())]
#[command(override_usage = "etcdlift lookup [OPTIONS] FILE.redb --v2-index N|--revision N|--key K")]
#[command(group = clap::ArgGroup::new("query").required(true))]
pub(super) struct Args {
    /// Index map that `convert --index-map` wrote
    #[arg(value_name = "FILE.redb")]
    file: PathBuf,

    /// Find the v3 revisions of the keys that v2 changed last at index N
    ///
    /// N is a modifiedIndex. Several keys can have it. If no key has that index any more, `lookup` says so; it never
    /// guesses.
    #[arg(long, value_name = "N", group = "query", help_heading = QUERY)]
    v2_index: Option<u64>,

    /// Find the keys that have v3 revision N
    #[arg(long, value_name = "N", group = "query", help_heading = QUERY)]
    revision: Option<u64>,

    /// Find the revision and the index of key K, by its v3 or its v2 name
    #[arg(long, value_name = "K", group = "query", help_heading = QUERY)]
    key: Option<OsString>,

    /// As --key, in base64, for keys that are not text
    #[arg(long, value_name = "BASE64", group = "query", value_parser = parse_base64, help_heading = QUERY)]
    key_base64: Option<Bytes>,

    #[command(flatten)]
    form: Form,
}

/// A key, as one value of an option.
#[derive(Debug, Clone)]
struct Bytes(Vec<u8>);

fn parse_base64(text: &str) -> Result<Bytes, String> {
    STANDARD.decode(text).map(Bytes).map_err(|e| format!("expected base64: {e}"))
}

/// Looks up an index map, prints the result, and returns the exit status.
///
/// # Errors
/// Those of the library, and of writing to standard output.
pub(super) fn run(args: &Args) -> Result<u8> {
    let query = query(args)?;
    let answer = Answer::new(&args.file, &query, &lookup(&args.file, &query)?);
    print(&if args.form.is_json() { report_file::to_json(&answer)? } else { answer.text().into_bytes() })?;
    match answer.note {
        None => Ok(0),
        Some(note) => Ok(exit::fail(&Error::new(Reason::NotFound, note).in_file(&args.file))),
    }
}

fn query(args: &Args) -> Result<Query> {
    let key = args.key.as_ref().map(|key| key.as_encoded_bytes().to_vec());
    let key = key.or_else(|| args.key_base64.as_ref().map(|Bytes(key)| key.clone()));
    match (args.v2_index, args.revision, key) {
        (Some(index), ..) => Ok(Query::V2Index(index)),
        (_, Some(revision), _) => Ok(Query::Revision(revision)),
        (.., Some(key)) => Ok(Query::Key(key)),
        // clap asks for one of them.
        _ => Err(usage("the query is missing").hint("give --v2-index, --revision or --key")),
    }
}
