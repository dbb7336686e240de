//! A graph computes what its model computes, of any batch and size.

use tch::{Device, Kind, Tensor};
use tessera_nn::backbone::conv1d::{Conv1dConfig, Nonlinearity, OutputActivation, Shortcut};
use tessera_nn::backbone::conv3d::{Conv3dConfig, FilmAttention, FilmNorm};
use tessera_nn::backbone::{
    Backbone, Conv2dConfig, DenseConfig, HierarchyConfig, UNet2dConfig, VitConfig,
};
use tessera_nn::chain::{Block, Chain};
use tessera_nn::layers::Fill;
use tessera_nn::parameters::{ParameterId, Parameters};
use tessera_nn::quantize::{
    Bound, Codebook, Distance, FiniteScalarConfig, GroupedConfig, LookupFreeConfig, ResidualConfig,
    SimVqConfig, VectorConfig,
};
use tessera_nn::{
    BackboneConfig, Kinds, ModelConfig, Output, Pixels, QuantizerConfig, Signal, VqVae, graph,
};

/// Farthest that an output may be away: sums of float32 in another order.
const FAR: f64 = 1e-5;

fn conv2d() -> BackboneConfig {
    BackboneConfig::Conv2d(Conv2dConfig { channels: 8, residual_layers: 2, residual_channels: 4 })
}

fn unet2d() -> BackboneConfig {
    BackboneConfig::Unet2d(UNet2dConfig {
        channels: 8,
        multipliers: vec![1, 2],
        attention_resolutions: vec![8],
        groups: 4,
        latent_channels: 6,
        ..UNet2dConfig::default()
    })
}

fn encodec() -> BackboneConfig {
    BackboneConfig::Conv1d(Conv1dConfig {
        channels: 4,
        ratios: vec![3, 2],
        residual_layers: 2,
        padding: Fill::Reflect,
        shortcut: Shortcut::Conv,
        weight_norm: true,
        lstm_layers: 2,
        ..Conv1dConfig::default()
    })
}

fn dac() -> BackboneConfig {
    BackboneConfig::Conv1d(Conv1dConfig {
        channels: 4,
        ratios: vec![4, 2],
        causal: false,
        activation: Nonlinearity::Snake,
        output_activation: OutputActivation::Tanh,
        dilation_base: 3,
        ..Conv1dConfig::default()
    })
}

/// Two layers of attention in the middle, of which a position sees 5.
fn mimi(causal: bool) -> BackboneConfig {
    BackboneConfig::Conv1d(Conv1dConfig {
        channels: 4,
        ratios: vec![2, 2],
        causal,
        attention_layers: 2,
        attention_heads: 2,
        attention_window: 5,
        ..Conv1dConfig::default()
    })
}

fn vit(latent_tokens: i64) -> BackboneConfig {
    BackboneConfig::Vit(VitConfig { patch: 4, width: 12, layers: 2, heads: 3, latent_tokens })
}

fn cosmos(attention: FilmAttention, norm: FilmNorm, patch: i64) -> BackboneConfig {
    BackboneConfig::Conv3d(Conv3dConfig {
        channels: 4,
        multipliers: vec![1, 1, 2, 2],
        patch,
        spatial: 4,
        temporal: 4,
        latent_channels: 6,
        norm,
        attention,
        attention_resolutions: vec![2],
        ..Conv3dConfig::default()
    })
}

fn vector(distance: Distance, latent_dim: i64) -> QuantizerConfig {
    let codebook = if latent_dim > 0 { Codebook::Gradient } else { Codebook::Ema };
    QuantizerConfig::Vector(VectorConfig {
        num_codes: 32,
        code_dim: 4,
        latent_dim,
        codebook,
        distance,
        ..VectorConfig::default()
    })
}

fn residual(quantizer: QuantizerConfig, latent_dim: i64) -> QuantizerConfig {
    let quantizer = Box::new(quantizer);
    QuantizerConfig::Residual(ResidualConfig {
        num_quantizers: 3,
        latent_dim,
        quantizer,
        ..ResidualConfig::default()
    })
}

fn quantizers() -> Vec<QuantizerConfig> {
    let fsq = |levels: &[i64], bound, latent_dim| {
        QuantizerConfig::FiniteScalar(FiniteScalarConfig {
            levels: levels.to_vec(),
            latent_dim,
            bound,
        })
    };
    let bits = LookupFreeConfig { num_bits: 5, group_bits: 5, ..LookupFreeConfig::default() };
    vec![
        vector(Distance::Euclidean, 0),
        vector(Distance::Cosine, 0),
        vector(Distance::CosineSearch, 6),
        QuantizerConfig::SimVq(SimVqConfig {
            num_codes: 32,
            code_dim: 4,
            ..SimVqConfig::default()
        }),
        fsq(&[5, 4, 2], Bound::Shifted, 0),
        fsq(&[5, 4, 2], Bound::Symmetric, 7),
        QuantizerConfig::LookupFree(bits.clone()),
        QuantizerConfig::BinarySpherical(bits.clone()),
        residual(vector(Distance::Euclidean, 0), 0),
        residual(vector(Distance::CosineSearch, 6), 0),
        residual(fsq(&[5, 3], Bound::Shifted, 0), 6),
        residual(QuantizerConfig::LookupFree(bits), 0),
        QuantizerConfig::Grouped(GroupedConfig {
            num_groups: 2,
            quantizer: Box::new(vector(Distance::Euclidean, 0)),
            ..GroupedConfig::default()
        }),
    ]
}

