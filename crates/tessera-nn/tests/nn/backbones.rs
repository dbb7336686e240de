//! Networks around the quantiser: shapes, order of positions, what they refuse, how they start.

use tch::{Device, Kind, Tensor};
use tessera_nn::backbone::{
    Conv1dConfig, Conv2dConfig, Conv3dConfig, DenseConfig, Ends, HierarchyConfig, UNet2dConfig,
    VitConfig,
};
use tessera_nn::parameters::{Declarations, Stage};
use tessera_nn::quantize::VectorConfig;
use tessera_nn::{
    BackboneConfig, Kinds, ModelConfig, QuantizerConfig, Signal, VqVae, from_vectors, to_vectors,
};

const IMAGE: Signal = Signal::Image { channels: 3, height: 8, width: 12 };
const LARGE: Signal = Signal::Image { channels: 3, height: 16, width: 32 };
const SOUND: Signal = Signal::Audio { channels: 2, samples: 40 };
const FILM: Signal = Signal::Video { channels: 3, frames: 4, height: 8, width: 6 };
const CLIP: Signal = Signal::Video { channels: 3, frames: 5, height: 8, width: 16 };
const TOKENS: Signal = Signal::Tokens { positions: 4, levels: 2 };

fn dense() -> BackboneConfig {
    BackboneConfig::Dense(DenseConfig { hidden: 10, positions: 6 })
}

/// Three levels.
fn hierarchy() -> BackboneConfig {
    let (channels, residual_channels) = (4, 2);
    let config = HierarchyConfig { levels: 3, channels, residual_layers: 1, residual_channels };
    BackboneConfig::Hierarchy(config)
}

fn conv2d() -> BackboneConfig {
    BackboneConfig::Conv2d(Conv2dConfig { channels: 4, residual_layers: 1, residual_channels: 2 })
}

fn unet2d() -> BackboneConfig {
    BackboneConfig::Unet2d(UNet2dConfig {
        channels: 8,
        multipliers: vec![1, 2],
        attention_resolutions: vec![4],
        groups: 2,
        latent_channels: 6,
        ..UNet2dConfig::default()
    })
}

fn conv3d() -> BackboneConfig {
    BackboneConfig::Conv3d(Conv3dConfig {
        channels: 8,
        patch: 2,
        spatial: 4,
        temporal: 2,
        attention_resolutions: vec![4],
        latent_channels: 6,
        ..Conv3dConfig::default()
    })
}

/// With all of its layers, and plain weights.
fn conv1d() -> BackboneConfig {
    BackboneConfig::Conv1d(Conv1dConfig {
        channels: 4,
        ratios: vec![5, 2],
        weight_norm: false,
        lstm_layers: 1,
        attention_layers: 1,
        attention_heads: 2,
        ..Conv1dConfig::default()
    })
}

/// Networks of one level, with what they take.
fn networks() -> [(BackboneConfig, Signal); 7] {
    [
        (conv1d(), SOUND),
        (conv2d(), IMAGE),
        (conv3d(), CLIP),
        (dense(), IMAGE),
        (unet2d(), IMAGE),
        (vit(0), IMAGE),
        (vit(5), IMAGE),
    ]
}

fn vit(latent_tokens: i64) -> BackboneConfig {
    BackboneConfig::Vit(VitConfig { patch: 4, width: 12, layers: 2, heads: 3, latent_tokens })
}

fn model(backbone: BackboneConfig, signal: &Signal, kinds: Kinds) -> VqVae {
    let config = ModelConfig { backbone, ..ModelConfig::default() };
    config.validate(signal).unwrap();
    VqVae::new(&config, signal, 3, kinds, Device::Cpu)
}

