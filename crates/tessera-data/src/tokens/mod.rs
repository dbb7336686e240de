//! Token sets: the codes that a trained tokeniser made of a data set, in a folder.
//!
//! | file | what it holds |
//! |---|---|
//! | `manifest.json` | tokeniser, levels, variants, classes, splits, the SHA-256 of every other file; written last |
//! | `SPLIT-NUMBER.safetensors` | a shard: codes, labels and numbers of samples |
//! | `tokenizer/` | the model that made the codes, where whoever encoded has put it there; nothing here reads it |
//! | `histograms-SPLIT.safetensors` | how often each code came, in all, at each position, and there in each class |
//!
//! A tokeniser has one level or more: the levels of a residual quantiser lie on one grid, those of a
//! hierarchy on several, the finest first. A variant is a sample encoded once more, flipped or cut
//! otherwise before it was encoded; the first variant is the sample as it is. All samples have the
//! same number of codes; a set of lengths that differ would be of another version.
//!
//! [`TokenPlan`] says what is to be made, and [`TokenSetWriter`] makes it, on any number of ranks; a
//! set is read as any other data set (`data.kind = "tokens"`). [`baselines()`] says what a model of
//! the codes has to beat. Nothing here encodes: that needs the tokeniser.

mod baselines;
mod content;
pub(crate) mod histograms;
pub(crate) mod manifest;
mod plan;
mod shard;
mod source;
mod summary;
pub(crate) mod verify;
mod writer;

pub use self::baselines::{Baselines, TokenBaselines, baselines};
pub use self::content::TokenShard;
pub use self::histograms::Histograms;
pub use self::manifest::{
    FileEntry, TOKENS_VERSION, TokenInfo, TokenLevel, TokenManifest, TokenSplit,
};
pub use self::plan::{PlannedShard, PlannedSplit, TokenPlan, Tokenizer};
pub use self::source::TokenSource;
pub use self::summary::{LevelSummary, TokenSetSummary, TokenSplitSummary, inspect, is_token_set};
pub use self::writer::TokenSetWriter;
