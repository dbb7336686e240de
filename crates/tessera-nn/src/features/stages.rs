//! Small nets of convolution, ReLU and pool, drawn at random or trained as a head.
//!
//! Published: a random net of several layers is as good a loss as VGG for some tasks, if its first
//! weights keep activations at one scale (Liu et al. 2021, <https://arxiv.org/abs/2103.10571>); for
//! similarity as people see it, random nets are clearly worse than trained ones (Zhang et al. 2018,
//! <https://arxiv.org/abs/1801.03924>). So the random one costs nothing and is the control, and one
//! that was trained on the pictures' labels is what to compare it with. Neither is LPIPS.

use tch::{Device, Kind, Tensor};

use super::layout::Named;
use super::{channels_last, computable};
use crate::HeadConfig;
use crate::layers::resample::max_pool;
use crate::random::{Purpose, draws};

/// Of the random net; its last two stages have 384 channels together.
const WIDTHS: [i64; 4] = [32, 64, 128, 256];
/// What the random weights are drawn with, whatever a run's own seed is: figures of two runs are
/// comparable.
const SEED: u64 = 0;
const LAYOUT: &str = "a head should hold head.stages.N.weight and .bias of each stage";

/// See the module.
#[derive(Debug)]
pub struct Stages {
    /// What is taken from pictures in [0, 1], and what they are divided by then: `[C]` each.
    mean_c: Tensor,
    deviation_c: Tensor,
    /// Weight `[C', C, 3, 3]` and bias `[C']` of each stage.
    convs: Vec<(Tensor, Tensor)>,
}

impl Stages {
    /// Four stages of 32, 64, 128 and 256 channels without biases, for pictures of `channels`.
    ///
    /// Weights are the orthogonal factor of a matrix of normal draws, `[C', 9 C]`, so no two features
    /// are the same and none is lost; then scaled to a mean square length of rows of 2. Over draws,
    /// the mean square of what a convolution gives is then twice that of its input, of which ReLU
    /// leaves half: activations stay at the scale of the picture, but for the pools, which keep the
    /// larger ones and so multiply it by 1.5 or so each.
    pub fn random(channels: i64, device: Device) -> Self {
        let mut inputs = channels;
        let mut convs = Vec::new();
        for (stage, outputs) in WIDTHS.into_iter().enumerate() {
            let numbers = draws(SEED, Purpose::Features, 0, stage as u64)
                .normal(1.0, (outputs * inputs * 9) as usize);
            let weight = orthogonal(&Tensor::from_slice(&numbers).view([outputs, inputs * 9]));
            let weight = weight.view([outputs, inputs, 3, 3]).to_kind(Kind::Float);
            let bias = Tensor::zeros([outputs], (Kind::Float, device));
            convs.push((channels_last(&weight.to_device(device)), bias));
            inputs = outputs;
        }
        // To [-1, 1].
        let half = Tensor::full([channels], 0.5, (Kind::Float, device));
        Self { mean_c: half.shallow_clone(), deviation_c: half, convs }
    }

    /// The stages of a convolutional head that was trained on pictures of `channels`, from its tensors
    /// by name: `head.stages.N.{weight, bias}`, and `head.mean` and `head.deviation` of pixels, where it
    /// was trained on normalised ones. Others that begin with `head.` are not used.
    ///
    /// # Errors
    ///
    /// One line where the head has no stages, or names the tensor that is missing, of another shape or
    /// not a head's.
    pub fn of_head(
        config: HeadConfig,
        channels: i64,
        tensors: impl IntoIterator<Item = (String, Tensor)>,
        device: Device,
    ) -> Result<Self, String> {
        let HeadConfig::Conv { channels: first, stages: num_stages } = config else {
            return Err("a head that features are taken from should have stages: train one with \
                        probe.head = \"conv\""
                .into());
        };
        if num_stages < 1 {
            return Err(format!(
                "a head that features are taken from has {num_stages} stages: train one with 1 at least"
            ));
        }
        let mut named = Named::new(tensors, device, LAYOUT);
        let of_pixels = |named: &mut Named, name: &str, otherwise: f64| {
            if named.holds(name) {
                named.take(&[name.to_owned()], &[channels])
            } else {
                Ok(Tensor::full([channels], otherwise, (Kind::Float, device)))
            }
        };
        let mean_c = of_pixels(&mut named, "head.mean", 0.0)?;
        let deviation_c = of_pixels(&mut named, "head.deviation", 1.0)?;
        let mut convs = Vec::new();
        let mut inputs = channels;
        for stage in 0..num_stages {
            let outputs = first << stage;
            let mut take = |end: &str, shape: &[i64]| {
                named.take(&[format!("head.stages.{stage}.{end}")], shape)
            };
            let weight = take("weight", &[outputs, inputs, 3, 3])?;
            convs.push((channels_last(&weight), take("bias", &[outputs])?));
            inputs = outputs;
        }
        named.forget(&["head.hidden.", "head.logits."]);
        named.end()?;
        Ok(Self { mean_c, deviation_c, convs })
    }

