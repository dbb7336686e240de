//! Codes drawn at random instead of the nearest ones.
//!
//! A code is taken with probability proportional to exp(-|z - e|^2 / t): the softmax over
//! negative distances of Roy et al. 2018 (<https://arxiv.org/abs/1805.11063>), section 3. One
//! uniform number decides for a token, by the inverse of the cumulative distribution; it is keyed
//! by the token's number in the *global* batch, so ranks draw what one rank would.

use tch::{Kind, Tensor};

use super::Place;
use super::entropy::LEAST_LOG;
use crate::random::{Draws, Purpose, draws};
use crate::vqvae::to_device;

/// Most numbers in a tile of probabilities, tokens times codes.
const TILE: i64 = 1 << 19;

/// Index of the code drawn for each latent: `[N, D]` and `[K, D]` to `[N]` int64.
pub(super) fn sampled_code(
    latents_nd: &Tensor,
    codes_kd: &Tensor,
    temperature: f64,
    seed: u64,
    place: &Place,
) -> Tensor {
    let mut generator = draws(seed, Purpose::Sampling, place.step, place.level);
    generator.skip(place.mine.start as u64);
    drawn_code(latents_nd, codes_kd, temperature, &mut generator)
}

/// The same by the next N draws.
pub(super) fn drawn_code(
    latents_nd: &Tensor,
    codes_kd: &Tensor,
    temperature: f64,
    draws: &mut Draws,
) -> Tensor {
    let (num_latents, num_codes) = (latents_nd.size()[0], codes_kd.size()[0]);
    let (kind, device) = (codes_kd.kind(), latents_nd.device());
    let units: Vec<f64> = (0..num_latents).map(|_| draws.unit()).collect();
    let units_n1 = to_device(Tensor::from_slice(&units).to_kind(kind), device).unsqueeze(1);

    let norms_k = codes_kd.square().sum_dim_intlist([1i64].as_slice(), false, kind) / temperature;
    let codes_dk = codes_kd.tr().contiguous() * (2.0 / temperature);
    let indices_n1 = Tensor::zeros([num_latents, 1], (Kind::Int64, device));
    let rows = (TILE / num_codes).max(1);
    for start in (0..num_latents).step_by(rows as usize) {
        let len = rows.min(num_latents - start);
        // |z|^2 is the same for all codes.
        let mut scores_nk = latents_nd.narrow(0, start, len).matmul(&codes_dk) - &norms_k;
        scores_nk -= scores_nk.amax([1i64].as_slice(), true);
        let up_to_nk = scores_nk.clamp_min_(LEAST_LOG).exp_().cumsum(1, kind);
        let total_n1 = up_to_nk.narrow(1, num_codes - 1, 1);
        let drawn_n1 = units_n1.narrow(0, start, len) * total_n1;
        let index_n1 = drawn_n1.searchsorted(&up_to_nk, false, true, "right", None::<Tensor>);
        indices_n1.narrow(0, start, len).copy_(&index_n1.clamp_max(num_codes - 1));
    }
    indices_n1.squeeze_dim(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(values: &[f64]) -> Tensor {
        Tensor::from_slice(values).view([-1, 1])
    }

    /// By hand: codes 0 and 1, all latents at 0, t = 1 / ln 3: probabilities 3/4 and 1/4. Of
    /// 10,000 draws 7,500 are the first, within 4 standard deviations of 43.
    #[test]
    fn codes_are_drawn_with_the_probability_of_the_softmax() {
        let place = Place::new(3, 10_000, 0..10_000);
        let (latents, codes) = (column(&[0.0; 10_000]), column(&[0.0, 1.0]));
        let drawn = sampled_code(&latents, &codes, 1.0 / 3f64.ln(), 1, &place);
        let second = drawn.sum(Kind::Int64).int64_value(&[]);
        assert!((second - 2500).abs() < 174, "{second}");
    }

    #[test]
    fn parts_of_a_batch_draw_what_the_whole_draws() {
        let values: Vec<f64> = (0..100).map(|at| f64::from(at % 7)).collect();
        let (latents, codes) = (column(&values), column(&[0.0, 1.0, 2.0, 3.0, 4.0]));
        let draw = |mine: std::ops::Range<usize>| {
            let part = latents.narrow(0, mine.start as i64, mine.len() as i64);
            sampled_code(&part, &codes, 2.0, 1, &Place::new(5, 100, mine))
        };
        let parts = Tensor::cat(&[draw(0..37), draw(37..37), draw(37..100)], 0);
        assert_eq!(parts, draw(0..100));
    }
}
