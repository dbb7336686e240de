//! Lookup-free quantisation: each channel is rounded to its sign, and the code is the bits.
//!
//! Follows Yu et al. 2023 (<https://arxiv.org/abs/2310.05737>), section 3.1. Two entropies train
//! it, of the softmax over all corners of the cube by their products with a latent: that of each
//! token should be low, that of the mean over the batch high.
//!
//! The softmax factorises over bits, p(bit j = 1) = sigmoid(4 z_j / t), so the entropy of a token
//! is a sum over bits, exact and O(N D). The mean does not factorise: it is taken over groups of
//! bits, whose corners can be listed. Its entropy is that of the *global* mean: ranks sum
//! [`LookupFreeQuantizer::probability_sums`], and [`LookupFreeQuantizer::batch_gradient`] turns
//! the mean into a gradient, with -(log p + 1) held constant, which is the gradient of the whole
//! batch. (A mean over ranks of each rank's own entropy is another loss.)
//!
//! Shape letters: `n` tokens, `d` bits, `g` groups, `b` bits of a group, `c` corners of a group.

use tch::{Device, Kind, Tensor};

/// Most numbers in a tile of probabilities, tokens times corners.
const TILE: i64 = 1 << 20;
/// Most bits in a group: 1024 corners.
const MAX_GROUP_BITS: i64 = 10;

/// Lookup-free quantiser with codes of D bits.
#[derive(Debug)]
pub struct LookupFreeQuantizer {
    num_bits: i64,
    group_bits: i64,
    /// 4 / t: what turns a latent into the logit of its bit.
    slope: f64,
    /// The bits of each corner, `[C, B]`, the first channel the most significant.
    corners_cb: Tensor,
    /// Weight of a bit in the index, `[D]`.
    weights_d: Tensor,
}