#[test]
fn latents_have_their_axes_and_samples_their_shape_again() {
    for (backbone, signal, axes) in [
        (conv1d(), SOUND, vec![4]),
        (conv2d(), IMAGE, vec![2, 3]),
        (dense(), IMAGE, vec![6]),
        (dense(), SOUND, vec![6]),
        (dense(), FILM, vec![6]),
        (unet2d(), IMAGE, vec![4, 6]),
        (conv3d(), CLIP, vec![3, 2, 4]),
        (vit(0), IMAGE, vec![2, 3]),
        (vit(5), IMAGE, vec![5]),
    ] {
        let mixed = Kinds { master: Kind::Float, compute: Kind::BFloat16 };
        for kinds in [Kinds::same(Kind::Float), mixed] {
            let model = model(backbone.clone(), &signal, kinds);
            assert_eq!(model.latent_axes(), std::slice::from_ref(&axes));
            let positions = axes.iter().product::<i64>();
            assert_eq!(model.num_positions(), [positions]);
            for num in [0, 2] {
                let samples = Tensor::ones(signal.shape(num), (Kind::Float, Device::Cpu));
                let latents = model.latents(&samples).remove(0);
                let dim = model.quantizers[0].dim();
                assert_eq!(latents.size(), [vec![num, dim], axes.clone()].concat());
                let vectors_nd = to_vectors(&latents);
                assert_eq!(vectors_nd.size(), [num * positions, dim]);
                assert_eq!(vectors_nd.data_ptr(), latents.data_ptr(), "nothing is copied");
                let outputs = model.decode(&[from_vectors(&vectors_nd, &latents)]);
                assert_eq!((outputs.size(), outputs.kind()), (signal.shape(num), Kind::Float));
            }
        }
    }
}

/// By hand: with a decoder of zeros, the output is its bias.
#[test]
fn the_output_starts_at_the_mean_of_each_channel() {
    for (backbone, signal) in [
        (conv1d(), SOUND),
        (conv2d(), IMAGE),
        (dense(), IMAGE),
        (dense(), FILM),
        (unet2d(), IMAGE),
        (conv3d(), CLIP),
        (vit(0), IMAGE),
        (vit(5), IMAGE),
        (hierarchy(), LARGE),
    ] {
        let model = model(backbone, &signal, Kinds::same(Kind::Float));
        let _ = model.parameters.flat().shallow_clone().zero_();
        let means_c = Tensor::from_slice(&[0.25f32, 0.5, 0.75]).narrow(0, 0, signal.channels());
        model.set_output_mean(&means_c);
        let dim = model.quantizers[0].dim();
        let ones = |axes| Tensor::ones([vec![2, dim], axes].concat(), (Kind::Float, Device::Cpu));
        let codes: Vec<Tensor> = model.latent_axes().into_iter().map(ones).collect();
        let outputs = model.decode(&codes);
        for channel in 0..signal.channels() {
            let values = outputs.select(1, channel);
            let mean = means_c.double_value(&[channel]);
            assert_eq!(
                (values.min().double_value(&[]), values.max().double_value(&[])),
                (mean, mean)
            );
        }
    }
}

/// What the first layer says of film that is 0.5 everywhere is its bias as drawn, within PyTorch's bound of 1 / sqrt(fan in).
#[test]
fn film_is_seen_around_the_middle_of_its_range() {
    let model = model(conv3d(), &CLIP, Kinds::same(Kind::Float));
    let find =
        |name: &str| model.parameters.named_views().find(|(found, _)| *found == name).unwrap().1;
    let weight = find("encoder.conv_in.space.weight");
    let of_means =
        weight.narrow(1, 0, CLIP.channels()).flatten(1, -1).sum_dim_intlist(1, false, None);
    let said = find("encoder.conv_in.space.bias") + of_means * 0.5;
    let bound = (weight.get(0).numel() as f64).sqrt().recip();
    let most = said.abs().max().double_value(&[]);
    assert!(most < bound * (1.0 + 1e-6) && most > 0.5 * bound, "{most} {bound}");
}

/// The weights before the output's bias have a deviation of 0.02, so they add some hundredths.
#[test]
fn a_vit_starts_near_the_mean_of_each_channel() {
    for latent_tokens in [0, 32] {
        let backbone = BackboneConfig::Vit(VitConfig { latent_tokens, ..VitConfig::default() });
        let signal = Signal::Image { channels: 3, height: 32, width: 48 };
        let model = model(backbone, &signal, Kinds::same(Kind::Float));
        let means_c = Tensor::from_slice(&[0.25f32, 0.5, 0.75]);
        model.set_output_mean(&means_c);
        let samples = Tensor::ones(signal.shape(2), (Kind::Float, Device::Cpu));
        let outputs = model.decode(&model.latents(&samples));
        let off = (outputs - means_c.view([1, 3, 1, 1])).abs().max().double_value(&[]);
        assert!(off < 0.2, "{off}");
    }
}

