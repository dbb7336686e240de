//! Finite scalar quantisation: each channel is bounded and rounded to a few levels, and the code
//! is the combination of them.
//!
//! Follows Mentzer et al. 2023 (<https://arxiv.org/abs/2309.15505>), appendix A.1. There is no
//! codebook to learn, so there are no statistics, no commitment and no dead codes of its own.
//! A channel of two levels is the sign, as in section 3.2 of Parker et al. 2024
//! (<https://arxiv.org/abs/2411.19842>): the paper's bound, which shifts an even number of levels
//! by atanh(0.5 / h), maps nearly everything to one of two. Levels symmetric around zero, from the
//! same section, are the alternative. Computed in the kind of the latents, which must be float32
//! or float64: in bfloat16 codes are lost.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::validate::MAX_CODES;
use super::{FiniteScalarConfig, Lens, Path, Place, Quantized, Quantizer, Slot, Sums};
use crate::graph::{Each, Rule, Step};
use crate::parameters::Parameters;

/// How far the shifted bound reaches beyond the outermost levels.
const MARGIN: f64 = 1e-3;

/// How a channel is bounded before it is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// By tanh, shifted for an even number of levels: Mentzer et al., appendix A.1.
    Shifted,
    /// By tanh, to levels that lie symmetrically around zero: Parker et al., section 3.2.
    Symmetric,
    /// To [-1, 1], for the levels of a residual quantiser, which bounds its input itself.
    #[serde(skip)]
    Clamped,
}

/// Finite scalar quantiser. Vectors have a channel for each entry of `levels`.
#[derive(Debug)]
pub struct FiniteScalarQuantizer {
    levels: Vec<i64>,
    bound: Bound,
    levels_d: Tensor,
    /// Half the reach of the shifted bound, h.
    half_d: Tensor,
    /// 0.5 for an even number of levels, so that rounding gives that many.
    offset_d: Tensor,
    shift_d: Tensor,
    /// What turns a level's number, counted from the middle or from zero, into its code.
    half_width_d: Tensor,
    /// Size of the outermost codes by channel: 1, or less inside a residual quantiser.
    scale_d: Tensor,
    /// Weight of a channel's digit in the index.
    basis_d: Tensor,
    is_sign_d: Tensor,
}

/// Codes and indices of latents.
#[derive(Debug)]
pub struct FiniteScalarCodes {
    /// `[N, D]`, in [-1, 1].
    pub codes_nd: Tensor,
    /// `[N]` int64, in 0..K.
    pub indices_n: Tensor,
}

/// What is wrong with numbers of levels, if anything.
pub(super) fn check_levels(levels: &[i64]) -> Result<(), String> {
    let fits = levels.iter().all(|level| (2..=65_536).contains(level));
    let product = levels.iter().try_fold(1i64, |product, &level| product.checked_mul(level));
    if levels.is_empty() || !fits || product.is_none_or(|product| product > MAX_CODES) {
        return Err(format!(
            "levels should be one or more numbers from 2 to 65536 with a product of at most \
             {MAX_CODES}, found {levels:?}"
        ));
    }
    Ok(())
}

impl FiniteScalarQuantizer {
    /// A quantiser with so many levels in each channel.
    ///
    /// # Errors
    ///
    /// One line that says what `levels` may be: at least one entry, each from 2 to 65,536, and a
    /// product of at most 2^20.
    pub fn new(levels: &[i64], bound: Bound, kind: Kind, device: Device) -> Result<Self, String> {
        check_levels(levels)?;
        let tensor = |of: &dyn Fn(f64) -> f64| {
            let values: Vec<f64> = levels.iter().map(|&level| of(level as f64)).collect();
            Tensor::from_slice(&values).to_kind(kind).to(device)
        };
        let half = |level: f64| (level - 1.0) * (1.0 + MARGIN) / 2.0;
        let offset = |level: f64| if level % 2.0 == 0.0 { 0.5 } else { 0.0 };
        let mut basis = vec![1i64];
        basis.extend(levels.iter().scan(1, |product, &level| {
            *product *= level;
            Some(*product)
        }));
        basis.truncate(levels.len());
        let half_width: &dyn Fn(f64) -> f64 = match bound {
            Bound::Shifted => &|level| (level / 2.0).floor(),
            Bound::Symmetric | Bound::Clamped => &|level| (level - 1.0) / 2.0,
        };
        Ok(Self {
            bound,
            half_d: tensor(&half),
            offset_d: tensor(&offset),
            shift_d: tensor(&|level| (offset(level) / half(level)).atanh()),
            half_width_d: tensor(half_width),
            scale_d: tensor(&|_| 1.0),
            basis_d: Tensor::from_slice(&basis).to(device),
            is_sign_d: tensor(&|level| f64::from(u8::from(level == 2.0))).to_kind(Kind::Bool),
            levels: levels.to_vec(),
            levels_d: Tensor::from_slice(levels).to(device),
        })
    }

