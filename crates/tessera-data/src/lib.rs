//! From shards on disk to batches in memory.
//!
//! The order of samples is arithmetic, not state: [`Sampler`] maps a position in the run to
//! a sample from the seed alone, so world size, read-ahead depth and restarts cannot change
//! it. [`pack`] writes a data set once, with a checksum for each sample and each file;
//! [`source::open`] checks it at the start of a run; [`Loader`] reads batches ahead on a
//! thread of its own.
//!
//! This crate deliberately knows neither tensors nor ranks' transport nor the model: pixels
//! leave it as bytes, height by width by channels, and a rank is two integers. It builds and
//! passes its tests without libtorch and without MPI.

mod batch;
mod config;
mod decode;
mod described;
mod draw;
mod error;
mod file;
mod header;
mod inspect;
mod loader;
mod manifest;
mod native;
mod open;
mod pack;
mod piped;
mod preview;
mod sampler;
mod samples;
mod shape;
mod shard;
mod sources;
mod store;
mod target;
pub mod tokens;
mod verify;

pub use batch::{Batch, BatchPlan, eval_plan, train_plan};
pub use config::split::SplitConfig;
pub use config::{
    DataConfig, DataKind, MixturePart, OnCorrupt, Shuffle, Shuffling, SyntheticConfig, VerifyMode,
};
pub use decode::audio::{AudioConfig, Windows};
pub use decode::image::{Crop, ImageConfig, Resize};
pub use decode::video::VideoConfig;
pub use draw::Draw;
pub use error::{DataError, DataErrorKind};
pub use inspect::{DatasetSummary, SplitSummary, inspect};
pub use loader::{LoadOptions, Loader, Order};
pub use manifest::{
    Compression, FORMAT_VERSION, Grouping, MANIFEST_FILE, Manifest, ShardEntry, SourceDescription,
    SplitEntry,
};
pub use native::{Native, NativeFiles, NativeShape};
pub use pack::{DEFAULT_SHARD_SAMPLES, PackOptions, PackProgress, pack};
pub use piped::{Piped, PipedSound};
pub use preview::{MAX_PREVIEW, Preview, preview};
pub use sampler::{SamplePosition, Sampler, part};
pub use samples::{Groups, Source};
pub use shape::{Modality, SampleShape};
pub use store::{RemoteConfig, shown};
pub use verify::{Problem, VerifyReport, verify};

/// Where samples come from: [`source::open`] chooses a source from a configuration.
pub mod source {
    pub use crate::open::{index, open};
    pub use crate::samples::{Groups, Source};
    pub use crate::sources::idx;
    pub use crate::sources::packed::PackedSource;
    pub use crate::sources::synthetic::SyntheticSource;
}
