//! Index of a tar archive: where each member lies, with a checksum of each.
//!
//! An archive is read once from its beginning to its end, hashed on the way; the index is kept
//! beside it as `NAME.tar.index` (JSON), or, where that folder cannot be written, in the user's
//! cache. Reading a sample then is one read at an offset, in any order. Members are only ever
//! read, never unpacked; still, a name that leads out of a folder is refused, as is anything that
//! is neither a file nor a folder.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{DataError, one_line};
use crate::file;
use crate::source::files::key;
use crate::store::{Blob, Sequential, Store};

/// Value of `format` in every index.
const FORMAT: &str = "tessera-tar-index";
const VERSION: u32 = 1;
/// Bytes of a tar block.
const BLOCK: u64 = 512;

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
}

/// Members that share a name up to the first dot of the file name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IndexedSample {
    /// What they share.
    pub(crate) key: String,
    pub(crate) members: Vec<Member>,
}

/// One file in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// The name behind the first dot of the file name, in lower case.
    pub(crate) extension: String,
    /// Where its bytes begin.
    pub(crate) offset: u64,
    /// How many they are.
    pub(crate) bytes: u64,
    /// CRC-32 (IEEE 802.3).
    pub(crate) crc32: u32,
}

/// The index of an archive: the one beside it or in the cache, or one made now. `read` is told how
/// many bytes of the archive were read.
pub(crate) fn of(
    store: &Store,
    name: &str,
    blob: &Blob,
    read: &(dyn Fn(u64) + Sync),
) -> Result<TarIndex, DataError> {
    match kept(store, name, blob) {
        Some(index) => Ok(index),
        None => {
            let index = make(&store.path(name), blob, read)?;
            keep(store, name, &index);
            Ok(index)
        }
    }
}

/// The index of an archive that an earlier run kept, if there is one of an archive of this length.
fn kept(store: &Store, name: &str, blob: &Blob) -> Option<TarIndex> {
    let homes = homes(store, &store.path(name));
    let is_remote = !matches!(store, Store::Local(_));
    let beside = is_remote.then(|| format!("{name}.index")).into_iter();
    let beside = beside.map(|beside| (store.read(&beside), store.path(&beside)));
    // Each is read only if there was nothing in those before it.
    for (text, home) in beside.chain(homes.iter().map(|home| (fs::read(home), home.clone()))) {
        match text.map_err(|error| (error.kind() != io::ErrorKind::NotFound, error.to_string())) {
            Ok(text) => match parse(&text, blob.len()) {
                Ok(index) => return Some(index),
                Err(problem) => tracing::warn!(index = %home.display(), problem, "index not used"),
            },
            Err((true, problem)) => {
                tracing::warn!(index = %home.display(), problem, "index not read")
            }
            Err((false, _)) => {}
        }
    }
    None
}

/// Keeps an index for later runs, where that is possible.
fn keep(store: &Store, name: &str, index: &TarIndex) {
    let path = store.path(name);
    let text = serde_json::to_vec(index).expect("an index is plain data");
    for home in &homes(store, &path) {
        if let Some(folder) = home.parent() {
            // Where this fails, so does the write.
            let _ = fs::create_dir_all(folder);
        }
        match file::write_synced(home, &[&text]) {
            Ok(_) => return,
            Err(error) => tracing::debug!(%error, "no index here"),
        }
    }
    tracing::warn!(archive = %path.display(), "its index could be kept nowhere");
}

/// Reads an archive from its beginning to its end and compares it with the index that was kept,
/// which stays as it is; without one there is one now. Returns how many samples the archive should
/// have, and what is wrong.
pub(crate) fn check(
    store: &Store,
    name: &str,
    blob: &Blob,
    read: &(dyn Fn(u64) + Sync),
) -> Result<(usize, Vec<String>), DataError> {
    let path = store.path(name);
    let kept = kept(store, name, blob);
    let found = make(&path, blob, read)?;
    let Some(kept) = kept else {
        keep(store, name, &found);
        return Ok((found.samples.len(), Vec::new()));
    };
    let mut problems = Vec::new();
    if found.sha256 != kept.sha256 {
        let problem = "has another SHA-256 than when it was indexed";
        problems.push(format!("archive {} {problem}", path.display()));
    }
    let now: BTreeMap<&str, &IndexedSample> =
        found.samples.iter().map(|sample| (sample.key.as_str(), sample)).collect();
    for sample in &kept.samples {
        let problem = match now.get(sample.key.as_str()) {
            None => "is gone",
            Some(now) if now.members != sample.members => "is not what was indexed",
            Some(_) => continue,
        };
        problems.push(format!("sample {} of archive {} {problem}", sample.key, path.display()));
    }
    Ok((kept.samples.len(), problems))
}

/// Removes what an earlier run kept about an archive, so that it is read again.
pub(crate) fn forget(store: &Store, name: &str) {
    for home in homes(store, &store.path(name)) {
        // What is not there need not be removed.
        let _ = fs::remove_file(home);
    }
}