    /// The quantiser of a configuration.
    pub(super) fn of(config: &FiniteScalarConfig, slot: &Slot) -> Self {
        Self::new(&config.levels, config.bound, slot.kind, slot.device)
            .expect("levels are validated with the configuration")
    }

    /// Level `level` of a residual quantiser: codes of L^-level times the size.
    pub(super) fn of_residual(config: &FiniteScalarConfig, level: i64, slot: &Slot) -> Self {
        let mut this = Self::new(&config.levels, Bound::Clamped, slot.kind, slot.device)
            .expect("levels are validated with the configuration");
        // Deep levels of a float32 would be of size zero, and nothing can be divided by that.
        let least = f64::from(f32::MIN_POSITIVE);
        this.scale_d = this.levels_d.to_kind(slot.kind).pow_tensor_scalar(-level).clamp_min(least);
        this
    }

    /// Where a residual quantiser bounds its input, L / (L - 1) by channel.
    pub(super) fn reach(&self) -> Tensor {
        let levels_d = self.levels_d.to_kind(self.half_d.kind());
        &levels_d / (&levels_d - 1.0)
    }

    /// K, the product of the levels.
    pub fn num_codes(&self) -> i64 {
        self.levels.iter().product()
    }

    /// D, channels of a vector.
    pub fn dim(&self) -> i64 {
        self.levels.len() as i64
    }

    /// The code of each latent, `[N, D]`, and its index; without graph. A channel that is NaN has
    /// NaN for a code, and counts as its lowest level in the index.
    pub fn quantize(&self, latents_nd: &Tensor) -> FiniteScalarCodes {
        let latents_nd = latents_nd.detach() / &self.scale_d;
        let units_nd = match self.bound {
            Bound::Shifted => {
                let bounded_nd =
                    (&latents_nd + &self.shift_d).tanh() * &self.half_d - &self.offset_d;
                let rounded_nd = bounded_nd.round() / &self.half_width_d;
                let sign_nd = latents_nd.ge(0.0).to_kind(latents_nd.kind()) * 2.0 - 1.0;
                let is_sign_nd = self.is_sign_d.logical_and(&latents_nd.isnan().logical_not());
                sign_nd.where_self(&is_sign_nd, &rounded_nd)
            }
            Bound::Symmetric => self.symmetric(&latents_nd.tanh()),
            Bound::Clamped => self.symmetric(&latents_nd.clamp(-1.0, 1.0)),
        };
        let indices_n = self.indices_of(&units_nd);
        FiniteScalarCodes { codes_nd: units_nd * &self.scale_d, indices_n }
    }

    /// The nearest of the symmetric levels to values in [-1, 1].
    fn symmetric(&self, bounded_nd: &Tensor) -> Tensor {
        ((bounded_nd + 1.0) * &self.half_width_d + 0.5).floor() / &self.half_width_d - 1.0
    }

    /// Rounding passes the gradient unchanged, the bound by its derivative: what has that gradient.
    fn path(&self, latents_nd: &Tensor) -> Tensor {
        match self.bound {
            Bound::Shifted => {
                let rounded_nd =
                    (latents_nd + &self.shift_d).tanh() * (&self.half_d / &self.half_width_d);
                latents_nd.tanh().where_self(&self.is_sign_d, &rounded_nd)
            }
            Bound::Symmetric => latents_nd.tanh(),
            Bound::Clamped => (latents_nd / &self.scale_d).clamp(-1.0, 1.0) * &self.scale_d,
        }
    }

