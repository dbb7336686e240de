//! What has to hold of a training in one process. One binary: each would be linked with libtorch by itself.
#![allow(clippy::unwrap_used)] // the lint knows `#[test]` functions, not their helpers

mod older_checkpoint;
mod skipped_steps;
