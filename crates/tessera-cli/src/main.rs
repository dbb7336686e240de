//! `tessera`: the command that a person types.
//!
//! Links neither libtorch nor MPI, so that it starts in milliseconds and works where those are
//! missing: what needs them is done by its sibling `tessera-worker`, which `train`, `eval`, `export`, `encode`,
//! `decode` and `bench` become and which `launch` starts through mpirun.
//!
//! Results go to stdout, everything else to stderr, an error as one line `error: ...`.

mod commands;
mod failure;

use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tessera_control::{
    ExitCode, Stderr, all_told, end_unread, hear_of_children, is_coloured, tell,
};

use crate::commands::{
    chaos, checkpoint, completions, data, doctor, in_session, inspect, launch, reference, report,
    sweep, trace, track, watch, worker,
};
use crate::failure::Failure;

/// How long the end waits for a terminal, or for whoever reads stderr.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What every command may end with; see [`ExitCode`].
const EXIT_CODES: &str = "\
Exit codes:
   0  done
   1  failed
   2  bad input or config, nothing was changed
   3  worker lost
   4  hang or mismatch between workers
   5  numeric: a value that must be finite was not
   6  data corrupt
  75  stopped on request and resumable: the same command goes on

RUST_LOG sets what is logged to stderr, as in RUST_LOG=debug.";

/// Trains vector-quantized autoencoders on one or many machines.
#[derive(Debug, Parser)]
#[command(name = "tessera", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start workers with mpirun, watch them, and leave none behind.
    Launch(launch::LaunchArgs),
    /// Train in this process: one worker, or a rank of the mpirun that started it.
    #[command(disable_help_flag = true)]
    Train(worker::WorkerArgs),
    /// Evaluate a run's checkpoint in this process.
    #[command(disable_help_flag = true)]
    Eval(worker::WorkerArgs),
    /// Write the model of a run, complete in itself.
    #[command(disable_help_flag = true)]
    Export(worker::WorkerArgs),
    /// Make a model folder of the weights of another program.
    #[command(disable_help_flag = true)]
    Import(worker::WorkerArgs),
    /// Make tokens of a data set with a trained model, in this process or as a rank of mpirun.
    #[command(disable_help_flag = true)]
    Encode(worker::WorkerArgs),
    /// Make pictures, or arrays, of tokens with the model that made them.
    #[command(disable_help_flag = true)]
    Decode(worker::WorkerArgs),
    /// Compress pictures, sound or film into one file with a trained model.
    #[command(disable_help_flag = true)]
    Compress(worker::WorkerArgs),
    /// Make pictures, sounds or films of a compressed file.
    #[command(disable_help_flag = true)]
    Decompress(worker::WorkerArgs),
    /// Make pictures, sounds or films as a trained model reconstructs them.
    #[command(disable_help_flag = true)]
    Reconstruct(worker::WorkerArgs),
    /// Write latents or codes of a data set for other programs, in this process or as a rank of mpirun.
    #[command(disable_help_flag = true)]
    Features(worker::WorkerArgs),
    /// Show what each code of a model stands for, in this process or as a rank of mpirun.
    #[command(disable_help_flag = true)]
    Atlas(worker::WorkerArgs),
    /// Count a model's codes, so that compressed files are smaller.
    #[command(disable_help_flag = true)]
    Tables(worker::WorkerArgs),
    /// Serve a model over HTTP: files, tokens and samples, KServe's protocol, and a page for people.
    #[command(disable_help_flag = true)]
    Serve(worker::WorkerArgs),
    /// Measure a model beside the codecs of today: bytes and quality, as a page, a table and pictures.
    #[command(disable_help_flag = true)]
    RateDistortion(worker::WorkerArgs),
    /// Draw new samples from a prior, in this process or as a rank of mpirun.
    #[command(disable_help_flag = true)]
    Sample(worker::WorkerArgs),
    /// Say how good samples are, beside held-out pictures and what needs no prior.
    #[command(disable_help_flag = true)]
    Judge(worker::WorkerArgs),
    /// Fill holes in pictures by a prior, in this process or as a rank of mpirun.
    #[command(disable_help_flag = true)]
    Inpaint(worker::WorkerArgs),
    /// Time parts of a training step alone, in this process or as a rank of mpirun.
    #[command(disable_help_flag = true)]
    Bench(worker::WorkerArgs),
    /// Train many times with other values, and find the best.
    Sweep(sweep::SweepArgs),
    /// Write one page about runs, or about a sweep: curves, pictures, sound, codebook, configuration.
    Report(report::ReportArgs),
    /// Pack, check and describe data sets.
    Data(data::DataArgs),
    /// Describe a checkpoint and check its files; exits with 6 if one is corrupt.
    Inspect(inspect::InspectArgs),
    /// Check every byte of a checkpoint, or of all checkpoints of a run; exits with 6 if any is wrong.
    Verify(inspect::VerifyArgs),
    /// Say which tensors of two checkpoints differ, and by how much; exits with 1 if any does.
    Diff(inspect::DiffArgs),
    /// Upgrade checkpoints of older versions.
    Checkpoint(checkpoint::CheckpointArgs),
    /// Follow a run until it ends; exits with the run's code.
    Watch(watch::WatchArgs),
    /// Send the rows and pictures of runs to W&B, MLflow or Trackio, each once.
    Track(track::TrackArgs),
    /// Merge the traces of all ranks into one for Perfetto, and say whom the others waited for.
    Trace(trace::TraceArgs),
    /// Let workers, storage and launcher fail on purpose, and check that nothing is lost.
    Chaos(chaos::ChaosArgs),
    /// Say what is installed and what to do about what is missing.
    Doctor(doctor::DoctorArgs),
    /// Print what a shell completes.
    Completions(completions::CompletionsArgs),
    /// Write manual pages.
    Man(completions::ManArgs),
    /// Write the pages of the book that are made from the code.
    #[command(hide = true)]
    Reference(reference::ReferenceArgs),
    /// Stand in for mpirun and all its ranks.
    #[command(name = chaos::players::PLAYERS, hide = true)]
    Play(chaos::players::PlayArgs),
    /// Become a program in a session that ends with the launcher.
    #[command(name = tessera_launch::TRAMPOLINE, hide = true)]
    InSession(in_session::InSessionArgs),
}

