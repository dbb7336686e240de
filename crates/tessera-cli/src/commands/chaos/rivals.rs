//! Launchers that fight for one run folder, on storage that fails: at random, again and again.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::catalogue::{Draws, expect};
use super::disturb::{Run, Running};
use super::{Setting, Undisturbed};

/// Milliseconds that storage stands still.
const STILL_MS: u64 = 10_000;
/// The same of a short try.
const SHORT_MS: u64 = 1_000;

/// What happens to a run of which somebody else wants the folder.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// A second launcher while it lives: one has the folder, the other is refused by the holder's name.
    Rival,
    /// Its launcher is killed, and started again.
    Killed,
    /// Its launcher is killed, and two are started at once: one has the folder, the other is refused.
    Race,
}

/// Lets `setting.kills` of these happen, and compares each run that comes to its end.
pub(super) fn fight(
    setting: &Setting<'_>,
    expected: &Undisturbed,
    folder: &Path,
    draws: &mut Draws,
) -> Result<String, String> {
    let (mut refused, mut killed) = (0u64, 0u64);
    let mut fight = Fight { setting, expected, folder: folder.to_owned(), number: 0 };
    let mut running = fight.start(draws)?;
    for _ in 0..setting.kills.max(1) {
        let ahead = 1 + draws.below((expected.steps / 3).max(1));
        let step = running.last_step() + ahead;
        running.wait_for_step(step.min(expected.steps))?;
        if running.has_ended()? {
            fight.finish(running)?;
            running = fight.start(draws)?;
            running.wait_for_step(1)?;
        }
        let event = [Event::Rival, Event::Killed, Event::Race][draws.below(3) as usize];
        if !matches!(event, Event::Rival) {
            running.signal(Signal::KILL);
            running.end()?;
            killed += 1;
            running = fight.start(draws)?;
        }
        if matches!(event, Event::Killed) {
            continue;
        }
        let other = fight.start(draws)?;
        let (winner, lost) = between(running, other)?;
        refused += lost;
        running = match winner {
            Some(winner) => winner,
            None => {
                fight.compare()?;
                fight.start(draws)?
            }
        };
    }
    fight.finish(running)?;
    Ok(format!(
        "{killed} launchers killed, {refused} refused, {} runs ended like the undisturbed one",
        fight.number
    ))
}

/// Of two launchers in one folder the one that has it, and how many were refused; no winner where the run came to its
/// end meanwhile.
fn between(mut first: Running, mut second: Running) -> Result<(Option<Running>, u64), String> {
    loop {
        if first.has_ended()? {
            std::mem::swap(&mut first, &mut second);
        }
        if second.has_ended()? {
            break;
        }
        first.pause()?;
    }
    let ended = second.end_alone()?;
    match ended.code {
        Some(2) => expect(&ended, 2, "is in use by process ").map(|()| (Some(first), 1)),
        // The run is done. The other one finds nothing to do, or came while this one was at work.
        Some(0) => {
            let other = first.end()?;
            match other.code {
                Some(2) => expect(&other, 2, "is in use by process ").map(|()| (None, 1)),
                _ => expect(&other, 0, "").map(|()| (None, 0)),
            }
        }
        code => Err(format!("one of two ended with {code:?}: {}", ended.last_line())),
    }
}

struct Fight<'a> {
    setting: &'a Setting<'a>,
    expected: &'a Undisturbed,
    folder: PathBuf,
    /// Runs that have ended.
    number: u64,
}

impl Fight<'_> {
    fn folder(&self) -> PathBuf {
        self.folder.with_extension(self.number.to_string())
    }

    /// A launcher whose storage stands still, is full, or neither.
    fn start(&self, draws: &mut Draws) -> Result<Running, String> {
        let rank = draws.below(self.setting.nproc as u64);
        let (step, nth) = (draws.below(self.expected.steps), 1 + draws.below(3));
        let still = if self.setting.kills < 10 { SHORT_MS } else { STILL_MS };
        let at = format!("rank={rank},at=save,step={step},nth={nth}");
        let faults = match draws.below(3) {
            0 => format!("{at},do=slow,ms={still}"),
            1 => format!("{at},do=enospc"),
            _ => String::new(),
        };
        Run::new(self.setting, &self.folder()).with_faults(faults).start()
    }

    /// Sees a run to its end, and compares it.
    fn finish(&mut self, running: Running) -> Result<(), String> {
        expect(&running.end()?, 0, "")?;
        self.compare()
    }

    /// Compares a run that has come to its end.
    fn compare(&mut self) -> Result<(), String> {
        self.expected.check(&self.folder())?;
        let _ = fs::remove_dir_all(self.folder());
        self.number += 1;
        Ok(())
    }
}
