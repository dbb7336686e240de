//! However given latents are split into parts, an empty one among them, first codes and replaced
//! codes are bit for bit the same.
//!
//! Latents are multiples of 1/64, so that their sums are exact in any order, and every difference
//! would be one of method.

use std::ops::Range;

use tch::{Device, Kind, Tensor};
use tessera_nn::parameters::Declarations;
use tessera_nn::quantize::{
    CodebookInit, Place, Quantizer, QuantizerConfig, ReplaceWith, ResidualConfig, Slot, Sums,
    VectorConfig, build, lay_out_tokens,
};
use tessera_nn::random::{Purpose, draws};
use tessera_nn::{Kinds, Parameters};

const TOKENS: usize = 500;
const DIM: i64 = 4;

fn latents() -> Tensor {
    let mut draws = draws(7, Purpose::Parameters, 0, 0);
    let values: Vec<f64> =
        (0..TOKENS * DIM as usize).map(|_| draws.below(512) as f64 / 64.0 - 4.0).collect();
    Tensor::from_slice(&values).view([-1, DIM])
}

fn splits() -> Vec<Vec<Range<usize>>> {
    vec![
        vec![0..TOKENS],
        vec![0..250, 250..TOKENS],
        vec![0..1, 1..1, 1..333, 333..TOKENS],
        (0..TOKENS).step_by(60).map(|start| start..TOKENS.min(start + 60)).collect(),
    ]
}

fn part_of(latents_nd: &Tensor, mine: &Range<usize>) -> Tensor {
    latents_nd.narrow(0, mine.start as i64, mine.len() as i64)
}

fn built(config: &QuantizerConfig) -> (Box<dyn Quantizer>, Parameters) {
    let mut declarations = Declarations::default();
    let slot = Slot::root(3, Kind::Double, Device::Cpu);
    let quantizer = build(config, &slot, &mut declarations);
    (quantizer, declarations.allocate(3, Kinds::same(Kind::Double), Device::Cpu))
}

/// All state after first codes and some steps, from sums over the parts of a split; and the number
/// of codes replaced.
fn state_after(
    config: &QuantizerConfig,
    steps: u64,
    split: &[Range<usize>],
) -> (Vec<(String, Tensor)>, f64) {
    let (mut quantizer, parameters) = built(config);
    let latents_nd = latents();
    let num_candidates = quantizer.num_candidates().min(TOKENS);
    let tokens = draws(3, Purpose::Codebook, 0, 1).distinct(num_candidates, TOKENS);
    let mut candidates_cd =
        Tensor::zeros([num_candidates as i64, DIM], (Kind::Double, Device::Cpu));
    for mine in split {
        let mut own_cd = candidates_cd.zeros_like();
        lay_out_tokens(&tokens, mine.clone(), &part_of(&latents_nd, mine), &mut own_cd);
        candidates_cd += own_cd;
    }
    quantizer.initialize(&parameters, &candidates_cd, TOKENS);
    let mut replaced = 0.0;
    for step in 0..steps {
        let sums = Sums::zeros(quantizer.lens(), Kind::Double, Device::Cpu);
        for mine in split {
            let place = Place::new(step, TOKENS, mine.clone());
            let own = Sums::zeros(quantizer.lens(), Kind::Double, Device::Cpu);
            drop(quantizer.forward(&parameters, &part_of(&latents_nd, mine), &place, &own));
            let _ = sums.counts.shallow_clone().g_add_(&own.counts);
            let _ = sums.statistics.shallow_clone().g_add_(&own.statistics);
        }
        let place = Place::new(step, TOKENS, 0..0);
        let updated = quantizer.update(&parameters, &sums, &place);
        replaced += updated.replaced.map_or(0.0, |count| count.double_value(&[]));
    }
    let state = quantizer.state().into_iter().map(|(name, tensor)| (name, tensor.copy()));
    (state.collect(), replaced)
}

fn vector(init: CodebookInit, with: ReplaceWith) -> VectorConfig {
    VectorConfig {
        num_codes: 64,
        code_dim: DIM,
        decay: 0.5,
        codebook_init: init,
        replace_every: 1,
        replace_below: 0.7,
        replace_with: with,
        ..VectorConfig::default()
    }
}

/// Compares all splits; returns the number of codes replaced.
#[track_caller]
fn assert_the_same_for_every_split(config: &QuantizerConfig, steps: u64) -> f64 {
    let splits = splits();
    let (whole, replaced) = state_after(config, steps, &splits[0]);
    for split in &splits[1..] {
        let (parts, in_parts) = state_after(config, steps, split);
        assert_eq!(replaced, in_parts);
        for ((name, expected), (_, found)) in whole.iter().zip(&parts) {
            assert_eq!(expected, found, "{name} with {} parts", split.len());
        }
    }
    replaced
}

#[test]
fn first_codes_and_replaced_codes_do_not_depend_on_the_split() {
    for init in [CodebookInit::Data, CodebookInit::Kmeans, CodebookInit::Uniform] {
        for with in [ReplaceWith::Samples, ReplaceWith::Split, ReplaceWith::Anchors] {
            let config = QuantizerConfig::Vector(vector(init, with));
            let replaced = assert_the_same_for_every_split(&config, 3);
            // Anchors count a code only while nothing has taken it.
            assert!(replaced >= 1.0 || with == ReplaceWith::Anchors, "{init:?}, {with:?}");
        }
    }
}

/// Level i starts from residuals of the levels before it; those are exact too, up to the first
/// update.
#[test]
fn levels_of_a_residual_quantizer_do_not_depend_on_the_split() {
    for shared_codebook in [false, true] {
        let part = vector(CodebookInit::Data, ReplaceWith::Samples);
        let config = QuantizerConfig::Residual(ResidualConfig {
            num_quantizers: 3,
            shared_codebook,
            quantizer: Box::new(QuantizerConfig::Vector(part)),
            ..ResidualConfig::default()
        });
        assert!(assert_the_same_for_every_split(&config, 1) >= 1.0);
    }
}
