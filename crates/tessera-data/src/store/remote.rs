//! Files that lie elsewhere, in pages that come through the cache.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};

use object_store::path::Path as ObjectPath;

use super::cache::{Cache, default_folder};
use super::client::{Client, Target};
use super::config::RemoteConfig;
use super::url::{lasting, shown, split_query};
use crate::error::DataError;
use crate::file;

/// A folder elsewhere.
#[derive(Debug)]
pub(crate) struct RemoteStore {
    /// As it was given, without a slash at its end and what is behind a question mark.
    url: String,
    /// What was behind it; sent with each file that has nothing of its own.
    query: String,
    /// Path of the folder in its store.
    prefix: String,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    cache: Cache,
    page_bytes: u64,
    /// Pages that are being fetched; who needs one of them waits.
    fetched: Mutex<BTreeSet<String>>,
    done: Condvar,
}

/// A file elsewhere.
pub(crate) struct RemoteBlob {
    target: Target,
    bytes: u64,
    /// Hash of URL, length and version: another file never has the same pages.
    identity: String,
    shared: Arc<Shared>,
}

impl RemoteStore {
    pub(super) fn new(path: &Path, config: &RemoteConfig) -> Result<Self, DataError> {
        let (url, query) = split_query(path.to_str().expect("a remote path is text"));
        let (url, query) = (url.trim_end_matches('/').to_owned(), query.to_owned());
        let shown = shown(path).display().to_string();
        let wrong = |problem: String| DataError::Remote { url: shown.clone(), problem };
        let (scheme, rest) = url.split_once("://").expect("a remote path has a scheme");
        let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if host.is_empty() {
            return Err(wrong(format!("names no host or bucket: write {scheme}://NAME/PATH")));
        }
        let client = Client::new(&format!("{scheme}://{host}"), config).map_err(wrong)?;
        let folder = match config.cache.as_os_str().is_empty() {
            true => default_folder(),
            false => config.cache.clone(),
        };
        let limit = (config.cache_gib * f64::from(1 << 30)) as u64;
        let cache = Cache::new(folder.clone(), limit)
            .map_err(|source| DataError::Write { path: folder, source })?;
        let shared = Shared {
            client,
            cache,
            page_bytes: config.page_mib << 20,
            fetched: Mutex::default(),
            done: Condvar::new(),
        };
        Ok(Self { prefix: prefix.to_owned(), shared: Arc::new(shared), url, query })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        shown(Path::new(&self.full(name)))
    }

    /// What stays of a file's URL when it is signed anew.
    pub(super) fn identity(&self, name: &str) -> String {
        lasting(&self.full(name))
    }

    /// A file's URL.
    fn full(&self, name: &str) -> String {
        let url = format!("{}/{name}", self.url);
        match self.query.as_str() {
            "" => url,
            _ if !split_query(&url).1.is_empty() => url,
            query => format!("{url}?{query}"),
        }
    }

    fn target(&self, name: &str) -> Target {
        if self.url.starts_with("http") {
            return Target::Url(self.full(name));
        }
        // A key is what it is; only what no key of this library can be is escaped.
        let key = format!("{}/{name}", self.prefix);
        let key = key.trim_start_matches('/');
        Target::Key(ObjectPath::parse(key).unwrap_or_else(|_| ObjectPath::from(key)))
    }

