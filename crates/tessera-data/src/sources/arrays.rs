//! Which NumPy array at a path is which split, and which labels belong to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::DataConfig;
use crate::decode::has_extension;
use crate::error::DataError;
use crate::file;
use crate::samples::Source;
use crate::sources::files::{list_files, no_split};
use crate::sources::labels::LabeledArray;
use crate::sources::records::RecordSource;
use crate::sources::splits;
use crate::sources::splits::{Division, Place, Unit};
use crate::sources::subset::Subset;

/// The array for `split` at `data.path`: the file itself, of which a part is held out, or in a
/// folder `train.npy` and `test.npy` (or names that begin so, or that `data.split` gives).
///
/// # Errors
///
/// [`DataError::NoFiles`], [`DataError::NoSplit`], [`DataError::Array`], [`DataError::Config`] or
/// [`DataError::Truncated`].
pub(crate) fn open_arrays(data: &DataConfig, split: &str) -> Result<Arc<dyn Source>, DataError> {
    let DataConfig { path, holdout, .. } = data;
    splits::check(split)?;
    if !path.is_dir() {
        return part_of_array(path, &beside(path)?, split, *holdout);
    }
    let mut files = list_files(path)?;
    files.retain(|file| is_array(file));
    if files.is_empty() {
        return Err(DataError::NoFiles { path: path.to_owned(), extensions: "npy".to_owned() });
    }
    files.sort_unstable();
    let files = LabeledArray::of(files);
    if let ([file], true) = (files.as_slice(), data.split.is_empty()) {
        return part_of_array(path, file, split, *holdout);
    }
    let names: Vec<String> = files.iter().map(|file| file::name_of(&file.path)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let division = Division::of(&names, Unit::Array, data)?;
    let of = |wanted: &[Place]| -> Vec<&LabeledArray> {
        let files = files.iter().zip(&division.places);
        files.filter(|(_, place)| wanted.contains(place)).map(|(file, _)| file).collect()
    };
    // Without an array for the test, a part of the one for training is held out.
    let (train, test) = (of(&[Place::Train, Place::ByName]), of(&[Place::Test]));
    let found = if split == splits::TEST && !test.is_empty() { &test } else { &train };
    match found.as_slice() {
        [file] if test.is_empty() => part_of_array(path, file, split, *holdout),
        [file] => {
            let all: Vec<&LabeledArray> = train.iter().chain(&test).copied().collect();
            Ok(Arc::new(open_array(file, &all)?))
        }
        [] => Err(no_split(path, split)),
        found => Err(DataError::Array {
            path: path.to_owned(),
            problem: format!(
                "holds {} arrays for split {split:?} ({}), expected one: name them train.npy and \
                 test.npy, or say with data.split which is which",
                found.len(),
                splits::listed(
                    &found
                        .iter()
                        .filter_map(|file| file.path.file_name()?.to_str())
                        .collect::<Vec<_>>()
                )
            ),
        }),
    }
}

/// The part of an array that belongs to `split`, by the hash of its samples' numbers.
fn part_of_array(
    root: &Path,
    array: &LabeledArray,
    split: &str,
    holdout: f64,
) -> Result<Arc<dyn Source>, DataError> {
    let all = Arc::new(open_array(array, &[array])?);
    match Subset::by_hash(all, split, holdout)? {
        Some(subset) => Ok(Arc::new(subset)),
        None => Err(no_split(root, split)),
    }
}

/// An array; its labels are of as many classes as those of `all` arrays of the data set.
fn open_array(array: &LabeledArray, all: &[&LabeledArray]) -> Result<RecordSource, DataError> {
    let of_all: Vec<PathBuf> = all.iter().filter_map(|array| array.labels.clone()).collect();
    RecordSource::open_array(&array.path, array.labels.as_deref(), &of_all)
}

/// An array that is named itself, with the labels that lie beside it.
fn beside(path: &Path) -> Result<LabeledArray, DataError> {
    let alone = LabeledArray { path: path.to_owned(), labels: None };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // Without the file its own error is told.
    let Ok(entries) = fs::read_dir(folder) else { return Ok(alone) };
    let mut files = vec![path.to_owned()];
    for entry in entries {
        let entry = entry.map_err(|source| DataError::Read { path: folder.to_owned(), source })?;
        let file = path.with_file_name(entry.file_name());
        if file != path && is_array(&file) {
            files.push(file);
        }
    }
    files.sort_unstable();
    let mut arrays = LabeledArray::of(files).into_iter();
    Ok(arrays.find(|array| array.path == path).unwrap_or(alone))
}

fn is_array(file: &Path) -> bool {
    has_extension(&file::name_of(file), &["npy"])
}
