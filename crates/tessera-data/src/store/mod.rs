//! Where files of a data set lie: a folder here, or an object store or web server elsewhere.
//!
//! Packed shards and tar archives are read through this; both are read at offsets, so a
//! [`Blob`] is a file that can be read at any place by any number of threads. What lies elsewhere
//! comes through a cache on the local disk (feature `remote`).

#[cfg(feature = "remote")]
mod cache;
#[cfg(feature = "remote")]
mod client;
mod config;
#[cfg(feature = "remote")]
mod remote;

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub use self::config::RemoteConfig;
use crate::error::DataError;

/// Schemes of paths that lie elsewhere.
const SCHEMES: [&str; 4] = ["s3://", "gs://", "http://", "https://"];

/// Whether a path lies elsewhere.
pub(crate) fn is_remote(path: &Path) -> bool {
    path.to_str().is_some_and(|path| SCHEMES.iter().any(|scheme| path.starts_with(scheme)))
}

/// A folder of files, here or elsewhere.
pub(crate) enum Store {
    Local(PathBuf),
    #[cfg(feature = "remote")]
    Remote(remote::RemoteStore),
}

/// An open file of a [`Store`].
pub(crate) enum Blob {
    Local {
        file: File,
        bytes: u64,
    },
    #[cfg(feature = "remote")]
    Remote(remote::RemoteBlob),
}

impl Store {
    /// The folder at `path`.
    ///
    /// # Errors
    ///
    /// [`DataError::Remote`] if it lies elsewhere and cannot be reached in principle.
    pub(crate) fn at(path: &Path, config: &RemoteConfig) -> Result<Self, DataError> {
        if !is_remote(path) {
            return Ok(Self::Local(path.to_owned()));
        }
        #[cfg(feature = "remote")]
        return remote::RemoteStore::new(path, config).map(Self::Remote);
        #[cfg(not(feature = "remote"))]
        {
            let (problem, _) = ("needs a tessera with the feature remote".to_owned(), config);
            Err(DataError::Remote { url: path.display().to_string(), problem })
        }
    }

    /// Where a file lies, for people and as its identity.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        match self {
            Self::Local(root) => root.join(name),
            #[cfg(feature = "remote")]
            Self::Remote(store) => store.path(name),
        }
    }

    /// Opens files, all at the same time where that is faster.
    pub(crate) fn open_all(&self, names: &[&str]) -> Vec<io::Result<Blob>> {
        match self {
            Self::Local(root) => {
                let open = |name: &&str| {
                    let file = File::open(root.join(name))?;
                    let bytes = file.metadata()?.len();
                    Ok(Blob::Local { file, bytes })
                };
                names.iter().map(open).collect()
            }
            #[cfg(feature = "remote")]
            Self::Remote(store) => {
                let open = |blob: io::Result<remote::RemoteBlob>| blob.map(Blob::Remote);
                store.open_all(names).into_iter().map(open).collect()
            }
        }
    }

    /// Opens a file.
    pub(crate) fn open(&self, name: &str) -> io::Result<Blob> {
        self.open_all(&[name]).pop().expect("one result a name")
    }

    /// A whole file, in memory.
    pub(crate) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        match self {
            Self::Local(root) => fs::read(root.join(name)),
            #[cfg(feature = "remote")]
            Self::Remote(store) => store.read(name),
        }
    }
}

impl Blob {
    /// Length of the file.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Local { bytes, .. } => *bytes,
            #[cfg(feature = "remote")]
            Self::Remote(blob) => blob.len(),
        }
    }

    /// Fills `out` with what lies at `offset`.
    pub(crate) fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::Local { file, .. } => file.read_exact_at(out, offset),
            #[cfg(feature = "remote")]
            Self::Remote(blob) => blob.read_exact_at(out, offset),
        }
    }

    /// Throws away what a cache holds of a range that turned out to be wrong. Whether there was
    /// anything: then reading it again may help.
    pub(crate) fn forget(&self, offset: u64, bytes: u64) -> bool {
        match self {
            Self::Local { bytes: end, .. } => {
                debug_assert!(offset + bytes <= *end, "it was read before");
                false
            }
            #[cfg(feature = "remote")]
            Self::Remote(blob) => blob.forget(offset, bytes),
        }
    }
}

/// Reads a blob from its beginning to its end.
pub(crate) struct Sequential<'a> {
    blob: &'a Blob,
    at: u64,
}

impl<'a> Sequential<'a> {
    pub(crate) fn new(blob: &'a Blob) -> Self {
        Self { blob, at: 0 }
    }
}

impl Read for Sequential<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.blob.len().saturating_sub(self.at);
        let count = left.min(out.len() as u64) as usize;
        self.blob.read_exact_at(&mut out[..count], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
