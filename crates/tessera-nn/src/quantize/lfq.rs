//! Lookup-free quantisation: each channel is rounded to its sign, and the code is the bits.
//!
//! Follows Yu et al. 2023 (<https://arxiv.org/abs/2310.05737>), section 3.1, and for latents on the
//! unit sphere Zhao et al. 2024, BSQ (<https://arxiv.org/abs/2406.07548>). Two entropies train it,
//! of the softmax over all corners, with s the size of a corner's channels, by their products with
//! a latent: that of each token should be low, that of the mean over the batch high.
//!
//! The softmax factorises over bits, p(bit j = 1) = sigmoid(4 s z_j / t), so the entropy of a
//! token is a sum over bits, exact and O(N D). The mean does not factorise: it is taken over groups
//! of bits, whose corners can be listed. Its entropy is that of the *global* mean: ranks sum
//! probabilities, and the gradient is that of <c, sum of p> / N with c = -log(mean p) held
//! constant, which is the gradient of the whole batch. (A mean over ranks of each rank's own
//! entropy is another loss.)
//!
//! Shape letters: `n` tokens, `d` bits, `g` groups, `b` bits of a group, `c` corners of a group.

use tch::{Kind, Tensor};

use super::entropy::{LEAST_LOG, log};
use super::gradient::pass_through;
use super::vector::unit;
use super::{LateLoss, Lens, LookupFreeConfig, Path, Place, Quantized, Quantizer, Slot, Sums};
use crate::graph::Rule;
use crate::parameters::Parameters;

/// Most numbers in a tile of probabilities, tokens times corners.
const TILE: i64 = 1 << 20;

/// Lookup-free quantiser with codes of D bits.
#[derive(Debug)]
pub struct LookupFreeQuantizer {
    config: LookupFreeConfig,
    /// Whether latents are brought to length one first: binary spherical quantisation.
    is_spherical: bool,
    /// Size of a code's channels, s: codes are -s or s.
    size: f64,
    /// 4 s / t: what turns a latent into the logit of its bit.
    slope: f64,
    /// The bits of each corner, `[C, B]`, the first channel the most significant.
    corners_cb: Tensor,
    /// Weight of a bit in the index, `[D]`.
    weights_d: Tensor,
}

impl LookupFreeQuantizer {
    /// The quantiser of a configuration, with codes of -1 and 1.
    pub fn of(config: &LookupFreeConfig, slot: &Slot) -> Self {
        Self::new(config, false, 1.0, slot)
    }

    /// The same for latents on the unit sphere, where codes are too: -1/sqrt(D) and 1/sqrt(D).
    pub fn spherical(config: &LookupFreeConfig, slot: &Slot) -> Self {
        Self::new(config, true, 1.0 / (config.num_bits as f64).sqrt(), slot)
    }

    /// Level `level` of a residual quantiser: codes of 2^-level times the size.
    pub(super) fn of_residual(config: &LookupFreeConfig, level: i64, slot: &Slot) -> Self {
        Self::new(config, false, 0.5f64.powi(level as i32), slot)
    }

    fn new(config: &LookupFreeConfig, is_spherical: bool, size: f64, slot: &Slot) -> Self {
        let Slot { kind, device, .. } = *slot;
        let weights = |bits: i64| -> Vec<i64> { (0..bits).rev().map(|bit| 1 << bit).collect() };
        let corners_c = Tensor::arange(1 << config.group_bits, (Kind::Int64, device));
        let weights_b = Tensor::from_slice(&weights(config.group_bits)).to(device);
        let corners_cb = corners_c
            .unsqueeze(1)
            .divide_tensor_mode(&weights_b, "floor")
            .remainder(2)
            .to_kind(kind);
        Self {
            config: config.clone(),
            is_spherical,
            size,
            slope: 4.0 * size / config.entropy_temperature,
            corners_cb,
            weights_d: Tensor::from_slice(&weights(config.num_bits)).to(device),
        }
    }

    /// The codes of the latents, -s or s, `[N, D]`, and their indices, `[N]` int64. A zero is -s.
    pub fn quantize(&self, latents_nd: &Tensor) -> (Tensor, Tensor) {
        let bits_nd = latents_nd.gt(0.0);
        let indices_n = (bits_nd.to_kind(Kind::Int64) * &self.weights_d).sum_dim_intlist(
            [1i64].as_slice(),
            false,
            Kind::Int64,
        );
        ((bits_nd.to_kind(latents_nd.kind()) * 2.0 - 1.0) * self.size, indices_n)
    }