impl LookupFreeQuantizer {
    /// Codes of `num_bits` bits; entropies of the mean over groups of `group_bits` of them, at
    /// the given temperature.
    ///
    /// # Errors
    ///
    /// One line that says what the numbers may be.
    pub fn new(
        num_bits: i64,
        group_bits: i64,
        temperature: f64,
        kind: Kind,
        device: Device,
    ) -> Result<Self, String> {
        if !(1..=31).contains(&num_bits) {
            return Err(format!("num_bits should be from 1 to 31, found {num_bits}"));
        }
        if !(1..=MAX_GROUP_BITS).contains(&group_bits) || num_bits % group_bits != 0 {
            return Err(format!(
                "group_bits should be from 1 to {MAX_GROUP_BITS} and divide num_bits \
                 ({num_bits}), found {group_bits}"
            ));
        }
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(format!("temperature should be above 0, found {temperature}"));
        }
        let weights = |bits: i64| -> Vec<i64> { (0..bits).rev().map(|bit| 1 << bit).collect() };
        let corners_c = Tensor::arange(1 << group_bits, (Kind::Int64, device));
        let weights_b = Tensor::from_slice(&weights(group_bits)).to(device);
        let corners_cb = corners_c
            .unsqueeze(1)
            .divide_tensor_mode(&weights_b, "floor")
            .remainder(2)
            .to_kind(kind);
        Ok(Self {
            num_bits,
            group_bits,
            slope: 4.0 / temperature,
            corners_cb,
            weights_d: Tensor::from_slice(&weights(num_bits)).to(device),
        })
    }

    /// K, two to the number of bits.
    pub fn num_codes(&self) -> i64 {
        1 << self.num_bits
    }

    /// The codes of the latents, -1 or 1, `[N, D]`, and their indices, `[N]` int64. A zero is -1.
    pub fn quantize(&self, latents_nd: &Tensor) -> (Tensor, Tensor) {
        let bits_nd = latents_nd.gt(0.0);
        let indices_n = (bits_nd.to_kind(Kind::Int64) * &self.weights_d).sum_dim_intlist(
            [1i64].as_slice(),
            false,
            Kind::Int64,
        );
        (bits_nd.to_kind(latents_nd.kind()) * 2.0 - 1.0, indices_n)
    }

    /// The codes of these indices: `[N]` int64 to `[N, D]`.
    pub fn look_up(&self, indices_n: &Tensor) -> Tensor {
        let bits_nd =
            indices_n.unsqueeze(1).divide_tensor_mode(&self.weights_d, "floor").remainder(2);
        bits_nd.to_kind(self.corners_cb.kind()) * 2.0 - 1.0
    }

    /// The entropy of each token's distribution over codes, in nats, summed over tokens.
    pub fn token_entropy(&self, latents_nd: &Tensor) -> Tensor {
        let logits_nd = latents_nd * self.slope;
        // h(sigmoid(x)) = log(1 + e^x) - x sigmoid(x), and the same for -x.
        (logits_nd.softplus() - &logits_nd * logits_nd.sigmoid()).sum(latents_nd.kind())
    }

    /// The gradient of [`Self::token_entropy`] at the latents, `[N, D]`.
    pub fn token_gradient(&self, latents_nd: &Tensor) -> Tensor {
        let logits_nd = latents_nd * self.slope;
        let ones_nd = logits_nd.sigmoid();
        let spread_nd = &ones_nd * (1.0 - &ones_nd);
        logits_nd * spread_nd * -self.slope
    }

    /// The probabilities of the corners of each group, summed over tokens, `[G, C]`: divided by
    /// the global number of tokens after the sum over ranks, the mean.
    pub fn probability_sums(&self, latents_nd: &Tensor) -> Tensor {
        let num_groups = self.num_bits / self.group_bits;
        let size = [num_groups, 1 << self.group_bits];
        let sums_gc = Tensor::zeros(size, (self.corners_cb.kind(), self.corners_cb.device()));
        self.for_each_tile(latents_nd, |group, _, logits_nb| {
            let sums_c = self.probabilities(logits_nb).sum_dim_intlist(
                [0i64].as_slice(),
                false,
                self.corners_cb.kind(),
            );
            let mut place_c = sums_gc.get(group);
            place_c += sums_c;
        });
        sums_gc
    }

    /// The entropy of the mean distribution `[G, C]`, in nats, summed over groups.
    pub fn batch_entropy(mean_gc: &Tensor) -> Tensor {
        -(mean_gc * log(mean_gc)).sum(mean_gc.kind())
    }

    /// The gradient of [`Self::batch_entropy`] at the latents, `[N, D]`, times the global number
    /// of tokens.
    pub fn batch_gradient(&self, latents_nd: &Tensor, mean_gc: &Tensor) -> Tensor {
        let gradient_nd = latents_nd.zeros_like();
        let weights_gc = -(log(mean_gc) + 1.0);
        self.for_each_tile(latents_nd, |group, start, logits_nb| {
            let weighted_nc = self.probabilities(logits_nb) * weights_gc.get(group);
            let total_n1 = weighted_nc.sum_dim_intlist([1i64].as_slice(), true, weighted_nc.kind());
            let with_bit_nb = weighted_nc.matmul(&self.corners_cb);
            let part_nb = (with_bit_nb - logits_nb.sigmoid() * total_n1) * self.slope;
            gradient_nd
                .narrow(0, start, logits_nb.size()[0])
                .narrow(1, group * self.group_bits, self.group_bits)
                .copy_(&part_nb);
        });
        gradient_nd
    }

    /// Probability of each corner, `[N, C]`, from the logits of a group's bits, `[N, B]`.
    fn probabilities(&self, logits_nb: &Tensor) -> Tensor {
        let corners_bc = self.corners_cb.tr();
        let set_nc = logits_nb.log_sigmoid().matmul(&corners_bc);
        let unset_nc = (-logits_nb).log_sigmoid().matmul(&(1.0 - corners_bc));
        (set_nc + unset_nc).exp()
    }

    /// Calls `tile(group, first token, logits [N', B])` for parts of the tokens.
    fn for_each_tile(&self, latents_nd: &Tensor, mut tile: impl FnMut(i64, i64, &Tensor)) {
        let (num_tokens, dim) = latents_nd.size2().expect("latents are [N, D]");
        assert_eq!(dim, self.num_bits, "a channel a bit");
        let rows = (TILE >> self.group_bits).max(1);
        for group in 0..self.num_bits / self.group_bits {
            let logits_nb =
                latents_nd.narrow(1, group * self.group_bits, self.group_bits) * self.slope;
            for start in (0..num_tokens).step_by(rows as usize) {
                tile(group, start, &logits_nb.narrow(0, start, rows.min(num_tokens - start)));
            }
        }
    }
}

