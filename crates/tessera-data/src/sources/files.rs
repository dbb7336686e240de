//! Collections of published files: folders, and archives (`webdataset.rs`).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::config::DataConfig;
use crate::error::{DataError, one_line};
use crate::file;
use crate::sources::names::Named;
use crate::sources::pattern::{self, Expanded};
use crate::sources::splits::{self, Division, Unit};

/// Files by number, of one split, in an order that is the same on every machine.
pub(crate) trait Files: Send + Sync {
    /// Number of files.
    fn num_files(&self) -> usize;

    /// Name of a file inside the collection, with `/` between folders.
    fn name(&self, index: usize) -> String;

    /// The bytes of a file.
    fn read(&self, index: usize) -> Result<Vec<u8>, DataError>;

    /// Where it lies on its own, if it does. Of a film that is a folder of pictures, whose name ends
    /// with `/`: that folder.
    fn path(&self, _index: usize) -> Option<PathBuf> {
        None
    }

    /// Number of its class, if it has one.
    fn label(&self, index: usize) -> Result<Option<i64>, DataError>;

    /// Whether any file has a class.
    fn has_labels(&self) -> bool;

    /// Number of classes; none if no file has one.
    fn num_classes(&self) -> Result<Option<u64>, DataError>;

    /// Names of the classes by their numbers, if they have names.
    fn classes(&self) -> Vec<String> {
        Vec::new()
    }

    /// How files came to their split and what was left out, in lines for a person.
    fn notes(&self) -> Vec<String>;

    /// What the collection is called.
    fn root(&self) -> &Path;

    /// What holds this file: a folder, an archive.
    fn container(&self, _index: usize) -> PathBuf {
        self.root().to_owned()
    }

    /// The first file of each archive, and at the end the number of files; none for a folder.
    fn archive_starts(&self) -> Option<Vec<u64>> {
        None
    }

    /// Hash over names and contents, or names and lengths where contents are not known.
    fn fingerprint(&self) -> String;

    /// The error of a file that is not what it should be.
    fn corrupt(&self, index: usize, problem: String) -> DataError {
        let (container, sample) = (self.container(index), one_line(&self.name(index)));
        DataError::CorruptFile { container, sample, problem: one_line(&problem) }
    }
}

/// The files of one modality in a folder and all folders below it.
pub(crate) struct FolderFiles {
    root: PathBuf,
    /// Sorted by name.
    files: Vec<FolderFile>,
    /// Names of classes, sorted, of all splits together: the folders right above the files, if all
    /// files are in one.
    classes: Vec<String>,
    notes: Vec<String>,
    fingerprint: String,
}

struct FolderFile {
    /// Path below the root.
    name: String,
    /// The same, where it is not UTF-8.
    path: Option<PathBuf>,
    /// Number of its class.
    class: Option<u32>,
}

impl FolderFiles {
    /// Lists the files of `split` below what `data.path` stands for.
    ///
    /// # Errors
    ///
    /// [`DataError::NoFiles`] if there are none, [`DataError::NoSplit`] if none is in this split,
    /// [`DataError::Config`] if `data.split` does not fit, [`DataError::Pattern`],
    /// [`DataError::Read`] if a folder cannot be read.
    pub(crate) fn open(data: &DataConfig, split: &str) -> Result<Self, DataError> {
        splits::check(split)?;
        let DataConfig { path, modality, .. } = data;
        let (root, listing) = files_at(path)?;
        let root = root.as_path();
        let Named { names, paths: not_utf8 } = Named::of(root, listing.files, *modality);
        if names.is_empty() {
            let extensions = modality.extensions().join(", ");
            return Err(DataError::NoFiles { path: path.to_owned(), extensions });
        }
        let paths: Vec<&str> = names.iter().map(String::as_str).collect();
        let division = Division::of(&paths, Unit::Folder, data)?;
        let splits: Vec<_> =
            names.iter().enumerate().map(|(at, name)| division.split_of(at, stem(name))).collect();
        let mut notes = division.notes(&splits, |at| names[at].clone());
        notes.extend(listing.notes);
        let class =
            |at: usize| splits[at].and_then(|_| class(paths[at], division.prefixes[at] as usize));
        let classes = match classes(&splits, class) {
            Ok(classes) => classes.into_iter().map(str::to_owned).collect(),
            Err(without) => {
                let name = one_line(paths[without]);
                notes.push(format!("no labels: {name} is in no folder of a class"));
                Vec::new()
            }
        };
        let number = |class: &str| {
            let found = classes.binary_search_by(|known: &String| known.as_str().cmp(class));
            found.ok().map(|at| at as u32)
        };
        let numbers: Vec<_> = (0..names.len()).map(|at| class(at).and_then(number)).collect();
        let here = |((name, class), found): ((String, Option<u32>), Option<&str>)| {
            let path = not_utf8.get(&name).cloned();
            (found == Some(split)).then_some(FolderFile { name, path, class })
        };
        let files: Vec<FolderFile> =
            names.into_iter().zip(numbers).zip(splits).filter_map(here).collect();
        if files.is_empty() {
            return Err(no_split(root, split));
        }
        let fingerprint = fingerprint(root, &files)?;
        Ok(Self { root: root.to_owned(), files, classes, notes, fingerprint })
    }

