//! Faults of what is around a run: its streams, its parent, its folders, its neighbors.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tessera_control::{RunStatus, allowed_cores};

use super::catalogue::expect;
use super::disturb::Run;
use super::network::Network;
use super::{Setting, Undisturbed};

/// What is not as usual.
#[derive(Clone, Copy)]
pub(super) enum Surroundings {
    /// At the start streams 0, 1 and 2 are closed, and SIGCHLD is ignored, which a program inherits.
    BareStart,
    /// Whoever reads stdout and stderr has gone.
    NoReader,
    /// The run folder is a link that leads nowhere.
    LinkToNowhere,
    /// The run folder is removed while the run goes on.
    FolderGone,
    /// The folder for temporary files is a file.
    NoTemporary,
    /// Another program keeps all cores busy.
    BusyNeighbor,
    /// The network between workers and launcher forgets their connections.
    BrokenNetwork,
}

impl Surroundings {
    /// Disturbs a run in `folder`; what was seen, or what was not as promised.
    pub(super) fn disturb(
        self,
        setting: &Setting<'_>,
        expected: &Undisturbed,
        folder: &Path,
    ) -> Result<String, String> {
        let run = || Run::new(setting, folder);
        let error = |error: std::io::Error| error.to_string();
        let as_undisturbed = |run: Run<'_>| {
            expect(&run.to_end()?, 0, "")?;
            expected.check(folder)
        };
        match self {
            Self::BareStart => {
                let line = "trap '' CHLD; exec \"$@\" <&- >&- 2>&-";
                as_undisturbed(run().through(line))?;
            }
            Self::NoReader => as_undisturbed(run().unread())?,
            Self::BusyNeighbor => {
                let _busy = Busy::on_all_cores().map_err(error)?;
                as_undisturbed(run())?;
            }
            Self::BrokenNetwork => {
                let (target, script) =
                    (folder.with_extension("launcher"), folder.with_extension("worker"));
                let network = Network::to(target.clone()).map_err(error)?;
                let worker = tessera_launch::find_worker().map_err(|error| error.to_string())?;
                network.lead(&script, &worker).map_err(error)?;
                let mut running = run().with_worker(script.clone()).start()?;
                for step in [1, expected.steps / 2] {
                    running.wait_for_step(step)?;
                    network.cut();
                }
                let ended = running.end()?;
                expect(&ended, 0, "")?;
                let back = ended.stderr.lines().filter(|line| line.contains(" is back")).count();
                if back < setting.nproc {
                    return Err(format!("{back} of {} workers came back", setting.nproc));
                }
                for file in [target, script] {
                    fs::remove_file(file).map_err(error)?;
                }
                expected.check(folder)?;
                return Ok(format!("workers came back {back} times, and ended undisturbed"));
            }
            Self::LinkToNowhere => {
                let target = folder.with_extension("target");
                symlink(&target, folder).map_err(error)?;
                let ended = run().to_end()?;
                expect(&ended, 2, "is a link to ")?;
                fs::remove_file(folder).map_err(error)?;
                if target.exists() {
                    return Err("the folder was made".to_owned());
                }
                return Ok(ended.last_line());
            }
            Self::FolderGone => {
                let mut running = run().start()?;
                running.wait_for_step(1)?;
                // What the run writes meanwhile may keep a folder from being empty.
                while fs::remove_dir_all(folder).is_err() && folder.exists() {}
                let ended = running.end()?;
                if ended.code != Some(1) || ended.errors() != 1 {
                    return Err(format!("ended with {:?}: {}", ended.code, ended.last_line()));
                }
                return Ok(ended.last_line());
            }
            Self::NoTemporary => {
                let file = folder.with_extension("file");
                fs::write(&file, "").map_err(error)?;
                let ended = run().with_temporary(file.clone()).to_end()?;
                let _ = fs::remove_file(file);
                if ended.code == Some(0) {
                    expected.check(folder)?; // this mpirun makes no use of it
                    return Ok("not used".to_owned());
                }
                expect(&ended, 2, "set TMPDIR")?;
                if RunStatus::read(folder).is_ok_and(|status| status.is_some()) {
                    return Err("a run that was not started has a status".to_owned());
                }
                return Ok(ended.last_line());
            }
        }
        Ok("ended like the undisturbed run".to_owned())
    }
}

/// Programs that compute without end, until they are dropped.
struct Busy(Vec<Child>);

impl Busy {
    fn on_all_cores() -> std::io::Result<Self> {
        let mut busy = Self(Vec::new());
        for _ in allowed_cores() {
            let mut shell = Command::new("sh");
            shell.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
            busy.0.push(shell.spawn()?);
        }
        Ok(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
