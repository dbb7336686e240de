//! The arguments of `tessera features`.

use std::path::PathBuf;

use clap::Args;
use tessera_apply::{FeatureForm, FeatureKind, FeaturesOptions};

use super::apply::{ComputeArguments, DataArguments, ModelArguments};

#[derive(Debug, Args)]
pub(crate) struct FeaturesArguments {
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    #[command(flatten)]
    pub(crate) compute: ComputeArguments,
    #[command(flatten)]
    pub(crate) data: DataArguments,
    /// Folder for a file of each split.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What of each sample: latents (before quantisation), quantized (after it), or codes.
    #[arg(long, value_name = "latents|quantized|codes", default_value = "latents")]
    of: FeatureKind,
    /// Write the mean over a sample's positions instead of each.
    #[arg(long)]
    pool: bool,
    /// Split to write, as often as wanted [default: train, and test where there is one]
    #[arg(long, value_name = "NAME")]
    split: Vec<String>,
    /// Form of the files: safetensors, npy (an array each of features, ids and labels), or parquet (a row for each sample).
    #[arg(long, value_name = "safetensors|npy|parquet", default_value = "safetensors")]
    format: FeatureForm,
    /// Replace files that are there.
    #[arg(long)]
    force: bool,
}

impl FeaturesArguments {
    /// What is written, and where to.
    pub(crate) fn options(&self) -> FeaturesOptions {
        FeaturesOptions {
            out: self.out.clone(),
            of: self.of,
            pooled: self.pool,
            splits: self.split.clone(),
            form: self.format,
            force: self.force,
        }
    }
}
