//! The faults, and what has to become of each.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::disturb::{Ended, Run};
use super::rivals;
use super::surroundings::Surroundings;
use super::trouble::Trouble;
use super::{Setting, Undisturbed};

/// A fault.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// What goes wrong, and what has to happen.
    pub(super) meaning: &'static str,
    what: What,
}

enum What {
    /// A worker fails in itself; the launcher names it with this code and word, and starts again.
    Worker { at: &'static [&'static str], deed: &'static str, code: i32, words: &'static str },
    /// A worker fails in a file operation of a save; the run goes on to its end.
    Storage { deed: &'static str },
    /// A worker is killed in a file operation of a save.
    SaveKilled,
    /// A worker is slow; it is named, and the run goes on.
    Slow,
    /// A gradient is not a number: code 5, and the tensor is named.
    Nan,
    /// The launcher gets this signal, and the run ends with this code.
    Signal { signal: Signal, code: Option<i32> },
    /// A bit of the newest checkpoint flips while no run goes on.
    Flip,
    /// Two launchers at once.
    Two,
    /// Killed, and resumed on other numbers of workers.
    Worlds,
    /// One run whose workers are killed over and over.
    Kills,
    /// Launchers that fight for one folder, on storage that fails.
    Rivals,
    /// The run's surroundings are not as usual.
    Around(Surroundings),
    /// The storage of the run folder is full or stands still.
    Troubled(Trouble),
}

use What::{
    Around, Flip, Kills, Nan, Rivals, SaveKilled, Signal as Sent, Slow, Storage, Troubled, Two,
    Worker, Worlds,
};

const PHASES: &[&str] = &["data", "forward", "backward", "reduce", "optimizer", "checkpoint"];

/// How long a worker may do nothing in these runs.
const LIMITS: &[&str] = &["--silence", "3", "--stuck", "10"];

