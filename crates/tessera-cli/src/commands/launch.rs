//! `tessera launch`: workers through mpirun, watched from start to end.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tessera_control::{ExitCode, one_line};
use tessera_launch::{
    Ending, LaunchOptions, Show, Task, parse_control_addresses, parse_hosts, parse_variable,
    read_hostfile, split_arguments,
};

use super::on_end;
use crate::failure::{Failure, print_last_line};

const SIGNALS: &str = "\
SIGINT, SIGTERM, SIGHUP and SIGUSR1 ask the workers for one checkpoint and end the run with 75; a third
SIGINT or SIGTERM ends it at once. TESSERA_WORKER names another worker program than the sibling
tessera-worker. In a Slurm or PBS job the hosts and tasks are the job's.";

/// How many workers, where, and what they do.
#[derive(Debug, Args)]
#[command(after_help = SIGNALS)]
pub(crate) struct LaunchArgs {
    /// Number of workers; auto is one a GPU, 2 on CPU without one, every slot of a host file.
    #[arg(long, value_name = "N|auto", default_value = "auto")]
    nproc: String,
    /// Hosts and their workers, as in `h1:4,user@h2:4`; mpirun reaches them by ssh.
    #[arg(long, value_name = "HOSTS", conflicts_with = "hostfile")]
    hosts: Option<String>,
    /// The same from a file, in mpirun's own format.
    #[arg(long, value_name = "FILE")]
    hostfile: Option<PathBuf>,
    /// Fewest workers that a restart may go on with when hosts do not answer; without it, as many
    /// as at first. The global batch stays the same.
    #[arg(long, value_name = "M")]
    min_workers: Option<usize>,
    /// The mpirun to use instead of the first one on the path.
    #[arg(long, value_name = "PATH")]
    mpirun: Option<PathBuf>,
    /// More arguments for mpirun, before the worker's program; quoted as in a shell.
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true)]
    mpirun_args: Option<String>,
    /// Send a variable to the workers on all hosts, with the value given or that of the launcher's
    /// environment; as often as wanted. NCCL_*, AWS_*, GOOGLE_*, OMP_*, MKL_*, UCX_*, FI_* and
    /// proxies are sent without it. Of a secret give the name alone.
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<OsString>,
    /// An address by which workers reach this launcher, HOST or HOST:PORT, as often as wanted or with commas between
    /// them, in the order in which they are tried. Without it, those of all interfaces of this host.
    #[arg(long, value_name = "HOST[:PORT]")]
    control_address: Vec<String>,
    /// What mpirun binds a worker to; none lets the worker's threads use their share of all cores.
    #[arg(long, value_name = "UNIT", default_value = "none")]
    bind_to: String,
    /// Seconds that a worker may be silent before it counts as hung; workers speak every second.
    /// Goes before limits.silence_seconds of the configuration, which is 60.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(3..))]
    silence: Option<u64>,
    /// Seconds that a worker may stay in one place of its work before it counts as hung; more where
    /// it has taken longer before in this run. Goes before the limits of the configuration, which
    /// are 300, but that of the set-up.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(5..))]
    stuck: Option<u64>,
    /// Start a training whose workers failed, were lost or hang again, so many times, from its
    /// newest good checkpoint.
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_restarts: u32,
    /// Serve the run's figures for Prometheus there, as in 127.0.0.1:9400, under /metrics.
    #[arg(long, value_name = "HOST:PORT")]
    prometheus: Option<String>,
    /// Run a command of the shell when the launch has ended, however it did: TESSERA_EXIT_CODE is its exit code. The word `bell` rings the
    /// terminal instead.
    #[arg(long, value_name = "CMD")]
    on_end: Option<String>,
    /// Show mpirun's command line and all that it prints.
    #[arg(long)]
    verbose: bool,
    /// Say nothing but results, warnings and errors.
    #[arg(long, short, conflicts_with_all = ["json", "verbose"])]
    quiet: bool,
    /// Print progress, notices and the end as lines of JSON, for scripts (docs/formats.md).
    #[arg(long, conflicts_with = "verbose")]
    json: bool,
    /// Say what a training would take, and train nothing: parameters, memory, files, and minutes from five timed steps.
    #[arg(long)]
    dry_run: bool,
    /// `train ARGS...`, `eval ARGS...`, `encode ARGS...`, `decode ARGS...`, `sample ARGS...`, `judge ARGS...`
    /// or `inpaint ARGS...`.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required = true,
        value_name = "COMMAND"
    )]
    pub(crate) command: Vec<OsString>,
}

