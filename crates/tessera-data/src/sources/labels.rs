//! Labels of NumPy arrays: `NAME_labels.npy` beside `NAME.npy`, or `labels.npy` beside the only array
//! of a folder. They are integers of any width, `[n]`; a negative one is the error of its sample.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use npyz::{DType, Endianness, NpyHeader, TypeChar, TypeStr};

use crate::error::{DataError, one_line};
use crate::file;

/// An array of pictures, and the file of its labels if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LabeledArray {
    pub(crate) path: PathBuf,
    pub(crate) labels: Option<PathBuf>,
}

/// The labels of an array, in memory.
pub(crate) struct Labels {
    path: PathBuf,
    labels: Vec<i64>,
    /// Files of labels of the same data set, this one among them.
    all: Vec<PathBuf>,
}

impl LabeledArray {
    /// Tells arrays of pictures from arrays of labels, by their names.
    pub(crate) fn of(files: Vec<PathBuf>) -> Vec<Self> {
        let key = |file: &Path, name: &str| {
            (file.parent().map(Path::to_owned), name.to_ascii_lowercase())
        };
        let names: Vec<_> = files.iter().map(|file| key(file, &stem(file))).collect();
        let array_of = |at: usize| {
            let (folder, name) = &names[at];
            let array = (folder.clone(), name.strip_suffix("_labels")?.to_owned());
            names.iter().position(|name| *name == array)
        };
        let mut labels: Vec<Option<usize>> = (0..files.len()).map(array_of).collect();
        for at in (0..files.len()).filter(|&at| names[at].1 == "labels") {
            let is_beside = |&other: &usize| {
                other != at && names[other].0 == names[at].0 && labels[other].is_none()
            };
            let arrays: Vec<usize> = (0..files.len()).filter(is_beside).collect();
            if let &[array] = arrays.as_slice()
                && !labels.contains(&Some(array))
            {
                labels[at] = Some(array);
            }
        }
        let array = |(at, path): (usize, &PathBuf)| {
            let own = labels.iter().position(|array| *array == Some(at));
            let own = own.map(|own| files[own].clone());
            labels[at].is_none().then(|| Self { path: path.clone(), labels: own })
        };
        files.iter().enumerate().filter_map(array).collect()
    }
}

impl Labels {
    /// Reads the labels at `path` of the `num_samples` samples of `array`; `all` are the files of
    /// labels of all splits.
    ///
    /// # Errors
    ///
    /// [`DataError::Array`] if it is no array of integers, `[n]`, or not of this length;
    /// [`DataError::Truncated`] or [`DataError::Read`].
    pub(crate) fn open(
        path: &Path,
        array: &Path,
        num_samples: u64,
        all: &[PathBuf],
    ) -> Result<Self, DataError> {
        let labels = read(path)?;
        if labels.len() as u64 != num_samples {
            let problem = format!(
                "holds {} labels for the {num_samples} samples of {}: save one for each",
                labels.len(),
                file::name_of(array)
            );
            return Err(DataError::Array { path: path.to_owned(), problem });
        }
        Ok(Self { path: path.to_owned(), labels, all: all.to_owned() })
    }

    /// The label of sample `id`.
    pub(crate) fn get(&self, id: u64) -> Result<i64, DataError> {
        let label = self.labels[id as usize];
        if label < 0 {
            let (container, sample) = (self.path.clone(), id.to_string());
            let problem = format!("has label {label}, expected 0 or more");
            return Err(DataError::CorruptFile { container, sample, problem });
        }
        Ok(label)
    }

    /// One more than the largest label of all splits.
    pub(crate) fn num_classes(&self) -> Result<u64, DataError> {
        let mut largest = self.labels.iter().copied().max().unwrap_or(-1);
        for other in self.all.iter().filter(|other| **other != self.path) {
            largest = read(other)?.into_iter().fold(largest, i64::max);
        }
        Ok((largest.max(-1) + 1) as u64)
    }