#[test]
fn what_a_network_cannot_take_is_told_in_a_line() {
    let told = |backbone: BackboneConfig, signal| backbone.validate(&signal).unwrap_err();
    assert_eq!(
        told(conv2d(), SOUND),
        "model.backbone.kind = \"conv2d\" takes pictures, these data are sound: set it to \"conv1d\""
    );
    assert!(told(conv2d(), FILM).contains("these data are film"));
    assert!(
        told(dense(), TOKENS).contains("takes pictures, sound and film, these data are tokens")
    );
    let none = BackboneConfig::Dense(DenseConfig { positions: 0, ..DenseConfig::default() });
    assert_eq!(told(none, SOUND), "model.backbone.positions should be from 1 to 65536, found 0");
    assert_eq!(
        told(hierarchy(), IMAGE),
        "the hierarchy backbone needs pictures whose sides are multiples of 16, found 8 x 12: pack the data at \
         16 x 16"
    );
    let small = Signal::Image { channels: 1, height: 6, width: 8 };
    assert!(told(conv2d(), small).contains("multiples of 4, found 6 x 8"));
}

/// By hand, for pictures of 16 x 32: a code for each 4 x 4 pixels, and twice as many pixels along each axis a level.
#[test]
fn levels_of_a_hierarchy_are_quantised_each_by_its_own_quantiser() {
    let vector = |num_codes, code_dim| {
        QuantizerConfig::Vector(VectorConfig { num_codes, code_dim, ..VectorConfig::default() })
    };
    let config = ModelConfig {
        backbone: hierarchy(),
        quantizer: vector(16, 6),
        coarser_quantizers: vec![vector(8, 5), vector(4, 3)],
        ..ModelConfig::default()
    };
    config.validate(&LARGE).unwrap();
    let model = VqVae::new(&config, &LARGE, 3, Kinds::same(Kind::Float), Device::Cpu);
    assert_eq!(model.latent_axes(), [[4, 8], [2, 4], [1, 2]]);
    assert_eq!(model.num_codes(), [16, 8, 4]);
    for num in [0, 2] {
        let samples = Tensor::ones(LARGE.shape(num), (Kind::Float, Device::Cpu));
        let indices: Vec<_> = model.tokenize(&samples).iter().map(Tensor::size).collect();
        assert_eq!(indices, [[num * 32, 1], [num * 8, 1], [num * 2, 1]]);
        let latents = model.latents(&samples);
        let sizes: Vec<_> = latents.iter().map(Tensor::size).collect();
        assert_eq!(sizes, [[num, 6, 4, 8], [num, 5, 2, 4], [num, 3, 1, 2]]);
        assert_eq!(model.gather(&latents).size(), [num, 6 + 5 + 3, 4, 8]);
        assert_eq!(model.decode(&latents).size(), LARGE.shape(num));
    }
    // What a level is told of the coarser ones is their codes: others there are other latents here.
    let samples = Tensor::rand(LARGE.shape(1), (Kind::Float, Device::Cpu));
    let with_coarse = |value: f64| {
        let mut finest = Tensor::new();
        drop(model.descend(&samples, |level, latents| {
            if level == 0 {
                finest = latents.copy();
            }
            Tensor::full_like(latents, value)
        }));
        finest
    };
    assert_ne!(with_coarse(1.0), with_coarse(2.0));

    let of_two = ModelConfig { coarser_quantizers: vec![vector(8, 5)], ..config.clone() };
    let told = of_two.validate(&LARGE).unwrap_err();
    assert!(told.ends_with("levels above the finest, 2; found 1"), "{told}");
    let bad = ModelConfig { coarser_quantizers: vec![vector(8, 5), vector(1, 3)], ..config };
    let told = bad.validate(&LARGE).unwrap_err();
    assert!(told.starts_with("model.coarser_quantizers.1.num_codes should be"), "{told}");
}

