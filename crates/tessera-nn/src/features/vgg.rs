//! VGG16 with the heads of LPIPS, from a file.
//!
//! Zhang et al. 2018 (<https://arxiv.org/abs/1801.03924>), version 0.1, as package `lpips` 0.1.4 has it
//! with `net="vgg"`: features after `relu1_2`, `relu2_2`, `relu3_3`, `relu4_3` and `relu5_3` of
//! Simonyan and Zisserman's net D without batch norm, and a weight for each of their channels. The
//! original's heads have a dropout that acts as soon as the loss is put into training mode; there is
//! none here.

use std::path::Path;

use tch::{Device, Tensor};

use super::layout::Named;
use super::{channels_last, computable};
use crate::layers::resample::max_pool;

/// Convolutions before each map: channels, and places of the first one and the pool before it in
/// torchvision's `vgg16.features`.
const STAGES: [&[(i64, i64)]; 5] = [
    &[(0, 64), (2, 64)],
    &[(5, 128), (7, 128)],
    &[(10, 256), (12, 256), (14, 256)],
    &[(17, 512), (19, 512), (21, 512)],
    &[(24, 512), (26, 512), (28, 512)],
];
/// Of pictures in [-1, 1].
const SHIFT: [f64; 3] = [-0.030, -0.088, -0.188];
const SCALE: [f64; 3] = [0.458, 0.448, 0.450];
/// Four pools leave one position of it.
const LEAST_SIDE: i64 = 16;
const LAYOUT: &str = "the file should hold features.{0,2,5,7,10,12,14,17,19,21,24,26,28}.{weight,bias} of \
                      torchvision's vgg16 (or net.slice{1..5} of them, as lpips names them) and \
                      lin{0..4}.model.1.weight of lpips with net=\"vgg\"";

/// See the module.
#[derive(Debug)]
pub struct Vgg {
    /// Weight and bias of each convolution of each stage.
    stages: Vec<Vec<(Tensor, Tensor)>>,
    /// Weights of channels, `[C]`.
    heads: Vec<Tensor>,
    /// What is taken from pictures in [-1, 1], and what they are divided by then: `[1, 3, 1, 1]`.
    shift: Tensor,
    scale: Tensor,
}

impl Vgg {
    /// Reads a safetensors file.
    ///
    /// # Errors
    ///
    /// One line that names the file, and the tensor that is missing, of another shape or not of this
    /// network.
    pub fn read(path: &Path, device: Device) -> Result<Self, String> {
        let of_file = |error: String| format!("{}: {}", path.display(), one_line(&error));
        let tensors = Tensor::read_safetensors(path)
            .map_err(|error| of_file(format!("cannot be read as safetensors: {error}")))?;
        Self::new(tensors, device).map_err(of_file)
    }

    /// From tensors by name. The layers behind `relu5_3`, the input's scale and `lpips`'s second name of
    /// each head may be there and are not used.
    ///
    /// # Errors
    ///
    /// One line that names the tensor that is missing, of another shape or not of this network.
    pub fn new(
        tensors: impl IntoIterator<Item = (String, Tensor)>,
        device: Device,
    ) -> Result<Self, String> {
        let mut named = Named::new(tensors, device, LAYOUT);
        named.forget(&["classifier.", "scaling_layer."]);
        let (mut stages, mut heads) = (Vec::new(), Vec::new());
        let mut inputs = 3;
        for (stage, convs) in STAGES.iter().enumerate() {
            let mut layers = Vec::new();
            for &(place, outputs) in *convs {
                let slice = stage + 1;
                let mut take = |end: &str, shape: &[i64]| {
                    let torchvision = format!("features.{place}.{end}");
                    named.take(&[torchvision, format!("net.slice{slice}.{place}.{end}")], shape)
                };
                let weight = take("weight", &[outputs, inputs, 3, 3])?;
                layers.push((channels_last(&weight), take("bias", &[outputs])?));
                inputs = outputs;
            }
            stages.push(layers);
        }
        for (stage, convs) in STAGES.iter().enumerate() {
            let width = convs[0].1;
            let names = ["lin", "lins."]
                .map(|list| [1, 0].map(|place| format!("{list}{stage}.model.{place}.weight")));
            let head = named.take(&names.concat(), &[1, width, 1, 1])?;
            heads.push(head.view([width]));
        }
        named.forget(&["lins."]);
        named.end()?;
        let [shift, scale] = [SHIFT, SCALE]
            .map(|values| Tensor::from_slice(&values).view([1, 3, 1, 1]).to_device(device));
        Ok(Self { stages, heads, shift, scale })
    }

    /// Weights of the channels of each map, `[C]`.
    pub(super) fn heads(&self) -> &[Tensor] {
        &self.heads
    }

    pub(super) fn validate(&self, channels: i64, height: i64, width: i64) -> Result<(), String> {
        if channels != 1 && channels != 3 {
            return Err(format!("VGG16 takes pictures of 1 or 3 channels, these have {channels}"));
        }
        if height.min(width) < LEAST_SIDE {
            return Err(format!(
                "VGG16 takes pictures with sides of {LEAST_SIDE} at least, these are {height} x {width}"
            ));
        }
        Ok(())
    }

    /// Features after each stage's last ReLU. Grey pictures are repeated to three channels.
    pub(super) fn maps(&self, images_nchw: &Tensor) -> Vec<Tensor> {
        let images = computable(images_nchw);
        let kind = images.kind();
        // A grey picture's one channel is repeated by the broadcast.
        let mut hidden = (images * 2.0 - 1.0 - self.shift.to_kind(kind)) / self.scale.to_kind(kind);
        let mut maps = Vec::with_capacity(self.stages.len());
        for (stage, convs) in self.stages.iter().enumerate() {
            if stage > 0 {
                hidden = max_pool(&hidden, &[2, 2]);
            }
            for (weight, bias) in convs {
                let [weight, bias] = [weight, bias].map(|tensor| tensor.to_kind(kind));
                hidden = hidden.conv2d(&weight, Some(bias), [1, 1], [1, 1], [1, 1], 1).relu_();
            }
            maps.push(hidden.shallow_clone());
        }
        maps
    }
}

/// The first line of a message.
pub(super) fn one_line(message: &str) -> &str {
    message.lines().next().unwrap_or_default()
}
