//! IDX, the format of MNIST and its successors, plain or gzipped.
//!
//! Four bytes of magic (two zeros, the element type, the number of axes), one big-endian
//! 32-bit length an axis, then the elements; described at
//! <https://yann.lecun.com/exdb/mnist/>. Only unsigned bytes are read here. The length is
//! checked exactly: a download that stopped early is refused, not packed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::draw::Draw;
use crate::error::DataError;
use crate::file;
use crate::samples::{Source, assert_read};
use crate::shape::SampleShape;
use crate::sources::files::list_files;

/// Magic of a file of images: unsigned bytes, three axes.
const IMAGES_MAGIC: u32 = 0x0000_0803;

/// Magic of a file of labels: unsigned bytes, one axis.
const LABELS_MAGIC: u32 = 0x0000_0801;

/// Splits of an IDX folder: what we call them, what the files call them.
const SPLITS: [(&str, &[&str]); 2] = [("train", &["train"]), ("test", &["t10k", "test"])];

/// One IDX file, read item after item from its beginning.
pub struct IdxReader {
    path: PathBuf,
    reader: Box<dyn Read>,
    unit: &'static str,
    dims: Vec<u32>,
    item_bytes: usize,
    expected_bytes: u64,
    read_bytes: u64,
}

impl IdxReader {
    /// Opens a file of images `[n, height, width]`; gzip is recognized by its content.
    ///
    /// # Errors
    ///
    /// [`DataError::Idx`], [`DataError::Truncated`] or [`DataError::Read`].
    pub fn open_images(path: &Path) -> Result<Self, DataError> {
        let reader = Self::open(path, IMAGES_MAGIC, 3)?;
        reader.image_shape().check().map_err(|problem| reader.problem(problem))?;
        Ok(reader)
    }

    /// Opens a file of labels `[n]`; gzip is recognized by its content.
    ///
    /// # Errors
    ///
    /// As [`IdxReader::open_images`].
    pub fn open_labels(path: &Path) -> Result<Self, DataError> {
        Self::open(path, LABELS_MAGIC, 1)
    }

    /// Number of images or labels.
    pub fn num_items(&self) -> u64 {
        u64::from(self.dims[0])
    }

    /// Shape of an image: one channel. A label is an image of one pixel.
    pub fn image_shape(&self) -> SampleShape {
        let [height, width] = [1, 2].map(|axis| self.dims.get(axis).copied().unwrap_or(1));
        SampleShape::image(1, height, width)
    }

    /// Reads all items, and checks that nothing follows the last one.
    ///
    /// # Errors
    ///
    /// [`DataError::Truncated`] if the file ends too early, [`DataError::Idx`] if it does not end
    /// where it should.
    pub fn read_all(mut self) -> Result<Vec<u8>, DataError> {
        // A header may promise more than there is: memory follows what is read.
        let mut items = Vec::new();
        let mut block = vec![0; self.item_bytes];
        for _ in 0..self.num_items() {
            self.fill(&mut block)?;
            items.extend_from_slice(&block);
        }
        self.finish().map(|()| items)
    }

