//! The network for film: what hangs on what in time, pictures as film of one frame, and what it refuses. Its numbers are
//! compared with the source's in `tests/networks.rs`.

use tch::{Device, Kind, Tensor};
use tessera_nn::backbone::conv3d::{FilmAttention, FilmNorm};
use tessera_nn::backbone::{Backbone, Conv3dConfig, Ends};
use tessera_nn::chain::Block;
use tessera_nn::parameters::{Declarations, Stage};
use tessera_nn::{BackboneConfig, Kinds, Parameters, Signal};

const SOUND: Signal = Signal::Audio { channels: 2, samples: 40 };

fn film(frames: i64, height: i64, width: i64) -> Signal {
    Signal::Video { channels: 2, frames, height, width }
}

const CASES: [(FilmAttention, FilmNorm); 3] = [
    (FilmAttention::Factorized, FilmNorm::Frame),
    (FilmAttention::Axial, FilmNorm::Frame),
    (FilmAttention::Factorized, FilmNorm::None),
];

/// Everything that there is: patches, both factors between levels, attention at a level and in the middle.
fn config((attention, norm): (FilmAttention, FilmNorm)) -> Conv3dConfig {
    Conv3dConfig {
        channels: 4,
        multipliers: vec![1, 2, 2],
        patch: 2,
        attention_resolutions: vec![4],
        attention,
        norm,
        ..Conv3dConfig::default()
    }
}

fn net(config: &Conv3dConfig, signal: Signal, kind: Kind) -> (Box<dyn Backbone>, Parameters) {
    let backbone = BackboneConfig::Conv3d(config.clone());
    backbone.validate(&signal).unwrap();
    let mut to = Declarations::default();
    let net = backbone.build(&Ends { signal, outputs: 2, dims: &[3] }, &mut to);
    (net, to.allocate(7, Kinds::same(kind), Device::Cpu))
}

fn samples(signal: Signal, kind: Kind) -> Tensor {
    let count = Tensor::arange(2 * signal.num_values(), (Kind::Double, Device::Cpu));
    (count.square() * 0.37).sin().view(signal.shape(2).as_slice()).to_kind(kind)
}

/// The same film with other numbers from frame `at` on.
fn changed_from(film: &Tensor, at: i64) -> Tensor {
    let other = film.copy();
    let mut later = other.narrow(2, at, film.size()[2] - at);
    let _ = later.g_mul_scalar_(-0.7).g_add_scalar_(0.2);
    other
}

fn before(tensor: &Tensor, at: i64) -> Tensor {
    tensor.narrow(2, 0, at)
}

/// Latent j is of the frames up to 4 j, so it is changed by frame k where k <= 4 j; outputs of a latent are the frames
/// that it is of. Both bit for bit, since norms are of one frame each.
#[test]
fn what_is_changed_later_changes_no_earlier_latent_and_no_earlier_output() {
    for case in CASES {
        for kind in [Kind::Float, Kind::Double] {
            let signal = film(13, 8, 16);
            let (net, parameters) = net(&config(case), signal, kind);
            let input = samples(signal, kind);
            let encode = |input: &Tensor| net.encoder().forward(&parameters, input);
            let decode = |latents: &Tensor| net.decoder().forward(&parameters, latents);
            let latents = encode(&input);
            assert_eq!(latents.size(), [2, 3, 4, 1, 2]);
            for k in 1..13 {
                let found = encode(&changed_from(&input, k));
                let same = (k + 3) / 4;
                assert_eq!(before(&found, same), before(&latents, same), "{case:?}, {k}");
                if same < 4 {
                    assert_ne!(found.select(2, same), latents.select(2, same), "{k}");
                }
            }
            let output = decode(&latents);
            assert_eq!(output.size(), input.size());
            for j in 1..4 {
                let found = decode(&changed_from(&latents, j));
                let same = 4 * (j - 1) + 1;
                assert_eq!(before(&found, same), before(&output, same), "{case:?}, {j}");
                assert_ne!(found.select(2, same), output.select(2, same), "{j}");
            }
        }
    }
}

