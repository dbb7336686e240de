//! What has to hold of layers, networks, quantisers, losses, features and priors, most of it against the originals.
//!
//! One binary: each would be linked with libtorch by itself, which takes longer than it runs.
#![allow(clippy::unwrap_used)] // the lint knows `#[test]` functions, not their helpers

mod backbones;
mod conv1d;
mod conv3d;
mod cost;
mod dead_codes;
mod edges;
mod features;
mod fused_norm;
mod graphs;
mod hierarchy;
mod layers;
mod losses;
mod networks;
mod parity;
mod priors;
mod rule;
mod sound_critics;
mod spectral;
mod splits;