    fn finish(mut self) -> Result<(), DataError> {
        match self.reader.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.longer()),
            Err(error) => Err(self.read_problem(error)),
        }
    }

    fn open(path: &Path, magic: u32, num_axes: usize) -> Result<Self, DataError> {
        let read_error = |source| DataError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read_error)?;
        let file_bytes = file.metadata().map_err(read_error)?.len();
        let mut buffered = BufReader::with_capacity(1 << 18, file);
        let gzipped = buffered.fill_buf().map_err(read_error)?.starts_with(&[0x1f, 0x8b]);
        let reader: Box<dyn Read> =
            if gzipped { Box::new(MultiGzDecoder::new(buffered)) } else { Box::new(buffered) };
        let mut idx = Self {
            path: path.to_owned(),
            reader,
            unit: if gzipped { "bytes after decompression" } else { "bytes" },
            dims: vec![0; num_axes],
            item_bytes: 1,
            expected_bytes: 4 + 4 * num_axes as u64,
            read_bytes: 0,
        };
        let found = idx.read_u32()?;
        if found != magic {
            let problem = format!(
                "is not the IDX file its name promises: it starts with {found:#010x}, expected {magic:#010x}"
            );
            return Err(idx.problem(problem));
        }
        for axis in 0..num_axes {
            idx.dims[axis] = idx.read_u32()?;
        }
        idx.measure()?;
        if !gzipped && file_bytes < idx.expected_bytes {
            return Err(idx.truncated(file_bytes));
        }
        if !gzipped && file_bytes > idx.expected_bytes {
            return Err(idx.longer());
        }
        Ok(idx)
    }

    /// Derives the sizes that the header promises.
    fn measure(&mut self) -> Result<(), DataError> {
        if self.dims[0] == 0 {
            return Err(self.problem("holds no items".to_owned()));
        }
        let item_bytes = self.dims[1..].iter().try_fold(1usize, |bytes, &dim| {
            bytes.checked_mul(dim as usize).filter(|&bytes| bytes <= 1 << 30)
        });
        let Some(item_bytes) = item_bytes else {
            return Err(self.problem(format!("claims items of {:?} bytes", &self.dims[1..])));
        };
        self.item_bytes = item_bytes;
        self.expected_bytes += u64::from(self.dims[0]) * item_bytes as u64;
        Ok(())
    }

    fn read_u32(&mut self) -> Result<u32, DataError> {
        let mut bytes = [0; 4];
        self.fill(&mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }

    /// Fills `out`, counting what was there if the file ends inside it.
    fn fill(&mut self, out: &mut [u8]) -> Result<(), DataError> {
        let mut filled = 0;
        while filled < out.len() {
            match self.reader.read(&mut out[filled..]) {
                Ok(0) => return Err(self.truncated(self.read_bytes)),
                Ok(count) => {
                    filled += count;
                    self.read_bytes += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.read_problem(error)),
            }
        }
        Ok(())
    }

    fn read_problem(&self, error: io::Error) -> DataError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.truncated(self.read_bytes),
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
                self.problem(format!("is damaged gzip ({error}): fetch it again"))
            }
            _ => DataError::Read { path: self.path.clone(), source: error },
        }
    }

    fn truncated(&self, found: u64) -> DataError {
        let (path, expected) = (self.path.clone(), self.expected_bytes);
        DataError::Truncated { path, expected, found, unit: self.unit }
    }

    fn longer(&self) -> DataError {
        let (expected, unit) = (self.expected_bytes, self.unit);
        self.problem(format!("is longer than its header says ({expected} {unit}): fetch it again"))
    }

    fn problem(&self, problem: String) -> DataError {
        DataError::Idx { path: self.path.clone(), problem }
    }
}

/// The files of one split of an IDX folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdxSplit {
    /// Name of the split: `train` or `test`.
    pub name: &'static str,
    /// The file of images.
    pub images: PathBuf,
    /// The file of labels, if there is one.
    pub labels: Option<PathBuf>,
}

/// Finds `{train,t10k}-images-idx3-ubyte[.gz]` and their labels anywhere below `folder`; `test` is
/// taken for `t10k`. Other images beside them are named in the log.
///
/// Names in upper case are found as well, and names with a dot for the second hyphen (`train-images.idx3-ubyte`) are found as well; a
/// plain file goes before a gzipped one beside it. The split `train` must exist.
///
/// # Errors
///
/// [`DataError::Idx`] if there are no training images, or two candidates in two folders;
/// [`DataError::Read`] if a folder cannot be read.
pub fn find_splits(folder: &Path) -> Result<Vec<IdxSplit>, DataError> {
    let mut files = list_files(folder)?;
    files.sort();
    let mut splits = Vec::new();
    for (name, prefixes) in SPLITS {
        let (images, labels) = (["images", "idx3-ubyte"], ["labels", "idx1-ubyte"]);
        let images = find_one(folder, &files, prefixes, images)?;
        let labels = find_one(folder, &files, prefixes, labels)?;
        match images {
            Some(images) => splits.push(IdxSplit { name, images, labels }),
            None if name == "train" => {
                let problem = "holds no train-images-idx3-ubyte or train-images-idx3-ubyte.gz, \
                               here or below: give the folder of an MNIST-like data set"
                    .to_owned();
                return Err(DataError::Idx { path: folder.to_owned(), problem });
            }
            None => {}
        }
    }
    let known = |file: &PathBuf| {
        let prefixes = SPLITS.iter().flat_map(|(_, prefixes)| *prefixes);
        prefixes.into_iter().any(|prefix| is_named(file, prefix, ["images", "idx3-ubyte"]))
    };
    let is_other = |file: &&PathBuf| file::name_of(file).contains("idx3-ubyte") && !known(file);
    for file in files.iter().filter(is_other) {
        tracing::warn!(file = %file.display(), "left out, its name says neither train nor t10k");
    }
    Ok(splits)
}

