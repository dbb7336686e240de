//! The command line of a worker. `tessera` passes its own through unread.

pub(crate) mod apply;
pub(crate) mod atlas;
mod complete;
pub(crate) mod compress;
mod drawing;
pub(crate) mod features;
pub(crate) mod inpaint;
pub(crate) mod judge;
mod prompt;
pub(crate) mod rate;
pub(crate) mod sample;
pub(crate) mod serve;

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use tessera_comm::{Backend, DeviceConfig};
use tessera_control::variables;
use tessera_train::{Resolved, Resume, TrainError, resolve};

use self::apply::{
    DecodeArguments, EncodeArguments, ExportArguments, ImportArguments, ModelArguments,
};
use self::atlas::AtlasArguments;
use self::compress::{
    CompressArguments, DecompressArguments, ReconstructArguments, TablesArguments,
};
use self::features::FeaturesArguments;
use self::inpaint::InpaintArguments;
use self::judge::JudgeArguments;
use self::rate::RateArguments;
use self::sample::SampleArguments;
use self::serve::ServeArguments;

/// One worker of a training or an evaluation.
#[derive(Debug, Parser)]
#[command(name = "tessera", bin_name = "tessera", version, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The command line of this process; ends it where it is wrong.
pub(crate) fn parse() -> Arguments {
    complete::for_a_shell(|| with_negative_numbers(Arguments::command()));
    let matches = with_negative_numbers(Arguments::command()).get_matches();
    Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// Takes `-1` for a value that is out of range, not for an option that there is not.
fn with_negative_numbers(command: clap::Command) -> clap::Command {
    let with_values = |arg: clap::Arg| match arg.get_action().takes_values() {
        true => arg.allow_negative_numbers(true),
        false => arg,
    };
    command.mut_args(with_values).mut_subcommands(with_negative_numbers)
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 bad input or config, 3 worker lost, \
                          4 hang or mismatch, 5 numeric, 6 data corrupt, 75 stopped on request \
                          and resumable.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a VQ-VAE; under mpirun or `tessera launch`, as one of several ranks.
    #[command(after_help = EXIT_CODES)]
    Train(TrainArguments),
    /// Measure a checkpoint, or a model folder, on the test split.
    #[command(after_help = EXIT_CODES)]
    Eval(EvalArguments),
    /// Write the model of a run, complete in itself.
    #[command(after_help = EXIT_CODES)]
    Export(ExportArguments),
    /// Make a model folder of the weights of another program.
    #[command(after_help = EXIT_CODES)]
    Import(ImportArguments),
    /// Make tokens of a data set; under mpirun or `tessera launch`, as one of several ranks.
    #[command(after_help = EXIT_CODES)]
    Encode(EncodeArguments),
    /// Make pictures, or arrays, of tokens.
    #[command(after_help = EXIT_CODES)]
    Decode(DecodeArguments),
    /// Compress a picture, a sound or a film, or a folder of them, into one file of codes.
    #[command(after_help = EXIT_CODES)]
    Compress(CompressArguments),
    /// Make pictures, sounds or films of a compressed file.
    #[command(after_help = EXIT_CODES)]
    Decompress(DecompressArguments),
    /// Make a picture, a sound or a film, or a folder of them, as the model reconstructs it.
    #[command(after_help = EXIT_CODES)]
    Reconstruct(ReconstructArguments),
    /// Write what a model knows of each sample of a data set: latents, their codes' vectors, or codes.
    #[command(after_help = EXIT_CODES)]
    Features(FeaturesArguments),
    /// Show what each code of a model stands for: decoded alone and in a mean context, beside the real samples that take it; how often it is
    /// taken, beside which others, and where.
    #[command(after_help = EXIT_CODES)]
    Atlas(AtlasArguments),
    /// Count the codes of data like those to be compressed, so that frequent ones take fewer bits: tables.safetensors of the
    /// model folder.
    #[command(after_help = EXIT_CODES)]
    Tables(TablesArguments),
    /// Serve a model over HTTP: files, tokens and samples, KServe's protocol, and a page for people.
    #[command(after_help = EXIT_CODES)]
    Serve(ServeArguments),
    /// Measure a model beside the codecs of today: bytes and quality, as a page, a table and pictures.
    #[command(after_help = EXIT_CODES)]
    RateDistortion(RateArguments),
    /// Draw new samples from a prior.
    #[command(after_help = EXIT_CODES)]
    Sample(SampleArguments),
    /// Say how good samples are: beside held-out ones, and beside what needs no prior.
    #[command(after_help = EXIT_CODES)]
    Judge(JudgeArguments),
    /// Fill holes in pictures by a prior: those of a mask, or what the prior finds damaged.
    #[command(after_help = EXIT_CODES)]
    Inpaint(InpaintArguments),
    /// Time parts of a training step alone.
    Bench(BenchArguments),
    /// Check and print the configuration as one line of JSON; for `tessera launch`.
    #[command(hide = true)]
    Resolve {
        /// Workers that will be started.
        #[arg(long, default_value_t = 1)]
        nproc: usize,
        #[command(flatten)]
        train: TrainArguments,
    },
    /// Print what the code knows of itself, as Markdown; for `tessera reference`.
    #[command(hide = true)]
    Reference {
        /// Of what.
        of: Reference,
    },
}

/// What there is a reference of.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Reference {
    /// The commands of this program.
    Commands,
    /// The keys of the configuration.
    Keys,
}

