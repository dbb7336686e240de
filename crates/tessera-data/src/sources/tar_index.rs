//! Index of a tar archive: where each member lies, with a checksum of each.
//!
//! An archive is read once from its beginning to its end (`tar_members.rs`), hashed on the way; the
//! index is kept beside it as `NAME.tar.index` (JSON), or, where that folder cannot be written, in
//! the user's cache. Reading a sample then is one read at an offset, in any order. Members are only
//! ever read, never unpacked; still, a name that leads out of a folder is refused.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{DataError, one_line};
use crate::file;
use crate::sources::archives::Archive;
use crate::sources::tar_member::{BLOCK, IndexedSample};
use crate::sources::tar_members::{self, Positioned, Problem};
use crate::store::{Blob, Sequential};

/// Value of `format` in every index.
const FORMAT: &str = "tessera-tar-index";
/// Version 1 knew neither what is behind the first end mark nor sparse members.
const VERSION: u32 = 2;

/// Where each sample of an archive lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TarIndex {
    format: String,
    version: u32,
    /// Length of the archive.
    pub(crate) bytes: u64,
    /// SHA-256 of the archive.
    pub(crate) sha256: String,
    /// The samples in the order of their first members.
    pub(crate) samples: Vec<IndexedSample>,
    /// How many members are no samples, by kind.
    pub(crate) left_out: BTreeMap<String, u64>,
    /// Members whose names are not UTF-8.
    pub(crate) num_not_utf8: u64,
    /// Bytes behind the end mark that are no archive.
    pub(crate) bytes_behind_end: u64,
}

/// The index of an archive: the one beside it or in the cache, or one made now. `read` is told how
/// many bytes of the archive were read.
pub(crate) fn of(
    archive: &Archive,
    blob: &Blob,
    read: &(dyn Fn(u64) + Sync),
) -> Result<TarIndex, DataError> {
    match kept(archive, blob) {
        Some(index) => Ok(index),
        None => {
            let index = make(&archive.path(), blob, read)?;
            keep(archive, &index);
            Ok(index)
        }
    }
}

/// The index of an archive that an earlier run kept, if there is one of an archive of this length.
fn kept(archive: &Archive, blob: &Blob) -> Option<TarIndex> {
    let name = archive.file.to_str().unwrap_or_default();
    let has_neighbors = !archive.is_local() && !archive.is_signed();
    let beside = has_neighbors.then(|| format!("{name}.index")).into_iter();
    let beside = beside.map(|beside| (archive.store.read(&beside), archive.store.path(&beside)));
    // Each is read only if there was nothing in those before it.
    let homes = homes(archive).into_iter().map(|home| (fs::read(&home), home));
    for (text, home) in beside.chain(homes) {
        let home = home.display();
        match text.map_err(|error| (error.kind() != io::ErrorKind::NotFound, error.to_string())) {
            Ok(text) => match parse(&text, blob.len()) {
                Ok(index) => return Some(index),
                Err(Unfit::Earlier) => {
                    tracing::info!(index = %home, "index of an earlier version, made anew");
                }
                Err(Unfit::Other(problem)) => {
                    tracing::warn!(index = %home, problem, "index not used");
                }
            },
            Err((true, problem)) => tracing::warn!(index = %home, problem, "index not read"),
            Err((false, _)) => {}
        }
    }
    None
}

/// Keeps an index for later runs, where that is possible.
fn keep(archive: &Archive, index: &TarIndex) {
    let text = serde_json::to_vec(index).expect("an index is plain data");
    for home in &homes(archive) {
        if let Some(folder) = home.parent() {
            // Where this fails, so does the write.
            let _ = fs::create_dir_all(folder);
        }
        match file::write_synced(home, &[&text]) {
            Ok(_) => return,
            Err(error) => tracing::debug!(%error, "no index here"),
        }
    }
    tracing::warn!(archive = %archive.path().display(), "its index could be kept nowhere");
}

/// Reads an archive from its beginning to its end and compares it with the index that was kept,
/// which stays as it is; without one there is one now. Returns how many samples the archive should
/// have, and what is wrong.
pub(crate) fn check(
    archive: &Archive,
    blob: &Blob,
    read: &(dyn Fn(u64) + Sync),
) -> Result<(usize, Vec<String>), DataError> {
    let path = archive.path();
    let kept = kept(archive, blob);
    let found = make(&path, blob, read)?;
    let Some(kept) = kept else {
        keep(archive, &found);
        return Ok((found.samples.len(), Vec::new()));
    };
    let mut problems = Vec::new();
    if found.sha256 != kept.sha256 {
        let problem = "has another SHA-256 than when it was indexed";
        problems.push(format!("archive {} {problem}", path.display()));
    }
    let now: BTreeMap<(&str, usize), &IndexedSample> = numbered(&found.samples).collect();
    for (key, sample) in numbered(&kept.samples) {
        let problem = match now.get(&key) {
            None => "is gone",
            Some(now) if now.members != sample.members => "is not what was indexed",
            Some(_) => continue,
        };
        problems.push(format!("sample {} of archive {} {problem}", sample.key, path.display()));
    }
    Ok((kept.samples.len(), problems))
}