/// Launches, says in one line how it ended, and tells whoever wants to know.
pub(crate) fn run(args: &LaunchArgs) -> Result<ExitCode, Failure> {
    let ended = launch(args);
    if let Some(command) = &args.on_end {
        let code = ended.as_ref().map_or_else(|failure| failure.code, |code| *code);
        on_end::tell_end(command, code);
    }
    ended
}

fn launch(args: &LaunchArgs) -> Result<ExitCode, Failure> {
    let options = options(args)?;
    if options.task == Task::Train {
        super::data::fetch::before_training(&options.args)?;
    }
    if args.dry_run {
        return super::dry_run::run(options, args.json);
    }
    report(&options, &tessera_launch::launch(&options)?)
}

fn options(args: &LaunchArgs) -> Result<LaunchOptions, Failure> {
    let nproc = args.nproc.parse()?;
    let command = args.command.split_first();
    let command = command.and_then(|(first, rest)| Some((Task::of(first)?, rest)));
    let Some((task, rest)) = command else {
        let message = "nothing to launch: end the command with `-- train ARGS`, `-- eval ARGS`, `-- encode ARGS`, \
                       `-- decode ARGS`, `-- sample ARGS`, `-- judge ARGS` or `-- inpaint ARGS`";
        return Err(Failure::bad_input(message));
    };
    let hosts = match (&args.hosts, &args.hostfile) {
        (Some(text), _) => parse_hosts(text)?,
        (None, Some(path)) => read_hostfile(path)?,
        (None, None) => Vec::new(),
    };
    let mpirun_args = args.mpirun_args.as_deref().map_or(Ok(Vec::new()), split_arguments);
    let environment = args.env.iter().map(|text| parse_variable(text)).collect::<Result<_, _>>();
    let control = args.control_address.iter().map(|text| parse_control_addresses(text));
    let control = control.collect::<Result<Vec<_>, _>>()?;
    Ok(LaunchOptions {
        task,
        args: rest.to_vec(),
        nproc,
        hosts,
        min_workers: args.min_workers,
        mpirun: args.mpirun.clone(),
        control_addresses: control.concat(),
        bind_to: args.bind_to.clone(),
        mpirun_args: mpirun_args?,
        environment: environment?,
        silence: args.silence.map(Duration::from_secs),
        stuck: args.stuck.map(Duration::from_secs),
        max_restarts: args.max_restarts,
        prometheus: args.prometheus.clone(),
        verbose: args.verbose,
        show: match (args.quiet, args.json) {
            (true, _) => Show::Quiet,
            (_, true) => Show::Json,
            _ => Show::Person,
        },
    })
}

fn report(options: &LaunchOptions, ending: &Ending) -> Result<ExitCode, Failure> {
    let line = closing_line(ending);
    if options.show == Show::Json {
        print_last_line(&(as_json(ending) + "\n"));
    }
    match ending.code {
        ExitCode::Done | ExitCode::Stopped => {
            if options.task == Task::Train && options.show == Show::Person {
                print_last_line(&(one_line(&line) + "\n"));
            }
            Ok(ending.code)
        }
        code => Err(Failure::new(code, line)),
    }
}

fn as_json(ending: &Ending) -> String {
    let line = json!({
        "event": "end",
        "code": ending.code.code(),
        "meaning": ending.code.meaning(),
        "message": ending.message,
        "run_dir": ending.run_dir.as_deref().map(Path::to_string_lossy),
    });
    line.to_string()
}

fn closing_line(ending: &Ending) -> String {
    let mut line = match ending.message.as_str() {
        "" => ending.code.meaning().to_owned(),
        message => message.to_owned(),
    };
    if let Some(run_dir) = &ending.run_dir {
        line.push_str(&format!("; run folder {}", run_dir.display()));
        if matches!(ending.code, ExitCode::WorkerLost | ExitCode::Hang | ExitCode::Stopped) {
            line.push_str("; the same command resumes from the newest checkpoint");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_names_the_run_folder_and_what_to_do() {
        let mut ending = Ending {
            code: ExitCode::WorkerLost,
            message: "worker lost: rank 1".into(),
            run_dir: Some("runs/a".into()),
        };
        let expected = "worker lost: rank 1; run folder runs/a; the same command resumes from the \
                        newest checkpoint";
        assert_eq!(closing_line(&ending), expected);
        ending.code = ExitCode::Done;
        ending.message.clear();
        assert_eq!(closing_line(&ending), "done; run folder runs/a");
        let line: serde_json::Value = serde_json::from_str(&as_json(&ending)).unwrap();
        assert_eq!((&line["code"], &line["run_dir"]), (&0.into(), &"runs/a".into()));
    }
}
