//! One launch from start to end; see [`launch`].

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use tessera_control::{Attempt, ExitCode, Secrets, not_written, tell_behind, variables};

use crate::addresses::Reach;
use crate::display::Results;
use crate::environment::Forwarded;
use crate::listener::{Event, Listener, Stream, Terms, forward_lines};
use crate::mpirun::{Job, as_root, home};
use crate::prometheus::Exporter;
use crate::records::Records;
use crate::report::{FailureReport, WorkerReport};
use crate::resolve::{Resolved, resolve};
use crate::run_files::{LastWords, RunFiles};
use crate::session::{Session, variable};
use crate::supervision::{Limits, Supervision, Verdict};
use crate::trackers::Trackers;
use crate::watch::{Places, Watch};
use crate::ways::Ways;
use crate::worker::check_libraries;
use crate::{
    Ending, Host, LaunchError, LaunchOptions, Mpirun, Nproc, PbsJob, SlurmJob, Task, files,
    find_gpus, find_worker, hosts, signals, slurm, waiting_of_threads,
};

/// Variables that `mpirun` sets for its ranks; a launcher that sees one is a rank itself.
const RANK_VARIABLES: [&str; 3] = ["OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"];

/// Between two looks whether results were read and nobody wants the end.
const LOOK: Duration = Duration::from_millis(100);

