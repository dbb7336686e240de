//! Gradients of a chain without keeping what its blocks compute within.
//!
//! Follows Chen et al. 2016 (<https://arxiv.org/abs/1604.06174>): the forward pass keeps the input
//! of each segment of blocks and nothing else; the backward pass goes from the last segment to the first and
//! computes each again, with a graph that lives for that segment alone. It costs one more forward.
//! The arithmetic is that of the plain pass, so gradients are the same bit for bit.
//!
//! What is kept within the largest block has to fit in any case. So blocks that follow one another are one segment as
//! long as what is kept within them is no more than that: fewer inputs are kept, and the peak does not grow. Deep
//! networks whose pictures shrink gain most, since everything below full size becomes a few segments.
//!
//! Casts between kinds are the caller's, around the chain. A block must compute the same twice:
//! nothing in it may draw from a state or update one.

use tch::Tensor;

use crate::chain::Chain;
use crate::cost::kept_within;
use crate::parameters::Parameters;

/// The inputs of a chain's segments, and of its last block, kept for a backward pass.
#[derive(Debug)]
pub struct Kept {
    inputs: Vec<Tensor>,
}

/// Output of the chain, without a graph, and what its backward pass needs.
///
/// Let the output's gradient be taken by `set_requires_grad(true)` on it, which makes it a leaf.
pub fn forward(chain: &Chain, parameters: &Parameters, input: &Tensor) -> (Tensor, Kept) {
    let _no_grad = tch::no_grad_guard();
    let segments = chain.segments.get_or_init(|| plan(chain, parameters, input));
    let mut inputs = Vec::with_capacity(segments.len());
    let mut hidden = input.detach();
    for (number, block) in chain.blocks.iter().enumerate() {
        if segments.contains(&number) {
            inputs.push(hidden.shallow_clone());
        }
        hidden = block.forward(parameters, &hidden);
    }
    (hidden, Kept { inputs })
}

/// The first block of each segment, a function of shapes alone.
fn plan(chain: &Chain, parameters: &Parameters, input: &Tensor) -> Vec<usize> {
    let mut shape = input.size();
    shape[0] = 1;
    let zeros = Tensor::zeros(shape.as_slice(), (input.kind(), input.device()));
    segments(&kept_within(chain, parameters, &zeros))
}

/// Segments of blocks within which so much is kept: as long as they can be without more than the largest of them.
pub(crate) fn segments(within: &[u64]) -> Vec<usize> {
    let most = within.iter().copied().max().unwrap_or(0);
    let (mut starts, mut sum) = (Vec::new(), u64::MAX);
    for (number, &own) in within.iter().enumerate() {
        sum = sum.saturating_add(own);
        if sum > most {
            starts.push(number);
            sum = own;
        }
    }
    starts
}

impl Kept {
    /// The chain's output, with the graph of its last block alone.
    ///
    /// # Panics
    ///
    /// If the chain has no block.
    pub fn last_output(&self, chain: &Chain, parameters: &Parameters) -> Tensor {
        let segments = chain.segments.get().expect("it has been gone through");
        let first = *segments.last().expect("a chain with blocks");
        let (last, before) = chain.blocks[first..].split_last().expect("a segment has blocks");
        let mut hidden = self.inputs.last().expect("its input").detach();
        tch::no_grad(|| {
            for block in before {
                hidden = block.forward(parameters, &hidden);
            }
        });
        last.forward(parameters, &hidden)
    }

    /// Gradients at `leaves`, from the gradient at the chain's output. A leaf that no block uses
    /// has an undefined one.
    ///
    /// # Panics
    ///
    /// If a segment cuts the graph between its output and its input.
    pub fn backward(
        self,
        chain: &Chain,
        parameters: &Parameters,
        leaves: &[&Tensor],
        at_output: &Tensor,
    ) -> Vec<Tensor> {
        self.through(chain, parameters, leaves, at_output, 1)
    }

    /// The same, and the gradient at the chain's input.
    ///
    /// # Panics
    ///
    /// Those of [`Self::backward`].
    pub fn backward_to_input(
        self,
        chain: &Chain,
        parameters: &Parameters,
        leaves: &[&Tensor],
        at_output: &Tensor,
    ) -> (Vec<Tensor>, Tensor) {
        let mut gradients = self.through(chain, parameters, leaves, at_output, 0);
        let at_input = gradients.pop().expect("the input's gradient is the last");
        (gradients, at_input)
    }

