//! The mathematics of a VQ-VAE, usable on one device by anyone.
//!
//! [`VqVae`] is an encoder, a [`Quantizer`] and a decoder over one flat buffer of
//! [`Parameters`]. Nothing here knows of ranks, steps or clocks: statistics leave the quantiser,
//! whoever trains sums them over ranks, and the update comes back in. No files either, but for the
//! weights of [feature networks](features), which the user names.
//!
//! Shape letters, used as name suffixes all over the crate: `n` samples or vectors, `c` channels,
//! `h` and `w` height and width, `k` codes, `d` channels per code.

pub mod backbone;
pub mod chain;
pub mod cost;
pub mod critic;
pub mod features;
pub mod fused;
pub mod graph;
pub mod head;
pub mod layers;
pub mod loss;
pub mod metrics;
pub mod parameters;
pub mod prior;
pub mod quantize;
pub mod random;
pub mod recompute;
pub mod signal;
pub mod spectrogram;
mod vqvae;

pub use backbone::BackboneConfig;
pub use critic::CriticConfig;
pub use head::{Head, HeadConfig};
pub use parameters::{Kinds, Parameters};
pub use prior::{Prior, PriorConfig};
pub use quantize::{Quantizer, QuantizerConfig};
pub use signal::{Signal, from_frames, from_vectors, to_frames, to_vectors};
pub use vqvae::{ModelConfig, Output, Pixels, VqVae, to_device};