/// Launches the workers and stays until they have ended; afterwards none of them lives.
///
/// To be called from the main thread: `mpirun` dies with the thread that started it. The
/// executable must hand its hidden command [`crate::TRAMPOLINE`] to [`crate::Trampoline`].
///
/// # Errors
///
/// [`LaunchError`] if it does not come as far as running workers. How the workers then fare is an
/// [`Ending`], also where it is a failure.
pub fn launch(options: &LaunchOptions) -> Result<Ending, LaunchError> {
    tell_behind(); // a terminal that stands still is no reason not to hear the workers
    refuse_nesting(options.task)?;
    let forwarded = Forwarded::collect(&options.environment)?;
    files::raise();
    let mpirun = Mpirun::find(options.mpirun.as_deref())?;
    let worker = find_worker()?;
    check_libraries(&worker)?;
    let slurm = if options.hosts.is_empty() { SlurmJob::find()? } else { None };
    let options = &match slurm {
        None if options.hosts.is_empty() => with_hosts_of_pbs(options.clone())?,
        _ => options.clone(),
    };
    let num_gpus = match (options.nproc, &slurm) {
        (Nproc::Auto, None) if options.hosts.is_empty() => find_gpus().names.len(),
        _ => 0,
    };
    let mut hosts = match &slurm {
        Some(job) => job.hosts.clone(),
        None => options.hosts.clone(),
    };
    let asked_for = options.nproc.count(num_gpus, &hosts);
    if let Some(SlurmJob { id, .. }) = &slurm {
        tracing::info!("Slurm job {id}: {asked_for} workers on {} hosts", hosts.len());
        if hosts.len() == 1 {
            hosts.clear(); // everything is as it is without Slurm
        }
    }
    let mut world_size = asked_for;
    if let Some(names) = forwarded.told()
        && (hosts.iter().any(|host| !host.is_here()) || !options.environment.is_empty())
    {
        tracing::info!("environment of all workers: {names}");
    }

    let (mut sender, mut events) = channel();
    let signals = signals::listen(sender.clone())?;
    let resolved = match options.task {
        Task::Train => {
            Some(resolve(&worker, world_size, &options.args, &forwarded.set, &sender, &events)?)
        }
        Task::Eval
        | Task::Encode
        | Task::Decode
        | Task::Compress
        | Task::Decompress
        | Task::Reconstruct
        | Task::Features
        | Task::Atlas
        | Task::Tables
        | Task::Sample
        | Task::Judge
        | Task::Inpaint => None,
    };
    let config = resolved.as_ref().map(|resolved| resolved.limits.clone()).unwrap_or_default();
    let limits = Limits::new(&config, options.silence, options.stuck);
    let exporter = options.prometheus.as_deref().map(Exporter::start).transpose()?;
    let results = Results::start()?;
    let files = resolved.as_ref().map(|resolved| RunFiles::start(&resolved.run_dir));
    let files = files.transpose()?;
    let trackers = resolved.as_ref().map(|it| Trackers::new(&it.track, &it.run_dir));
    let first = Attempt::draw().map_err(LaunchError::system("draw the name of this launch"))?;
    let mut restarts = 0;
    loop {
        let exporter = exporter.as_ref();
        if let Some(exporter) = exporter {
            exporter.set_restarts(restarts);
        }
        let (mpirun, worker, hosts_now) = (&mpirun, worker.as_path(), hosts.as_slice());
        let name = first.restarted(restarts);
        let ways = Ways {
            exporter,
            results: &results,
            files: files.as_ref(),
            trackers: trackers.as_ref(),
        };
        let start = Start {
            options,
            forwarded: &forwarded,
            name: name.clone(),
            mpirun,
            worker,
            world_size,
            hosts: hosts_now,
            limits,
            ways,
        };
        let begun = SystemTime::now();
        // A start that fails after another one is the end of a run that its status calls running.
        let told = |error: LaunchError| {
            if let Some(files) = files.as_ref().filter(|_| restarts > 0) {
                let before = first.restarted(restarts - 1); // the last one that had the folder
                files.failed(&before, error.exit_code(), error.to_string());
            }
            error
        };
        let attempt = start.attempt(resolved.as_ref(), restarts, sender, &events).map_err(told)?;
        let Some(files) = &files else {
            let Verdict { code, message, .. } = attempt.verdict;
            return Ok(Ending { code, message, run_dir: None }.once_read(&results, &events));
        };
        let report = FailureReport::of(attempt.workers, &name, restarts, world_size);
        let asked_to_stop = attempt.asked_to_stop;
        let (had_folder, verdict, mpirun_code) =
            (attempt.had_folder, attempt.verdict, attempt.mpirun_code);
        let words =
            LastWords { name: name.clone(), had_folder, verdict, mpirun_code, begun, report };
        let (code, message) = files.last_words(words);
        let may_restart = matches!(code, ExitCode::Failed | ExitCode::WorkerLost | ExitCode::Hang);
        // What comes now is of the next workers; a stop that came meanwhile is not lost.
        let next = channel();
        signals.redirect(next.0.clone());
        let asked =
            asked_to_stop || events.try_iter().any(|event| matches!(event, Event::Signal(_)));
        if !may_restart || asked || restarts >= options.max_restarts {
            if let Some(trackers) = &trackers {
                trackers.end();
            }
            let run_dir = resolved.map(|resolved| resolved.run_dir);
            return Ok(Ending { code, message, run_dir }.once_read(&results, &next.1));
        }
        restarts += 1;
        let most = options.max_restarts;
        let message =
            format!("{message}; restart {restarts} of {most} from the newest good checkpoint");
        tracing::warn!("{message}");
        files.goes_on(&name, message);
        (sender, events) = next;
        if !options.hosts.is_empty() {
            let left = hosts_left(options, mpirun, asked_for);
            (hosts, world_size) = left.inspect_err(|error| {
                files.failed(&name, error.exit_code(), error.to_string());
            })?;
        }
    }
}

/// The same with the hosts of the PBS job, if there is one that has several.
fn with_hosts_of_pbs(mut options: LaunchOptions) -> Result<LaunchOptions, LaunchError> {
    let Some(PbsJob { id, hosts }) = PbsJob::find()? else { return Ok(options) };
    let num_workers = options.nproc.count(0, &hosts);
    tracing::info!("PBS job {id}: {num_workers} workers on {} hosts", hosts.len());
    if hosts.len() > 1 {
        options.hosts = hosts;
    } else {
        options.nproc = Nproc::Count(num_workers); // everything else is as it is without PBS
    }
    Ok(options)
}

