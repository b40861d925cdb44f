//! The options of the replay, from the options of a run.

use super::Interrupted;
use crate::ids::RaftIndex;
use crate::interrupt::Interrupt;
use crate::options::{ConvertOptions, InOrderNames, SourceVersion};
use crate::v2store::replay::ReplayOptions;

/// Translates the options of a run that concern the replay.
pub(super) fn replay_options<'a>(options: &ConvertOptions, interrupted: Interrupted<'a>) -> ReplayOptions<'a> {
    ReplayOptions {
        tail: options.tail,
        up_to: options.up_to_index.map(RaftIndex),
        version: options.source_version.map(SourceVersion::version),
        padded_names: match options.in_order_names {
            InOrderNames::Auto => None,
            InOrderNames::Plain => Some(false),
            InOrderNames::Padded => Some(true),
        },
        changes_limit: None,
        interrupt: Interrupt::new(interrupted),
    }
}
