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
mod draw;
mod error;
mod file;
mod inspect;
mod loader;
mod manifest;
mod pack;
mod preview;
mod sampler;
mod shape;
mod shard;
pub mod source;
mod store;
mod verify;

pub use batch::{Batch, BatchPlan, eval_plan, train_plan};
pub use config::{
    DataConfig, DataKind, MixturePart, OnCorrupt, Shuffle, SyntheticConfig, VerifyMode,
};
pub use decode::Modality;
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
pub use pack::{DEFAULT_SHARD_SAMPLES, PackOptions, PackProgress, pack};
pub use preview::{MAX_PREVIEW, Preview, preview};
pub use sampler::{SamplePosition, Sampler, part};
pub use shape::SampleShape;
pub use source::split_config::SplitConfig;
pub use source::{Groups, Source};
pub use store::{RemoteConfig, shown};
pub use verify::{Problem, VerifyReport, verify};
