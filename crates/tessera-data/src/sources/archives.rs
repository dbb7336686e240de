//! Which archives a path stands for: a folder, an archive, a pattern or a list, here or elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::decode::is_litter;
use crate::error::DataError;
use crate::sources::files::list_files;
use crate::sources::names::{Tally, is_news, kind_of, text_of};
use crate::sources::pattern::{self, Expanded};
use crate::store::{self, Blob, RemoteConfig, Store};

/// How names of archives end. Of those behind `.tar`, what the file begins with says how it is read.
const ENDINGS: [&str; 11] = [
    ".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.bz2", ".tbz2", ".tar.xz", ".txz",
    ".tar.lz4", ".tar.z",
];

/// An archive.
#[derive(Clone)]
pub(crate) struct Archive {
    pub(crate) store: Arc<Store>,
    /// Its name below the store.
    pub(crate) file: OsString,
    /// What it is called in the data set: the same wherever the data set lies.
    pub(crate) name: String,
}

impl Archive {
    /// Where it lies, for people.
    pub(crate) fn path(&self) -> PathBuf {
        self.store.path(&self.file)
    }

    /// Where it lies, as its identity.
    pub(crate) fn identity(&self) -> PathBuf {
        self.store.identity(&self.file)
    }

    /// Whether its URL may let one read it alone.
    pub(crate) fn is_signed(&self) -> bool {
        let path = self.path();
        !self.is_local() && path.to_str().is_some_and(|url| !store::split_query(url).1.is_empty())
    }

    pub(crate) fn is_local(&self) -> bool {
        matches!(*self.store, Store::Local(_))
    }
}

/// The archives that `path` stands for, sorted by their names, each once.
///
/// # Errors
///
/// [`DataError::NoFiles`], [`DataError::Pattern`], [`DataError::Remote`] or [`DataError::Read`].
pub(crate) fn find(path: &Path, remote: &RemoteConfig) -> Result<Vec<Archive>, DataError> {
    let mut archives = match path.to_str() {
        Some(text) if !path.exists() && text.contains("://") => {
            let items = pattern::expand(text).map_err(|problem| bad_pattern(path, problem))?;
            of_list(path, &items, remote)?
        }
        _ => local(path)?,
    };
    archives.sort_by(|a, b| a.name.cmp(&b.name));
    let found = archives.len();
    let mut seen = BTreeSet::new();
    archives.retain(|archive| seen.insert(archive.identity()));
    let path = store::shown(path);
    if archives.len() < found {
        let twice = found - archives.len();
        tracing::warn!(path = %path.display(), twice, "archives named twice are read once");
    }
    if archives.is_empty() {
        return Err(DataError::NoFiles { path, extensions: "tar".to_owned() });
    }
    Ok(archives)
}

