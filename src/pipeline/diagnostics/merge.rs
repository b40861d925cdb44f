//! What a merge found: the v3 data that the source already has, and what becomes of it.
//!
//! Decides nothing.

use super::Findings;
use crate::display::lossy;
use crate::notice::Code;
use crate::pipeline::backend::v2v3_notices;
use crate::report::facts::{ExistingFacts, V2v3};
use crate::report::{Notices, Report};
use crate::verify::{V2v3Tree, V3Content};

/// The losses that concern only v2.
const V2_LOSSES: [Code; 2] = [Code::TailLeftOut, Code::BackupRenumbered];

/// What a merge found about the v3 data of the source, and what it decided.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct MergeFindings {
    pub(in crate::pipeline) existing: Option<ExistingFacts>,
    /// `--existing keep-v3` leaves v2 out, so losses of v2 data do not count.
    pub(in crate::pipeline) v2_left_out: bool,
    pub(in crate::pipeline) notices: Notices,
}

impl Findings for MergeFindings {
    fn add_to(self, report: &mut Report) {
        if self.v2_left_out {
            report.losses.retain(|loss| !V2_LOSSES.contains(&loss.code));
        }
        if self.existing.is_some() {
            report.existing = self.existing;
        }
        report.add(self.notices);
    }
}

impl MergeFindings {
    /// Adds a warning for each v2 tree that a server stored inside v3, and what becomes of it.
    pub(in crate::pipeline) fn note_v2v3(&mut self, content: &V3Content, becomes: &str) {
        self.notices.warnings.extend(v2v3_notices(content, becomes));
        if let Some(existing) = self.existing.as_mut() {
            let facts = |tree: &V2v3Tree| V2v3 { prefix: lossy(&tree.prefix), keys: tree.keys };
            existing.v2v3 = content.v2v3.iter().map(facts).collect();
        }
    }
}
