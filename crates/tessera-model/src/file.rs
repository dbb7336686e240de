//! `config.json` of a model folder.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tch::Tensor;
use tessera_data::tokens::{TokenInfo, TokenLevel};
use tessera_data::{DataConfig, DataError, DataKind, Modality, SampleShape, Source};
use tessera_nn::prior::{Codes, PriorConfig};
use tessera_nn::{ModelConfig, VqVae, prior};

use crate::hash::{TensorHash, canonical};
use crate::samples::signal_of;
use crate::words::{Precision, Weights};

/// What a `config.json` says of itself.
pub const FORMAT: &str = "tessera-model";
/// The version of the format that is written and read.
pub const VERSION: u32 = 1;

/// `config.json` of a model folder: all there is to know of a model but its weights. A reader ignores keys that it does
/// not know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelFile {
    /// Always [`FORMAT`].
    pub format: String,
    /// Version of the format.
    pub version: u32,
    /// Version of Tessera that wrote it.
    pub tessera: String,
    /// SHA-256 in hex of all that decides outputs, weights included: the name of the model in everything that is made
    /// with it.
    pub hash: String,
    /// Optimiser steps that the weights come from.
    pub step: u64,
    /// Which weights of the run these are.
    pub weights: Weights,
    /// Kinds of weights and activations.
    pub precision: Precision,
    /// What the model is.
    #[serde(flatten)]
    pub kind: ModelKind,
    /// The run's `[data]` table: where samples are read from where nobody says it. Not part of the hash.
    pub trained_on: Value,
}

/// What a model is, by the key `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ModelKind {
    /// Encoder, quantiser and decoder.
    Autoencoder(AutoencoderFile),
    /// A model of an autoencoder's codes.
    Prior(PriorFile),
}

/// What an autoencoder is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AutoencoderFile {
    /// The run's `[model]` table as the run had it, without what it began from: keys that are newer than the run are
    /// not in it and have their defaults.
    pub model: Value,
    /// Shape of a sample.
    pub shape: SampleShape,
    /// How a sample comes to be.
    pub preprocessing: Preprocessing,
    /// Names of the classes of what it was trained on, by number; empty where they have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// The quantised levels, the finest first.
    pub levels: Vec<Level>,
}

/// What a prior is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PriorFile {
    /// The run's `[prior]` table as the run had it: keys that are newer than the run have their defaults.
    pub prior: Value,
    /// What its codes are.
    pub codes: CodesFile,
}

/// Codes of an autoencoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CodesFile {
    /// Hash of the autoencoder that makes them, and samples of them.
    pub tokenizer: String,
    /// Shape of the samples that they stand for.
    pub shape: SampleShape,
    /// Their levels in the order of a token set: the finest of a hierarchy first.
    pub levels: Vec<TokenLevel>,
    /// Number of classes; 0: samples have none.
    pub num_classes: u64,
    /// Names of the classes, by number; empty where they have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
}

/// A quantised level of an autoencoder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// Sizes of the positional axes of a sample's codes.
    pub axes: Vec<i64>,
    /// Numbers of codes, one for each code of a position.
    pub num_codes: Vec<i64>,
}

/// What a file has to go through to become a sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preprocessing {
    /// The range that a sample's values lie in, as the model reads them.
    pub range: [f64; 2],
    /// `data.image`, `data.audio` or `data.video` of the run, as its samples have it; none where samples were read as they
    /// lie in arrays, records or packed shards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoding: Option<Value>,
}

impl ModelFile {
    /// What it says of an autoencoder.
    ///
    /// # Panics
    ///
    /// If it is none. What [`crate::open`] gives is one.
    pub fn autoencoder(&self) -> &AutoencoderFile {
        match &self.kind {
            ModelKind::Autoencoder(file) => file,
            ModelKind::Prior(_) => panic!("a prior was taken for an autoencoder"),
        }
    }

    /// What it says of the prior, where it is one.
    pub fn prior(&self) -> Option<&PriorFile> {
        match &self.kind {
            ModelKind::Prior(file) => Some(file),
            ModelKind::Autoencoder(_) => None,
        }
    }

    /// The data that the model was trained on.
    ///
    /// # Errors
    ///
    /// What is wrong, where it is no `[data]` table of this version.
    pub fn data(&self) -> Result<DataConfig, String> {
        serde_json::from_value(self.trained_on.clone())
            .map_err(|error| format!("trained_on is no [data] table of this version: {error}"))
    }

    /// The hash of all that decides outputs: the SHA-256 of one JSON object with sorted keys and no spaces.
    pub(crate) fn hash_with(&self, tensors: &BTreeMap<String, TensorHash>) -> String {
        let decides = match &self.kind {
            ModelKind::Autoencoder(AutoencoderFile { model, shape, preprocessing, .. }) => json!({
                "kind": "autoencoder",
                "model": model,
                "precision": self.precision,
                "preprocessing": preprocessing,
                "shape": shape,
                "tensors": tensors,
            }),
            ModelKind::Prior(PriorFile { prior, codes }) => json!({
                "codes": codes,
                "kind": "prior",
                "precision": self.precision,
                "prior": prior,
                "tensors": tensors,
            }),
        };
        tessera_checkpoint::sha256_hex(canonical(&decides).as_bytes())
    }
}

impl AutoencoderFile {
    /// The architecture.
    ///
    /// # Errors
    ///
    /// What is wrong, where it is no `[model]` table of this version, or does not fit its samples.
    pub fn config(&self) -> Result<ModelConfig, String> {
        let config: ModelConfig = serde_json::from_value(self.model.clone())
            .map_err(|error| format!("model is no [model] table of this version: {error}"))?;
        config.validate(&signal_of(self.shape))?;
        Ok(config)
    }
}

