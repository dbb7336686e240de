//! The network for sound against its sources in float64, with weights that are loaded by the names there;
//! `fixtures/conv1d.py` has the cases, the sources and what differs from them. And what it takes, and what it refuses.

mod streams;

use std::collections::BTreeMap;

use serde::Deserialize;
use tch::{Device, Kind, Tensor};
use tessera_nn::backbone::conv1d::names::Source;
use tessera_nn::backbone::conv1d::{
    Conv1d, Conv1dConfig, Nonlinearity, OutputActivation, Shortcut,
};
use tessera_nn::backbone::{Backbone, BackboneConfig, Ends};
use tessera_nn::chain::{Block, Chain};
use tessera_nn::layers::Fill;
use tessera_nn::parameters::{Declarations, Stage};
use tessera_nn::{Kinds, Parameters, Signal};

use crate::rule::{Summary, assert_sum, assert_summary, uniform, upstream, weight};

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
    lists: Vec<List>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    source: Names,
    backbone: BackboneConfig,
    dim: i64,
    encoder: Side,
    decoder: Side,
    gradients: Vec<Gradient>,
}

/// Names and shapes of a whole network.
#[derive(Deserialize)]
struct List {
    source: Names,
    backbone: BackboneConfig,
    dim: i64,
    tensors: Vec<Named>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Names {
    Encodec,
    TransformersEncodec,
    TransformersDac,
}

#[derive(Deserialize)]
struct Side {
    output: Summary,
    gradient: Summary,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    shape: Vec<i64>,
}

#[derive(Deserialize)]
struct Gradient {
    name: String,
    shape: Vec<i64>,
    sum: f64,
}

impl Names {
    fn source(self) -> Source {
        match self {
            Self::Encodec => Source::Encodec,
            Self::TransformersEncodec => Source::TransformersEncodec,
            Self::TransformersDac => Source::TransformersDac,
        }
    }
}

fn config_of(backbone: &BackboneConfig) -> &Conv1dConfig {
    let BackboneConfig::Conv1d(config) = backbone else { panic!("a network for sound") };
    config
}

fn build(config: &Conv1dConfig, channels: i64, dim: i64, kind: Kind) -> (Conv1d, Parameters) {
    let signal = Signal::Audio { channels, samples: config.hop() };
    let mut to = Declarations::default();
    let net = Conv1d::new(config, &Ends { signal, outputs: channels, dims: &[dim] }, &mut to);
    (net, to.allocate(3, Kinds::same(kind), Device::Cpu))
}

/// The rule of the script: lengths and frequencies are near 1.
fn value(name: &str, shape: &[i64]) -> Tensor {
    if name.ends_with("original0") || name.ends_with("alpha") {
        return uniform(name, shape) * 0.3 + 1.0;
    }
    weight(name, shape)
}

/// Output and gradients of one side; those at the parameters of its stage are stored.
fn check_side(
    name: &str,
    parameters: &Parameters,
    (chain, stage, key): (&Chain, Stage, &str),
    expected: &Side,
    buffer: &Tensor,
) {
    let what = |end: &str| format!("{name}, {stage:?}: {end}");
    // Channels last in memory, as samples and latents lie.
    let input = uniform(key, &expected.gradient.shape);
    let input = input.transpose(1, 2).contiguous().transpose(1, 2).set_requires_grad(true);
    let output = chain.forward(parameters, &input);
    assert_summary(&what("output"), &output, &expected.output);
    let root = (&output * upstream(&output.size())).sum(Kind::Double);
    let leaves = parameters.leaves_of(stage);
    let inputs: Vec<&Tensor> = [&input].into_iter().chain(leaves).collect();
    let gradients = Tensor::run_backward(&[root], &inputs, false, false);
    assert_summary(&what("gradient"), &gradients[0], &expected.gradient);
    parameters.store_gradients(stage, &gradients[1..], buffer);
}

fn check(case: &Case) {
    let (config, source) = (config_of(&case.backbone), case.source.source());
    let signal = Signal::Audio { channels: case.encoder.gradient.shape[1], samples: config.hop() };
    case.backbone.validate(&signal).unwrap();
    let (net, parameters) = build(config, signal.channels(), case.dim, Kind::Double);
    let mut places: BTreeMap<String, Tensor> =
        parameters.named_views().map(|(name, view)| (name.to_owned(), view)).collect();
    let ours = |theirs: &Gradient| source.ours(&theirs.name, config).unwrap();
    let names: BTreeMap<String, &Gradient> =
        case.gradients.iter().map(|theirs| (ours(theirs), theirs)).collect();
    assert!(names.keys().eq(places.keys()), "{}: each tensor has one there", case.name);
    for (name, place) in &mut places {
        let Gradient { name, shape, .. } = names[name];
        assert_eq!(place.size(), *shape, "{name}");
        place.copy_(&value(name, shape));
    }

    let buffer = parameters.flat().zeros_like();
    for (chain, stage, key, expected) in [
        (net.encoder(), Stage::Encoder, "sound", &case.encoder),
        (net.decoder(), Stage::Decoder, "latents", &case.decoder),
    ] {
        check_side(&case.name, &parameters, (chain, stage, key), expected, &buffer);
    }
    for (name, found) in parameters.trained_views(&buffer) {
        assert_sum(&format!("{}: gradient of {name}", case.name), &found, names[name].sum);
    }
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("../fixtures/conv1d.json")).unwrap()
}

