//! Why data could not be packed, opened or read: one enum for the crate.
//!
//! Messages are one line and say what to do. [`DataError::kind`] is what an exit code
//! follows from: the same flipped bit is bad input when it is found before the run starts,
//! and corruption when it is found in the middle of one.

use std::io;
use std::path::PathBuf;

/// Why data could not be packed, opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A configuration value that could only fail later.
    #[error("data.{key} {problem}")]
    Config {
        /// The key below `data`, with its dots.
        key: &'static str,
        /// What is wrong with it and what would be right.
        problem: String,
    },
    /// A part of a mixture, counted from 0, that cannot be used.
    #[error("data.mixture.{number}: {source}")]
    Part {
        /// Which part.
        number: usize,
        /// What is wrong with it; its keys are those of the part's own `data`.
        source: Box<DataError>,
    },
    /// There is no packed data set in this folder.
    #[error(
        "no data set at {}: pack one with `tessera data pack --format KIND --input PATH --out {}`",
        .path.display(), .path.display()
    )]
    NoDataset {
        /// The folder that was asked for.
        path: PathBuf,
    },
    /// The data set has no such split, or nothing in it.
    #[error(
        "the data set at {} has no samples in a split named {split:?}: it has {available}",
        .path.display()
    )]
    NoSplit {
        /// Folder of the data set.
        path: PathBuf,
        /// The split that was asked for.
        split: String,
        /// The splits that exist, for the message.
        available: String,
    },
    /// The manifest is not one that this program can use.
    #[error("{} {problem}: pack the data set again", .path.display())]
    Manifest {
        /// The manifest file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file ends before its end.
    #[error(
        "{} is cut short: expected {expected} {unit}, found {found}: copy or fetch it again",
        .path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Length that its header or the manifest promises.
        expected: u64,
        /// Length that is there.
        found: u64,
        /// What is counted: bytes, or bytes after decompression.
        unit: &'static str,
    },
    /// A shard that disagrees with the manifest.
    #[error("shard {} {problem}: run `tessera data verify` on its folder, then pack or copy it again", .path.display())]
    Shard {
        /// The shard file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no token set in this folder.
    #[error("no token set at {}: make one with `tessera encode`", .path.display())]
    NoTokens {
        /// The folder that was asked for.
        path: PathBuf,
    },
    /// The manifest of a token set is not one that this program can use, or codes do not fit it.
    #[error("{} {problem}: encode the data again", .path.display())]
    Tokens {
        /// The manifest, or the shard that was to be written.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file of a token set that is not as it was written.
    #[error(
        "{} {problem}: run `tessera data verify` on its folder, then copy it or encode the data again",
        .path.display()
    )]
    DamagedTokens {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// An IDX file that is not what its name promises.
    #[error("{} {problem}", .path.display())]
    Idx {
        /// The IDX file, or the folder where one was looked for.
        path: PathBuf,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// A folder or an archive without a single file that could be read.
    #[error(
        "{} holds no file that could be a sample, looked for .{extensions}: give another folder, \
         or set data.kind and data.modality to what is in it",
        .path.display()
    )]
    NoFiles {
        /// The folder, archive or pattern.
        path: PathBuf,
        /// Extensions of the files that were looked for.
        extensions: String,
    },
    /// A path with a pattern that stands for nothing.
    #[error(
        "data.path {} {problem}: a pattern is as {{000..123}}, {{a,b}}, * or ?, and :: stands between \
         two of them",
        .path.display()
    )]
    Pattern {
        /// The path as it was given.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A folder of published files that cannot be used as it is.
    #[error("{} {problem}", .path.display())]
    Folder {
        /// The folder, or a file in it.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A tar archive that is not whole, or holds what it should not.
    #[error("archive {} {problem}", .path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A NumPy or CIFAR file that is not what it should be.
    #[error("{} {problem}", .path.display())]
    Array {
        /// The file, or the folder where one was looked for.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A published file that cannot be made into a sample.
    #[error("sample {sample} of {} {problem}: repair or remove it", .container.display())]
    CorruptFile {
        /// The folder or archive that holds it.
        container: PathBuf,
        /// Its name in there.
        sample: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Damaged samples may be skipped, and all of them are damaged.
    #[error("{} {problem}", .path.display())]
    NothingReadable {
        /// The folder, archive or pattern.
        path: PathBuf,
        /// How many there are, and what is wrong with the first.
        problem: String,
    },
    /// A store or server elsewhere that cannot be used.
    #[error("{url} {problem}")]
    Remote {
        /// Where it is.
        url: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The folder that a data set should be written to cannot be used.
    #[error("cannot make a data set in {}: {problem}", .path.display())]
    Output {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// A file could not be read before the run started.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file could not be written; nothing half-written is left.
    #[error("cannot write {}: {source}: free some space or choose another folder", .path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A sample read in the middle of a run does not match its checksum.
    #[error(
        "sample {sample} of shard {} {problem}: run `tessera data verify {}`",
        .shard.display(), folder_of(.shard)
    )]
    CorruptSample {
        /// The shard file.
        shard: PathBuf,
        /// Index of the sample inside that shard.
        sample: u64,
        /// What did not match.
        problem: String,
    },
    /// A sample has no label, where one is needed for each.
    #[error(
        "sample {sample} has no label in the data: label it, remove it, or set data.on_corrupt to \
         \"skip\" to go without it"
    )]
    NoLabel {
        /// Name of the sample in the data set.
        sample: String,
    },
    /// The system failed to read a sample in the middle of a run.
    #[error("cannot read sample {sample} of {}: {source}: check the disk", .shard.display())]
    ReadSample {
        /// The shard, archive or folder.
        shard: PathBuf,
        /// The sample inside: its index or its name.
        sample: String,
        /// The system's reason.
        source: io::Error,
    },
    /// There was no memory for a batch.
    #[error("no memory for a batch: {source}: lower train.global_batch or data.prefetch")]
    Memory {
        /// The reason of whoever gives the memory.
        source: io::Error,
    },
    /// The reader thread could not be started.
    #[error("cannot start the reader thread: {source}: raise the limit on processes")]
    Thread {
        /// The system's reason.
        source: io::Error,
    },
}

/// What an error means for the run; an exit code follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataErrorKind {
    /// Found before anything was done: missing, malformed, truncated or damaged input, or
    /// an output folder that cannot be written. Exit code 2.
    BadInput,
    /// A sample turned out to be damaged in the middle of a run. Exit code 6.
    Corrupt,
    /// The system failed in the middle of a run. Exit code 1.
    Io,
}

