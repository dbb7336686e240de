//! What becomes of codes that nothing takes.
//!
//! Which tokens are offered depends on the seed, the step and the number of tokens in the *global*
//! batch, and the j-th dead code takes the j-th offer, so the result is the same for every number
//! of ranks. Nothing is copied to the host.
//!
//! A code is dead when its moving count is below a part of the mean count. Anchors follow CVQ-VAE
//! (Zheng and Vedaldi 2023, <https://arxiv.org/abs/2307.15139>), section 3.2, in the form that
//! draws them by distance, with the offers as candidates; the split follows the codebook of Big Vision's VQ-VAE.

use tch::{Kind, Tensor};

use super::sample::drawn_code;
use crate::random::{Draws, Purpose, draws};
use crate::vqvae::to_device;

/// Most latents offered to dead codes at a time.
const MAX_OFFERS: i64 = 256;
/// How far the two halves of a split code lie from it, against the codes' root mean square.
pub(super) const SPLIT: f64 = 0.01;

/// Latents offered at a time for a codebook of this size, R.
pub(super) fn num_offers(num_codes: i64) -> i64 {
    num_codes.min(MAX_OFFERS)
}

/// How many of `num_tokens` are offered.
pub(super) fn num_offered(num_codes: i64, num_tokens: usize) -> usize {
    (num_offers(num_codes) as usize).min(num_tokens)
}

/// Tokens of the global batch that are offered in a step: at most R of `num_tokens`.
pub(super) fn offered_tokens(
    seed: u64,
    step: u64,
    level: u64,
    num_codes: i64,
    num_tokens: usize,
) -> Vec<usize> {
    let num = num_offered(num_codes, num_tokens);
    draws(seed, Purpose::Replacement, step, level).distinct(num, num_tokens)
}

/// The codes of a codebook and how often they are taken.
pub(super) struct Codes {
    /// `[K, D]`.
    pub(super) codes_kd: Tensor,
    /// Moving counts, `[K]`.
    pub(super) counts_k: Tensor,
}

/// What replaced codes become, and which those are.
pub(super) struct Replacement {
    /// `[K, D]`.
    pub(super) codes_kd: Tensor,
    /// `[K]`.
    pub(super) counts_k: Tensor,
    /// Rows that have changed, `[K]` bool.
    pub(super) changed_k: Tensor,
    /// Codes that have been given another use, a scalar.
    pub(super) num_replaced: Tensor,
}

impl Codes {
    /// Which codes are dead, `[K]` bool, and the number of dead ones before each, `[K]`.
    fn dead(&self, below: f64) -> (Tensor, Tensor) {
        let mean = self.counts_k.mean(self.counts_k.kind());
        let dead_k = self.counts_k.lt_tensor(&(mean * below));
        let order_k = dead_k.cumsum(0, Kind::Int64) - 1;
        (dead_k, order_k)
    }

    /// Gives the j-th dead code the j-th offer, with the mean count, so that it is not dead again
    /// at once.
    pub(super) fn with_samples(&self, below: f64, offers_rd: &Tensor) -> Replacement {
        let num_offered = offers_rd.size()[0];
        let (dead_k, order_k) = self.dead(below);
        let takes_k = dead_k.logical_and(&order_k.lt(num_offered));
        let offers_kd = offers_rd.index_select(0, &order_k.clamp(0, (num_offered - 1).max(0)));
        let mean = self.counts_k.mean(self.counts_k.kind());
        Replacement {
            codes_kd: offers_kd.where_self(&takes_k.unsqueeze(1), &self.codes_kd),
            counts_k: mean.where_self(&takes_k, &self.counts_k),
            num_replaced: takes_k.sum(Kind::Double),
            changed_k: takes_k,
        }
    }

    /// Splits the j-th most used code between itself and the j-th dead one: one to either side,
    /// half of the count each. A dead code is not split.
    pub(super) fn with_halves(&self, below: f64, draws: &mut Draws) -> Replacement {
        let (num_codes, dim) = self.codes_kd.size2().expect("codes are [K, D]");
        let (dead_k, order_k) = self.dead(below);
        let donors_j = self.counts_k.argsort_stable(true, 0, true);
        let rank_k = donors_j.argsort_stable(true, 0, false);
        let donor_k = donors_j.index_select(0, &order_k.clamp_min(0));
        let takes_k = dead_k.logical_and(&dead_k.index_select(0, &donor_k).logical_not());
        let num_taken = takes_k.sum(Kind::Int64);
        let gives_k = rank_k.lt_tensor(&num_taken);

        let (kind, device) = (self.codes_kd.kind(), self.codes_kd.device());
        let noise = draws.uniform(1.0, (num_codes * dim) as usize);
        let noise_jd = to_device(Tensor::from_slice(&noise).to_kind(kind), device);
        let noise_jd =
            noise_jd.view([num_codes, dim]) * self.codes_kd.square().mean(kind).sqrt() * SPLIT;
        let source_k =
            donor_k.where_self(&takes_k, &Tensor::arange(num_codes, (Kind::Int64, device)));
        let side_k = takes_k.to_kind(kind) - gives_k.to_kind(kind);
        let pair_k = order_k.clamp_min(0).where_self(&takes_k, &rank_k);
        let changed_k = takes_k.logical_or(&gives_k);
        let halves_kd = self.codes_kd.index_select(0, &source_k)
            + noise_jd.index_select(0, &pair_k) * side_k.unsqueeze(1);
        let half_k = self.counts_k.index_select(0, &source_k) * 0.5;
        Replacement {
            codes_kd: halves_kd.where_self(&changed_k.unsqueeze(1), &self.codes_kd),
            counts_k: half_k.where_self(&changed_k, &self.counts_k),
            num_replaced: num_taken.to_kind(Kind::Double),
            changed_k,
        }
    }

