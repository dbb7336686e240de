//! WebDataset: tar archives of samples, read as they are.
//!
//! A sample is the members that share a name up to the first dot of their file name
//! (<https://github.com/webdataset/webdataset>); one member is its content, and `cls`, if there is
//! one, the number of its class. The archives are indexed once (`tar_index.rs`) and then read in
//! any order, so the order of samples and a resume are those of any other source.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use crate::config::{DataConfig, OnCorrupt};
use crate::decode::has_extension;
use crate::error::DataError;
use crate::file;
use crate::source::files::{Files, list_files, no_split};
use crate::source::splits::{self, Division, Unit};
use crate::source::tar_index::{self, Member, TarIndex};
use crate::store::{self, Blob, RemoteConfig, Store};

/// Member that holds the number of a sample's class, as text.
const CLASS: &str = "cls";

/// Called with the bytes read so far and those of all archives.
pub(crate) type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// The samples of one split in a folder of archives.
pub(crate) struct TarFiles {
    root: PathBuf,
    store: Store,
    archives: Vec<Archive>,
    samples: Vec<TarSample>,
    notes: Vec<String>,
    fingerprint: String,
}

struct Archive {
    /// Name below the store.
    name: String,
    /// Open, where opening costs a request; a local one is opened for each read, so that there
    /// may be more archives than a process may have open.
    blob: Option<Blob>,
}

/// Where a sample lies.
struct TarSample {
    archive: u32,
    key: String,
    content: Member,
    class: Option<Member>,
}

impl TarFiles {
    /// Opens the samples of `split` in the archives at `config.path` (a folder, an archive, or a pattern such as
    /// `shard-{000..009}.tar`), indexing those that have no index yet.
    ///
    /// # Errors
    ///
    /// [`DataError::NoFiles`], [`DataError::NoSplit`], [`DataError::Archive`],
    /// [`DataError::Remote`] or [`DataError::Read`].
    pub(crate) fn open(config: &DataConfig, split: &str) -> Result<Self, DataError> {
        splits::check(split)?;
        let DataConfig { path: root, modality, member, .. } = config;
        let (store, names) = archives(root, &config.remote)?;
        let (names, blobs, indices) = index_all(&store, names, config.on_corrupt, &|_, _| {})?;
        let is_local = matches!(store, Store::Local(_));
        let archive = |(name, blob)| Archive { name, blob: Some(blob).filter(|_| !is_local) };
        let archives: Vec<Archive> = names.into_iter().zip(blobs).map(archive).collect();
        let mut samples = Vec::new();
        let mut hasher = file::Hasher::default();
        for (archive, index) in indices.into_iter().enumerate() {
            let name = &archives[archive].name;
            hasher.update(format!("{name}\0{}\n", index.sha256).as_bytes());
            for sample in index.samples {
                let mut members = sample.members;
                let wanted = members.iter().position(|found| match member.as_str() {
                    "" => modality.extensions().contains(&found.extension.as_str()),
                    member => found.extension == member,
                });
                let Some(at) = wanted else { continue };
                let content = members.swap_remove(at);
                let class = members.into_iter().find(|member| member.extension == CLASS);
                let archive = archive as u32;
                samples.push(TarSample { archive, key: sample.key, content, class });
            }
        }
        if samples.is_empty() {
            let extensions = match member.as_str() {
                "" => modality.extensions().join(", "),
                member => member.to_owned(),
            };
            return Err(DataError::NoFiles { path: root.to_owned(), extensions });
        }
        let (mut full, mut at_full) = (Vec::new(), vec![0; archives.len()]);
        for (archive, found) in archives.iter().enumerate() {
            let holds = samples.partition_point(|sample| (sample.archive as usize) < archive)
                < samples.partition_point(|sample| (sample.archive as usize) <= archive);
            if holds {
                at_full[archive] = full.len();
                full.push(found.name.as_str());
            }
        }
        let division = Division::of(&full, Unit::Archive, config)?;
        let of =
            |sample: &TarSample| division.split_of(at_full[sample.archive as usize], &sample.key);
        let splits: Vec<_> = samples.iter().map(of).collect();
        let notes = division.notes(&splits, |at| samples[at].key.clone());
        if division.moved {
            // Else the samples are those that a checkpoint of an older version was trained on.
            hasher.update(format!("{split} {:?}\n", config.split).as_bytes());
        }
        let mut found = splits.into_iter();
        samples.retain(|_| found.next() == Some(Some(split)));
        if samples.is_empty() {
            return Err(no_split(root, split));
        }
        samples.shrink_to_fit();
        let fingerprint = hasher.finish();
        Ok(Self { root: root.to_owned(), store, archives, samples, notes, fingerprint })
    }