const fn killed(name: &'static str, at: &'static [&'static str]) -> Case {
    let meaning = "a worker is killed there: 3, it is named, the next start goes on";
    Case { name, meaning, what: Worker { at, deed: "kill", code: 3, words: "worker lost: rank " } }
}

/// All faults, in the order in which they are tried.
pub(super) const CASES: &[Case] = &[
    killed("kill-data", &["data"]),
    killed("kill-forward", &["forward"]),
    killed("kill-backward", &["backward"]),
    killed("kill-reduce", &["reduce"]),
    killed("kill-optimizer", &["optimizer"]),
    killed("kill-checkpoint", &["checkpoint"]),
    Case {
        name: "exit",
        meaning: "a worker exits in the middle: 3, it is named, the next start goes on",
        what: Worker { at: PHASES, deed: "exit", code: 3, words: "exit code 9" },
    },
    Case {
        name: "panic",
        meaning: "a worker panics: 1, with its words, the next start goes on",
        what: Worker { at: PHASES, deed: "panic", code: 1, words: "a fault on purpose" },
    },
    Case {
        name: "segfault",
        meaning: "a worker breaks its memory: 3, with the signal, the next start goes on",
        what: Worker { at: PHASES, deed: "segfault", code: 3, words: "signal 11" },
    },
    Case {
        name: "stop",
        meaning: "a worker is stopped: 4, it is named, the next start goes on",
        what: Worker { at: PHASES, deed: "stop", code: 4, words: "the process is stopped" },
    },
    Case {
        name: "skip",
        meaning: "a worker leaves out a collective: 4, both sides are named",
        what: Worker { at: &[], deed: "skip", code: 4, words: "ranks disagree" },
    },
    Case {
        name: "shape",
        meaning: "a worker sums another number of elements: 4, both sides are named",
        what: Worker { at: &[], deed: "shape", code: 4, words: "mismatch: rank 0" },
    },
    Case { name: "nan", meaning: "a gradient is NaN: 5, its tensor is named", what: Nan },
    Case { name: "slow", meaning: "a worker is slow: it is named, the run goes on", what: Slow },
    Case { name: "save-kill", meaning: "killed in the middle of a save", what: SaveKilled },
    Case {
        name: "save-enospc",
        meaning: "a full disk in a save: told, the run goes on",
        what: Storage { deed: "enospc" },
    },
    Case {
        name: "save-eio",
        meaning: "an error of the disk in a save: told, the run goes on",
        what: Storage { deed: "eio" },
    },
    Case {
        name: "save-short",
        meaning: "half a write in a save: told, the run goes on",
        what: Storage { deed: "short" },
    },
    Case {
        name: "disk-full",
        meaning: "a disk that is full for a while: told once, no row is lost, the run goes on",
        what: Troubled(Trouble::Full),
    },
    Case {
        name: "storage-stalls",
        meaning: "storage that stands still for 3 s: the run goes on",
        what: Troubled(Trouble::StandsStill),
    },
    Case {
        name: "storage-deaf",
        meaning: "storage that does not answer the launcher when a worker dies: 3, it is named",
        what: Troubled(Trouble::Deaf),
    },
    Case { name: "bit-flip", meaning: "a flipped bit in a checkpoint: the one before", what: Flip },
    Case {
        name: "signal-term",
        meaning: "SIGTERM to the launcher: one checkpoint, 75",
        what: Sent { signal: Signal::TERM, code: Some(75) },
    },
    Case {
        name: "signal-usr1",
        meaning: "SIGUSR1 to the launcher: one checkpoint, 75",
        what: Sent { signal: Signal::USR1, code: Some(75) },
    },
    Case {
        name: "launcher-kill",
        meaning: "SIGKILL to the launcher: nobody is left",
        what: Sent { signal: Signal::KILL, code: None },
    },
    Case {
        name: "many-kills",
        meaning: "killed again and again: each time the launcher goes on from the last commit",
        what: Kills,
    },
    Case {
        name: "many-rivals",
        meaning: "launchers fight for one folder, storage stands still or is full: one has it at a time",
        what: Rivals,
    },
    Case { name: "two", meaning: "two launchers at once: they do not meet", what: Two },
    Case {
        name: "worlds",
        meaning: "killed on 4 workers, then on 2, ended on 3: as on one, to 1e-9 in fp64",
        what: Worlds,
    },
    Case {
        name: "around-start",
        meaning: "streams are closed and SIGCHLD is ignored at the start: the run goes on",
        what: Around(Surroundings::BareStart),
    },
    Case {
        name: "around-reader",
        meaning: "nobody reads what is printed: the run goes on, and its code counts",
        what: Around(Surroundings::NoReader),
    },
    Case {
        name: "around-link",
        meaning: "the run folder is a link to nowhere: 2, and nothing is made",
        what: Around(Surroundings::LinkToNowhere),
    },
    Case {
        name: "around-gone",
        meaning: "the run folder is removed: 1, with one line",
        what: Around(Surroundings::FolderGone),
    },
    Case {
        name: "around-temp",
        meaning: "the temporary folder cannot be used: 2, with what to do",
        what: Around(Surroundings::NoTemporary),
    },
    Case {
        name: "around-busy",
        meaning: "another program uses all cores: the run goes on, to the same numbers",
        what: Around(Surroundings::BusyNeighbor),
    },
    Case {
        name: "around-network",
        meaning: "all control connections break, twice: the workers come back, the run goes on",
        what: Around(Surroundings::BrokenNetwork),
    },
];

/// Numbers that hang on seed, fault and round alone.
pub(super) struct Draws(u64);

impl Draws {
    pub(super) fn new(seed: u64, name: &str, round: u64) -> Self {
        let hash = name.bytes().fold(seed ^ round.rotate_left(32), |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(hash)
    }

    /// A number from 0 to below `end` (SplitMix64).
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }

    pub(super) fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len() as u64) as usize]
    }
}