/// The hosts that answer, which may be others than before, and how many workers they take.
fn hosts_left(
    options: &LaunchOptions,
    mpirun: &Mpirun,
    asked_for: usize,
) -> Result<(Vec<Host>, usize), LaunchError> {
    let left = hosts::reachable(&options.hosts, mpirun.vendor, &options.mpirun_args);
    let world_size = left.iter().map(|host| host.slots).sum::<usize>().min(asked_for);
    let (found, all) = (left.len(), options.hosts.len());
    let fewest = options.min_workers.unwrap_or(asked_for).max(1);
    if world_size < fewest {
        let problem = format!(
            "{found} of {all} hosts answer and take {world_size} workers, fewer than {fewest}"
        );
        return Err(LaunchError::TooFew { problem });
    }
    if found < all {
        let gone = options.hosts.iter().filter(|host| !left.contains(host));
        let gone: Vec<&str> = gone.map(|host| host.name.as_str()).collect();
        tracing::warn!("without {}: {world_size} workers", gone.join(", "));
    } else {
        tracing::info!("all {all} hosts answer: {world_size} workers");
    }
    Ok((left, world_size))
}

impl Ending {
    /// The same once whoever reads the results has taken all of them: they wait as long as somebody reads, and
    /// nobody asks for the end.
    fn once_read(self, results: &Results, events: &Receiver<Event>) -> Self {
        let mut left = results.left_after(Duration::ZERO);
        let mut is_asked = false;
        while left > 0 && !is_asked {
            left = results.left_after(LOOK);
            is_asked = events.try_iter().any(|event| matches!(event, Event::Signal(_)));
        }
        if self.code != ExitCode::Done {
            return self;
        }
        if let Some(error) = results.refused() {
            return Self { code: ExitCode::BadInput, message: not_written(&error), ..self };
        }
        if left > 0 {
            let message =
                format!("stopped before the result was read: {left} lines of it are left");
            return Self { code: ExitCode::Failed, message, ..self };
        }
        self
    }
}

/// How workers that were started once have fared.
struct Attempted {
    verdict: Verdict,
    mpirun_code: Option<i32>,
    workers: Vec<WorkerReport>,
    asked_to_stop: bool,
    /// Whether they have had the run folder.
    had_folder: bool,
}

/// What starting the workers takes.
struct Start<'a> {
    options: &'a LaunchOptions,
    forwarded: &'a Forwarded,
    name: Attempt,
    mpirun: &'a Mpirun,
    worker: &'a Path,
    world_size: usize,
    hosts: &'a [Host],
    limits: Limits,
    ways: Ways<'a>,
}

