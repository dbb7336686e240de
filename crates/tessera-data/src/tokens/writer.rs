//! Writing a token set, on any number of ranks.
//!
//! One rank begins ([`TokenSetWriter::begin`]), and when it has, the others join
//! ([`TokenSetWriter::join`]). Each shard is written whole by one rank, whichever that is. When all
//! have written theirs, the first one finishes: it counts codes, writes the manifest and gives the
//! folder its name. Nothing here communicates: who waits for whom is for the caller to say.
//!
//! The folder beside the target holds `progress.jsonl`, whose one line says what is made, and beside each
//! shard that is whole a note, `FILE.json`. An attempt that finds the folder of an equal plan goes on from it; the
//! set is the same.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::error::{DataError, one_line};
use crate::file;
use crate::manifest::{MANIFEST_FILE, ShardEntry};
use crate::store::Blob;
use crate::target::{self, PROGRESS_FILE, output_error, write_error};
use crate::tokens::content::TokenShard;
use crate::tokens::histograms::Histograms;
use crate::tokens::manifest::{TokenManifest, TokenSplit};
use crate::tokens::plan::{PlannedShard, PlannedSplit, TokenPlan};
use crate::tokens::shard::OpenShard;

/// A shard that is whole.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// None if all of its samples were left out.
    entry: Option<ShardEntry>,
    num_labels: u64,
    skipped: Vec<String>,
}

/// Writes the shards of a token set, and puts them together.
pub struct TokenSetWriter {
    target: PathBuf,
    /// Where the set is made.
    folder: PathBuf,
    plan: TokenPlan,
    /// Held by the rank that began; the system lets go of it however the process ends.
    _lock: Option<File>,
}

