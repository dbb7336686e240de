//! Entropies of soft assignments to a codebook: low for each token, high for the batch.
//!
//! The loss of Chang et al. 2022 (<https://arxiv.org/abs/2202.04200>) and of LlamaGen: with
//! p_n the softmax of -|z_n - e|^2 / t over codes, E[H(p_n)] - g H(E[p_n]). The entropy of the
//! mean is that of the *global* mean: ranks sum probabilities first. Its gradient is that of
//! <c, sum of p> / N with c = -log(mean p) held constant, because probabilities sum to one. (A
//! mean over ranks of each rank's own entropy is another loss.)
//!
//! Works in tiles, so that N times K probabilities are never held at once.

use tch::Tensor;

use super::gradient::pass_through;

/// Most numbers in a tile of probabilities, tokens times codes.
const TILE: i64 = 1 << 20;

/// Logarithm of the smallest probability that is told from others: far above float32's denormal
/// numbers, with which a processor is slow, and far below what moves a sum.
pub(super) const LEAST_LOG: f64 = -80.0;

/// Logarithm with 0 log 0 = 0 in mind: a probability of zero has a large finite one.
pub(super) fn log(probabilities: &Tensor) -> Tensor {
    probabilities.clamp_min(1e-30).log()
}

/// Probabilities of codes for latents, `[N, D]` and `[K, D]`, both with or without graph.
pub(super) struct SoftAssignment<'a> {
    pub(super) latents_nd: &'a Tensor,
    pub(super) codes_kd: &'a Tensor,
    pub(super) temperature: f64,
}

