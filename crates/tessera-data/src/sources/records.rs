//! Files of samples of one length, one after another: CIFAR's binaries and NumPy's arrays.
//!
//! CIFAR (<https://www.cs.toronto.edu/~kriz/cifar.html>): a record is one label (CIFAR-10) or two,
//! coarse and fine (CIFAR-100), and 3 x 32 x 32 bytes, channels first. NumPy
//! (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>): `uint8`, C order,
//! `[n, height, width]` or `[n, height, width, channels]`.

use std::fs::File;
use std::io::{self, BufReader, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::draw::Draw;
use crate::error::{DataError, one_line};
use crate::file;
use crate::samples::{Source, assert_read};
use crate::shape::SampleShape;
use crate::sources::files::list_files;
use crate::sources::labels::Labels;
use crate::sources::splits;

/// Classes of CIFAR-10 and, of the fine labels, of CIFAR-100.
const CIFAR_CLASSES: [u64; 2] = [10, 100];

/// Pixels of a channel of CIFAR.
const CIFAR_PIXELS: usize = 32 * 32;

/// How the bytes of a record lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// As in a sample.
    ChannelsLast,
    /// CIFAR: so many labels, of which the last counts, then the channels one after another.
    Cifar { num_labels: usize },
}

/// Records of one or several files.
pub(crate) struct RecordSource {
    files: Vec<RecordFile>,
    shape: SampleShape,
    layout: Layout,
    /// Labels that lie in a file of their own.
    labels: Option<Labels>,
    fingerprint: String,
}

struct RecordFile {
    path: PathBuf,
    file: File,
    /// Where the first record lies.
    offset: u64,
    num_records: u64,
}

impl RecordSource {
    /// The CIFAR binaries of `split` anywhere below `folder`.
    ///
    /// # Errors
    ///
    /// [`DataError::Array`] if they are not there or not whole.
    pub(crate) fn open_cifar(folder: &Path, split: &str) -> Result<Self, DataError> {
        splits::check(split)?;
        let mut paths = list_files(folder)?;
        paths.retain(|path| cifar_file(path).is_some());
        paths.sort_unstable_by_key(|path| (file::name_of(path).to_ascii_lowercase(), path.clone()));
        let wrong = |problem: String| DataError::Array { path: folder.to_owned(), problem };
        let has = |num| paths.iter().any(|path| cifar_file(path).is_some_and(|(n, _)| n == num));
        let num_labels = match (has(1), has(2)) {
            (true, true) => {
                let problem = "holds CIFAR-10 and CIFAR-100: give the folder of one of them";
                return Err(wrong(problem.to_owned()));
            }
            (_, is_hundred) => {
                if is_hundred {
                    2
                } else {
                    1
                }
            }
        };
        let names = paths.iter().map(|path| file::name_of(path).to_ascii_lowercase());
        let names: Vec<String> = names.collect();
        if let Some(at) = (1..names.len()).find(|&at| names[at] == names[at - 1]) {
            return Err(wrong(format!(
                "holds {} twice, {} and {}: give the folder of one of them",
                names[at],
                paths[at - 1].display(),
                paths[at].display()
            )));
        }
        let all = paths.len();
        paths.retain(|path| cifar_file(path).is_some_and(|(_, of)| of == split));
        if paths.is_empty() && all > 0 && split == splits::TEST {
            return Err(DataError::NoSplit {
                path: folder.to_owned(),
                split: split.to_owned(),
                available: "train (there is no test_batch.bin or test.bin)".to_owned(),
            });
        }
        if paths.is_empty() {
            return Err(wrong(format!(
                "holds no CIFAR binaries of split {split:?} (data_batch_1.bin to 5 and \
                 test_batch.bin, or train.bin and test.bin): give the folder of the binary version"
            )));
        }
        let record_bytes = (num_labels + 3 * CIFAR_PIXELS) as u64;
        let mut files = Vec::new();
        for path in paths {
            let read_error = |source| DataError::Read { path: path.clone(), source };
            let file = File::open(&path).map_err(read_error)?;
            let bytes = file.metadata().map_err(read_error)?.len();
            if bytes == 0 || !bytes.is_multiple_of(record_bytes) {
                let problem = format!(
                    "has {bytes} bytes, which is no multiple of a record's {record_bytes}: fetch \
                     it again"
                );
                return Err(DataError::Array { path, problem });
            }
            files.push(RecordFile { path, file, offset: 0, num_records: bytes / record_bytes });
        }
        Self::new(files, SampleShape::image(3, 32, 32), Layout::Cifar { num_labels }, None)
    }