    /// The codes of these indices: `[N]` int64 to `[N, D]`.
    fn codes_of(&self, indices_n: &Tensor) -> Tensor {
        let digits_nd = indices_n
            .unsqueeze(1)
            .divide_tensor_mode(&self.basis_d, "floor")
            .remainder_tensor(&self.levels_d)
            .to_kind(self.half_d.kind());
        let rounded_nd = (&digits_nd - &self.half_width_d) / &self.half_width_d;
        (digits_nd * 2.0 - 1.0).where_self(&self.is_sign_d, &rounded_nd) * &self.scale_d
    }

    fn indices_of(&self, units_nd: &Tensor) -> Tensor {
        let rounded_nd = units_nd * &self.half_width_d + &self.half_width_d;
        let digits_nd = ((units_nd + 1.0) / 2.0).where_self(&self.is_sign_d, &rounded_nd);
        // NaN is no whole number; what it became would be an index that no code has.
        let digits_nd = digits_nd.round().nan_to_num(0.0, None, None).to_kind(Kind::Int64);
        (digits_nd * &self.basis_d).sum_dim_intlist([1i64].as_slice(), false, Kind::Int64)
    }
}

impl Quantizer for FiniteScalarQuantizer {
    fn dim(&self) -> i64 {
        FiniteScalarQuantizer::dim(self)
    }

    fn num_codes(&self) -> Vec<i64> {
        vec![FiniteScalarQuantizer::num_codes(self)]
    }

    fn lens(&self) -> Lens {
        Lens { counts: FiniteScalarQuantizer::num_codes(self), ..Lens::default() }
    }

    fn tokenize(&self, _: &Parameters, latents_nd: &Tensor) -> Tensor {
        self.quantize(latents_nd).indices_n.unsqueeze(1)
    }

    fn look_up(&self, _: &Parameters, indices_nl: &Tensor) -> Tensor {
        self.codes_of(&indices_nl.select(1, 0))
    }

    fn rule(&self, _: &Parameters) -> Result<Rule, String> {
        let all_k = Tensor::arange(
            FiniteScalarQuantizer::num_codes(self),
            (Kind::Int64, self.basis_d.device()),
        );
        let (ones, zeros) = (self.half_d.ones_like(), self.half_d.zeros_like());
        let plus = |shift: Tensor| Step::Affine(ones.shallow_clone(), shift);
        let symmetric = |bound| {
            vec![
                plus(zeros.shallow_clone()),
                Step::Each(bound),
                Step::Affine(self.half_width_d.shallow_clone(), &self.half_width_d + 0.5),
                Step::Each(Each::Floor),
            ]
        };
        let mut is_sign_d = zeros.shallow_clone();
        let mut steps = match self.bound {
            Bound::Shifted => {
                is_sign_d = self.is_sign_d.to_kind(zeros.kind());
                vec![
                    plus(self.shift_d.shallow_clone()),
                    Step::Each(Each::Tanh),
                    Step::Affine(self.half_d.shallow_clone(), -&self.offset_d),
                    Step::Each(Each::Round),
                    plus(self.half_width_d.shallow_clone()),
                ]
            }
            Bound::Symmetric => symmetric(Each::Tanh),
            Bound::Clamped => symmetric(Each::Clamp(-1.0, 1.0)),
        };
        if let Step::Affine(scale_d, _) = &mut steps[0] {
            *scale_d = self.scale_d.reciprocal();
        }
        let (basis_d, codes_kd) = (self.basis_d.to_kind(zeros.kind()), self.codes_of(&all_k));
        Ok(Rule::Levels { steps, is_sign_d, basis_d, codes_kd })
    }