    /// Reads a member and checks it. What a cache holds wrongly is fetched again, once.
    fn read_member(&self, index: usize, member: &Member) -> Result<Vec<u8>, DataError> {
        let archive = &self.archives[self.samples[index].archive as usize];
        let read = |source| DataError::ReadSample {
            shard: self.store.path(&archive.name),
            sample: self.samples[index].key.clone(),
            source,
        };
        let opened;
        let blob = match &archive.blob {
            Some(blob) => blob,
            None => {
                opened = self.store.open(&archive.name).map_err(read)?;
                &opened
            }
        };
        let mut bytes = vec![0; member.bytes as usize];
        loop {
            match blob.read_exact_at(&mut bytes, member.offset) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    let problem = "is beyond the end of the archive, which was longer".to_owned();
                    return Err(self.corrupt(index, problem));
                }
                Err(source) => return Err(read(source)),
            }
            let found = crc32fast::hash(&bytes);
            if found == member.crc32 {
                return Ok(bytes);
            }
            if !blob.forget(member.offset, member.bytes) {
                let problem = format!("has crc32 {found:08x}, indexed as {:08x}", member.crc32);
                return Err(self.corrupt(index, problem));
            }
        }
    }
}

impl Files for TarFiles {
    fn num_files(&self) -> usize {
        self.samples.len()
    }

    fn name(&self, index: usize) -> String {
        let sample = &self.samples[index];
        format!("{}.{}", sample.key, sample.content.extension)
    }

    fn read(&self, index: usize) -> Result<Vec<u8>, DataError> {
        self.read_member(index, &self.samples[index].content)
    }

    fn label(&self, index: usize) -> Result<Option<i64>, DataError> {
        let Some(class) = &self.samples[index].class else { return Ok(None) };
        let bytes = self.read_member(index, class)?;
        let number = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok());
        match number {
            Some(number) => Ok(Some(number)),
            None => Err(self.corrupt(index, "has a class (cls) that is no number".to_owned())),
        }
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn root(&self) -> &Path {
        &self.root
    }

    fn container(&self, index: usize) -> PathBuf {
        self.store.path(&self.archives[self.samples[index].archive as usize].name)
    }

