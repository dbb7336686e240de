//! Rank 0's extra duty, and what all ranks have to agree on before and around the steps.
//!
//! The coordinator is a role, not a process: it fixes which data set, configuration and program
//! the run is about, says from which checkpoint it goes on, and makes a checkpoint visible after
//! every rank has written its part. Each decision is one that all ranks hear at the same place.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tessera_checkpoint::{Checkpoint, Manifest, Storage};
use tessera_comm::{Communicator, all_gather_bytes, broadcast_bytes};
use tessera_control::ExitCode;
use xxhash_rust::xxh3::Xxh3;

use crate::checkpoint;
use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::run_folder::Resume;
use crate::settings::{self, Settings};

/// What a rank reports when ranks agree on whether all of them succeeded.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Ok(Vec<u8>),
    Failed { code: ExitCode, message: String },
}

/// Exchanges `mine` over all ranks: everybody's bytes, or an error on every rank if one failed.
///
/// # Errors
///
/// The rank's own error, or [`TrainError::Peer`] with that of the first rank that failed.
pub(crate) fn agree(
    comm: &dyn Communicator,
    mine: Result<Vec<u8>, TrainError>,
) -> Result<Vec<Vec<u8>>, TrainError> {
    let report = match &mine {
        Ok(bytes) => Report::Ok(bytes.clone()),
        Err(error) => Report::Failed { code: error.code(), message: error.to_string() },
    };
    let reports =
        all_gather_bytes(comm, &serde_json::to_vec(&report).expect("a report is plain data"))?;
    mine?;
    let mut all = Vec::with_capacity(reports.len());
    for (rank, report) in reports.iter().enumerate() {
        match serde_json::from_slice(report).expect("every rank sends a report") {
            Report::Ok(bytes) => all.push(bytes),
            Report::Failed { code, message } => {
                return Err(TrainError::Peer { rank, code, message });
            }
        }
    }
    Ok(all)
}

/// Lets all ranks know whether each of them could do its part: the rank's own value, or an error
/// on every rank if one failed. Collective.
///
/// # Errors
///
/// The rank's own error, or [`TrainError::Peer`] with that of the first rank that failed.
pub fn agree_on<T>(comm: &dyn Communicator, mine: Result<T, TrainError>) -> Result<T, TrainError> {
    match mine {
        Ok(value) => agree(comm, Ok(Vec::new())).map(|_| value),
        Err(error) => Err(agree(comm, Err(error)).expect_err("this rank failed")),
    }
}

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

/// Rank 0 looks for the checkpoint to go on from; all ranks hear its choice.
///
/// # Errors
///
/// [`TrainError::BadInput`] if the checkpoint asked for is damaged, or is about another run.
pub(crate) fn choose_checkpoint(
    comm: &dyn Communicator,
    checkpoints: &Path,
    resume: &Resume,
    config: &TrainConfig,
    data_fingerprint: &str,
) -> Result<Choice, TrainError> {
    let choice = match comm.rank() {
        0 => resumable_checkpoint(checkpoints, resume, config, data_fingerprint)
            .and_then(|(choice, step)| clear_after(checkpoints, step).map(|()| choice)),
        _ => Ok(Choice { path: None, notices: Vec::new() }),
    };
    let choice = agree_on(comm, choice)?;
    let bytes =
        broadcast_bytes(comm, &serde_json::to_vec(&choice).expect("a choice is plain data"))?;
    Ok(serde_json::from_slice(&bytes).expect("rank 0 sends a choice"))
}

/// Sees to it that the run's own saves meet nothing of another way that it took before.
fn clear_after(checkpoints: &Path, step: u64) -> Result<(), TrainError> {
    let storage = Storage::new();
    tessera_checkpoint::remove_partials(&storage, checkpoints)?;
    Ok(tessera_checkpoint::supersede_after(&storage, checkpoints, step)?)
}