impl SoftAssignment<'_> {
    /// The probabilities summed over tokens, `[K]`, without graph.
    pub(super) fn probability_sums(&self) -> Tensor {
        let mut sums_k = self.half_norms().zeros_like();
        self.for_each_tile(|_, log_nk| {
            sums_k += log_nk.exp().sum_dim_intlist([0i64].as_slice(), false, log_nk.kind());
        });
        sums_k
    }

    /// The sum over tokens of H(p_n) - g <p_n, c>, with c = -log of the mean distribution `[K]`
    /// and g the `diversity`; over ranks that adds up to N (E[H(p_n)] - g H(E[p_n])). With
    /// gradient at latents and codes.
    ///
    /// With u = log p + g c it is -<p, u>, and its derivative by the logits p (<p, u> - u).
    pub(super) fn loss(&self, mean_k: &Tensor, diversity: f64) -> Tensor {
        let kind = mean_k.kind();
        let surprise_k = -log(mean_k) * diversity;
        let mut value = Tensor::zeros([], (kind, mean_k.device()));
        let at_latents_nd = self.latents_nd.detach().zeros_like();
        let mut at_codes_kd = self.codes_kd.detach().zeros_like();
        let still_kd = self.codes_kd.detach();
        let codes_want = self.codes_kd.requires_grad();
        self.for_each_tile(|start, log_nk| {
            let p_nk = log_nk.exp();
            let mut slope_nk = (log_nk + &surprise_k) * &p_nk;
            let total_n1 = slope_nk.sum_dim_intlist([1i64].as_slice(), true, kind);
            value -= total_n1.sum(kind);
            slope_nk = p_nk * total_n1 - slope_nk;
            // By the logits; those are (2 z.e - |e|^2) / t.
            let rows = slope_nk.size()[0];
            at_latents_nd.narrow(0, start, rows).copy_(&slope_nk.matmul(&still_kd));
            if codes_want {
                let tile_nd = self.latents_nd.detach().narrow(0, start, rows);
                let weight_k1 =
                    slope_nk.sum_dim_intlist([0i64].as_slice(), false, kind).unsqueeze(1);
                at_codes_kd += slope_nk.tr().matmul(&tile_nd) - &still_kd * weight_k1;
            }
        });
        let mut path = (self.latents_nd * at_latents_nd).sum(kind);
        if codes_want {
            path += (self.codes_kd * at_codes_kd).sum(kind);
        }
        pass_through(&value, &(path * (2.0 / self.temperature)))
    }

    /// Half the squared lengths of the codes, `[K]`, without graph.
    fn half_norms(&self) -> Tensor {
        let codes_kd = self.codes_kd.detach();
        codes_kd.square().sum_dim_intlist([1i64].as_slice(), false, codes_kd.kind()) * 0.5
    }

    /// Calls `tile(first token, log-probabilities [N', K])` for parts of the tokens.
    fn for_each_tile(&self, mut tile: impl FnMut(i64, &Tensor)) {
        let (num_latents, _) = self.latents_nd.size2().expect("latents are [N, D]");
        let (still_nd, half_k) = (self.latents_nd.detach(), self.half_norms());
        let codes_dk = self.codes_kd.detach().tr().contiguous();
        let rows = (TILE / half_k.size()[0]).max(1);
        for start in (0..num_latents).step_by(rows as usize) {
            let tile_nd = still_nd.narrow(0, start, rows.min(num_latents - start));
            let mut scores_nk = tile_nd.matmul(&codes_dk) - &half_k;
            scores_nk *= 2.0 / self.temperature;
            let log_nk = scores_nk.log_softmax(1, half_k.kind());
            tile(start, &log_nk.clamp_min(LEAST_LOG));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, draws};
    use tch::Kind;

    fn random(rows: i64, dim: i64, id: u64) -> Tensor {
        let values = draws(5, Purpose::Codebook, 0, id).uniform(1.0, (rows * dim) as usize);
        Tensor::from_slice(&values).view([rows, dim])
    }

    /// Both entropies from the definition, whole and by autograd: E[H(p)] and H(E[p]).
    fn by_definition(latents_nd: &Tensor, codes_kd: &Tensor, temperature: f64) -> [Tensor; 2] {
        let distances_nk = (latents_nd.unsqueeze(1) - codes_kd.unsqueeze(0))
            .square()
            .sum_dim_intlist([2i64].as_slice(), false, Kind::Double);
        let p_nk = (-distances_nk / temperature).softmax(1, Kind::Double);
        let p_k = p_nk.mean_dim([0i64].as_slice(), false, Kind::Double);
        let tokens = -(&p_nk * p_nk.log()).sum(Kind::Double) / latents_nd.size()[0] as f64;
        [tokens, -(&p_k * p_k.log()).sum(Kind::Double)]
    }

    fn gradients(of: &Tensor, to: &[&Tensor]) -> Vec<Tensor> {
        Tensor::run_backward(&[of], to, false, false)
    }

    /// Parts with the global mean have together the loss of the whole and its gradients.
    #[test]
    fn parts_have_the_loss_and_the_gradients_of_the_whole() {
        let (whole_nd, codes_kd) = (random(50, 4, 1), random(30, 4, 2));
        let z_nd = whole_nd.copy().set_requires_grad(true);
        let e_kd = codes_kd.copy().set_requires_grad(true);
        let [tokens, batch] = by_definition(&z_nd, &e_kd, 0.7);
        let expected = tokens - batch * 0.6;
        let expected_gradients = gradients(&expected, &[&z_nd, &e_kd]);

        let e_kd = codes_kd.copy().set_requires_grad(true);
        let parts = [(0, 17), (17, 0), (17, 33)]
            .map(|(start, len)| whole_nd.narrow(0, start, len).copy().set_requires_grad(true));
        let soft = |latents_nd| SoftAssignment { latents_nd, codes_kd: &e_kd, temperature: 0.7 };
        let mean_k: Tensor =
            parts.iter().map(|part_nd| soft(part_nd).probability_sums() / 50.0).sum();
        let found: Tensor =
            parts.iter().map(|part_nd| soft(part_nd).loss(&mean_k, 0.6) / 50.0).sum();
        assert!((&found - &expected).abs().double_value(&[]) < 1e-12);
        let inputs: Vec<&Tensor> = parts.iter().chain([&e_kd]).collect();
        let found = gradients(&found, &inputs);
        let at_latents_nd = Tensor::cat(&found[..3], 0);
        for (found, expected) in [&at_latents_nd, &found[3]].into_iter().zip(&expected_gradients) {
            assert!(found.allclose(expected, 0.0, 1e-12, false));
        }
    }
}
