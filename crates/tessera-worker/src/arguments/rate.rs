//! The arguments of `tessera rate-distortion`.

use std::path::PathBuf;

use clap::Args;

use super::apply::{ComputeArguments, DataArguments, ModelArguments, pair};

#[derive(Debug, Args)]
pub(crate) struct RateArguments {
    /// A picture or a sound, whichever the model is of, or a folder of them [default: samples of the model's split test]
    #[arg(value_name = "IN", conflicts_with_all = ["config", "sets"])]
    pub(crate) input: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    #[command(flatten)]
    pub(crate) compute: ComputeArguments,
    #[command(flatten)]
    pub(crate) data: DataArguments,
    /// A run folder or a model folder of another model of the same kind, as often as wanted: other numbers of codes, other widths.
    #[arg(long, value_name = "DIR")]
    pub(crate) also: Vec<PathBuf>,
    /// A run folder or a model folder of an autoregressive prior of the model's codes: a curve more.
    #[arg(long, value_name = "DIR")]
    pub(crate) prior: Option<PathBuf>,
    /// Folder for the page, the table and the pictures.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Items at most.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// Let baselines code small pictures on sheets of so many, as a person would who keeps many of them: 16x16.
    #[arg(long, value_name = "ACROSSxDOWN", value_parser = sheet_of)]
    pub(crate) sheet: Option<(u32, u32)>,
    /// Replace what is there.
    #[arg(long)]
    pub(crate) force: bool,
}

fn sheet_of(text: &str) -> Result<(u32, u32), String> {
    pair(text, 256, "pictures across and down such as 16x16")
}