    /// All of whose features are 0.
    #[cfg(test)]
    pub(super) fn without_features() -> Self {
        let mut stages = Self::random(3, Device::Cpu);
        for (weight, _) in &mut stages.convs {
            let _ = weight.zero_();
        }
        stages
    }

    pub(super) fn validate(&self, channels: i64, height: i64, width: i64) -> Result<(), String> {
        let wanted = self.mean_c.size()[0];
        if channels != wanted {
            return Err(format!(
                "these features are of pictures of {wanted} channels, these have {channels}"
            ));
        }
        let least = 1 << (self.convs.len() - 1);
        if height.min(width) < least {
            return Err(format!(
                "these features need pictures with sides of {least} at least, these are {height} x {width}"
            ));
        }
        Ok(())
    }

    /// Features after each stage's ReLU, before its pool, which would hide small shifts.
    pub(super) fn maps(&self, images_nchw: &Tensor) -> Vec<Tensor> {
        let images = computable(images_nchw);
        let kind = images.kind();
        let of_channels = |tensor_c: &Tensor| tensor_c.to_kind(kind).view([1, -1, 1, 1]);
        let mut hidden = (images - of_channels(&self.mean_c)) / of_channels(&self.deviation_c);
        let mut maps = Vec::with_capacity(self.convs.len());
        for (stage, (weight, bias)) in self.convs.iter().enumerate() {
            if stage > 0 {
                hidden = max_pool(&hidden, &[2, 2]);
            }
            let [weight, bias] = [weight, bias].map(|tensor| tensor.to_kind(kind));
            hidden = hidden.conv2d(&weight, Some(bias), [1, 1], [1, 1], [1, 1], 1).relu_();
            maps.push(hidden.shallow_clone());
        }
        maps
    }
}

