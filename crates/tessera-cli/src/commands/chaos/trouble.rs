//! Storage that is full, or stands still, while a run goes on: nobody who decides waits for it.

use std::path::Path;
use std::process::Command;

use super::catalogue::{Draws, checkpoint_step, expect};
use super::disturb::Run;
use super::{Setting, Undisturbed};

/// What is the matter with the storage of the run folder.
#[derive(Clone, Copy)]
pub(super) enum Trouble {
    /// It takes nothing for a while: no row, no event, no checkpoint.
    Full,
    /// Rank 0's rows and a rank's checkpoint take seconds.
    StandsStill,
    /// It does not answer the launcher at all, and a worker dies.
    Deaf,
}

impl Trouble {
    /// Disturbs a run in `folder`; what was seen, or what was not as promised.
    pub(super) fn disturb(
        self,
        setting: &Setting<'_>,
        expected: &Undisturbed,
        folder: &Path,
        draws: &mut Draws,
    ) -> Result<String, String> {
        let rank = draws.below(setting.nproc as u64);
        let first = checkpoint_step(&expected.last, 0)?;
        let nth = 1 + draws.below(8);
        match self {
            Self::Full => {
                let deed = draws.of(&["enospc", "short", "eio"]);
                let faults = format!(
                    "rank=0,at=append,nth={nth},times=3,do={deed};\
                     rank={rank},at=write,step={first},nth=1,do={deed}"
                );
                let ended = Run::new(setting, folder).with_faults(faults.clone()).to_end()?;
                expect(&ended, 0, "are kept and tried again")?;
                expected.check(folder)?;
                Ok(format!("{faults}: ended like the undisturbed run"))
            }
            Self::StandsStill => {
                let faults = format!(
                    "rank=0,at=append,nth={nth},times=1,do=slow,ms=3000;\
                     rank={rank},at=write,step={first},nth=1,do=slow,ms=3000"
                );
                let ended = Run::new(setting, folder).with_faults(faults.clone()).to_end()?;
                expect(&ended, 0, "")?;
                expected.check(folder)?;
                Ok(format!("{faults}: ended like the undisturbed run"))
            }
            Self::Deaf => deaf(setting, expected, folder, rank),
        }
    }
}

/// A pipe that nobody reads stands under the name of the launcher's next temporary file: whoever opens it for
/// writing waits for ever.
fn deaf(
    setting: &Setting<'_>,
    expected: &Undisturbed,
    folder: &Path,
    rank: u64,
) -> Result<String, String> {
    // Slow enough that the launcher meets the pipe before the worker dies.
    let (last, ms) = (expected.steps - 1, 4000 / expected.steps + 1);
    let slow = format!("rank={rank},step=0,at=data,do=slow,ms={ms}");
    let faults = format!("{slow};rank={rank},step={last},at=reduce,do=kill");
    let mut running = Run::new(setting, folder).with_faults(faults).start()?;
    running.wait_for_step(1)?;
    let pipe = folder.join(format!(".workers.json.{}.tmp", running.id()));
    // The name is taken while the launcher writes a file under it.
    while !Command::new("mkfifo").arg(&pipe).output().is_ok_and(|made| made.status.success()) {
        running.pause()?;
    }
    let ended = running.end();
    let _ = std::fs::remove_file(&pipe);
    let ended = ended?;
    expect(&ended, 3, &format!("worker lost: rank {rank} on host"))?;
    expect(&ended, 3, "has not answered for")?;
    expect(&Run::new(setting, folder).to_end()?, 0, "")?;
    expected.check(folder)?;
    Ok(ended.last_line())
}