    /// Gradients at the leaves, and at the input where `first_with_input`, the first segment whose
    /// input's gradient is asked for, is 0.
    fn through(
        mut self,
        chain: &Chain,
        parameters: &Parameters,
        leaves: &[&Tensor],
        at_output: &Tensor,
        first_with_input: usize,
    ) -> Vec<Tensor> {
        let segments = chain.segments.get().expect("it has been gone through");
        let mut sums: Vec<Tensor> = leaves.iter().map(|_| Tensor::new()).collect();
        let (mut at_hidden, mut end) = (at_output.detach(), chain.blocks.len());
        while let Some(input) = self.inputs.pop() {
            let number = self.inputs.len();
            let wants_input = number >= first_with_input;
            let input = input.detach().set_requires_grad(wants_input);
            let mut output = input.shallow_clone();
            for block in &chain.blocks[segments[number]..end] {
                output = block.forward(parameters, &output);
            }
            end = segments[number];
            let mut targets = leaves.to_vec();
            if wants_input {
                targets.push(&input);
            }
            if !output.requires_grad() {
                assert!(!wants_input, "segment {number} cuts the graph");
                continue;
            }
            // The engine is fed ones; one times a number is that number.
            let root = (&output * &at_hidden).sum(output.kind());
            let mut gradients = Tensor::run_backward(&[root], &targets, false, false);
            if wants_input {
                at_hidden = gradients.pop().expect("one gradient a target");
            }
            for (sum, gradient) in sums.iter_mut().zip(&gradients) {
                add(sum, gradient);
            }
        }
        if first_with_input == 0 {
            sums.push(at_hidden);
        }
        sums
    }
}

