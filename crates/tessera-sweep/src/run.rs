//! Runs a sweep to its end: decides, starts, waits, writes down.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::{FdFlags, fcntl_setfd};
use serde::Deserialize;
use signal_hook::iterator::Signals;
use tessera_control::{ExitCode, usable_cores};
use tessera_launch::{LaunchError, find_gpus, resolve_alone, stop_signals};

use crate::display::Display;
use crate::ending::Ending;
use crate::error::SweepError;
use crate::identity::difference;
use crate::sampler::{Points, Tried};
use crate::schedule::{Next, Schedule, Standing};
use crate::space::Point;
use crate::spec::Sweep;
use crate::store::{About, Job, Outcome, Store, Trial};
use crate::trial::{Running, figures_of, run_dir, slots, train_arguments};

/// Time between two looks at the runs.
const TICK: Duration = Duration::from_millis(50);
/// How long the trials of an earlier start may take to save.
const EARLIER: Duration = Duration::from_secs(120);
/// A run that is stopped before its rung by somebody else is started again, so often.
const MAX_STOPS: usize = 3;

/// How a sweep is to be run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The sweep's folder.
    pub folder: PathBuf,
    /// Trials at a time; `None`: as many as GPUs or cores take.
    pub parallel: Option<usize>,
    /// Whether to go on with a sweep that is there.
    pub resume: bool,
}

/// What the worker has made of the base configuration.
#[derive(Deserialize)]
struct Base {
    steps: u64,
    config: BaseConfig,
}

#[derive(Deserialize)]
struct BaseConfig {
    eval: BaseEval,
}

#[derive(Deserialize)]
struct BaseEval {
    every: u64,
}

/// Runs `sweep` until all trials have ended, or a signal asks to stop. From the main thread alone.
///
/// # Errors
///
/// [`SweepError`] where the sweep cannot begin or go on; a trial that fails is no error.
pub fn run(sweep: &Sweep, options: &Options) -> Result<Ending, SweepError> {
    let folder = &options.folder;
    std::fs::create_dir_all(folder).map_err(SweepError::file("make", folder))?;
    let _lock = lock(folder)?;
    let (store, about) = open(sweep, options)?;
    let steps = about.steps;
    let points = Points::new(&about.sweep.space, &about.sweep.search)?;
    let gpus = find_gpus().names;
    let parallel = options.parallel.unwrap_or_else(|| auto(&about.sweep, gpus.len())).max(1);
    let visible = match std::env::var("CUDA_VISIBLE_DEVICES") {
        Ok(_) => gpus,
        Err(_) => (0..gpus.len()).map(|gpu| gpu.to_string()).collect(),
    };
    let wanted = match (about.sweep.search.trials, points.num_listed()) {
        (0, Some(listed)) => listed,
        (trials, listed) => trials.min(listed.unwrap_or(usize::MAX)),
    };
    let schedule = Schedule::new(&about.sweep.search, steps);
    let display = Display::new(&about.sweep.metric, &schedule);
    display.say(&format!(
        "{} in {}: {wanted} trials of {} steps, {parallel} at a time",
        about.sweep.base.display(),
        folder.display(),
        schedule.rungs.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
    ));
    let mut desk = Desk {
        folder,
        points,
        wanted,
        schedule,
        seconds_before: store.seconds()?,
        begun: Instant::now(),
        store,
        slots: slots(parallel, &usable_cores(), &visible),
        running: Vec::new(),
        stops: Vec::new(),
        display,
        about: &about,
    };
    let is_whole = desk.until_over(&mut signals()?)?;
    crate::report::write(&desk.store, &about, folder)?;
    if !is_whole {
        return Ok(Ending::Stopped);
    }
    Ok(Ending::of(&desk.store.trials(about.sweep.trials.num_runs())?, &about.sweep.metric))
}

