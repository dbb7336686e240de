//! Rank 0's extra duty, and what all ranks have to agree on before and around the steps.
//!
//! The coordinator is a role, not a process: it fixes which data set, configuration and program
//! the run is about, says from which checkpoint it goes on, and makes a checkpoint visible after
//! every rank has written its part. Each decision is one that all ranks hear at the same place.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tessera_checkpoint::{CheckpointError, Manifest, Storage, Verified};
use tessera_comm::{Communicator, broadcast_bytes};
use tessera_control::Attempt;
use xxhash_rust::xxh3::Xxh3;

use crate::config::TrainConfig;
use crate::engine::agreement::{agree, agree_on};
use crate::engine::checkpoint;
use crate::engine::run_folder::{Resume, Tenure};
use crate::engine::settings::{self, Settings};
use crate::error::TrainError;

/// Compares configuration, program, data and the environment's settings over ranks.
///
/// # Errors
///
/// [`TrainError::BadInput`] that names the first rank that differs from rank 0, and in what.
pub(crate) fn agree_on_run(
    comm: &dyn Communicator,
    config: &TrainConfig,
    data_fingerprint: &str,
) -> Result<(), TrainError> {
    let mine = [
        ("configuration", config.hash()),
        ("tessera-worker program", program_hash()),
        ("data set", data_fingerprint.to_owned()),
    ];
    let all =
        agree(comm, Ok(serde_json::to_vec(&mine.clone().map(|(_, hash)| hash)).expect("plain")))?;
    let parse = |bytes: &[u8]| -> [String; 3] {
        serde_json::from_slice(bytes).expect("every rank sends three hashes")
    };
    let first = parse(&all[0]);
    for (rank, bytes) in all.iter().enumerate() {
        for ((what, _), (theirs, root)) in mine.iter().zip(parse(bytes).iter().zip(&first)) {
            if theirs != root {
                return Err(TrainError::BadInput(format!(
                    "rank {rank} has another {what} than rank 0: give all hosts the same"
                )));
            }
        }
    }
    agree_on_settings(comm)
}

fn agree_on_settings(comm: &dyn Communicator) -> Result<(), TrainError> {
    let mine = serde_json::to_vec(&settings::own()).expect("plain data");
    let all = agree(comm, Ok(mine))?;
    let parse = |bytes: &[u8]| -> Settings {
        serde_json::from_slice(bytes).expect("every rank sends its settings")
    };
    let first = parse(&all[0]);
    for (rank, bytes) in all.iter().enumerate() {
        if let Some(name) = settings::first_difference(&first, &parse(bytes)) {
            return Err(TrainError::BadInput(format!(
                "rank {rank} has another {name} in its environment than rank 0: give all hosts the same, \
                 as `tessera launch` does with that of its own"
            )));
        }
    }
    Ok(())
}

/// Hash of the running program; empty where the system does not show it.
fn program_hash() -> String {
    let Ok(mut program) = std::fs::File::open("/proc/self/exe") else { return String::new() };
    let mut hash = Xxh3::new();
    let mut block = vec![0u8; 1 << 20];
    loop {
        match std::io::Read::read(&mut program, &mut block) {
            Ok(0) => return format!("{:016x}", hash.digest()),
            Ok(len) => hash.update(&block[..len]),
            Err(_) => return String::new(),
        }
    }
}

/// The checkpoint that the run goes on from, the same on every rank, and rank 0's words about it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Choice {
    #[serde(with = "tessera_control::path_json::option")]
    pub(crate) path: Option<PathBuf>,
    pub(crate) notices: Vec<String>,
}

/// Rank 0 looks for the checkpoint to go on from, checks every byte of it, and moves aside what is past it; all
/// ranks hear its choice.
///
/// # Errors
///
/// [`TrainError::BadInput`] if the checkpoint asked for is damaged, or is about another run, or all there are
/// are damaged; [`TrainError::Checkpoint`] if one cannot be read now.
pub(crate) fn choose_checkpoint(
    comm: &dyn Communicator,
    tenure: &Tenure,
    resume: &Resume,
    config: &TrainConfig,
    data_fingerprint: &str,
) -> Result<Choice, TrainError> {
    let checkpoints = tenure.folder.checkpoints();
    let choice = match comm.rank() {
        0 => look_for_checkpoint(&checkpoints, resume, Some(&tenure.attempt), How::Whole)
            .and_then(|(choice, manifest)| {
                let Some(manifest) = manifest else { return Ok((choice, 0)) };
                checkpoint::check_resumable(&manifest, config, data_fingerprint)?;
                Ok((choice, manifest.step))
            })
            .and_then(|(choice, step)| clear_after(tenure, step).map(|()| choice)),
        _ => Ok(Choice { path: None, notices: Vec::new() }),
    };
    let choice = agree_on(comm, choice)?;
    let bytes =
        broadcast_bytes(comm, &serde_json::to_vec(&choice).expect("a choice is plain data"))?;
    Ok(serde_json::from_slice(&bytes).expect("rank 0 sends a choice"))
}