#[test]
fn without_norms_attention_keeps_its_own() {
    let mut to = Declarations::default();
    let signal = film(13, 8, 16);
    let ends = Ends { signal, outputs: 2, dims: &[3] };
    let _ = BackboneConfig::Conv3d(config(CASES[2])).build(&ends, &mut to);
    let parameters = to.allocate(7, Kinds::same(Kind::Float), Device::Cpu);
    let named: Vec<&str> = parameters
        .named_views()
        .map(|(name, _)| name)
        .filter(|name| name.contains("norm"))
        .collect();
    assert!(!named.is_empty() && named.iter().all(|name| name.contains("attn")), "{named:?}");
}

/// Norms and attention are of one clip, so a batch's gradient is the sum of its parts' however it is split.
#[test]
fn gradients_of_parts_add_up_to_those_of_the_batch() {
    for case in CASES {
        let signal = film(5, 8, 8);
        let (net, parameters) = net(&config(case), signal, Kind::Double);
        let input = samples(signal, Kind::Double);
        let gradients = |from, len| {
            let part = input.narrow(0, from, len);
            let latents = net.encoder().forward(&parameters, &part);
            let output = net.decoder().forward(&parameters, &latents);
            let root = (output - part).square().sum(Kind::Double);
            let leaves = [Stage::Encoder, Stage::Decoder].map(|s| parameters.leaves_of(s)).concat();
            Tensor::run_backward(&[root], &leaves, false, false)
        };
        let (whole, parts) = (gradients(0, 2), [gradients(0, 1), gradients(1, 1)]);
        for (at, whole) in whole.iter().enumerate() {
            let off = (&parts[0][at] + &parts[1][at] - whole).abs().max().double_value(&[]);
            let size = whole.abs().max().double_value(&[]);
            assert!(off < 1e-12 * size.max(1.0), "{case:?}, {at}: {off:e} of {size:e}");
        }
    }
}

/// The first frame of a clip and a picture of the same numbers. Products of matrices may sum in another order for other
/// sizes, so equality is that of rounding.
#[test]
fn a_picture_is_film_of_one_frame_to_the_same_weights() {
    for case in CASES {
        let (net, parameters) = net(&config(case), film(9, 16, 8), Kind::Double);
        let clip = samples(film(9, 16, 8), Kind::Double);
        let latents = net.encoder().forward(&parameters, &clip);
        let output = net.decoder().forward(&parameters, &latents);
        for frames in [1, 5] {
            let shorter = net.encoder().forward(&parameters, &before(&clip, frames));
            let num = 1 + (frames - 1) / 4;
            assert_eq!(shorter.size(), [2, 3, num, 2, 1]);
            let off = (&shorter - before(&latents, num)).abs().max().double_value(&[]);
            assert!(off < 1e-12, "{frames}: {off:e}");
            let decoded = net.decoder().forward(&parameters, &shorter);
            let off = (decoded - before(&output, frames)).abs().max().double_value(&[]);
            assert!(off < 1e-12, "{frames}: {off:e}");
        }
        let picture = film(1, 16, 8);
        BackboneConfig::Conv3d(config(case)).validate(&picture).unwrap();
        assert_eq!(net.latent_axes(&picture), [1, 2, 1]);
    }
}

/// Of every pair of factors that levels can make, film comes out as it went in; the others are refused.
#[test]
fn film_comes_out_as_long_and_wide_as_it_went_in_or_is_refused() {
    let mut num_built = 0;
    for patch in [1, 2] {
        for levels in 1..4 {
            for spatial in [1, 2, 4] {
                for temporal in [1, 2, 4] {
                    let multipliers = vec![1; levels];
                    let small =
                        Conv3dConfig { multipliers, patch, spatial, temporal, ..config(CASES[0]) };
                    let small = Conv3dConfig {
                        channels: 2,
                        middle_attention: false,
                        attention_resolutions: vec![],
                        ..small
                    };
                    let signal = film(1 + temporal, 4, 8);
                    if let Err(told) = BackboneConfig::Conv3d(small.clone()).validate(&signal) {
                        assert!(
                            told.starts_with("model.backbone.") && !told.contains('\n'),
                            "{told}"
                        );
                        continue;
                    }
                    let (net, parameters) = net(&small, signal, Kind::Float);
                    let input = samples(signal, Kind::Float);
                    let latents = net.encoder().forward(&parameters, &input);
                    assert_eq!(latents.size()[2..], net.latent_axes(&signal));
                    assert_eq!(latents.size()[2..], [2, 4 / spatial, 8 / spatial]);
                    let output = net.decoder().forward(&parameters, &latents);
                    assert_eq!(output.size(), input.size());
                    num_built += 1;
                }
            }
        }
    }
    // Of factors behind patches of 1, (space, time) by powers of two: (0, 0) with 1, 2, 3 levels; (1, 0) with 2, 3;
    // (1, 1) with 3; (2, 0), (2, 1) with 3. (2, 2) needs 4. Behind patches of 2: (0, 0), 3 times; (1, 0), 2; (1, 1), 1.
    assert_eq!(num_built, 3 + 2 + 1 + 2 + 3 + 2 + 1);
}

