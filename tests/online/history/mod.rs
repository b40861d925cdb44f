//! Histories of applications that move from v2 to v3 while they run, judged.

mod checker;
mod ops;
mod register;