/// The one file with one of these prefixes, in any of its spellings.
fn find_one(
    folder: &Path,
    files: &[PathBuf],
    prefixes: &[&str],
    kind: [&str; 2],
) -> Result<Option<PathBuf>, DataError> {
    let prefix_of =
        |file: &PathBuf| prefixes.iter().position(|prefix| is_named(file, prefix, kind));
    let mut found = files.iter().filter_map(|file| Some((prefix_of(file)?, file)));
    let Some((prefix, first)) = found.next() else { return Ok(None) };
    let is_other =
        |(other, file): &(usize, &PathBuf)| *other != prefix || file.parent() != first.parent();
    if let Some((_, other)) = found.find(is_other) {
        let problem = format!(
            "holds {}-{} twice, {} and {}: give the folder of one of them",
            prefixes[prefix],
            kind[0],
            first.display(),
            other.display()
        );
        return Err(DataError::Idx { path: folder.to_owned(), problem });
    }
    Ok(Some(first.clone()))
}

/// Whether a file is that of `prefix`, in any of the spellings of its name.
fn is_named(file: &Path, prefix: &str, [what, kind]: [&str; 2]) -> bool {
    let name = file::name_of(file).to_ascii_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    name == format!("{prefix}-{what}-{kind}") || name == format!("{prefix}-{what}.{kind}")
}

/// The samples of one split of an IDX folder, in memory: what is gzipped has no random access.
pub(crate) struct IdxSource {
    shape: SampleShape,
    images: Vec<u8>,
    labels: Option<Vec<u8>>,
    /// The files of labels of all splits.
    label_files: Vec<PathBuf>,
    files: Vec<String>,
    fingerprint: String,
}

impl IdxSource {
    /// Reads `split` of the folder.
    ///
    /// # Errors
    ///
    /// As [`find_splits`] and [`IdxReader::open_images`]; [`DataError::NoSplit`] if there are no
    /// files of this split.
    pub(crate) fn open(folder: &Path, split: &str) -> Result<Self, DataError> {
        let splits = find_splits(folder)?;
        let Some(found) = splits.iter().find(|found| found.name == split) else {
            let available: Vec<_> = splits.iter().map(|split| split.name).collect();
            let (path, split) = (folder.to_owned(), split.to_owned());
            return Err(DataError::NoSplit { path, split, available: available.join(", ") });
        };
        let images = IdxReader::open_images(&found.images)?;
        let (shape, num_images) = (images.image_shape(), images.num_items());
        let labels = match &found.labels {
            Some(path) => {
                let labels = IdxReader::open_labels(path)?;
                if labels.num_items() != num_images {
                    let num_labels = labels.num_items();
                    let problem = format!("holds {num_labels} labels for {num_images} images");
                    return Err(DataError::Idx { path: path.clone(), problem });
                }
                Some(labels.read_all()?)
            }
            None => None,
        };
        let images = images.read_all()?;
        let mut hasher = file::Hasher::default();
        hasher.update(format!("{shape:?}").as_bytes());
        hasher.update(&images);
        let paths = [Some(&found.images), found.labels.as_ref()];
        let files = paths.into_iter().flatten().map(|path| file::name_of(path)).collect();
        let label_files = splits.iter().filter_map(|split| split.labels.clone()).collect();
        let fingerprint = hasher.finish();
        Ok(Self { shape, images, labels, label_files, files, fingerprint })
    }
}

impl Source for IdxSource {
    fn num_samples(&self) -> u64 {
        (self.images.len() / self.shape.num_bytes()) as u64
    }

    fn shape(&self) -> SampleShape {
        self.shape
    }

    fn read(&self, id: u64, _draw: Draw, out: &mut [u8]) -> Result<(), DataError> {
        assert_read(self, id, out);
        out.copy_from_slice(&self.images[id as usize * out.len()..][..out.len()]);
        Ok(())
    }

    fn label(&self, id: u64) -> Result<Option<i64>, DataError> {
        Ok(self.labels.as_ref().map(|labels| i64::from(labels[id as usize])))
    }

    fn has_labels(&self) -> bool {
        self.labels.is_some()
    }

    /// One more than the largest label of all splits.
    fn num_classes(&self) -> Result<Option<u64>, DataError> {
        if !self.has_labels() {
            return Ok(None);
        }
        let mut largest = 0;
        for path in &self.label_files {
            let labels = IdxReader::open_labels(path)?.read_all()?;
            largest = labels.into_iter().fold(largest, u8::max);
        }
        Ok(Some(u64::from(largest) + 1))
    }

    fn origin(&self) -> Vec<String> {
        self.files.clone()
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}
