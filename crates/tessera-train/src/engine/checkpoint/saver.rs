//! Saves that run beside the steps.
//!
//! A step pays for the copy of the state to the host; a thread of each rank does the rest. A save
//! is two jobs, one after the other: all ranks write their parts, then rank 0 commits. That every
//! rank is done with a job travels in the reduction that each step makes anyway ([`Saver::flags`],
//! [`Saver::hear`]), so ranks move on from one job to the next at the same step, and no rank waits
//! for a disk. Where a run waits for a save, at its end and before the next save,
//! [`Saver::finish`] exchanges the same news in collectives of its own.
//!
//! Storage that fails does not end a run: older checkpoints stay, what was written is removed, and
//! the next save is tried when it is due, until `checkpoint.max_failures` have failed in a row.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::setpriority_process;
use rustix::thread::gettid;
use tessera_checkpoint::{
    CheckpointError, Committed, Manifest, Retention, Save as SaveName, Storage, commit, discard,
    write_part,
};
use tessera_comm::{Communicator, HostBytes, RankDevice, all_gather_bytes};

use super::snapshot::Snapshot;
use crate::config::CheckpointConfig;
use crate::engine::metrics::reporter::Durable;
use crate::engine::run_folder::Tenure;
use crate::engine::scalars::SAVES;
use crate::engine::training::Training;
use crate::error::TrainError;

/// How long ranks wait before they tell one another again how far they are.
const ROUND: Duration = Duration::from_secs(1);
/// How long the end of a run waits for the thread, and between two looks.
const AT_END: Duration = Duration::from_millis(700);
const LOOK: Duration = Duration::from_millis(2);

/// What became of a save.
#[derive(Debug)]
pub(crate) enum Saved {
    /// It is visible; rank 0 knows where.
    Done { step: u64, committed: Option<Committed> },
    /// It failed, on this rank or on others.
    Failed { step: u64, error: Option<CheckpointError> },
}

/// Runs the saves of one rank.
#[derive(Debug)]
pub(crate) struct Saver {
    rank: usize,
    world_size: usize,
    device: RankDevice,
    jobs: Option<Sender<Job>>,
    done: Receiver<Outcome>,
    thread: Option<JoinHandle<()>>,
    /// Empty while a job has it.
    memory: HostBytes,
    save: Option<Save>,
    /// Jobs begun, the same number on every rank.
    num_jobs: usize,
    /// Saves begun, the same number on every rank: a failed try never meets the next one.
    num_saves: u64,
    /// Which start of which launch saves.
    attempt: String,
    /// Least bytes of a file.
    least_bytes: usize,
    /// Saves that failed since the last one that did not.
    failures: u64,
    max_failures: u64,
}

/// A save on its way.
#[derive(Debug)]
struct Save {
    name: SaveName,
    draft: Manifest,
    num_parts: usize,
    is_commit: bool,
    /// How this rank's job ended, once it has.
    mine: Option<Result<Option<Committed>, CheckpointError>>,
}

/// What a saver's thread is asked to do.
enum Job {
    Part { snapshot: Snapshot, name: SaveName },
    Commit { draft: Box<Manifest>, name: SaveName, num_parts: usize },
    Discard { name: SaveName },
}

/// How a job ended; the memory of a part comes back.
struct Outcome {
    memory: Option<HostBytes>,
    result: Result<Option<Committed>, CheckpointError>,
}

/// Niceness of a saver's thread: the steps go on beside it, and need the processors more.
const NICE: i32 = 10;

/// Lets this thread run where others do not want to. On Linux a thread has a niceness of its own.
fn step_back() {
    if let Err(error) = setpriority_process(Some(gettid()), NICE) {
        tracing::debug!(%error, "saves keep the priority of the steps");
    }
}