    /// The array at `path`, and its labels; `all_labels` are those of all splits.
    ///
    /// # Errors
    ///
    /// [`DataError::Array`] if it is no array of pictures, or not whole, or its labels are not.
    pub(crate) fn open_array(
        path: &Path,
        labels: Option<&Path>,
        all_labels: &[PathBuf],
    ) -> Result<Self, DataError> {
        let read_error = |source| DataError::Read { path: path.to_owned(), source };
        let wrong = |problem: String| DataError::Array {
            path: path.to_owned(),
            problem: one_line(&problem),
        };
        let file = File::open(path).map_err(read_error)?;
        let bytes = file.metadata().map_err(read_error)?.len();
        let mut reader = BufReader::new(file);
        let header = npyz::NpyHeader::from_reader(&mut reader)
            .map_err(|error| wrong(format!("is no NumPy array ({error})")))?;
        let offset = reader.stream_position().map_err(read_error)?;
        if header.dtype().descr() != "'|u1'" || header.order() != npyz::Order::C {
            let found = header.dtype().descr();
            return Err(wrong(format!(
                "has elements {found} in {:?} order, expected uint8 in C order: save it with \
                 np.save(path, np.ascontiguousarray(images, dtype=np.uint8))",
                header.order()
            )));
        }
        let small = |size: u64| u32::try_from(size).unwrap_or(u32::MAX);
        let (num_records, shape) = match *header.shape() {
            [n, height, width] => (n, SampleShape::image(1, small(height), small(width))),
            [n, height, width, channels] => {
                (n, SampleShape::image(small(channels), small(height), small(width)))
            }
            ref other => {
                return Err(wrong(format!(
                    "has shape {other:?}, expected [n, height, width] or [n, height, width, \
                     channels]"
                )));
            }
        };
        shape.check().map_err(wrong)?;
        let expected = (shape.num_bytes() as u64).checked_mul(num_records);
        let expected = expected.and_then(|records| records.checked_add(offset)).unwrap_or(u64::MAX);
        if bytes < expected {
            let (path, found) = (path.to_owned(), bytes);
            return Err(DataError::Truncated { path, expected, found, unit: "bytes" });
        }
        if num_records == 0 || bytes > expected {
            return Err(wrong(format!("holds {num_records} samples in {bytes} bytes")));
        }
        let record =
            RecordFile { path: path.to_owned(), file: reader.into_inner(), offset, num_records };
        let labels = labels.map(|labels| Labels::open(labels, path, num_records, all_labels));
        Self::new(vec![record], shape, Layout::ChannelsLast, labels.transpose()?)
    }

    fn new(
        files: Vec<RecordFile>,
        shape: SampleShape,
        layout: Layout,
        labels: Option<Labels>,
    ) -> Result<Self, DataError> {
        let mut hasher = file::Hasher::default();
        let labels_path = labels.as_ref().map(Labels::path);
        for path in files.iter().map(|file| file.path.as_path()).chain(labels_path) {
            hasher.update(format!("{}\n", file::quick_identity(path)?).as_bytes());
        }
        Ok(Self { files, shape, layout, labels, fingerprint: hasher.finish() })
    }

    fn num_labels(&self) -> usize {
        match self.layout {
            Layout::ChannelsLast => 0,
            Layout::Cifar { num_labels } => num_labels,
        }
    }

