//! Encoder, quantiser and decoder together.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::backbone::{Backbone, BackboneConfig, Ends};
use crate::chain::{Block, Chain};
use crate::cost::Cost;
use crate::loss::{logit_laplace_start, logit_laplace_values};
use crate::parameters::{Declarations, Kinds, Parameters};
use crate::quantize::{self, Quantizer, QuantizerConfig, Slot};
use crate::signal::{Signal, from_vectors, to_vectors};

/// The `[model]` table.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Encoder and decoder.
    pub backbone: BackboneConfig,
    /// The quantiser between them; of a hierarchy, that of the finest level.
    pub quantizer: QuantizerConfig,
    /// What the decoder's output stands for.
    pub output: Output,
    /// The range that encoder and decoder see the values of pictures and film in.
    pub pixels: Pixels,
    /// Quantisers of the further levels of a hierarchy, from fine to coarse; empty: like `model.quantizer`.
    pub coarser_quantizers: Vec<QuantizerConfig>,
    /// Begin from what another training made: a run folder, of which the newest good checkpoint is taken, the
    /// folder of a checkpoint, or a model folder, which `tessera import` writes too; empty: begin from nothing. Counts only where a run begins. Nothing but tensors is taken:
    /// the step is 0, and the optimiser has no moments.
    pub init_from: PathBuf,
    /// Which parts of it are taken: any of `"quantizer"`, `"encoder"`, `"decoder"`; empty: all of them.
    pub init_parts: Vec<String>,
}

impl ModelConfig {
    /// What is wrong with the values for samples of `signal`, if anything.
    ///
    /// # Errors
    ///
    /// One line that names the key and says what it may be.
    pub fn validate(&self, signal: &Signal) -> Result<(), String> {
        self.backbone.validate(signal)?;
        if self.output == Output::LogitLaplace && signal.range() != Some(0.0..=1.0) {
            return Err(format!(
                "model.output = \"logit_laplace\" is for pictures and film, whose values are in [0, 1]; these data \
                 are {signal}: set it to \"values\""
            ));
        }
        if self.pixels == Pixels::Signed && signal.range() != Some(0.0..=1.0) {
            return Err(format!(
                "model.pixels = \"signed\" is for pictures and film; these data are {signal}: set it to \"unit\""
            ));
        }
        if self.pixels == Pixels::Signed && self.output == Output::LogitLaplace {
            return Err("model.output = \"logit_laplace\" is of values in [0, 1]: set model.pixels to \"unit\"".to_owned());
        }
        self.validate_quantizers()
    }

    /// What is wrong with the quantisers, if anything.
    ///
    /// # Errors
    ///
    /// One line that names the key and says what it may be.
    pub fn validate_quantizers(&self) -> Result<(), String> {
        self.quantizer.validate()?;
        for (number, quantizer) in self.coarser_quantizers.iter().enumerate() {
            quantizer.validate_at(&format!("model.coarser_quantizers.{number}"))?;
        }
        let (found, wanted) = (self.coarser_quantizers.len(), self.backbone.num_levels() - 1);
        if found != 0 && found != wanted {
            return Err(format!(
                "model.coarser_quantizers should be empty, or as many as this backbone has levels above the \
                 finest, {wanted}; found {found}"
            ));
        }
        Ok(())
    }

    /// The quantiser of each level, the finest first.
    fn quantizers(&self) -> Vec<&QuantizerConfig> {
        let coarser = |level: usize| self.coarser_quantizers.get(level - 1);
        let of = |level| match level {
            0 => &self.quantizer,
            _ => coarser(level).unwrap_or(&self.quantizer),
        };
        (0..self.backbone.num_levels()).map(of).collect()
    }
}

/// What a decoder's output stands for, a value of `model.output`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// The values of a sample.
    #[default]
    Values,
    /// A distribution for each value, for pictures and film: mean and width of a Laplace distribution of its logit, as in
    /// DALL-E. The output has twice as many channels then.
    LogitLaplace,
}