/// The archives of a list, some or all of which lie elsewhere.
fn of_list(
    path: &Path,
    items: &[String],
    remote: &RemoteConfig,
) -> Result<Vec<Archive>, DataError> {
    let (urls, here): (Vec<&String>, Vec<&String>) =
        items.iter().partition(|item| store::is_remote(Path::new(item)));
    // What is listed, and by its host what is named.
    let (mut folders, mut hosts) = (Vec::new(), BTreeMap::<&str, Vec<&str>>::new());
    for url in urls {
        let (bare, query) = store::split_query(url);
        let is_web = bare.starts_with("http");
        if !is_web && pattern::is_glob(bare) {
            folders.push((pattern::literal_folder(bare), Some(bare)));
        } else if is_archive(bare) || !query.is_empty() {
            let host_end = bare.find("://").map_or(0, |at| at + 3);
            let host_end = bare[host_end..].find('/').map_or(bare.len(), |at| host_end + at);
            hosts
                .entry(&url[..host_end])
                .or_default()
                .push(url[host_end..].trim_start_matches('/'));
        } else {
            folders.push((bare, None));
        }
    }
    let several = folders.len() + hosts.len() + usize::from(!here.is_empty()) > 1;
    let prefix = |folder: &str| match several {
        true => format!("{}/", store::lasting(folder)),
        false => String::new(),
    };
    let mut archives = Vec::new();
    for item in here {
        let item = item.strip_prefix("file://").unwrap_or(item);
        archives.extend(local(Path::new(item))?);
    }
    for (folder, glob) in folders {
        let store = Arc::new(Store::at(Path::new(folder), remote)?);
        let mut names = list(&store, folder)?;
        if let Some(pattern) = glob {
            let below = &pattern[folder.len()..].trim_start_matches('/');
            let is_meant = |name: &String| pattern::matches(below, name);
            names = names
                .into_iter()
                .filter_map(|name| match is_meant(&name) {
                    Ok(true) => Some(Ok(name)),
                    Ok(false) => None,
                    Err(problem) => Some(Err(bad_pattern(path, problem))),
                })
                .collect::<Result<_, _>>()?;
        }
        let names = only_archives(Path::new(folder), names);
        let archive = |name: String| Archive {
            store: Arc::clone(&store),
            name: format!("{}{name}", prefix(folder)),
            file: name.into(),
        };
        archives.extend(names.into_iter().map(archive));
    }
    for (host, names) in hosts {
        let shared = shared_folder(&names);
        let folder = format!("{host}/{}", &names[0][..shared]);
        let folder = folder.trim_end_matches('/');
        let store = Arc::new(Store::at(Path::new(folder), remote)?);
        let archive = |name: &str| Archive {
            store: Arc::clone(&store),
            name: format!("{}{}", prefix(folder), &lasting_name(host, name)[shared..]),
            file: name[shared..].into(),
        };
        archives.extend(names.into_iter().map(archive));
    }
    Ok(archives)
}

/// A name of a web server without a signature.
fn lasting_name(host: &str, name: &str) -> String {
    let url = store::lasting(&format!("{host}/{name}"));
    let skipped = store::lasting(&format!("{host}/")).len();
    url[skipped..].to_owned()
}

/// Length of the folders, with the slash behind them, that all names begin with.
fn shared_folder(names: &[&str]) -> usize {
    let folders = |name: &str| {
        let end = name.find('?').unwrap_or(name.len());
        name[..end].rfind('/').map_or(0, |slash| slash + 1)
    };
    let first = names[0];
    let mut shared = folders(first);
    for name in names {
        let end = shared.min(folders(name));
        let equal = first.bytes().zip(name.bytes()).take(end).take_while(|(a, b)| a == b).count();
        shared = first[..equal].rfind('/').map_or(0, |slash| slash + 1);
    }
    shared
}

/// The archives on this machine that a path stands for.
fn local(path: &Path) -> Result<Vec<Archive>, DataError> {
    let expanded = pattern::expand_local(path).map_err(|problem| bad_pattern(path, problem))?;
    let Expanded { root, paths } = expanded;
    let mut files = Vec::new();
    for path in paths {
        match path.is_dir() {
            true => files.extend(list_files(&path)?),
            false => files.push(path),
        }
    }
    let below = |file: PathBuf| match file.strip_prefix(&root) {
        Ok(below) => below.to_owned(),
        Err(_) => file,
    };
    let files = only_archives(path, files.into_iter().map(below).collect::<Vec<_>>());
    let store = Arc::new(Store::Local(root));
    let archive = |file: PathBuf| Archive {
        store: Arc::clone(&store),
        name: text_of(file.as_os_str().as_bytes()),
        file: file.into(),
    };
    Ok(files.into_iter().map(archive).collect())
}

