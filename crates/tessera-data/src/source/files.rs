//! Collections of published files: folders, and archives (`webdataset.rs`).

use std::fs;
use std::path::{Path, PathBuf};

use crate::decode::video::is_frame;
use crate::decode::{Modality, has_extension};
use crate::error::{DataError, one_line};
use crate::file;
use crate::source::splits;

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
    /// Paths below the root, sorted.
    names: Vec<String>,
    /// Names of classes, sorted: the folders right above the files, if all files are in one.
    classes: Vec<String>,
    fingerprint: String,
}

impl FolderFiles {
    /// Lists the files of `split` below `root`.
    ///
    /// # Errors
    ///
    /// [`DataError::NoFiles`] if there are none, [`DataError::Read`] if a folder cannot be read.
    pub(crate) fn open(
        root: &Path,
        modality: Modality,
        split: &str,
        holdout: f64,
    ) -> Result<Self, DataError> {
        let mut names = Vec::new();
        for path in list_files(root)? {
            let name = path.strip_prefix(root).expect("it was found below the root");
            let Some(name) = name.to_str() else {
                let problem = "holds a file whose name is not UTF-8".to_owned();
                return Err(DataError::Folder { path, problem });
            };
            if has_extension(name, modality.extensions()) {
                names.push(name.to_owned());
            } else if modality == Modality::Video && is_frame(name) {
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                names.push(format!("{folder}/"));
            }
        }
        if names.is_empty() {
            let extensions = modality.extensions().join(", ");
            return Err(DataError::NoFiles { path: root.to_owned(), extensions });
        }
        names.sort_unstable();
        names.dedup();
        let first_folder = |name: &String| name.split_once('/').map(|(first, _)| first.to_owned());
        splits::keep(&mut names, split, holdout, first_folder, |name| key(name).to_owned())?;
        if names.is_empty() {
            return Err(no_split(root, split));
        }
        let classes = classes(&names);
        let fingerprint = fingerprint(root, &names)?;
        Ok(Self { root: root.to_owned(), names, classes, fingerprint })
    }
}

impl Files for FolderFiles {
    fn num_files(&self) -> usize {
        self.names.len()
    }

    fn name(&self, index: usize) -> String {
        self.names[index].clone()
    }

    fn read(&self, index: usize) -> Result<Vec<u8>, DataError> {
        let name = &self.names[index];
        fs::read(self.root.join(name)).map_err(|source| DataError::ReadSample {
            shard: self.root.clone(),
            sample: name.clone(),
            source,
        })
    }

    fn path(&self, index: usize) -> Option<PathBuf> {
        Some(self.root.join(&self.names[index]))
    }

    fn label(&self, index: usize) -> Result<Option<i64>, DataError> {
        let class = class(&self.names[index]);
        Ok(class.and_then(|class| {
            self.classes
                .binary_search_by(|known| known.as_str().cmp(class))
                .ok()
                .map(|at| at as i64)
        }))
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
    let other = if split == splits::TEST { splits::TRAIN } else { splits::TEST };
    DataError::NoSplit {
        path: root.to_owned(),
        split: split.to_owned(),
        available: format!("{other} (data.holdout says which part is held out)"),
    }
}

/// All files below `folder`, unsorted; links to folders are not followed, so there are no cycles.
pub(crate) fn list_files(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        let read_error = |source| DataError::Read { path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(read_error)? {
            let entry = entry.map_err(read_error)?;
            let kind = entry.file_type().map_err(read_error)?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() || entry.path().is_file() {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

/// A name up to the first dot of its file name: what members of a sample in an archive share, so
/// that the same samples are held out of a folder and of archives made from it.
pub(crate) fn key(name: &str) -> &str {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    name[file..].find('.').map_or(name, |dot| &name[..file + dot])
}

/// Folder right above a file.
fn class(name: &str) -> Option<&str> {
    let (folders, _) = name.rsplit_once('/')?;
    Some(folders.rsplit_once('/').map_or(folders, |(_, last)| last))
}

fn classes(names: &[String]) -> Vec<String> {
    let Some(mut classes) = names.iter().map(|name| class(name)).collect::<Option<Vec<_>>>() else {
        return Vec::new();
    };
    classes.sort_unstable();
    classes.dedup();
    classes.into_iter().map(str::to_owned).collect()
}

fn fingerprint(root: &Path, names: &[String]) -> Result<String, DataError> {
    let mut hasher = file::Hasher::default();
    for name in names {
        let path = root.join(name);
        let bytes = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(source) => return Err(DataError::Read { path, source }),
        };
        hasher.update(format!("{name}\0{bytes}\n").as_bytes());
    }
    Ok(hasher.finish())
}
