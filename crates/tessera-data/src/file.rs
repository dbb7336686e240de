//! Whole files: hashed while they are written, hashed again when they are checked.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::DataError;

/// What was written: enough to recognize the file later.
pub(crate) struct Written {
    /// Length of the file.
    pub(crate) bytes: u64,
    /// SHA-256 of the file, lower-case hex.
    pub(crate) sha256: String,
}

/// Writes `pieces` one after another to `path`: under a temporary name, synced, then renamed.
///
/// # Errors
///
/// [`DataError::Write`]; the temporary file is removed.
pub(crate) fn write_synced(path: &Path, pieces: &[&[u8]]) -> Result<Written, DataError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = Path::new(&name);
    let outcome = write_pieces(temporary, pieces).and_then(|written| {
        fs::rename(temporary, path)?;
        Ok(written)
    });
    outcome.map_err(|source| {
        // The first failure is the one worth reporting.
        let _ = fs::remove_file(temporary);
        DataError::Write { path: path.to_owned(), source }
    })
}

/// Makes the names inside `folder` durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), DataError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| DataError::Write { path: folder.to_owned(), source })
}

/// SHA-256 of a file, lower-case hex.
pub(crate) fn sha256_of_file(path: &Path) -> Result<String, DataError> {
    let hash = || sha256_of_reader(&mut File::open(path)?);
    hash().map_err(|source| DataError::Read { path: path.to_owned(), source })
}

/// Hash over the length of a file and its first and last mebibyte: tells published files apart
/// without reading all of them.
pub(crate) fn quick_identity(path: &Path) -> Result<String, DataError> {
    let hash = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let mut hasher = Hasher::default();
        hasher.update(&bytes.to_le_bytes());
        for start in [0, bytes.saturating_sub(1 << 20)] {
            let mut part = Vec::new();
            file.seek(SeekFrom::Start(start))?;
            (&mut file).take(1 << 20).read_to_end(&mut part)?;
            hasher.update(&part);
        }
        Ok(hasher.finish())
    };
    hash().map_err(|source| DataError::Read { path: path.to_owned(), source })
}

/// The user's folder for what can be made again, if there is one.
pub(crate) fn user_cache() -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    cache.map(|cache| cache.join("tessera"))
}

/// Last part of a path, as text.
pub(crate) fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// SHA-256 of what is handed to it piece by piece.
#[derive(Default)]
pub(crate) struct Hasher(Sha256);

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest, lower-case hex.
    pub(crate) fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

/// SHA-256 of bytes in memory.
pub(crate) fn digest_of(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// SHA-256 of bytes in memory, lower-case hex.
pub(crate) fn sha256_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn write_pieces(path: &Path, pieces: &[&[u8]]) -> io::Result<Written> {
    let mut file = File::create(path)?;
    let mut hasher = Sha256::new();
    let mut bytes = 0;
    for piece in pieces {
        file.write_all(piece)?;
        hasher.update(piece);
        bytes += piece.len() as u64;
    }
    file.sync_all()?;
    Ok(Written { bytes, sha256: hex(&hasher.finalize()) })
}

/// SHA-256 of what a reader gives, lower-case hex.
pub(crate) fn sha256_of_reader(file: &mut dyn Read) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

fn hex(digest: &[u8]) -> String {
    let mut text = String::with_capacity(2 * digest.len());
    for byte in digest {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digest of "abc" is the first example of FIPS 180-4.
    #[test]
    fn a_written_file_has_the_hash_of_its_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        let written = write_synced(&path, &[b"a", b"bc"]).unwrap();
        assert_eq!(written.bytes, 3);
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(written.sha256, expected);
        assert_eq!(sha256_of_file(&path).unwrap(), expected);
        assert_eq!(sha256_of(b"abc"), expected);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_an_error_with_its_path() {
        let error = write_synced(Path::new("/proc/no/such/file"), &[b"x"]).err().unwrap();
        assert!(error.to_string().starts_with("cannot write /proc/no/such/file: "), "{error}");
    }
}