/// Keeps what is called like an archive, and tells what else there was.
fn only_archives<N: AsRef<OsStr>>(place: &Path, files: Vec<N>) -> Vec<N> {
    let mut others = Tally::default();
    let mut archives = Vec::with_capacity(files.len());
    let all: BTreeSet<OsString> = files.iter().map(|file| file.as_ref().to_owned()).collect();
    let has_plain =
        |name: &str| plain_name(name).is_some_and(|plain| all.contains(OsStr::new(&plain)));
    for file in files {
        let name = text_of(file.as_ref().as_bytes());
        if is_litter(&name) {
            others.add("left by a system", 1);
        } else if has_plain(&name) {
            others.add("compressed, with the archive beside them", 1);
        } else if is_archive(&name) {
            archives.push(file);
        } else if !name.ends_with(".index") {
            others.add(&kind_of(&name), 1);
        }
    }
    let files = others.describe();
    if !others.is_empty() && is_news(place, &files) {
        let path = store::shown(place);
        tracing::warn!(path = %path.display(), files, "files not read: they are not tar archives");
    }
    archives
}

/// What a compressed archive is called when it is decompressed.
fn plain_name(name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let ending = ENDINGS.iter().find(|ending| lower.ends_with(**ending))?;
    let stem = &name[..name.len() - ending.len()];
    (*ending != ".tar").then(|| format!("{stem}.tar"))
}

/// Whether a name ends like that of an archive.
fn is_archive(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Names of all files of a folder elsewhere.
fn list(store: &Store, folder: &str) -> Result<Vec<String>, DataError> {
    match store {
        Store::Local(_) => {
            let problem = "names no bucket: write s3://BUCKET/PATH".to_owned();
            Err(DataError::Remote { url: folder.to_owned(), problem })
        }
        #[cfg(feature = "remote")]
        Store::Remote(store) => store.list().map_err(|error| DataError::Remote {
            url: folder.to_owned(),
            problem: format!(
                "cannot be listed ({error}): name the archives, as in {}/shard-{{000..009}}.tar",
                folder.trim_end_matches('/')
            ),
        }),
    }
}

fn bad_pattern(path: &Path, problem: String) -> DataError {
    DataError::Pattern { path: store::shown(path), problem }
}

/// Opens archives, all at the same time where that is faster.
pub(crate) fn open_all(archives: &[Archive]) -> Vec<io::Result<Blob>> {
    let mut blobs: Vec<Option<io::Result<Blob>>> = archives.iter().map(|_| None).collect();
    for (at, archive) in archives.iter().enumerate() {
        if blobs[at].is_some() {
            continue;
        }
        // All of one store, at once.
        let same: Vec<usize> = (at..archives.len())
            .filter(|&other| Arc::ptr_eq(&archives[other].store, &archive.store))
            .collect();
        let names: Vec<&OsString> = same.iter().map(|&other| &archives[other].file).collect();
        for (other, blob) in same.into_iter().zip(archive.store.open_all(&names)) {
            blobs[other] = Some(blob);
        }
    }
    blobs.into_iter().map(|blob| blob.expect("each archive is of one store")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_web_server_are_those_below_the_folder_that_all_are_in() {
        assert_eq!(shared_folder(&["a/b/1.tar"]), 4);
        assert_eq!(shared_folder(&["a/b/1.tar", "a/b/2.tar?x=/y/"]), 4);
        assert_eq!(shared_folder(&["a/b/1.tar", "a/c/1.tar"]), 2);
        assert_eq!(shared_folder(&["a/bc/1.tar", "a/bd/1.tar"]), 2);
        assert_eq!(shared_folder(&["1.tar", "a/1.tar"]), 0);
        let url = lasting_name("http://me:x@h", "a/1.tar?X-Amz-Signature=0f");
        assert_eq!(url, "a/1.tar");
    }

    #[test]
    fn archives_are_known_by_their_names() {
        for name in ["a.tar", "a.TAR.gz", "x/a.tgz", "a.tar.zst", "a.tar.xz"] {
            assert!(is_archive(name), "{name}");
        }
        assert_eq!(plain_name("x/a.TAR.gz").unwrap(), "x/a.tar");
        assert_eq!(plain_name("a.tgz").unwrap(), "a.tar");
        assert_eq!((plain_name("a.tar"), plain_name("a.gz")), (None, None));
        for name in ["a.gz", "tar", "a.tar.index", "a.zip", "a.tar.txt"] {
            assert!(!is_archive(name), "{name}");
        }
    }
}
