//! WebDataset: tar archives of samples, read as they are.
//!
//! A sample is the members that share a name up to the first dot of their file name
//! (<https://github.com/webdataset/webdataset>); one member is its content, and `cls`, if there is
//! one, the number of its class. The archives are indexed once (`tar_index.rs`) and then read in
//! any order, so the order of samples and a resume are those of any other source.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use crate::config::{DataConfig, OnCorrupt};
use crate::error::DataError;
use crate::file;
use crate::sources::archives::{self, Archive};
use crate::sources::compressed;
use crate::sources::files::{Files, no_split};
use crate::sources::names::{Tally, is_news};
use crate::sources::splits::{self, Division, Unit};
use crate::sources::tar_index::{self, TarIndex};
use crate::sources::tar_member::Member;
use crate::store::{self, Blob, RemoteConfig};

/// Member that holds the number of a sample's class, as text.
const CLASS: &str = "cls";

/// Called with the bytes read so far and those of all archives.
pub(crate) type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// The samples of one split in a folder of archives.
pub(crate) struct TarFiles {
    /// The path as it was asked for, for people.
    root: PathBuf,
    archives: Vec<Opened>,
    samples: Vec<TarSample>,
    notes: Vec<String>,
    fingerprint: String,
    /// The largest class, once it was asked for.
    largest_class: OnceLock<Option<i64>>,
}

/// An archive, and where its bytes are.
struct Opened {
    archive: Archive,
    content: Content,
}

enum Content {
    /// On this machine. It is opened for each read, so that there may be more archives than a
    /// process may have open.
    Here(PathBuf),
    /// Elsewhere, and open: opening costs a request.
    Elsewhere(Blob),
}

/// Where a sample lies.
struct TarSample {
    archive: u32,
    key: String,
    content: Member,
    class: Option<Member>,
}

impl TarFiles {
    /// Opens the samples of `split` in the archives at `config.path` (`archives.rs` says which),
    /// indexing those that have no index yet.
    ///
    /// # Errors
    ///
    /// [`DataError::NoFiles`], [`DataError::NoSplit`], [`DataError::Archive`],
    /// [`DataError::Remote`] or [`DataError::Read`].
    pub(crate) fn open(config: &DataConfig, split: &str) -> Result<Self, DataError> {
        splits::check(split)?;
        let DataConfig { modality, member, .. } = config;
        let root = store::shown(&config.path);
        let found = archives::find(&config.path, &config.remote)?;
        let (archives, indices) = index_all(found, config, &|_, _| {})?;
        tell_left_out(&root, &archives, &indices);
        let mut samples = Vec::new();
        let mut hasher = file::Hasher::default();
        let (mut unused, mut without) = (Tally::default(), Tally::default());
        for (at, index) in indices.into_iter().enumerate() {
            hasher.update(format!("{}\0{}\n", archives[at].archive.name, index.sha256).as_bytes());
            for sample in index.samples {
                let mut members = sample.members;
                let wanted = members.iter().position(|found| match member.as_str() {
                    "" => modality.extensions().contains(&found.extension.as_str()),
                    member => found.extension == member,
                });
                let Some(wanted) = wanted else {
                    members.iter().for_each(|member| without.add(&kind_of(member), 1));
                    continue;
                };
                let content = members.swap_remove(wanted);
                let class = members.iter().position(|member| member.extension == CLASS);
                let class = class.map(|class| members.swap_remove(class));
                members.iter().for_each(|member| unused.add(&kind_of(member), 1));
                let archive = at as u32;
                samples.push(TarSample { archive, key: sample.key, content, class });
            }
        }
        tell_unread(&root, &unused, &without);
        if samples.is_empty() {
            let extensions = match member.as_str() {
                "" => modality.extensions().join(", "),
                member => member.to_owned(),
            };
            return Err(DataError::NoFiles { path: root, extensions });
        }
        let (mut full, mut at_full) = (Vec::new(), vec![0; archives.len()]);
        for (archive, found) in archives.iter().enumerate() {
            let holds = samples.partition_point(|sample| (sample.archive as usize) < archive)
                < samples.partition_point(|sample| (sample.archive as usize) <= archive);
            if holds {
                at_full[archive] = full.len();
                full.push(found.archive.name.as_str());
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
            return Err(no_split(&root, split));
        }
        samples.shrink_to_fit();
        let fingerprint = hasher.finish();
        let largest_class = OnceLock::new();
        Ok(Self { root, archives, samples, notes, fingerprint, largest_class })
    }

    /// Reads a member and checks it. What a cache holds wrongly is fetched again, once.
    fn read_member(&self, index: usize, member: &Member) -> Result<Vec<u8>, DataError> {
        let opened = &self.archives[self.samples[index].archive as usize];
        let read = |source| DataError::ReadSample {
            shard: opened.archive.path(),
            sample: self.samples[index].key.clone(),
            source,
        };
        let here;
        let blob = match &opened.content {
            Content::Elsewhere(blob) => blob,
            Content::Here(path) => {
                here = Blob::local(path).map_err(read)?;
                &here
            }
        };
        loop {
            let bytes = match member.read(blob) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    let problem = "is beyond the end of the archive, which was longer".to_owned();
                    return Err(self.corrupt(index, problem));
                }
                Err(source) => return Err(read(source)),
            };
            let found = crc32fast::hash(&bytes);
            if found == member.crc32 {
                return Ok(bytes);
            }
            if !member.forget(blob) {
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
            Some(number) if number >= 0 => Ok(Some(number)),
            Some(number) => {
                let problem = format!("has a class (cls) of {number}, expected 0 or more");
                Err(self.corrupt(index, problem))
            }
            None => Err(self.corrupt(index, "has a class (cls) that is no number".to_owned())),
        }
    }