#[test]
fn what_unet2d_cannot_be_is_told_in_a_line() {
    let square = Signal::Image { channels: 3, height: 32, width: 32 };
    let told = |config: UNet2dConfig, signal| {
        BackboneConfig::Unet2d(config).validate(&signal).unwrap_err()
    };
    let small = UNet2dConfig::default;
    BackboneConfig::Unet2d(small()).validate(&square).unwrap();
    assert_eq!(
        told(small(), SOUND),
        "model.backbone.kind = \"unet2d\" takes pictures, these data are sound: set it to \"conv1d\""
    );
    let uneven = Signal::Image { channels: 3, height: 30, width: 32 };
    assert_eq!(
        told(small(), uneven),
        "the unet2d backbone needs pictures whose sides are multiples of 4, found 30 x 32: \
         pack the data at 28 x 32 or 32 x 32"
    );
    let tiny = Signal::Image { channels: 3, height: 2, width: 3 };
    assert!(told(small(), tiny).ends_with("pack the data at 4 x 4"));
    let odd = UNet2dConfig { groups: 5, ..small() };
    assert_eq!(
        told(odd, square),
        "model.backbone.groups should divide model.backbone.channels, 32, found 5"
    );
    let elsewhere = UNet2dConfig { attention_resolutions: vec![8, 12], ..small() };
    let wide = Signal::Image { channels: 3, height: 64, width: 32 };
    assert_eq!(
        told(elsewhere, wide),
        "model.backbone.attention_resolutions should be among [32, 16, 8], the shorter sides of \
         the levels of 64 x 32 pictures, found 12"
    );
    for (key, config) in [
        ("channels", UNet2dConfig { channels: 0, ..small() }),
        ("residual_blocks", UNet2dConfig { residual_blocks: 0, ..small() }),
        ("groups", UNet2dConfig { groups: 0, ..small() }),
        ("latent_channels", UNet2dConfig { latent_channels: -1, ..small() }),
        ("multipliers", UNet2dConfig { multipliers: vec![], ..small() }),
        ("multipliers", UNet2dConfig { multipliers: vec![1, 0], ..small() }),
        ("multipliers", UNet2dConfig { multipliers: vec![1; 9], ..small() }),
    ] {
        assert!(
            told(config, square).starts_with(&format!("model.backbone.{key} should ")),
            "{key}"
        );
    }
}

#[test]
fn what_vit_cannot_be_is_told_in_a_line() {
    let told =
        |config: VitConfig, signal| BackboneConfig::Vit(config).validate(&signal).unwrap_err();
    let small = VitConfig::default;
    assert_eq!(
        told(small(), FILM),
        "model.backbone.kind = \"vit\" takes pictures, these data are film: set it to \"conv3d\""
    );
    assert_eq!(
        told(small(), IMAGE),
        "the vit backbone needs pictures whose sides are multiples of 8, found 8 x 12: pack the \
         data at 8 x 8 or 8 x 16"
    );
    let fits = Signal::Image { channels: 1, height: 8, width: 16 };
    BackboneConfig::Vit(small()).validate(&fits).unwrap();
    assert_eq!(
        told(VitConfig { heads: 5, ..small() }, fits),
        "model.backbone.heads should divide model.backbone.width, 192, found 5"
    );
    for (key, config) in [
        ("patch", VitConfig { patch: 0, ..small() }),
        ("width", VitConfig { width: 0, ..small() }),
        ("layers", VitConfig { layers: 0, ..small() }),
        ("heads", VitConfig { heads: 0, ..small() }),
        ("latent_tokens", VitConfig { latent_tokens: -1, ..small() }),
    ] {
        assert!(told(config, fits).starts_with(&format!("model.backbone.{key} should ")), "{key}");
    }
}

/// As counted from the originals: taming's with 1024 codes of 8 channels, TiTok without its codes.
#[test]
fn networks_have_as_many_parameters_as_the_originals() {
    let small = UNet2dConfig { attention_resolutions: vec![8], ..UNet2dConfig::default() };
    let eighth = UNet2dConfig { channels: 16, multipliers: vec![1, 2, 2, 4], ..small.clone() };
    let titok = VitConfig { latent_tokens: 32, ..VitConfig::default() };
    for (backbone, side, dim, expected) in [
        (BackboneConfig::Unet2d(small), 32, 8, 1_080_939 - 1024 * 8),
        (BackboneConfig::Unet2d(eighth), 64, 8, 882_651 - 1024 * 8),
        (BackboneConfig::Vit(titok), 64, 12, 3_683_424),
    ] {
        let signal = Signal::Image { channels: 3, height: side, width: side };
        let mut to = Declarations::default();
        let _ = backbone.build(&Ends { signal, outputs: 3, dims: &[dim] }, &mut to);
        let parameters = to.allocate(0, Kinds::same(Kind::Float), Device::Cpu);
        assert_eq!(parameters.num_trainable(), expected);
    }
}

/// As counted from Cosmos' encoder and decoder for 17 x 64 x 64, of whose layers those are not here that it never uses: the
/// one over time of the way down, 32 to 32, and of the way up, 64 to 64. The two convolutions at the codes are more.
#[test]
fn the_network_for_film_has_as_many_parameters_as_the_original() {
    let signal = Signal::Video { channels: 3, frames: 17, height: 64, width: 64 };
    let mut to = Declarations::default();
    let backbone = BackboneConfig::Conv3d(Conv3dConfig::default());
    let _ = backbone.build(&Ends { signal, outputs: 3, dims: &[8] }, &mut to);
    let parameters = to.allocate(0, Kinds::same(Kind::Float), Device::Cpu);
    let unused = (3 * 32 + 1) * 32 + (3 * 64 + 1) * 64;
    let at_codes = (16 + 1) * 8 + (8 + 1) * 16;
    assert_eq!(parameters.num_trainable(), 1_151_648 - unused + at_codes);
}