fn check_named(start: &str, num: usize) {
    let cases = fixture().cases;
    let named: Vec<&Case> = cases.iter().filter(|case| case.name.starts_with(start)).collect();
    assert_eq!(named.len(), num);
    for case in named {
        check(case);
    }
}

#[test]
fn the_weights_of_a_random_encodec_model_loaded_by_name_give_its_outputs() {
    check_named("EncodecModel", 4);
}

#[test]
fn the_weights_of_a_random_dac_model_loaded_by_name_give_its_outputs() {
    check_named("DacModel", 2);
}

/// EnCodec's for 24 kHz by its own names and those of transformers, the Descript codec's with a quarter of its channels by
/// those of transformers.
#[test]
fn every_tensor_of_the_whole_networks_has_its_name_and_shape_there() {
    for List { source, backbone, dim, tensors } in fixture().lists {
        let (config, source) = (config_of(&backbone), source.source());
        let (_, parameters) = build(config, 1, dim, Kind::Half);
        let ours: BTreeMap<String, Vec<i64>> =
            parameters.named_views().map(|(name, view)| (name.to_owned(), view.size())).collect();
        let theirs: BTreeMap<String, Vec<i64>> =
            tensors.into_iter().map(|Named { name, shape }| (name, shape)).collect();
        assert_eq!(ours.len(), theirs.len());
        for (name, shape) in &ours {
            let there = source.theirs(name, config).unwrap();
            assert_eq!(theirs.get(&there), Some(shape), "{there}");
            assert_eq!(source.ours(&there, config).as_ref(), Some(name));
        }
    }
}

/// As counted from the originals: SEANet of AudioCraft with its true skip, EnCodec with its convolutions beside blocks, and
/// the Descript codec at 8 kHz.
#[test]
fn networks_have_as_many_parameters_as_the_originals() {
    let seanet = Conv1dConfig::default;
    let wide = Conv1dConfig {
        channels: 32,
        ratios: vec![8, 5, 4, 2],
        lstm_layers: 2,
        padding: Fill::Reflect,
        ..seanet()
    };
    for (config, dim, expected) in [
        (seanet(), 64, 449_586),
        (Conv1dConfig { ratios: vec![5, 4, 4, 2], ..seanet() }, 64, 1_143_730),
        (Conv1dConfig { ratios: vec![8, 5, 4, 2], ..seanet() }, 64, 1_569_714),
        (Conv1dConfig { shortcut: Shortcut::Conv, ..wide.clone() }, 128, 14_851_810),
        (wide, 128, 14_675_810),
        (Conv1dConfig { channels: 8, ratios: vec![4, 4, 4, 2], ..descript() }, 64, 522_266),
    ] {
        let (_, parameters) = build(&config, 1, dim, Kind::Half);
        assert_eq!(parameters.num_trainable(), expected, "{config:?}");
    }
}

fn descript() -> Conv1dConfig {
    Conv1dConfig {
        channels: 4,
        ratios: vec![3, 2],
        causal: false,
        activation: Nonlinearity::Snake,
        compress: 1,
        residual_layers: 3,
        dilation_base: 3,
        residual_kernel: 7,
        latent_kernel: 3,
        output_activation: OutputActivation::Tanh,
        ..Conv1dConfig::default()
    }
}

