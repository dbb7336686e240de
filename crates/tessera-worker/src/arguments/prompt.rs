//! The options of a beginning that samples go on from.

use std::path::PathBuf;

use clap::Args;
use tessera_apply::{PromptLength, PromptOptions};

/// A beginning that samples go on from.
#[derive(Debug, Args)]
pub(crate) struct PromptArguments {
    /// Let all samples go on from the first rows of this: a file as the autoencoder's data have it (a picture, a sound, a
    /// film), or codes that it made (a token set, or a safetensors file).
    #[arg(long, value_name = "FILE|DIR")]
    prompt: Option<PathBuf>,
    /// Part of the rows of codes that is given, rounded to whole rows; of sound and film part of the time [default: 0.5]
    #[arg(long, value_name = "P", requires = "prompt", conflicts_with = "prompt_rows")]
    prompt_part: Option<f64>,
    /// Rows of codes that are given; of sound and film steps of time.
    #[arg(long, value_name = "N", requires = "prompt")]
    prompt_rows: Option<u32>,
    /// Number of the sample, where the prompt is several [default: the first]
    #[arg(long, value_name = "N", requires = "prompt")]
    prompt_id: Option<u64>,
    /// Split, where the prompt is a token set.
    #[arg(long, value_name = "NAME", requires = "prompt", default_value = "test")]
    prompt_split: String,
}

impl PromptArguments {
    /// The prompt, if there is one.
    pub(crate) fn options(&self) -> Option<PromptOptions> {
        let length = match self.prompt_rows {
            Some(rows) => PromptLength::Rows(rows),
            None => PromptLength::Part(self.prompt_part.unwrap_or(0.5)),
        };
        let (split, id) = (self.prompt_split.clone(), self.prompt_id);
        self.prompt.clone().map(|path| PromptOptions { path, split, id, length })
    }
}