/// The range in which networks see pixels, a value of `model.pixels`. Losses, figures and files have them in [0, 1] always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pixels {
    /// `[0, 1]`.
    #[default]
    Unit,
    /// `[-1, 1]`, as taming-transformers, LlamaGen and diffusers have them. A convolution that pads with zeros sees gray
    /// beyond the border then, and not black.
    Signed,
}

/// A vector-quantised autoencoder, of one quantised level or of several.
#[derive(Debug)]
pub struct VqVae {
    /// What its samples are.
    pub signal: Signal,
    /// What the decoder's output stands for.
    pub output: Output,
    /// The range that encoder and decoder see the values of pictures and film in.
    pub pixels: Pixels,
    /// Encoder and decoder.
    pub backbone: Box<dyn Backbone>,
    /// All trainable tensors.
    pub parameters: Parameters,
    /// What maps latents to codes, of each level, the finest first.
    pub quantizers: Vec<Box<dyn Quantizer>>,
}

impl VqVae {
    /// A model for samples of `signal`, with the initial values that `seed` stands for.
    pub fn new(
        config: &ModelConfig,
        signal: &Signal,
        seed: u64,
        kinds: Kinds,
        device: Device,
    ) -> Self {
        Self::with_more(config, signal, seed, kinds, device, |_| ()).0
    }

    /// The same with further parameters, which `more` declares behind those of the model, and what it returns.
    pub fn with_more<T>(
        config: &ModelConfig,
        signal: &Signal,
        seed: u64,
        kinds: Kinds,
        device: Device,
        more: impl FnOnce(&mut Declarations) -> T,
    ) -> (Self, T) {
        let mut slot = Slot::root(seed, kinds.master, device);
        let mut declarations = Declarations::default();
        let mut quantizers: Vec<Box<dyn Quantizer>> = Vec::new();
        for (level, config) in config.quantizers().into_iter().enumerate() {
            if level > 0 {
                let before = quantizers.iter().map(|quantizer| quantizer.num_codes().len() as u64);
                let first = before.sum();
                slot = Slot::root(seed, kinds.master, device)
                    .child(&format!("coarser.{level}"), first);
            }
            quantizers.push(quantize::build(config, &slot, &mut declarations));
        }
        let dims: Vec<i64> = quantizers.iter().map(|quantizer| quantizer.dim()).collect();
        let outputs = match config.output {
            Output::Values => signal.channels(),
            Output::LogitLaplace => 2 * signal.channels(),
        };
        let ends = Ends { signal: *signal, outputs, dims: &dims };
        let backbone = config.backbone.build(&ends, &mut declarations);
        let more = more(&mut declarations);
        let parameters = declarations.allocate(seed, kinds, device);
        if let Some(range) = signal.range() {
            let middle = match config.pixels {
                Pixels::Unit => (range.start() + range.end()) / 2.0,
                Pixels::Signed => 0.0,
            };
            backbone.set_input_middle(&parameters, middle);
            parameters.refresh();
        }
        let ModelConfig { output, pixels, .. } = *config;
        (Self { signal: *signal, output, pixels, backbone, parameters, quantizers }, more)
    }

    /// Kind of the parameters that the optimiser moves, of latents, samples and losses.
    pub fn kind(&self) -> Kind {
        self.parameters.flat().kind()
    }

    /// Where the model is.
    pub fn device(&self) -> Device {
        self.parameters.flat().device()
    }

    /// Samples `[N, C, ..]` to the codes of each level, the finest first. `quantize` makes codes of a
    /// level's latents, both `[N, D, ..]`; the coarsest level, whose number is the highest, is asked
    /// first. All are of the master kind, whatever the layers compute in.
    pub fn descend(
        &self,
        samples_nc: &Tensor,
        mut quantize: impl FnMut(usize, &Tensor) -> Tensor,
    ) -> Vec<Tensor> {
        let above = self.backbone.above();
        let mut features = vec![self.through(self.backbone.encoder(), &self.seen(samples_nc))];
        for level in above {
            features.push(self.through(&level.down, &features[features.len() - 1]));
        }
        let mut latents = features.pop().expect("there is a level");
        let mut codes = Vec::new();
        for level in (0..=above.len()).rev() {
            codes.push(quantize(level, &latents));
            let Some(of_level) = features.pop() else { break };
            let context = self.through(&above[level - 1].context, &codes[codes.len() - 1]);
            let told = Tensor::cat(&[context, of_level], 1);
            latents = self.through(&above[level - 1].merge, &told);
        }
        codes.reverse();
        codes
    }