impl Case {
    /// Disturbs a run in `folder`; what was done and seen, or what was not as promised.
    pub(super) fn run(
        &self,
        setting: &Setting<'_>,
        expected: &Undisturbed,
        folder: &Path,
        draws: &mut Draws,
    ) -> Result<String, String> {
        let rank = draws.below(setting.nproc as u64);
        // In the middle, so that there is something before and behind.
        let step = 2 + draws.below(expected.steps - 4);
        let run = Run::new(setting, folder);
        let resume = || Run::new(setting, folder).to_end().and_then(|ended| expect(&ended, 0, ""));
        match self.what {
            Worker { at, deed, code, words } => {
                let place =
                    if at.is_empty() { String::new() } else { format!(",at={}", draws.of(at)) };
                let mut step = step;
                if place == ",at=checkpoint" {
                    step = checkpoint_step(&expected.last, step)?;
                }
                let fault = format!("rank={rank},step={step}{place},do={deed}");
                let disturbed = run.with_faults(fault.clone()).with_option(LIMITS);
                let ended = disturbed.to_end()?;
                expect(&ended, code, words)?;
                if code == 3 && !ended.stderr.contains(&format!("rank {rank} on host")) {
                    return Err(format!(
                        "{fault}: another culprit is named: {}",
                        ended.last_line()
                    ));
                }
                reported(folder)?;
                resume()?;
                expected.check(folder)?;
                // And in one go: the launcher starts again by itself.
                let again = folder.with_extension("restart");
                let restarted = Run::new(setting, &again).with_faults(fault.clone());
                let restarted = restarted.with_option(LIMITS).with_option(&["--max-restarts", "1"]);
                expect(&restarted.to_end()?, 0, "restart 1 of 1")?;
                expected.check(&again)?;
                let _ = fs::remove_dir_all(again);
                let after = ended.seconds_since_fault();
                let after =
                    after.map_or(String::new(), |after| format!(" told after {after:.1} s,"));
                Ok(format!("{fault}:{after} {}", ended.last_line()))
            }
            Storage { deed } => {
                let (nth, step) = (1 + draws.below(8), checkpoint_step(&expected.last, 0)?);
                let fault = format!("rank={rank},at=save,step={step},nth={nth},do={deed}");
                let ended = run.with_faults(fault.clone()).to_end()?;
                expect(&ended, 0, "")?;
                expected.check(folder)?;
                let told = ended.stderr.lines().find(|line| line.contains("could not be saved"));
                Ok(format!("{fault}: {}", told.unwrap_or("an old checkpoint stayed")))
            }
            SaveKilled => {
                let (nth, step) = (1 + draws.below(12), checkpoint_step(&expected.last, step)?);
                let fault = format!("rank={rank},at=save,step={step},nth={nth},do=kill");
                let ended = run.with_faults(fault.clone()).to_end()?;
                // A rank that has fewer operations than that is not killed.
                if ended.code != Some(0) {
                    expect(&ended, 3, "worker lost: rank ")?;
                    resume()?;
                }
                expected.check(folder)?;
                Ok(format!("{fault}: {}", ended.last_line()))
            }
            Slow => {
                // So that the steps from there on take some more than two windows of two seconds.
                let ms = 1 + 10_000 / (expected.steps - step);
                let fault = format!("rank={rank},step={step},at=data,do=slow,ms={ms}");
                let run = run.with_faults(fault.clone()).with_setting("limits.late_seconds=2");
                let ended = run.to_end()?;
                expect(&ended, 0, &format!("of their time for rank {rank} on host"))?;
                expected.check(folder)?;
                let told = ended.stderr.lines().find(|line| line.contains("late: "));
                Ok(format!("{fault}: {}", told.unwrap_or_default()))
            }
            Nan => {
                let fault = format!("rank={rank},step={step},do=nan");
                let ended = run.with_faults(fault.clone()).to_end()?;
                expect(&ended, 5, "first in the gradient of ")?;
                resume()?;
                expected.check(folder)?;
                let again = folder.with_extension("skipped");
                let passed = Run::new(setting, &again).with_faults(fault.clone());
                let passed = passed.with_setting("train.max_skipped_steps=1").to_end()?;
                expect(&passed, 0, &format!("step {} left out", step + 1))?;
                let _ = fs::remove_dir_all(again);
                Ok(format!("{fault}: {}", ended.last_line()))
            }
            Sent { signal, code } => {
                let mut running = run.start()?;
                running.wait_for_step(step)?;
                running.signal(signal);
                let ended = running.end()?;
                // It may have ended before the signal came.
                if ended.code != code && ended.code != Some(0) {
                    return Err(format!("ended with {:?}: {}", ended.code, ended.last_line()));
                }
                resume()?;
                expected.check(folder)?;
                Ok(format!("signal {} after step {step}: {:?}", signal.as_raw(), ended.code))
            }
            Around(surroundings) => surroundings.disturb(setting, expected, folder),
            Rivals => rivals::fight(setting, expected, folder, draws),
            Troubled(trouble) => trouble.disturb(setting, expected, folder, draws),
            Kills => kills(setting, expected, folder, draws),
            Worlds => worlds(setting, folder, draws),
            Flip => flip(setting, expected, folder, draws),
            Two => {
                let other = folder.with_extension("other");
                let beside = Run::new(setting, &other).start()?;
                let ended = run.to_end()?;
                expect(&beside.end()?, 0, "")?;
                expect(&ended, 0, "")?;
                expected.check(folder)?;
                expected.check(&other)?;
                let _ = fs::remove_dir_all(other);
                Ok("both end like the undisturbed run".to_owned())
            }
        }
    }
}