    /// The codes of these indices: `[N]` int64 to `[N, D]`.
    fn codes_of(&self, indices_n: &Tensor) -> Tensor {
        let bits_nd =
            indices_n.unsqueeze(1).divide_tensor_mode(&self.weights_d, "floor").remainder(2);
        (bits_nd.to_kind(self.corners_cb.kind()) * 2.0 - 1.0) * self.size
    }

    /// The entropy of each token's distribution over codes, in nats, summed over tokens.
    pub fn token_entropy(&self, latents_nd: &Tensor) -> Tensor {
        let logits_nd = latents_nd * self.slope;
        // h(sigmoid(x)) = log(1 + e^x) - x sigmoid(x), and the same for -x.
        (logits_nd.softplus() - &logits_nd * logits_nd.sigmoid()).sum(latents_nd.kind())
    }

    /// The probabilities of the corners of each group, summed over tokens, `[G, C]`: divided by
    /// the global number of tokens after the sum over ranks, the mean.
    pub fn probability_sums(&self, latents_nd: &Tensor) -> Tensor {
        let size = [self.num_groups(), 1 << self.config.group_bits];
        let sums_gc = Tensor::zeros(size, (self.corners_cb.kind(), self.corners_cb.device()));
        self.for_each_tile(latents_nd, |group, _, logits_nb| {
            let sums_c = self.probabilities(logits_nb).sum_dim_intlist(
                [0i64].as_slice(),
                false,
                self.corners_cb.kind(),
            );
            let mut place_c = sums_gc.get(group).narrow(0, 0, sums_c.size()[0]);
            place_c += sums_c;
        });
        sums_gc
    }

    /// The batch's entropy, to be high, once the mean distribution is known.
    fn late(&self, latents_nd: &Tensor, place: &Place, sums: &Sums) -> Vec<LateLoss<'_>> {
        let LookupFreeConfig { entropy, diversity, .. } = self.config;
        if entropy * diversity == 0.0 {
            return Vec::new();
        }
        let own_gc = self.probability_sums(&latents_nd.detach());
        let _ = sums.distribution.shallow_clone().g_add_(&own_gc.flatten(0, 1));
        let (latents_nd, num_tokens) = (latents_nd.shallow_clone(), place.num_tokens as f64);
        vec![Box::new(move |sums| {
            let mean_gc = sums.view_as(&own_gc) / num_tokens;
            self.batch_entropy(&latents_nd, &own_gc, &mean_gc) * (-entropy * diversity / num_tokens)
        })]
    }

    /// This part's share in the entropy of the mean distribution `[G, C]`, in nats, summed over
    /// groups, times the number of tokens it is the mean over; with gradient.
    fn batch_entropy(&self, latents_nd: &Tensor, own_gc: &Tensor, mean_gc: &Tensor) -> Tensor {
        let surprise_gc = -log(mean_gc);
        let still_nd = latents_nd.detach();
        let at_latents_nd = still_nd.zeros_like();
        self.for_each_tile(&still_nd, |group, start, logits_nb| {
            let (rows, bits) = logits_nb.size2().expect("a row a token");
            let surprise_c = surprise_gc.get(group).narrow(0, 0, 1 << bits);
            let weighted_nc = self.probabilities(logits_nb) * surprise_c;
            let total_n1 = weighted_nc.sum_dim_intlist([1i64].as_slice(), true, weighted_nc.kind());
            let with_bit_nb = weighted_nc.matmul(&self.corners(bits));
            let part_nb = (with_bit_nb - logits_nb.sigmoid() * total_n1) * self.slope;
            let rows_nd = at_latents_nd.narrow(0, start, rows);
            rows_nd.narrow(1, group * self.config.group_bits, bits).copy_(&part_nb);
        });
        let kind = still_nd.kind();
        pass_through(&(own_gc * surprise_gc).sum(kind), &(latents_nd * at_latents_nd).sum(kind))
    }

    /// Probability of each corner, `[N, C]`, from the logits of a group's bits, `[N, B]`.
    fn probabilities(&self, logits_nb: &Tensor) -> Tensor {
        // log sigmoid(x) = x + log sigmoid(-x)
        let set_nc = logits_nb.matmul(&self.corners(logits_nb.size()[1]).tr());
        let none_n1 = (-logits_nb).log_sigmoid().sum_dim_intlist([1i64].as_slice(), true, None);
        (set_nc + none_n1).clamp_min_(LEAST_LOG).exp_()
    }

    /// Groups of bits; the last may have fewer.
    fn num_groups(&self) -> i64 {
        (self.config.num_bits + self.config.group_bits - 1) / self.config.group_bits
    }

    /// The bits of each corner of `bits` bits, `[2^bits, bits]`.
    fn corners(&self, bits: i64) -> Tensor {
        self.corners_cb.narrow(0, 0, 1 << bits).narrow(1, self.config.group_bits - bits, bits)
    }

    /// Calls `tile(group, first token, logits [N', B])` for parts of the tokens.
    fn for_each_tile(&self, latents_nd: &Tensor, mut tile: impl FnMut(i64, i64, &Tensor)) {
        let (num_tokens, dim) = latents_nd.size2().expect("latents are [N, D]");
        assert_eq!(dim, self.config.num_bits, "a channel a bit");
        let rows = (TILE >> self.config.group_bits).max(1);
        for group in 0..self.num_groups() {
            let first = group * self.config.group_bits;
            let bits = self.config.group_bits.min(dim - first);
            let logits_nb = latents_nd.narrow(1, first, bits) * self.slope;
            for start in (0..num_tokens).step_by(rows as usize) {
                tile(group, start, &logits_nb.narrow(0, start, rows.min(num_tokens - start)));
            }
        }
    }
}

