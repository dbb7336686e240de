//! The lock of a run folder: one live run writes into it.
//!
//! `RUN/run.lock` says who: the attempt, its process, a beat that goes on. Rank 0 holds it by `flock`, which the
//! kernel gives back when the process dies, and where the kernel cannot tell (another host, on a file
//! system whose locks end at the host) by the beat. A holder that storage has delayed may have lost the folder
//! to another one without noticing, so whoever is about to change something asks [`holds`] first.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::{Attempt, Process};

/// Name of the file in the run folder.
const FILE_NAME: &str = "run.lock";
/// Time between two beats.
const BEAT: Duration = Duration::from_secs(5);
/// A holder elsewhere whose beat stands still for so long is gone.
const STALE: Duration = Duration::from_secs(20);
/// Between two looks at the beat of a holder elsewhere.
const LOOK: Duration = Duration::from_millis(500);
/// Bytes of the file: longer than any content, so that it is replaced by one write.
const BYTES: usize = 1024;

/// Who holds a run folder, or held it last: the content of `RUN/run.lock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Which start of which launch.
    pub attempt: String,
    /// Rank 0, or a launcher that writes its last words.
    pub process: Process,
    /// When it took the folder, in seconds since 1970.
    pub since: u64,
    /// Goes up every few seconds while it lives.
    pub beat: u64,
    /// Whether it has given the folder back.
    pub released: bool,
}

impl Holder {
    fn is_of_launch_of(&self, attempt: &Attempt) -> bool {
        self.attempt.parse::<Attempt>().is_ok_and(|theirs| theirs.is_of_same_launch(attempt))
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Process { host, pid, .. } = &self.process;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let seconds = since.saturating_sub(self.since);
        write!(
            formatter,
            "process {pid} on host {host}, for {seconds} s (attempt {})",
            self.attempt
        )
    }
}

