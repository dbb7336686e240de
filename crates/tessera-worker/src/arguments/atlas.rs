//! The arguments of `tessera atlas`.

use std::path::PathBuf;

use clap::Args;
use tessera_apply::AtlasOptions;

use super::apply::{ComputeArguments, DataArguments, ModelArguments};

#[derive(Debug, Args)]
pub(crate) struct AtlasArguments {
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    #[command(flatten)]
    pub(crate) compute: ComputeArguments,
    #[command(flatten)]
    pub(crate) data: DataArguments,
    /// Folder to write; `RUN/atlas` is where `tessera report` looks.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Split whose samples are counted.
    #[arg(long, value_name = "NAME", default_value = "test")]
    split: String,
    /// Samples at most.
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u64).range(1..))]
    samples: u64,
    /// Parts of real samples beside each code.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    patches: u32,
    /// Samples whose codes are shown in their places.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(0..=256))]
    maps: u32,
    /// Most frequent codes whose neighbours are counted.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    neighbours: u32,
    /// Replace a folder that is there.
    #[arg(long)]
    force: bool,
}

impl AtlasArguments {
    /// What the atlas is of, and where it goes.
    pub(crate) fn options(&self) -> AtlasOptions {
        AtlasOptions {
            out: self.out.clone(),
            split: self.split.clone(),
            samples: self.samples,
            patches: self.patches as usize,
            maps: self.maps as usize,
            neighbours: self.neighbours as usize,
            force: self.force,
        }
    }
}
