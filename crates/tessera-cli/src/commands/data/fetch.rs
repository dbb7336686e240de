//! Data sets of the configurations that Tessera brings, from where they are published.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use tessera_control::{ExitCode, tell};

use super::{DEFAULT_SHARD_SAMPLES, PackArgs, pack};
use crate::failure::Failure;

/// Fetches the four files of Fashion-MNIST into a cache, and prints where they are.
const FASHION_MNIST: &str = include_str!("../../../../../launch/fetch-fashion-mnist.sh");

/// Where the configurations look for it.
const PLACE: &str = "data/fashion_mnist";

/// Configurations of a first training on it, by the names that they are shipped under.
const OF_IT: &str = "@fashion_mnist";

#[derive(Debug, Args)]
pub(super) struct FetchArgs {
    /// The data set: fashion_mnist, 70,000 pictures of clothes (31 MB, MIT licence).
    #[arg(value_name = "NAME", value_parser = ["fashion_mnist"])]
    name: String,
    /// Folder to write; must not exist, or be empty [default: data/ and the name]
    #[arg(long, value_name = "DIR", default_value = PLACE, hide_default_value = true)]
    out: PathBuf,
}

/// Fetches a data set and packs it.
pub(super) fn run(args: FetchArgs) -> Result<(), Failure> {
    fashion_mnist(args.out)
}

fn fashion_mnist(out: PathBuf) -> Result<(), Failure> {
    let failed = |problem: String| {
        let what = "name a folder of its four IDX files with `tessera data pack --format idx`";
        Failure::new(
            ExitCode::Failed,
            format!("Fashion-MNIST cannot be fetched: {problem}; or {what}"),
        )
    };
    let mut script = Command::new("bash")
        .args(["-s", "--"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("bash cannot be started ({error})")))?;
    let mut words = script.stdin.take().expect("it is piped");
    let written = words.write_all(FASHION_MNIST.as_bytes());
    drop(words);
    let output = script.wait_with_output().and_then(|output| written.map(|()| output));
    let output = output.map_err(|error| failed(format!("bash broke off ({error})")))?;
    if !output.status.success() {
        return Err(failed("the lines above say why".to_owned()));
    }
    let input = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end());
    let (format, shard_samples) = ("idx".to_owned(), DEFAULT_SHARD_SAMPLES);
    pack(PackArgs {
        format,
        input,
        out,
        shard_samples,
        set: Vec::new(),
        zstd: None,
        skip_corrupt: false,
    })
}

/// What an mpirun tells each of its processes: several of them would fetch at a time.
const RANKS: [&str; 4] = ["OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID"];

/// Fetches what a training by a shipped configuration is of, where nobody has, and the arguments name no other data.
pub(crate) fn before_training(args: &[OsString]) -> Result<(), Failure> {
    let is_alone = RANKS.iter().all(|name| std::env::var_os(name).is_none());
    match is_alone && wants(args) && !Path::new(PLACE).exists() {
        true => {
            tell(format_args!("{PLACE} is not there: fetching Fashion-MNIST"));
            fashion_mnist(PLACE.into())
        }
        false => Ok(()),
    }
}

/// Whether these are arguments of a training by the shipped configuration on its own data.
fn wants(args: &[OsString]) -> bool {
    let words: Vec<&str> = args.iter().filter_map(|word| word.to_str()).collect();
    let of_it = |name: &str| name.strip_prefix(OF_IT).is_some_and(|rest| !rest.contains('/'));
    let named = words.windows(2).any(|pair| pair[0] == "--config" && of_it(pair[1]))
        || words.iter().any(|word| word.strip_prefix("--config=").is_some_and(of_it));
    let is_help = words.iter().any(|word| ["--help", "-h"].contains(word));
    named && !is_help && !words.iter().any(|word| word.contains("data.path="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shipped_configuration_on_its_own_data_wants_them() {
        let wants =
            |words: &str| wants(&words.split_whitespace().map(OsString::from).collect::<Vec<_>>());
        assert!(wants("--config @fashion_mnist --set train.steps=3"));
        assert!(wants("--config=@fashion_mnist_gan"));
        assert!(!wants("--config @fashion_mnist --set data.path=mine"));
        assert!(!wants("--config @fashion_mnist --set=data.path=mine"));
        assert!(!wants("--config configs/fashion_mnist.toml") && !wants("--config @speech_8k"));
        assert!(!wants("--config @fashion_mnist --help"));
    }
}