    /// Moves each code towards an offer by exp(-p K 10 / (1 - g) - 0.001), g the decay and `use_k`,
    /// `[K]`, the moving average p of its part of all tokens, which starts at zero: a code that is
    /// used stays, one that is not goes there. The offer is drawn with the softmax over negative
    /// squared distances. Counted as replaced is what moves more than half of the way.
    pub(super) fn with_anchors(
        &self,
        decay: f64,
        use_k: &Tensor,
        offers_rd: &Tensor,
        draws: &mut Draws,
    ) -> Replacement {
        let num_codes = self.codes_kd.size()[0] as f64;
        let way_k = (use_k * (-num_codes * 10.0 / (1.0 - decay)) - 1e-3).clamp_min(-80.0).exp();
        let way_k1 = way_k.unsqueeze(1);
        let anchors_k = drawn_code(&self.codes_kd, offers_rd, 1.0, draws);
        let anchors_kd = offers_rd.index_select(0, &anchors_k);
        let changed_k = way_k.gt(0.5);
        Replacement {
            codes_kd: &self.codes_kd * (1.0 - &way_k1) + anchors_kd * way_k1,
            counts_k: self.counts_k.shallow_clone(),
            num_replaced: changed_k.sum(Kind::Double),
            changed_k,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(codes: &[f64], counts: &[f64]) -> Codes {
        Codes {
            codes_kd: Tensor::from_slice(codes).view([-1, 1]),
            counts_k: Tensor::from_slice(counts),
        }
    }

    fn column(values: &[f64]) -> Tensor {
        Tensor::from_slice(values).view([-1, 1])
    }

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor.flatten(0, -1).to_kind(Kind::Double)).unwrap()
    }

    /// Mean count 4, dead below 0.5 of it: codes 1 and 3 and 4. Two offers: 1 and 3 take them.
    #[test]
    fn dead_codes_take_offers_in_order() {
        let codes = codes(&[1.0, 2.0, 3.0, 4.0, 5.0], &[9.0, 1.0, 9.0, 0.5, 0.5]);
        let found = codes.with_samples(0.5, &column(&[70.0, 80.0]));
        assert_eq!(numbers(&found.codes_kd), [1.0, 70.0, 3.0, 80.0, 5.0]);
        assert_eq!(numbers(&found.counts_k), [9.0, 4.0, 9.0, 4.0, 0.5]);
        assert_eq!(numbers(&found.changed_k), [0.0, 1.0, 0.0, 1.0, 0.0]);
        assert_eq!(found.num_replaced.double_value(&[]), 2.0);
    }

    /// Codes 1 and 3 are dead; the most used is 2, then 0. They are halved, within 1 % of the root
    /// mean square of the codes.
    #[test]
    fn the_most_used_codes_are_split() {
        let codes = codes(&[1.0, 2.0, 3.0, 4.0], &[6.0, 0.0, 10.0, 0.0]);
        let found = codes.with_halves(0.1, &mut draws(0, Purpose::Replacement, 0, 0));
        assert_eq!(numbers(&found.counts_k), [3.0, 5.0, 5.0, 3.0]);
        let split = numbers(&found.codes_kd);
        let bound = SPLIT * 7.5f64.sqrt();
        for (code, center) in [(0, 1.0), (1, 3.0), (2, 3.0), (3, 1.0)] {
            let off = (split[code] - center).abs();
            assert!(off > 0.0 && off <= bound, "{split:?}");
        }
        assert!((split[1] + split[2] - 6.0).abs() < 1e-12, "to either side: {split:?}");
        assert_eq!(found.num_replaced.double_value(&[]), 2.0);
    }

    /// Three dead of four: only one code can be split.
    #[test]
    fn a_dead_code_is_not_split() {
        let codes = codes(&[1.0, 2.0, 3.0, 4.0], &[0.0, 8.0, 0.0, 0.0]);
        let found = codes.with_halves(0.1, &mut draws(0, Purpose::Replacement, 0, 0));
        assert_eq!(numbers(&found.counts_k), [4.0, 4.0, 0.0, 0.0]);
        assert_eq!(found.num_replaced.double_value(&[]), 1.0);
    }

    /// By hand: an unused code moves exp(-0.001) of the way to an offer; with p = 0.1, K = 2 and
    /// g = 0.9 the other moves exp(-20) of it. Of the offers two are too far to be drawn.
    #[test]
    fn unused_codes_go_to_an_anchor_near_them() {
        let codes = codes(&[1.0, 10.0], &[4.0, 0.0]);
        let (offers, mut draws) =
            (column(&[40.0, 12.0, 70.0]), draws(0, Purpose::Replacement, 0, 0));
        let found = codes.with_anchors(0.9, &Tensor::from_slice(&[0.1, 0.0]), &offers, &mut draws);
        let moved = numbers(&found.codes_kd);
        assert!((moved[0] - 1.0).abs() < 1e-6 && moved[0] != 1.0, "{moved:?}");
        assert!((moved[1] - (10.0 + 2.0 * (-0.001f64).exp())).abs() < 1e-9, "{moved:?}");
        assert_eq!(found.num_replaced.double_value(&[]), 1.0);
    }

    #[test]
    fn offers_are_distinct_tokens_and_no_more_than_there_are() {
        let tokens = offered_tokens(1, 2, 0, 512, 1000);
        assert_eq!(tokens.len(), 256);
        assert_eq!(offered_tokens(1, 2, 0, 512, 3).len(), 3);
        assert_ne!(tokens, offered_tokens(1, 2, 1, 512, 1000));
    }
}
