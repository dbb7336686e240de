//! What a model knows of samples, as numbers for other programs: latents, the vectors of their codes, or codes.
//!
//! Samples go through the model in the [tiles](crate::tile) in which every command has them, shared by ranks; rank 0 writes. A split is
//! a file of its own, or three arrays, with the number and the label of each sample: a probe or a search in any language needs no more.

mod parquet;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;
use serde_json::json;
use tch::{Device, Kind, Tensor};
use tessera_comm::{Communicator, all_gather_bytes};
use tessera_control::Phase;
use tessera_data::{DataConfig, DataError, Source};
use tessera_model::OpenModel;
use tessera_nn::{from_vectors, to_vectors};

use self::parquet::{Numbers, Parquet};
use crate::agreement::agree_on;
use crate::compress::unwritable;
use crate::decode::npy_header;
use crate::encode::{Split, open_splits};
use crate::error::ApplyError;
use crate::input::{codes_of, read, values_of};
use crate::tile;
use crate::watch::Watch;

/// What is written of each sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureKind {
    /// Latents of the encoder before quantisation, of a hierarchy those of its finest level: float32.
    Latents,
    /// The same after quantisation.
    Quantized,
    /// Codes, those of all levels one after another, as a token set has them: uint32.
    Codes,
}

/// In which form features are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureForm {
    /// `SPLIT.safetensors` with the tensors `features`, `ids` and `labels`.
    Safetensors,
    /// `SPLIT.features.npy`, `SPLIT.ids.npy` and `SPLIT.labels.npy`.
    Npy,
    /// `SPLIT.parquet` with the columns `id`, `label` and `features`.
    Parquet,
}

impl FromStr for FeatureKind {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "latents" => Ok(Self::Latents),
            "quantized" => Ok(Self::Quantized),
            "codes" => Ok(Self::Codes),
            other => Err(format!("must be latents, quantized or codes, not {other}")),
        }
    }
}

impl FromStr for FeatureForm {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "safetensors" => Ok(Self::Safetensors),
            "npy" => Ok(Self::Npy),
            "parquet" => Ok(Self::Parquet),
            other => Err(format!("must be safetensors, npy or parquet, not {other}")),
        }
    }
}

/// What is written, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeaturesOptions {
    /// The folder.
    pub out: PathBuf,
    /// What of each sample.
    pub of: FeatureKind,
    /// Whether a sample has the mean over its positions, `[N, D]`, instead of each, `[N, .., D]`.
    pub pooled: bool,
    /// The splits; empty: `train`, and `test` where there is one.
    pub splits: Vec<String>,
    /// In which form.
    pub form: FeatureForm,
    /// Whether files that are there are replaced.
    pub force: bool,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FeaturesWritten {
    /// The folder.
    pub path: PathBuf,
    /// Each split.
    pub splits: BTreeMap<String, SplitWritten>,
}

/// The features of a split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SplitWritten {
    /// Files.
    pub files: Vec<PathBuf>,
    /// Axes of the features, the number of samples first.
    pub shape: Vec<i64>,
}

/// Writes features of a data set. Collective: ranks share the samples.
///
/// # Errors
///
/// [`ApplyError`]; no file is there then that is not whole.
pub fn write_features(
    comm: &dyn Communicator,
    model: &OpenModel,
    data: &DataConfig,
    options: &FeaturesOptions,
    watch: &Watch<'_>,
) -> Result<FeaturesWritten, ApplyError> {
    let splits = agree_on(comm, checked_splits(model, data, options))?;
    watch.activity.enter(Phase::Evaluate);
    let mut written = BTreeMap::new();
    for (name, source) in splits {
        let work = Work { model, options, name, source: &source };
        written.insert(name.to_owned(), work.write(comm, watch)?);
    }
    Ok(FeaturesWritten { path: options.out.clone(), splits: written })
}

/// Opens the splits, if there is room for what is made of them.
fn checked_splits<'a>(
    model: &OpenModel,
    data: &DataConfig,
    options: &'a FeaturesOptions,
) -> Result<Vec<Split<'a>>, ApplyError> {
    if options.pooled && options.of == FeatureKind::Codes {
        let problem = "codes have no mean: leave out --pool, or choose --of quantized";
        return Err(ApplyError::BadInput(problem.to_owned()));
    }
    let splits = open_splits(model, data, &options.splits)?;
    let mut paths = splits.iter().flat_map(|(name, _)| options.paths(name));
    if let Some(path) = paths.find(|path| path.exists() && !options.force) {
        return Err(ApplyError::BadInput(format!(
            "{} is there already: name another folder, or give --force to replace it",
            path.display()
        )));
    }
    Ok(splits)
}

impl FeaturesOptions {
    /// The files of a split: features, then what else is in a file of its own.
    fn paths(&self, split: &str) -> Vec<PathBuf> {
        let path = |end: &str| self.out.join(format!("{split}.{end}"));
        match self.form {
            FeatureForm::Safetensors => vec![path("safetensors")],
            FeatureForm::Parquet => vec![path("parquet")],
            FeatureForm::Npy => vec![path("features.npy"), path("ids.npy"), path("labels.npy")],
        }
    }
}