impl Quantizer for LookupFreeQuantizer {
    fn dim(&self) -> i64 {
        self.config.num_bits
    }

    fn num_codes(&self) -> Vec<i64> {
        vec![1 << self.config.num_bits]
    }

    fn lens(&self) -> Lens {
        let LookupFreeConfig { num_bits, group_bits, entropy, diversity, .. } = self.config;
        let probabilities = self.num_groups() << group_bits;
        Lens {
            counts: 1 << num_bits,
            statistics: 0,
            distribution: if entropy * diversity > 0.0 { probabilities } else { 0 },
        }
    }

    fn tokenize(&self, _: &Parameters, latents_nd: &Tensor) -> Tensor {
        self.quantize(&latents_nd.detach()).1.unsqueeze(1)
    }

    fn look_up(&self, _: &Parameters, indices_nl: &Tensor) -> Tensor {
        self.codes_of(&indices_nl.select(1, 0))
    }

    fn rule(&self, _: &Parameters) -> Result<Rule, String> {
        let all_k =
            Tensor::arange(1 << self.config.num_bits, (Kind::Int64, self.weights_d.device()));
        Ok(Rule::Signs { codes_kd: self.codes_of(&all_k) })
    }

    fn forward(
        &self,
        _: &Parameters,
        latents_nd: &Tensor,
        place: &Place,
        sums: &Sums,
    ) -> Quantized<'_> {
        let LookupFreeConfig { num_bits, commitment, entropy, .. } = self.config;
        let kind = latents_nd.kind();
        let latents_nd =
            if self.is_spherical { unit(latents_nd) } else { latents_nd.shallow_clone() };
        let (codes_nd, indices_n) = self.quantize(&latents_nd.detach());
        sums.count(&indices_n);

        let num_tokens = place.num_tokens as f64;
        let error = (&latents_nd - &codes_nd).square().sum(kind);
        let mut loss = error * (commitment / (num_tokens * num_bits as f64));
        if entropy > 0.0 {
            loss += self.token_entropy(&latents_nd) * (entropy / num_tokens);
        }
        Quantized {
            output_nd: codes_nd,
            indices_nl: indices_n.unsqueeze(1),
            loss,
            late: self.late(&latents_nd, place, sums),
            path: Path::Graph(latents_nd),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use tch::Device;

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
        let config = LookupFreeConfig { num_bits, group_bits, ..LookupFreeConfig::default() };
        LookupFreeQuantizer::of(&config, &Slot::root(0, Kind::Double, Device::Cpu))
    }

    fn assert_near(found: &Tensor, expected: &Tensor) {
        let off = (found.flatten(0, -1) - expected.flatten(0, -1)).abs().max().double_value(&[]);
        assert!(off < 1e-9, "{off}: {found} {expected}");
    }

    fn gradient(of: &Tensor, at: &Tensor) -> Tensor {
        Tensor::run_backward(&[of], &[at], false, false).remove(0)
    }

    /// The entropy of the mean distribution over parts of the latents, and its gradient at each:
    /// for one part, those of one rank.
    fn entropy_of_mean(quantizer: &LookupFreeQuantizer, parts: &[Tensor]) -> (Tensor, Vec<Tensor>) {
        let leaves: Vec<Tensor> =
            parts.iter().map(|part| part.copy().set_requires_grad(true)).collect();
        let own: Vec<Tensor> = parts.iter().map(|part| quantizer.probability_sums(part)).collect();
        let num_tokens = parts.iter().map(|part| part.size()[0]).sum::<i64>() as f64;
        let mean_gc = own.iter().map(Tensor::shallow_clone).sum::<Tensor>() / num_tokens;
        let shares: Vec<Tensor> = leaves
            .iter()
            .zip(&own)
            .map(|(leaf, own)| quantizer.batch_entropy(leaf, own, &mean_gc) / num_tokens)
            .collect();
        let gradients = shares.iter().zip(&leaves).map(|(of, at)| gradient(of, at)).collect();
        (shares.into_iter().map(|share| share.detach()).sum(), gradients)
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
        let leaf_nd = latents(rows, bits).set_requires_grad(true);
        let tokens = quantizer.token_entropy(&leaf_nd) / rows as f64;
        assert_near(&tokens, &Tensor::from_slice(&[fixture.token_entropy]));
        assert_near(&gradient(&tokens, &leaf_nd), &Tensor::from_slice(&fixture.token_gradient));
        let (batch, gradients) = entropy_of_mean(&quantizer, &[latents_nd]);
        assert_near(&batch, &Tensor::from_slice(&[fixture.batch_entropy]));
        assert_near(&gradients[0], &Tensor::from_slice(&fixture.batch_gradient));
    }