    /// The file that they are in.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Name of a file without its extension.
fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn read(path: &Path) -> Result<Vec<i64>, DataError> {
    let read_error = |source| DataError::Read { path: path.to_owned(), source };
    let wrong =
        |problem: String| DataError::Array { path: path.to_owned(), problem: one_line(&problem) };
    let mut reader = BufReader::new(File::open(path).map_err(read_error)?);
    let header = NpyHeader::from_reader(&mut reader)
        .map_err(|error| wrong(format!("is no NumPy array ({error})")))?;
    let element = match header.dtype() {
        DType::Plain(element) => integer(&element),
        _ => None,
    };
    let &[num_labels] = header.shape() else {
        let shape = header.shape();
        return Err(wrong(format!("has shape {shape:?}, expected [n]: a label for each sample")));
    };
    let Some((width, number)) = element else {
        let found = header.dtype().descr();
        return Err(wrong(format!(
            "has elements {found}, expected integers: save labels with labels.astype(np.int64)"
        )));
    };
    // A header may promise more than there is: memory follows what is read.
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(read_error)?;
    let (expected, found) = (num_labels.saturating_mul(width as u64), bytes.len() as u64);
    if found < expected {
        let path = path.to_owned();
        return Err(DataError::Truncated { path, expected, found, unit: "bytes of labels" });
    }
    if found > expected {
        return Err(wrong(format!("holds {num_labels} labels in {found} bytes")));
    }
    let labels: Option<Vec<i64>> = bytes.chunks_exact(width).map(number).collect();
    labels.ok_or_else(|| wrong("holds a label of 2^63 or more, which is no class".to_owned()))
}

/// Bytes of an integer, and how they become a number.
type Integer = (usize, Box<dyn Fn(&[u8]) -> Option<i64>>);

fn integer(element: &TypeStr) -> Option<Integer> {
    let is_signed = match element.type_char() {
        TypeChar::Int => true,
        TypeChar::Uint => false,
        _ => return None,
    };
    let width = element.num_bytes().filter(|width| [1, 2, 4, 8].contains(width))?;
    let is_big = element.endianness() == Endianness::Big;
    let number = move |bytes: &[u8]| {
        let byte = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        let number = match is_big {
            true => bytes.iter().fold(0, byte),
            false => bytes.iter().rev().fold(0, byte),
        };
        let unused = 64 - 8 * width as u32;
        match is_signed {
            true => Some((number << unused) as i64 >> unused),
            false => i64::try_from(number).ok(),
        }
    };
    Some((width, Box::new(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_belong_to_the_array_of_their_name() {
        let told = |files: &[&str]| -> Vec<String> {
            let arrays = LabeledArray::of(files.iter().map(PathBuf::from).collect());
            let told = |array: &LabeledArray| {
                let labels = array.labels.as_deref().map_or("-".into(), Path::to_string_lossy);
                format!("{} {labels}", array.path.display())
            };
            arrays.iter().map(told).collect()
        };
        let both = ["test.npy", "test_labels.npy", "Train.npy", "train_LABELS.npy"];
        assert_eq!(told(&both), ["test.npy test_labels.npy", "Train.npy train_LABELS.npy"]);
        assert_eq!(told(&["images.npy", "labels.npy"]), ["images.npy labels.npy"]);
        assert_eq!(told(&["a/images.npy", "b/labels.npy"]).len(), 2, "another folder");
        assert_eq!(told(&["labels.npy"]), ["labels.npy -"], "an array of that name");
        assert_eq!(told(&["labels.npy", "labels_labels.npy"]), ["labels.npy labels_labels.npy"]);
        assert_eq!(told(&["a.npy", "b.npy", "labels.npy"]).len(), 3, "of which?");
        let own = ["a.npy", "a_labels.npy", "labels.npy"];
        assert_eq!(told(&own), ["a.npy a_labels.npy", "labels.npy -"]);
    }

    #[test]
    fn integers_of_any_width_and_order_are_numbers() {
        let number = |element: &str, bytes: &[u8]| {
            let (width, number) = integer(&element.parse().unwrap()).unwrap();
            assert_eq!(width, bytes.len());
            number(bytes)
        };
        assert_eq!(number("|u1", &[200]), Some(200));
        assert_eq!(number("|i1", &[0xff]), Some(-1));
        assert_eq!((number("<i2", &[2, 1]), number(">i2", &[1, 2])), (Some(258), Some(258)));
        assert_eq!(number("<u4", &[0, 0, 0, 0x80]), Some(1 << 31));
        assert_eq!(number("<i8", &[0xfe, 255, 255, 255, 255, 255, 255, 255]), Some(-2));
        assert_eq!(number(">u8", &[0x80, 0, 0, 0, 0, 0, 0, 0]), None);
        for element in ["<f4", "|b1", "|S1"] {
            assert!(integer(&element.parse().unwrap()).is_none(), "{element}");
        }
    }
}