    pub(super) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.shared.client.get(&self.target(name), None)
    }

    pub(super) fn open_all(&self, names: &[&str]) -> Vec<io::Result<RemoteBlob>> {
        let targets: Vec<Target> = names.iter().map(|name| self.target(name)).collect();
        let heads = self.shared.client.heads(&targets);
        let blob =
            |((head, target), name): ((io::Result<object_store::ObjectMeta>, Target), &&str)| {
                let meta = head?;
                let version = meta.e_tag.unwrap_or_else(|| meta.last_modified.to_rfc3339());
                let identity = format!("{} {} {version}", self.identity(name), meta.size);
                Ok(RemoteBlob {
                    target,
                    bytes: meta.size,
                    identity: file::sha256_of(identity.as_bytes()),
                    shared: Arc::clone(&self.shared),
                })
            };
        heads.into_iter().zip(targets).zip(names).map(blob).collect()
    }

    /// Names below this folder.
    pub(crate) fn list(&self) -> io::Result<Vec<String>> {
        if self.url.starts_with("http") {
            // There is no one way to ask a web server what it has.
            return Err(io::Error::new(io::ErrorKind::Unsupported, "it is a web server"));
        }
        let prefix = self.prefix.as_str();
        let prefix = ObjectPath::parse(prefix).unwrap_or_else(|_| ObjectPath::from(prefix));
        let found = self.shared.client.list(&prefix)?;
        let below = |path: String| {
            let name = path.strip_prefix(&self.prefix).unwrap_or(&path);
            name.trim_start_matches('/').to_owned()
        };
        Ok(found.into_iter().map(below).collect())
    }
}

impl RemoteBlob {
    /// Hash of URL, length and version.
    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    pub(super) fn len(&self) -> u64 {
        self.bytes
    }

    pub(super) fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > self.bytes) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (mut at, mut out) = (offset, out);
        while !out.is_empty() {
            let page = at / self.shared.page_bytes;
            let within = at % self.shared.page_bytes;
            let count = (self.shared.page_bytes - within).min(out.len() as u64) as usize;
            let (now, later) = out.split_at_mut(count);
            self.read_page(page, now, within)?;
            (at, out) = (at + count as u64, later);
        }
        Ok(())
    }

    pub(super) fn forget(&self, offset: u64, bytes: u64) -> bool {
        let pages = offset / self.shared.page_bytes..=(offset + bytes) / self.shared.page_bytes;
        pages.map(|page| self.shared.cache.forget(&self.page_name(page))).fold(false, |a, b| a | b)
    }

    fn page_name(&self, page: u64) -> String {
        format!("{}-{}-{page}", self.identity, self.shared.page_bytes)
    }

    /// A page, from a server that only gives whole files; the other pages are kept as well.
    fn whole(&self, wanted: u64) -> io::Result<Vec<u8>> {
        let bytes = self.shared.client.get(&self.target, None)?;
        if bytes.len() as u64 != self.bytes {
            let (found, expected) = (bytes.len(), self.bytes);
            return Err(io::Error::other(format!("{found} of {expected} bytes came")));
        }
        let mut page = Vec::new();
        for (number, bytes) in (0..).zip(bytes.chunks(self.shared.page_bytes as usize)) {
            match number == wanted {
                true => page = bytes.to_vec(),
                false => self.shared.cache.keep(&self.page_name(number), bytes),
            }
        }
        Ok(page)
    }

    fn read_page(&self, page: u64, out: &mut [u8], within: u64) -> io::Result<()> {
        let name = self.page_name(page);
        let start = page * self.shared.page_bytes;
        let range = start..self.bytes.min(start + self.shared.page_bytes);
        let page_bytes = range.end - range.start;
        let Shared { client, cache, fetched, done, .. } = &*self.shared;
        loop {
            if cache.read(&name, page_bytes, out, within) {
                return Ok(());
            }
            let mut others = fetched.lock().expect("nothing panics while it is held");
            if others.insert(name.clone()) {
                break;
            }
            // Another thread fetches it.
            drop(done.wait(others).expect("nothing panics while it is held"));
        }
        let answer = match client.get(&self.target, Some(range)) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => self.whole(page),
            answer => answer,
        };
        if let Ok(bytes) = &answer {
            out.copy_from_slice(&bytes[within as usize..][..out.len()]);
            cache.keep(&name, bytes);
        }
        fetched.lock().expect("nothing panics while it is held").remove(&name);
        done.notify_all();
        answer.map(drop)
    }
}
