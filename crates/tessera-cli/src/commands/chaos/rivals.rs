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
    /// A second launcher while it lives: refused by the holder's name.
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
    let (mut refused, mut killed, mut ended) = (0u64, 0u64, 0u64);
    let mut fight = Fight { setting, expected, folder: folder.to_owned(), number: 0 };
    let mut running = fight.start(draws)?;
    for _ in 0..setting.kills.max(1) {
        let ahead = 1 + draws.below((expected.steps / 3).max(1));
        let step = running.last_step() + ahead;
        running.wait_for_step(step.min(expected.steps))?;
        if running.has_ended()? {
            fight.finish(running)?;
            ended += 1;
            running = fight.start(draws)?;
            running.wait_for_step(1)?;
        }
        match [Event::Rival, Event::Killed, Event::Race][draws.below(3) as usize] {
            Event::Rival => refused += fight.rival(&mut running)?,
            Event::Killed => {
                running.signal(Signal::KILL);
                running.end()?;
                killed += 1;
                running = fight.start(draws)?;
            }
            Event::Race => {
                running.signal(Signal::KILL);
                running.end()?;
                killed += 1;
                let (winner, lost) = fight.race(draws)?;
                refused += lost;
                running = winner;
            }
        }
    }
    fight.finish(running)?;
    Ok(format!(
        "{killed} launchers killed, {refused} refused, {} runs ended like the undisturbed one",
        ended + 1
    ))
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

    /// A second launcher: refused, unless the first one has ended meanwhile.
    fn rival(&self, running: &mut Running) -> Result<u64, String> {
        let rival = Run::new(self.setting, &self.folder()).start()?.end_alone()?;
        match rival.code {
            Some(2) => expect(&rival, 2, "is in use by process ").map(|()| 1),
            Some(0) if running.has_ended()? => Ok(0),
            code => Err(format!("the rival ended with {code:?}: {}", rival.last_line())),
        }
    }

    /// Two launchers at once: the one that has the folder, and how many were refused.
    fn race(&self, draws: &mut Draws) -> Result<(Running, u64), String> {
        let (mut first, mut second) = (self.start(draws)?, self.start(draws)?);
        loop {
            if first.has_ended()? {
                std::mem::swap(&mut first, &mut second);
            }
            if second.has_ended()? {
                let loser = second.end_alone()?;
                return match loser.code {
                    Some(2) => expect(&loser, 2, "is in use by process ").map(|()| (first, 1)),
                    // It had won, and was done before the other one came.
                    Some(0) => Ok((first, 0)),
                    code => Err(format!("one of two ended with {code:?}: {}", loser.last_line())),
                };
            }
            first.pause()?;
        }
    }

    /// Sees a run to its end, and compares it.
    fn finish(&mut self, running: Running) -> Result<(), String> {
        let ended = running.end()?;
        expect(&ended, 0, "")?;
        self.expected.check(&self.folder())?;
        let _ = fs::remove_dir_all(self.folder());
        self.number += 1;
        Ok(())
    }
}
