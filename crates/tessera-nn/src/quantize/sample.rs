//! Codes drawn at random instead of the nearest ones.
//!
//! A code is taken with probability proportional to exp(-|z - e|^2 / t): the softmax over
//! negative distances of Roy et al. 2018 (<https://arxiv.org/abs/1805.11063>), section 3. One
//! uniform number decides for a token, by the inverse of the cumulative distribution; it is keyed
//! by the token's number in the *global* batch, so ranks draw what one rank would.

use tch::{Kind, Tensor};

use super::Place;
use super::entropy::LEAST_LOG;
use crate::random::{Purpose, draws};
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
    let (num_latents, num_codes) = (latents_nd.size()[0], codes_kd.size()[0]);
    let device = latents_nd.device();
    let mut generator = draws(seed, Purpose::Sampling, place.step, place.level);
    generator.skip(place.mine.start as u64);
    let units: Vec<f64> = (0..num_latents).map(|_| generator.unit()).collect();
    let units_n = to_device(Tensor::from_slice(&units), device);

    let kind = codes_kd.kind();
    let norms_k = codes_kd.square().sum_dim_intlist([1i64].as_slice(), false, kind);
    let codes_dk = codes_kd.tr().contiguous();
    let indices_n = Tensor::zeros([num_latents], (Kind::Int64, device));
    let rows = (TILE / num_codes).max(1);
    for start in (0..num_latents).step_by(rows as usize) {
        let len = rows.min(num_latents - start);
        // |z|^2 is the same for all codes.
        let scores_nk = latents_nd.narrow(0, start, len).matmul(&codes_dk) * 2.0 - &norms_k;
        let log_nk = (scores_nk / temperature).log_softmax(1, kind).clamp_min(LEAST_LOG);
        let up_to_nk = log_nk.exp().cumsum(1, Kind::Double);
        let total_n1 = up_to_nk.narrow(1, num_codes - 1, 1);
        let drawn_n1 = units_n.narrow(0, start, len).unsqueeze(1) * total_n1;
        let passed_nk = up_to_nk.le_tensor(&drawn_n1);
        let index_n = passed_nk.sum_dim_intlist([1i64].as_slice(), false, Kind::Int64);
        indices_n.narrow(0, start, len).copy_(&index_n.clamp_max(num_codes - 1));
    }
    indices_n
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
