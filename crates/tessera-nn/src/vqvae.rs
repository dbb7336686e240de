//! Encoder, quantiser and decoder together.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::backbone::{Backbone, BackboneConfig};
use crate::chain::{Block, Chain};
use crate::parameters::{Declarations, Kinds, Parameters};
use crate::quantize::{self, Quantizer, QuantizerConfig, Slot};
use crate::signal::Signal;

/// The `[model]` table.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Encoder and decoder.
    pub backbone: BackboneConfig,
    /// The quantiser between them.
    pub quantizer: QuantizerConfig,
    /// Begin from what another training made: a run folder, of which the newest good checkpoint is taken, or the
    /// folder of a checkpoint; empty: begin from nothing. Counts only where a run begins. Nothing but tensors is taken:
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
        self.quantizer.validate()
    }
}

/// A vector-quantised autoencoder.
#[derive(Debug)]
pub struct VqVae {
    /// What its samples are.
    pub signal: Signal,
    /// Encoder and decoder.
    pub backbone: Box<dyn Backbone>,
    /// All trainable tensors.
    pub parameters: Parameters,
    /// What maps latents to codes.
    pub quantizer: Box<dyn Quantizer>,
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
        let slot = Slot::root(seed, kinds.master, device);
        let mut declarations = Declarations::default();
        let quantizer = quantize::build(&config.quantizer, &slot, &mut declarations);
        let backbone = config.backbone.build(signal, quantizer.dim(), &mut declarations);
        let parameters = declarations.allocate(seed, kinds, device);
        Self { signal: *signal, backbone, parameters, quantizer }
    }

    /// Kind of the parameters that the optimiser moves, of latents, samples and losses.
    pub fn kind(&self) -> Kind {
        self.parameters.flat().kind()
    }

    /// Where the model is.
    pub fn device(&self) -> Device {
        self.parameters.flat().device()
    }

    /// Samples `[N, C, ..]` to latents `[N, D, ..]`, channels-last in memory. Both are of the
    /// master kind, whatever the layers compute in.
    pub fn encode(&self, samples_nc: &Tensor) -> Tensor {
        self.through(self.backbone.encoder(), samples_nc)
    }

    /// Quantised latents `[N, D, ..]` to samples `[N, C, ..]`, both of the master kind.
    pub fn decode(&self, latents_nd: &Tensor) -> Tensor {
        self.through(self.backbone.decoder(), latents_nd)
    }

    fn through(&self, chain: &Chain, input: &Tensor) -> Tensor {
        let input = input.to_kind(self.parameters.compute_kind());
        chain.forward(&self.parameters, &input).to_kind(self.kind())
    }

    /// Lets the output start at the mean of each channel, `[C]`.
    pub fn set_output_mean(&self, means_c: &Tensor) {
        self.backbone.set_output_mean(&self.parameters, means_c);
        self.parameters.refresh();
    }

    /// Sizes of the positional axes of one sample's latents.
    pub fn latent_axes(&self) -> Vec<i64> {
        self.backbone.latent_axes(&self.signal)
    }

    /// Latent positions of one sample.
    pub fn num_positions(&self) -> i64 {
        self.latent_axes().iter().product()
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