/// Adds a gradient to a sum; either may be undefined, which is nothing.
pub fn add(sum: &mut Tensor, gradient: &Tensor) {
    if gradient.defined() {
        *sum = if sum.defined() { &*sum + gradient } else { gradient.shallow_clone() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backbone::conv1d::Nonlinearity;
    use crate::backbone::{
        BackboneConfig, Conv1dConfig, Conv2dConfig, DenseConfig, Ends, UNet2dConfig, VitConfig,
    };
    use crate::chain::Block;
    use crate::parameters::{Declarations, Init, Kinds, ParameterId, Role, Stage};
    use crate::signal::Signal;
    use tch::{Device, Kind};

    const IMAGE: Signal = Signal::Image { channels: 3, height: 8, width: 12 };
    const SOUND: Signal = Signal::Audio { channels: 3, samples: 24 };
    const ENDS: Ends<'_> = Ends { signal: IMAGE, outputs: 3, dims: &[6] };

    fn pattern(shape: &[i64], kind: Kind) -> Tensor {
        let count = Tensor::arange(shape.iter().product::<i64>(), (kind, Device::Cpu));
        (count * 0.7).sin().view(shape)
    }

    /// Gradients of <output, g> at the leaves and the input, kept and recomputed.
    fn both_ways(
        chain: &Chain,
        parameters: &Parameters,
        leaves: &[&Tensor],
        input: &Tensor,
    ) -> [Vec<Tensor>; 2] {
        let input = input.detach().set_requires_grad(true);
        let output = chain.forward(parameters, &input);
        let at_output = pattern(&output.size(), output.kind());
        let targets: Vec<&Tensor> = leaves.iter().copied().chain([&input]).collect();
        let root = (&output * &at_output).sum(output.kind());
        let plain = Tensor::run_backward(&[root], &targets, false, false);
        let (again, kept) = forward(chain, parameters, &input);
        assert_eq!(again, output);
        assert!(!again.requires_grad());
        let (mut found, at_input) = kept.backward_to_input(chain, parameters, leaves, &at_output);
        found.push(at_input);
        let (_, kept) = forward(chain, parameters, &input);
        let at_leaves = kept.backward(chain, parameters, leaves, &at_output);
        assert!(at_leaves == found[..leaves.len()]);
        [plain, found]
    }

    #[test]
    fn gradients_are_those_of_the_plain_pass_bit_for_bit() {
        let conv2d = Conv2dConfig { channels: 8, residual_layers: 2, residual_channels: 4 };
        let unet2d = UNet2dConfig {
            channels: 8,
            multipliers: vec![1, 2],
            attention_resolutions: vec![4],
            groups: 2,
            latent_channels: 6,
            ..UNet2dConfig::default()
        };
        let conv1d = Conv1dConfig {
            channels: 4,
            ratios: vec![3, 2],
            lstm_layers: 2,
            attention_layers: 1,
            attention_heads: 2,
            ..Conv1dConfig::default()
        };
        let snake = Conv1dConfig { activation: Nonlinearity::Snake, ..conv1d.clone() };
        let vit = VitConfig { patch: 4, width: 12, layers: 2, heads: 3, latent_tokens: 0 };
        for (config, signal) in [
            (BackboneConfig::Conv1d(conv1d), SOUND),
            (BackboneConfig::Conv1d(snake), SOUND),
            (BackboneConfig::Conv2d(conv2d), IMAGE),
            (BackboneConfig::Dense(DenseConfig { hidden: 20, positions: 5 }), IMAGE),
            (BackboneConfig::Unet2d(unet2d), IMAGE),
            (BackboneConfig::Vit(vit.clone()), IMAGE),
            (BackboneConfig::Vit(VitConfig { latent_tokens: 5, ..vit }), IMAGE),
        ] {
            for kind in [Kind::Float, Kind::Double] {
                let mut to = Declarations::default();
                let network = config.build(&Ends { signal, ..ENDS }, &mut to);
                let parameters = to.allocate(3, Kinds::same(kind), Device::Cpu);
                let leaves = parameters.leaves_of(Stage::Encoder);
                let input = pattern(&signal.shape(4), kind);
                let [plain, found] = both_ways(network.encoder(), &parameters, &leaves, &input);
                assert!(plain == found, "{config:?} {kind:?}");
                let latents = network.encoder().forward(&parameters, &input);
                let leaves = parameters.leaves_of(Stage::Decoder);
                let [plain, found] = both_ways(network.decoder(), &parameters, &leaves, &latents);
                assert!(plain == found, "{config:?} {kind:?}");
            }
        }
    }

    /// Multiplies by a parameter, twice.
    #[derive(Debug)]
    struct Scale(ParameterId);

    impl Block for Scale {
        fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
            input * parameters.get(self.0) * parameters.get(self.0)
        }
    }

    /// By hand: y = x a^2 b^2 a^2 = x a^4 b^2; with x = 1, a = 3, b = 2: at a 4 a^3 b^2 = 432, at b
    /// 2 a^4 b = 324, at x 324. What no block uses has none.
    #[test]
    fn a_parameter_of_two_blocks_gets_the_sum_of_both() {
        let (mut to, stage) = (Declarations::default(), Stage::Head);
        let [a, b, unused] = [("a", 3.0), ("b", 2.0), ("unused", 1.0)].map(|(name, value)| {
            to.declare(name.into(), &[1], stage, Role::Weight, Init::Constant(value))
        });
        let parameters = to.allocate(0, Kinds::same(Kind::Double), Device::Cpu);
        let mut chain = Chain::default();
        for id in [a, b, a] {
            chain.push(Scale(id));
        }
        let one = Tensor::from_slice(&[1.0]);
        let (output, kept) = forward(&chain, &parameters, &one);
        assert_eq!(output.double_value(&[0]), 324.0);
        let leaves = [a, b, unused].map(|id| parameters.get(id));
        let (found, at_input) = kept.backward_to_input(&chain, &parameters, &leaves, &one);
        assert_eq!(
            [&found[0], &found[1], &at_input].map(|g| g.double_value(&[0])),
            [432.0, 324.0, 324.0]
        );
        assert!(!found[2].defined());
    }

    /// By hand: at most 9 is kept within a block. 2 + 3 + 4 are as much; 9 is alone; 1 + 8 are as much; 5.
    #[test]
    fn segments_keep_no_more_than_the_largest_block() {
        assert_eq!(segments(&[2, 3, 4, 9, 1, 8, 5]), [0, 3, 4, 6]);
        assert_eq!(segments(&[]), [0usize; 0]);
        assert_eq!(segments(&[0, 0]), [0]);
    }

    /// By hand, for one image of 8 x 12 and 8 channels: within the first block 3 x 96 = 288 is kept, and no more within any
    /// segment. The second keeps 4 x 24 = 96, the third 8 x 6 = 48, each residual block its input of 48, as much after its
    /// ReLU, and 4 x 6, the last one 48. So the second to the fourth (264) are one segment, and the other two.
    #[test]
    fn what_is_kept_is_the_inputs_of_segments() {
        let conv2d = Conv2dConfig { channels: 8, residual_layers: 2, residual_channels: 4 };
        let mut to = Declarations::default();
        let network = BackboneConfig::Conv2d(conv2d).build(&ENDS, &mut to);
        let parameters = to.allocate(3, Kinds::same(Kind::Float), Device::Cpu);
        let input = pattern(&IMAGE.shape(1), Kind::Float);
        let (_, kept) = forward(network.encoder(), &parameters, &input);
        let values: Vec<usize> = kept.inputs.iter().map(Tensor::numel).collect();
        assert_eq!(values, [288, 96, 48]);
        assert!(kept.inputs.iter().all(|input| !input.requires_grad()));
        assert_eq!(kept.inputs[0].data_ptr(), input.data_ptr(), "nothing is copied");
    }
}