    fn forward(
        &self,
        _: &Parameters,
        latents_nd: &Tensor,
        _: &Place,
        sums: &Sums,
    ) -> Quantized<'_> {
        let FiniteScalarCodes { codes_nd, indices_n } = self.quantize(latents_nd);
        sums.count(&indices_n);
        Quantized {
            output_nd: codes_nd,
            path: Path::Graph(self.path(latents_nd)),
            indices_nl: indices_n.unsqueeze(1),
            loss: Tensor::zeros([], (latents_nd.kind(), latents_nd.device())),
            late: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    /// What vector-quantize-pytorch answers; `tests/fixtures/fsq.py` makes it.
    #[derive(Deserialize)]
    struct Case {
        levels: Vec<i64>,
        codes: Vec<f64>,
        indices: Vec<i64>,
        gradient: Vec<f64>,
    }

    fn cases() -> Vec<Case> {
        serde_json::from_str(include_str!("../../tests/fixtures/fsq.json")).unwrap()
    }

    fn quantizer(levels: &[i64]) -> FiniteScalarQuantizer {
        FiniteScalarQuantizer::new(levels, Bound::Shifted, Kind::Double, Device::Cpu).unwrap()
    }

    fn matrix(rows: usize, dim: usize, value: impl Fn(f64, f64) -> f64) -> Tensor {
        let values: Vec<f64> =
            (0..rows * dim).map(|at| value((at / dim) as f64, (at % dim) as f64)).collect();
        Tensor::from_slice(&values).view([rows as i64, dim as i64])
    }

    /// The library keeps h and the shift in float32, so its float64 has 7 digits.
    fn assert_near(found: &Tensor, expected: &[f64]) {
        let off = (found.flatten(0, -1) - Tensor::from_slice(expected)).abs().max();
        assert!(off.double_value(&[]) < 1e-6, "{off} {found} {expected:?}");
    }

    #[test]
    fn codes_indices_and_gradients_are_those_of_the_library() {
        for Case { levels, codes, indices, gradient } in cases() {
            let quantizer = quantizer(&levels);
            let (rows, dim) = (indices.len(), levels.len());
            let latents_nd = matrix(rows, dim, |i, j| 2.5 * (1.3 * i + 2.1 * j + 0.2).sin());
            let gradient_nd = matrix(rows, dim, |i, j| (0.7 * i - 1.1 * j).cos());
            let found = quantizer.quantize(&latents_nd);
            assert_near(&found.codes_nd, &codes);
            assert_eq!(Vec::<i64>::try_from(&found.indices_n).unwrap(), indices, "{levels:?}");
            let latents_nd = latents_nd.set_requires_grad(true);
            let root = (quantizer.path(&latents_nd) * gradient_nd).sum(Kind::Double);
            let back = Tensor::run_backward(&[root], &[&latents_nd], false, false);
            assert_near(&back[0], &gradient);
        }
    }

    #[test]
    fn every_index_has_a_code_that_has_this_index() {
        for levels in [&[2, 3, 4][..], &[8, 5, 5, 5], &[2, 2], &[7]] {
            let quantizer = quantizer(levels);
            let all = Tensor::arange(quantizer.num_codes(), (Kind::Int64, Device::Cpu));
            let codes_kd = quantizer.codes_of(&all);
            assert_eq!(codes_kd.size(), [quantizer.num_codes(), quantizer.dim()]);
            assert_eq!(quantizer.indices_of(&codes_kd), all, "{levels:?}");
            assert_eq!(codes_kd.abs().max().double_value(&[]), 1.0);
        }
    }

    /// The bound is 0.1 % wider than the outermost levels, so that rounding comes to them.
    #[test]
    fn the_outermost_levels_are_reached() {
        let quantizer = quantizer(&[5, 4, 2]);
        let far_nd = Tensor::from_slice(&[9.0, 9.0, 9.0, -9.0, -9.0, -9.0]).view([2, 3]);
        let codes_nd = quantizer.quantize(&far_nd).codes_nd;
        // Four levels are -2, -1, 0, 1 over 2.
        assert_near(&codes_nd, &[1.0, 0.5, 1.0, -1.0, -1.0, -1.0]);
        let last = quantizer.quantize(&far_nd).indices_n.int64_value(&[0]);
        assert_eq!(last, quantizer.num_codes() - 1);
    }

    #[test]
    fn an_empty_part_of_a_batch_has_no_codes() {
        let found =
            quantizer(&[3, 3]).quantize(&Tensor::zeros([0, 2], (Kind::Double, Device::Cpu)));
        assert_eq!((found.codes_nd.size(), found.indices_n.size()), (vec![0, 2], vec![0]));
    }

    #[test]
    fn levels_that_cannot_be_are_refused() {
        for levels in [&[][..], &[1, 4], &[65_537], &[1024, 1025]] {
            let refused =
                FiniteScalarQuantizer::new(levels, Bound::Shifted, Kind::Float, Device::Cpu);
            assert!(refused.unwrap_err().starts_with("levels should be"), "{levels:?}");
        }
    }
}
