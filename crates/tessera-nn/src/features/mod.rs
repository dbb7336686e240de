//! Networks whose features are compared instead of pixels.
//!
//! | network | weights | maps | vector |
//! |---|---|---|---|
//! | [`Vgg`] | a file: VGG16's trunk and the heads of LPIPS | after `relu1_2` to `relu5_3` | 1,024 |
//! | [`Stages::random`] | orthogonal, drawn from a fixed seed | after each of 4 stages | 384 |
//! | [`Stages::of_head`] | a convolutional [`Head`](crate::Head) that was trained on pictures | after each stage | its last two |
//! | [`Script`] | a TorchScript file | none | what it gives |
//!
//! [`Seen`] shows samples of any signal to a network: sound as spectrograms, film by frame.
//!
//! Pictures are `[N, C, H, W]` in [0, 1]; each network scales them as it wants them. Networks
//! compute in float64 where the pictures are of it, else in float32. Weights are frozen: a gradient
//! reaches the outputs that are compared and nothing else. There is no dropout, no batch norm and no
//! state.
//!
//! Only a distance by [`Vgg`] with the original weights is LPIPS.

mod distance;
mod layout;
mod script;
mod seen;
mod stages;
mod vgg;
mod view;

use tch::{Kind, Tensor};

use self::distance::{Lengths, between};
pub use self::script::{Script, ScriptInput};
pub use self::seen::Seen;
pub use self::stages::Stages;
pub use self::vgg::Vgg;
pub use self::view::View;

/// A network with frozen weights.
#[derive(Debug)]
pub enum FeatureNetwork {
    /// VGG16 and the heads of LPIPS.
    Vgg(Vgg),
    /// Convolutions, each with ReLU and a pool.
    Stages(Stages),
    /// What a file computes; has no maps.
    Script(Script),
}

impl FeatureNetwork {
    /// What is wrong with pictures of this size, if anything.
    ///
    /// # Errors
    ///
    /// One line that says what they should be.
    pub fn validate(&self, channels: i64, height: i64, width: i64) -> Result<(), String> {
        match self {
            Self::Vgg(vgg) => vgg.validate(channels, height, width),
            Self::Stages(stages) => stages.validate(channels, height, width),
            Self::Script(script) => script.validate(channels, height, width),
        }
    }

    /// Whether there are [`Self::maps`], which a distance needs.
    pub fn has_maps(&self) -> bool {
        !matches!(self, Self::Script(_))
    }

    /// Features of each stage, the finest first: `[N, C, h, w]`, with graph.
    ///
    /// # Panics
    ///
    /// If the network has none.
    pub fn maps(&self, images_nchw: &Tensor) -> Vec<Tensor> {
        match self {
            Self::Vgg(vgg) => vgg.maps(images_nchw),
            Self::Stages(stages) => stages.maps(images_nchw),
            Self::Script(_) => panic!("a TorchScript file gives vectors, no maps"),
        }
    }

    /// A vector for each picture, `[N, F]`, without graph: the mean over positions of the last two
    /// maps, or what a TorchScript file gives.
    pub fn vector(&self, images_nchw: &Tensor) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        if let Self::Script(script) = self {
            return script.vector(images_nchw);
        }
        let maps = self.maps(images_nchw);
        let last = &maps[maps.len().saturating_sub(2)..];
        let means = |map: &Tensor| map.mean_dim([2i64, 3].as_slice(), false, map.kind());
        Tensor::cat(&last.iter().map(means).collect::<Vec<_>>(), 1)
    }

    /// Sum over samples of how far outputs are from targets, a scalar with graph to the outputs
    /// alone: what a training uses. The length that features are divided by is sqrt(s + 1e-10), s the
    /// sum of their squares, so that the gradient is finite where all of them are 0.
    ///
    /// # Panics
    ///
    /// If the network has no maps.
    pub fn distance_sum(&self, outputs_nchw: &Tensor, targets_nchw: &Tensor) -> Tensor {
        self.distance(outputs_nchw, targets_nchw, Lengths::Guarded)
    }

    /// The same without graph and as the original has it, with sqrt(s) + 1e-10: what is reported.
    ///
    /// # Panics
    ///
    /// If the network has no maps.
    pub fn original_distance_sum(&self, outputs_nchw: &Tensor, targets_nchw: &Tensor) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        self.distance(outputs_nchw, targets_nchw, Lengths::Original)
    }

    fn distance(&self, outputs: &Tensor, targets: &Tensor, lengths: Lengths) -> Tensor {
        let heads = match self {
            Self::Vgg(vgg) => vgg.heads(),
            _ => &[],
        };
        let of_targets = tch::no_grad(|| self.maps(targets));
        between(&self.maps(outputs), &of_targets, heads, lengths)
    }
}