    /// Latents `[N, D, ..]` of each level, the finest first, where none is quantised.
    pub fn latents(&self, samples_nc: &Tensor) -> Vec<Tensor> {
        self.descend(samples_nc, |_, latents| latents.shallow_clone())
    }

    /// Indices `[tokens, L]` of each level, the finest first, by the rule of an evaluation.
    pub fn tokenize(&self, samples_nc: &Tensor) -> Vec<Tensor> {
        let mut indices = Vec::new();
        drop(self.descend(samples_nc, |level, latents| {
            let (codes, indices_nl) = self.quantize(level, latents);
            indices.push(indices_nl);
            codes
        }));
        indices.reverse();
        indices
    }

    /// Codes `[N, D, ..]` and indices `[tokens, L]` of the latents `[N, D, ..]` of a level, by the rule of an
    /// evaluation.
    pub fn quantize(&self, level: usize, latents: &Tensor) -> (Tensor, Tensor) {
        let (quantizer, parameters) = (&self.quantizers[level], &self.parameters);
        let indices_nl = quantizer.tokenize(parameters, &to_vectors(latents));
        (from_vectors(&quantizer.look_up(parameters, &indices_nl), latents), indices_nl)
    }

    /// What the decoder reads of the codes of each level, the finest first: `[N, D, ..]`.
    pub fn gather(&self, codes: &[Tensor]) -> Tensor {
        let above = self.backbone.above();
        if above.is_empty() {
            return codes[0].shallow_clone();
        }
        let raised =
            above.iter().zip(&codes[1..]).map(|(level, codes)| self.through(&level.up, codes));
        let mut all: Vec<Tensor> =
            std::iter::once(codes[0].shallow_clone()).chain(raised).collect();
        all.reverse();
        Tensor::cat(&all, 1)
    }

    /// Codes of each level, the finest first, to samples `[N, C, ..]` of the master kind.
    pub fn decode(&self, codes: &[Tensor]) -> Tensor {
        self.values(&self.through(self.backbone.decoder(), &self.gather(codes)))
    }

    /// Indices of codes of each level, the finest first, `[N, positions, L]`, to samples `[N, C, ..]`, clamped to the range of
    /// their signal.
    ///
    /// # Panics
    ///
    /// If an index is none of its level's codes, or the signal is tokens.
    pub fn decode_indices(&self, indices: &[Tensor]) -> Tensor {
        let levels = self.quantizers.iter().zip(self.latent_axes()).zip(indices);
        let codes: Vec<Tensor> = levels
            .map(|((quantizer, axes), indices_npl)| {
                let shape = [&[indices_npl.size()[0], quantizer.dim()], axes.as_slice()].concat();
                // Something of the shape of latents, of which nothing but the shape is looked at.
                let like = Tensor::zeros([1], (self.kind(), self.device())).expand(shape, false);
                let indices_nl = indices_npl.reshape([-1, indices_npl.size()[2]]);
                from_vectors(&quantizer.look_up(&self.parameters, &indices_nl), &like)
            })
            .collect();
        let range = self.signal.range().expect("a decoder makes no tokens");
        self.decode(&codes).clamp(*range.start(), *range.end())
    }

    /// Samples `[N, C, ..]` in the range that the encoder sees them in.
    pub fn seen(&self, samples_nc: &Tensor) -> Tensor {
        match self.pixels {
            Pixels::Unit => samples_nc.shallow_clone(),
            Pixels::Signed => samples_nc * 2.0 - 1.0,
        }
    }

    /// The values `[N, C, ..]` that a decoder's output stands for.
    pub fn values(&self, output: &Tensor) -> Tensor {
        match (self.output, self.pixels) {
            (Output::Values, Pixels::Unit) => output.shallow_clone(),
            (Output::Values, Pixels::Signed) => (output + 1.0) / 2.0,
            (Output::LogitLaplace, _) => logit_laplace_values(output),
        }
    }