    fn record(&self, id: u64) -> (&RecordFile, u64) {
        let mut at = id;
        for file in &self.files {
            if at < file.num_records {
                return (file, at);
            }
            at -= file.num_records;
        }
        panic!("record {id} of {} was asked for", self.num_samples());
    }

    /// Reads `out.len()` bytes of record `id` from its byte `skip` on.
    fn read_record(&self, id: u64, skip: usize, out: &mut [u8]) -> Result<(), DataError> {
        let (file, at) = self.record(id);
        let record_bytes = (self.num_labels() + self.shape.num_bytes()) as u64;
        let outcome = file.file.read_exact_at(out, file.offset + at * record_bytes + skip as u64);
        outcome.map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => DataError::CorruptFile {
                container: file.path.clone(),
                sample: at.to_string(),
                problem: "is beyond the end of the file, which was longer".to_owned(),
            },
            _ => DataError::ReadSample { shard: file.path.clone(), sample: at.to_string(), source },
        })
    }
}

/// Labels of a record, and the split, of a file that has a name of CIFAR's binaries.
fn cifar_file(path: &Path) -> Option<(usize, &'static str)> {
    let name = file::name_of(path).to_ascii_lowercase();
    match name.as_str() {
        "train.bin" => Some((2, splits::TRAIN)),
        "test.bin" => Some((2, splits::TEST)),
        "test_batch.bin" => Some((1, splits::TEST)),
        name => {
            let number = name.strip_prefix("data_batch_")?.strip_suffix(".bin")?;
            (!number.is_empty()).then_some((1, splits::TRAIN))
        }
    }
}

impl Source for RecordSource {
    fn num_samples(&self) -> u64 {
        self.files.iter().map(|file| file.num_records).sum()
    }

    fn shape(&self) -> SampleShape {
        self.shape
    }

    fn read(&self, id: u64, _draw: Draw, out: &mut [u8]) -> Result<(), DataError> {
        assert_read(self, id, out);
        match self.layout {
            Layout::ChannelsLast => self.read_record(id, 0, out),
            Layout::Cifar { num_labels } => {
                let mut planes = [0; 3 * CIFAR_PIXELS];
                self.read_record(id, num_labels, &mut planes)?;
                for (pixel, bytes) in out.chunks_exact_mut(3).enumerate() {
                    for (channel, byte) in bytes.iter_mut().enumerate() {
                        *byte = planes[channel * CIFAR_PIXELS + pixel];
                    }
                }
                Ok(())
            }
        }
    }

    fn label(&self, id: u64) -> Result<Option<i64>, DataError> {
        if let Some(labels) = &self.labels {
            return labels.get(id).map(Some);
        }
        let Some(last) = self.num_labels().checked_sub(1) else { return Ok(None) };
        let mut label = [0];
        self.read_record(id, last, &mut label)?;
        if u64::from(label[0]) >= CIFAR_CLASSES[last] {
            let (file, at) = self.record(id);
            return Err(DataError::CorruptFile {
                container: file.path.clone(),
                sample: at.to_string(),
                problem: format!("has label {}, expected below {}", label[0], CIFAR_CLASSES[last]),
            });
        }
        Ok(Some(i64::from(label[0])))
    }

    fn has_labels(&self) -> bool {
        self.labels.is_some() || self.num_labels() > 0
    }

    fn num_classes(&self) -> Result<Option<u64>, DataError> {
        match &self.labels {
            Some(labels) => labels.num_classes().map(Some),
            None => Ok(self.num_labels().checked_sub(1).map(|last| CIFAR_CLASSES[last])),
        }
    }

    fn origin(&self) -> Vec<String> {
        let labels = self.labels.as_ref().map(Labels::path);
        let paths = self.files.iter().map(|file| file.path.as_path()).chain(labels);
        paths.map(file::name_of).collect()
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}
