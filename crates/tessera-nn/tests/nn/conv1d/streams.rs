//! Sound that comes piece by piece through a causal network, against the whole.

use tch::{Device, Kind, Tensor};
use tessera_nn::backbone::conv1d::{
    Conv1dConfig, Nonlinearity, OutputActivation, Shortcut, Stream,
};
use tessera_nn::backbone::{BackboneConfig, DenseConfig};
use tessera_nn::layers::Fill;
use tessera_nn::{Kinds, ModelConfig, Signal, VqVae, to_vectors};

use crate::rule::uniform;

const SOUND: Signal = Signal::Audio { channels: 2, samples: 6 };
const HOP: i64 = 6;

/// Ratios that are odd and even, all layers, and dilations that reach over several pieces.
fn full() -> Conv1dConfig {
    Conv1dConfig {
        channels: 4,
        decoder_channels: 8,
        ratios: vec![3, 2],
        residual_layers: 3,
        dilation_base: 3,
        lstm_layers: 2,
        attention_layers: 2,
        attention_heads: 2,
        attention_window: 4,
        ..Conv1dConfig::default()
    }
}

fn model(config: Conv1dConfig, kinds: Kinds) -> VqVae {
    let config = ModelConfig { backbone: BackboneConfig::Conv1d(config), ..ModelConfig::default() };
    config.validate(&SOUND).unwrap();
    VqVae::new(&config, &SOUND, 3, kinds, Device::Cpu)
}

/// What comes of pieces of these lengths, the last one as often as it takes.
fn pushed(stream: &mut Stream<'_>, input: &Tensor, lens: &[i64]) -> Tensor {
    let (mut outputs, mut start, total) = (Vec::new(), 0, input.size()[2]);
    let mut lens = lens.iter().copied();
    let mut len = lens.next().unwrap();
    while start < total {
        let piece = input.narrow(2, start, len.min(total - start));
        outputs.push(stream.push(&piece).unwrap());
        start += len;
        len = lens.next().unwrap_or(len);
    }
    Tensor::cat(&outputs, 2)
}

/// The largest difference, in parts of the whole's peak.
fn off(found: &Tensor, whole: &Tensor) -> f64 {
    assert_eq!(found.size(), whole.size());
    ((found - whole).abs().max() / whole.abs().max()).double_value(&[])
}

/// Encodes and decodes 24 hops whole, and in pieces whose lengths in hops are `lens`.
fn check(config: &Conv1dConfig, kind: Kind, lens: &[i64], tolerance: f64) {
    let model = model(config.clone(), Kinds::same(kind));
    let dim = model.quantizers[0].dim();
    let sound = uniform("sound", &[2, 2, 24 * HOP]).to_kind(kind);
    let latents = model.latents(&sound).remove(0);
    let samples: Vec<i64> = lens.iter().map(|len| len * HOP).collect();
    let found = pushed(&mut Stream::encoder(&model).unwrap(), &sound, &samples);
    let error = off(&found, &latents);
    assert!(error < tolerance, "{config:?}, {lens:?}: latents are off by {error:e}");
    let codes = uniform("codes", &[2, dim, 24]).to_kind(kind);
    let found = pushed(&mut Stream::decoder(&model).unwrap(), &codes, lens);
    let error = off(&found, &model.decode(std::slice::from_ref(&codes)));
    assert!(error < tolerance, "{config:?}, {lens:?}: samples are off by {error:e}");
}

#[test]
fn pieces_of_any_number_of_hops_give_what_the_whole_gives() {
    for len in 1..=24 {
        check(&full(), Kind::Double, &[len], 1e-12);
        check(&full(), Kind::Float, &[len], 1e-5);
    }
    check(&full(), Kind::Double, &[1, 5, 2, 9, 1], 1e-12);
}

/// In float32 latents differ in their last digits, and one that lies between two codes may take the other: where both are as near,
/// to 1e-4 of the distance, and nowhere else.
#[test]
fn codes_of_a_stream_are_those_of_the_whole_but_for_near_ties() {
    let model = model(full(), Kinds::same(Kind::Float));
    let quantizer = &model.quantizers[0];
    let sound = uniform("sound", &[2, 2, 600 * HOP]).to_kind(Kind::Float);
    let whole_nd = to_vectors(&model.latents(&sound)[0]);
    let state = quantizer.state();
    let (_, codes_kd) = state.iter().find(|(name, _)| name.ends_with("codebook")).unwrap();
    let (num_codes, num) = (codes_kd.size()[0], whole_nd.size()[0]);
    let step = num / num_codes;
    let chosen = whole_nd.slice(0, 0, num_codes * step, step);
    tch::no_grad(|| codes_kd.shallow_clone().copy_(&chosen));
    let streamed_nd = to_vectors(&pushed(&mut Stream::encoder(&model).unwrap(), &sound, &[HOP]));
    let [whole, streamed] = [&whole_nd, &streamed_nd].map(|latents_nd| {
        let indices = quantizer.tokenize(&model.parameters, latents_nd).flatten(0, -1);
        Vec::<i64>::try_from(indices).unwrap()
    });
    let others: Vec<usize> = (0..whole.len()).filter(|&at| whole[at] != streamed[at]).collect();
    println!("{} of {num} codes differ", others.len());
    for &at in &others {
        let distance = |code: i64| {
            let apart = whole_nd.get(at as i64) - codes_kd.get(code);
            apart.square().sum(Kind::Double).double_value(&[])
        };
        let [one, other] = [distance(whole[at]), distance(streamed[at])];
        assert!((one - other).abs() < 1e-4 * one, "{at}: {one} {other}");
    }
    assert!(others.len() as i64 * 100 <= num, "{} of {num}", others.len());
    let used: std::collections::BTreeSet<_> = whole.iter().collect();
    assert!(used.len() > 4, "{} codes are no test", used.len());
}

