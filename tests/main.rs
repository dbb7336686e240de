//! The promises that only the whole program can keep: one module each.
//!
//! One binary, declared by `tessera-cli`: everything that links libtorch takes long to link.
//! Processes under test are the release binaries beside this one; `launch/test.sh` builds them.
// Clippy takes helpers outside a test function for no test; what is printed is shown on failure.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod bad_input;
mod data;
mod docs;
mod faults;
mod hosts;
mod image;
mod matrix;
mod nccl;
mod outputs;
mod pages;
mod precision;
mod quantizers;
mod ranks;
mod resume;
mod slurm;
mod storage;
mod support;
mod sweeps;
mod tidy;
