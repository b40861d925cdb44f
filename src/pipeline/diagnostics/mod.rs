//! What the stages found, for the report: each stage returns its findings with its result, a failed stage too.
//!
//! [`Findings`] adds them to the report. One file for each stage words them. Must not know what a run does with a
//! finding, and decides nothing.

mod merge;
mod plan;
mod source;

pub(super) use merge::MergeFindings;
pub(super) use plan::PlanFindings;
pub(super) use source::{SourceFindings, opened_facts, source};

use crate::count::counted;
use crate::error::Result;
use crate::notice::Code;
use crate::report::{Notices, Report};
use crate::transform::revisions::Ordered;

/// What a stage found.
pub(super) trait Findings {
    /// Adds the findings to the report.
    fn add_to(self, report: &mut Report);
}

impl Findings for Notices {
    fn add_to(self, report: &mut Report) {
        report.add(self);
    }
}

/// The end of a stage: what it found, and its result.
pub(super) type Diagnosed<F, T> = (F, Result<T>);

/// Reports what the numbering of the rows found.
pub(in crate::pipeline) fn order(ordered: &Ordered) -> Notices {
    let mut notices = Notices::default();
    if ordered.shared > 0 {
        let message = format!(
            "{} with the modified index of another key: they share a revision and differ in the sub revision",
            counted(ordered.shared, "key", "keys")
        );
        notices.warn(Code::SharedIndex, message);
    }
    if ordered.created_after_modified > 0 {
        let message = format!(
            "{} with a created index above the modified index, which is written for both",
            counted(ordered.created_after_modified, "key", "keys")
        );
        notices.warn(Code::CreatedAfterModified, message);
    }
    notices
}