/// Kills one worker after every start, each time somewhat further on.
fn kills(
    setting: &Setting<'_>,
    expected: &Undisturbed,
    folder: &Path,
    draws: &mut Draws,
) -> Result<String, String> {
    let count = setting.kills.max(1);
    let mut steps: Vec<u64> = (0..count).map(|_| 1 + draws.below(expected.steps - 1)).collect();
    steps.sort_unstable();
    let mut faults = Vec::new();
    for (start, step) in steps.iter().enumerate() {
        let (rank, at) = (draws.below(setting.nproc as u64), draws.of(&PHASES[..5]));
        faults.push(format!("start={start},rank={rank},step={step},at={at},do=kill"));
    }
    let restarts = count.to_string();
    let run = Run::new(setting, folder).with_faults(faults.join(";"));
    let ended = run.with_option(&["--max-restarts", &restarts]).to_end()?;
    expect(&ended, 0, &format!("restart {count} of {count}"))?;
    if ended.stderr.contains("checkpoint skipped") {
        return Err("a checkpoint could not be loaded".to_owned());
    }
    // A save may be on its way when the next one is due, no more.
    let every = expected.last.manifest.config["checkpoint"]["every"].as_u64().unwrap_or(0);
    let resumed = ended.stderr.lines().filter_map(|line| {
        let step = line.strip_prefix("resuming from step ")?.split(',').next()?;
        step.parse::<u64>().ok()
    });
    let resumed: Vec<u64> = resumed.collect();
    let mut lost = 0;
    // The first starts may come before the first commit, and have nothing to resume from.
    for (killed, found) in steps.iter().rev().zip(resumed.iter().rev()) {
        lost = lost.max(killed - found);
    }
    if lost >= 2 * every {
        return Err(format!("{lost} steps were lost with a save every {every}"));
    }
    expected.check(folder)?;
    Ok(format!("{count} kills, at most {lost} steps lost with a save every {every} steps"))
}

