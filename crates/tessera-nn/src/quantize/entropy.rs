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
    /// The entropy in nats of each token's distribution, summed over tokens, with gradient; and
    /// the probabilities summed over tokens, `[K]`.
    pub(super) fn token_entropy(&self) -> (Tensor, Tensor) {
        let (num_codes, kind) = (self.codes_kd.size()[0], self.codes_kd.kind());
        let mut sums_k = Tensor::zeros([num_codes], (kind, self.codes_kd.device()));
        let entropy = self.over_tiles(|log_nk| {
            let probabilities_nk = log_nk.exp();
            let along = [0i64];
            sums_k += probabilities_nk.detach().sum_dim_intlist(along.as_slice(), false, kind);
            -(probabilities_nk * log_nk).sum(kind)
        });
        (entropy, sums_k)
    }

    /// This part's share in the entropy of the mean distribution `[K]`, times the number of
    /// tokens it is the mean over: over ranks the shares add up to that.
    pub(super) fn batch_entropy(&self, mean_k: &Tensor) -> Tensor {
        let surprise_k = -log(mean_k);
        self.over_tiles(|log_nk| (log_nk.exp() * &surprise_k).sum(log_nk.kind()))
    }

    /// The sum of `of` over tiles of log-probabilities `[N', K]`, with its gradient.
    fn over_tiles(&self, mut of: impl FnMut(&Tensor) -> Tensor) -> Tensor {
        let (num_latents, _) = self.latents_nd.size2().expect("latents are [N, D]");
        let kind = self.codes_kd.kind();
        let still_nd = self.latents_nd.detach();
        let codes_kd = self.codes_kd.detach().set_requires_grad(true);
        let mut at_codes_kd = codes_kd.zeros_like();
        let at_latents_nd = still_nd.zeros_like();
        let mut value = Tensor::zeros([], (kind, codes_kd.device()));
        let rows = (TILE / codes_kd.size()[0]).max(1);
        for start in (0..num_latents).step_by(rows as usize) {
            let len = rows.min(num_latents - start);
            let tile_nd = still_nd.narrow(0, start, len).set_requires_grad(true);
            let norms_k = codes_kd.square().sum_dim_intlist([1i64].as_slice(), false, kind);
            let scores_nk = tile_nd.matmul(&codes_kd.tr()) * 2.0 - norms_k;
            let log_nk = (scores_nk / self.temperature).log_softmax(1, kind);
            let part = of(&log_nk.clamp_min(LEAST_LOG));
            let gradients = Tensor::run_backward(&[&part], &[&tile_nd, &codes_kd], false, false);
            at_latents_nd.narrow(0, start, len).copy_(&gradients[0]);
            at_codes_kd += &gradients[1];
            value += part.detach();
        }
        let path =
            (self.latents_nd * at_latents_nd).sum(kind) + (self.codes_kd * at_codes_kd).sum(kind);
        pass_through(&value, &path)
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
        Tensor::run_backward(&[of], to, true, false)
    }

    /// Parts with the global mean have together the entropies of the whole and their gradients.
    #[test]
    fn parts_have_the_entropies_and_the_gradients_of_the_whole() {
        let (whole_nd, codes_kd) = (random(50, 4, 1), random(30, 4, 2));
        let z_nd = whole_nd.copy().set_requires_grad(true);
        let e_kd = codes_kd.copy().set_requires_grad(true);
        let expected = by_definition(&z_nd, &e_kd, 0.7);
        let expected_gradients = expected.each_ref().map(|of| gradients(of, &[&z_nd, &e_kd]));

        let e_kd = codes_kd.copy().set_requires_grad(true);
        let parts: Vec<Tensor> = [(0, 17), (17, 0), (17, 33)]
            .map(|(start, len)| whole_nd.narrow(0, start, len).copy().set_requires_grad(true))
            .into();
        let soft = |latents_nd| SoftAssignment { latents_nd, codes_kd: &e_kd, temperature: 0.7 };
        let mut tokens = Tensor::from(0.0f64);
        let mut mean_k = Tensor::zeros([30], (Kind::Double, tch::Device::Cpu));
        for part_nd in &parts {
            let (entropy, sums_k) = soft(part_nd).token_entropy();
            tokens += entropy / 50.0;
            mean_k += sums_k / 50.0;
        }
        let batch: Tensor =
            parts.iter().map(|part_nd| soft(part_nd).batch_entropy(&mean_k) / 50.0).sum();
        for (found, (expected, expected_gradients)) in
            [tokens, batch].iter().zip(expected.iter().zip(&expected_gradients))
        {
            assert!((found - expected).abs().double_value(&[]) < 1e-12);
            let inputs: Vec<&Tensor> = parts.iter().chain([&e_kd]).collect();
            let found = gradients(found, &inputs);
            let at_latents_nd = Tensor::cat(&found[..3], 0);
            for (found, expected) in [&at_latents_nd, &found[3]].into_iter().zip(expected_gradients)
            {
                assert!(found.allclose(expected, 0.0, 1e-12, false));
            }
        }
    }
}