    fn has_labels(&self) -> bool {
        self.samples.iter().any(|sample| sample.class.is_some())
    }

    /// One more than the largest class of this split. Each is a member of its own, so all are read,
    /// once. A class that cannot be read is the error of its sample, when that is read.
    fn num_classes(&self) -> Result<Option<u64>, DataError> {
        if !self.has_labels() {
            return Ok(None);
        }
        let largest = self.largest_class.get_or_init(|| {
            let labels = (0..self.samples.len()).into_par_iter();
            labels.filter_map(|index| self.label(index).ok().flatten()).max()
        });
        Ok(Some(largest.map_or(0, |largest| largest as u64 + 1)))
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn root(&self) -> &Path {
        &self.root
    }

    fn container(&self, index: usize) -> PathBuf {
        self.archives[self.samples[index].archive as usize].archive.path()
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
    let found = archives::find(root, remote)?;
    found.iter().for_each(tar_index::forget);
    let config = DataConfig { remote: remote.clone(), ..DataConfig::default() };
    let (archives, indices) = index_all(found, &config, progress)?;
    tell_left_out(&store::shown(root), &archives, &indices);
    Ok((archives.len(), indices.iter().map(|index| index.samples.len()).sum()))
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
    let found = archives::find(root, remote)?;
    let blobs = archives::open_all(&found);
    let total = blobs.iter().flatten().map(Blob::len).sum();
    let done = AtomicU64::new(0);
    let read = |bytes| progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes, total);
    let check = |(archive, blob): (Archive, io::Result<Blob>)| {
        let path = archive.path();
        let num_bytes = blob.as_ref().map_or(0, Blob::len);
        let checked = content(&archive, blob, remote)
            .and_then(|(_, blob)| tar_index::check(&archive, &blob, &read));
        let (num_samples, problems) = checked.unwrap_or_else(|error| (0, vec![error.to_string()]));
        CheckedArchive { path, num_samples: num_samples as u64, num_bytes, problems }
    };
    Ok(found.into_par_iter().zip(blobs).map(check).collect())
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

/// Archives that can be read, and their indices.
type Indexed = (Vec<Opened>, Vec<TarIndex>);

fn index_all(
    found: Vec<Archive>,
    config: &DataConfig,
    progress: Progress<'_>,
) -> Result<Indexed, DataError> {
    let blobs = archives::open_all(&found);
    let total = blobs.iter().flatten().map(Blob::len).sum();
    let done = AtomicU64::new(0);
    let read = |bytes| progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes, total);
    let index = |(archive, blob): (Archive, io::Result<Blob>)| {
        let (here, blob) = content(&archive, blob, &config.remote)?;
        let index = tar_index::of(&archive, &blob, &read)?;
        let content = here.map_or(Content::Elsewhere(blob), Content::Here);
        Ok((Opened { archive, content }, index))
    };
    let outcomes: Vec<_> = found.into_par_iter().zip(blobs).map(index).collect();
    let mut indexed = (Vec::new(), Vec::new());
    let (num_archives, mut first) = (outcomes.len(), None);
    for outcome in outcomes {
        match outcome {
            Ok((opened, index)) => {
                indexed.0.push(opened);
                indexed.1.push(index);
            }
            // One that is named and not there is no damage.
            Err(DataError::Read { path, source }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(DataError::Read { path, source });
            }
            Err(error) if config.on_corrupt == OnCorrupt::Skip => {
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
        return Err(DataError::NothingReadable { path: store::shown(&config.path), problem });
    }
    Ok(indexed)
}

/// The bytes of an archive, decompressed where it is compressed, and where they are if on this
/// machine.
fn content(
    archive: &Archive,
    blob: io::Result<Blob>,
    remote: &RemoteConfig,
) -> Result<(Option<PathBuf>, Blob), DataError> {
    let read_error = |path: PathBuf| |source| DataError::Read { path, source };
    let blob = blob.map_err(read_error(archive.path()))?;
    match compressed::plain(archive, &blob, remote)? {
        Some(plain) => {
            let blob = Blob::local(&plain).map_err(read_error(plain.clone()))?;
            Ok((Some(plain), blob))
        }
        None => Ok((archive.is_local().then(|| archive.path()), blob)),
    }
}

/// Tells what of the archives is no member of a sample.
fn tell_left_out(root: &Path, archives: &[Opened], indices: &[TarIndex]) {
    let (mut left_out, mut num_not_utf8) = (Tally::default(), 0);
    for (opened, index) in archives.iter().zip(indices) {
        index.left_out.iter().for_each(|(kind, &count)| left_out.add(kind, count));
        num_not_utf8 += index.num_not_utf8;
        let (archive, bytes) = (opened.archive.path(), index.bytes_behind_end);
        if bytes > 0 && is_news(&archive, &format!("{bytes} behind its end")) {
            let archive = archive.display();
            tracing::warn!(%archive, bytes, "what is behind the archive's end mark is no archive, and not read");
        }
    }
    let path = root.display();
    let members = left_out.describe();
    if !left_out.is_empty() && is_news(root, &format!("left out {members}")) {
        tracing::warn!(%path, members, "members not read: they are no files of a sample");
    }
    if num_not_utf8 > 0 && is_news(root, "not UTF-8") {
        tracing::info!(%path, num_not_utf8, "names that are not UTF-8 are shown with \\x and two digits");
    }
}

/// Tells which members of samples are not read.
fn tell_unread(root: &Path, unused: &Tally, without: &Tally) {
    let path = root.display();
    let members = without.describe();
    if !without.is_empty() && is_news(root, &format!("without {members}")) {
        tracing::warn!(
            %path, members,
            "samples not read: none of their members is of data.modality; data.member names another"
        );
    }
    let members = unused.describe();
    if !unused.is_empty() && is_news(root, &format!("unused {members}")) {
        tracing::info!(%path, members, "members beside the content of a sample, not read");
    }
}

/// The kind of a member that is not read.
fn kind_of(member: &Member) -> String {
    match member.extension.as_str() {
        "" => "without extension".to_owned(),
        extension => format!(".{extension}"),
    }
}