    fn archive_starts(&self) -> Option<Vec<u64>> {
        // Samples stand in the order of their archives.
        let start = |archive: usize| {
            self.samples.partition_point(|sample| (sample.archive as usize) < archive) as u64
        };
        Some((0..=self.archives.len()).map(start).collect())
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

/// Makes the indices of all archives at `root` anew and returns how many samples they have;
/// `progress` is called from many threads.
///
/// # Errors
///
/// [`DataError::NoFiles`], [`DataError::Archive`], [`DataError::Remote`] or [`DataError::Read`].
pub(crate) fn index(
    root: &Path,
    remote: &RemoteConfig,
    progress: Progress<'_>,
) -> Result<(usize, usize), DataError> {
    let (store, names) = archives(root, remote)?;
    names.iter().for_each(|name| tar_index::forget(&store, name));
    let (names, _, indices) = index_all(&store, names, OnCorrupt::Fail, progress)?;
    Ok((names.len(), indices.iter().map(|index| index.samples.len()).sum()))
}

/// Reads all archives at `root` and compares each with its index. Returns what is wrong with each
/// that is not whole, by its path, and how many samples and bytes all should have.
///
/// # Errors
///
/// [`DataError::NoFiles`] or [`DataError::Remote`]; damage to archives is told.
pub(crate) fn verify(
    root: &Path,
    remote: &RemoteConfig,
    progress: Progress<'_>,
) -> Result<Vec<CheckedArchive>, DataError> {
    let (store, names) = archives(root, remote)?;
    let borrowed: Vec<&str> = names.iter().map(String::as_str).collect();
    let blobs = store.open_all(&borrowed);
    let total = blobs.iter().flatten().map(Blob::len).sum();
    let done = AtomicU64::new(0);
    let read = |bytes| progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes, total);
    let check = |(name, blob): (String, io::Result<Blob>)| {
        let path = store.path(&name);
        let num_bytes = blob.as_ref().map_or(0, Blob::len);
        let checked = blob
            .map_err(|source| DataError::Read { path: path.clone(), source })
            .and_then(|blob| tar_index::check(&store, &name, &blob, &read));
        let (num_samples, problems) = checked.unwrap_or_else(|error| (0, vec![error.to_string()]));
        CheckedArchive { path, num_samples: num_samples as u64, num_bytes, problems }
    };
    Ok(names.into_par_iter().zip(blobs).map(check).collect())
}

/// What a check of an archive found.
pub(crate) struct CheckedArchive {
    pub(crate) path: PathBuf,
    /// Samples that it should have; 0 where it cannot be read.
    pub(crate) num_samples: u64,
    pub(crate) num_bytes: u64,
    /// All that is wrong, one line each.
    pub(crate) problems: Vec<String>,
}

/// Archives that can be read, open, and their indices.
type Indexed = (Vec<String>, Vec<Blob>, Vec<TarIndex>);

fn index_all(
    store: &Store,
    names: Vec<String>,
    on_corrupt: OnCorrupt,
    progress: Progress<'_>,
) -> Result<Indexed, DataError> {
    let borrowed: Vec<&str> = names.iter().map(String::as_str).collect();
    let blobs = store.open_all(&borrowed);
    let total = blobs.iter().flatten().map(Blob::len).sum();
    let done = AtomicU64::new(0);
    let read = |bytes| progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes, total);
    let indices: Vec<_> = names
        .into_par_iter()
        .zip(blobs)
        .map(|(name, blob)| {
            let blob =
                blob.map_err(|source| DataError::Read { path: store.path(&name), source })?;
            let index = tar_index::of(store, &name, &blob, &read)?;
            Ok((name, blob, index))
        })
        .collect();
    let mut indexed = (Vec::new(), Vec::new(), Vec::new());
    let (num_archives, mut first) = (indices.len(), None);
    for outcome in indices {
        match outcome {
            Ok((name, blob, index)) => {
                indexed.0.push(name);
                indexed.1.push(blob);
                indexed.2.push(index);
            }
            // One that is named and not there is no damage.
            Err(DataError::Read { path, source }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(DataError::Read { path, source });
            }
            Err(error) if on_corrupt == OnCorrupt::Skip => {
                tracing::warn!(%error, "archive skipped");
                first.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(first) = first.filter(|_| indexed.0.is_empty()) {
        let problem = format!(
            "has no archive that can be read: all {num_archives} are damaged, and the first is {first}"
        );
        return Err(DataError::NothingReadable { path: store.path(""), problem });
    }
    Ok(indexed)
}

/// The store that `root` means, and the names of its archives, sorted.
fn archives(root: &Path, remote: &RemoteConfig) -> Result<(Store, Vec<String>), DataError> {
    let is_tar = |name: &String| has_extension(name, &["tar"]);
    let text = root.to_string_lossy();
    let is_folder =
        root.is_dir() || (store::is_remote(root) && !is_tar(&text.clone().into_owned()));
    let (store, mut names) = if is_folder {
        let store = Store::at(root, remote)?;
        let names = list(&store, root)?;
        (store, names)
    } else {
        let (folder, pattern) = text.rsplit_once('/').unwrap_or((".", &text));
        let folder = if folder.is_empty() { "/" } else { folder };
        (Store::at(Path::new(folder), remote)?, expand(pattern))
    };
    names.retain(is_tar);
    names.sort_unstable();
    if names.is_empty() {
        return Err(DataError::NoFiles { path: root.to_owned(), extensions: "tar".to_owned() });
    }
    Ok((store, names))
}

/// Names of all files of a folder.
fn list(store: &Store, root: &Path) -> Result<Vec<String>, DataError> {
    match store {
        Store::Local(_) => Ok(list_files(root)?.iter().map(|path| relative(root, path)).collect()),
        #[cfg(feature = "remote")]
        Store::Remote(store) => store.list().map_err(|error| DataError::Remote {
            url: root.display().to_string(),
            problem: format!(
                "cannot be listed ({error}): name the archives, as in {}/shard-{{000..009}}.tar",
                root.display()
            ),
        }),
    }
}

/// Names that a pattern such as `a-{08..11}.tar` stands for; any other name stands for itself.
fn expand(pattern: &str) -> Vec<String> {
    let range = || {
        let (before, rest) = pattern.split_once('{')?;
        let (range, after) = rest.split_once('}')?;
        let (first, last) = range.split_once("..")?;
        let (from, to) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
        let width = if first.len() == last.len() { first.len() } else { 0 };
        let name = |number| format!("{before}{number:0width$}{after}");
        Some((from..=to.min(from.saturating_add(1 << 20))).map(name).collect())
    };
    range().unwrap_or_else(|| vec![pattern.to_owned()])
}

/// An archive's path below the folder that was asked for.
fn relative(root: &Path, archive: &Path) -> String {
    let below = archive.strip_prefix(root).ok().filter(|path| !path.as_os_str().is_empty());
    let name = below.or_else(|| archive.file_name().map(Path::new)).unwrap_or(archive);
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brace_pattern_stands_for_its_numbers() {
        let expanded = expand("shard-{008..010}.tar");
        assert_eq!(expanded, ["shard-008.tar", "shard-009.tar", "shard-010.tar"]);
        assert_eq!(expand("a.tar"), ["a.tar"]);
        assert_eq!(expand("a-{x..y}.tar"), ["a-{x..y}.tar"]);
        assert_eq!(expand("a-{9..10}.tar")[1], "a-10.tar");
    }
}
