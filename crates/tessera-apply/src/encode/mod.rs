//! A data set to tokens, on any number of ranks.
//!
//! Shards are divided among ranks and written whole, each by one rank; what is in them hangs on the samples and the model
//! alone. What was written stays, so an encoding that was stopped goes on with the shards that are missing.

mod data;
mod reading;
mod shard;
mod variants;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde::Serialize;
use tessera_checkpoint::Storage;
use tessera_comm::{Communicator, all_gather_bytes};
use tessera_control::Phase;
use tessera_data::tokens::{
    PlannedShard, TokenLevel, TokenManifest, TokenPlan, TokenSetWriter, Tokenizer,
};
use tessera_data::{DataConfig, DataError, LoadOptions, Source};
use tessera_model::{Level, OpenModel, TOKENIZER};
use tessera_nn::VqVae;

pub use self::data::{check_data, usual_data};
use self::reading::Tiles;
pub use self::variants::Augment;
use crate::agreement::agree_on;
use crate::error::ApplyError;
use crate::tile;
use crate::watch::Watch;

/// What is encoded where nobody says it; the second only where it is there.
const USUAL_SPLITS: [&str; 2] = ["train", "test"];

/// How a data set is encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Folder of the token set.
    pub out: PathBuf,
    /// The splits that are encoded; empty: `train`, and `test` where there is one.
    pub splits: Vec<String>,
    /// What is encoded of each sample.
    pub augment: Augment,
    /// Samples of a shard: a multiple of a [tile](tile::size).
    pub shard_samples: u64,
    /// Samples that are read at a time; it changes no byte.
    pub batch: u64,
}

/// What was encoded.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Encoded {
    /// Folder of the token set.
    pub path: PathBuf,
    /// Hash of the model.
    pub tokenizer: String,
    /// Each split.
    pub splits: BTreeMap<String, EncodedSplit>,
    /// Variants of each sample.
    pub num_variants: usize,
    /// Codes of a variant of a sample.
    pub num_tokens: usize,
    /// Samples a second of this attempt, all ranks together; without those of shards that were there.
    pub samples_per_second: f64,
    /// Whether it was stopped before all shards were there: the same command goes on.
    pub is_stopped: bool,
}

/// A split that was encoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EncodedSplit {
    /// Samples with codes.
    pub num_samples: u64,
    /// Samples that could not be read.
    pub num_skipped: u64,
}

/// Encodes the splits of `data` into a token set. Collective.
///
/// # Errors
///
/// [`ApplyError`]; shards that are whole stay, and the same call goes on with the others.
pub fn encode(
    comm: &dyn Communicator,
    model: &OpenModel,
    data: &DataConfig,
    options: &EncodeOptions,
    watch: &Watch<'_>,
) -> Result<Encoded, ApplyError> {
    let prepared = agree_on(comm, prepare(model, data, options))?;
    let begun = match comm.rank() {
        0 => TokenSetWriter::begin(&options.out, &prepared.plan).map(Some),
        _ => Ok(None),
    };
    let begun = agree_on(comm, begun.map_err(ApplyError::from))?;
    let joined = match begun {
        Some(writer) => Ok(writer),
        None => TokenSetWriter::join(&options.out, &prepared.plan),
    };
    let writer = agree_on(comm, joined.map_err(ApplyError::from))?;
    watch.activity.enter(Phase::Evaluate);
    let start = Instant::now();
    let work = Work { model, prepared: &prepared, writer: &writer, options, watch };
    let done = agree_on(comm, work.mine(comm))?;
    let (num_encoded, is_stopped) = sum_of(comm, &done)?;
    let seconds = start.elapsed().as_secs_f64();
    let finished = match (comm.rank(), is_stopped) {
        (0, false) => writer.finish().map_err(ApplyError::from).and_then(|manifest| {
            // So that whoever generates such codes has what makes pictures of them.
            tessera_model::write(&Storage::new(), &options.out.join(TOKENIZER), model)?;
            Ok(Some(manifest))
        }),
        _ => Ok(None),
    };
    let manifest = agree_on(comm, finished)?;
    let head = prepared.plan.head();
    Ok(Encoded {
        path: options.out.clone(),
        tokenizer: model.file.hash.clone(),
        splits: manifest.as_ref().map(splits_of).unwrap_or_default(),
        num_variants: head.variants.len(),
        num_tokens: head.num_tokens(),
        samples_per_second: num_encoded as f64 / seconds,
        is_stopped,
    })
}

/// What is to be encoded.
struct Prepared {
    plan: TokenPlan,
    sources: Vec<Arc<dyn Source>>,
    load: LoadOptions,
}

fn prepare(
    model: &OpenModel,
    data: &DataConfig,
    options: &EncodeOptions,
) -> Result<Prepared, ApplyError> {
    let size = tile::size(&model.signal());
    if options.shard_samples == 0 || !options.shard_samples.is_multiple_of(size as u64) {
        let found = options.shard_samples;
        let problem = format!("--shard-samples should be a multiple of {size}, found {found}");
        return Err(ApplyError::BadInput(problem));
    }
    options.augment.validate(&model.signal(), hop(&model.vqvae)).map_err(ApplyError::BadInput)?;
    let splits = open_splits(model, data, &options.splits)?;
    let tokenizer = Tokenizer { hash: model.file.hash.clone(), levels: levels_of(model)? };
    let names = options.augment.names(hop(&model.vqvae));
    let plan = TokenPlan::new(&tokenizer, &names, data, &splits, options.shard_samples)?;
    let sources = splits.into_iter().map(|(_, source)| source).collect();
    Ok(Prepared { plan, sources, load: data.load_options() })
}