    /// Where a file lies.
    fn place(&self, index: usize) -> PathBuf {
        let FolderFile { name, path, .. } = &self.files[index];
        self.root.join(path.as_deref().unwrap_or(Path::new(name)))
    }
}

/// The files that a folder, a file or a pattern stands for, and the folder that all are in.
fn files_at(path: &Path) -> Result<(PathBuf, Listing), DataError> {
    let expanded = pattern::expand_local(path);
    let wrong = |problem| DataError::Pattern { path: path.to_owned(), problem };
    let Expanded { root, paths } = expanded.map_err(wrong)?;
    let mut found = Listing { files: Vec::new(), notes: Vec::new() };
    for path in paths {
        if path.is_file() {
            found.files.push(path);
        } else {
            let Listing { files, notes } = list(&path)?;
            found.files.extend(files);
            found.notes.extend(notes);
        }
    }
    Ok((root, found))
}

impl Files for FolderFiles {
    fn num_files(&self) -> usize {
        self.files.len()
    }

    fn name(&self, index: usize) -> String {
        self.files[index].name.clone()
    }

    fn read(&self, index: usize) -> Result<Vec<u8>, DataError> {
        fs::read(self.place(index)).map_err(|source| DataError::ReadSample {
            shard: self.root.clone(),
            sample: self.name(index),
            source,
        })
    }

    fn path(&self, index: usize) -> Option<PathBuf> {
        Some(self.place(index))
    }

    fn label(&self, index: usize) -> Result<Option<i64>, DataError> {
        Ok(self.files[index].class.map(i64::from))
    }

    fn has_labels(&self) -> bool {
        !self.classes.is_empty()
    }

    fn num_classes(&self) -> Result<Option<u64>, DataError> {
        Ok(self.has_labels().then_some(self.classes.len() as u64))
    }

