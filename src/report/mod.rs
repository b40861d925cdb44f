//! What happened in a run, as data and as text: the report of a conversion, the facts of an inspection.
//!
//! The outer surface of the crate: plain numbers and strings, stable names (CLI.md). Key names may stand in it, values
//! and password hashes never.

pub mod earlier;
pub mod export;
pub mod facts;
pub mod inspection;
pub mod ledger;
pub mod lookup;
pub mod model;
pub mod next_steps;
pub mod table;
pub mod text;
pub mod verification;

pub use export::Exported;
pub use facts::{Contents, Count, Member, SourceFacts, SourceFile, Tail};
pub use inspection::Inspection;
pub use model::{Balance, LeaseLine, NextStep, Notice, OutputFacts, Report, Stage, Transformed};
pub use verification::Verification;
