//! The arguments of `tessera sample`.

use std::path::PathBuf;

use clap::Args;
use tessera_apply::SampleOptions;

use super::apply::{ComputeArguments, ModelArguments};
use super::drawing::DrawingArguments;
use super::prompt::PromptArguments;

#[derive(Debug, Args)]
pub(crate) struct SampleArguments {
    #[command(flatten)]
    pub(crate) prior: ModelArguments,
    #[command(flatten)]
    pub(crate) compute: ComputeArguments,
    /// Model folder or run folder of the autoencoder whose codes the prior is of [default: the one that its training left
    /// beside it]
    #[arg(long, value_name = "DIR")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// Samples to draw.
    #[arg(long, value_name = "N", default_value_t = 64)]
    num: u64,
    /// A class, by name or number, as often as wanted: samples take turns [default: all classes of the prior]
    #[arg(long, value_name = "CLASS", conflicts_with = "without_class")]
    class: Vec<String>,
    /// Draw samples of no class.
    #[arg(long)]
    without_class: bool,
    /// Key of all draws: the same seed gives the same samples.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    drawing: DrawingArguments,
    #[command(flatten)]
    pub(crate) prompt: PromptArguments,
    /// Folder for what comes out: pictures/, grid.png, tokens.safetensors, samples.json.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Make codes alone, no pictures.
    #[arg(long)]
    pub(crate) tokens_only: bool,
    /// Draw a sample again, up to 100 times, where the classifier gives its class a probability below this; above 0, below 1.
    #[arg(long, value_name = "P", requires = "classifier")]
    reject_below: Option<f64>,
    /// Run with task = "probe" that --reject-below asks.
    #[arg(long, value_name = "DIR", requires = "reject_below")]
    pub(crate) classifier: Option<PathBuf>,
}

impl SampleArguments {
    /// What is drawn, and where it goes.
    pub(crate) fn options(&self) -> SampleOptions {
        SampleOptions {
            num: self.num,
            classes: self.class.clone(),
            without_class: self.without_class,
            seed: self.seed,
            sampling: self.drawing.sampling(),
            out: self.out.clone(),
            tokens_only: self.tokens_only,
            prompt: self.prompt.options(),
            reject_below: self.reject_below,
        }
    }
}