impl Saver {
    /// Starts the thread that writes to the checkpoints of a run folder, as long as that is the run's.
    ///
    /// # Errors
    ///
    /// [`TrainError::File`] if there can be no thread.
    pub(crate) fn start(
        (rank, world_size): (usize, usize),
        device: RankDevice,
        tenure: &Tenure,
        config: &CheckpointConfig,
        storage: Storage,
        rows: Option<Durable>,
    ) -> Result<Self, TrainError> {
        let (checkpoints, storage) = (tenure.folder.checkpoints(), tenure.guard(storage));
        let retention = config.retention();
        let (jobs, asked) = channel();
        let (told, done) = channel();
        let path = checkpoints.clone();
        let write = move || {
            step_back();
            let writer = Writer { rank, checkpoints: path, retention, storage, rows };
            for job in asked {
                if let Some(outcome) = writer.run(job)
                    && told.send(outcome).is_err()
                {
                    return;
                }
            }
        };
        let thread = thread::Builder::new()
            .name("checkpoint".into())
            .spawn(write)
            .map_err(TrainError::file("start a thread for", &checkpoints))?;
        Ok(Self {
            rank,
            world_size,
            device,
            jobs: Some(jobs),
            done,
            thread: Some(thread),
            memory: HostBytes::default(),
            save: None,
            num_jobs: 0,
            num_saves: 0,
            attempt: tenure.attempt.to_string(),
            least_bytes: (config.file_mib << 20) as usize,
            failures: 0,
            max_failures: config.max_failures,
        })
    }

    /// Whether a save is on its way; the same on every rank.
    pub(crate) fn is_busy(&self) -> bool {
        self.save.is_some()
    }

    /// Whether so many saves failed in a row that the run has to end; the same on every rank.
    pub(crate) fn has_given_up(&self) -> bool {
        self.failures >= self.max_failures
    }

    /// Begins to save the state after a step. Nothing may be on its way.
    ///
    /// # Errors
    ///
    /// [`TrainError::Comm`] if the device fails.
    pub(crate) fn begin(&mut self, training: &Training, draft: Manifest) -> Result<(), TrainError> {
        assert!(self.save.is_none(), "one save at a time");
        let memory = std::mem::take(&mut self.memory);
        let ranks = (self.rank, self.world_size);
        let snapshot = Snapshot::take(training, ranks, self.least_bytes, &self.device, memory)?;
        self.num_saves += 1;
        let (attempt, number) = (self.attempt.clone(), self.num_saves);
        let name = SaveName { step: draft.step, attempt, number };
        let num_parts = snapshot.num_parts();
        self.save =
            Some(Save { name: name.clone(), draft, num_parts, is_commit: false, mine: None });
        self.num_jobs += 1;
        self.ask(Job::Part { snapshot, name });
        Ok(())
    }

    /// What this rank adds to a step's reduction: whether it is done with the job on its way, and
    /// whether it failed. Two pairs take turns, so that what was said of one job is not taken for
    /// news of the next.
    pub(crate) fn flags(&mut self) -> [f64; SAVES] {
        self.look(Duration::ZERO);
        let mut flags = [0.0; SAVES];
        if let Some(Save { mine: Some(result), .. }) = &self.save {
            flags[2 * (self.num_jobs % 2) + usize::from(result.is_err())] = 1.0;
        }
        flags
    }

    /// Takes in the sums of what ranks have said, at the same place on every rank.
    pub(crate) fn hear(&mut self, sums: &[f64; SAVES]) -> Option<Saved> {
        self.save.as_ref()?;
        let pair = 2 * (self.num_jobs % 2);
        let (done, failed) = (sums[pair], sums[pair + 1]);
        if done + failed < self.world_size as f64 { None } else { self.advance(failed > 0.0) }
    }

