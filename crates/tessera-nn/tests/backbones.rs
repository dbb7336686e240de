//! Networks around the quantiser: shapes, order of positions, what they refuse, how they start.
#![allow(clippy::unwrap_used)] // the lint knows `#[test]` functions, not their helpers

use tch::{Device, Kind, Tensor};
use tessera_nn::backbone::{Conv2dConfig, DenseConfig};
use tessera_nn::{BackboneConfig, Kinds, ModelConfig, Signal, VqVae, from_vectors, to_vectors};

const IMAGE: Signal = Signal::Image { channels: 3, height: 8, width: 12 };
const SOUND: Signal = Signal::Audio { channels: 2, samples: 40 };
const FILM: Signal = Signal::Video { channels: 3, frames: 4, height: 8, width: 6 };
const TOKENS: Signal = Signal::Tokens { positions: 4, levels: 2 };

fn dense() -> BackboneConfig {
    BackboneConfig::Dense(DenseConfig { hidden: 10, positions: 6 })
}

fn conv2d() -> BackboneConfig {
    BackboneConfig::Conv2d(Conv2dConfig { channels: 4, residual_layers: 1, residual_channels: 2 })
}

fn model(backbone: BackboneConfig, signal: &Signal, kinds: Kinds) -> VqVae {
    let config = ModelConfig { backbone, ..ModelConfig::default() };
    config.validate(signal).unwrap();
    VqVae::new(&config, signal, 3, kinds, Device::Cpu)
}

#[test]
fn latents_have_their_axes_and_samples_their_shape_again() {
    for (backbone, signal, axes) in [
        (conv2d(), IMAGE, vec![2, 3]),
        (dense(), IMAGE, vec![6]),
        (dense(), SOUND, vec![6]),
        (dense(), FILM, vec![6]),
    ] {
        let mixed = Kinds { master: Kind::Float, compute: Kind::BFloat16 };
        for kinds in [Kinds::same(Kind::Float), mixed] {
            let model = model(backbone.clone(), &signal, kinds);
            assert_eq!(model.latent_axes(), axes);
            assert_eq!(model.num_positions(), axes.iter().product::<i64>());
            for num in [0, 2] {
                let samples = Tensor::ones(signal.shape(num), (Kind::Float, Device::Cpu));
                let latents = model.encode(&samples);
                let dim = model.quantizer.dim();
                assert_eq!(latents.size(), [vec![num, dim], axes.clone()].concat());
                let vectors_nd = to_vectors(&latents);
                assert_eq!(vectors_nd.size(), [num * model.num_positions(), dim]);
                assert_eq!(vectors_nd.data_ptr(), latents.data_ptr(), "nothing is copied");
                let outputs = model.decode(&from_vectors(&vectors_nd, &latents));
                assert_eq!((outputs.size(), outputs.kind()), (signal.shape(num), Kind::Float));
            }
        }
    }
}

/// By hand: with a decoder of zeros, the output is its bias.
#[test]
fn the_output_starts_at_the_mean_of_each_channel() {
    for (backbone, signal) in [(conv2d(), IMAGE), (dense(), IMAGE), (dense(), FILM)] {
        let model = model(backbone, &signal, Kinds::same(Kind::Float));
        let _ = model.parameters.flat().shallow_clone().zero_();
        let means_c = Tensor::from_slice(&[0.25f32, 0.5, 0.75]);
        model.set_output_mean(&means_c);
        let dim = model.quantizer.dim();
        let shape = [vec![2, dim], model.latent_axes()].concat();
        let outputs = model.decode(&Tensor::ones(shape, (Kind::Float, Device::Cpu)));
        for channel in 0..3 {
            let values = outputs.select(1, channel);
            let mean = means_c.double_value(&[channel]);
            assert_eq!(
                (values.min().double_value(&[]), values.max().double_value(&[])),
                (mean, mean)
            );
        }
    }
}

#[test]
fn what_a_network_cannot_take_is_told_in_a_line() {
    let told = |backbone: BackboneConfig, signal| backbone.validate(&signal).unwrap_err();
    assert_eq!(
        told(conv2d(), SOUND),
        "model.backbone.kind = \"conv2d\" takes pictures, these data are sound: set it to \"dense\""
    );
    assert!(told(conv2d(), FILM).contains("these data are film"));
    assert!(
        told(dense(), TOKENS).contains("takes pictures, sound and film, these data are tokens")
    );
    let none = BackboneConfig::Dense(DenseConfig { positions: 0, ..DenseConfig::default() });
    assert_eq!(told(none, SOUND), "model.backbone.positions should be from 1 to 65536, found 0");
    let small = Signal::Image { channels: 1, height: 6, width: 8 };
    assert!(told(conv2d(), small).contains("multiples of 4, found 6 x 8"));
}
