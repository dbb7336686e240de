//! What stays as it is: codes that nothing takes, and levels that a step leaves out. What a code's
//! use is, for anchors.

use tch::{Device, Kind, Tensor};
use tessera_nn::parameters::Declarations;
use tessera_nn::quantize::{
    Codebook, CodebookInit, Distance, Place, Quantizer, QuantizerConfig, ReplaceWith,
    ResidualConfig, Slot, Sums, VectorConfig, build,
};
use tessera_nn::{Kinds, Parameters};

fn built(config: &QuantizerConfig, kind: Kind) -> (Box<dyn Quantizer>, Parameters) {
    tch::set_num_threads(1);
    config.validate().unwrap();
    let mut declarations = Declarations::default();
    let quantizer = build(config, &Slot::root(3, kind, Device::Cpu), &mut declarations);
    (quantizer, declarations.allocate(3, Kinds::same(kind), Device::Cpu))
}

fn rows(values: &[f64], dim: i64, kind: Kind) -> Tensor {
    Tensor::from_slice(values).view([-1, dim]).to_kind(kind)
}

/// One step on all tokens of a batch; the indices of each level.
fn step(
    (quantizer, parameters): (&mut Box<dyn Quantizer>, &Parameters),
    step: u64,
    latents_nd: &Tensor,
) -> Tensor {
    let tokens = latents_nd.size()[0] as usize;
    let place = Place::new(step, tokens, 0..tokens);
    let sums = Sums::zeros(quantizer.lens(), latents_nd.kind(), Device::Cpu);
    let indices_nl = quantizer.forward(parameters, latents_nd, &place, &sums).indices_nl;
    let _ = quantizer.update(parameters, &sums, &place);
    indices_nl
}

fn state_of(quantizer: &dyn Quantizer, end: &str) -> Tensor {
    let mut state = quantizer.state().into_iter();
    state.find(|(name, _)| name.ends_with(end)).expect("there is such a tensor").1.copy()
}

/// Codes (1, 0), (0, 1), (-1, 0); latents take the first two for 1,600 steps under the default
/// decay, after which the third one's count is 0.99^1600 = 1e-7, far below epsilon. By
/// M / (N + eps) it would have come to within 0.0103 of the origin.
#[test]
fn a_code_that_nothing_takes_stays_bit_for_bit() {
    for distance in [Distance::Euclidean, Distance::Cosine, Distance::CosineSearch] {
        let config =
            VectorConfig { num_codes: 3, code_dim: 2, distance, ..VectorConfig::default() };
        let (mut quantizer, parameters) = built(&QuantizerConfig::Vector(config), Kind::Float);
        let first = rows(&[1.0, 0.0, 0.0, 1.0, -1.0, 0.0], 2, Kind::Float);
        quantizer.initialize(&parameters, &first, 3);
        let latents_nd = rows(&[0.9, 0.1, 0.2, 1.1], 2, Kind::Float);
        for at in 0..1600 {
            let _ = step((&mut quantizer, &parameters), at, &latents_nd);
        }
        let codes_kd = state_of(&*quantizer, ".codebook");
        assert_eq!(codes_kd.get(2), first.get(2), "{distance:?}");
        assert!(state_of(&*quantizer, "ema_counts").double_value(&[2]) < 1e-6);

        // Taken again, it goes to the mean of what takes it; eps against 0.01 is a thousandth.
        let _ = step((&mut quantizer, &parameters), 1600, &rows(&[-0.8, 0.0], 2, Kind::Float));
        let code_d = state_of(&*quantizer, ".codebook").get(2);
        let expected = if distance == Distance::Cosine { -1.0 } else { -0.8 };
        assert!((code_d.double_value(&[0]) - expected).abs() < 2e-3, "{distance:?}: {code_d}");
    }
}

fn residual(codebook: Codebook, latent_dim: i64) -> QuantizerConfig {
    QuantizerConfig::Residual(ResidualConfig {
        num_quantizers: 4,
        dropout: 1.0,
        quantizer: Box::new(QuantizerConfig::Vector(VectorConfig {
            num_codes: 4,
            code_dim: 2,
            latent_dim,
            codebook,
            replace_every: 1,
            replace_below: 1.0,
            ..VectorConfig::default()
        })),
        ..ResidualConfig::default()
    })
}

/// In every step one to four levels take part. Counts, sums and codes of the others are bit for bit
/// those of before; they are neither decayed nor replaced.
#[test]
fn levels_that_are_left_out_do_not_move() {
    let (mut quantizer, parameters) = built(&residual(Codebook::Ema, 0), Kind::Double);
    let values: Vec<f64> = (0..40).map(|at| f64::from(at * at).sin()).collect();
    let latents_nd = rows(&values, 2, Kind::Double);
    quantizer.initialize(&parameters, &latents_nd, 20);
    let mut times_left_out = [0; 4];
    for at in 0..20 {
        let before: Vec<(String, Tensor)> =
            quantizer.state().into_iter().map(|(name, tensor)| (name, tensor.copy())).collect();
        let indices_nl = step((&mut quantizer, &parameters), at, &latents_nd);
        for level in 0..4 {
            let left_out = indices_nl.int64_value(&[0, level]) < 0;
            times_left_out[level as usize] += u32::from(left_out);
            let own = format!("layers.{level}.");
            for ((name, before), (_, after)) in before.iter().zip(quantizer.state()) {
                if name.contains(&own) {
                    assert_eq!(*before == after, left_out, "{name} in step {at}");
                }
            }
        }
    }
    assert_eq!(times_left_out[0], 0);
    assert!(times_left_out[3] > times_left_out[1], "{times_left_out:?}");
    assert!((1..20).contains(&times_left_out[1]), "{times_left_out:?}");
}

