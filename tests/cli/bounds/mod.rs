//! Bounds of memory and time on sources that are hostile or merely unlucky: small files that ask for much. Each test
//! builds a data directory, runs the binary, and looks at what the run took.

mod harness;
mod interrupted;
mod paths;
mod reports;
mod values;
