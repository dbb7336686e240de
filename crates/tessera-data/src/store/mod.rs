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
mod url;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub use self::config::RemoteConfig;
pub use self::url::shown;
pub(crate) use self::url::{is_remote, lasting, split_list, split_query};
use crate::error::DataError;

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
            Err(DataError::Remote { url: shown(path).display().to_string(), problem })
        }
    }

    /// Where a file lies, for people: of a URL without what is secret.
    pub(crate) fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        match self {
            Self::Local(root) => root.join(Path::new(name.as_ref())),
            #[cfg(feature = "remote")]
            Self::Remote(store) => store.path(remote_name(name.as_ref())),
        }
    }

    /// Where a file lies, as its identity: of a URL what stays when it is signed anew.
    pub(crate) fn identity(&self, name: impl AsRef<OsStr>) -> PathBuf {
        match self {
            Self::Local(root) => {
                let path = root.join(Path::new(name.as_ref()));
                std::path::absolute(&path).unwrap_or(path)
            }
            #[cfg(feature = "remote")]
            Self::Remote(store) => store.identity(remote_name(name.as_ref())).into(),
        }
    }

    /// Opens files, all at the same time where that is faster.
    pub(crate) fn open_all<N: AsRef<OsStr>>(&self, names: &[N]) -> Vec<io::Result<Blob>> {
        match self {
            Self::Local(root) => {
                names.iter().map(|name| Blob::local(&root.join(Path::new(name.as_ref())))).collect()
            }
            #[cfg(feature = "remote")]
            Self::Remote(store) => {
                let names: Vec<&str> =
                    names.iter().map(|name| remote_name(name.as_ref())).collect();
                let open = |blob: io::Result<remote::RemoteBlob>| blob.map(Blob::Remote);
                store.open_all(&names).into_iter().map(open).collect()
            }
        }
    }

    /// Opens a file.
    pub(crate) fn open(&self, name: impl AsRef<OsStr>) -> io::Result<Blob> {
        self.open_all(&[name]).pop().expect("one result a name")
    }

    /// A whole file, in memory.
    pub(crate) fn read(&self, name: impl AsRef<OsStr>) -> io::Result<Vec<u8>> {
        match self {
            Self::Local(root) => fs::read(root.join(Path::new(name.as_ref()))),
            #[cfg(feature = "remote")]
            Self::Remote(store) => store.read(remote_name(name.as_ref())),
        }
    }
}

#[cfg(feature = "remote")]
fn remote_name(name: &OsStr) -> &str {
    name.to_str().expect("names of remote files are parts of a URL, or were listed as text")
}

impl Blob {
    /// Opens a file on this machine.
    pub(crate) fn local(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self::Local { file, bytes })
    }

    /// Words that another file, or another version of this one, does not have.
    pub(crate) fn version(&self) -> io::Result<String> {
        match self {
            Self::Local { file, bytes } => {
                let modified = file.metadata()?.modified()?;
                let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                Ok(format!("{bytes} {}", since.as_nanos()))
            }
            #[cfg(feature = "remote")]
            Self::Remote(blob) => Ok(blob.identity().to_owned()),
        }
    }

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