#[test]
fn every_form_of_the_causal_network_is_streamed() {
    let bare = Conv1dConfig { lstm_layers: 0, attention_layers: 0, ..full() };
    for config in [
        Conv1dConfig { padding: Fill::Replicate, ..full() },
        Conv1dConfig { shortcut: Shortcut::Conv, weight_norm: false, ..full() },
        Conv1dConfig { activation: Nonlinearity::Snake, compress: 1, ..bare.clone() },
        Conv1dConfig { output_activation: OutputActivation::Tanh, first_kernel: 1, ..bare.clone() },
        Conv1dConfig { attention_window: 1, ..full() },
        Conv1dConfig { attention_window: 50, ..full() },
        Conv1dConfig { ratios: vec![1, 6], latent_kernel: 4, ..bare },
    ] {
        for lens in [[1], [2], [7]] {
            check(&config, Kind::Double, &lens, 1e-12);
        }
    }
}

/// By hand: the encoder's farthest layer needs its padding and one more: 6 + 1 latents of 6 samples at the last
/// convolution, 18 + 1 of the third residual block at a rate of 1 / 2, which are fewer. The decoder needs 6 + 1 codes at its first.
#[test]
fn mirrored_padding_is_streamed_from_a_longer_first_piece_on() {
    let config = Conv1dConfig { padding: Fill::Reflect, ..full() };
    check(&config, Kind::Double, &[7, 1], 1e-12);
    check(&config, Kind::Double, &[9, 2], 1e-12);
    let model = model(config, Kinds::same(Kind::Double));
    let mut encoder = Stream::encoder(&model).unwrap();
    let mut decoder = Stream::decoder(&model).unwrap();
    assert_eq!((encoder.first_len(), decoder.first_len()), (42, 7));
    let told = encoder.push(&uniform("sound", &[1, 2, 36])).unwrap_err();
    assert_eq!(told, "the first piece of a stream should have at least 42 positions, found 36");
    let dim = model.quantizers[0].dim();
    let told = decoder.push(&uniform("codes", &[1, dim, 6])).unwrap_err();
    assert_eq!(told, "the first piece of a stream should have at least 7 positions, found 6");
    for len in [42, 6] {
        assert_eq!(encoder.push(&uniform("sound", &[1, 2, len])).unwrap().size()[2], len / HOP);
    }
}

/// bfloat16 has 8 bits of mantissa, and sums are in another order.
#[test]
fn a_stream_computes_in_the_kind_of_the_layers() {
    let mixed = Kinds { master: Kind::Float, compute: Kind::BFloat16 };
    let model = model(Conv1dConfig { lstm_layers: 0, attention_layers: 0, ..full() }, mixed);
    let sound = uniform("sound", &[1, 2, 12 * HOP]).to_kind(Kind::Float);
    let latents = model.latents(&sound).remove(0);
    let found = pushed(&mut Stream::encoder(&model).unwrap(), &sound, &[HOP]);
    assert_eq!(found.kind(), Kind::Float);
    assert!(off(&found, &latents) < 0.05);
}

#[test]
fn what_cannot_be_streamed_is_told_in_a_line() {
    let double = Kinds::same(Kind::Double);
    let centered = model(Conv1dConfig { causal: false, ..full() }, double);
    let told = Stream::encoder(&centered).unwrap_err();
    assert!(told.starts_with("a network with model.backbone.causal = false"), "{told}");
    let cut = model(Conv1dConfig { trim_right_ratio: 0.5, ..full() }, double);
    Stream::encoder(&cut).unwrap();
    let told = Stream::decoder(&cut).unwrap_err();
    assert!(told.starts_with("a decoder with model.backbone.trim_right_ratio = 0.5"), "{told}");
    let backbone = BackboneConfig::Dense(DenseConfig::default());
    let dense = ModelConfig { backbone, ..ModelConfig::default() };
    let dense = VqVae::new(&dense, &SOUND, 3, double, Device::Cpu);
    let told = Stream::encoder(&dense).unwrap_err();
    assert!(told.starts_with("this network cannot be streamed"), "{told}");
    let whole = model(full(), double);
    let mut stream = Stream::encoder(&whole).unwrap();
    for len in [0, 5] {
        let told = stream.push(&uniform("sound", &[1, 2, len])).unwrap_err();
        let expected =
            format!("a piece of a stream should have a multiple of 6 positions, found {len}");
        assert_eq!(told, expected);
    }
}