#[derive(Debug, Args)]
pub(crate) struct TrainArguments {
    /// Configuration file (TOML), or @NAME of one that Tessera brings, such as @fashion_mnist; without one, every value is its default.
    #[arg(long, value_name = "FILE", add = complete::configurations())]
    pub(crate) config: Option<PathBuf>,
    /// Set a key over file and environment, as often as wanted: --set train.steps=100
    #[arg(long, value_name = "KEY=VALUE", add = complete::settings())]
    pub(crate) set: Vec<String>,
    /// Folder of the run [default: runs/ and the name of the configuration file]
    #[arg(long, value_name = "DIR")]
    pub(crate) run_dir: Option<PathBuf>,
    /// Go on from: auto (the newest good checkpoint in the run folder, else the start), never
    /// (the run folder must be empty), the folder of a checkpoint, or a run folder (its newest good
    /// checkpoint).
    #[arg(long, value_name = "auto|never|PATH", default_value = "auto", value_parser = resume())]
    pub(crate) resume: Resume,
    /// Print where a step's time went, at the end.
    #[arg(long)]
    pub(crate) profile: bool,
    /// Note each phase of each step in RUN/trace/; `tessera trace RUN` makes one picture of all ranks.
    #[arg(long)]
    pub(crate) trace: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EvalArguments {
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    /// Measure on the test split of this part of a mixture alone, counted from 0 [default: all parts]
    #[arg(long, value_name = "N")]
    pub(crate) part: Option<usize>,
    /// Reconstruct from so many levels of a residual quantiser [default: all]
    #[arg(long, value_name = "N")]
    pub(crate) levels: Option<usize>,
    /// Measure with another value of eval.features, such as eval.features.network=random, or of eval.batch, and a model
    /// folder on other data, such as data.path=photos; repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE", add = complete::settings())]
    pub(crate) sets: Vec<String>,
    /// Write samples and what the model makes of them here: a sheet (of sound its spectrograms), and sound and film themselves.
    /// Of a prior its draws.
    #[arg(long, value_name = "DIR")]
    pub(crate) show: Option<PathBuf>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    #[command(subcommand)]
    pub(crate) part: BenchPart,
    /// Where: auto (a GPU where there is one), cuda, or cpu.
    #[arg(long, value_name = "auto|cuda|cpu", default_value = "auto", global = true)]
    pub(crate) device: DeviceConfig,
    /// What carries tensors between ranks: auto, nccl, or mpi.
    #[arg(long, value_name = "auto|nccl|mpi", default_value = "auto", global = true)]
    pub(crate) backend: Backend,
    /// Let several ranks take one GPU.
    #[arg(long, global = true)]
    pub(crate) share_gpu: bool,
    /// Calls that count; the median is told.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..), global = true)]
    pub(crate) calls: u32,
    /// Calls before the first that counts.
    #[arg(long, default_value_t = 2, global = true)]
    pub(crate) warmup: u32,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum BenchPart {
    /// The quantiser's part of a step, on random latents; prints one JSON object.
    Quantizer {
        /// Latents of a call.
        #[arg(long, default_value_t = 16_384, value_parser = clap::value_parser!(i64).range(1..))]
        n: i64,
        /// Codes in the codebook.
        #[arg(long, default_value_t = 8192, value_parser = clap::value_parser!(i64).range(2..))]
        codes: i64,
        /// Channels of a code.
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(i64).range(1..))]
        dim: i64,
    },
    /// Reads training batches of a configuration into memory; prints one JSON object. A rank of
    /// mpirun reads its own part.
    Data {
        /// Configuration file (TOML).
        #[arg(long, value_name = "FILE", add = complete::configurations())]
        config: Option<PathBuf>,
        /// Set a key over file and environment, as often as wanted: --set data.threads=4
        #[arg(long, value_name = "KEY=VALUE", add = complete::settings())]
        set: Vec<String>,
        /// Batches that count, after the first.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
        batches: u64,
    },
    /// A model's encoder and quantiser in tiles of random samples, on one thread; prints one JSON object.
    Encode {
        /// Model folder.
        #[arg(long, value_name = "DIR")]
        model: PathBuf,
    },
    /// A sum over ranks, checked against arithmetic; rank 0 prints one JSON object.
    AllReduce {
        /// Float32 numbers of each rank.
        #[arg(long, default_value_t = 1 << 20, value_parser = clap::value_parser!(i64).range(1..))]
        floats: i64,
    },
}

