//! Names of published files, what is not read because of them, and how that is told.
//!
//! A name that is not UTF-8 is read like any other and shown with `\xNN` for each byte that is not.
//! What a system leaves beside the files of a user (macOS: `._NAME`, `__MACOSX`, `.DS_Store`;
//! Windows: `Thumbs.db`, `desktop.ini`) is no sample. Whatever is not read is counted by kind, and
//! said once when a data set is opened: nothing is left out in silence.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::decode::video::is_frame;
use crate::decode::{has_extension, is_litter};
use crate::error::one_line;
use crate::shape::Modality;

/// Kinds that are told one by one; the rest is summed up.
const MAX_KINDS: usize = 8;

/// Files of a folder that can be samples.
pub(crate) struct Named {
    /// What they are called: their paths below the root, sorted. Of a film that is a folder of
    /// pictures, that folder and a slash.
    pub(crate) names: Vec<String>,
    /// Where those lie below the root whose names are not UTF-8.
    pub(crate) paths: BTreeMap<String, PathBuf>,
}

impl Named {
    /// Picks the files of a modality out of all below `root`, and tells what else there is.
    pub(crate) fn of(root: &Path, files: Vec<PathBuf>, modality: Modality) -> Self {
        let (mut names, mut paths) = (Vec::new(), BTreeMap::new());
        let (mut unread, mut num_litter) = (Tally::default(), 0);
        for file in files {
            let path = file.strip_prefix(root).unwrap_or(&file);
            let name = text_of(path.as_os_str().as_bytes());
            if is_litter(&name) {
                num_litter += 1;
            } else if has_extension(&name, modality.extensions()) {
                if path.to_str().is_none() {
                    paths.insert(name.clone(), path.to_owned());
                }
                names.push(name);
            } else if modality == Modality::Video && is_frame(&name) {
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                let folder = folder.unwrap_or(Path::new("."));
                let name = format!("{}/", text_of(folder.as_os_str().as_bytes()));
                if folder.to_str().is_none() {
                    paths.insert(name.clone(), folder.to_owned());
                }
                names.push(name);
            } else {
                unread.add(&kind_of(&name), 1);
            }
        }
        names.sort_unstable();
        names.dedup();
        let path = root.display();
        let files = unread.describe();
        if !unread.is_empty() && is_news(root, &files) {
            tracing::warn!(%path, files, "files not read: no decoder of data.modality takes them");
        }
        if num_litter > 0 && is_news(root, &format!("litter {num_litter}")) {
            tracing::info!(%path, num_litter, "files not read: a system left them (._*, .DS_Store, ...)");
        }
        if !paths.is_empty() && is_news(root, &format!("names {}", paths.len())) {
            let num_names = paths.len();
            tracing::info!(%path, num_names, "names that are not UTF-8 are shown with \\x and two digits");
        }
        Self { names, paths }
    }
}

/// A name as text; bytes that are not UTF-8 become `\xNN`.
pub(crate) fn text_of(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").expect("writing to a string cannot fail");
        }
    }
    text
}

/// The extension of a file with its dot, in lower case, as the kind of what is not read.
pub(crate) fn kind_of(name: &str) -> String {
    let file = name.rsplit('/').next().unwrap_or(name);
    match file.rsplit_once('.') {
        Some((_, extension)) if !extension.is_empty() => {
            format!(".{}", extension.to_ascii_lowercase())
        }
        _ => "without extension".to_owned(),
    }
}

/// Files by their kind.
#[derive(Debug, Default)]
pub(crate) struct Tally(BTreeMap<String, u64>);

impl Tally {
    pub(crate) fn add(&mut self, kind: &str, count: u64) {
        match self.0.get_mut(kind) {
            Some(known) => *known += count,
            None => drop(self.0.insert(kind.to_owned(), count)),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// "12 .json, 3 .txt": the most frequent first.
    pub(crate) fn describe(&self) -> String {
        let mut kinds: Vec<(&String, &u64)> = self.0.iter().collect();
        kinds.sort_by_key(|(kind, count)| (std::cmp::Reverse(**count), *kind));
        let shown = kinds.iter().take(MAX_KINDS);
        let mut words: Vec<String> =
            shown.map(|(kind, count)| format!("{count} {}", one_line(kind))).collect();
        let rest: u64 = kinds.iter().skip(MAX_KINDS).map(|(_, count)| **count).sum();
        if rest > 0 {
            words.push(format!("{rest} of {} other kinds", kinds.len() - MAX_KINDS));
        }
        words.join(", ")
    }
}

/// Whether this was not said before by this process about this data set: each split is opened on
/// its own.
pub(crate) fn is_news(place: &Path, words: &str) -> bool {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut told = TOLD.lock().expect("nothing panics while it is held");
    told.insert(format!("{} {words}", place.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_utf8_are_shown_and_all_others_stay() {
        assert_eq!(text_of("grün/0.png".as_bytes()), "grün/0.png");
        assert_eq!(text_of(b"gr\xfcn/\xff\xfe.png"), "gr\\xfcn/\\xff\\xfe.png");
    }

    #[test]
    fn what_systems_leave_is_known_by_its_name() {
        for name in ["._0.png", "a/._0.png", "__MACOSX/a/0.png", "a/.DS_Store", "a/thumbs.db"] {
            assert!(is_litter(name), "{name}");
            assert!(!is_frame(name), "{name}");
        }
        for name in ["0.png", "a/.0.png", "a._0.png", "MACOSX/0.png", "a/DS_Store"] {
            assert!(!is_litter(name), "{name}");
        }
    }

    #[test]
    fn kinds_are_counted_and_the_most_frequent_come_first() {
        let mut tally = Tally::default();
        assert!(tally.is_empty());
        for name in ["a.TXT", "b/c.txt", "LICENSE", "x.tar.gz", "trailing."] {
            tally.add(&kind_of(name), 1);
        }
        assert_eq!(tally.describe(), "2 .txt, 2 without extension, 1 .gz");
        for letter in 'a'..='h' {
            tally.add(&format!(".{letter}"), 5);
        }
        assert!(tally.describe().ends_with("5 .h, 5 of 3 other kinds"), "{}", tally.describe());
        let place = Path::new("somewhere of this test");
        assert!(is_news(place, "x") && !is_news(place, "x") && is_news(place, "y"));
    }
}
