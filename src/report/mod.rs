//! The results of a run, as data and as text: the report of a conversion, the result of an inspection.
//!
//! Part of the public interface: plain numbers and strings with stable names (docs/report.schema.json). It may contain
//! names of keys, never values or password hashes. Must not know files, except that `earlier` and `ledger` read
//! existing ones.

pub mod advice;
pub(crate) mod advice_text;
pub(crate) mod advice_topics;
pub mod cleaning;
pub mod comparison;
pub(crate) mod comparison_text;
pub(crate) mod earlier;
pub mod export;
pub mod facts;
pub mod inspection;
pub mod ledger;
pub mod lookup;
pub mod model;
pub(crate) mod next_steps;
pub(crate) mod table;
pub(crate) mod text;
pub mod upgrade_check;
pub(crate) mod upgrade_check_text;
pub mod verification;

pub use advice::Advice;
pub use cleaning::Cleaning;
pub use comparison::Comparison;
pub use export::Exported;
pub use facts::{Contents, Count, Member, SourceFacts, SourceFile, SourceKind, Tail};
pub use inspection::Inspection;
pub(crate) use model::Notices;
pub use model::{
    Balance, LeaseLine, NextStep, Notice, OutputFacts, OutputMember, Purpose, Report, Stage, StageName, Transformed,
};
pub use upgrade_check::UpgradeCheck;
pub use verification::Verification;
