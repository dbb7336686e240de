//! A hierarchy of two levels against VQ-VAE-2's network in float64, with its weights; `fixtures/hierarchy.py` has the source.

use std::collections::BTreeMap;

use serde::Deserialize;
use tch::{Device, Kind, Tensor};
use tessera_nn::backbone::HierarchyConfig;
use tessera_nn::parameters::Stage;
use tessera_nn::quantize::VectorConfig;
use tessera_nn::{BackboneConfig, Kinds, ModelConfig, QuantizerConfig, Signal, VqVae};

use crate::rule::{Summary, assert_sum, assert_summary, uniform, upstream, weight};

#[derive(Deserialize)]
struct Expected {
    latents: Vec<Summary>,
    output: Summary,
    gradient: Summary,
    gradients: Vec<Gradient>,
}

#[derive(Deserialize)]
struct Gradient {
    name: String,
    sum: f64,
}

/// Places of the source and ours.
const PLACES: [(&str, &str); 12] = [
    ("enc_b.blocks.0", "encoder.levels.0.down1"),
    ("enc_b.blocks.2", "encoder.levels.0.down2"),
    ("enc_b.blocks.4", "encoder.levels.0.conv"),
    ("enc_t.blocks.0", "encoder.levels.1.down"),
    ("enc_t.blocks.2", "encoder.levels.1.conv"),
    ("quantize_conv_t", "encoder.levels.1.to_code"),
    ("quantize_conv_b", "encoder.levels.0.to_code"),
    ("dec_t.blocks.0", "encoder.levels.1.context.conv"),
    ("dec_t.blocks.4", "encoder.levels.1.context.up"),
    ("upsample_t", "decoder.levels.1.up.0"),
    ("dec.blocks.0", "decoder.conv"),
    ("dec.blocks.4", "decoder.up1"),
];

/// Residual blocks of the source, by the number of the first, and ours.
const RESIDUALS: [(&str, usize, &str); 4] = [
    ("enc_b", 5, "encoder.levels.0"),
    ("enc_t", 3, "encoder.levels.1"),
    ("dec_t", 1, "encoder.levels.1.context"),
    ("dec", 1, "decoder"),
];

/// Our name of a place of theirs.
fn ours() -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> =
        PLACES.iter().map(|(theirs, ours)| (theirs.to_string(), ours.to_string())).collect();
    all.insert("dec.blocks.6".to_owned(), "decoder.up2".to_owned());
    for (theirs, first, ours) in RESIDUALS {
        for block in 0..2 {
            for (layer, name) in [(1, "conv1"), (3, "conv2")] {
                let there = format!("{theirs}.blocks.{}.conv.{layer}", first + block);
                all.insert(there, format!("{ours}.residual.{block}.{name}"));
            }
        }
    }
    all
}

/// Outputs are of size 1 and sums of size 100: 1e-9 leaves room for the order of sums.
#[test]
fn latents_outputs_and_gradients_are_those_of_vq_vae_2() {
    let expected: Expected =
        serde_json::from_str(include_str!("../fixtures/hierarchy.json")).unwrap();
    let vector = VectorConfig { num_codes: 2, code_dim: 5, ..VectorConfig::default() };
    let (channels, residual_layers, residual_channels) = (8, 2, 3);
    let size = HierarchyConfig { levels: 2, channels, residual_layers, residual_channels };
    let config = ModelConfig {
        backbone: BackboneConfig::Hierarchy(size),
        quantizer: QuantizerConfig::Vector(vector),
        ..ModelConfig::default()
    };
    let signal = Signal::Image { channels: 3, height: 16, width: 24 };
    let model = VqVae::new(&config, &signal, 0, Kinds::same(Kind::Double), Device::Cpu);
    let mut places: BTreeMap<String, Tensor> =
        model.parameters.named_views().map(|(name, view)| (name.to_owned(), view)).collect();
    let ours = ours();
    let mut names = BTreeMap::new();
    for theirs in &expected.gradients {
        let (place, tensor) = theirs.name.rsplit_once('.').unwrap();
        let name = format!("{}.{tensor}", ours[place]);
        let place = places.get_mut(&name).unwrap();
        let shape = place.size();
        // An output of a transposed convolution is what its weight's first axis is not: the rule takes it as it lies.
        place.copy_(&weight(&theirs.name, &shape));
        names.insert(name, theirs.sum);
    }
    assert_eq!(names.len(), places.len(), "each tensor has one there");

    let pictures = uniform("pictures", &expected.gradient.shape).set_requires_grad(true);
    let latents = model.latents(&pictures);
    for (level, expected) in expected.latents.iter().enumerate() {
        assert_summary(&format!("latents of level {level}"), &latents[level], expected);
    }
    let output = model.decode(&latents);
    assert_summary("output", &output, &expected.output);
    let leaves: Vec<&Tensor> = [Stage::Encoder, Stage::Decoder]
        .into_iter()
        .flat_map(|stage| model.parameters.leaves_of(stage))
        .collect();
    let targets = [&[&pictures], &leaves[..]].concat();
    let root = (&output * upstream(&output.size())).sum(Kind::Double);
    let gradients = Tensor::run_backward(&[root], &targets, false, false);
    assert_summary("gradient", &gradients[0], &expected.gradient);
    for ((name, _), gradient) in model.parameters.named_views().zip(&gradients[1..]) {
        assert_sum(name, gradient, names[name]);
    }
}