/// The features of a split.
struct Work<'a> {
    model: &'a OpenModel,
    options: &'a FeaturesOptions,
    name: &'a str,
    source: &'a Arc<dyn Source>,
}

impl Work<'_> {
    fn write(
        &self,
        comm: &dyn Communicator,
        watch: &Watch<'_>,
    ) -> Result<SplitWritten, ApplyError> {
        let num = self.source.num_samples();
        let shape = [vec![num as i64], self.axes()].concat();
        let out = match comm.rank() {
            0 => Out::create(self, &shape).map(Some),
            _ => Ok(None),
        };
        let mut out = agree_on(comm, out)?;
        let (rank, world_size) = (comm.rank() as u64, comm.world_size() as u64);
        let size = tile::size(&self.model.signal()) as u64;
        for round in 0..num.div_ceil(size).div_ceil(world_size) {
            let first = (round * world_size + rank) * size;
            let mine = watch.check().and_then(|()| self.of_samples(first..num.min(first + size)));
            let mine = agree_on(comm, mine)?;
            let all = all_gather_bytes(comm, &mine)?;
            let added =
                out.as_mut().map_or(Ok(()), |out| all.iter().try_for_each(|bytes| out.add(bytes)));
            agree_on(comm, added)?;
            watch.activity.part_done();
        }
        agree_on(comm, out.map_or(Ok(()), |out| out.finish(self)))?;
        Ok(SplitWritten { files: self.options.paths(self.name), shape })
    }

    /// Axes of the features of one sample.
    fn axes(&self) -> Vec<i64> {
        let levels = &self.model.file.autoencoder().levels;
        let of_code = [self.model.vqvae.quantizers[0].dim()];
        match (self.options.of, self.options.pooled) {
            (FeatureKind::Codes, _) => {
                let codes =
                    levels.iter().map(|level| level.num_positions() * level.num_codes.len() as i64);
                vec![codes.sum()]
            }
            (_, true) => of_code.to_vec(),
            (_, false) => [&levels[0].axes[..], &of_code].concat(),
        }
    }

    /// Features of up to a tile of samples, as they lie in memory.
    fn of_samples(&self, ids: std::ops::Range<u64>) -> Result<Vec<u8>, ApplyError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut bytes = Vec::new();
        for id in ids.clone() {
            bytes.extend(read(&**self.source, id)?);
        }
        if self.options.of == FeatureKind::Codes {
            let codes = codes_of(self.model, &bytes, ids.start)?;
            return Ok(codes.iter().flatten().flat_map(|code| code.to_le_bytes()).collect());
        }
        let vectors_npd = self.vectors(&values_of(self.model, &bytes), ids.start)?;
        let there = vectors_npd.narrow(0, 0, (ids.end - ids.start) as i64);
        let features = match self.options.pooled {
            true => there.mean_dim([1i64].as_slice(), false, Kind::Float),
            false => there.to_kind(Kind::Float),
        };
        let flat = features.to_device(Device::Cpu).contiguous().view([-1]);
        Ok(Vec::<u8>::try_from(&flat.view_dtype(Kind::Uint8))?)
    }

    /// Vectors `[tile, positions, D]` of the finest level, before or after quantisation; coarser levels are quantised, as in an
    /// evaluation.
    fn vectors(&self, samples: &Tensor, first: u64) -> Result<Tensor, ApplyError> {
        let _no_grad = tch::no_grad_guard();
        let vqvae = &self.model.vqvae;
        let mut found = None;
        drop(vqvae.descend(samples, |level, latents| {
            let latents_nd = to_vectors(latents);
            let quantizer = &vqvae.quantizers[level];
            let indices_nl = quantizer.tokenize(&vqvae.parameters, &latents_nd);
            let codes_nd = quantizer.look_up(&vqvae.parameters, &indices_nl);
            if level == 0 {
                found = Some(match self.options.of {
                    FeatureKind::Latents => latents_nd.shallow_clone(),
                    _ => codes_nd.shallow_clone(),
                });
            }
            from_vectors(&codes_nd, latents)
        }));
        let vectors_nd = found.expect("there is a finest level");
        match vectors_nd.isfinite().all().int64_value(&[]) {
            1 => Ok(vectors_nd.view([samples.size()[0], -1, vectors_nd.size()[1]])),
            _ => Err(ApplyError::NotFinite { sample: first }),
        }
    }

    /// Number and label of each sample; -1: none.
    fn numbers(&self) -> Result<(Vec<i64>, Vec<i64>), ApplyError> {
        let ids = 0..self.source.num_samples();
        let labels: Result<Vec<i64>, DataError> =
            ids.clone().map(|id| Ok(self.source.label(id)?.unwrap_or(-1))).collect();
        Ok((ids.map(|id| id as i64).collect(), labels?))
    }
}

