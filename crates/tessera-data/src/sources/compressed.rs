//! Archives that are compressed as a whole, `NAME.tar.gz` and `NAME.tar.zst`.
//!
//! Nothing in the middle of such a file can be read without all that is before it, and samples are
//! read in any order. So an archive is decompressed once, into the cache (`remote.cache`, or the
//! user's), where all ranks of a host and all later runs find it. What an archive begins with says
//! whether it is compressed, as for GNU tar and Python.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::error::DataError;
use crate::file;
use crate::sources::archives::Archive;
use crate::store::{Blob, RemoteConfig, Sequential};

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codec {
    Gzip,
    Zstd,
}

/// Where an archive lies decompressed; none if it is not compressed. Decompresses it if it was not
/// before.
///
/// # Errors
///
/// [`DataError::Archive`] if it is compressed in a way that is not read, or damaged,
/// [`DataError::Write`] or [`DataError::Read`].
pub(crate) fn plain(
    archive: &Archive,
    blob: &Blob,
    remote: &RemoteConfig,
) -> Result<Option<PathBuf>, DataError> {
    let path = archive.path();
    let read_error = |source| DataError::Read { path: path.clone(), source };
    let mut head = [0; 6];
    let head = &mut head[..blob.len().min(6) as usize];
    blob.read_exact_at(head, 0).map_err(read_error)?;
    let codec = codec(head, &path).map_err(|problem| bad(&path, problem))?;
    let Some(codec) = codec else { return Ok(None) };
    let folder = folder(remote);
    let write_error = |path: &Path| {
        let path = path.to_owned();
        move |source| DataError::Write { path, source }
    };
    fs::create_dir_all(&folder).map_err(write_error(&folder))?;
    let identity = file::sha256_of(archive.identity().as_os_str().as_encoded_bytes());
    let version = blob.version().map_err(read_error)?;
    let version = file::sha256_of(version.as_bytes());
    let made = folder.join(format!("{identity}-{version}.tar"));
    if made.exists() {
        return Ok(Some(made));
    }
    // Ranks of a host come here together: one works and the others find what it made. Where there
    // are no locks each works for itself, which only costs time.
    let lock = folder.join(format!("{identity}.lock"));
    let lock = File::create(&lock).map_err(write_error(&lock))?;
    let _ = lock.lock();
    if made.exists() {
        return Ok(Some(made));
    }
    tracing::info!(
        archive = %path.display(), into = %made.display(),
        "compressed archive is decompressed, once"
    );
    forget_versions(&folder, &identity);
    let temporary = folder.join(format!("{identity}.{}.tmp", std::process::id()));
    let outcome = decompress(codec, blob, &temporary, &path).and_then(|()| {
        fs::rename(&temporary, &made).map_err(write_error(&made))?;
        Ok(Some(made))
    });
    outcome.inspect_err(|_| {
        // The first failure is the one worth reporting.
        let _ = fs::remove_file(&temporary);
    })
}

/// How a file is compressed, by its first bytes; the error completes a sentence about an archive.
fn codec(head: &[u8], path: &Path) -> Result<Option<Codec>, String> {
    let refused = |what: &str, command: &str| {
        let name = file::name_of(path);
        Err(format!(
            "is {what}, which is not read: make a tar archive of it, as with `{command} {name}`"
        ))
    };
    match head {
        [0x1f, 0x8b, ..] => Ok(Some(Codec::Gzip)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Some(Codec::Zstd)),
        [b'B', b'Z', b'h', ..] => refused("compressed with bzip2", "bunzip2 --keep"),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => refused("compressed with xz", "unxz --keep"),
        [0x04, 0x22, 0x4d, 0x18, ..] => refused("compressed with lz4", "unlz4"),
        [0x1f, 0x9d, ..] => refused("compressed with compress", "uncompress -k"),
        [b'P', b'K', 3, 4, ..] => refused("a zip archive", "bsdtar -cf archive.tar @"),
        _ => Ok(None),
    }
}

fn decompress(codec: Codec, blob: &Blob, into: &Path, path: &Path) -> Result<(), DataError> {
    let damaged = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            bad(path, "is cut short: copy or fetch it again".to_owned())
        }
        _ => bad(path, format!("is damaged ({error}): copy or fetch it again")),
    };
    let packed = BufReader::with_capacity(1 << 18, Sequential::new(blob));
    let mut packed: Box<dyn Read> = match codec {
        Codec::Gzip => Box::new(MultiGzDecoder::new(packed)),
        Codec::Zstd => Box::new(zstd::Decoder::with_buffer(packed).map_err(damaged)?),
    };
    let write_error = |source| DataError::Write { path: into.to_owned(), source };
    let mut out = BufWriter::new(File::create(into).map_err(write_error)?);
    let mut block = vec![0; 1 << 18];
    loop {
        match packed.read(&mut block).map_err(damaged)? {
            0 => break,
            count => out.write_all(&block[..count]).map_err(write_error)?,
        }
    }
    out.flush().map_err(write_error)
}

/// Removes what was decompressed of earlier versions of an archive.
fn forget_versions(folder: &Path, identity: &str) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if file::name_of(&entry.path()).starts_with(&format!("{identity}-")) {
            // What cannot be removed costs room and nothing else.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn folder(remote: &RemoteConfig) -> PathBuf {
    let cache = match remote.cache.as_os_str().is_empty() {
        true => file::user_cache().unwrap_or_else(|| std::env::temp_dir().join("tessera")),
        false => remote.cache.clone(),
    };
    cache.join("archives")
}

fn bad(path: &Path, problem: String) -> DataError {
    DataError::Archive { path: path.to_owned(), problem: crate::error::one_line(&problem) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_begins_with_says_how_it_is_compressed() {
        let path = Path::new("x/a.tar.xz");
        assert_eq!(codec(b"\x1f\x8b\x08\0\0\0", path), Ok(Some(Codec::Gzip)));
        assert_eq!(codec(b"\x28\xb5\x2f\xfd\0\0", path), Ok(Some(Codec::Zstd)));
        assert_eq!(codec(b"0.png\0", path), Ok(None));
        assert_eq!(codec(b"", path), Ok(None));
        let problem = codec(b"\xfd7zXZ\0", path).unwrap_err();
        assert!(problem.contains("`unxz --keep a.tar.xz`"), "{problem}");
    }
}
