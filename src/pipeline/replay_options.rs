//! The options of the replay, from the options of a run.
//!
//! Must not know what a rule of an etcd version is.

use super::context::Context;
use crate::ids::RaftIndex;
use crate::options::{InOrderNames, SourceVersion};
use crate::v2store::replay::ReplayOptions;

/// Translates the options of a run that concern the replay. `changes_limit` is the maximum number of bytes for its
/// changes.
pub(super) fn replay_options<'a>(context: &Context<'a>, changes_limit: Option<u64>) -> ReplayOptions<'a> {
    let options = context.options;
    ReplayOptions {
        tail: options.tail,
        up_to: options.up_to_index.map(RaftIndex),
        version: options.source_version.map(SourceVersion::version),
        padded_names: match options.in_order_names {
            InOrderNames::Auto => None,
            InOrderNames::Plain => Some(false),
            InOrderNames::Padded => Some(true),
        },
        changes_limit,
        interrupt: context.interrupt,
    }
}
