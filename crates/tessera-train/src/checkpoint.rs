//! Checkpoints: safetensors files and a manifest with a hash of each.
//!
//! `checkpoints/step-00000500/` holds `manifest.json`, its hash and the files listed. Tensors have
//! canonical names, logical shapes (`[out, in, h, w]`) and plain contiguous values, so any
//! number of ranks, and Python, can read them; whole tensors are spread over the files, one file
//! a rank. A checkpoint is written under a temporary name, synced, verified by rank 0 and then
//! renamed: a folder with a final name is complete. The format is in `docs/formats.md`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};
use tessera_comm::Communicator;

use crate::config::{TrainConfig, hex};
use crate::coordinator::{agree, agree_on};
use crate::error::TrainError;
use crate::metrics::replace_file::write_synced;
use crate::training::Training;

/// What `manifest.json` says of itself.
const FORMAT: &str = "tessera-checkpoint";
/// Version of the format that is written, and the only one that is read.
const VERSION: u32 = 1;

/// Keys that may change between a checkpoint and the run that goes on from it. `train.steps`
/// may too, where the schedule does not depend on it.
const MAY_CHANGE: [&str; 19] = [
    "checkpoint.every",
    "checkpoint.keep",
    "comm.backend",
    "comm.share_gpu",
    "comm.timeout_seconds",
    "data.on_corrupt",
    "data.path",
    "data.prefetch",
    "data.threads",
    "data.verify",
    "eval.batch",
    "eval.every",
    "metrics.every",
    "metrics.images_every",
    "train.device",
    "train.precision",
    "train.stop_at",
    "optimizer.clip_grad_norm",
    "optimizer.learning_rate",
];

/// `manifest.json` of a checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// Always `tessera-checkpoint`.
    pub format: String,
    /// Version of the format.
    pub version: u32,
    /// Optimiser steps done.
    pub step: u64,
    /// Position in the order of samples: samples trained on so far.
    pub samples_seen: u64,
    /// Ranks that wrote it.
    pub world_size: usize,
    /// Version of Tessera that wrote it.
    pub tessera: String,
    /// SHA-256 of the configuration.
    pub config_hash: String,
    /// The configuration.
    pub config: TrainConfig,
    /// Identity of the data set.
    pub data_fingerprint: String,
    /// The files that hold the tensors.
    pub files: Vec<FileEntry>,
}

/// A file of a checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FileEntry {
    /// Name in the checkpoint's folder.
    pub name: String,
    /// Length.
    pub bytes: u64,
    /// SHA-256 of its content, in hex.
    pub sha256: String,
    /// Names of the tensors in it.
    pub tensors: Vec<String>,
}

/// A checkpoint on disk whose hashes hold.
#[derive(Debug)]
pub struct Checkpoint {
    /// Its manifest.
    pub manifest: Manifest,
    contents: Vec<Vec<u8>>,
}

impl Manifest {
    /// A manifest that lists no files yet.
    pub fn draft(
        step: u64,
        world_size: usize,
        config: TrainConfig,
        data_fingerprint: String,
    ) -> Self {
        Self {
            format: FORMAT.into(),
            version: VERSION,
            step,
            samples_seen: step * config.train.global_batch,
            world_size,
            tessera: env!("CARGO_PKG_VERSION").into(),
            config_hash: config.hash(),
            config,
            data_fingerprint,
            files: Vec::new(),
        }
    }
}

/// A tensor's bytes on the host.
struct HostTensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl HostTensor {
    fn copy_of(tensor: &Tensor) -> Self {
        let dtype = match tensor.kind() {
            Kind::Float => Dtype::F32,
            Kind::Double => Dtype::F64,
            kind => unreachable!("no state is of kind {kind:?}"),
        };
        let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
        let mut bytes = vec![0; tensor.numel() * dtype.bitsize() / 8];
        tensor.copy_data_u8(&mut bytes, tensor.numel());
        let shape = tensor.size().into_iter().map(|size| size as usize).collect();
        Self { dtype, shape, bytes }
    }
}

