//! Finite scalar quantisation: each channel is bounded and rounded to a few levels, and the code
//! is the combination of them.
//!
//! Follows Mentzer et al. 2023 (<https://arxiv.org/abs/2309.15505>), appendix A.1. There is no
//! codebook to learn, so there are no statistics, no commitment and no dead codes of its own.
//! A channel of two levels is the sign, as in section 3.2 of <https://arxiv.org/abs/2411.19842>:
//! the paper's bound, which shifts an even number of levels by atanh(0.5 / h), maps nearly
//! everything to one of two. Computed in the kind of the latents, which must be float32 or
//! float64: in bfloat16 codes are lost.

use tch::{Device, Kind, Tensor};

/// How far the bound reaches beyond the outermost levels.
const MARGIN: f64 = 1e-3;

/// Finite scalar quantiser. Vectors have a channel for each entry of `levels`.
#[derive(Debug)]
pub struct FiniteScalarQuantizer {
    levels: Vec<i64>,
    levels_d: Tensor,
    /// Half the reach of the bound, h.
    half_d: Tensor,
    /// 0.5 for an even number of levels, so that rounding gives that many.
    offset_d: Tensor,
    shift_d: Tensor,
    /// Levels from the middle to the edge: rounded values over it are codes, in [-1, 1].
    half_width_d: Tensor,
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

impl FiniteScalarQuantizer {
    /// A quantiser with so many levels in each channel.
    ///
    /// # Errors
    ///
    /// One line that says what `levels` may be: at least one entry, each from 2 to 65,536, and a
    /// product of at most 2^31.
    pub fn new(levels: &[i64], kind: Kind, device: Device) -> Result<Self, String> {
        let fits = levels.iter().all(|level| (2..=65_536).contains(level));
        let product = levels.iter().try_fold(1i64, |product, &level| product.checked_mul(level));
        if levels.is_empty() || !fits || product.is_none_or(|product| product > 1 << 31) {
            return Err(format!(
                "levels should be one or more numbers from 2 to 65536 with a product of at most \
                 2^31, found {levels:?}"
            ));
        }
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
        Ok(Self {
            half_d: tensor(&half),
            offset_d: tensor(&offset),
            shift_d: tensor(&|level| (offset(level) / half(level)).atanh()),
            half_width_d: tensor(&|level| (level / 2.0).floor()),
            basis_d: Tensor::from_slice(&basis).to(device),
            is_sign_d: tensor(&|level| f64::from(u8::from(level == 2.0))).to_kind(Kind::Bool),
            levels: levels.to_vec(),
            levels_d: Tensor::from_slice(levels).to(device),
        })
    }

    /// K, the product of the levels.
    pub fn num_codes(&self) -> i64 {
        self.levels.iter().product()
    }

    /// D, channels of a vector.
    pub fn dim(&self) -> i64 {
        self.levels.len() as i64
    }

    /// The code of each latent, `[N, D]`, and its index.
    pub fn quantize(&self, latents_nd: &Tensor) -> FiniteScalarCodes {
        let bounded_nd = (latents_nd + &self.shift_d).tanh() * &self.half_d - &self.offset_d;
        let rounded_nd = bounded_nd.round() / &self.half_width_d;
        let sign_nd = latents_nd.ge(0.0).to_kind(latents_nd.kind()) * 2.0 - 1.0;
        let codes_nd = sign_nd.where_self(&self.is_sign_d, &rounded_nd);
        let indices_n = self.indices_of(&codes_nd);
        FiniteScalarCodes { codes_nd, indices_n }
    }

    /// The gradient at the latents, `[N, D]`, from that at their codes: rounding passes it
    /// unchanged, the bound by its derivative.
    pub fn to_latents(&self, latents_nd: &Tensor, gradient_nd: &Tensor) -> Tensor {
        let slope = |at_nd: &Tensor| -> Tensor { 1.0 - at_nd.tanh().square() };
        let rounded_nd = slope(&(latents_nd + &self.shift_d)) * (&self.half_d / &self.half_width_d);
        gradient_nd * slope(latents_nd).where_self(&self.is_sign_d, &rounded_nd)
    }

    /// The codes of these indices: `[N]` int64 to `[N, D]`.
    pub fn look_up(&self, indices_n: &Tensor) -> Tensor {
        let digits_nd = indices_n
            .unsqueeze(1)
            .divide_tensor_mode(&self.basis_d, "floor")
            .remainder_tensor(&self.levels_d)
            .to_kind(self.half_d.kind());
        let rounded_nd = (&digits_nd - &self.half_width_d) / &self.half_width_d;
        (digits_nd * 2.0 - 1.0).where_self(&self.is_sign_d, &rounded_nd)
    }

    fn indices_of(&self, codes_nd: &Tensor) -> Tensor {
        let rounded_nd = codes_nd * &self.half_width_d + &self.half_width_d;
        let digits_nd = ((codes_nd + 1.0) / 2.0).where_self(&self.is_sign_d, &rounded_nd);
        let digits_nd = digits_nd.round().to_kind(Kind::Int64);
        (digits_nd * &self.basis_d).sum_dim_intlist([1i64].as_slice(), false, Kind::Int64)
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
        FiniteScalarQuantizer::new(levels, Kind::Double, Device::Cpu).unwrap()
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
            assert_near(&quantizer.to_latents(&latents_nd, &gradient_nd), &gradient);
        }
    }

    #[test]
    fn every_index_has_a_code_that_has_this_index() {
        for levels in [&[2, 3, 4][..], &[8, 5, 5, 5], &[2, 2], &[7]] {
            let quantizer = quantizer(levels);
            let all = Tensor::arange(quantizer.num_codes(), (Kind::Int64, Device::Cpu));
            let codes_kd = quantizer.look_up(&all);
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
        for levels in [&[][..], &[1, 4], &[65_537], &[65_536, 65_536]] {
            let refused = FiniteScalarQuantizer::new(levels, Kind::Float, Device::Cpu);
            assert!(refused.unwrap_err().starts_with("levels should be"), "{levels:?}");
        }
    }
}