/// Logarithm with 0 log 0 = 0 in mind: a probability of zero has a large finite one.
fn log(probabilities: &Tensor) -> Tensor {
    probabilities.clamp_min(1e-30).log()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    /// What vector-quantize-pytorch answers; `tests/fixtures/lfq.py` makes it.
    #[derive(Deserialize)]
    struct Fixture {
        bits: i64,
        inverse_temperature: f64,
        codes: Vec<f64>,
        indices: Vec<i64>,
        token_entropy: f64,
        token_gradient: Vec<f64>,
        batch_entropy: f64,
        batch_gradient: Vec<f64>,
    }

    fn latents(rows: i64, dim: i64) -> Tensor {
        let value = |at: i64| {
            let (i, j) = ((at / dim) as f64, (at % dim) as f64);
            0.5 * (1.3 * i + 2.1 * j + 0.2).sin()
        };
        let values: Vec<f64> = (0..rows * dim).map(value).collect();
        Tensor::from_slice(&values).view([rows, dim])
    }

    fn quantizer(num_bits: i64, group_bits: i64) -> LookupFreeQuantizer {
        LookupFreeQuantizer::new(num_bits, group_bits, 1.0, Kind::Double, Device::Cpu).unwrap()
    }

    fn assert_near(found: &Tensor, expected: &Tensor) {
        let off = (found.flatten(0, -1) - expected.flatten(0, -1)).abs().max().double_value(&[]);
        assert!(off < 1e-9, "{off}: {found} {expected}");
    }

    #[test]
    fn codes_entropies_and_gradients_are_those_of_the_library() {
        let fixture: Fixture =
            serde_json::from_str(include_str!("../../tests/fixtures/lfq.json")).unwrap();
        assert_eq!(fixture.inverse_temperature, 1.0);
        let (rows, bits) = (fixture.indices.len() as i64, fixture.bits);
        let (quantizer, latents_nd) = (quantizer(bits, bits), latents(rows, bits));
        let (codes_nd, indices_n) = quantizer.quantize(&latents_nd);
        assert_near(&codes_nd, &Tensor::from_slice(&fixture.codes));
        assert_eq!(Vec::<i64>::try_from(&indices_n).unwrap(), fixture.indices);
        // The library's are means over tokens.
        let mean = |sum: Tensor| sum / rows as f64;
        let scalar = |value: f64| Tensor::from_slice(&[value]);
        assert_near(&mean(quantizer.token_entropy(&latents_nd)), &scalar(fixture.token_entropy));
        let expected = Tensor::from_slice(&fixture.token_gradient);
        assert_near(&mean(quantizer.token_gradient(&latents_nd)), &expected);
        let mean_gc = mean(quantizer.probability_sums(&latents_nd));
        let entropy = LookupFreeQuantizer::batch_entropy(&mean_gc);
        assert_near(&entropy, &scalar(fixture.batch_entropy));
        let expected = Tensor::from_slice(&fixture.batch_gradient);
        assert_near(&mean(quantizer.batch_gradient(&latents_nd, &mean_gc)), &expected);
    }

    /// The sum over ranks of parts is that of the whole, and with the global mean each part gets
    /// the whole batch's gradient; with its own mean it would get another.
    #[test]
    fn parts_of_a_batch_have_its_gradient_at_the_global_mean() {
        let (quantizer, whole_nd) = (quantizer(6, 3), latents(40, 6));
        let mean_gc = quantizer.probability_sums(&whole_nd) / 40.0;
        let expected_nd = quantizer.batch_gradient(&whole_nd, &mean_gc);
        let (first, rest) = (whole_nd.narrow(0, 0, 13), whole_nd.narrow(0, 13, 27));
        let none = whole_nd.narrow(0, 0, 0);
        let summed_gc = quantizer.probability_sums(&first)
            + quantizer.probability_sums(&rest)
            + quantizer.probability_sums(&none);
        assert_near(&(summed_gc / 40.0), &mean_gc);
        let parts = [&first, &rest, &none].map(|part| quantizer.batch_gradient(part, &mean_gc));
        assert_near(&Tensor::cat(&parts, 0), &expected_nd);
        let own_gc = quantizer.probability_sums(&first) / 13.0;
        let off = (quantizer.batch_gradient(&first, &own_gc) - expected_nd.narrow(0, 0, 13)).abs();
        assert!(off.max().double_value(&[]) > 1e-3);
    }

    /// Against autograd through the definition, in two groups.
    #[test]
    fn the_gradients_are_those_of_the_entropies() {
        let quantizer = quantizer(6, 3);
        let leaf_nd = latents(9, 6).set_requires_grad(true);
        quantizer.token_entropy(&leaf_nd).backward();
        assert_near(&quantizer.token_gradient(&latents(9, 6)), &leaf_nd.grad());
        let leaf_nd = latents(9, 6).set_requires_grad(true);
        let mean_gc = quantizer.probability_sums(&leaf_nd) / 9.0;
        LookupFreeQuantizer::batch_entropy(&mean_gc).backward();
        let found_nd = quantizer.batch_gradient(&latents(9, 6), &mean_gc.detach()) / 9.0;
        assert_near(&found_nd, &leaf_nd.grad());
    }

    #[test]
    fn every_index_has_a_code_that_has_this_index() {
        let quantizer = quantizer(6, 2);
        let all = Tensor::arange(quantizer.num_codes(), (Kind::Int64, Device::Cpu));
        let (codes_kd, indices_k) = quantizer.quantize(&quantizer.look_up(&all));
        assert_eq!(indices_k, all);
        assert_eq!(codes_kd.abs().min().double_value(&[]), 1.0);
    }

    /// Far from the origin nothing overflows: a token is certain, and its gradient is zero.
    #[test]
    fn certain_tokens_have_no_entropy() {
        let quantizer = quantizer(4, 4);
        let far_nd = Tensor::full([3, 4], 1e4, (Kind::Double, Device::Cpu));
        assert_eq!(quantizer.token_entropy(&far_nd).double_value(&[]), 0.0);
        assert_eq!(quantizer.token_gradient(&far_nd).abs().max().double_value(&[]), 0.0);
        let sums_gc = quantizer.probability_sums(&far_nd);
        assert_eq!(sums_gc.double_value(&[0, 15]), 3.0);
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        let refusal = |bits, group, temperature| {
            LookupFreeQuantizer::new(bits, group, temperature, Kind::Float, Device::Cpu)
                .unwrap_err()
        };
        assert!(refusal(0, 1, 1.0).starts_with("num_bits should be"));
        assert!(refusal(8, 3, 1.0).starts_with("group_bits should be"));
        assert!(refusal(22, 11, 1.0).starts_with("group_bits should be"));
        assert!(refusal(8, 4, 0.0).starts_with("temperature should be"));
    }
}
