//! Costs of small networks, counted by hand.

use tch::{Device, Kind, Tensor};
use tessera_nn::backbone::{BackboneConfig, Conv2dConfig, Ends};
use tessera_nn::chain::{Block, Chain};
use tessera_nn::cost::Cost;
use tessera_nn::layers::{
    Activation, Attention, AttentionConfig, Conv, ConvConfig, ConvTranspose, ConvTransposeConfig,
    GroupNorm, Linear, LinearConfig, Lstm, Mask, Scope,
};
use tessera_nn::parameters::{Declarations, Stage};
use tessera_nn::{Kinds, Parameters, Signal};

fn scope(name: &str) -> Scope {
    Scope::new(Stage::Encoder, "encoder").child(name)
}

fn cost(chain: &Chain, to: Declarations, shape: &[i64]) -> (Cost, i64) {
    let parameters = to.allocate(0, Kinds::same(Kind::Float), Device::Cpu);
    let input = Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    (Cost::of_chain(chain, &parameters, &input), parameters.num_trainable())
}

/// 784-512-256-256 and back: 784 512 + 512 256 + 256 256 weights on each side, 1,196,032 together, each used once.
#[test]
fn linear_layers_use_each_weight_once() {
    let (mut chain, mut to) = (Chain::default(), Declarations::default());
    let sizes = [784, 512, 256, 256, 256, 512, 784];
    for (at, pair) in sizes.windows(2).enumerate() {
        let config = LinearConfig::new(pair[0], pair[1]);
        chain.push(Linear::new(&mut to, &scope(&at.to_string()), config));
    }
    let (cost, num_parameters) = cost(&chain, to, &[1, 784]);
    assert_eq!(num_parameters, 1_198_608);
    // Inputs are 784 + 512 + 256 + 256 + 256 + 512. No segment keeps more than 784, so the second layer and the third are one,
    // and the fourth and the fifth: inputs of 784 + 512 + 256 + 512, and once 256 within.
    assert_eq!(cost, Cost { flops: 2 * 1_196_032, activations: 2576, recomputed: 2064 + 256 });
}

/// Image 3x8x8 to 4x2x2. Multiplications: 16 positions of 2 x 3 x 16 weights = 1536, 4 of 4 x 2 x 16 = 512, 4 of
/// 4 x 4 x 9 = 576, 4 of 2 x 4 x 9 = 288, 4 of 4 x 2 = 32, 4 of 3 x 4 = 48: 2992.
/// Kept: 192 + 32 + 16, in the residual block 16 (its ReLU's) + 8, and 16 for the last convolution: 280. All blocks but the
/// first keep no more than that one's 192, inputs included: 32 + 16 + 16 + 24 + 16 = 104, so they are one segment. Inputs of
/// two segments, 192 + 32, and 104 - 32 within the second: 296.
#[test]
fn the_reference_encoder_is_counted_as_by_hand() {
    let signal = Signal::Image { channels: 3, height: 8, width: 8 };
    let ends = Ends { signal, outputs: 3, dims: &[3] };
    let config = Conv2dConfig { channels: 4, residual_layers: 1, residual_channels: 2 };
    let mut to = Declarations::default();
    let network = BackboneConfig::Conv2d(config).build(&ends, &mut to);
    let (cost, _) = cost(network.encoder(), to, &[1, 3, 8, 8]);
    assert_eq!(cost, Cost { flops: 2 * 2992, activations: 280, recomputed: 296 });
}

/// Two groups of a convolution see half of the channels; each of the 5 inputs of 4 channels of the transposed one meets
/// 3 outputs times 4 taps.
#[test]
fn convolutions_are_counted_by_positions_and_weights_of_one() {
    let (mut chain, mut to) = (Chain::default(), Declarations::default());
    let config = ConvConfig { groups: 2, ..ConvConfig::same_size(6, 4, &[3]) };
    chain.push(Conv::new(&mut to, &scope("0"), config));
    let config = ConvTransposeConfig::new(4, 3, &[4], &[2]);
    chain.push(ConvTranspose::new(&mut to, &scope("1"), config));
    let (cost, _) = cost(&chain, to, &[1, 6, 5]);
    let multiplications = 5 * 4 * (3 * 3) + 5 * 4 * (3 * 4);
    assert_eq!(cost.flops, 2 * multiplications);
    assert_eq!(cost.activations, 6 * 5 + 4 * 5);
}

#[derive(Debug)]
struct Attend(Attention);

impl Block for Attend {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        self.0.forward(parameters, input, Mask::All, None)
    }
}

/// 5 rows of 6 channels, 2 heads of 3: 5 6 18 and 5 6 6 by the projections, 5 5 3 for the scores of a head and as much
/// for its values. Kept: the input, 3 times as much of queries, keys and values, and the heads' output.
#[test]
fn attention_is_its_projections_and_all_pairs() {
    let (mut chain, mut to) = (Chain::default(), Declarations::default());
    let config = AttentionConfig { width: 6, heads: 2, has_bias: true, deviation: None };
    chain.push(Attend(Attention::new(&mut to, &scope("0"), config)));
    let (cost, _) = cost(&chain, to, &[1, 5, 6]);
    assert_eq!(cost.flops, 2 * (5 * 6 * 18 + 5 * 6 * 6 + 2 * 2 * 5 * 5 * 3));
    assert_eq!(cost.activations, 30 + 90 + 30);
}

/// 5 instants of 6 channels: each layer multiplies its input and its last output with 4 gates of 6 by 6, and keeps its input.
#[test]
fn an_lstm_uses_each_weight_once_an_instant() {
    let (mut chain, mut to) = (Chain::default(), Declarations::default());
    chain.push(Lstm::new(&mut to, &scope("0"), 6, 2));
    let (cost, num_parameters) = cost(&chain, to, &[1, 6, 5]);
    assert_eq!(num_parameters, 2 * (2 * 24 * 6 + 2 * 24));
    assert_eq!(cost, Cost { flops: 2 * 2 * 5 * (2 * 24 * 6), activations: 60, recomputed: 60 });
}

/// Norm, SiLU, convolution, plus the input, which two of them share.
#[derive(Debug)]
struct Residual(GroupNorm, Conv);

impl Block for Residual {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let hidden = self.0.forward_silu(parameters, input);
        self.1.forward(parameters, &hidden) + Activation::Gelu.of(input)
    }
}

/// 4 channels of 3 positions are 12 numbers. Kept are the input, once, and what goes into the convolution, in each of
/// two blocks; with recomputation two inputs, and once what goes into a convolution.
#[test]
fn what_two_layers_share_is_kept_once_and_recomputation_keeps_the_largest_block() {
    let (mut chain, mut to) = (Chain::default(), Declarations::default());
    for name in ["0", "1"] {
        let norm = GroupNorm::new(&mut to, &scope(name).child("norm"), 4, 2, 1e-6);
        let conv =
            Conv::new(&mut to, &scope(name).child("conv"), ConvConfig::same_size(4, 4, &[3]));
        chain.push(Residual(norm, conv));
    }
    let (cost, _) = cost(&chain, to, &[1, 4, 3]);
    assert_eq!(cost, Cost { flops: 2 * 2 * (3 * 4 * 12), activations: 48, recomputed: 24 + 12 });
}