/// Files in the making, each under a name that is not yet its own.
struct Out {
    to: To,
    partial: PathBuf,
}

/// What features are written into.
enum To {
    Plain(BufWriter<File>),
    /// Gone once it is finished.
    Parquet(Option<Box<Parquet>>),
}

impl Out {
    fn create(work: &Work<'_>, shape: &[i64]) -> Result<Self, ApplyError> {
        let folder = &work.options.out;
        fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
        let partial = folder.join(format!(".{}.partial", work.name));
        let head = match work.options.form {
            FeatureForm::Npy => npy_header(kind_of(work.options.of).1, shape),
            FeatureForm::Safetensors => header(work, shape),
            FeatureForm::Parquet => {
                let to = parquet_of(work, &partial, shape)?;
                return Ok(Self { to: To::Parquet(Some(Box::new(to))), partial });
            }
        };
        let file = File::create(&partial).map_err(ApplyError::file("make", &partial))?;
        let mut out = Self { to: To::Plain(BufWriter::new(file)), partial };
        out.add(&head)?;
        Ok(out)
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), ApplyError> {
        match &mut self.to {
            To::Plain(file) => {
                file.write_all(bytes).map_err(ApplyError::file("write", &self.partial))
            }
            To::Parquet(Some(parquet)) => parquet.add(&self.partial, bytes),
            To::Parquet(None) => unreachable!("nothing is added to what is finished"),
        }
    }

    fn finish(mut self, work: &Work<'_>) -> Result<(), ApplyError> {
        let (ids, labels) = work.numbers()?;
        let bytes = |numbers: &[i64]| -> Vec<u8> {
            numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
        };
        let paths = work.options.paths(work.name);
        if work.options.form == FeatureForm::Safetensors {
            self.add(&bytes(&ids))?;
            self.add(&bytes(&labels))?;
        }
        match &mut self.to {
            To::Plain(file) => file.flush().map_err(ApplyError::file("write", &self.partial))?,
            To::Parquet(parquet) => {
                parquet.take().map_or(Ok(()), |parquet| parquet.finish(&self.partial))?;
            }
        }
        for (path, numbers) in paths[1..].iter().zip([&ids, &labels]) {
            let array = [npy_header("<i8", &[numbers.len() as i64]), bytes(numbers)].concat();
            write_whole(path, &array)?;
        }
        fs::rename(&self.partial, &paths[0]).map_err(ApplyError::file("rename", &self.partial))
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        // It is there only where an error is told.
        let _ = fs::remove_file(&self.partial);
    }
}

/// Writes a file that has its name when it is whole.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), ApplyError> {
    let partial = path.with_extension("npy.partial");
    fs::write(&partial, bytes).map_err(ApplyError::file("write", &partial))?;
    fs::rename(&partial, path).map_err(ApplyError::file("rename", &partial))
}

/// What safetensors and NumPy call the kind of the numbers; all have four bytes.
fn kind_of(of: FeatureKind) -> (&'static str, &'static str) {
    match of {
        FeatureKind::Codes => ("U32", "<u4"),
        FeatureKind::Latents | FeatureKind::Quantized => ("F32", "<f4"),
    }
}

/// What a file says of its features beside their numbers.
fn said(work: &Work<'_>) -> serde_json::Value {
    let FeaturesOptions { of, pooled, .. } = work.options;
    json!({
        "format": "tessera-features-1",
        "model": work.model.file.hash,
        "of": of,
        "pooled": pooled.to_string(),
        "split": work.name,
        "classes": json!(work.source.classes()).to_string(),
    })
}

/// A Parquet file of these features.
fn parquet_of(work: &Work<'_>, path: &Path, shape: &[i64]) -> Result<Parquet, ApplyError> {
    let numbers = match work.options.of {
        FeatureKind::Codes => Numbers::Codes,
        FeatureKind::Latents | FeatureKind::Quantized => Numbers::Floats,
    };
    let mut entries = said(work);
    entries["axes"] = json!(json!(shape[1..]).to_string());
    let entries = entries.as_object().expect("it is one").iter();
    let entries = entries.map(|(key, value)| {
        (format!("tessera.{key}"), value.as_str().unwrap_or_default().to_owned())
    });
    let width = shape[1..].iter().product::<i64>() as usize;
    Parquet::create(path, numbers, width, work.numbers()?.1, entries.collect())
}

/// The header of a safetensors file: its length, and where each tensor lies.
fn header(work: &Work<'_>, shape: &[i64]) -> Vec<u8> {
    let (num, features) = (shape[0], 4 * shape.iter().product::<i64>());
    let numbers = |start: i64| json!({ "dtype": "I64", "shape": [num], "data_offsets": [start, start + 8 * num] });
    let head = json!({
        "__metadata__": said(work),
        "features": { "dtype": kind_of(work.options.of).0, "shape": shape, "data_offsets": [0, features] },
        "ids": numbers(features),
        "labels": numbers(features + 8 * num),
    });
    let mut text = head.to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    [&(text.len() as u64).to_le_bytes()[..], &text].concat()
}