fn model(backbone: BackboneConfig, quantizer: QuantizerConfig, signal: Signal) -> VqVae {
    let pixels = match signal {
        Signal::Image { .. } => Pixels::Signed,
        _ => Pixels::Unit,
    };
    let config = ModelConfig { backbone, quantizer, pixels, ..ModelConfig::default() };
    config.validate(&signal).unwrap();
    let model = VqVae::new(&config, &signal, 5, Kinds::same(Kind::Float), Device::Cpu);
    unsettle(&model);
    spread(&model);
    model
}

/// Moves norms and biases, many of which start alike, and lets layers of transformers do more than they do at the start:
/// a mix-up shows.
fn unsettle(model: &VqVae) {
    let _no_grad = tch::no_grad_guard();
    for (name, mut tensor) in model.parameters.named_views() {
        if tensor.dim() == 1 {
            tensor += (random(&tensor.size()) - 0.5) * 0.4;
        } else if ["transformer", "ffn", "conv_out.weight"].iter().any(|part| name.contains(part)) {
            let _ = tensor.g_mul_scalar_(5.0);
        }
    }
    model.parameters.refresh();
}

/// Lets latents, which are near one another at the start, reach all codes: their mean becomes 0, their deviation 0.3.
fn spread(model: &VqVae) {
    let _no_grad = tch::no_grad_guard();
    for level in (0..model.quantizers.len()).rev() {
        let latents_nd =
            tessera_nn::to_vectors(&model.latents(&random(&model.signal.shape(4)))[level]);
        let mean_d = latents_nd.mean_dim([0i64].as_slice(), false, None);
        let scale = 0.3 / (latents_nd - &mean_d).square().mean(None).sqrt().double_value(&[]);
        let of_level = format!("encoder.levels.{level}.to_code");
        let last = ["encoder.to_code", "encoder.quant_conv", "encoder.conv_out", &of_level];
        for (name, mut tensor) in model.parameters.named_views() {
            if !last.iter().any(|layer| name.starts_with(layer)) {
                continue;
            }
            match name.rsplit('.').next() {
                Some("bias") if tensor.size() == mean_d.size() => {
                    tensor.copy_(&((&tensor - &mean_d) * scale));
                }
                Some("weight" | "weight_g") if tensor.size()[0] == mean_d.size()[0] => {
                    let _ = tensor.g_mul_scalar_(scale);
                }
                _ => {}
            }
        }
        model.parameters.refresh();
    }
}

/// Numbers in [0, 1) that look like chance, the same ones always: of others a few codes may be as near as the nearest.
fn random(shape: &[i64]) -> Tensor {
    let num = shape.iter().product::<i64>();
    let places = Tensor::arange(num, tch::kind::DOUBLE_CPU);
    ((places * 12.9898).sin() * 43758.5453).frac().abs().to_kind(Kind::Float).view(shape)
}

fn compare(model: &VqVae, samples: &Tensor) {
    let _no_grad = tch::no_grad_guard();
    let (encoder, decoder) = (graph::encoder(model).unwrap(), graph::decoder(model).unwrap());
    let indices = encoder.run(&[samples.shallow_clone()]);
    let expected = model.tokenize(samples);
    assert_eq!(indices.len(), expected.len());
    for ((level, indices), expected_nl) in indices.iter().enumerate().zip(&expected) {
        // [N, L, ..] or [N, ..] as rows of codes.
        let rows_nl = match expected_nl.size()[1] {
            1 => indices.reshape([-1, 1]),
            levels => indices.flatten(2, -1).transpose(1, 2).reshape([-1, levels]),
        };
        let num_different = rows_nl.ne_tensor(expected_nl).sum(Kind::Int64).int64_value(&[]);
        assert_eq!(num_different, 0, "level {level} of {}", rows_nl.numel());
        let range = [expected_nl.min(), expected_nl.max()].map(|end| end.int64_value(&[]));
        assert!(range[0] < range[1], "level {level} has one code alone, of {:?}", samples.size());
    }
    let outputs = decoder.run(&indices).remove(0);
    let codes = model.descend(samples, |level, latents| model.quantize(level, latents).0);
    let range = model.signal.range().unwrap();
    let expected = model.decode(&codes).clamp(*range.start(), *range.end());
    assert_eq!(outputs.size(), samples.size());
    let off = (&outputs - expected).abs().max().double_value(&[]);
    assert!(off < FAR, "{off:e}");
}