    fn classes(&self) -> Vec<String> {
        self.classes.clone()
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn root(&self) -> &Path {
        &self.root
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

/// No sample of the data set is in this split.
pub(crate) fn no_split(root: &Path, split: &str) -> DataError {
    let (other, how) = match split {
        splits::TEST => (splits::TRAIN, "data.holdout says which part is held out"),
        _ => (splits::TEST, "data.split says which folders or archives are which split"),
    };
    DataError::NoSplit {
        path: root.to_owned(),
        split: split.to_owned(),
        available: format!("{other} ({how})"),
    }
}

/// All files below a folder, and what could not be followed on the way.
pub(crate) struct Listing {
    /// Unsorted.
    pub(crate) files: Vec<PathBuf>,
    /// Lines about links, for a person.
    pub(crate) notes: Vec<String>,
}

/// All files below `folder`; links are followed, but for those to a folder that they are in.
pub(crate) fn list(folder: &Path) -> Result<Listing, DataError> {
    let read_error = |path: &Path, source| DataError::Read { path: path.to_owned(), source };
    fs::read_dir(folder).map_err(|source| read_error(folder, source))?;
    let (mut files, mut nowhere, mut circles) = (Vec::new(), Vec::new(), Vec::new());
    for entry in WalkDir::new(folder).follow_links(true) {
        let error = match entry {
            Ok(entry) if entry.file_type().is_file() => {
                files.push(entry.into_path());
                continue;
            }
            Ok(_) => continue,
            Err(error) => error,
        };
        let path = error.path().unwrap_or(folder).to_owned();
        let below = || path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
        if error.loop_ancestor().is_some() {
            circles.push(below());
            continue;
        }
        let source = error.into_io_error().expect("all but circles are errors of the system");
        if leads_nowhere(&path, &source) {
            nowhere.push(below());
            continue;
        }
        return Err(read_error(&path, source));
    }
    let mut notes = Vec::new();
    for (what, mut names) in [
        ("left out, since they lead nowhere: the links", nowhere),
        ("not followed, since they lead back to a folder that they are in: the links", circles),
    ] {
        names.sort_unstable();
        if !names.is_empty() {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            notes.push(format!("{what} {}", splits::listed(&names)));
        }
    }
    Ok(Listing { files, notes })
}

fn leads_nowhere(path: &Path, error: &io::Error) -> bool {
    let missing = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
    missing && fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
}

/// All files below `folder`, for sources that tell nothing themselves. A file that is reached under
/// one name by several ways is there once.
pub(crate) fn list_files(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let Listing { mut files, notes } = list(folder)?;
    for note in notes {
        tracing::warn!(folder = %folder.display(), "{note}");
    }
    files.sort_unstable();
    let mut seen = BTreeSet::new();
    files.retain(|file| {
        let real = fs::canonicalize(file).unwrap_or_else(|_| file.clone());
        seen.insert((real, file.file_name().map(ToOwned::to_owned)))
    });
    Ok(files)
}

/// A name up to the first dot of its file name: what members of a sample in an archive share.
pub(crate) fn key(name: &str) -> &str {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    name[file..].find('.').map_or(name, |dot| &name[..file + dot])
}

/// A name without its extension: by its hash a file of a folder is held out.
fn stem(name: &str) -> &str {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[file..].rfind('.') {
        Some(dot) if dot > 0 => &name[..file + dot],
        _ => name,
    }
}

/// Folder right above a file, or above the folder that is a film, if it is one behind the `prefix`
/// that names the split.
fn class(name: &str, prefix: usize) -> Option<&str> {
    let (folders, _) = name[prefix..].trim_matches('/').rsplit_once('/')?;
    Some(folders.rsplit_once('/').map_or(folders, |(_, last)| last))
}

/// All classes, sorted; none if no file has one. The error is the first file without one, where
/// others have one.
fn classes<'a>(
    splits: &[Option<&str>],
    class: impl Fn(usize) -> Option<&'a str>,
) -> Result<BTreeSet<&'a str>, usize> {
    let (mut classes, mut without) = (BTreeSet::new(), None);
    for at in (0..splits.len()).filter(|&at| splits[at].is_some()) {
        match class(at) {
            Some(class) => {
                classes.insert(class);
            }
            None => without = without.or(Some(at)),
        }
    }
    match without {
        Some(at) if !classes.is_empty() => Err(at),
        _ => Ok(classes),
    }
}

fn fingerprint(root: &Path, files: &[FolderFile]) -> Result<String, DataError> {
    let mut hasher = file::Hasher::default();
    for FolderFile { name, path, .. } in files {
        let path = root.join(path.as_deref().unwrap_or(Path::new(name)));
        let bytes = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(source) => return Err(DataError::Read { path, source }),
        };
        hasher.update(format!("{name}\0{bytes}\n").as_bytes());
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_name_ends_at_its_last_dot_and_a_samples_at_its_first() {
        for (name, whole, first) in [
            ("frame.0001.png", "frame.0001", "frame"),
            ("a.b/c d 10.15.30.jpeg", "a.b/c d 10.15.30", "a.b/c d 10"),
            ("a/.hidden", "a/.hidden", "a/"),
            ("a/none", "a/none", "a/none"),
            ("film.1/", "film.1/", "film.1/"),
        ] {
            assert_eq!((stem(name), key(name)), (whole, first));
        }
    }

    #[test]
    fn a_class_is_the_folder_above_a_file_unless_that_is_the_split() {
        assert_eq!(class("train/cat/1.png", 5), Some("cat"));
        assert_eq!(class("train/1.png", 5), None);
        assert_eq!(class("pets/cat/1.png", 0), Some("cat"));
        assert_eq!(class("1.png", 0), None);
        assert_eq!(class("dogs/film/", 0), Some("dogs"));
        assert_eq!((class("film/", 0), class("train/", 5)), (None, None));
    }
}
