//! What has to hold of a trained model at work. One binary: each would be linked with libtorch by itself.
#![allow(clippy::unwrap_used)] // a test may

mod atlas;
mod compress;
mod encode;
mod exports;
mod features;
mod sample;