/// What rests is what belongs to levels whose indices are -1: their codes and projections.
#[test]
fn the_parameters_of_levels_that_are_left_out_are_at_rest() {
    for latent_dim in [0, 3] {
        let (quantizer, parameters) =
            built(&residual(Codebook::Gradient, latent_dim), Kind::Double);
        let latents_nd = Tensor::zeros([5, quantizer.dim()], (Kind::Double, Device::Cpu));
        for at in 0..10 {
            let sums = Sums::zeros(quantizer.lens(), Kind::Double, Device::Cpu);
            let place = Place::new(at, 5, 0..5);
            let indices_nl = quantizer.forward(&parameters, &latents_nd, &place, &sums).indices_nl;
            let resting = parameters.flat().zeros_like();
            for range in quantizer.at_rest(at) {
                let _ = resting.narrow(0, range.start, range.end - range.start).fill_(1.0);
            }
            for (name, part) in parameters.trained_views(&resting) {
                let level = name.split('.').nth(2).unwrap().parse().unwrap();
                let expected = f64::from(u8::from(indices_nl.int64_value(&[0, level]) < 0));
                assert_eq!(part.min().double_value(&[]), expected, "{name} in step {at}");
                assert_eq!(part.max().double_value(&[]), expected, "{name} in step {at}");
            }
        }
    }
}

fn with_anchors(init: CodebookInit, replace_every: u64) -> VectorConfig {
    VectorConfig {
        num_codes: 2,
        code_dim: 1,
        decay: 0.9,
        codebook_init: init,
        replace_every,
        replace_with: ReplaceWith::Anchors,
        ..VectorConfig::default()
    }
}

/// By hand: of 4 tokens 3 take code 0 in step 0 and all in step 1. Use starts at zero, so it is
/// 0.1 x 3/4 x 0.9 + 0.1 x 1 and 0.1 x 1/4 x 0.9, whatever counts began with.
#[test]
fn use_is_the_average_of_parts_of_all_tokens() {
    for init in [CodebookInit::Data, CodebookInit::Kmeans] {
        // Replacement is due in no step of these.
        let config = QuantizerConfig::Vector(with_anchors(init, 1000));
        let (mut quantizer, parameters) = built(&config, Kind::Double);
        quantizer.initialize(&parameters, &rows(&[0.0, 9.0], 1, Kind::Double), 1000);
        let first = i64::from(state_of(&*quantizer, ".codebook").double_value(&[0]) > 1.0);
        let _ =
            step((&mut quantizer, &parameters), 0, &rows(&[0.0, 0.1, 0.2, 9.0], 1, Kind::Double));
        let _ =
            step((&mut quantizer, &parameters), 1, &rows(&[0.0, 0.1, 0.2, 0.3], 1, Kind::Double));
        let use_k = state_of(&*quantizer, "ema_use");
        assert!((use_k.double_value(&[first]) - 0.1675).abs() < 1e-12, "{init:?}: {use_k}");
        assert!((use_k.double_value(&[1 - first]) - 0.0225).abs() < 1e-12, "{init:?}: {use_k}");
    }
}

/// k-means counts 500 tokens for each of its two clusters; that is no use in training. Code 9,
/// which nothing takes in the first step, goes exp(-0.001) of the way to one of its latents.
#[test]
fn counts_of_k_means_are_no_use() {
    let config = QuantizerConfig::Vector(with_anchors(CodebookInit::Kmeans, 1));
    let (mut quantizer, parameters) = built(&config, Kind::Double);
    quantizer.initialize(&parameters, &rows(&[0.0, 9.0], 1, Kind::Double), 1000);
    let _ = step((&mut quantizer, &parameters), 0, &rows(&[0.0, 0.0], 1, Kind::Double));
    let mut codes: Vec<f64> = Vec::try_from(state_of(&*quantizer, ".codebook").view([-1])).unwrap();
    codes.sort_by(f64::total_cmp);
    assert!((codes[1] - 9.0 * (1.0 - (-0.001f64).exp())).abs() < 1e-9, "{codes:?}");
}

/// Levels that share a codebook take three times as many codes as there are tokens; use is a part
/// of those, so after two steps of decay 0.9 it adds up to 1 - 0.81.
#[test]
fn use_of_a_shared_codebook_is_a_part_of_what_all_levels_take() {
    let config = QuantizerConfig::Residual(ResidualConfig {
        num_quantizers: 3,
        shared_codebook: true,
        quantizer: Box::new(QuantizerConfig::Vector(with_anchors(CodebookInit::Data, 1000))),
        ..ResidualConfig::default()
    });
    let (mut quantizer, parameters) = built(&config, Kind::Double);
    let latents_nd = rows(&[0.0, 0.5, 2.0, 9.0], 1, Kind::Double);
    quantizer.initialize(&parameters, &latents_nd, 4);
    for at in 0..2 {
        let _ = step((&mut quantizer, &parameters), at, &latents_nd);
    }
    let total = state_of(&*quantizer, "ema_use").sum(Kind::Double).double_value(&[]);
    assert!((total - 0.19).abs() < 1e-12, "{total}");
}