#[test]
fn graphs_of_all_quantizers_compute_what_their_models_do() {
    let signal = Signal::Image { channels: 3, height: 16, width: 24 };
    for quantizer in quantizers() {
        let model = model(conv2d(), quantizer, signal);
        compare(&model, &random(&signal.shape(3)));
    }
}

const PICTURES: Signal = Signal::Image { channels: 1, height: 16, width: 24 };
const SOUND: Signal = Signal::Audio { channels: 1, samples: 96 };
const FILM: Signal = Signal::Video { channels: 2, frames: 9, height: 8, width: 12 };

#[test]
fn graphs_of_networks_compute_what_their_models_do_of_any_batch_and_size() {
    for (backbone, signal, other) in [
        (unet2d(), PICTURES, vec![1, 1, 32, 8]),
        (encodec(), SOUND, vec![1, 1, 144]),
        (dac(), SOUND, vec![1, 1, 144]),
        (mimi(true), SOUND, vec![1, 1, 144]),
        (mimi(false), SOUND, vec![1, 1, 40]),
        (cosmos(FilmAttention::Factorized, FilmNorm::Frame, 1), FILM, vec![1, 2, 5, 16, 8]),
        (cosmos(FilmAttention::Axial, FilmNorm::None, 2), FILM, vec![1, 2, 1, 12, 8]),
    ] {
        assert!(!backbone.has_fixed_size());
        for quantizer in
            [vector(Distance::Euclidean, 0), residual(vector(Distance::Euclidean, 0), 0)]
        {
            let model = model(backbone.clone(), quantizer, signal);
            compare(&model, &random(&signal.shape(3)));
            compare(&model, &random(&other));
        }
    }
}

#[test]
fn graphs_of_networks_of_one_size_compute_what_their_models_do_of_any_batch() {
    let dense = BackboneConfig::Dense(DenseConfig { hidden: 16, positions: 6 });
    for (backbone, signal) in [
        (vit(0), PICTURES),
        (vit(5), PICTURES),
        (dense.clone(), PICTURES),
        (dense.clone(), SOUND),
        (dense, FILM),
    ] {
        assert!(backbone.has_fixed_size());
        for quantizer in
            [vector(Distance::Euclidean, 0), residual(vector(Distance::Euclidean, 0), 0)]
        {
            let model = model(backbone.clone(), quantizer, signal);
            compare(&model, &random(&signal.shape(3)));
            compare(&model, &random(&signal.shape(1)));
        }
    }
}

#[test]
fn a_hierarchy_has_indices_of_each_level() {
    let backbone = BackboneConfig::Hierarchy(HierarchyConfig {
        levels: 3,
        channels: 8,
        residual_layers: 1,
        residual_channels: 4,
    });
    let (finest, coarser) = (vector(Distance::Euclidean, 0), vector(Distance::Cosine, 0));
    let several = residual(vector(Distance::Euclidean, 0), 0);
    let signal = Signal::Image { channels: 1, height: 32, width: 16 };
    let config = ModelConfig {
        backbone,
        quantizer: finest,
        coarser_quantizers: vec![several, coarser],
        ..ModelConfig::default()
    };
    config.validate(&signal).unwrap();
    let model = VqVae::new(&config, &signal, 5, Kinds::same(Kind::Float), Device::Cpu);
    unsettle(&model);
    spread(&model);
    compare(&model, &random(&signal.shape(3)));
    compare(&model, &random(&[1, 1, 16, 48]));
}

/// All layers of this crate that an autoencoder is built of have a form; one of another crate need not.
#[derive(Debug)]
struct Strange;

impl Block for Strange {
    fn forward(&self, _parameters: &Parameters, input: &Tensor) -> Tensor {
        input.shallow_clone()
    }
}

#[derive(Debug)]
struct StrangeBackbone(Chain);

impl Backbone for StrangeBackbone {
    fn encoder(&self) -> &Chain {
        &self.0
    }

    fn decoder(&self) -> &Chain {
        &self.0
    }

    fn latent_axes(&self, signal: &Signal) -> Vec<i64> {
        signal.axes()
    }

    fn output_weight(&self) -> ParameterId {
        unreachable!("nothing is trained")
    }

    fn set_output_mean(&self, _parameters: &Parameters, _means_c: &Tensor) {}
}

#[test]
fn what_has_no_graph_says_which_part() {
    let mut model = model(conv2d(), vector(Distance::Euclidean, 0), PICTURES);
    model.output = Output::LogitLaplace;
    assert_eq!(
        graph::decoder(&model).unwrap_err(),
        "its outputs are distributions (model.output = \"logit_laplace\")"
    );
    let mut chain = Chain::default();
    chain.push(Strange);
    model.backbone = Box::new(StrangeBackbone(chain));
    assert_eq!(
        graph::encoder(&model).unwrap_err(),
        "its layer nn::graphs::Strange has no form in a graph of common operations"
    );
}
