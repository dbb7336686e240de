//! Encoder, quantiser and decoder together.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::backbone::{Backbone, BackboneConfig};
use crate::parameters::{Declarations, Kinds, Parameters};
use crate::quantize::{self, Quantizer, QuantizerConfig, Slot};

/// The `[model]` table.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Encoder and decoder.
    pub backbone: BackboneConfig,
    /// The quantiser between them.
    pub quantizer: QuantizerConfig,
}

impl ModelConfig {
    /// What is wrong with the values for images of `height` times `width`, if anything.
    ///
    /// # Errors
    ///
    /// One line that names the key and says what it may be.
    pub fn validate(&self, height: i64, width: i64) -> Result<(), String> {
        self.backbone.validate(height, width)?;
        self.quantizer.validate()
    }
}

/// A vector-quantised autoencoder.
#[derive(Debug)]
pub struct VqVae {
    backbone: Backbone,
    /// All trainable tensors.
    pub parameters: Parameters,
    /// What maps latents to codes.
    pub quantizer: Box<dyn Quantizer>,
}

impl VqVae {
    /// A model for images of `channels`, with the initial values that `seed` stands for.
    pub fn new(
        config: &ModelConfig,
        channels: i64,
        seed: u64,
        kinds: Kinds,
        device: Device,
    ) -> Self {
        let slot = Slot::root(seed, kinds.master, device);
        let mut declarations = Declarations::default();
        let quantizer = quantize::build(&config.quantizer, &slot, &mut declarations);
        let dim = quantizer.dim();
        let backbone = Backbone::new(&config.backbone, channels, dim, &mut declarations);
        Self { backbone, parameters: declarations.allocate(seed, kinds, device), quantizer }
    }

    /// Kind of the parameters that the optimiser moves, of latents, images and losses.
    pub fn kind(&self) -> Kind {
        self.parameters.flat().kind()
    }

    /// Where the model is.
    pub fn device(&self) -> Device {
        self.parameters.flat().device()
    }

    /// Images `[N, C, H, W]` to latents `[N, D, h, w]`, channels-last in memory. Both are of the
    /// master kind, whatever the layers compute in.
    pub fn encode(&self, images_nchw: &Tensor) -> Tensor {
        let images_nchw = images_nchw.to_kind(self.parameters.compute_kind());
        self.backbone.encode(&self.parameters, &images_nchw).to_kind(self.parameters.flat().kind())
    }

    /// Quantised latents `[N, D, h, w]` to images `[N, C, H, W]`, both of the master kind.
    pub fn decode(&self, latents_ndhw: &Tensor) -> Tensor {
        let latents_ndhw = latents_ndhw.to_kind(self.parameters.compute_kind());
        self.backbone.decode(&self.parameters, &latents_ndhw).to_kind(self.parameters.flat().kind())
    }

    /// Sets the bias of the output, `[C]`.
    pub fn set_output_bias(&self, bias_c: &Tensor) {
        self.parameters.master(self.backbone.output_bias()).copy_(bias_c);
        self.parameters.refresh();
    }

    /// Latent positions of one image of `height` times `width`.
    pub fn num_positions(&self, height: i64, width: i64) -> i64 {
        self.backbone.num_positions(height, width)
    }
}

/// `[N, D, h, w]` to `[N h w, D]`, tokens in row-major order; no copy where it is channels-last.
pub fn to_vectors(latents_ndhw: &Tensor) -> Tensor {
    let dim = latents_ndhw.size()[1];
    latents_ndhw.permute([0, 2, 3, 1]).reshape([-1, dim])
}

/// `[N h w, D]` to the shape of `like`, `[N, D, h, w]`, channels-last in memory.
pub fn from_vectors(vectors_nd: &Tensor, like: &Tensor) -> Tensor {
    let (num, dim, height, width) = like.size4().expect("latents are [N, D, h, w]");
    vectors_nd.view([num, height, width, dim]).permute([0, 3, 1, 2])
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

/// Bytes `[N, H, W, C]` of kind uint8 to images `[N, C, H, W]` in [0, 1] on the same device,
/// channels-last in memory.
pub fn images_from_bytes(bytes_nhwc: &Tensor, kind: Kind) -> Tensor {
    (bytes_nhwc.to_kind(kind) / 255.0).permute([0, 3, 1, 2])
}
