//! The arguments of commands that use a trained model.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tessera_apply::{Augment, DecodeOptions, EncodeOptions, ExportForm, Form};
use tessera_comm::DeviceConfig;
use tessera_model::{ModelPath, Weights, Which};

/// Which model.
#[derive(Debug, Args)]
pub(crate) struct ModelArguments {
    #[command(flatten)]
    place: Place,
    /// Which checkpoint of a run: latest (the newest good one), or the step of one.
    #[arg(long, value_name = "latest|STEP", default_value = "latest", conflicts_with = "model")]
    checkpoint: Which,
    /// Which weights of a run: average (those of train.ema_decay) or trained (those of the last step) [default: as
    /// the run's eval.weights says]
    #[arg(long, value_name = "average|trained", conflicts_with = "model")]
    weights: Option<Weights>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Place {
    /// Folder of a run.
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Model folder: what a training leaves in RUN/model, or `tessera export` has written.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
}

impl ModelArguments {
    /// Where the model is.
    pub(crate) fn path(&self) -> ModelPath {
        let Place { run, model } = &self.place;
        match (run, model) {
            (Some(folder), _) => {
                let (folder, which, weights) = (folder.clone(), self.checkpoint, self.weights);
                ModelPath::Run { folder, which, weights }
            }
            (None, model) => ModelPath::Model(model.clone().expect("clap wants one of the two")),
        }
    }
}

/// How a model computes.
#[derive(Debug, Args)]
pub(crate) struct ComputeArguments {
    /// Where: auto (a GPU where there is one), cuda, or cpu.
    #[arg(long, value_name = "auto|cuda|cpu", default_value = "auto")]
    pub(crate) device: DeviceConfig,
    /// Compute with as many threads as there are cores. Without it each rank has one, and the bytes that come out are the
    /// same for every number of ranks; with it they are the same for the same number of threads alone.
    #[arg(long)]
    pub(crate) fast: bool,
    /// Let several ranks share a GPU, for tests on one.
    #[arg(long)]
    pub(crate) share_gpu: bool,
    /// Print one JSON object instead of lines.
    #[arg(long)]
    pub(crate) json: bool,
}

impl ComputeArguments {
    /// Threads of a rank; 0: as many as there are cores for.
    pub(crate) fn threads(&self) -> u64 {
        if self.fast { 0 } else { 1 }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    /// Folder to write. A model folder that is there is replaced by another one; files of other forms are replaced with
    /// --force alone.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Form of the export.
    #[arg(long, value_enum, default_value_t = ExportFormat::Tessera)]
    pub(crate) format: ExportFormat,
    /// Replace files of the same names.
    #[arg(long)]
    pub(crate) force: bool,
    /// Print one JSON object instead of a line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    /// A folder of diffusers' VQModel, transformers' EncodecModel or DacModel, or a file of safetensors with the weights of
    /// taming-transformers' or LlamaGen's VQModel; what it is is found out.
    #[arg(value_name = "IN")]
    pub(crate) from: PathBuf,
    /// Model folder to write; one that is there is replaced.
    #[arg(value_name = "OUT")]
    pub(crate) out: PathBuf,
    /// Height and width of pictures, such as 256x256 [default: what the source says, or 256x256]
    #[arg(long, value_name = "HxW", value_parser = size_of)]
    pub(crate) size: Option<(u32, u32)>,
    /// Instants of a window of sound [default: a second, in whole codes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 28))]
    pub(crate) length: Option<u32>,
    /// Print one JSON object instead of lines.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `HEIGHTxWIDTH`.
fn size_of(text: &str) -> Result<(u32, u32), String> {
    pair(text, 16_384, "height and width such as 256x256")
}

/// Two numbers from 1 to `most` with an x between them; an error says what was `wanted`.
pub(crate) fn pair(text: &str, most: u32, wanted: &str) -> Result<(u32, u32), String> {
    let side = |side: &str| side.parse().ok().filter(|side| (1..=most).contains(side));
    text.split_once('x')
        .and_then(|(first, second)| Some((side(first)?, side(second)?)))
        .ok_or_else(|| format!("expected {wanted}, found '{text}'"))
}

/// Form of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// A model folder: model.safetensors and config.json, which all commands of tessera open.
    Tessera,
    /// A folder for diffusers' VQModel.from_pretrained; for models with the backbone unet2d.
    Diffusers,
    /// Weights and configuration of taming-transformers' VQModel; for models with the backbone unet2d.
    Taming,
    /// Weights and configuration of LlamaGen's VQModel; for models with the backbone unet2d.
    #[value(name = "llamagen")]
    LlamaGen,
    /// A folder for transformers' EncodecModel or DacModel; for models with the backbone conv1d.
    Transformers,
    /// Two programs for torch.jit.load: encoder.ts and decoder.ts.
    #[value(name = "torchscript")]
    TorchScript,
    /// Two graphs of opset 17: encoder.onnx and decoder.onnx.
    Onnx,
}

impl ExportFormat {
    /// The form of another program; none for a model folder.
    pub(crate) fn form(self) -> Option<ExportForm> {
        Some(match self {
            Self::Tessera => return None,
            Self::Diffusers => ExportForm::Diffusers,
            Self::Taming => ExportForm::Taming,
            Self::LlamaGen => ExportForm::LlamaGen,
            Self::Transformers => ExportForm::Transformers,
            Self::TorchScript => ExportForm::TorchScript,
            Self::Onnx => ExportForm::Onnx,
        })
    }
}

/// Which data a model is applied to.
#[derive(Debug, Args)]
pub(crate) struct DataArguments {
    /// Configuration file (TOML) whose `[data]` table names the data [default: the data that the model was trained on]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Set a key of `[data]`, as often as wanted: --set data.path=photos
    #[arg(long = "set", value_name = "KEY=VALUE", add = super::complete::settings())]
    pub(crate) sets: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct EncodeArguments {
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    #[command(flatten)]
    pub(crate) compute: ComputeArguments,
    #[command(flatten)]
    pub(crate) data: DataArguments,
    /// Folder of the token set.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Split to encode, as often as wanted [default: train, and test where there is one]
    #[arg(long, value_name = "NAME")]
    split: Vec<String>,
    /// What is encoded of each sample: none (the sample), flip (and its mirror image), crops (and ten crops of it
    /// enlarged 1.1 times), or shifts (and a sound delayed by eighths of what a code stands for).
    #[arg(long, value_name = "none|flip|crops|shifts", default_value = "none")]
    augment: Augment,
    /// What becomes of a sample that cannot be read: fail or skip [default: as data.on_corrupt says]
    #[arg(long, value_name = "fail|skip", value_parser = ["fail", "skip"])]
    pub(crate) on_corrupt: Option<String>,
    /// Samples of a shard, a multiple of 16. A shard is what a rank makes at a time, and what is made again after a stop.
    #[arg(long, value_name = "N", default_value_t = 4096)]
    shard_samples: u64,
    /// Samples that are read at a time; it changes no byte.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    batch: u64,
}

impl EncodeArguments {
    /// What is encoded, and into what.
    pub(crate) fn options(&self) -> EncodeOptions {
        EncodeOptions {
            out: self.out.clone(),
            splits: self.split.clone(),
            augment: self.augment,
            shard_samples: self.shard_samples,
            batch: self.batch,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct DecodeArguments {
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    #[command(flatten)]
    pub(crate) compute: ComputeArguments,
    /// Folder of a token set, or a safetensors file with codes.0, codes.1, ... and the model's hash as metadata `tokenizer`.
    #[arg(long, value_name = "DIR|FILE")]
    tokens: PathBuf,
    /// Folder for what comes out.
    #[arg(long, value_name = "DIR", required_unless_present = "grid")]
    out: Option<PathBuf>,
    /// Form of what comes out.
    #[arg(long, value_enum, default_value_t = DecodeFormat::Files)]
    format: DecodeFormat,
    /// Put all pictures on one sheet, this PNG file, instead.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["out", "format"])]
    grid: Option<PathBuf>,
    /// Split of the token set.
    #[arg(long, value_name = "NAME", default_value = "test")]
    split: String,
    /// Samples at most.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Decode so many levels of a residual quantiser, a lower rate [default: all]
    #[arg(long, value_name = "N")]
    levels: Option<usize>,
    /// Numbers of samples in the data set that was encoded, as in 3,5 [default: all]
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    ids: Vec<u64>,
}

/// Form of what a decoder makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DecodeFormat {
    /// A file of each sample: PNG of a picture, WAV of sound, animated PNG of film.
    #[value(alias = "png", alias = "wav", alias = "apng")]
    Files,
    /// samples.npy, one NumPy array of all.
    Npy,
}

impl DecodeArguments {
    /// What is decoded, and into what.
    pub(crate) fn options(&self) -> DecodeOptions {
        let out = || self.out.clone().expect("clap wants --out where there is no --grid");
        let form = match (&self.grid, self.format) {
            (Some(file), _) => Form::Grid(file.clone()),
            (None, DecodeFormat::Files) => Form::Files(out()),
            (None, DecodeFormat::Npy) => Form::Array(out()),
        };
        DecodeOptions {
            tokens: self.tokens.clone(),
            split: self.split.clone(),
            ids: self.ids.clone(),
            limit: self.limit,
            levels: self.levels,
            form,
        }
    }
}