/// Where an index may be kept on this machine, the best place first.
fn homes(store: &Store, path: &Path) -> Vec<PathBuf> {
    let beside = path.with_file_name(format!("{}.index", file::name_of(path)));
    let is_local = matches!(store, Store::Local(_));
    let absolute = match is_local {
        true => std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
        false => path.to_owned(),
    };
    let in_cache = file::user_cache().map(|cache| {
        let hash = file::sha256_of(absolute.as_os_str().as_encoded_bytes());
        cache.join("index").join(format!("{hash}.index"))
    });
    [Some(beside).filter(|_| is_local), in_cache].into_iter().flatten().collect()
}

/// An index that is of an archive of this length; the error completes a sentence about it.
fn parse(text: &[u8], archive_bytes: u64) -> Result<TarIndex, String> {
    let index: TarIndex = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if index.format != FORMAT || index.version != VERSION {
        return Err(format!("has format {:?} version {}", index.format, index.version));
    }
    if index.bytes != archive_bytes {
        return Err(format!("is of an archive of {} bytes, not {archive_bytes}", index.bytes));
    }
    let members = index.samples.iter().flat_map(|sample| &sample.members);
    for member in members {
        if member.offset.checked_add(member.bytes).is_none_or(|end| end > archive_bytes) {
            return Err("points beyond the end of the archive".to_owned());
        }
    }
    Ok(index)
}

/// Reads an archive from its beginning to its end.
fn make(path: &Path, blob: &Blob, read: &(dyn Fn(u64) + Sync)) -> Result<TarIndex, DataError> {
    let read_error = |source| DataError::Read { path: path.to_owned(), source };
    let promised = blob.len();
    let counted =
        Hashing { inner: Sequential::new(blob), hasher: file::Hasher::default(), bytes: 0, read };
    let mut archive = tar::Archive::new(BufReader::with_capacity(1 << 18, counted));
    let bad =
        |problem: String| DataError::Archive { path: path.to_owned(), problem: one_line(&problem) };
    let damaged = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => bad("is cut short: copy or fetch it again".to_owned()),
        _ => bad(format!("is damaged ({error}): copy or fetch it again")),
    };
    let (mut samples, mut by_key) = (Vec::<IndexedSample>::new(), BTreeMap::new());
    let mut end = 0;
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let (offset, bytes) = (entry.raw_file_position(), entry.size());
        end = (offset + bytes).next_multiple_of(BLOCK);
        if end > promised {
            return Err(damaged(io::ErrorKind::UnexpectedEof.into()));
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let kind = entry.header().entry_type();
        if kind.is_dir() || kind.is_pax_global_extensions() {
            continue;
        }
        if !kind.is_file() && !kind.is_contiguous() {
            return Err(bad(format!("holds {name:?}, which is no plain file: remove it")));
        }
        let Some((key, extension)) = split_name(&name) else {
            return Err(bad(format!("holds {name:?}, which leads out of its folder: remove it")));
        };
        let mut crc = crc32fast::Hasher::new();
        let mut block = [0; 1 << 14];
        let mut found = 0;
        loop {
            match entry.read(&mut block).map_err(damaged)? {
                0 => break,
                count => {
                    crc.update(&block[..count]);
                    found += count as u64;
                }
            }
        }
        if found != bytes {
            return Err(damaged(io::ErrorKind::UnexpectedEof.into()));
        }
        let member = Member { extension, offset, bytes, crc32: crc.finalize() };
        let at = *by_key.entry(key.clone()).or_insert_with(|| {
            samples.push(IndexedSample { key: key.clone(), members: Vec::new() });
            samples.len() - 1
        });
        if samples[at].members.iter().any(|other| other.extension == member.extension) {
            return Err(bad(format!("holds {name:?} twice: remove one")));
        }
        samples[at].members.push(member);
    }
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(read_error)?;
    let Hashing { hasher, bytes, .. } = rest.into_inner();
    if bytes < end + BLOCK {
        // Every archive ends with blocks of zeros; one that does not was cut between two members.
        return Err(
            bad("is cut short, its end mark is missing: copy or fetch it again".to_owned()),
        );
    }
    let (format, sha256) = (FORMAT.to_owned(), hasher.finish());
    Ok(TarIndex { format, version: VERSION, bytes, sha256, samples })
}

/// A member's key and extension; none for a name that leads out of a folder.
fn split_name(name: &str) -> Option<(String, String)> {
    let path = Path::new(name);
    let plain = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
    if name.is_empty() || name.contains('\0') || !path.components().all(plain) {
        return None;
    }
    let name = name.strip_prefix("./").unwrap_or(name);
    let key = key(name);
    let extension = name[key.len()..].trim_start_matches('.');
    Some((key.to_owned(), extension.to_ascii_lowercase()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_end_at_the_first_dot_of_the_file_name() {
        let split = |name| split_name(name).map(|(key, extension)| format!("{key} {extension}"));
        assert_eq!(split("a/b.c/000.seg.PNG").unwrap(), "a/b.c/000 seg.png");
        assert_eq!(split("./000.jpg").unwrap(), "000 jpg");
        assert_eq!(split("README").unwrap(), "README ");
        for name in ["/etc/passwd", "../a.jpg", "a/../../b.jpg", "", "a\0.jpg"] {
            assert_eq!(split_name(name), None, "{name:?}");
        }
    }
}
