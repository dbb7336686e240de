//! One launch from start to end; see [`launch`].

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::{Sender, channel};
use std::time::SystemTime;

use tessera_control::{ExitCode, RunState, RunStatus, variables};

use crate::listener::{Event, Listener, Stream, forward_lines};
use crate::mpirun::{Job, as_root};
use crate::resolve::{Resolved, resolve};
use crate::session::{Session, variable};
use crate::supervision::Verdict;
use crate::watch::Watch;
use crate::worker::check_libraries;
use crate::{
    Ending, LaunchError, LaunchOptions, Mpirun, Nproc, Task, find_gpus, find_worker, signals,
};

/// Variables that `mpirun` sets for its ranks; a launcher that sees one is a rank itself.
const RANK_VARIABLES: [&str; 3] = ["OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"];

/// Launches the workers and stays until they have ended; afterwards none of them lives.
///
/// To be called from the main thread: `mpirun` dies with the thread that started it. The
/// executable must hand its hidden command [`crate::TRAMPOLINE`] to [`crate::trampoline`].
///
/// # Errors
///
/// [`LaunchError`] if it does not come as far as running workers. How the workers then fare is an
/// [`Ending`], also where it is a failure.
pub fn launch(options: &LaunchOptions) -> Result<Ending, LaunchError> {
    refuse_nesting(options.task)?;
    let begun = SystemTime::now();
    let mpirun = Mpirun::find(options.mpirun.as_deref())?;
    let worker = find_worker()?;
    check_libraries(&worker)?;
    let hostfile = options.hostfile.as_deref();
    let num_gpus = match (options.nproc, hostfile) {
        (Nproc::Auto, None) => find_gpus().names.len(),
        _ => 0,
    };
    let world_size = options.nproc.count(num_gpus, hostfile)?;

    let (sender, events) = channel();
    let _signals = signals::listen(sender.clone())?;
    let resolved = match options.task {
        Task::Train => Some(resolve(&worker, world_size, &options.args, &sender, &events)?),
        Task::Eval => None,
    };
    let listener = Listener::open(hostfile.is_some(), sender.clone())
        .map_err(LaunchError::system("listen for workers"))?;
    let start = Start { options, mpirun: &mpirun, worker: &worker, world_size };
    let mut session = start.session(&listener, resolved.as_ref(), sender)?;

    let steps = resolved.as_ref().map(|resolved| resolved.steps);
    let mut watch = Watch::new(options, world_size, steps, &events, &mut session);
    watch.until_over();
    listener.close();
    let (verdict, mpirun_code) = watch.into_verdict();

    let run_dir = resolved.map(|resolved| resolved.run_dir);
    let Some(run_dir) = run_dir else {
        return Ok(Ending { code: verdict.code, message: verdict.message, run_dir: None });
    };
    let (code, message) = settle(&run_dir, verdict, mpirun_code, begun, world_size);
    Ok(Ending { code, message, run_dir: Some(run_dir) })
}

/// What starting the workers takes.
struct Start<'a> {
    options: &'a LaunchOptions,
    mpirun: &'a Mpirun,
    worker: &'a Path,
    world_size: usize,
}

impl Start<'_> {
    fn session(
        &self,
        listener: &Listener,
        resolved: Option<&Resolved>,
        sender: Sender<Event>,
    ) -> Result<Session, LaunchError> {
        let mut environment = vec![
            variable(variables::CONTROL, &listener.address),
            variable(variables::CONTROL_TOKEN, &listener.token),
            variable(variables::WORLD_SIZE, self.world_size.to_string()),
        ];
        if let Some(resolved) = resolved {
            environment.push(variable(variables::RESOLVED, &resolved.line));
        }
        let exported = exported(&environment);
        for (name, value) in as_root() {
            environment.push(variable(name, value));
        }
        let mut command: Vec<OsString> = vec![self.worker.into(), self.options.task.name().into()];
        command.extend(self.options.args.iter().cloned());
        let arguments = self.mpirun.arguments(&Job {
            world_size: self.world_size,
            hostfile: self.options.hostfile.as_deref(),
            bind_to: &self.options.bind_to,
            exported: &exported,
            command: &command,
        });
        if self.options.verbose {
            tracing::info!(mpirun = ?self.mpirun.path, ?arguments, "starting workers");
        }
        let blocked = self.mpirun.blocked_signals();
        let path = &self.mpirun.path;
        let mut session = Session::start(path, &arguments, &environment, blocked, Stdio::piped())?;
        let child = session.child();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let forwarded = stdout
            .map_or(Ok(()), |pipe| forward_lines(pipe, Stream::Out, sender.clone()))
            .and_then(|()| stderr.map_or(Ok(()), |pipe| forward_lines(pipe, Stream::Err, sender)));
        forwarded.map_err(LaunchError::system("start a thread"))?;
        Ok(session)
    }
}

/// Names of the variables that workers on other hosts need: ours, and the user's own.
fn exported(ours: &[(OsString, OsString)]) -> Vec<String> {
    let inherited = std::env::vars_os().map(|(name, _)| name);
    let mut names: Vec<String> = inherited
        .chain(ours.iter().map(|(name, _)| name.clone()))
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.starts_with("TESSERA_") || name == "RUST_LOG")
        .collect();
    names.sort();
    names.dedup();
    names
}

fn refuse_nesting(task: Task) -> Result<(), LaunchError> {
    for variable in RANK_VARIABLES {
        if std::env::var_os(variable).is_some() {
            return Err(LaunchError::Nested { variable, task: task.name() });
        }
    }
    Ok(())
}

/// When the status of a run was last written.
fn status_time(run_dir: &Path) -> Option<SystemTime> {
    run_dir.join("status.json").metadata().ok()?.modified().ok()
}

/// Brings the verdict and `RUN/status.json` together.
///
/// Rank 0 writes the file; where it could not, the launcher does. Where the last lines of the
/// control connections were lost but mpirun and the file agree on a good end, it was one.
fn settle(
    run_dir: &Path,
    verdict: Verdict,
    mpirun_code: Option<i32>,
    begun: SystemTime,
    world_size: usize,
) -> (ExitCode, String) {
    let written = RunStatus::read(run_dir).ok().flatten();
    let fresh = status_time(run_dir).is_some_and(|at| at >= begun);
    if let Some(status) = &written
        && fresh
        && !verdict.agreed
        && matches!(status.state, RunState::Done | RunState::Stopped)
        && let Some(code) = status.exit_code
        && mpirun_code == Some(code.code())
    {
        return (code, status.message.clone());
    }
    let good = matches!(verdict.code, ExitCode::Done | ExitCode::Stopped);
    let told = written.as_ref().is_some_and(|status| fresh && status.state != RunState::Running);
    if good || told || verdict.code == ExitCode::BadInput || !run_dir.is_dir() {
        return (verdict.code, verdict.message);
    }
    let status = RunStatus {
        state: RunState::Failed,
        exit_code: Some(verdict.code),
        step: verdict.step.max(written.map_or(0, |status| status.step)),
        world_size,
        message: verdict.message.clone(),
    };
    if let Err(error) = status.write(run_dir) {
        tracing::warn!(%error, "cannot write status.json into the run folder");
    }
    (verdict.code, verdict.message)
}