/// bfloat16 has 8 bits of mantissa; over some dozen layers the direction of the gradient stays.
#[test]
fn gradients_in_bfloat16_point_where_those_in_float32_do() {
    for (backbone, signal) in
        [(conv1d(), SOUND), (unet2d(), IMAGE), (conv3d(), CLIP), (vit(0), IMAGE), (vit(5), IMAGE)]
    {
        let gradient = |compute| {
            let kinds = Kinds { master: Kind::Float, compute };
            let model = model(backbone.clone(), &signal, kinds);
            let count = Tensor::arange(2 * signal.num_values(), (Kind::Float, Device::Cpu));
            let samples = (count * 0.7).sin().view(signal.shape(2).as_slice());
            let outputs = model.decode(&model.latents(&samples));
            let root = (outputs - samples).square().mean(Kind::Float);
            let leaves = [Stage::Encoder, Stage::Decoder].map(|s| model.parameters.leaves_of(s));
            let gradients = Tensor::run_backward(&[root], &leaves.concat(), false, false);
            let flat: Vec<Tensor> =
                gradients.iter().map(|g| g.to_kind(Kind::Float).reshape([-1])).collect();
            Tensor::cat(&flat, 0)
        };
        let [exact, rounded] = [Kind::Float, Kind::BFloat16].map(gradient);
        let cosine = exact.dot(&rounded) / (exact.norm() * rounded.norm());
        let cosine = cosine.double_value(&[]);
        assert!(cosine > 0.99, "{backbone:?}: {cosine}");
    }
}

/// A rank may have no sample of a batch.
#[test]
fn a_batch_of_no_samples_goes_through_and_its_gradients_are_zero() {
    for (backbone, signal) in networks() {
        let model = model(backbone, &signal, Kinds::same(Kind::Float));
        let samples = Tensor::zeros(signal.shape(0), (Kind::Float, Device::Cpu));
        let outputs = model.decode(&model.latents(&samples));
        assert_eq!(outputs.size(), signal.shape(0));
        let root = outputs.square().sum(Kind::Float);
        for stage in [Stage::Encoder, Stage::Decoder] {
            let leaves = model.parameters.leaves_of(stage);
            let gradients = Tensor::run_backward(&[&root], &leaves, true, false);
            for gradient in gradients.iter().filter(|gradient| gradient.defined()) {
                assert_eq!(gradient.abs().max().double_value(&[]), 0.0, "{stage:?}");
            }
        }
    }
}

/// The layer with the output's weight is a block by itself, so the gradient at that weight can be
/// taken from the last block alone; outputs may have other channels than samples.
#[test]
fn the_last_block_computes_the_output_from_the_output_weight() {
    for (backbone, signal) in networks() {
        let mut to = Declarations::default();
        let net = backbone.build(&Ends { signal, outputs: 4, dims: &[6] }, &mut to);
        let parameters = to.allocate(3, Kinds::same(Kind::Float), Device::Cpu);
        let axes = net.latent_axes(&signal);
        let mut hidden = Tensor::ones([vec![2, 6], axes].concat(), (Kind::Float, Device::Cpu));
        let blocks = &net.decoder().blocks;
        for block in blocks {
            hidden = block.forward(&parameters, &hidden.detach());
        }
        assert_eq!(hidden.size(), [vec![2, 4], signal.axes()].concat());
        let leaves = parameters.leaves_of(Stage::Decoder);
        let root = hidden.sum(Kind::Float);
        let gradients = Tensor::run_backward(&[root], &leaves, false, false);
        let used: Vec<&Tensor> = leaves
            .iter()
            .zip(&gradients)
            .filter(|(_, gradient)| gradient.defined())
            .map(|(leaf, _)| *leaf)
            .collect();
        let weight = parameters.get(net.output_weight());
        let weights: Vec<_> = used.iter().filter(|leaf| leaf.dim() > 1).collect();
        assert_eq!(weights.len(), 1);
        assert_eq!(weights[0].data_ptr(), weight.data_ptr());
    }
}