impl DataError {
    /// Whether it is the fault of one sample, or file, that can be left out. What was asked for and
    /// cannot be had is not.
    pub(crate) fn is_of_one_sample(&self) -> bool {
        match self {
            Self::Memory { .. } | Self::Thread { .. } | Self::NothingReadable { .. } => false,
            _ => matches!(self.kind(), DataErrorKind::Corrupt | DataErrorKind::Io),
        }
    }

    /// What the error means for the run.
    pub fn kind(&self) -> DataErrorKind {
        match self {
            Self::Part { source, .. } => source.kind(),
            Self::CorruptSample { .. }
            | Self::CorruptFile { .. }
            | Self::DamagedTokens { .. }
            | Self::NothingReadable { .. }
            | Self::NoLabel { .. } => DataErrorKind::Corrupt,
            Self::ReadSample { .. } | Self::Memory { .. } | Self::Thread { .. } => {
                DataErrorKind::Io
            }
            _ => DataErrorKind::BadInput,
        }
    }
}

/// Words of others, or names of files, without what would break a line.
pub(crate) fn one_line(words: &str) -> String {
    words.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// Folder of a shard, as it would be typed.
fn folder_of(shard: &std::path::Path) -> String {
    match shard.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.display().to_string(),
        _ => ".".to_owned(),
    }
}