fn main() -> std::process::ExitCode {
    completions::for_a_shell(|| with_negative_numbers(Cli::command()));
    hear_of_children();
    let cli = Cli::from_arg_matches(&with_negative_numbers(Cli::command()).get_matches())
        .unwrap_or_else(|error| error.exit());
    log_to_stderr();
    let code = match run(cli.command) {
        Ok(code) => code,
        Err(failure) => {
            if failure.unread {
                end_unread();
            } else if !failure.message.is_empty() {
                tell(format_args!("error: {}", failure.message));
            }
            failure.code
        }
    };
    all_told(LAST_WORDS);
    code.into()
}

/// Takes `-1` for a value that is out of range, not for an option that there is not.
fn with_negative_numbers(command: clap::Command) -> clap::Command {
    let with_values = |arg: clap::Arg| match arg.get_action().takes_values() {
        true => arg.allow_negative_numbers(true),
        false => arg,
    };
    command.mut_args(with_values).mut_subcommands(with_negative_numbers)
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Launch(args) => launch::run(&args),
        Command::Train(args) => {
            data::fetch::before_training(&args.args).and_then(|()| worker::run("train", &args))
        }
        Command::Eval(args) => worker::run("eval", &args),
        Command::Export(args) => worker::run("export", &args),
        Command::Import(args) => worker::run("import", &args),
        Command::Encode(args) => worker::run("encode", &args),
        Command::Decode(args) => worker::run("decode", &args),
        Command::Compress(args) => worker::run("compress", &args),
        Command::Decompress(args) => worker::run("decompress", &args),
        Command::Reconstruct(args) => worker::run("reconstruct", &args),
        Command::Features(args) => worker::run("features", &args),
        Command::Atlas(args) => worker::run("atlas", &args),
        Command::Tables(args) => worker::run("tables", &args),
        Command::Serve(args) => worker::run("serve", &args),
        Command::RateDistortion(args) => worker::run("rate-distortion", &args),
        Command::Sample(args) => worker::run("sample", &args),
        Command::Judge(args) => worker::run("judge", &args),
        Command::Inpaint(args) => worker::run("inpaint", &args),
        Command::Bench(args) => worker::run("bench", &args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Data(args) => data::run(args).map(|()| ExitCode::Done),
        Command::Inspect(args) => inspect::run(&args),
        Command::Verify(args) => inspect::verify(&args),
        Command::Diff(args) => inspect::compare(&args),
        Command::Checkpoint(args) => checkpoint::run(&args),
        Command::Watch(args) => watch::run(&args),
        Command::Track(args) => track::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Chaos(args) => chaos::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => completions::pages(&args, Cli::command()),
        Command::Reference(args) => reference::run(&args, Cli::command()),
        Command::Play(args) => chaos::players::run(&args),
        Command::InSession(args) => in_session::run(&args),
    }
}

fn log_to_stderr() {
    // What symphonia refuses comes back as an error.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,symphonia=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Stderr)
        .log_internal_errors(false) // it would panic where nobody reads stderr
        .with_ansi(is_coloured())
        .without_time()
        .with_target(false)
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_lists_every_exit_code() {
        for number in [0, 1, 2, 3, 4, 5, 6, 75] {
            let line = format!("{number:>4}  {}", ExitCode::from(number).meaning());
            assert!(EXIT_CODES.contains(&line), "{line}");
        }
    }

    #[test]
    fn a_negative_number_is_told_as_a_wrong_value() {
        for (option, words) in [
            (&["launch", "--silence", "-1", "train"][..], "invalid value '-1' for '--silence"),
            (&["sweep", "--config", "a", "--trials", "-2"][..], "invalid value '-2' for '--trials"),
            (
                &["data", "preview", "a", "--out", "b", "--count", "-3"][..],
                "value '-3' for '--count",
            ),
        ] {
            let words_of = ["tessera"].iter().chain(option);
            let matches = with_negative_numbers(Cli::command()).try_get_matches_from(words_of);
            let told = matches.unwrap_err().to_string();
            assert!(told.contains(words), "{told}");
        }
    }

    #[test]
    fn train_passes_everything_on_even_help() {
        let words = ["tessera", "train", "--config", "a.toml", "--set", "x=1", "--help"];
        let Command::Train(args) = Cli::parse_from(words).command else { panic!("not train") };
        assert_eq!(args.args, ["--config", "a.toml", "--set", "x=1", "--help"]);
    }

    #[test]
    fn launch_takes_the_workers_command_with_or_without_dashes() {
        for words in [
            &["tessera", "launch", "--nproc", "3", "--", "train", "--set", "a=b"][..],
            &["tessera", "launch", "--nproc", "3", "train", "--set", "a=b"][..],
        ] {
            let Command::Launch(args) = Cli::parse_from(words).command else { panic!("no launch") };
            assert_eq!(args.command, ["train", "--set", "a=b"]);
        }
    }
}