    /// Waits until the save on its way, if any, is through, at most for so many rounds of a second.
    /// Collective.
    ///
    /// # Errors
    ///
    /// [`TrainError::Comm`].
    pub(crate) fn finish(
        &mut self,
        comm: &dyn Communicator,
        rounds: u64,
    ) -> Result<Option<Saved>, TrainError> {
        for _ in 0..rounds {
            while self.save.is_some() {
                self.look(ROUND);
                let mine = self.save.as_ref().and_then(|save| save.mine.as_ref());
                let word = match mine {
                    None => 0,
                    Some(Ok(_)) => 1,
                    Some(Err(_)) => 2,
                };
                let all = all_gather_bytes(comm, &[word])?;
                if all.iter().any(|word| word == &[0]) {
                    break;
                }
                if let Some(saved) = self.advance(all.iter().any(|word| word == &[2])) {
                    return Ok(Some(saved));
                }
            }
            if self.save.is_none() {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// All ranks are done with a job.
    fn advance(&mut self, failed: bool) -> Option<Saved> {
        self.look(ROUND); // it has been told, so it is there
        let save = self.save.as_mut()?;
        let mine = save.mine.take().expect("every rank has told how its job ended");
        let step = save.name.step;
        if failed {
            let name = save.name.clone();
            self.save = None;
            self.failures += 1;
            if self.rank == 0 {
                self.ask(Job::Discard { name });
            }
            return Some(Saved::Failed { step, error: mine.err() });
        }
        let committed = mine.expect("no rank has failed");
        if save.is_commit {
            self.save = None;
            self.failures = 0;
            return Some(Saved::Done { step, committed });
        }
        save.is_commit = true;
        self.num_jobs += 1;
        if self.rank == 0 {
            let Save { name, draft, num_parts, .. } = &*save;
            let (name, draft, num_parts) = (name.clone(), draft.clone(), *num_parts);
            self.ask(Job::Commit { draft: Box::new(draft), name, num_parts });
        } else {
            save.mine = Some(Ok(None));
        }
        None
    }

    fn ask(&self, job: Job) {
        let jobs = self.jobs.as_ref().expect("the thread runs as long as the saver");
        jobs.send(job).expect("the thread runs as long as the saver");
    }

    /// Looks whether this rank's job has ended, for at most so long.
    fn look(&mut self, wait: Duration) {
        let Some(save) = self.save.as_mut().filter(|save| save.mine.is_none()) else { return };
        match self.done.recv_timeout(wait) {
            Ok(Outcome { memory, result }) => {
                if let Some(memory) = memory {
                    self.memory = memory;
                }
                save.mine = Some(result);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => panic!("the thread that saves has panicked"),
        }
    }
}

impl Drop for Saver {
    /// A run that ends well has nothing on its way. One that fails does not wait for a disk: what it
    /// was saving is left unfinished, as if the process had been killed.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && self.save.is_none()
        {
            // It may be removing what is left of a failed save.
            let deadline = Instant::now() + AT_END;
            while !thread.is_finished() && Instant::now() < deadline {
                thread::sleep(LOOK);
            }
        }
    }
}

/// What a saver's thread owns.
struct Writer {
    rank: usize,
    checkpoints: PathBuf,
    retention: Retention,
    storage: Storage,
    /// Rank 0's rows, which are durable before the checkpoint behind them is visible.
    rows: Option<Durable>,
}

impl Writer {
    fn run(&self, job: Job) -> Option<Outcome> {
        let Self { rank, checkpoints, retention, storage, rows } = self;
        match job {
            Job::Part { snapshot, name } => {
                let part = (*rank, snapshot.num_parts());
                let result = match snapshot.tensors() {
                    Some(tensors) => {
                        write_part(storage, checkpoints, &name, part, tensors).map(|_| None)
                    }
                    None => Ok(None), // others write all there is
                };
                Some(Outcome { memory: Some(snapshot.into_memory()), result })
            }
            Job::Commit { draft, name, num_parts } => {
                let settled = rows.as_ref().map_or(Ok(()), Durable::settle);
                let result = settled.and_then(|()| {
                    commit(storage, checkpoints, &name, num_parts, *draft, retention)
                });
                Some(Outcome { memory: None, result: result.map(Some) })
            }
            Job::Discard { name } => {
                if let Err(error) = discard(storage, checkpoints, &name) {
                    tracing::warn!(%error, "what is left of a failed save stays until the next run");
                }
                None
            }
        }
    }
}