impl PriorFile {
    /// The architecture.
    ///
    /// # Errors
    ///
    /// What is wrong, where it is no `[prior]` table of this version, or does not fit its codes.
    pub fn config(&self) -> Result<PriorConfig, String> {
        let config: PriorConfig = serde_json::from_value(self.prior.clone())
            .map_err(|error| format!("prior is no [prior] table of this version: {error}"))?;
        config.validate(&self.codes.of_prior())?;
        Ok(config)
    }
}

impl CodesFile {
    /// Those of a source of tokens; none of others.
    ///
    /// # Errors
    ///
    /// As [`Source::num_classes`].
    pub fn of(source: &dyn Source) -> Result<Option<Self>, DataError> {
        let Some(TokenInfo { tokenizer, shape, levels, .. }) = source.tokens() else {
            return Ok(None);
        };
        Ok(Some(Self {
            tokenizer: tokenizer.clone(),
            shape: *shape,
            levels: levels.clone(),
            num_classes: source.num_classes()?.unwrap_or(0),
            classes: source.classes(),
        }))
    }

    /// Values of the sample that a sample's codes stand for.
    pub fn num_values(&self) -> usize {
        self.shape.num_bytes() / self.shape.element_bytes()
    }

    /// Whether all levels are of one grid, as those of a residual quantiser, and no hierarchy.
    fn is_one_grid(&self) -> bool {
        self.levels.iter().all(|level| level.axes == self.levels[0].axes)
    }

    /// The numbers of the levels in the order of a prior, which has the coarsest of a hierarchy first.
    fn levels_in_order(&self) -> Vec<usize> {
        let levels = 0..self.levels.len();
        if self.is_one_grid() { levels.collect() } else { levels.rev().collect() }
    }

    /// What a prior is of.
    pub fn of_prior(&self) -> Codes {
        let level = |number: usize| {
            let TokenLevel { num_codes, axes } = &self.levels[number];
            let axes = axes.iter().map(|&size| i64::from(size)).collect();
            prior::Level { axes, num_codes: i64::from(*num_codes) }
        };
        let levels = self.levels_in_order().into_iter().map(level).collect();
        Codes { levels, num_classes: self.num_classes as i64 }
    }

    /// Where each token of a prior stands in a sample of the token set.
    pub fn order(&self) -> Vec<i64> {
        let sizes: Vec<usize> = self.levels.iter().map(TokenLevel::num_positions).collect();
        let of_level = |level: usize| {
            let start = sizes[..level].iter().sum::<usize>();
            (start as i64)..(start + sizes[level]) as i64
        };
        self.levels_in_order().into_iter().flat_map(of_level).collect()
    }
}

impl Level {
    /// Those of a model, the finest first.
    pub fn of(vqvae: &VqVae) -> Vec<Self> {
        let codes = vqvae.quantizers.iter().map(|quantizer| quantizer.num_codes());
        let level = |(axes, num_codes)| Self { axes, num_codes };
        vqvae.latent_axes().into_iter().zip(codes).map(level).collect()
    }

    /// Positions of a sample's codes.
    pub fn num_positions(&self) -> i64 {
        self.axes.iter().product()
    }

    /// Codes `[N, T]` in the order of a token set, as a model takes them: of each of its levels `[N, positions, L]`.
    pub fn split(levels: &[Self], codes_nt: &Tensor) -> Vec<Tensor> {
        let mut start = 0;
        let of_level = |level: &Self| {
            let (positions, columns) = (level.num_positions(), level.num_codes.len() as i64);
            let of_level = codes_nt.narrow(1, start, positions * columns);
            start += positions * columns;
            // A token set has the codes of a position in as many levels.
            of_level.reshape([-1, columns, positions]).transpose(1, 2).contiguous()
        };
        levels.iter().map(of_level).collect()
    }
}

impl Preprocessing {
    /// What samples of `shape` went through that `data`, as its table is `raw`, describes.
    pub(crate) fn of(data: &DataConfig, raw: &Value, shape: SampleShape) -> Self {
        let range = signal_of(shape).range().expect("no autoencoder is trained on tokens");
        let decoding = match shape.modality {
            Modality::Image => decoding(data, raw, "image"),
            Modality::Audio => decoding(data, raw, "audio"),
            Modality::Video => decoding(data, raw, "video"),
            Modality::Tokens => None,
        };
        Self { range: [*range.start(), *range.end()], decoding }
    }
}

/// The table of the files that become samples; of a mixture that of its first part that has one.
fn decoding(data: &DataConfig, raw: &Value, table: &str) -> Option<Value> {
    match data.kind {
        DataKind::Folder | DataKind::Webdataset => raw.get(table).cloned(),
        DataKind::Mixture => data.mixture.iter().enumerate().find_map(|(number, part)| {
            decoding(&part.data, raw.get("mixture")?.get(number)?.get("data")?, table)
        }),
        DataKind::Packed
        | DataKind::Tokens
        | DataKind::Idx
        | DataKind::Cifar
        | DataKind::Npy
        | DataKind::Synthetic => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: a fine level of 2 positions with 2 codes each, kept as codes of the first and of the second, and a coarse
    /// one of 1 position.
    #[test]
    fn columns_of_a_position_are_beside_one_another() {
        let levels = [
            Level { axes: vec![1, 2], num_codes: vec![9, 9] },
            Level { axes: vec![1, 1], num_codes: vec![9] },
        ];
        let tokens = Tensor::from_slice(&[1i64, 2, 3, 4, 5]).view([1, 5]);
        let indices = Level::split(&levels, &tokens);
        assert_eq!(indices[0], Tensor::from_slice(&[1i64, 3, 2, 4]).view([1, 2, 2]));
        assert_eq!(indices[1], Tensor::from_slice(&[5i64]).view([1, 1, 1]));
    }
}