/// The folder's lock. The launchers inherit it, so it is free only when all of them have ended.
fn lock(folder: &Path) -> Result<File, SweepError> {
    let path = folder.join("lock");
    let file = File::create(&path).map_err(SweepError::file("make", &path))?;
    let begun = Instant::now();
    let mut said = false;
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if begun.elapsed() > EARLIER {
            let problem =
                "a sweep goes on in it: wait for that, or choose another --dir".to_owned();
            return Err(SweepError::Folder { folder: folder.to_owned(), problem });
        }
        if !said && begun.elapsed() > Duration::from_secs(1) {
            tracing::info!("waiting for the trials of an earlier start to save and leave");
            said = true;
        }
        std::thread::sleep(TICK);
    }
    fcntl_setfd(&file, FdFlags::empty())
        .map_err(|error| SweepError::file("lock", &path)(error.into()))?;
    Ok(file)
}

/// The sweep that the folder holds, or a new one.
fn open(sweep: &Sweep, options: &Options) -> Result<(Store, About), SweepError> {
    let path = options.folder.join(crate::STATE);
    let refused = |problem: &str| {
        Err(SweepError::Folder { folder: options.folder.clone(), problem: problem.to_owned() })
    };
    let found = Store::open(&path)?;
    if found.is_some() && !options.resume {
        return refused("it holds a sweep: add --resume to go on with it, or choose another --dir");
    }
    sweep.space.validate()?;
    let about = about(sweep)?;
    sweep.validate(about.steps)?;
    let Some((store, before)) = found else {
        let _ = std::fs::remove_file(&path); // what a kill has left of its making
        return Ok((Store::create(&path, &about)?, about));
    };
    if let Some((what, then, now)) = difference(&before, &about) {
        return refused(&format!(
            "it holds another sweep: {what} is {then} there, {now} here: give that again, or choose another --dir"
        ));
    }
    Ok((store, about))
}

/// Lets a worker look at the base, and at the first point, so that a mistake is told before anything runs.
fn about(sweep: &Sweep) -> Result<About, SweepError> {
    let mut about =
        About { sweep: sweep.clone(), base: String::new(), steps: u64::MAX, eval_every: 1 };
    let resolve = |about: &About, point: &Point| {
        let job = Job { trial: 0, rung: 0, fold: 0, steps: about.steps };
        let arguments = train_arguments(about, point, None, &job);
        resolve_alone(sweep.trials.workers, &arguments).map_err(|error| match error {
            LaunchError::Refused { code } => SweepError::Refused { code },
            error => SweepError::Launch(error),
        })
    };
    let line = resolve(&about, &Point::new())?;
    let unreadable = |error: serde_json::Error| {
        SweepError::Launch(LaunchError::Resolve { problem: error.to_string() })
    };
    let base: Base = serde_json::from_str(&line).map_err(unreadable)?;
    about.base = line;
    (about.steps, about.eval_every) = (base.steps, base.config.eval.every);
    let Some(first) = Points::new(&sweep.space, &sweep.search)?.next(&[]) else {
        let problem = "every point that was drawn is forbidden: forbid less".to_owned();
        return Err(SweepError::Space(problem));
    };
    resolve(&about, &first)?;
    Ok(about)
}

fn auto(sweep: &Sweep, num_gpus: usize) -> usize {
    let units = if num_gpus > 0 { num_gpus } else { usable_cores().len() };
    (units / sweep.trials.workers).max(1)
}

/// Hears the signals that ask to stop.
fn signals() -> Result<Signals, SweepError> {
    let heard = Signals::new(stop_signals());
    heard.map_err(|source| {
        SweepError::Launch(LaunchError::System { action: "hear signals".into(), source })
    })
}

/// All that is known and on its way.
struct Desk<'a> {
    folder: &'a Path,
    about: &'a About,
    points: Points<'a>,
    /// Trials that there are to be.
    wanted: usize,
    schedule: Schedule,
    store: Store,
    slots: Vec<crate::trial::Slot>,
    running: Vec<Running>,
    /// Jobs that somebody else has stopped.
    stops: Vec<Job>,
    display: Display,
    seconds_before: f64,
    begun: Instant,
}