/// Sees to it that the run's own saves meet nothing of another way that it took before.
fn clear_after(tenure: &Tenure, step: u64) -> Result<(), TrainError> {
    let (storage, checkpoints) = (tenure.guard(Storage::new()), tenure.folder.checkpoints());
    tessera_checkpoint::remove_partials(&storage, &checkpoints)?;
    Ok(tessera_checkpoint::supersede_after(&storage, &checkpoints, step)?)
}

/// Refuses a run that could not go on from where it would; changes nothing, and reads no file but manifests.
///
/// # Errors
///
/// As [`choose_checkpoint`], as far as manifests tell.
pub(crate) fn check_resumable(
    checkpoints: &Path,
    resume: &Resume,
    config: &TrainConfig,
    data_fingerprint: &str,
) -> Result<Begins, TrainError> {
    let attempt = Attempt::from_env().map_err(TrainError::BadInput)?;
    match look_for_checkpoint(checkpoints, resume, attempt.as_ref(), How::Manifest)? {
        (_, Some(manifest)) => {
            checkpoint::check_resumable(&manifest, config, data_fingerprint)?;
            Ok(Begins::Resumed)
        }
        (_, None) => Ok(Begins::Anew),
    }
}

/// How a run would begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begins {
    /// From step 0.
    Anew,
    /// From a checkpoint.
    Resumed,
}

/// How much of a checkpoint is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Its manifest alone.
    Manifest,
    /// Every byte.
    Whole,
}

impl How {
    fn verify(self, path: &Path) -> Result<Manifest, CheckpointError> {
        match self {
            Self::Manifest => Manifest::read(path),
            Self::Whole => tessera_checkpoint::verify(path),
        }
    }

    fn newest_good(
        self,
        checkpoints: &Path,
        wanted: impl Fn(&Manifest) -> bool,
    ) -> Result<(Option<Verified>, Vec<CheckpointError>), CheckpointError> {
        match self {
            Self::Manifest => tessera_checkpoint::newest(checkpoints, wanted),
            Self::Whole => tessera_checkpoint::newest_good(checkpoints, wanted),
        }
    }
}

/// The checkpoint that a run goes on from. What a launch was asked for holds until it has saved a checkpoint of
/// its own: workers that it starts again (`attempt`) go on from that.
fn look_for_checkpoint(
    checkpoints: &Path,
    resume: &Resume,
    attempt: Option<&Attempt>,
    how: How,
) -> Result<(Choice, Option<Manifest>), TrainError> {
    if let Some(attempt) = attempt.filter(|attempt| attempt.number() > 0)
        && *resume != Resume::Auto
    {
        let is_own = |manifest: &Manifest| {
            let theirs = manifest.attempt.as_deref().and_then(|theirs| theirs.parse().ok());
            theirs.is_some_and(|theirs: Attempt| theirs.is_of_same_launch(attempt))
        };
        let (found, refused) = how.newest_good(checkpoints, is_own)?;
        if let Some(found) = found {
            return Ok(chosen(found, &refused, "of this launch"));
        }
    }
    match resume {
        Resume::Never => Ok((Choice { path: None, notices: Vec::new() }, None)),
        Resume::From(path) => {
            let (found, mut notices) = named(path, "--resume", how)?;
            notices.push(match found.path == *path {
                true => format!("resuming from {} as asked", path.display()),
                false => format!(
                    "resuming from step {}, the newest good checkpoint of {}, as asked",
                    found.manifest.step,
                    path.display()
                ),
            });
            Ok((Choice { path: Some(found.path), notices }, Some(found.manifest)))
        }
        Resume::Auto => {
            let (found, refused) = how.newest_good(checkpoints, |_| true)?;
            match (found, refused.as_slice()) {
                (Some(found), _) => Ok(chosen(found, &refused, "")),
                (None, []) => Ok((Choice { path: None, notices: Vec::new() }, None)),
                // From the start would be the loss of all that was trained.
                (None, [first, ..]) => Err(TrainError::AllDamaged(format!(
                    "none of the {} checkpoints in {} is good ({first}): to train from the start, move them \
                     away or choose another --run-dir",
                    refused.len(),
                    checkpoints.display()
                ))),
            }
        }
    }
}