/// The checkpoint to go on from, and its step, 0 without one; changes nothing.
///
/// # Errors
///
/// [`TrainError::BadInput`] if the checkpoint asked for is damaged, or is about another run.
pub(crate) fn resumable_checkpoint(
    checkpoints: &Path,
    resume: &Resume,
    config: &TrainConfig,
    data_fingerprint: &str,
) -> Result<(Choice, u64), TrainError> {
    let choice = look_for_checkpoint(checkpoints, resume)?;
    let Some(path) = &choice.path else { return Ok((choice, 0)) };
    let manifest = Manifest::read(path)?;
    checkpoint::check_resumable(&manifest, config, data_fingerprint)?;
    Ok((choice, manifest.step))
}

fn look_for_checkpoint(checkpoints: &Path, resume: &Resume) -> Result<Choice, TrainError> {
    let mut notices = Vec::new();
    match resume {
        Resume::Never => {}
        Resume::From(path) => {
            if let Some(checkpoints) = checkpoints_of_run(path) {
                return newest_of_run(path, &checkpoints);
            }
            Checkpoint::verify(path)?;
            notices.push(format!("resuming from {} as asked", path.display()));
            return Ok(Choice { path: Some(path.clone()), notices });
        }
        Resume::Auto => {
            let (found, refused) = tessera_checkpoint::newest_good(checkpoints)?;
            notices.extend(refused.iter().map(|error| format!("checkpoint skipped: {error}")));
            if let Some(Checkpoint { path, manifest, .. }) = found {
                let why = if notices.is_empty() { "the newest" } else { "the newest good" };
                let step = manifest.step;
                notices.push(format!("resuming from step {step}, {why} checkpoint"));
                return Ok(Choice { path: Some(path), notices });
            }
            if !notices.is_empty() {
                notices.push("no good checkpoint is left: starting from step 0".into());
            }
        }
    }
    Ok(Choice { path: None, notices })
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

/// The newest good checkpoint of a run that was asked for by its folder.
fn newest_of_run(path: &Path, checkpoints: &Path) -> Result<Choice, TrainError> {
    let (found, refused) = tessera_checkpoint::newest_good(checkpoints)?;
    let Some(Checkpoint { path: checkpoint, manifest, .. }) = found else {
        let why = refused.first().map_or(String::new(), |error| format!(" ({error})"));
        return Err(TrainError::BadInput(format!(
            "--resume {} names a run without a good checkpoint{why}: name another one",
            path.display()
        )));
    };
    let mut notices: Vec<String> =
        refused.iter().map(|error| format!("checkpoint skipped: {error}")).collect();
    notices.push(format!(
        "resuming from step {}, the newest good checkpoint of {}, as asked",
        manifest.step,
        path.display()
    ));
    Ok(Choice { path: Some(checkpoint), notices })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_checkpoint::{BestMetric, Dtype, HostTensor, Retention};

    /// A checkpoint with one number.
    fn save(checkpoints: &Path, step: u64) -> PathBuf {
        let storage = Storage::new();
        let partial = tessera_checkpoint::partial_folder(checkpoints, step);
        let tensor = HostTensor { dtype: Dtype::F32, shape: vec![1], bytes: &[0; 4] };
        tessera_checkpoint::write_part(&storage, &partial, (0, 1), vec![("a", tensor)]).unwrap();
        let draft = checkpoint::draft(step, 1, &TrainConfig::default(), "data");
        let all = Retention { last: 9, every: 0, best: 0, metric: BestMetric::Mse };
        tessera_checkpoint::commit(&storage, checkpoints, draft, &all).unwrap().path
    }

    #[test]
    fn resume_takes_a_checkpoint_or_the_newest_good_one_of_a_run_folder() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = folder.path().join("checkpoints");
        let ask = |path: &Path| {
            let config = TrainConfig::default();
            let resume = Resume::From(path.to_owned());
            resumable_checkpoint(Path::new("elsewhere"), &resume, &config, "data")
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
        assert!(!told.contains("names a run"), "{told}");
    }
}