/// Samples by their keys; archives put together with `cat` may have several of one key.
fn numbered(samples: &[IndexedSample]) -> impl Iterator<Item = ((&str, usize), &IndexedSample)> {
    let mut counts = BTreeMap::<&str, usize>::new();
    samples.iter().map(move |sample| {
        let count = counts.entry(&sample.key).or_default();
        *count += 1;
        ((sample.key.as_str(), *count), sample)
    })
}

/// Removes what an earlier run kept about an archive, so that it is read again.
pub(crate) fn forget(archive: &Archive) {
    for home in homes(archive) {
        // What is not there need not be removed.
        let _ = fs::remove_file(home);
    }
}

/// Where an index may be kept on this machine, the best place first. In the cache it is called by
/// a hash: nothing of a URL is in the name.
fn homes(archive: &Archive) -> Vec<PathBuf> {
    let beside = archive.is_local().then(|| {
        let mut path = archive.path().into_os_string();
        path.push(".index");
        PathBuf::from(path)
    });
    let in_cache = file::user_cache().map(|cache| {
        let hash = file::sha256_of(archive.identity().as_os_str().as_encoded_bytes());
        cache.join("index").join(format!("{hash}.index"))
    });
    [beside, in_cache].into_iter().flatten().collect()
}

/// Why an index is not used.
enum Unfit {
    /// It is of an earlier version.
    Earlier,
    /// The words complete a sentence about it.
    Other(String),
}

/// An index that is of an archive of this length.
fn parse(text: &[u8], archive_bytes: u64) -> Result<TarIndex, Unfit> {
    #[derive(Deserialize)]
    struct Kind {
        format: String,
        version: u32,
    }
    let other = |error: serde_json::Error| Unfit::Other(error.to_string());
    let Kind { format, version } = serde_json::from_slice(text).map_err(other)?;
    if format != FORMAT || version > VERSION {
        return Err(Unfit::Other(format!("has format {format:?} version {version}")));
    }
    if version < VERSION {
        return Err(Unfit::Earlier);
    }
    let index: TarIndex = serde_json::from_slice(text).map_err(other)?;
    if index.bytes != archive_bytes {
        let problem = format!("is of an archive of {} bytes, not {archive_bytes}", index.bytes);
        return Err(Unfit::Other(problem));
    }
    let mut members = index.samples.iter().flat_map(|sample| &sample.members);
    if members.any(|member| !member.is_inside(archive_bytes)) {
        return Err(Unfit::Other("points beyond the end of the archive".to_owned()));
    }
    Ok(index)
}

/// Reads an archive from its beginning to its end.
fn make(path: &Path, blob: &Blob, read: &(dyn Fn(u64) + Sync)) -> Result<TarIndex, DataError> {
    let read_error = |source| DataError::Read { path: path.to_owned(), source };
    let counted =
        Hashing { inner: Sequential::new(blob), hasher: file::Hasher::default(), bytes: 0, read };
    let mut reader = Positioned::new(BufReader::with_capacity(1 << 18, counted));
    let bad =
        |problem: String| DataError::Archive { path: path.to_owned(), problem: one_line(&problem) };
    let contents = tar_members::read(&mut reader, blob).map_err(|problem| match problem {
        Problem::Holds(problem) => bad(problem),
        Problem::Read(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            bad("is cut short: copy or fetch it again".to_owned())
        }
        Problem::Read(error) => bad(format!("is damaged ({error}): copy or fetch it again")),
    })?;
    let mut rest = reader.inner;
    io::copy(&mut rest, &mut io::sink()).map_err(read_error)?;
    let Hashing { hasher, bytes, .. } = rest.into_inner();
    if bytes < contents.end + BLOCK {
        // Every archive ends with blocks of zeros; one that does not was cut between two members.
        return Err(
            bad("is cut short, its end mark is missing: copy or fetch it again".to_owned()),
        );
    }
    Ok(TarIndex {
        format: FORMAT.to_owned(),
        version: VERSION,
        bytes,
        sha256: hasher.finish(),
        samples: contents.samples,
        left_out: contents.left_out,
        num_not_utf8: contents.num_not_utf8,
        bytes_behind_end: contents.bytes_behind_end,
    })
}

/// A reader that hashes and counts what passes.
struct Hashing<'a, R> {
    inner: R,
    hasher: file::Hasher,
    bytes: u64,
    read: &'a (dyn Fn(u64) + Sync),
}

impl<R: Read> Read for Hashing<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(out)?;
        self.hasher.update(&out[..count]);
        self.bytes += count as u64;
        (self.read)(count as u64);
        Ok(count)
    }
}
