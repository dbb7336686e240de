//! The launcher: one worker per GPU through `mpirun`, watched from start to end.
//!
//! [`launch`] resolves the configuration once, starts `mpirun` in a session of its own, listens on
//! the control connection, turns every stop into one SIGUSR1, and ends with a verdict: which code,
//! why, and, when a worker was lost, which rank on which host in which phase. What a run ended
//! with is what its workers said, never what `mpirun` answers: `mpirun` gives 1 for a SIGTERM and
//! the first rank's code for everybody.
//!
//! No process outlives the launcher. `mpirun` is started through [`Trampoline`], which asks the
//! kernel for SIGKILL on the launcher's death; workers do the same, and leave when their control
//! connection ends. What then still lives in `mpirun`'s session is killed before [`launch`]
//! returns.
//!
//! Nothing here knows torch, MPI's library or the model: a worker is a program that speaks
//! [`tessera_control::Message`].

mod addresses;
mod banner;
mod child;
mod display;
mod environment;
mod error;
mod files;
mod gpus;
mod hostfile;
mod hosts;
mod listener;
mod mpirun;
mod nproc;
mod pbs;
mod processes;
mod prometheus;
mod records;
mod report;
mod resolve;
mod run;
mod run_files;
mod session;
mod signals;
mod slurm;
mod startup;
mod supervision;
mod trackers;
mod watch;
mod ways;
mod worker;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use tessera_control::ExitCode;

pub use addresses::{ControlAddress, parse_control_addresses};
pub use child::{Child, resolve_alone};
pub use environment::{Wanted, parse_variable};
pub use error::LaunchError;
pub use gpus::{Gpus, find_gpus};
pub use hostfile::read_hostfile;
pub use hosts::{Host, parse_hosts};
pub use mpirun::{Mpirun, Vendor, split_arguments, waiting_of_threads};
pub use nproc::Nproc;
pub use pbs::PbsJob;
pub use report::{FailureReport, WorkerReport, last_failure, read_workers};
pub use run::launch;
pub use session::{TRAMPOLINE, Trampoline};
pub use signals::stop_signals;
pub use slurm::SlurmJob;
pub use worker::{check_libraries, find_worker, loaded_library, missing_libraries};

/// Environment variable that names the worker's program, where it is not the sibling
/// `tessera-worker` of this executable.
pub const WORKER: &str = "TESSERA_WORKER";

/// What the workers are asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Train: the configuration is resolved before anything starts.
    Train,
    /// Evaluate: rank 0 prints the result.
    Eval,
    /// Make tokens: rank 0 prints the result, and a stop is heard between two shards.
    Encode,
    /// Make samples of tokens: rank 0 prints the result.
    Decode,
    /// Compress files: rank 0 writes the file and prints the result.
    Compress,
    /// Make files of a compressed one: rank 0 prints the result.
    Decompress,
    /// Reconstruct files: rank 0 prints the result.
    Reconstruct,
    /// Write features: rank 0 prints the result.
    Features,
    /// Show what codes stand for: rank 0 writes the atlas and prints the result.
    Atlas,
    /// Count codes: rank 0 writes the tables and prints the result.
    Tables,
    /// Draw new samples: rank 0 prints the result.
    Sample,
    /// Judge samples: rank 0 prints the result.
    Judge,
    /// Fill holes in pictures: rank 0 prints the result.
    Inpaint,
}

impl Task {
    /// The worker's command of this name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Eval => "eval",
            Self::Encode => "encode",
            Self::Decode => "decode",
            Self::Compress => "compress",
            Self::Decompress => "decompress",
            Self::Reconstruct => "reconstruct",
            Self::Features => "features",
            Self::Atlas => "atlas",
            Self::Tables => "tables",
            Self::Sample => "sample",
            Self::Judge => "judge",
            Self::Inpaint => "inpaint",
        }
    }

    /// The task of a worker's command, where it is one that can be launched.
    pub fn of(name: &OsStr) -> Option<Self> {
        let all = [
            Self::Train,
            Self::Eval,
            Self::Encode,
            Self::Decode,
            Self::Compress,
            Self::Decompress,
            Self::Reconstruct,
            Self::Features,
            Self::Atlas,
            Self::Tables,
            Self::Sample,
            Self::Judge,
            Self::Inpaint,
        ];
        all.into_iter().find(|task| name == task.name())
    }

    /// Whether workers that are asked to stop leave behind what the same command goes on from.
    pub(crate) fn can_stop(self) -> bool {
        matches!(self, Self::Train | Self::Encode)
    }
}

/// What to launch, and how.
#[derive(Debug, Clone)]
pub struct LaunchOptions {
    /// The worker's command.
    pub task: Task,
    /// Arguments after the worker's command, passed on as they are.
    pub args: Vec<OsString>,
    /// Number of workers.
    pub nproc: Nproc,
    /// Hosts of the workers; none is those of the Slurm or PBS job, or else this host alone.
    pub hosts: Vec<Host>,
    /// Fewest workers to go on with when hosts do not answer; `None`: as many as at first.
    pub min_workers: Option<usize>,
    /// The `mpirun` to use; `None` takes the first one on the path.
    pub mpirun: Option<PathBuf>,
    /// Addresses by which workers reach the launcher; none is those of this host's interfaces, and its name.
    pub control_addresses: Vec<ControlAddress>,
    /// `mpirun`'s `--bind-to`.
    pub bind_to: String,
    /// More arguments for `mpirun`.
    pub mpirun_args: Vec<OsString>,
    /// Variables that workers on all hosts get, besides those that always go there.
    pub environment: Vec<Wanted>,
    /// How long a worker may be silent; `None`: `limits.silence_seconds` of the configuration.
    pub silence: Option<Duration>,
    /// How long a worker may stay in one place of any phase but the set-up; `None`: the limits of the
    /// configuration.
    pub stuck: Option<Duration>,
    /// How often a training run whose workers failed, were lost or hang is started again, from its
    /// newest good checkpoint.
    pub max_restarts: u32,
    /// Where to serve the run's figures for Prometheus, such as `127.0.0.1:9400`.
    pub prometheus: Option<String>,
    /// Shows `mpirun`'s command line and everything it prints.
    pub verbose: bool,
    /// How the run is shown.
    pub show: Show,
}

/// For whom a run is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Show {
    /// A person: a bar on a terminal, lines elsewhere.
    #[default]
    Person,
    /// Nobody: results, warnings and errors alone.
    Quiet,
    /// A script: progress and notices as lines of JSON on stdout.
    Json,
}

/// How a launch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The run's exit code.
    pub code: ExitCode,
    /// What happened, in one line.
    pub message: String,
    /// The run folder, for a training run.
    pub run_dir: Option<PathBuf>,
}