/// Why a run folder cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another run is at work in it.
    #[error(
        "{} is in use by {holder}: wait for that run or stop it, or choose another --run-dir",
        .run_dir.display()
    )]
    Held {
        /// The run folder.
        run_dir: PathBuf,
        /// By whom.
        holder: Box<Holder>,
    },
    /// The system refuses.
    #[error("cannot lock {}: {source}", .path.display())]
    File {
        /// The lock.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

/// A run folder that this process has. Dropping it gives the folder back.
#[derive(Debug)]
pub struct RunLock {
    run_dir: PathBuf,
    attempt: Attempt,
    file: File,
    /// Ends the thread that beats when it is dropped.
    beats: Option<Sender<()>>,
}

impl RunLock {
    /// Takes a run folder, which must be there, for `attempt`.
    ///
    /// It is free if nobody holds it, if its holder has ended, or is an earlier attempt of the same launch. Where
    /// it cannot be seen whether the holder lives, its beat is waited for, up to 20 s.
    ///
    /// # Errors
    ///
    /// [`LockError`].
    pub fn take(run_dir: &Path, attempt: &Attempt) -> Result<Self, LockError> {
        Self::take_within(run_dir, attempt, STALE)
    }

    fn take_within(run_dir: &Path, attempt: &Attempt, stale: Duration) -> Result<Self, LockError> {
        let path = run_dir.join(FILE_NAME);
        let refused = |source: io::Error| LockError::File { path: path.clone(), source };
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(refused)?;
        let before = read(&file).map_err(refused)?;
        let held = |holder: Holder| {
            let (run_dir, holder) = (run_dir.to_owned(), Box::new(holder));
            Err(LockError::Held { run_dir, holder })
        };
        let locked = lock(&file).map_err(refused)?;
        let others = before.filter(|holder| !holder.released && !holder.is_of_launch_of(attempt));
        match (locked, others) {
            (Locked::ByOther, None) => {
                // Taken by somebody who has not yet written who it is, or by an earlier attempt
                // that is about to end.
                match wait_for_flock(&file, stale).map_err(refused)? {
                    true => {}
                    false => match read(&file).map_err(refused)? {
                        Some(holder) => return held(holder),
                        None => return Err(refused(io::ErrorKind::WouldBlock.into())),
                    },
                }
            }
            (Locked::ByOther, Some(holder)) => return held(holder),
            (locked, Some(holder)) => {
                let alive = match holder.process.lives() {
                    Some(alive) => alive && locked != Locked::Here,
                    // The same kernel: what its lock says of other namespaces holds.
                    None if locked == Locked::Here && holder.process.is_of_this_boot() => false,
                    None => beats(&file, &holder, stale).map_err(refused)?,
                };
                if alive {
                    return held(read(&file).ok().flatten().unwrap_or(holder));
                }
                tracing::info!(%holder, "the run folder is taken over from a run that has ended");
            }
            (_, None) => {}
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let process = Process::own();
        let attempt_text = attempt.to_string();
        let holder = Holder { attempt: attempt_text, process, since, beat: 0, released: false };
        write(&file, &holder).map_err(refused)?;
        let run_dir = run_dir.to_owned();
        Ok(Self { run_dir, attempt: attempt.clone(), file, beats: None })
    }

    /// Begins to beat, on a thread of its own, until the lock is dropped. `on_lost` is called there if the folder
    /// is found to be another one's.
    ///
    /// # Errors
    ///
    /// [`LockError::File`] if there can be no thread.
    pub fn beat(&mut self, on_lost: impl FnOnce(&Lost) + Send + 'static) -> Result<(), LockError> {
        let path = self.run_dir.join(FILE_NAME);
        let refused = |source: io::Error| LockError::File { path: path.clone(), source };
        let file = self.file.try_clone().map_err(refused)?;
        let (run_dir, attempt) = (self.run_dir.clone(), self.attempt.clone());
        let (ends, ended) = channel();
        let beat = move || {
            while ended.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                if let Err(lost) = holds(&run_dir, &attempt) {
                    return on_lost(&lost);
                }
                // Storage that does not answer costs beats; who takes the folder meanwhile is found.
                if let Ok(Some(mut holder)) = read(&file) {
                    holder.beat += 1;
                    let _ = write(&file, &holder);
                }
            }
        };
        std::thread::Builder::new().name("run-lock".into()).spawn(beat).map_err(refused)?;
        self.beats = Some(ends);
        Ok(())
    }

    /// The attempt that has the folder.
    pub fn attempt(&self) -> &Attempt {
        &self.attempt
    }

    /// Whether it is still this attempt's.
    pub fn is_held(&self) -> bool {
        holds(&self.run_dir, &self.attempt).is_ok()
    }

    /// Gives the folder back, as dropping does: for processes that end without.
    pub fn release(&self) {
        if holds(&self.run_dir, &self.attempt).is_ok()
            && let Ok(Some(holder)) = read(&self.file)
        {
            let _ = write(&self.file, &Holder { released: true, ..holder });
        }
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        self.beats = None;
        self.release();
    }
}

/// A run folder that is another one's now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this run has lost its folder {}: it is {now}", .run_dir.display())]
pub struct Lost {
    run_dir: PathBuf,
    now: String,
}

/// Whether a run folder is that of this attempt. Where its lock cannot be read now, it is taken to be.
///
/// # Errors
///
/// [`Lost`], once another one has it or the lock was removed.
pub fn holds(run_dir: &Path, attempt: &Attempt) -> Result<(), Lost> {
    let lost = |now: String| Err(Lost { run_dir: run_dir.to_owned(), now });
    match holder(run_dir) {
        Ok(Some(holder)) if holder.attempt == attempt.to_string() => Ok(()),
        Ok(Some(holder)) => lost(format!("in use by {holder}")),
        Ok(None) => lost(format!("nobody's, its {FILE_NAME} was removed")),
        Err(error) => {
            tracing::debug!(%error, "the lock of the run folder cannot be read");
            Ok(())
        }
    }
}

/// Who has a run folder, or had it last; `None` where nobody ever had.
///
/// # Errors
///
/// Those of reading the lock.
pub fn holder(run_dir: &Path) -> io::Result<Option<Holder>> {
    match File::open(run_dir.join(FILE_NAME)) {
        Ok(file) => read(&file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Refuses a run folder in which a run of another launch is at work, as far as that can be seen at once;
/// changes nothing.
///
/// # Errors
///
/// [`LockError::Held`].
pub fn refuse_held(run_dir: &Path, attempt: Option<&Attempt>) -> Result<(), LockError> {
    let Ok(Some(holder)) = holder(run_dir) else { return Ok(()) };
    let own = attempt.is_some_and(|attempt| holder.is_of_launch_of(attempt));
    if holder.released || own || holder.process.lives() != Some(true) {
        return Ok(());
    }
    Err(LockError::Held { run_dir: run_dir.to_owned(), holder: Box::new(holder) })
}

/// What `flock` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Locked {
    /// It is ours.
    Here,
    /// Another process has it.
    ByOther,
    /// The file system knows no locks.
    Unknown,
}

fn lock(file: &File) -> io::Result<Locked> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Locked::Here),
        Err(Errno::WOULDBLOCK) => Ok(Locked::ByOther),
        Err(Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => Ok(Locked::Unknown),
        Err(error) => Err(error.into()),
    }
}

/// Whether the lock could be had within a time.
fn wait_for_flock(file: &File, within: Duration) -> io::Result<bool> {
    let mut left = within;
    loop {
        if lock(file)? != Locked::ByOther {
            return Ok(true);
        }
        if left.is_zero() {
            return Ok(false);
        }
        let pause = LOOK.min(left);
        std::thread::sleep(pause);
        left -= pause;
    }
}

/// Whether a holder of whom nothing else is known beats within a time. A beat that is far older than a fresh
/// file on the same storage need not be waited for.
fn beats(file: &File, holder: &Holder, within: Duration) -> io::Result<bool> {
    if age(file).is_some_and(|age| age > 3 * within) {
        return Ok(false);
    }
    let mut left = within;
    while !left.is_zero() {
        let pause = LOOK.min(left);
        std::thread::sleep(pause);
        left -= pause;
        match read(file)? {
            Some(now) if now == *holder => {}
            Some(now) => return Ok(!now.released),
            None => return Ok(false),
        }
    }
    Ok(false)
}

/// How long ago a file was changed, by the clock of its storage.
fn age(file: &File) -> Option<Duration> {
    let probe = file.try_clone().ok()?;
    let changed = file.metadata().ok()?.modified().ok()?;
    // Its time of access is set by the same clock as that of its change, and nobody reads it.
    rustix::fs::futimens(
        &probe,
        &rustix::fs::Timestamps {
            last_access: rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
            last_modification: rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        },
    )
    .ok()?;
    file.metadata().ok()?.accessed().ok()?.duration_since(changed).ok()
}

/// The content; `None` where there is none, or none that can be understood: nobody's.
fn read(file: &File) -> io::Result<Option<Holder>> {
    let mut bytes = vec![0; BYTES];
    let mut len = 0;
    loop {
        match file.read_at(&mut bytes[len..], len as u64) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(serde_json::from_slice(&bytes[..len]).ok())
}

/// Replaces the content, in place: the file that is locked stays the one of this name.
fn write(file: &File, holder: &Holder) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(holder)?;
    bytes.resize(bytes.len().max(BYTES - 1), b' ');
    bytes.push(b'\n');
    file.write_all_at(&bytes, 0)?;
    let mut file = file;
    file.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(600);

    fn attempt(launch: u8, number: u32) -> Attempt {
        format!("{launch:012x}-{number}").parse().unwrap()
    }

    fn held(result: Result<RunLock, LockError>) -> String {
        match result {
            Err(error @ LockError::Held { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    /// A folder whose lock says this.
    fn left_by(change: impl FnOnce(&mut Holder)) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        drop(RunLock::take(folder.path(), &attempt(1, 0)).unwrap());
        let file = File::options().read(true).write(true).open(folder.path().join(FILE_NAME));
        let file = file.unwrap();
        let mut left = read(&file).unwrap().unwrap();
        left.released = false;
        change(&mut left);
        write(&file, &left).unwrap();
        folder
    }

    #[test]
    fn a_second_run_is_refused_with_the_name_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let first = RunLock::take(folder.path(), &attempt(1, 0)).unwrap();
        let told = held(RunLock::take(folder.path(), &attempt(2, 0)));
        let pid = std::process::id();
        assert!(told.contains(&format!("in use by process {pid} on host ")), "{told}");
        assert!(told.contains("(attempt 000000000001-0): wait for that run"), "{told}");
        assert!(refuse_held(folder.path(), None).is_err());
        assert!(refuse_held(folder.path(), Some(&attempt(1, 3))).is_ok(), "its own launch");
        assert_eq!(holds(folder.path(), &attempt(1, 0)), Ok(()));
        assert!(holds(folder.path(), &attempt(1, 1)).is_err());
        drop(first);
        assert!(refuse_held(folder.path(), None).is_ok());
        assert!(holder(folder.path()).unwrap().unwrap().released);
        RunLock::take(folder.path(), &attempt(2, 0)).unwrap();
    }

    #[test]
    fn a_holder_that_has_ended_or_is_an_earlier_attempt_is_taken_over_at_once() {
        let dead = left_by(|holder| holder.process.started += 1);
        let begun = std::time::Instant::now();
        let lock = RunLock::take(dead.path(), &attempt(2, 0)).unwrap();
        assert_eq!(holder(dead.path()).unwrap().unwrap().attempt, lock.attempt().to_string());
        let other_namespace = left_by(|holder| {
            let boot = holder.process.place.split(' ').next().unwrap().to_owned();
            holder.process.place = format!("{boot} pid:[1]");
        });
        RunLock::take(other_namespace.path(), &attempt(2, 0)).unwrap();
        let elsewhere = left_by(|holder| holder.process.place = "another host".into());
        RunLock::take(elsewhere.path(), &attempt(1, 1)).unwrap();
        assert!(begun.elapsed() < STALE / 2, "nothing was waited for");
    }

    #[test]
    fn a_holder_elsewhere_counts_as_alive_as_long_as_it_beats() {
        let folder = left_by(|holder| holder.process.place = "another host".into());
        let path = folder.path().join(FILE_NAME);
        let theirs = File::options().read(true).write(true).open(&path).unwrap();
        let (stop, stopped) = channel::<()>();
        let beats = std::thread::spawn(move || {
            while stopped.recv_timeout(Duration::from_millis(50)).is_err() {
                let mut holder = read(&theirs).unwrap().unwrap();
                holder.beat += 1;
                write(&theirs, &holder).unwrap();
            }
        });
        let told = held(RunLock::take_within(folder.path(), &attempt(2, 0), SHORT * 10));
        assert!(told.contains("in use by process"), "{told}");
        stop.send(()).unwrap();
        beats.join().unwrap();
        RunLock::take_within(folder.path(), &attempt(2, 0), SHORT).unwrap();
    }

    #[test]
    fn a_lock_whose_beat_is_old_by_the_clock_of_its_storage_is_not_waited_for() {
        let folder = left_by(|holder| holder.process.place = "another host".into());
        let file = File::options().write(true).open(folder.path().join(FILE_NAME)).unwrap();
        file.set_modified(SystemTime::now() - 4 * STALE).unwrap();
        let begun = std::time::Instant::now();
        RunLock::take(folder.path(), &attempt(2, 0)).unwrap();
        assert!(begun.elapsed() < STALE / 2);
    }

    #[test]
    fn who_has_lost_the_folder_hears_of_it_and_gives_nothing_back() {
        let folder = tempfile::tempdir().unwrap();
        let first = RunLock::take(folder.path(), &attempt(1, 0)).unwrap();
        // As on storage whose locks end at the host: another one writes its name over ours.
        let other = Holder {
            attempt: attempt(2, 0).to_string(),
            ..holder(folder.path()).unwrap().unwrap()
        };
        write(&first.file, &other).unwrap();
        let lost = holds(folder.path(), first.attempt()).unwrap_err().to_string();
        assert!(lost.contains("it is in use by process"), "{lost}");
        drop(first);
        assert_eq!(holder(folder.path()).unwrap().unwrap(), other, "not released");
        std::fs::remove_file(folder.path().join(FILE_NAME)).unwrap();
        let lost = holds(folder.path(), &attempt(2, 0)).unwrap_err().to_string();
        assert!(lost.contains("was removed"), "{lost}");
    }

    #[test]
    fn what_is_no_lock_is_nobodys() {
        for text in ["", "{}", "\0\0\0", "{\"attempt\""] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(FILE_NAME), text).unwrap();
            RunLock::take(folder.path(), &attempt(2, 0)).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(FILE_NAME)).unwrap();
        let error = RunLock::take(folder.path(), &attempt(2, 0)).unwrap_err();
        assert!(matches!(error, LockError::File { .. }), "{error}");
    }
}