impl View for HostTensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// All state of a training under canonical names, in a fixed order; writing to a tensor restores
/// it.
pub fn state(training: &Training) -> Vec<(String, Tensor)> {
    let mut all = Vec::new();
    let parameters = &training.model.parameters;
    for (name, tensor) in parameters.named_views(parameters.flat()) {
        all.push((name.to_owned(), tensor));
    }
    let moments = [
        ("optimizer.exp_avg", &training.optimizer.exp_avg),
        ("optimizer.exp_avg_sq", &training.optimizer.exp_avg_sq),
    ];
    for (prefix, flat) in moments {
        for (name, tensor) in parameters.named_views(flat) {
            all.push((format!("{prefix}.{name}"), tensor));
        }
    }
    all.extend(training.model.quantizer.state());
    for (name, tensor) in training.window.state() {
        all.push((name.to_owned(), tensor.shallow_clone()));
    }
    all
}

/// Deals tensors to `num_files` files, the largest first, each to the file with the fewest bytes.
fn deal(state: Vec<(String, Tensor)>, num_files: usize) -> Vec<Vec<(String, Tensor)>> {
    let mut state = state;
    state.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.numel()));
    let mut files: Vec<(usize, Vec<_>)> = (0..num_files).map(|_| (0, Vec::new())).collect();
    for (name, tensor) in state {
        let fewest = files.iter_mut().min_by_key(|(bytes, _)| *bytes).expect("a file at least");
        fewest.0 += tensor.numel() * tensor.kind().elt_size_in_bytes();
        fewest.1.push((name, tensor));
    }
    files.into_iter().map(|(_, tensors)| tensors).collect()
}

/// Writes a checkpoint: every rank its file, rank 0 the manifest. Collective.
///
/// `draft` is the manifest without its files. Older checkpoints than the newest `keep` are
/// removed once the new one is visible.
///
/// # Errors
///
/// [`TrainError::File`] on the rank that cannot write, [`TrainError::Peer`] on the others; what
/// was written of this checkpoint is removed, and older ones stay as they are.
pub fn save(
    comm: &dyn Communicator,
    checkpoints: &Path,
    training: &Training,
    mut draft: Manifest,
    keep: u64,
) -> Result<PathBuf, TrainError> {
    let name = format!("step-{:08}", draft.step);
    let partial = checkpoints.join(format!(".{name}.partial"));
    let is_root = comm.rank() == 0;
    let made = if is_root { make_empty(&partial) } else { Ok(()) };
    agree_on(comm, made)?;

    let written = write_part(&partial, training, comm.rank(), comm.world_size());
    let parts = agree(comm, written.map(|entry| serde_json::to_vec(&entry).expect("plain data")));
    let committed = parts.and_then(|parts| {
        let done = if is_root {
            draft.files =
                parts.iter().map(|part| serde_json::from_slice(part).expect("an entry")).collect();
            commit(checkpoints, &partial, &name, &draft, keep)
        } else {
            Ok(())
        };
        agree_on(comm, done)
    });
    if let Err(error) = committed {
        if is_root {
            let _ = fs::remove_dir_all(&partial);
        }
        return Err(error);
    }
    Ok(checkpoints.join(name))
}

fn make_empty(folder: &Path) -> Result<(), TrainError> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).map_err(TrainError::file("make the folder", folder))
}

fn write_part(
    partial: &Path,
    training: &Training,
    rank: usize,
    world_size: usize,
) -> Result<FileEntry, TrainError> {
    let mine = deal(state(training), world_size).swap_remove(rank);
    let name = format!("state-{:05}-of-{world_size:05}.safetensors", rank + 1);
    let tensors: BTreeMap<String, HostTensor> =
        mine.iter().map(|(name, tensor)| (name.clone(), HostTensor::copy_of(tensor))).collect();
    let names = tensors.keys().cloned().collect();
    let bytes = safetensors::serialize(tensors, None).expect("shapes are those of the bytes");
    let path = partial.join(&name);
    write_synced(&path, &bytes).map_err(TrainError::file("write", &path))?;
    Ok(FileEntry {
        name,
        bytes: bytes.len() as u64,
        sha256: hex(&Sha256::digest(&bytes)),
        tensors: names,
    })
}

fn sync_folder(folder: &Path) -> Result<(), TrainError> {
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(TrainError::file("sync", folder))
}