    /// The shares of parts add up to the entropy of the whole, and each part gets the whole
    /// batch's gradient; with its own mean it would get another.
    #[test]
    fn parts_of_a_batch_have_its_gradient_at_the_global_mean() {
        let (quantizer, whole_nd) = (quantizer(6, 3), latents(40, 6));
        let (entropy, expected) = entropy_of_mean(&quantizer, &[whole_nd.shallow_clone()]);
        let parts = [(0, 13), (13, 27), (40, 0)].map(|(start, len)| whole_nd.narrow(0, start, len));
        let (sum, gradients) = entropy_of_mean(&quantizer, &parts);
        assert_near(&sum, &entropy);
        assert_near(&Tensor::cat(&gradients, 0), &expected[0]);
        let (_, own) = entropy_of_mean(&quantizer, &parts[..1]);
        let off = (&own[0] * (13.0 / 40.0) - expected[0].narrow(0, 0, 13)).abs();
        assert!(off.max().double_value(&[]) > 1e-5);
    }

    /// Against autograd through the definition, in two groups of three bits, and in one of three
    /// and one of two.
    #[test]
    fn the_gradient_is_that_of_the_entropy() {
        for bits in [6, 5] {
            let quantizer = quantizer(bits, 3);
            let leaf_nd = latents(9, bits).set_requires_grad(true);
            let entropy = [(0, 3), (3, bits - 3)].map(|(first, len)| {
                let one_n1b = (leaf_nd.narrow(1, first, len) * 4.0).sigmoid().unsqueeze(1);
                let corners_1cb = quantizer.corners(len).unsqueeze(0);
                let each_ncb: Tensor =
                    &corners_1cb * &one_n1b + (1.0 - &corners_1cb) * (1.0 - &one_n1b);
                let p_c = each_ncb.prod_dim_int(2, false, None).mean_dim(0, false, None);
                -(&p_c * p_c.log()).sum(Kind::Double)
            });
            let entropy: Tensor = entropy.into_iter().sum();
            let (found, gradients) = entropy_of_mean(&quantizer, &[latents(9, bits)]);
            assert_near(&found, &entropy);
            assert_near(&gradients[0], &gradient(&entropy, &leaf_nd));
        }
    }

    #[test]
    fn every_index_has_a_code_that_has_this_index() {
        let slot = Slot::root(0, Kind::Double, Device::Cpu);
        let config = LookupFreeConfig { num_bits: 6, group_bits: 2, ..LookupFreeConfig::default() };
        for (quantizer, size) in [
            (LookupFreeQuantizer::of(&config, &slot), 1.0),
            (LookupFreeQuantizer::spherical(&config, &slot), 1.0 / 6f64.sqrt()),
            (LookupFreeQuantizer::of_residual(&config, 2, &slot), 0.25),
        ] {
            let all = Tensor::arange(64, (Kind::Int64, Device::Cpu));
            let (codes_kd, indices_k) = quantizer.quantize(&quantizer.codes_of(&all));
            assert_eq!(indices_k, all);
            assert_eq!(codes_kd.abs().min().double_value(&[]), size);
        }
    }

    /// Far from the origin nothing overflows: a token is certain, and its gradient is zero.
    #[test]
    fn certain_tokens_have_no_entropy() {
        let quantizer = quantizer(4, 4);
        let far_nd = Tensor::full([3, 4], 1e4, (Kind::Double, Device::Cpu)).set_requires_grad(true);
        let entropy = quantizer.token_entropy(&far_nd);
        assert_eq!(entropy.double_value(&[]), 0.0);
        assert_eq!(gradient(&entropy, &far_nd).abs().max().double_value(&[]), 0.0);
        let sums_gc = quantizer.probability_sums(&far_nd);
        assert_eq!(sums_gc.double_value(&[0, 15]), 3.0);
    }
}