impl TrainArguments {
    /// The configuration: the launcher's, where there is one, else resolved here.
    pub(crate) fn resolve(&self) -> Result<Resolved, TrainError> {
        if let Ok(line) = std::env::var(variables::RESOLVED) {
            return serde_json::from_str(&line).map_err(|error| {
                TrainError::BadInput(format!(
                    "environment variable {} is not what this version's launcher sets: {error}",
                    variables::RESOLVED
                ))
            });
        }
        let run_dir = self.run_dir.clone();
        resolve(self.config.as_deref(), environment()?, &self.set, run_dir)
    }
}

/// Takes `--resume`, whose path may be any bytes.
fn resume() -> impl TypedValueParser<Value = Resume> {
    OsStringValueParser::new().map(|given| match given.to_str().map(str::parse) {
        Some(Ok(resume)) => resume,
        None => Resume::From(given.into()),
    })
}

/// The variables of this process. One of another program may hold anything; a key of ours may not.
pub(crate) fn environment() -> Result<Vec<(String, String)>, TrainError> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        match (name.into_string(), value.into_string()) {
            (Ok(name), _) if meant(&name).is_some() => {
                let meant = meant(&name).unwrap_or_default();
                return Err(TrainError::BadInput(format!(
                    "environment variable {name} sets nothing: {meant} sets a key"
                )));
            }
            (Ok(name), Ok(value)) => variables.push((name, value)),
            (Ok(name), Err(_)) if name.starts_with("TESSERA__") => {
                return Err(TrainError::BadInput(format!(
                    "environment variable {name} is not UTF-8: set it anew, or unset it"
                )));
            }
            _ => {}
        }
    }
    Ok(variables)
}

/// The variable that was meant by one that has an underscore too few behind its first word.
fn meant(name: &str) -> Option<String> {
    let key = name.strip_prefix("TESSERA_").filter(|key| !key.starts_with('_'))?;
    key.contains("__").then(|| format!("TESSERA__{key}"))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn a_key_with_an_underscore_too_few_is_no_variable_of_ours() {
        assert_eq!(meant("TESSERA_TRAIN__STEPS").unwrap(), "TESSERA__TRAIN__STEPS");
        for name in ["TESSERA__TRAIN__STEPS", "TESSERA_WORLD_SIZE", "TESSERA_", "OTHER_A__B"] {
            assert_eq!(meant(name), None, "{name}");
        }
    }

    #[test]
    fn a_checkpoint_to_resume_from_may_have_a_name_of_any_bytes() {
        let parsed = |given: OsString| {
            let words = ["tessera".into(), "train".into(), "--resume".into(), given];
            let Command::Train(train) = Arguments::parse_from(words).command else {
                panic!("not train")
            };
            train.resume
        };
        assert_eq!(parsed("never".into()), Resume::Never);
        let latin = OsString::from_vec(b"r\xe9s/checkpoints/step-2".to_vec());
        assert_eq!(parsed(latin.clone()), Resume::From(latin.into()));
    }
}