/// Name and samples of a split.
pub(crate) type Split<'a> = (&'a str, Arc<dyn Source>);

/// The splits of these names, with samples that the model takes; of no name the usual ones.
///
/// # Errors
///
/// [`ApplyError::Data`], and those of [`check_data`].
pub(crate) fn open_splits<'a>(
    model: &OpenModel,
    data: &DataConfig,
    named: &'a [String],
) -> Result<Vec<Split<'a>>, ApplyError> {
    let names = match named {
        [] => USUAL_SPLITS.to_vec(),
        named => named.iter().map(String::as_str).collect(),
    };
    let mut splits: Vec<Split<'a>> = Vec::new();
    for name in names {
        match tessera_data::source::open(data, name) {
            Err(DataError::NoSplit { .. }) if named.is_empty() && !splits.is_empty() => {}
            source => splits.push((name, source?)),
        }
    }
    for (_, source) in &splits {
        check_data(&model.file, source.shape())?;
    }
    Ok(splits)
}

/// Places of a sample along its first axis that a code of the finest level stands for: instants of a sound.
fn hop(vqvae: &VqVae) -> i64 {
    let finest = vqvae.latent_axes()[0][0];
    (vqvae.signal.axes()[0] / finest).max(1)
}

/// The levels of a token set: one for each code that a position has, the finest level of the model first.
fn levels_of(model: &OpenModel) -> Result<Vec<TokenLevel>, ApplyError> {
    let mut levels = Vec::new();
    for Level { axes, num_codes } in &model.file.autoencoder().levels {
        let axes: Result<Vec<u32>, _> = axes.iter().map(|&size| u32::try_from(size)).collect();
        for &num_codes in num_codes {
            let level = axes.clone().ok().zip(u32::try_from(num_codes).ok());
            let (axes, num_codes) = level.ok_or_else(|| {
                ApplyError::BadInput(format!("a token set has no room for {num_codes} codes"))
            })?;
            levels.push(TokenLevel { num_codes, axes });
        }
    }
    Ok(levels)
}

/// What a rank has done.
#[derive(Debug, Clone, Copy)]
struct Done {
    num_encoded: u64,
    is_stopped: bool,
}

/// Samples of all ranks, and whether any of them has stopped. Collective.
fn sum_of(comm: &dyn Communicator, done: &Done) -> Result<(u64, bool), ApplyError> {
    let mine = (done.num_encoded, done.is_stopped);
    let mine = serde_json::to_vec(&mine).expect("it is plain data");
    let (mut num_encoded, mut is_stopped) = (0, false);
    for theirs in all_gather_bytes(comm, &mine)? {
        let (num, stopped): (u64, bool) =
            serde_json::from_slice(&theirs).expect("every rank sends the same");
        num_encoded += num;
        is_stopped |= stopped;
    }
    Ok((num_encoded, is_stopped))
}

/// A rank's work.
struct Work<'a> {
    model: &'a OpenModel,
    prepared: &'a Prepared,
    writer: &'a TokenSetWriter,
    options: &'a EncodeOptions,
    watch: &'a Watch<'a>,
}

impl Work<'_> {
    /// Encodes this rank's shards that are not there yet: every so many'th of all, from its number on.
    fn mine(&self, comm: &dyn Communicator) -> Result<Done, ApplyError> {
        let all = self.prepared.plan.shards();
        let own = all.iter().skip(comm.rank()).step_by(comm.world_size());
        let mut missing: Vec<&PlannedShard> = Vec::new();
        let mut num_whole = 0u64;
        for shard in own {
            match self.writer.is_whole(shard)? {
                true => num_whole += 1,
                false => missing.push(shard),
            }
            self.watch.activity.part_done();
        }
        if num_whole > 0 && comm.rank() == 0 {
            (self.watch.say)(format!(
                "{num_whole} shards of rank 0 are there and stay as they are"
            ));
        }
        let total = missing.iter().map(|shard| shard.samples.end - shard.samples.start).sum();
        let mut progress = shard::Progress::new(total, comm.rank() == 0, self.watch.say);
        for (number, source) in self.prepared.sources.iter().enumerate() {
            let of_split = missing.iter().filter(|shard| shard.split == number);
            let ranges = of_split.clone().map(|shard| shard.samples.clone()).collect();
            let (batch, load) = (self.options.batch, self.prepared.load);
            let size = tile::size(&self.model.signal());
            let mut tiles = Tiles::new(Arc::clone(source), ranges, (batch, size), load)?;
            for shard in of_split {
                let content = self.encode(&mut tiles, &**source, shard, &mut progress)?;
                self.writer.write(shard, &content)?;
                if self.watch.stop.load(Ordering::Relaxed) {
                    return Ok(Done { num_encoded: progress.num_done(), is_stopped: true });
                }
            }
        }
        Ok(Done { num_encoded: progress.num_done(), is_stopped: false })
    }
}

fn splits_of(manifest: &TokenManifest) -> BTreeMap<String, EncodedSplit> {
    let split = |(name, split): (&String, &tessera_data::tokens::TokenSplit)| {
        let (num_samples, num_skipped) = (split.num_samples, split.skipped.len() as u64);
        (name.clone(), EncodedSplit { num_samples, num_skipped })
    };
    manifest.splits.iter().map(split).collect()
}