impl Desk<'_> {
    /// Whether all is done; not where it was asked to stop.
    fn until_over(&mut self, signals: &mut Signals) -> Result<bool, SweepError> {
        let (mut told, mut changed) = (0, true);
        self.show_standings()?;
        loop {
            if self.take_back()? {
                changed = true;
                self.show_standings()?;
            }
            for _ in signals.pending() {
                told += 1;
                self.stop(told);
            }
            if told > 2 {
                self.running.clear(); // kills them
            }
            if told == 0 && changed {
                changed = self.hand_out()?;
                self.store.set_seconds(self.seconds())?;
            }
            if self.running.is_empty() && (told > 0 || !changed) {
                self.store.set_seconds(self.seconds())?;
                return Ok(told == 0);
            }
            self.display.draw(&self.running);
            std::thread::sleep(TICK);
        }
    }

    fn show_standings(&self) -> Result<(), SweepError> {
        let trials = self.store.trials(self.about.sweep.trials.num_runs())?;
        self.display.stands(&trials, self.wanted);
        Ok(())
    }

    fn seconds(&self) -> f64 {
        self.seconds_before + self.begun.elapsed().as_secs_f64()
    }

    fn stop(&mut self, times: usize) {
        let words = match times {
            1 => "the trials write a checkpoint and leave",
            2 => "still saving; again to end at once",
            _ => "ended at once",
        };
        self.display.say(words);
        self.running.iter_mut().for_each(Running::ask_to_stop);
    }

    /// Writes down what has ended; whether anything has.
    fn take_back(&mut self) -> Result<bool, SweepError> {
        let mut any = false;
        let mut at = 0;
        while at < self.running.len() {
            let Some(ended) = self.running[at].ended() else {
                at += 1;
                continue;
            };
            any = true;
            let running = self.running.swap_remove(at);
            let job = running.job;
            match ended {
                Some(outcome) => self.finish(job, outcome)?,
                None => self.stops.push(job),
            }
        }
        Ok(any)
    }

    /// Writes down how a run has ended.
    fn finish(&mut self, job: Job, mut outcome: Outcome) -> Result<(), SweepError> {
        let metric = &self.about.sweep.metric;
        if outcome.message.is_empty() && !outcome.figures.contains_key(&metric.name) {
            let known: Vec<&str> = outcome.figures.keys().map(String::as_str).collect();
            let (key, name, known) = ("metric.name", metric.name.clone(), known.join(", "));
            return Err(SweepError::Metric { key, name, known });
        }
        if outcome.message.is_empty() && outcome.figures[&metric.name].as_f64().is_none() {
            outcome.message = format!("{} is not a number", metric.name);
        }
        self.store.finish(&job, &outcome)?;
        self.display.ended(&job, &outcome, self.about.sweep.trials.folds > 0);
        Ok(())
    }

    /// Starts runs while there are slots; whether one was started or one more may come.
    fn hand_out(&mut self) -> Result<bool, SweepError> {
        let mut any = false;
        while self.running.len() < self.slots.len() {
            let Some(job) = self.next_job()? else { return Ok(any) };
            if self.has_arrived(job)? {
                any = true;
                continue;
            }
            let taken = |slot: &usize| self.running.iter().all(|running| running.slot != *slot);
            let free = (0..self.slots.len()).find(taken).expect("fewer run than there are slots");
            let trials = self.store.trials(self.about.sweep.trials.num_runs())?;
            let point = &trials[job.trial].point;
            let slot = (free, &self.slots[free]);
            let run_dir = self.run_dir(job);
            self.running.push(Running::start(
                self.folder,
                self.about,
                point,
                (job, run_dir),
                slot,
            )?);
            any = true;
        }
        Ok(any)
    }

    /// Whether the run has come to its rung already, but the sweep was killed before it knew: then it
    /// is written down now.
    fn has_arrived(&mut self, job: Job) -> Result<bool, SweepError> {
        let run_dir = self.run_dir(job);
        let Ok(Some(figures)) = figures_of(&run_dir, job.steps) else { return Ok(false) };
        let (code, message, seconds) = (ExitCode::Stopped.code(), String::new(), 0.0);
        self.finish(job, Outcome { code, message, figures, seconds })?;
        Ok(true)
    }

    fn run_dir(&self, job: Job) -> PathBuf {
        let folds = self.about.sweep.trials.folds > 0;
        run_dir(self.folder, job.trial, folds.then_some(job.fold))
    }

    /// A run that was decided on and does not go on, or else one that is decided on now.
    fn next_job(&mut self) -> Result<Option<Job>, SweepError> {
        loop {
            let num_runs = self.about.sweep.trials.num_runs();
            for job in self.store.open_jobs(num_runs)? {
                if self.running.iter().any(|running| running.job == job) {
                    continue;
                }
                if self.stops.iter().filter(|stopped| **stopped == job).count() < MAX_STOPS {
                    return Ok(Some(job));
                }
                let message = format!("stopped by somebody else {MAX_STOPS} times");
                let code = ExitCode::Stopped.code();
                let (figures, seconds) = (serde_json::Map::new(), 0.0);
                self.finish(job, Outcome { code, message, figures, seconds })?;
            }
            if !self.decide(&self.store.trials(num_runs)?)? {
                return Ok(None);
            }
        }
    }

    /// Decides what to do next and writes it down; whether there was anything.
    fn decide(&mut self, trials: &[Trial]) -> Result<bool, SweepError> {
        let metric = &self.about.sweep.metric;
        let standings: Vec<Standing> = trials.iter().map(|trial| trial.standing(metric)).collect();
        let rungs = self.schedule.rungs.clone();
        let begun = |rung: usize| if rung == 0 { rungs[0] } else { rungs[rung] - rungs[rung - 1] };
        let spent: u64 = trials.iter().flat_map(|trial| (0..trial.decided).map(begun)).sum();
        let budget = self.about.sweep.budget;
        let num_runs = self.about.sweep.trials.num_runs();
        let allows = |rung| {
            (budget.steps == 0 || (spent + begun(rung)) * num_runs <= budget.steps)
                && (budget.seconds == 0.0 || self.seconds() < budget.seconds)
        };
        match self.schedule.next(&standings, self.wanted) {
            Next::Wait | Next::Done => Ok(false),
            Next::Start => {
                let tried: Vec<Tried> = trials
                    .iter()
                    .zip(&standings)
                    .map(|(trial, standing)| Tried {
                        point: trial.point.clone(),
                        standing: standing.clone(),
                    })
                    .collect();
                let point = self.points.next(&tried).filter(|_| allows(0));
                let Some(point) = point else {
                    // The space or the budget is used up: what has begun is all that there will be.
                    self.wanted = trials.len();
                    return Ok(!trials.is_empty());
                };
                let reason = format!("trial {} of {}", trials.len() + 1, self.wanted);
                self.store.add_trial(trials.len(), &point, rungs[0], &reason)?;
                Ok(true)
            }
            Next::Promote { trial, rung } => {
                if !allows(rung) {
                    return Ok(false);
                }
                let arrived = standings.iter().filter(|one| one.costs.len() >= rung).count();
                let name = &metric.name;
                let value = trials[trial].figure(rung - 1, name).unwrap_or(f64::NAN);
                let before = rungs[rung - 1];
                let reason =
                    format!("{name} {value} at step {before}, among the best of {arrived} there");
                self.store.promote(trial, rung, rungs[rung], &reason)?;
                Ok(true)
            }
        }
    }
}
