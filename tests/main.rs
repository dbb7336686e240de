//! The promises that only the whole program can keep: one module each.
//!
//! One binary, declared by `tessera-cli`, without libtorch (`exact.rs` has what needs it). Processes under test are the
//! release binaries beside this one; `launch/test.sh` builds them.
// Clippy takes helpers outside a test function for no test; what is printed is shown on failure.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod bad_input;
mod beginnings;
mod clones;
mod data;
mod docs;
mod experiments;
mod faults;
mod forecast;
mod hosts;
mod image;
mod inpaint;
mod judged_signals;
mod judging;
mod matrix;
mod media;
mod nccl;
mod outputs;
mod pages;
mod precision;
mod probes;
mod quantized_runs;
mod recipes;
mod resume;
mod serving;
mod signals;
mod slurm;
mod storage;
mod support;
mod sweeps;
mod tidy;
mod tracking;
mod use_of_models;

use support::root;