impl Start<'_> {
    /// Starts the workers and stays until none of them lives.
    fn attempt(
        &self,
        resolved: Option<&Resolved>,
        restarts: u32,
        sender: Sender<Event>,
        events: &Receiver<Event>,
    ) -> Result<Attempted, LaunchError> {
        let named = &self.options.control_addresses;
        let reach = match self.hosts.iter().all(Host::is_here) && named.is_empty() {
            true => Reach::Here,
            false => Reach::Everywhere(named.clone()),
        };
        // Workers of this host inherit them.
        let environment = match reach {
            Reach::Here => Secrets::default(),
            Reach::Everywhere(_) => self.forwarded.secrets.clone(),
        };
        let (attempt, world_size) = (self.name.clone(), self.world_size);
        let terms = Terms { attempt, world_size, silence: self.limits.silence, environment };
        let mut listener = Listener::open(&reach, &terms, sender.clone())
            .map_err(LaunchError::system("listen for workers"))?;
        let records = Records::make(&self.name);
        let mut session = self.session(&listener, &records, resolved, restarts, sender)?;
        let steps = resolved.map(|resolved| resolved.steps);
        let attempt = self.name.to_string();
        let places = Places { attempt: &attempt, records: &records.folder, ways: self.ways };
        let supervision = Supervision::new(self.world_size, self.limits, Instant::now());
        let mut watch = Watch::new(self.options, supervision, steps, events, &mut session, places);
        watch.until_over();
        listener.close();
        let (asked_to_stop, had_folder) = (watch.was_asked_to_stop(), watch.had_folder());
        let (verdict, mpirun_code, workers) = watch.into_verdict();
        Ok(Attempted { verdict, mpirun_code, workers, asked_to_stop, had_folder })
    }

    fn session(
        &self,
        listener: &Listener,
        records: &Records,
        resolved: Option<&Resolved>,
        restarts: u32,
        sender: Sender<Event>,
    ) -> Result<Session, LaunchError> {
        let mut environment = vec![
            variable(variables::CONTROL, &listener.addresses),
            variable(variables::CONTROL_TOKEN, &listener.token),
            variable(variables::WORLD_SIZE, self.world_size.to_string()),
            variable(variables::RECORDS, &records.folder),
            variable(variables::ATTEMPT, self.name.to_string()),
        ];
        if let Some(resolved) = resolved {
            environment.push(variable(variables::RESOLVED, &resolved.line));
        }
        environment.extend(waiting_of_threads().map(|(name, value)| variable(name, value)));
        if self.hosts.is_empty() && records.folder.is_dir() {
            // What Open MPI 4 and 5 share between ranks goes away with the records, also where
            // ranks were killed and could not see to it.
            for name in
                ["OMPI_MCA_btl_vader_backing_directory", "OMPI_MCA_btl_sm_backing_directory"]
            {
                environment.push(variable(name, &records.folder));
            }
        }
        if restarts > 0 {
            environment.push(variable(variables::RESTART, restarts.to_string()));
        }
        environment.push(variable(variables::FORWARDED, self.forwarded.settings.join(",")));
        let exported = self.forwarded.names(&environment);
        environment.extend(self.forwarded.set.iter().cloned());
        for (name, value) in as_root().into_iter().chain(home()) {
            environment.push(variable(name, value));
        }
        let of_mpirun = self.mpirun.settings(self.hosts);
        environment.extend(of_mpirun.into_iter().map(|(name, value)| variable(name, value)));
        let (for_daemons, of_a_task) = slurm::for_daemons();
        environment.extend(for_daemons);
        let mut command: Vec<OsString> = vec![self.worker.into(), self.options.task.name().into()];
        command.extend(self.options.args.iter().cloned());
        // In a Slurm job mpirun knows the hosts by itself.
        let hostfile = match self.hosts {
            _ if self.options.hosts.is_empty() => None,
            hosts => {
                let path = records.folder.join("hosts");
                Some(hosts::write_hostfile(path, hosts, self.mpirun.vendor)?)
            }
        };
        let arguments = self.mpirun.arguments(&Job {
            world_size: self.world_size,
            hostfile: hostfile.as_deref(),
            bind_to: &self.options.bind_to,
            exported: &exported,
            more: &self.options.mpirun_args,
            command: &command,
        });
        if self.options.verbose {
            tracing::info!(mpirun = ?self.mpirun.path, ?arguments, "starting workers");
        }
        let blocked = self.mpirun.blocked_signals();
        let path = &self.mpirun.path;
        let mut session =
            Session::start(path, &arguments, &environment, of_a_task, blocked, Stdio::piped())?;
        let child = session.child();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let forwarded = stdout
            .map_or(Ok(()), |pipe| forward_lines(pipe, Stream::Out, sender.clone()))
            .and_then(|()| stderr.map_or(Ok(()), |pipe| forward_lines(pipe, Stream::Err, sender)));
        forwarded.map_err(LaunchError::system("start a thread"))?;
        Ok(session)
    }
}

fn refuse_nesting(task: Task) -> Result<(), LaunchError> {
    for variable in RANK_VARIABLES {
        if std::env::var_os(variable).is_some() {
            return Err(LaunchError::Nested { variable, task: task.name() });
        }
    }
    Ok(())
}