/// The content of `manifest.sha256`, as `sha256sum --check` reads it.
fn hash_line(manifest: &[u8]) -> String {
    format!("{}  manifest.json\n", hex(&Sha256::digest(manifest)))
}

/// Verifies what the ranks wrote and gives the checkpoint its name.
fn commit(
    checkpoints: &Path,
    partial: &Path,
    name: &str,
    manifest: &Manifest,
    keep: u64,
) -> Result<(), TrainError> {
    let json = serde_json::to_vec_pretty(manifest).expect("a manifest is plain data");
    for (file, bytes) in [("manifest.json", &json), ("manifest.sha256", &hash_line(&json).into())] {
        let path = partial.join(file);
        write_synced(&path, bytes).map_err(TrainError::file("write", &path))?;
    }
    Checkpoint::verify(partial)?;
    sync_folder(partial)?;
    let target = checkpoints.join(name);
    if target.exists() {
        // The same step was saved before, by a run that a resume has superseded.
        fs::remove_dir_all(&target).map_err(TrainError::file("replace", &target))?;
    }
    fs::rename(partial, &target).map_err(TrainError::file("rename", partial))?;
    sync_folder(checkpoints)?;
    let all = list(checkpoints)?;
    for (_, old) in &all[..all.len().saturating_sub(keep as usize)] {
        fs::remove_dir_all(old).map_err(TrainError::file("remove", old))?;
    }
    Ok(())
}