/// A small network with everything that is causal.
fn causal() -> Conv1dConfig {
    Conv1dConfig {
        channels: 4,
        ratios: vec![3, 2],
        residual_layers: 2,
        lstm_layers: 2,
        attention_layers: 1,
        attention_heads: 2,
        attention_window: 3,
        ..Conv1dConfig::default()
    }
}

/// By hand: the hop is 6, so T samples have ceil(T / 6) latents, and each of them 6 samples again.
#[test]
fn sound_of_any_length_goes_through_and_comes_back_no_shorter() {
    let reflect = Conv1dConfig { padding: Fill::Reflect, ..causal() };
    let odd = Conv1dConfig { ratios: vec![2, 1, 3], attention_layers: 0, ..causal() };
    let centered = Conv1dConfig { causal: false, padding: Fill::Replicate, ..causal() };
    for config in [causal(), reflect, odd, centered, descript()] {
        let (net, parameters) = build(&config, 2, 5, Kind::Float);
        for samples in 1..=20 {
            let sound = uniform("sound", &[1, 2, samples]).to_kind(Kind::Float);
            let latents = net.encoder().forward(&parameters, &sound);
            let num_latents = (samples + 5) / 6;
            assert_eq!(latents.size(), [1, 5, num_latents], "{config:?}");
            assert_eq!(net.latent_axes(&Signal::Audio { channels: 2, samples }), [num_latents]);
            let output = net.decoder().forward(&parameters, &latents);
            assert_eq!(output.size(), [1, 2, 6 * num_latents]);
            assert_eq!(output.narrow(2, 0, samples).size(), sound.size());
        }
    }
}

/// By hand: with weights of zero the output is tanh of the bias.
#[test]
fn the_output_starts_at_the_mean_behind_tanh_too() {
    let config = Conv1dConfig { weight_norm: false, ..descript() };
    let (net, parameters) = build(&config, 2, 5, Kind::Double);
    let _ = parameters.flat().shallow_clone().zero_();
    let means_c = Tensor::from_slice(&[0.25, -0.5]);
    net.set_output_mean(&parameters, &means_c);
    let output = net.decoder().forward(&parameters, &uniform("latents", &[1, 5, 2]));
    let off = (output - means_c.unsqueeze(1)).abs().max().double_value(&[]);
    assert!(off < 1e-12, "{off:e}");
}

/// Another value at one place changes nothing before it, bit for bit, and something at it: of latents those whose hop is
/// before the sample's.
#[test]
fn the_future_changes_no_past_latent_and_no_past_sample() {
    let snake = Conv1dConfig { activation: Nonlinearity::Snake, ..causal() };
    let replicate = Conv1dConfig { padding: Fill::Replicate, ..causal() };
    for config in [causal(), snake, replicate] {
        for kind in [Kind::Float, Kind::Double] {
            let (net, parameters) = build(&config, 1, 5, kind);
            let sides = [(net.encoder(), 1, 30, 1, 6), (net.decoder(), 5, 5, 6, 1)];
            for (chain, channels, len, outputs, inputs) in sides {
                let input = uniform("input", &[1, channels, len]).to_kind(kind);
                let whole = chain.forward(&parameters, &input);
                for place in 0..len {
                    let other = input.copy();
                    let _ = other.narrow(2, place, 1).fill_(9.0);
                    let found = chain.forward(&parameters, &other);
                    let past = place / inputs * outputs;
                    assert_eq!(found.narrow(2, 0, past), whole.narrow(2, 0, past), "{place}");
                    let here = found.narrow(2, past, outputs);
                    assert_ne!(here, whole.narrow(2, past, outputs), "{place}");
                }
            }
        }
    }
}

