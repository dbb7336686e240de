//! A trained model applied to data.
//!
//! [`encode()`] makes tokens of a data set, on any number of ranks; [`decode()`] makes pictures of tokens, and
//! [`sample()`] draws tokens from a prior, [`inpaint()`] those of holes in pictures, and [`judge()`] says how good samples
//! are; [`compress()`] and [`decompress()`] are for files of any size. A model runs on [tiles](tile) of one size, so that what it makes of a sample hangs on nothing but the sample: neither on batches nor on
//! ranks.
//!
//! Models are opened by `tessera-model` alone; how they are trained is not known here.

mod agreement;
mod atlas;
mod bench;
mod compress;
mod decode;
mod encode;
mod error;
mod export;
mod features;
mod import;
mod inpaint;
mod input;
mod judge;
mod open;
mod prompt;
mod rate;
mod reject;
mod sample;
mod serve;
pub mod tile;
mod watch;

pub use agreement::agree_on;
pub use atlas::{Atlas, AtlasOptions, write_atlas};
pub use bench::{EncodeFigures, bench_encode};
pub use compress::{
    Coding, CompressOptions, Compressed, Counted, CountedLevel, DecompressOptions, Decompressed,
    Lost, PriorCoder, ReconstructOptions, Reconstructed, Stream, StreamOptions, TablesOptions,
    compress, count_tables, decompress, reconstruct,
};
pub use decode::{DecodeOptions, Decoded, Form, TokenFile, decode};
pub use encode::{Augment, EncodeOptions, Encoded, EncodedSplit, check_data, encode, usual_data};
pub use error::ApplyError;
pub use export::{ExportForm, Exported, export};
pub use features::{
    FeatureForm, FeatureKind, FeaturesOptions, FeaturesWritten, SplitWritten, write_features,
};
pub use import::{ImportOptions, Imported, import};
pub use inpaint::{Damage, InpaintOptions, Inpainted, Input, inpaint};
pub use judge::{Classifier, Copies, JudgeOptions, Judged, Judging, SetFigures, judge};
pub use open::{open, open_prior};
pub use prompt::{PromptLength, PromptOptions};
pub use rate::{RateInput, RateModel, RateOptions, Rated, rate_distortion};
pub use sample::{SampleOptions, Sampled, sample, usual_tokenizer};
pub use serve::{ServeOptions, serve};
pub use tessera_nn::features::Seen;
pub use tessera_nn::prior::sample::{Filter, Guidance, GuidanceSchedule, Sampling};
pub use watch::Watch;