/// A run in fp64 whose workers are killed, and that goes on with another number of them each time.
fn worlds(setting: &Setting<'_>, folder: &Path, draws: &mut Draws) -> Result<String, String> {
    let fp64 = |folder| Run::new(setting, folder).with_setting("train.precision=fp64");
    let alone = folder.with_extension("alone");
    expect(&fp64(&alone).with_nproc(1).to_end()?, 0, "")?;
    let expected = Undisturbed::of(&alone)?;
    let every = checkpoint_step(&expected.last, 0)?;
    let first = every + draws.below((expected.steps / 2).saturating_sub(every));
    let second = expected.steps / 2 + draws.below(expected.steps / 2 - 2);
    for (nproc, step) in [(4, first), (2, second)] {
        let rank = draws.below(nproc as u64);
        let fault = format!("rank={rank},step={step},at={},do=kill", draws.of(&PHASES[..5]));
        let killed = fp64(folder).with_nproc(nproc).with_faults(fault);
        expect(&killed.to_end()?, 3, "worker lost: rank ")?;
    }
    expect(&fp64(folder).with_nproc(3).to_end()?, 0, "")?;
    let away = expected.distance(folder)?;
    let _ = fs::remove_dir_all(alone);
    if away > 1e-9 {
        return Err(format!("a number of its rows or tensors is {away:e} from that on one worker"));
    }
    Ok(format!("4 workers to step {first}, 2 to {second}, 3 to the end: within {away:.0e}"))
}

/// A bit of the newest checkpoint of a stopped run flips, or a file of it is cut or removed.
fn flip(
    setting: &Setting<'_>,
    expected: &Undisturbed,
    folder: &Path,
    draws: &mut Draws,
) -> Result<String, String> {
    let half = format!("train.stop_at={}", expected.steps - 2);
    expect(&Run::new(setting, folder).with_setting(&half).to_end()?, 75, "")?;
    let error = |error: std::io::Error| error.to_string();
    let newest = tessera_checkpoint::checkpoint_at(folder).map_err(|error| error.to_string())?;
    let mut files: Vec<PathBuf> =
        fs::read_dir(&newest).map_err(error)?.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let file = &files[draws.below(files.len() as u64) as usize];
    let mut bytes = fs::read(file).map_err(error)?;
    let (at, bit) = (draws.below(bytes.len() as u64) as usize, draws.below(8));
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    bytes[at] ^= 1 << bit;
    fs::write(file, bytes).map_err(error)?;
    let ended = Run::new(setting, folder).to_end()?;
    expect(&ended, 0, "checkpoint skipped: ")?;
    expected.check(folder)?;
    Ok(format!("bit {bit} of byte {at} of {name}"))
}

/// A step, at or behind this one, after which the run saves.
pub(super) fn checkpoint_step(
    last: &tessera_checkpoint::Checkpoint,
    step: u64,
) -> Result<u64, String> {
    let every = last.manifest.config["checkpoint"]["every"].as_u64().unwrap_or(0);
    match every {
        0 => Err("checkpoint.every is 0: set it to less than train.steps".to_owned()),
        every => Ok(step.max(1).next_multiple_of(every).min(last.manifest.step / every * every)),
    }
}

pub(super) fn expect(ended: &Ended, code: i32, words: &str) -> Result<(), String> {
    if ended.code != Some(code) {
        let line = ended.last_line();
        return Err(format!("it ended with {:?}, not {code}: {line}", ended.code));
    }
    if !ended.stderr.contains(words) {
        return Err(format!("it does not say {words:?}: {}", ended.last_line()));
    }
    Ok(())
}

/// Whether a report of the failure was left.
fn reported(folder: &Path) -> Result<(), String> {
    let reports = fs::read_dir(folder.join("failures")).map_or(0, Iterator::count);
    if reports == 0 { Err("there is no report in failures/".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_hang_on_seed_name_and_round() {
        let draw = |seed, name, round| {
            let mut draws = Draws::new(seed, name, round);
            [0; 4].map(|_| draws.below(1000))
        };
        assert_eq!(draw(1, "kill-data", 2), draw(1, "kill-data", 2));
        let all = [draw(1, "kill-data", 2), draw(2, "kill-data", 2), draw(1, "kill-data", 3)];
        assert!(all[0] != all[1] && all[0] != all[2] && all[1] != all[2], "{all:?}");
        assert_ne!(draw(1, "kill-data", 2), draw(1, "kill-reduce", 2));
    }

    #[test]
    fn names_of_faults_are_their_own() {
        let mut names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CASES.len());
    }
}
