//! Gradients of a chain without keeping what its blocks compute within.
//!
//! Follows Chen et al. 2016 (<https://arxiv.org/abs/1604.06174>): the forward pass keeps the input
//! of each block and nothing else; the backward pass goes from the last block to the first and
//! computes each again, with a graph that lives for that block alone. It costs one more forward.
//! The arithmetic is that of the plain pass, so gradients are the same bit for bit.
//!
//! Casts between kinds are the caller's, around the chain. A block must compute the same twice:
//! nothing in it may draw from a state or update one.

use tch::Tensor;

use crate::chain::Chain;
use crate::parameters::Parameters;

/// The inputs of a chain's blocks, kept for a backward pass.
#[derive(Debug)]
pub struct Kept {
    inputs: Vec<Tensor>,
}

/// Output of the chain, without a graph, and what its backward pass needs.
///
/// Let the output's gradient be taken by `set_requires_grad(true)` on it, which makes it a leaf.
pub fn forward(chain: &Chain, parameters: &Parameters, input: &Tensor) -> (Tensor, Kept) {
    let _no_grad = tch::no_grad_guard();
    let mut inputs = Vec::with_capacity(chain.blocks.len());
    let mut hidden = input.detach();
    for block in &chain.blocks {
        let output = block.forward(parameters, &hidden);
        inputs.push(std::mem::replace(&mut hidden, output));
    }
    (hidden, Kept { inputs })
}

impl Kept {
    /// Gradients at `leaves`, from the gradient at the chain's output. A leaf that no block uses
    /// has an undefined one.
    ///
    /// # Panics
    ///
    /// If a block cuts the graph between its output and its input.
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

    /// Gradients at the leaves, and at the input where `first_with_input`, the first block whose
    /// input's gradient is asked for, is 0.
    fn through(
        mut self,
        chain: &Chain,
        parameters: &Parameters,
        leaves: &[&Tensor],
        at_output: &Tensor,
        first_with_input: usize,
    ) -> Vec<Tensor> {
        let mut sums: Vec<Tensor> = leaves.iter().map(|_| Tensor::new()).collect();
        let mut at_hidden = at_output.detach();
        while let Some(input) = self.inputs.pop() {
            let number = self.inputs.len();
            let wants_input = number >= first_with_input;
            let input = input.detach().set_requires_grad(wants_input);
            let output = chain.blocks[number].forward(parameters, &input);
            let mut targets = leaves.to_vec();
            if wants_input {
                targets.push(&input);
            }
            if !output.requires_grad() {
                assert!(!wants_input, "block {number} cuts the graph");
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
fn add(sum: &mut Tensor, gradient: &Tensor) {
    if !gradient.defined() {
        return;
    }
    *sum = if sum.defined() { &*sum + gradient } else { gradient.shallow_clone() };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backbone::{BackboneConfig, Conv2dConfig, DenseConfig};
    use crate::chain::Block;
    use crate::parameters::{Declarations, Init, Kinds, ParameterId, Role, Stage};
    use crate::signal::Signal;
    use tch::{Device, Kind};

    const IMAGE: Signal = Signal::Image { channels: 3, height: 8, width: 12 };

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
        for config in [
            BackboneConfig::Conv2d(conv2d),
            BackboneConfig::Dense(DenseConfig { hidden: 20, positions: 5 }),
        ] {
            for kind in [Kind::Float, Kind::Double] {
                let mut to = Declarations::default();
                let network = config.build(&IMAGE, 6, &mut to);
                let parameters = to.allocate(3, Kinds::same(kind), Device::Cpu);
                let leaves = parameters.leaves_of(Stage::Encoder);
                let input = pattern(&IMAGE.shape(4), kind);
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

    /// By hand, for one image of 8 x 12 and 8 channels: 3 x 96 in; 4 x 24, 8 x 6, and 8 x 6 again
    /// before each of two residual blocks and the last convolution.
    #[test]
    fn what_is_kept_is_the_inputs_of_blocks() {
        let conv2d = Conv2dConfig { channels: 8, residual_layers: 2, residual_channels: 4 };
        let mut to = Declarations::default();
        let network = BackboneConfig::Conv2d(conv2d).build(&IMAGE, 6, &mut to);
        let parameters = to.allocate(3, Kinds::same(Kind::Float), Device::Cpu);
        let input = pattern(&IMAGE.shape(1), Kind::Float);
        let (_, kept) = forward(network.encoder(), &parameters, &input);
        let values: Vec<usize> = kept.inputs.iter().map(Tensor::numel).collect();
        assert_eq!(values, [288, 96, 48, 48, 48, 48]);
        assert!(kept.inputs.iter().all(|input| !input.requires_grad()));
        assert_eq!(kept.inputs[0].data_ptr(), input.data_ptr(), "nothing is copied");
    }
}
