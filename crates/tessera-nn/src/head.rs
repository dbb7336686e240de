//! Small networks on top of features: from what another network makes of samples to one number a class.

use tch::Tensor;

use crate::chain::Block;
use crate::layers::resample::max_pool;
use crate::layers::{Conv, ConvConfig, Linear, LinearConfig, Scope};
use crate::parameters::{Declarations, Parameters, Stage};

/// What a head is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadConfig {
    /// One linear layer over all that there is of a sample.
    Linear,
    /// Linear, ReLU, linear.
    Mlp {
        /// Width of the hidden layer.
        hidden: i64,
    },
    /// Stages of a convolution with three taps an axis, ReLU and the largest of two neighbours along each axis; then one
    /// linear layer over all that is left.
    Conv {
        /// Channels of the first stage; each further one has twice as many.
        channels: i64,
        /// Number of stages. Each halves every axis.
        stages: i64,
    },
}

/// A head for features `[N, C, ..]` with one to three positional axes.
#[derive(Debug)]
pub struct Head {
    stages: Vec<Conv>,
    hidden: Option<Linear>,
    logits: Linear,
}

impl Head {
    /// Declares the head, stage [`Stage::Head`], for features of `channels` and positional axes of these sizes.
    ///
    /// # Errors
    ///
    /// One line where an axis cannot be halved so often.
    pub fn new(
        config: HeadConfig,
        channels: i64,
        axes: &[i64],
        num_classes: i64,
        to: &mut Declarations,
    ) -> Result<Self, String> {
        let scope = Scope::new(Stage::Head, "head");
        let linear = |to: &mut Declarations, name: &str, inputs, outputs| {
            Linear::new(to, &scope.child(name), LinearConfig::new(inputs, outputs))
        };
        let (mut stages, mut hidden) = (Vec::new(), None);
        let mut width = channels * axes.iter().product::<i64>();
        match config {
            HeadConfig::Linear => {}
            HeadConfig::Mlp { hidden: wanted } => {
                hidden = Some(linear(to, "hidden", width, wanted));
                width = wanted;
            }
            HeadConfig::Conv { channels: first, stages: num_stages } => {
                if let Some(short) = axes.iter().find(|size| *size >> num_stages.min(62) == 0) {
                    return Err(format!(
                        "probe.stages is {num_stages}, but an axis of {short} can be halved {} times: lower it",
                        short.max(&1).ilog2()
                    ));
                }
                width = channels;
                for number in 0..num_stages {
                    let outputs = first << number;
                    let conv = ConvConfig::same_size(width, outputs, &vec![3; axes.len()]);
                    stages.push(Conv::new(to, &scope.child(&format!("stages.{number}")), conv));
                    width = outputs;
                }
                width *= axes.iter().map(|size| size >> num_stages).product::<i64>();
            }
        }
        let logits = linear(to, "logits", width, num_classes);
        Ok(Self { stages, hidden, logits })
    }

    /// What the last layer reads of features `[N, C, ..]`: `[N, F]`.
    pub fn features(&self, parameters: &Parameters, features: &Tensor) -> Tensor {
        let mut seen = features.shallow_clone();
        for stage in &self.stages {
            let all = stage.forward(parameters, &seen).relu_();
            seen = max_pool(&all, &vec![2; features.dim() - 2]);
        }
        let flat_nf = seen.flatten(1, -1);
        match &self.hidden {
            None => flat_nf,
            Some(hidden) => hidden.forward(parameters, &flat_nf).relu(),
        }
    }
}

impl Block for Head {
    /// Features `[N, C, ..]` to logits `[N, classes]`.
    fn forward(&self, parameters: &Parameters, features: &Tensor) -> Tensor {
        self.logits.forward(parameters, &self.features(parameters, features))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::Kinds;
    use tch::{Device, Kind};

    const CONV: HeadConfig = HeadConfig::Conv { channels: 4, stages: 2 };

    fn built(config: HeadConfig, axes: &[i64]) -> (Head, Parameters) {
        let mut to = Declarations::default();
        let head = Head::new(config, 3, axes, 5, &mut to).unwrap();
        (head, to.allocate(0, Kinds::same(Kind::Float), Device::Cpu))
    }

    /// By hand: 3 channels of 24 values to 5 classes; through 7; 3 to 4 and 4 to 8 channels with 3 taps an axis, of which 6
    /// positions are left of 24, and 1 of the others.
    #[test]
    fn heads_read_one_to_three_axes() {
        for (config, axes, numbers, width) in [
            (HeadConfig::Linear, vec![4, 6], 72 * 5 + 5, 72),
            (HeadConfig::Mlp { hidden: 7 }, vec![24], 72 * 7 + 7 + 7 * 5 + 5, 7),
            (CONV, vec![24], 3 * 3 * 4 + 4 + 4 * 3 * 8 + 8 + 48 * 5 + 5, 48),
            (CONV, vec![4, 6], 3 * 9 * 4 + 4 + 4 * 9 * 8 + 8 + 8 * 5 + 5, 8),
            (CONV, vec![4, 6, 5], 3 * 27 * 4 + 4 + 4 * 27 * 8 + 8 + 8 * 5 + 5, 8),
        ] {
            let (head, parameters) = built(config, &axes);
            assert_eq!(parameters.num_trainable(), numbers, "{config:?}");
            for num in [0, 2] {
                let shape = [vec![num, 3], axes.clone()].concat();
                let features = Tensor::ones(shape.as_slice(), (Kind::Float, Device::Cpu));
                assert_eq!(head.features(&parameters, &features).size(), [num, width]);
                assert_eq!(head.forward(&parameters, &features).size(), [num, 5]);
            }
        }
        let refused = Head::new(CONV, 3, &[4, 3], 5, &mut Declarations::default()).unwrap_err();
        assert!(refused.contains("an axis of 3 can be halved 1 times"), "{refused}");
    }
}