/// A checkpoint that was found, and what is said of it and of newer ones.
fn chosen(found: Verified, refused: &[CheckpointError], whose: &str) -> (Choice, Option<Manifest>) {
    let mut notices: Vec<String> =
        refused.iter().map(|error| format!("checkpoint skipped: {error}")).collect();
    let why = if refused.is_empty() { "the newest" } else { "the newest good" };
    let whose = if whose.is_empty() { String::new() } else { format!(" {whose}") };
    notices.push(format!("resuming from step {}, {why} checkpoint{whose}", found.manifest.step));
    (Choice { path: Some(found.path), notices }, Some(found.manifest))
}

/// The folder of checkpoints, where `path` is that or a run folder, and no checkpoint itself.
fn checkpoints_of_run(path: &Path) -> Option<PathBuf> {
    let inner = path.join("checkpoints");
    if path.join("manifest.json").exists() {
        return None;
    }
    if inner.is_dir() || path.join("config.toml").is_file() {
        return Some(inner);
    }
    let is_named = path.file_name().is_some_and(|name| name == "checkpoints") && path.is_dir();
    let holds_some = || tessera_checkpoint::list(path).is_ok_and(|all| !all.is_empty());
    (is_named || holds_some()).then(|| path.to_owned())
}

/// The checkpoint that `key` names, by its own folder or by that of its run, of which it is the newest good one; and
/// what is said of newer ones.
pub(crate) fn named(
    path: &Path,
    key: &str,
    how: How,
) -> Result<(Verified, Vec<String>), TrainError> {
    if std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return Err(TrainError::BadInput(format!(
            "{key} {} is not there: name a run folder, or the folder of a checkpoint",
            path.display()
        )));
    }
    let Some(checkpoints) = checkpoints_of_run(path) else {
        let manifest = how.verify(path)?;
        return Ok((Verified { path: path.to_owned(), manifest }, Vec::new()));
    };
    let (found, refused) = how.newest_good(&checkpoints, |_| true)?;
    let Some(found) = found else {
        let why = refused.first().map_or(String::new(), |error| format!(" ({error})"));
        return Err(TrainError::BadInput(format!(
            "{key} {} names a run without a good checkpoint{why}: name another one",
            path.display()
        )));
    };
    let skipped = refused.iter().map(|error| format!("checkpoint skipped: {error}")).collect();
    Ok((found, skipped))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_checkpoint::{BestMetric, Dtype, HostTensor, Retention, Save};
    use tessera_control::ExitCode;

    const OURS: &str = "9f3a07c2b1d4";

    /// A checkpoint with one number, by the first workers of a launch.
    fn save_by(launch: &str, checkpoints: &Path, step: u64) -> PathBuf {
        let storage = Storage::new();
        let save = Save { step, attempt: format!("{launch}-0"), number: 1 };
        let tensor = HostTensor { dtype: Dtype::F32, shape: vec![1], bytes: &[0; 4] };
        let tensors = vec![("a", tensor)];
        tessera_checkpoint::write_part(&storage, checkpoints, &save, (0, 1), tensors).unwrap();
        let draft = checkpoint::draft(step, 1, &TrainConfig::default(), "data");
        let all = Retention { last: 9, every: 0, best: 0, metric: BestMetric::Mse };
        tessera_checkpoint::commit(&storage, checkpoints, &save, 1, draft, &all).unwrap().path
    }

    fn save(checkpoints: &Path, step: u64) -> PathBuf {
        save_by("000000000000", checkpoints, step)
    }

    /// What is chosen, and its step.
    fn choose(
        checkpoints: &Path,
        resume: &Resume,
        attempt: Option<&Attempt>,
    ) -> Result<(Choice, u64), TrainError> {
        let (choice, manifest) = look_for_checkpoint(checkpoints, resume, attempt, How::Whole)?;
        // Manifests alone say the same of what is whole.
        if choice.notices.len() < 2 {
            let quick = look_for_checkpoint(checkpoints, resume, attempt, How::Manifest)?;
            assert_eq!(quick.0.path, choice.path);
        }
        Ok((choice, manifest.map_or(0, |manifest| manifest.step)))
    }

    /// Workers that are started again go on from what they were asked to go on from, until there is a
    /// checkpoint of their own launch, whatever else lies in the folder.
    #[test]
    fn what_a_launch_was_asked_to_resume_holds_until_it_has_saved() {
        let folder = tempfile::tempdir().unwrap();
        let (there, here) = (folder.path().join("there"), folder.path().join("here"));
        std::fs::create_dir_all(&here).unwrap();
        let asked = save(&there, 60);
        let attempt = |number: u32| format!("{OURS}-{number}").parse::<Attempt>().unwrap();
        let from = Resume::From(asked);
        let step =
            |resume: &Resume, number| choose(&here, resume, Some(&attempt(number))).unwrap().1;
        assert_eq!((step(&from, 0), step(&from, 1)), (60, 60), "nothing was saved yet");
        save_by("000000000001", &here, 90);
        assert_eq!((step(&from, 1), step(&Resume::Never, 1)), (60, 0), "another launch's");
        save_by(OURS, &here, 70);
        assert_eq!((step(&from, 1), step(&Resume::Never, 1)), (70, 70));
        assert_eq!(step(&from, 0), 60, "asked anew");
        assert_eq!(step(&Resume::Auto, 1), 90);
    }

    #[test]
    fn where_all_checkpoints_are_damaged_nothing_starts_from_step_0() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(choose(folder.path(), &Resume::Auto, None).unwrap().1, 0);
        assert_eq!(choose(&folder.path().join("none"), &Resume::Auto, None).unwrap().1, 0);
        for step in [3, 12] {
            std::fs::write(save(folder.path(), step).join("manifest.json"), "{}").unwrap();
        }
        let error = choose(folder.path(), &Resume::Auto, None).unwrap_err();
        assert_eq!(error.code(), ExitCode::DataCorrupt);
        let told = error.to_string();
        assert!(told.starts_with("none of the 2 checkpoints in "), "{told}");
        assert!(told.contains("step-00000012 is no good checkpoint: manifest.json: "), "{told}");
        assert!(told.ends_with("move them away or choose another --run-dir"), "{told}");
    }

    #[test]
    fn resume_takes_a_checkpoint_or_the_newest_good_one_of_a_run_folder() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = folder.path().join("checkpoints");
        let ask = |path: &Path| {
            let resume = Resume::From(path.to_owned());
            choose(Path::new("elsewhere"), &resume, None)
        };
        let refused = |path: &Path| ask(path).unwrap_err().to_string();
        std::fs::create_dir(&checkpoints).unwrap();
        for path in [folder.path(), &checkpoints] {
            let told = refused(path);
            assert!(told.contains("names a run without a good checkpoint: name another"), "{told}");
        }
        let (older, newer) = (save(&checkpoints, 3), save(&checkpoints, 12));
        for (path, step) in [(folder.path(), 12), (&checkpoints, 12), (&older, 3), (&newer, 12)] {
            let (choice, found) = ask(path).unwrap();
            assert_eq!(found, step, "{}", path.display());
            assert!(choice.path.unwrap().ends_with(format!("step-{step:08}")));
        }
        // Damaged: skipped where a run was named, refused where it was named itself.
        std::fs::write(newer.join("manifest.json"), "{}").unwrap();
        let (choice, found) = ask(folder.path()).unwrap();
        assert_eq!(found, 3);
        assert!(choice.notices[0].contains("checkpoint skipped: "), "{:?}", choice.notices);
        assert!(choice.notices[1].contains("step 3, the newest good checkpoint of"));
        assert!(refused(&newer).contains("damaged"), "{}", refused(&newer));
        std::fs::write(older.join("manifest.json"), "{}").unwrap();
        assert!(refused(folder.path()).contains("without a good checkpoint ("));
        // Neither a run nor a checkpoint.
        let told = refused(&folder.path().join("nowhere"));
        assert!(told.starts_with("--resume ") && told.contains(" is not there: name"), "{told}");
    }
}