/// A matrix `[outputs, inputs]` whose rows, or columns where there are fewer of them, are orthogonal
/// and of one length, and the mean square length of whose rows is 2.
fn orthogonal(normal: &Tensor) -> Tensor {
    let (outputs, inputs) = normal.size2().expect("a matrix");
    let is_wide = outputs < inputs;
    let tall = if is_wide { normal.tr() } else { normal.shallow_clone() };
    let (q, r) = Tensor::linalg_qr(&tall, "reduced");
    // The signs of the diagonal of R make Q unique, and uniform over all such matrices.
    let q = q * r.diagonal(0, 0, 1).sign();
    let q = if is_wide { q.tr() } else { q };
    q * (2.0 * outputs as f64 / outputs.min(inputs) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Head;
    use crate::parameters::{Declarations, Kinds};

    fn pictures(channels: i64) -> Tensor {
        let at = Tensor::arange(2 * channels * 32 * 32, (Kind::Double, Device::Cpu));
        ((at * 0.37).sin() * 0.4 + 0.5).view([2, channels, 32, 32])
    }

    #[test]
    fn random_weights_are_orthogonal_and_always_the_same() {
        let stages = Stages::random(3, Device::Cpu);
        let again = Stages::random(3, Device::Cpu);
        for ((weight, bias), (same, _)) in stages.convs.iter().zip(&again.convs) {
            assert_eq!(weight, same);
            assert_eq!(bias.abs().max().double_value(&[]), 0.0);
            let rows = weight.to_kind(Kind::Double).reshape([weight.size()[0], -1]);
            let (outputs, inputs) = rows.size2().unwrap();
            let gram =
                if outputs <= inputs { rows.matmul(&rows.tr()) } else { rows.tr().matmul(&rows) };
            let eye = Tensor::eye(outputs.min(inputs), (Kind::Double, Device::Cpu));
            let length = 2.0 * outputs as f64 / outputs.min(inputs) as f64;
            // Rounded to float32.
            assert!((gram - eye * length).abs().max().double_value(&[]) < 1e-6);
        }
    }

    /// Mean squares of the features of waves and of noise beside that of the picture: each of three
    /// pools may double it. A uniform start as PyTorch's divides it by 6 at each stage.
    #[test]
    fn activations_keep_their_scale() {
        let stages = Stages::random(3, Device::Cpu);
        let square = |tensor: &Tensor| tensor.square().mean(Kind::Double).double_value(&[]);
        let noise = draws(3, Purpose::Sampling, 0, 0).uniform(0.5, 2 * 3 * 32 * 32);
        let noise = Tensor::from_slice(&noise).view([2, 3, 32, 32]) + 0.5;
        for images in [pictures(3), noise] {
            let of_picture = square(&(&images * 2.0 - 1.0));
            for map in stages.maps(&images) {
                let ratio = square(&map) / of_picture;
                assert!((0.5..8.0).contains(&ratio), "{ratio}");
            }
        }
    }

    /// A head's own features are its last map, pooled and flat.
    #[test]
    fn a_heads_stages_are_what_the_head_computes() {
        let config = HeadConfig::Conv { channels: 4, stages: 3 };
        let mut to = Declarations::default();
        let head = Head::new(config, 1, &[32, 32], 5, &mut to).unwrap();
        let parameters = to.allocate(3, Kinds::same(Kind::Double), Device::Cpu);
        let mut tensors: Vec<(String, Tensor)> =
            parameters.named_views().map(|(name, view)| (name.to_owned(), view)).collect();
        tensors.push(("head.mean".into(), Tensor::from_slice(&[0.3])));
        tensors.push(("head.deviation".into(), Tensor::from_slice(&[0.2])));
        let named = || tensors.iter().map(|(name, view)| (name.clone(), view.shallow_clone()));
        let stages = Stages::of_head(config, 1, named(), Device::Cpu).unwrap();
        let images = pictures(1);
        let expected = head.features(&parameters, &((&images - 0.3) / 0.2));
        let maps = stages.maps(&images);
        assert_eq!(maps.iter().map(|map| map.size()[1]).collect::<Vec<_>>(), [4, 8, 16]);
        let found = max_pool(&maps[2], &[2, 2]).flatten(1, -1);
        assert!((found - expected).abs().max().double_value(&[]) < 1e-12);
    }

    #[test]
    fn what_a_head_lacks_is_said_in_one_line() {
        let config = HeadConfig::Conv { channels: 2, stages: 1 };
        let tensor = |name: &str, shape: &[i64]| {
            (format!("head.{name}"), Tensor::zeros(shape, (Kind::Float, Device::Cpu)))
        };
        let (weight, bias) = ("stages.0.weight", "stages.0.bias");
        for (tensors, words) in [
            (vec![], "head.stages.0.weight is missing"),
            (
                vec![tensor(weight, &[2, 1, 3])],
                "head.stages.0.weight should be [2, 1, 3, 3], found [2, 1, 3]",
            ),
            (
                vec![tensor(weight, &[2, 1, 3, 3]), tensor(bias, &[2]), tensor("more", &[1])],
                "head.more is not of",
            ),
        ] {
            let refused = Stages::of_head(config, 1, tensors, Device::Cpu).unwrap_err();
            assert!(refused.contains(words) && !refused.contains('\n'), "{refused}");
        }
        let refused = Stages::of_head(HeadConfig::Linear, 1, [], Device::Cpu).unwrap_err();
        assert!(refused.contains("probe.head = \"conv\""), "{refused}");
        let random = Stages::random(3, Device::Cpu);
        assert_eq!(random.validate(3, 8, 8), Ok(()));
        assert!(random.validate(3, 8, 7).unwrap_err().contains("sides of 8 at least"));
        assert!(random.validate(1, 8, 8).unwrap_err().contains("of 3 channels, these have 1"));
    }
}