    /// What one forward pass of a sample costs, quantisers left out: sums over all chains, so that what is kept with
    /// recomputation is an upper bound.
    pub fn cost(&self) -> Cost {
        let _no_grad = tch::no_grad_guard();
        let mut total = Cost::default();
        let mut count = |chain: &Chain, input: &Tensor| {
            let input = input.to_kind(self.parameters.compute_kind());
            let cost = Cost::of_chain(chain, &self.parameters, &input);
            total.flops += cost.flops;
            total.activations += cost.activations;
            total.recomputed += cost.recomputed;
        };
        let zeros = |channels: i64, axes: &[i64]| {
            let shape = [&[1, channels], axes].concat();
            Tensor::zeros(shape.as_slice(), (self.kind(), self.device()))
        };
        let samples = zeros(self.signal.channels(), &self.signal.axes());
        let (backbone, axes) = (&self.backbone, self.latent_axes());
        count(backbone.encoder(), &samples);
        let mut features = self.through(backbone.encoder(), &samples);
        for (level, above) in (1..).zip(backbone.above()) {
            let codes = zeros(self.quantizers[level].dim(), &axes[level]);
            let context = self.through(&above.context, &codes);
            let told = Tensor::cat(&[context, features.shallow_clone()], 1);
            count(&above.down, &features);
            count(&above.context, &codes);
            count(&above.merge, &told);
            count(&above.up, &codes);
            features = self.through(&above.down, &features);
        }
        let codes: Vec<Tensor> = self
            .quantizers
            .iter()
            .zip(&axes)
            .map(|(quantizer, axes)| zeros(quantizer.dim(), axes))
            .collect();
        count(backbone.decoder(), &self.gather(&codes));
        total
    }

    fn through(&self, chain: &Chain, input: &Tensor) -> Tensor {
        let input = input.to_kind(self.parameters.compute_kind());
        chain.forward(&self.parameters, &input).to_kind(self.kind())
    }

    /// Lets the output start at the mean of each channel, `[C]`.
    pub fn set_output_mean(&self, means_c: &Tensor) {
        match self.output {
            Output::Values => {
                self.backbone.set_output_mean(&self.parameters, &self.seen(means_c));
            }
            Output::LogitLaplace => {
                self.backbone.set_output_mean(&self.parameters, &logit_laplace_start(means_c));
            }
        }
        self.parameters.refresh();
    }

    /// Sizes of the positional axes of one sample's latents at each level, the finest first.
    pub fn latent_axes(&self) -> Vec<Vec<i64>> {
        let finest = self.backbone.latent_axes(&self.signal);
        (0..self.quantizers.len())
            .map(|level| finest.iter().map(|size| size >> level).collect())
            .collect()
    }

    /// Latent positions of one sample at each level, the finest first.
    pub fn num_positions(&self) -> Vec<i64> {
        self.latent_axes().iter().map(|axes| axes.iter().product()).collect()
    }

    /// Numbers of codes of all levels of all quantisers, the finest first.
    pub fn num_codes(&self) -> Vec<i64> {
        self.quantizers.iter().flat_map(|quantizer| quantizer.num_codes()).collect()
    }

    /// Refuses a number of levels in a row, as `--levels` names one, that no quantiser of this model has.
    pub fn check_levels(&self, asked: Option<usize>) -> Result<(), String> {
        let of_each = self.quantizers.iter().map(|quantizer| quantizer.num_residual_levels());
        let most = of_each.max().unwrap_or(1);
        match asked.filter(|levels| !(1..=most).contains(levels)) {
            None => Ok(()),
            Some(levels) => Err(format!(
                "--levels should be from 1 to {most}, the levels in a row that the model's quantiser has, found {levels}"
            )),
        }
    }
}

/// A small tensor of the host on a device, behind whatever the device was asked so far. The host
/// does not wait for the device, as libtorch's plain copy would make it.
pub fn to_device(tensor: Tensor, device: Device) -> Tensor {
    if device.is_cuda() {
        // libtorch keeps page-locked memory until the copy has ended.
        let kind = tensor.kind();
        return tensor.pin_memory(device).to_device_(device, kind, true, false);
    }
    tensor.to(device)
}
