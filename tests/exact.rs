//! The promises about figures: N ranks compute what one computes, a resume goes on bit for bit, and figures are those of a
//! second implementation. Ranks are threads here; `main.rs` has the promises that take processes.
//!
//! A binary apart, declared by `tessera-train`: those that start programs need no libtorch, whose loading would cost
//! each of them a quarter of a second.
// Clippy takes helpers outside a test function for no test; what is printed is shown on failure.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::{Path, PathBuf};

mod configurations;
mod experiments;
mod figures;
mod films;
mod media;
mod objectives;
mod priors;
mod quantizers;
mod ranks;
mod sounds;

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../..").canonicalize().unwrap()
}