#[test]
fn what_conv3d_cannot_be_is_told_in_a_line() {
    let told = |config: Conv3dConfig, signal| {
        BackboneConfig::Conv3d(config).validate(&signal).unwrap_err()
    };
    let small = Conv3dConfig::default;
    BackboneConfig::Conv3d(small()).validate(&film(17, 64, 64)).unwrap();
    assert_eq!(
        told(small(), SOUND),
        "model.backbone.kind = \"conv3d\" takes film, these data are sound: set it to \"conv1d\""
    );
    assert_eq!(
        told(small(), film(16, 64, 60)),
        "the conv3d backbone needs film of 1 + n x 4 frames with sides that are multiples of 8, found 16 x 64 x 60: \
         pack the data at 13 x 64 x 56 or 17 x 64 x 64"
    );
    assert!(
        told(small(), film(2, 64, 64)).ends_with("pack the data at 1 x 64 x 64 or 5 x 64 x 64")
    );
    assert!(told(small(), film(1, 4, 8)).ends_with("pack the data at 1 x 8 x 8"));
    assert_eq!(
        told(Conv3dConfig { patch: 2, spatial: 4, temporal: 4, ..small() }, film(17, 64, 64)),
        "model.backbone.multipliers should have 3 numbers at least: with 2 levels the decoder cannot undo spatial = 4 \
         and temporal = 4 behind patches of 2"
    );
    assert_eq!(
        told(Conv3dConfig { temporal: 16, ..small() }, film(17, 64, 64)),
        "model.backbone.temporal should be model.backbone.patch, 4, times a power of two, at most 8, found 16"
    );
    let elsewhere = Conv3dConfig { attention_resolutions: vec![16, 7], ..small() };
    assert_eq!(
        told(elsewhere, film(17, 64, 96)),
        "model.backbone.attention_resolutions should be among [16, 8], the shorter sides of the levels in patches of \
         64 x 96 film, found 7"
    );
    let axial = Conv3dConfig { attention: FilmAttention::Axial, heads: 3, ..small() };
    assert_eq!(
        told(axial, film(17, 64, 64)),
        "model.backbone.heads should divide model.backbone.channels, 32, found 3"
    );
    for (key, config) in [
        ("channels", Conv3dConfig { channels: 0, ..small() }),
        ("residual_blocks", Conv3dConfig { residual_blocks: 0, ..small() }),
        ("latent_channels", Conv3dConfig { latent_channels: 0, ..small() }),
        ("heads", Conv3dConfig { heads: 0, ..small() }),
        ("multipliers", Conv3dConfig { multipliers: vec![], ..small() }),
        ("multipliers", Conv3dConfig { multipliers: vec![65], ..small() }),
        ("patch", Conv3dConfig { patch: 3, ..small() }),
        ("patch", Conv3dConfig { patch: 8, ..small() }),
        ("spatial", Conv3dConfig { spatial: 12, ..small() }),
        ("spatial", Conv3dConfig { spatial: 2, ..small() }),
        ("temporal", Conv3dConfig { temporal: 2, ..small() }),
        ("temporal", Conv3dConfig { temporal: 0, ..small() }),
    ] {
        let told = told(config, film(17, 64, 64));
        assert!(told.starts_with(&format!("model.backbone.{key} should ")), "{key}: {told}");
    }
}