/// What lies outside of the window is not seen: with window 2 on each of two layers and no convolution over latents but
/// those of one tap, the last latent depends on the last three alone.
#[test]
fn attention_sees_its_window() {
    let config = Conv1dConfig {
        ratios: vec![1],
        first_kernel: 1,
        residual_kernel: 1,
        latent_kernel: 1,
        lstm_layers: 0,
        attention_layers: 2,
        attention_window: 2,
        ..causal()
    };
    for is_causal in [true, false] {
        let config = Conv1dConfig { causal: is_causal, ..config.clone() };
        let (net, parameters) = build(&config, 1, 5, Kind::Double);
        let input = uniform("input", &[1, 1, 12]).set_requires_grad(true);
        let latents = net.encoder().forward(&parameters, &input);
        let root = latents.narrow(2, 6, 1).square().sum(Kind::Double);
        let gradient = &Tensor::run_backward(&[root], &[&input], false, false)[0];
        let seen: Vec<f64> = Vec::try_from(gradient.flatten(0, -1)).unwrap();
        let places: Vec<usize> = (0..12).filter(|&place| seen[place] != 0.0).collect();
        // The strided layer of one position has two taps: it sees one more before.
        let expected: Vec<usize> = if is_causal { (3..=6).collect() } else { (3..=8).collect() };
        assert_eq!(places, expected);
    }
}

#[test]
fn what_conv1d_cannot_be_is_told_in_a_line() {
    let told = |config: Conv1dConfig, signal| {
        BackboneConfig::Conv1d(config).validate(&signal).unwrap_err()
    };
    let good = Conv1dConfig::default;
    let sound = Signal::Audio { channels: 1, samples: 8000 };
    BackboneConfig::Conv1d(good()).validate(&sound).unwrap();
    assert_eq!(
        told(good(), Signal::Image { channels: 3, height: 8, width: 12 }),
        "model.backbone.kind = \"conv1d\" takes sound, these data are pictures: set it to \"conv2d\""
    );
    assert_eq!(
        told(good(), Signal::Audio { channels: 1, samples: 8100 }),
        "the conv1d backbone needs windows of sound whose length is a multiple of 160, found 8100: set \
         data.audio.length to 8000 or 8160, or pack the data at that"
    );
    let short = Signal::Audio { channels: 1, samples: 100 };
    assert!(told(good(), short).contains("set data.audio.length to 160, or"));
    assert_eq!(
        told(Conv1dConfig { causal: false, trim_right_ratio: 0.5, ..good() }, sound),
        "model.backbone.trim_right_ratio should be 1 where model.backbone.causal is false, found 0.5"
    );
    assert_eq!(
        told(Conv1dConfig { attention_layers: 1, attention_heads: 3, ..good() }, sound),
        "model.backbone.attention_heads should divide the channels in the middle, 128, into an even number each, found 3"
    );
    assert_eq!(
        told(Conv1dConfig { residual_layers: 16, dilation_base: 3, ..good() }, sound),
        "model.backbone.dilation_base to the power of residual_layers - 1 should be at most 65536, found 3 to the \
         power of 15"
    );
    for (key, config) in [
        ("channels", Conv1dConfig { channels: 0, ..good() }),
        ("decoder_channels", Conv1dConfig { decoder_channels: -1, ..good() }),
        ("ratios", Conv1dConfig { ratios: vec![], ..good() }),
        ("ratios", Conv1dConfig { ratios: vec![2; 9], ..good() }),
        ("ratios", Conv1dConfig { ratios: vec![2, 0], ..good() }),
        ("residual_layers", Conv1dConfig { residual_layers: 0, ..good() }),
        ("dilation_base", Conv1dConfig { dilation_base: 0, ..good() }),
        ("compress", Conv1dConfig { compress: 0, ..good() }),
        ("compress", Conv1dConfig { compress: 3, ..good() }),
        ("compress", Conv1dConfig { decoder_channels: 3, ..good() }),
        ("first_kernel", Conv1dConfig { first_kernel: 0, ..good() }),
        ("residual_kernel", Conv1dConfig { residual_kernel: 65, ..good() }),
        ("latent_kernel", Conv1dConfig { latent_kernel: 0, ..good() }),
        ("output_kernel", Conv1dConfig { output_kernel: 0, ..good() }),
        ("trim_right_ratio", Conv1dConfig { trim_right_ratio: f64::NAN, ..good() }),
        ("lstm_layers", Conv1dConfig { lstm_layers: 3, ..good() }),
        ("attention_layers", Conv1dConfig { attention_layers: -1, ..good() }),
        ("attention_heads", Conv1dConfig { attention_heads: 0, ..good() }),
        ("attention_window", Conv1dConfig { attention_window: 0, ..good() }),
    ] {
        let told = told(config, sound);
        assert!(told.starts_with(&format!("model.backbone.{key} should ")), "{told}");
    }
}