impl TokenSetWriter {
    /// Makes the folder, or takes up the one that was left of an equal plan: for one rank.
    ///
    /// # Errors
    ///
    /// [`DataError::Output`] if the target holds anything, another process is writing it, or what was
    /// left is of another plan; [`DataError::Write`].
    pub fn begin(target: &Path, plan: &TokenPlan) -> Result<Self, DataError> {
        target::check(target)?;
        let folder = target::partial_of(target);
        fs::create_dir_all(&folder).map_err(|source| write_error(&folder, source))?;
        let path = folder.join(PROGRESS_FILE);
        let opened = OpenOptions::new().create(true).append(true).open(&path);
        let lock = opened.map_err(|source| write_error(&path, source))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(output_error(target, "another process is writing it: wait for that one"));
        }
        match read_plan(&folder)?.as_str() {
            // Only what was written whole is believed.
            "" => {
                fs::write(&path, format!("{}\n", plan.identity()))
                    .map_err(|source| write_error(&path, source))?;
                lock.sync_all().map_err(|source| write_error(&path, source))?;
                file::sync_folder(&folder)?;
            }
            identity if identity == plan.identity() => {}
            _ => {
                let problem =
                    "it was left by another data set, tokeniser or other options: remove it";
                return Err(output_error(&folder, problem));
            }
        }
        Ok(Self { target: target.to_owned(), folder, plan: plan.clone(), _lock: Some(lock) })
    }

    /// Takes part in a set that another rank has begun.
    ///
    /// # Errors
    ///
    /// [`DataError::Output`] if none has begun one of this plan; [`DataError::Read`].
    pub fn join(target: &Path, plan: &TokenPlan) -> Result<Self, DataError> {
        let folder = target::partial_of(target);
        if read_plan(&folder)? != plan.identity() {
            let problem = "rank 0 has begun none of this plan there: give all ranks the same folder, \
                           on storage that all of them see";
            return Err(output_error(target, problem));
        }
        Ok(Self { target: target.to_owned(), folder, plan: plan.clone(), _lock: None })
    }

    /// Whether a shard is there whole, and need not be made again. Hashes it.
    ///
    /// # Errors
    ///
    /// [`DataError::Read`] if the system refuses.
    pub fn is_whole(&self, shard: &PlannedShard) -> Result<bool, DataError> {
        let Some(note) = self.note(shard)? else { return Ok(false) };
        let Some(entry) = note.entry else { return Ok(true) };
        let path = self.folder.join(&shard.file);
        Ok(path.is_file() && file::sha256_of_file(&path)? == entry.sha256)
    }

    /// Writes a shard.
    ///
    /// # Errors
    ///
    /// [`DataError::Tokens`] if the codes do not fit the plan; [`DataError::Write`].
    pub fn write(&self, shard: &PlannedShard, content: &TokenShard) -> Result<(), DataError> {
        let path = self.folder.join(&shard.file);
        let refused = |problem: String| DataError::Tokens {
            path: self.target.join(&shard.file),
            problem: one_line(&problem),
        };
        if let Some(id) = content.ids.iter().find(|id| !shard.samples.contains(id)) {
            let planned = &shard.samples;
            return Err(refused(format!("has sample {id}, which is none of {planned:?}")));
        }
        let groups = self.plan.splits()[shard.split].groups.as_deref();
        let bytes = content.to_bytes(self.plan.head(), groups).map_err(refused)?;
        let num_samples = content.ids.len() as u64;
        let entry = match num_samples {
            0 => None,
            _ => {
                let file::Written { bytes, sha256 } = file::write_synced(&path, &[&bytes])?;
                Some(ShardEntry { file: shard.file.clone(), num_samples, bytes, sha256 })
            }
        };
        let has_classes = self.plan.head().num_classes.is_some();
        let num_labels = if has_classes { content.num_labels() } else { 0 };
        let note = Note { entry, num_labels, skipped: content.skipped.clone() };
        let note = serde_json::to_vec(&note).expect("a note is plain data");
        file::write_synced(&self.note_path(shard), &[&note]).map(|_| ())
    }

    /// Puts the shards together, and gives the folder its name: for the rank that began, when all
    /// others have written theirs.
    ///
    /// # Errors
    ///
    /// [`DataError::Output`] if a shard was not written, [`DataError::NothingReadable`] if a split
    /// has no sample; as reading shards; [`DataError::Write`].
    pub fn finish(self) -> Result<TokenManifest, DataError> {
        let shards = self.plan.shards();
        let mut manifest = self.plan.head().clone();
        for (number, split) in self.plan.splits().iter().enumerate() {
            let of_split: Vec<&PlannedShard> =
                shards.iter().filter(|shard| shard.split == number).collect();
            let entry = self.put_together(split, &of_split)?;
            manifest.splits.insert(split.name.clone(), entry);
        }
        manifest.write(&self.folder)?;
        let splits = manifest.splits.values();
        let files = splits.flat_map(|split| {
            let shards = split.shards.iter().map(|shard| shard.file.as_str());
            shards.chain([split.histograms.file.as_str()])
        });
        let files: Vec<&str> = files.collect();
        target::commit(&self.folder, &self.target, &self.scratch(&files)?, &files)?;
        Ok(manifest)
    }

    /// Removes what was done so far.
    pub fn discard(self) {
        // What cannot be removed is found by the next attempt.
        let _ = fs::remove_dir_all(&self.folder);
    }

    fn put_together(
        &self,
        split: &PlannedSplit,
        planned: &[&PlannedShard],
    ) -> Result<TokenSplit, DataError> {
        let (mut shards, mut skipped, mut num_labels) = (Vec::new(), Vec::new(), 0);
        for shard in planned {
            let Some(note) = self.note(shard)? else {
                let problem = format!("{} was not written: run the same again", shard.file);
                return Err(output_error(&self.target, &problem));
            };
            num_labels += note.num_labels;
            shards.extend(note.entry);
            skipped.extend(note.skipped);
        }
        let num_samples = shards.iter().map(|shard| shard.num_samples).sum();
        if num_samples == 0 {
            let (name, all) = (&split.name, skipped.len());
            let problem =
                format!("has no sample in split {name} that can be read: all {all} are damaged");
            return Err(DataError::NothingReadable { path: self.target.clone(), problem });
        }
        skipped.extend(split.skipped.iter().cloned());
        let head = self.plan.head();
        let histograms = self.count(&shards)?.write(
            &self.folder,
            &format!("histograms-{}.safetensors", split.name),
            &head.levels,
        )?;
        let encoded = split.fingerprint.clone();
        Ok(TokenSplit { num_samples, num_labels, encoded, skipped, histograms, shards })
    }

    fn count(&self, shards: &[ShardEntry]) -> Result<Histograms, DataError> {
        let head = self.plan.head();
        let mut histograms = Histograms::new(&head.levels, head.num_classes);
        let mut sample = vec![0; head.token_shape().num_bytes()];
        for entry in shards {
            let path = self.folder.join(&entry.file);
            let shard = OpenShard::open(path.clone(), Blob::local(&path), entry, head)?;
            for index in 0..entry.num_samples {
                shard.read(index, 0, &mut sample)?;
                histograms.add(&head.levels, &sample, shard.label(index)?);
            }
        }
        Ok(histograms)
    }

    /// What lies in the folder and is no part of the set.
    fn scratch(&self, files: &[&str]) -> Result<Vec<PathBuf>, DataError> {
        let list = || -> io::Result<Vec<PathBuf>> {
            fs::read_dir(&self.folder)?.map(|entry| Ok(entry?.path())).collect()
        };
        let paths = list().map_err(|source| write_error(&self.folder, source))?;
        let is_part = |path: &PathBuf| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name == MANIFEST_FILE || files.contains(&name))
        };
        Ok(paths.into_iter().filter(|path| !is_part(path)).collect())
    }

    fn note_path(&self, shard: &PlannedShard) -> PathBuf {
        self.folder.join(format!("{}.json", shard.file))
    }

    /// The note of a shard, if it was written.
    fn note(&self, shard: &PlannedShard) -> Result<Option<Note>, DataError> {
        let path = self.note_path(shard);
        match fs::read(&path) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(DataError::Read { path, source }),
        }
    }
}

/// The identity of the plan that a folder is of; empty if there is none, or it was not written whole.
fn read_plan(folder: &Path) -> Result<String, DataError> {
    let path = folder.join(PROGRESS_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.strip_suffix('\n').unwrap_or("").to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(DataError::Read { path, source }),
    }
}
