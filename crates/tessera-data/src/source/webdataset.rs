//! WebDataset: tar archives of samples, read as they are.
//!
//! A sample is the members that share a name up to the first dot of their file name
//! (<https://github.com/webdataset/webdataset>); one member is its content, and `cls`, if there is
//! one, the number of its class. The archives are indexed once (`tar_index.rs`) and then read in
//! any order, so the order of samples and a resume are those of any other source.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use crate::decode::Modality;
use crate::error::DataError;
use crate::file;
use crate::source::files::{Files, has_extension, list_files, no_split};
use crate::source::splits;
use crate::source::tar_index::{self, Member, TarIndex};

/// Member that holds the number of a sample's class, as text.
const CLASS: &str = "cls";

/// Called with the bytes read so far and those of all archives.
pub(crate) type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// The samples of one split in a folder of archives.
pub(crate) struct TarFiles {
    root: PathBuf,
    archives: Vec<PathBuf>,
    samples: Vec<TarSample>,
    fingerprint: String,
}

/// Where a sample lies.
struct TarSample {
    archive: u32,
    key: String,
    content: Member,
    class: Option<Member>,
}

impl TarFiles {
    /// Opens the archives at `root` (a folder, an archive, or a pattern such as
    /// `shard-{000..009}.tar`), indexing those that have no index yet. `member` is the extension of
    /// the content; where it is empty, the first of the modality's.
    ///
    /// # Errors
    ///
    /// [`DataError::NoFiles`], [`DataError::NoSplit`], [`DataError::Archive`] or
    /// [`DataError::Read`].
    pub(crate) fn open(
        root: &Path,
        modality: Modality,
        member: &str,
        split: &str,
        holdout: f64,
    ) -> Result<Self, DataError> {
        let archives = archives(root)?;
        let indices = index_all(&archives, &|_, _| {})?;
        let mut samples = Vec::new();
        let mut hasher = file::Hasher::default();
        for (archive, index) in indices.into_iter().enumerate() {
            let name = relative(root, &archives[archive]);
            hasher.update(format!("{name}\0{}\n", index.sha256).as_bytes());
            for sample in index.samples {
                let mut members = sample.members;
                let wanted = members.iter().position(|found| match member {
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
            let extensions = match member {
                "" => modality.extensions().join(", "),
                member => member.to_owned(),
            };
            return Err(DataError::NoFiles { path: root.to_owned(), extensions });
        }
        let archive_name =
            |sample: &TarSample| Some(relative(root, &archives[sample.archive as usize]));
        let name = |sample: &TarSample| sample.key.clone();
        splits::keep(&mut samples, split, holdout, archive_name, name)?;
        if samples.is_empty() {
            return Err(no_split(root, split));
        }
        samples.shrink_to_fit();
        let fingerprint = hasher.finish();
        Ok(Self { root: root.to_owned(), archives, samples, fingerprint })
    }

    fn read_member(&self, index: usize, member: &Member) -> Result<Vec<u8>, DataError> {
        let sample = &self.samples[index];
        let path = &self.archives[sample.archive as usize];
        let mut bytes = vec![0; member.bytes as usize];
        let outcome =
            File::open(path).and_then(|file| file.read_exact_at(&mut bytes, member.offset));
        match outcome {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let problem = "is beyond the end of the archive, which was longer".to_owned();
                return Err(self.corrupt(index, problem));
            }
            Err(source) => {
                let (shard, sample) = (path.clone(), sample.key.clone());
                return Err(DataError::ReadSample { shard, sample, source });
            }
        }
        let found = crc32fast::hash(&bytes);
        if found != member.crc32 {
            let problem = format!("has crc32 {found:08x}, indexed as {:08x}", member.crc32);
            return Err(self.corrupt(index, problem));
        }
        Ok(bytes)
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

    fn root(&self) -> &Path {
        &self.root
    }

    fn container(&self, index: usize) -> PathBuf {
        self.archives[self.samples[index].archive as usize].clone()
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
/// [`DataError::NoFiles`], [`DataError::Archive`] or [`DataError::Read`].
pub(crate) fn index(root: &Path, progress: Progress<'_>) -> Result<(usize, usize), DataError> {
    let archives = archives(root)?;
    archives.iter().for_each(|archive| tar_index::forget(archive));
    let indices = index_all(&archives, progress)?;
    Ok((archives.len(), indices.iter().map(|index| index.samples.len()).sum()))
}

fn index_all(archives: &[PathBuf], progress: Progress<'_>) -> Result<Vec<TarIndex>, DataError> {
    let mut total = 0;
    for path in archives {
        let metadata = std::fs::metadata(path);
        total += metadata.map_err(|source| DataError::Read { path: path.clone(), source })?.len();
    }
    let done = AtomicU64::new(0);
    let read = |bytes| progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes, total);
    archives.par_iter().map(|path| tar_index::of(path, &read)).collect()
}

/// The archives that `root` means, sorted.
fn archives(root: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut archives = match root.is_dir() {
        true => list_files(root)?,
        false => expand(root),
    };
    archives.retain(|path| has_extension(&path.to_string_lossy(), &["tar"]));
    archives.sort_unstable();
    if archives.is_empty() {
        return Err(DataError::NoFiles { path: root.to_owned(), extensions: "tar".to_owned() });
    }
    Ok(archives)
}

/// Paths that a pattern such as `a-{08..11}.tar` stands for; any other path stands for itself.
pub(crate) fn expand(pattern: &Path) -> Vec<PathBuf> {
    let Some(text) = pattern.to_str() else { return vec![pattern.to_owned()] };
    let range = || {
        let (before, rest) = text.split_once('{')?;
        let (range, after) = rest.split_once('}')?;
        let (first, last) = range.split_once("..")?;
        let (from, to) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
        let width = if first.len() == last.len() { first.len() } else { 0 };
        let name = |number| PathBuf::from(format!("{before}{number:0width$}{after}"));
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
        let expanded = expand(Path::new("/d/shard-{008..010}.tar"));
        let names: Vec<_> = expanded.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(names, ["/d/shard-008.tar", "/d/shard-009.tar", "/d/shard-010.tar"]);
        assert_eq!(expand(Path::new("a.tar")), [Path::new("a.tar")]);
        assert_eq!(expand(Path::new("a-{x..y}.tar")), [Path::new("a-{x..y}.tar")]);
        assert_eq!(expand(Path::new("a-{9..10}.tar"))[1], Path::new("a-10.tar"));
    }
}