/// Pictures in the kind that a network computes in.
fn computable(images_nchw: &Tensor) -> Tensor {
    match images_nchw.kind() {
        Kind::Double => images_nchw.shallow_clone(),
        _ => images_nchw.to_kind(Kind::Float),
    }
}

/// A weight `[C', C, h, w]` with channels last in memory, without graph.
fn channels_last(weight: &Tensor) -> Tensor {
    weight.detach().permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn pictures(num: i64, kind: Kind) -> Tensor {
        let at = Tensor::arange(num * 3 * 32 * 32, (Kind::Double, Device::Cpu));
        ((at * 0.37).sin() * 0.4 + 0.5).view([num, 3, 32, 32]).to_kind(kind)
    }

    fn random() -> FeatureNetwork {
        FeatureNetwork::Stages(Stages::random(3, Device::Cpu))
    }

    #[test]
    fn a_distance_is_that_of_its_parts_and_zero_to_itself() {
        let (network, images) = (random(), pictures(4, Kind::Double));
        let targets = images.flip([0]);
        let whole = network.distance_sum(&images, &targets).double_value(&[]);
        let parts: f64 = [(0, 1), (1, 3), (2, 0)]
            .map(|(from, len)| {
                let part = |images: &Tensor| images.narrow(0, from, len);
                network.distance_sum(&part(&images), &part(&targets)).double_value(&[])
            })
            .iter()
            .sum();
        assert!((whole - parts).abs() < 1e-12 && whole > 1e-3, "{whole} {parts}");
        // Two passes over the same pictures differ by rounding where libraries divide their work among other threads: some
        // 1e-30 of squares, once among many runs.
        let own = network.distance_sum(&images, &images).double_value(&[]);
        assert!((0.0..1e-24).contains(&own), "{own}");
    }

    /// A black picture has features of 0 wherever a bias does not lift them.
    #[test]
    fn gradients_are_finite_where_there_are_no_features() {
        let network = FeatureNetwork::Stages(Stages::without_features());
        let outputs = pictures(1, Kind::Float).set_requires_grad(true);
        let loss = network.distance_sum(&outputs, &pictures(1, Kind::Float));
        let gradients = Tensor::run_backward(&[loss], &[&outputs], false, false);
        assert_eq!(gradients[0].abs().max().double_value(&[]), 0.0);
    }

    #[test]
    fn the_gradient_is_the_outputs_alone() {
        let (outputs, targets) = (pictures(1, Kind::Double), pictures(1, Kind::Double).flip([3]));
        let [outputs, targets] = [outputs, targets].map(|images| images.set_requires_grad(true));
        let loss = random().distance_sum(&outputs, &targets);
        loss.backward();
        assert!(outputs.grad().abs().max().double_value(&[]) > 0.0);
        assert!(!targets.grad().defined());
        assert!(!random().original_distance_sum(&outputs, &targets).requires_grad());
        assert!(!random().vector(&outputs).requires_grad());
    }

    #[test]
    fn kinds_are_those_of_the_pictures_and_there_may_be_none() {
        let network = random();
        for (kind, computed) in [
            (Kind::Double, Kind::Double),
            (Kind::Float, Kind::Float),
            (Kind::BFloat16, Kind::Float),
        ] {
            for num in [0, 2] {
                let images = pictures(num, kind).set_requires_grad(true);
                let vector_nf = network.vector(&images);
                assert_eq!((vector_nf.size(), vector_nf.kind()), (vec![num, 384], computed));
                let loss = network.distance_sum(&images, &images.flip([2]));
                assert_eq!(loss.kind(), computed);
                let gradient = &Tensor::run_backward(&[loss], &[&images], false, false)[0];
                assert_eq!(gradient.size(), images.size());
            }
        }
        let none = pictures(0, Kind::Float);
        assert_eq!(network.distance_sum(&none, &none).double_value(&[]), 0.0);
    }
}
