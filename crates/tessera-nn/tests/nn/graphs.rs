//! A graph computes what its model computes, of any batch and size.

use tch::{Device, Kind, Tensor};
use tessera_nn::backbone::conv1d::{Conv1dConfig, Nonlinearity, OutputActivation, Shortcut};
use tessera_nn::backbone::{Conv2dConfig, UNet2dConfig};
use tessera_nn::layers::Fill;
use tessera_nn::quantize::{
    Bound, Codebook, Distance, FiniteScalarConfig, GroupedConfig, LookupFreeConfig, ResidualConfig,
    SimVqConfig, VectorConfig,
};
use tessera_nn::{
    BackboneConfig, Kinds, ModelConfig, Pixels, QuantizerConfig, Signal, VqVae, graph,
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
    spread(&model);
    model
}

/// Lets latents, which are near one another at the start, reach all codes: their mean becomes 0, their deviation 0.3.
fn spread(model: &VqVae) {
    let _no_grad = tch::no_grad_guard();
    let samples = Tensor::rand(model.signal.shape(4), tch::kind::FLOAT_CPU);
    let latents_nd = tessera_nn::to_vectors(&model.latents(&samples)[0]);
    let mean_d = latents_nd.mean_dim([0i64].as_slice(), false, None);
    let scale = 0.3 / (latents_nd - &mean_d).square().mean(None).sqrt().double_value(&[]);
    let last = ["encoder.to_code", "encoder.quant_conv", "encoder.conv_out"];
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

fn compare(model: &VqVae, samples: &Tensor, of_other_size: bool) {
    let (encoder, decoder) = (graph::encoder(model).unwrap(), graph::decoder(model).unwrap());
    let indices = encoder.run(samples);
    let levels = model.quantizers[0].num_codes().len() as i64;
    let plain_nl = model.tokenize(samples).remove(0);
    let num = samples.size()[0];
    // [N, L, ..] or [N, ..] as rows of codes.
    let rows_nl = match levels {
        1 => indices.reshape([-1, 1]),
        _ => indices.flatten(2, -1).transpose(1, 2).reshape([-1, levels]),
    };
    let num_different = rows_nl.ne_tensor(&plain_nl).sum(Kind::Int64).int64_value(&[]);
    assert_eq!(num_different, 0, "of {}", rows_nl.numel());
    assert!(plain_nl.max().int64_value(&[]) > plain_nl.min().int64_value(&[]), "one code alone");
    let outputs = decoder.run(&indices);
    assert_eq!(outputs.size(), samples.size());
    if of_other_size {
        return;
    }
    let expected = model.decode_indices(&[plain_nl.view([num, -1, levels])]);
    let off = (&outputs - expected).abs().max().double_value(&[]);
    assert!(off < FAR, "{off:e}");
}

#[test]
fn graphs_of_all_quantizers_compute_what_their_models_do() {
    let signal = Signal::Image { channels: 3, height: 16, width: 24 };
    for quantizer in quantizers() {
        let model = model(conv2d(), quantizer, signal);
        compare(&model, &Tensor::rand(signal.shape(3), tch::kind::FLOAT_CPU), false);
    }
}

#[test]
fn graphs_of_networks_compute_what_their_models_do_of_any_batch_and_size() {
    let pictures = Signal::Image { channels: 1, height: 16, width: 24 };
    let sound = Signal::Audio { channels: 1, samples: 96 };
    for (backbone, signal, other) in [
        (unet2d(), pictures, vec![1, 1, 32, 8]),
        (encodec(), sound, vec![1, 1, 144]),
        (dac(), sound, vec![1, 1, 144]),
    ] {
        for quantizer in
            [vector(Distance::Euclidean, 0), residual(vector(Distance::Euclidean, 0), 0)]
        {
            let model = model(backbone.clone(), quantizer, signal);
            let samples = Tensor::rand(signal.shape(3), tch::kind::FLOAT_CPU);
            compare(&model, &samples, false);
            compare(&model, &Tensor::rand(other.as_slice(), tch::kind::FLOAT_CPU), true);
        }
    }
}

#[test]
fn what_has_no_graph_says_which_part() {
    let signal = Signal::Image { channels: 1, height: 16, width: 16 };
    let dense = model(
        BackboneConfig::Dense(tessera_nn::backbone::DenseConfig::default()),
        vector(Distance::Euclidean, 0),
        signal,
    );
    let problem = graph::encoder(&dense).unwrap_err();
    assert_eq!(
        problem,
        "its layer backbone::dense::First has no form in a graph of common operations"
    );
}