/// Step and folder of every checkpoint with a final name, oldest first.
///
/// # Errors
///
/// [`TrainError::File`] if the folder cannot be read.
pub fn list(checkpoints: &Path) -> Result<Vec<(u64, PathBuf)>, TrainError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(checkpoints).map_err(TrainError::file("read", checkpoints))? {
        let path = entry.map_err(TrainError::file("read", checkpoints))?.path();
        let step = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix("step-"))
            .and_then(|step| step.parse().ok());
        if let Some(step) = step {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Moves checkpoints of steps past `last_step` to `checkpoints/superseded/`: the run takes
/// another way from there.
pub(crate) fn supersede_after(checkpoints: &Path, last_step: u64) -> Result<(), TrainError> {
    let folder = checkpoints.join("superseded");
    for (step, path) in list(checkpoints)? {
        if step > last_step {
            let target = folder.join(path.file_name().expect("a listed path has a name"));
            fs::create_dir_all(&folder).map_err(TrainError::file("make the folder", &folder))?;
            let _ = fs::remove_dir_all(&target);
            fs::rename(&path, &target).map_err(TrainError::file("move", &path))?;
        }
    }
    Ok(())
}

/// Refuses a checkpoint of another run: other data, or a key that may not change.
pub(crate) fn check_resumable(
    manifest: &Manifest,
    config: &TrainConfig,
    data_fingerprint: &str,
) -> Result<(), TrainError> {
    if manifest.data_fingerprint != data_fingerprint {
        return Err(TrainError::BadInput(
            "the data set is not the one that the checkpoint was trained on: set data.path to \
             that, or choose another --run-dir"
                .into(),
        ));
    }
    let flat = |config: &TrainConfig| {
        let mut leaves = BTreeMap::new();
        let json = serde_json::to_value(config).expect("a configuration is plain data");
        flatten("", &json, &mut leaves);
        leaves
    };
    let (saved, now) = (flat(&manifest.config), flat(config));
    let constant = config.schedule.kind == crate::schedule::ScheduleKind::Constant;
    for (key, value) in &now {
        let may = MAY_CHANGE.contains(&key.as_str()) || (key == "train.steps" && constant);
        let was = saved.get(key).cloned().unwrap_or_default();
        if !may && was != *value {
            return Err(TrainError::BadInput(format!(
                "{key} is {value} but the checkpoint of step {} has {was}: set it back, or choose \
                 another --run-dir (docs/configuration.md lists the keys that may change)",
                manifest.step
            )));
        }
    }
    Ok(())
}

fn flatten(prefix: &str, value: &serde_json::Value, leaves: &mut BTreeMap<String, String>) {
    match value {
        serde_json::Value::Object(table) => {
            for (key, value) in table {
                let dot = if prefix.is_empty() { "" } else { "." };
                flatten(&format!("{prefix}{dot}{key}"), value, leaves);
            }
        }
        leaf => {
            leaves.insert(prefix.to_owned(), leaf.to_string());
        }
    }
}

impl Checkpoint {
    /// Reads a manifest; looks at no other file.
    ///
    /// # Errors
    ///
    /// [`TrainError::BadInput`] that says what is wrong with it.
    pub fn read_manifest(folder: &Path) -> Result<Manifest, TrainError> {
        let bad = |what: String| {
            TrainError::BadInput(format!("{} is no good checkpoint: {what}", folder.display()))
        };
        let bytes = fs::read(folder.join("manifest.json"))
            .map_err(|error| bad(format!("manifest.json: {error}")))?;
        if fs::read(folder.join("manifest.sha256")).ok() != Some(hash_line(&bytes).into_bytes()) {
            return Err(bad("manifest.json: not as manifest.sha256 has it, it is damaged".into()));
        }
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|error| bad(format!("manifest.json: {error}")))?;
        if manifest.format != FORMAT || manifest.version != VERSION {
            return Err(bad(format!(
                "format {} {} is not {FORMAT} {VERSION}",
                manifest.format, manifest.version
            )));
        }
        Ok(manifest)
    }

    /// Reads a checkpoint and checks the hash of each file.
    ///
    /// # Errors
    ///
    /// [`TrainError::BadInput`] that says what is wrong with it.
    pub fn verify(folder: &Path) -> Result<Self, TrainError> {
        let manifest = Self::read_manifest(folder)?;
        let mut contents = Vec::with_capacity(manifest.files.len());
        for entry in &manifest.files {
            let bad = |what: String| {
                TrainError::BadInput(format!(
                    "{} is no good checkpoint: {}: {what}",
                    folder.display(),
                    entry.name
                ))
            };
            if Path::new(&entry.name).file_name() != Some(entry.name.as_ref()) {
                return Err(bad("not a plain file name".into()));
            }
            let bytes =
                fs::read(folder.join(&entry.name)).map_err(|error| bad(error.to_string()))?;
            if hex(&Sha256::digest(&bytes)) != entry.sha256 {
                return Err(bad("its SHA-256 is not the manifest's, it is damaged".into()));
            }
            contents.push(bytes);
        }
        Ok(Self { manifest, contents })
    }

    /// Writes every tensor of the checkpoint into the training.
    ///
    /// # Errors
    ///
    /// [`TrainError::BadInput`] if a tensor is missing, or has another shape or kind.
    pub fn restore(&self, training: &Training) -> Result<(), TrainError> {
        let bad =
            |what: String| TrainError::BadInput(format!("the checkpoint cannot be used: {what}"));
        let mut files = Vec::with_capacity(self.contents.len());
        for bytes in &self.contents {
            files.push(SafeTensors::deserialize(bytes).map_err(|error| bad(error.to_string()))?);
        }
        for (name, mut tensor) in state(training) {
            let Some(view) = files.iter().find_map(|file| file.tensor(&name).ok()) else {
                return Err(bad(format!("it has no tensor {name}")));
            };
            let kind = match view.dtype() {
                Dtype::F32 => Kind::Float,
                Dtype::F64 => Kind::Double,
                other => return Err(bad(format!("{name} is of kind {other:?}"))),
            };
            let size: Vec<i64> = view.shape().iter().map(|&size| size as i64).collect();
            if kind != tensor.kind() || size != tensor.size() {
                return Err(bad(format!(
                    "{name} is {kind:?} {size:?}, the model wants {:?} {:?}",
                    tensor.kind(),
                    tensor.size()
                )));
            }
            tensor.copy_(&Tensor::from_data_size(view.data(), &size, kind));
        }
        training.model.parameters.refresh();
        Ok(())
    }
}

/// Gives every rank rank 0's parameters and codebook: the last word on what all start from.
/// Collective.
pub(crate) fn broadcast_state(
    comm: &dyn Communicator,
    training: &Training,
) -> Result<(), TrainError> {
    let parameters = training.model.parameters.flat();
    let _ = comm.broadcast(parameters.shallow_clone(), 0)?.wait()?;
    for (_, tensor) in training.model.quantizer.state() {
        let _ = comm.broadcast(tensor, 0)?.wait()?;
    }
    training.model.parameters.refresh();
    Ok(())
}
