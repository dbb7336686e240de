//! The arguments of `tessera compress`, `decompress`, `tables` and `reconstruct`.

use std::path::PathBuf;

use clap::Args;
use tessera_apply::{
    CompressOptions, DecompressOptions, ReconstructOptions, StreamOptions, TablesOptions,
};

use super::apply::{ComputeArguments, DataArguments, ModelArguments};

/// Whether sound is a stream.
#[derive(Debug, Args)]
struct StreamArguments {
    /// Take each sound as one stream, every code with all that came before it: causal models of sound alone.
    #[arg(long)]
    stream: bool,
    /// Seconds of a stream that are coded at a time and handed on at once, in whole hops, at most a window of the model [default: a
    /// sixteenth of one, handed on in blocks of many]
    #[arg(long, value_name = "SECONDS", requires = "stream", value_parser = seconds)]
    latency: Option<f64>,
}

impl StreamArguments {
    fn options(&self) -> Option<StreamOptions> {
        self.stream.then_some(StreamOptions { latency: self.latency })
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds.is_finite() => Ok(seconds),
        _ => Err("should be a number of seconds above 0".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct CompressArguments {
    /// A picture, sound or film, whichever the model is of, or a folder of them; - for standard input.
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The compressed file; - for standard output.
    #[arg(value_name = "OUT")]
    out: PathBuf,
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    #[command(flatten)]
    pub(crate) compute: ComputeArguments,
    /// A run folder or a model folder of an autoregressive prior of the model's codes: it says how likely each code is, for the
    /// smallest file. Only the same build on the same kind of processor can decompress it.
    #[arg(long, value_name = "DIR")]
    pub(crate) prior: Option<PathBuf>,
    /// Keep so many levels of a residual quantiser, a lower rate [default: all]
    #[arg(long, value_name = "N")]
    levels: Option<usize>,
    #[command(flatten)]
    stream: StreamArguments,
    /// What becomes of a file that cannot be read: fail or skip.
    #[arg(long, value_name = "fail|skip", value_parser = ["fail", "skip"], default_value = "fail")]
    on_corrupt: String,
    /// Replace a file that is there.
    #[arg(long)]
    force: bool,
}

impl CompressArguments {
    /// What is compressed, and into what.
    pub(crate) fn options(&self) -> CompressOptions {
        CompressOptions {
            input: self.input.clone().into(),
            out: self.out.clone().into(),
            levels: self.levels,
            stream: self.stream.options(),
            skips: self.on_corrupt == "skip",
            force: self.force,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct DecompressArguments {
    /// The compressed file; - for standard input.
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// A file (.png, .wav, .apng) where one was compressed, - for standard output; a folder where one was.
    #[arg(value_name = "OUT")]
    out: PathBuf,
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    #[command(flatten)]
    pub(crate) compute: ComputeArguments,
    /// The prior that the file was compressed with, where it was.
    #[arg(long, value_name = "DIR")]
    pub(crate) prior: Option<PathBuf>,
    /// Of a damaged file, write what is whole: samples that are lost are gray, or silent.
    #[arg(long)]
    salvage: bool,
    /// Replace what is there.
    #[arg(long)]
    force: bool,
}

impl DecompressArguments {
    /// What is decompressed, and into what.
    pub(crate) fn options(&self) -> DecompressOptions {
        DecompressOptions {
            input: self.input.clone().into(),
            out: self.out.clone().into(),
            salvage: self.salvage,
            force: self.force,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct TablesArguments {
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    #[command(flatten)]
    pub(crate) compute: ComputeArguments,
    #[command(flatten)]
    pub(crate) data: DataArguments,
    /// Count codes that were made before, instead: a token set (its split train), or a safetensors file of codes.
    #[arg(long, value_name = "DIR|FILE", conflicts_with_all = ["config", "sets"])]
    tokens: Option<PathBuf>,
    /// Samples at most, spread evenly over the data.
    #[arg(long, value_name = "N", default_value_t = 16_384, value_parser = clap::value_parser!(u64).range(1..))]
    samples: u64,
}

impl TablesArguments {
    /// What is counted, and where tables go.
    pub(crate) fn options(&self) -> TablesOptions {
        TablesOptions {
            folder: self.model.path().tables_folder(),
            tokens: self.tokens.clone(),
            samples: self.samples,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ReconstructArguments {
    /// A picture, sound or film, whichever the model is of, or a folder of them; - for standard input.
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// A file (.png, .wav, .apng) for what the model makes of it, - for standard output; a folder where IN is one.
    #[arg(value_name = "OUT")]
    out: PathBuf,
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    #[command(flatten)]
    pub(crate) compute: ComputeArguments,
    /// Pixels that the tiles of a large picture share and are blended in, or instants that windows of sound share.
    #[arg(long, value_name = "N", default_value_t = 0)]
    overlap: u32,
    /// Reconstruct from so many levels of a residual quantiser [default: all]
    #[arg(long, value_name = "N")]
    levels: Option<usize>,
    #[command(flatten)]
    stream: StreamArguments,
    /// What becomes of a file that cannot be read: fail or skip.
    #[arg(long, value_name = "fail|skip", value_parser = ["fail", "skip"], default_value = "fail")]
    on_corrupt: String,
    /// Replace what is there.
    #[arg(long)]
    force: bool,
}

impl ReconstructArguments {
    /// What is reconstructed, and into what.
    pub(crate) fn options(&self) -> ReconstructOptions {
        ReconstructOptions {
            input: self.input.clone().into(),
            out: self.out.clone().into(),
            overlap: self.overlap,
            levels: self.levels,
            stream: self.stream.options(),
            skips: self.on_corrupt == "skip",
            force: self.force,
        }
    }
}
