//! Codebook learned by exponential moving average instead of by gradient.
//!
//! Follows van den Oord et al. 2017 (<https://arxiv.org/abs/1711.00937>), appendix A.1, with
//! Laplace smoothing of the counts. The update is split in two so that a data-parallel step can
//! sum over ranks in between: [`VectorQuantizer::write_statistics`] is local,
//! [`VectorQuantizer::update`] and [`VectorQuantizer::replace_dead`] are the only writers. This
//! module never communicates.
//!
//! Dead codes can be replaced by latents of the current batch. Which tokens are offered depends
//! on the seed, the step and the number of tokens in the *global* batch, and the j-th dead code
//! takes the j-th offer, so the result is the same for every number of ranks.

use tch::{Device, Kind, Tensor};

use super::nearest::nearest_code;
use super::{CodebookInit, EmaConfig};
use crate::random::{Purpose, draws};
use crate::vqvae::to_device;

/// Most latents offered to dead codes at a time.
const MAX_OFFERS: i64 = 256;

/// Copies the latents of those `tokens` that are in `mine`, this rank's range of the global
/// batch's tokens, to the rows of their places in `out_rd`; all other rows become zero, so that
/// the sum over ranks holds every token's latent.
pub fn lay_out_tokens(
    tokens: &[usize],
    mine: std::ops::Range<usize>,
    latents_nd: &Tensor,
    out_rd: &mut Tensor,
) {
    let _ = out_rd.zero_();
    let (mut rows, mut sources) = (Vec::new(), Vec::new());
    for (row, token) in tokens.iter().enumerate() {
        if mine.contains(token) {
            rows.push(row as i64);
            sources.push((token - mine.start) as i64);
        }
    }
    let device = latents_nd.device();
    let sources = to_device(Tensor::from_slice(&sources), device);
    let rows = to_device(Tensor::from_slice(&rows), device);
    let _ = out_rd.index_copy_(0, &rows, &latents_nd.index_select(0, &sources));
}

/// Vector quantiser with an EMA codebook.
#[derive(Debug)]
pub struct VectorQuantizer {
    config: EmaConfig,
    seed: u64,
    codes_kd: Tensor,
    counts_k: Tensor,
    sums_kd: Tensor,
}

impl VectorQuantizer {
    /// A codebook that is uniform in ±sqrt(6 / (K D)), small against latents, with each code
    /// counted once. `seed` keys every draw of this quantiser.
    pub fn new(config: &EmaConfig, seed: u64, kind: Kind, device: Device) -> Self {
        let (num_codes, dim) = (config.num_codes, config.code_dim);
        let bound = (6.0 / (num_codes * dim) as f64).sqrt();
        let values =
            draws(seed, Purpose::Codebook, 0, 0).uniform(bound, (num_codes * dim) as usize);
        let codes_kd = Tensor::from_slice(&values).view([num_codes, dim]).to_kind(kind).to(device);
        let mut this = Self {
            config: config.clone(),
            seed,
            counts_k: Tensor::ones([num_codes], (kind, device)),
            sums_kd: codes_kd.copy(),
            codes_kd,
        };
        let whole = this.codes_kd.copy();
        this.set_codes(&whole);
        this
    }

    /// How the codebook is sized and updated.
    pub fn config(&self) -> &EmaConfig {
        &self.config
    }

    /// The codes, `[K, D]`.
    pub fn codes_kd(&self) -> &Tensor {
        &self.codes_kd
    }

    /// Replaces all codes and starts the averages anew: each code counted once, its sum itself.
    pub fn set_codes(&mut self, codes_kd: &Tensor) {
        self.codes_kd.copy_(codes_kd);
        self.sums_kd.copy_(codes_kd);
        let _ = self.counts_k.fill_(1.0);
    }

    /// Tokens of the first global batch that become codes, `[K]`, for `num_tokens` tokens.
    ///
    /// Distinct where there are tokens enough; otherwise every token is taken in turn. `None`
    /// where the configuration keeps the uniform codebook.
    pub fn first_batch_tokens(&self, num_tokens: usize) -> Option<Vec<usize>> {
        if self.config.codebook_init == CodebookInit::Uniform {
            return None;
        }
        let num_codes = self.config.num_codes as usize;
        let order = draws(self.seed, Purpose::Codebook, 0, 1)
            .distinct(num_codes.min(num_tokens), num_tokens);
        Some((0..num_codes).map(|code| order[code % order.len()]).collect())
    }

    /// Makes repeated codes distinct: adds uniform noise of 1 % of the codes' root mean square to
    /// every code from `first_repeated` on. The same on every rank.
    pub fn jitter_repeats(&self, codes_kd: &Tensor, first_repeated: usize) -> Tensor {
        let (num_codes, dim) = codes_kd.size2().expect("codes are [K, D]");
        let len = (num_codes * dim) as usize;
        let noise = draws(self.seed, Purpose::Codebook, 0, 2).uniform(1.0, len);
        let noise_kd = Tensor::from_slice(&noise)
            .view([num_codes, dim])
            .to_kind(codes_kd.kind())
            .to(codes_kd.device());
        let _ = noise_kd.narrow(0, 0, (first_repeated as i64).min(num_codes)).zero_();
        let scale = codes_kd.square().mean(codes_kd.kind()).sqrt() * 0.01;
        codes_kd + noise_kd * scale
    }

    /// Latents offered to dead codes at a time, R; 0 where none are replaced.
    pub fn num_offers(&self) -> i64 {
        if self.config.replace_every == 0 { 0 } else { self.config.num_codes.min(MAX_OFFERS) }
    }

    /// Tokens of the global batch of step `step` (from 0) that are offered to dead codes, at most
    /// R of `num_tokens`; `None` in a step that replaces nothing.
    pub fn offered_tokens(&self, step: u64, num_tokens: usize) -> Option<Vec<usize>> {
        let every = self.config.replace_every;
        if every == 0 || !(step + 1).is_multiple_of(every) {
            return None;
        }
        let num = (self.num_offers() as usize).min(num_tokens);
        Some(draws(self.seed, Purpose::Replacement, step, 0).distinct(num, num_tokens))
    }

    /// Gives the j-th dead code, in order of codes, the j-th of the first `num_offered` rows of
    /// `offers_rd`. Nothing is copied to the host.
    ///
    /// A code is dead when its moving count is below `replace_below` times the mean count. It
    /// starts anew with the mean count, so that it is not dead again at once.
    pub fn replace_dead(&mut self, offers_rd: &Tensor, num_offered: usize) {
        let mean = self.counts_k.mean(self.counts_k.kind());
        let dead_k = self.counts_k.lt_tensor(&(&mean * self.config.replace_below));
        let order_k = dead_k.cumsum(0, Kind::Int64) - 1;
        let takes_k = dead_k.logical_and(&order_k.lt(num_offered as i64));
        let last = (num_offered as i64 - 1).max(0);
        let offers_kd = offers_rd.index_select(0, &order_k.clamp(0, last));
        let takes_k1 = takes_k.unsqueeze(1);
        self.codes_kd.copy_(&offers_kd.where_self(&takes_k1, &self.codes_kd));
        self.sums_kd.copy_(&(offers_kd * &mean).where_self(&takes_k1, &self.sums_kd));
        self.counts_k.copy_(&mean.where_self(&takes_k, &self.counts_k));
    }

    /// Index of the nearest code for each latent: `[N, D]` to `[N]` int64.
    pub fn assign(&self, latents_nd: &Tensor) -> Tensor {
        nearest_code(latents_nd, &self.codes_kd)
    }

    /// Codes of these indices: `[N]` int64 to `[N, D]`.
    pub fn look_up(&self, indices_n: &Tensor) -> Tensor {
        self.codes_kd.index_select(0, indices_n)
    }

    /// Writes how often each code was taken (`[K]`) and the sum of the latents that took it
    /// (`[K, D]`) into the given tensors, by index-add.
    pub fn write_statistics(
        latents_nd: &Tensor,
        indices_n: &Tensor,
        counts_k: &mut Tensor,
        sums_kd: &mut Tensor,
    ) {
        let ones_n = Tensor::ones([indices_n.size()[0]], (counts_k.kind(), counts_k.device()));
        let _ = counts_k.zero_();
        let _ = counts_k.index_add_(0, indices_n, &ones_n);
        let _ = sums_kd.zero_();
        let _ = sums_kd.index_add_(0, indices_n, latents_nd);
    }

    /// One step of the moving averages, from the statistics of the whole batch.
    ///
    /// With decay g, counts n and sums s: N <- gN + (1-g)n, M <- gM + (1-g)s, and code
    /// e = M / ((N + eps) / (sum N + K eps) * sum N). N itself stays unsmoothed.
    pub fn update(&mut self, counts_k: &Tensor, sums_kd: &Tensor) {
        let EmaConfig { decay, epsilon, num_codes, .. } = self.config;
        let kind = self.counts_k.kind();
        let _ = self.counts_k.lerp_(counts_k, 1.0 - decay);
        let _ = self.sums_kd.lerp_(sums_kd, 1.0 - decay);
        let total = self.counts_k.sum(kind);
        let scale = &total / (&total + num_codes as f64 * epsilon);
        let smoothed_k = (&self.counts_k + epsilon) * scale;
        self.codes_kd.copy_(&(&self.sums_kd / smoothed_k.unsqueeze(1)));
    }

    /// Canonical name and tensor of all state, in a fixed order. Writing to them restores it.
    pub fn state(&self) -> [(&'static str, &Tensor); 3] {
        [
            ("quantizer.codebook", &self.codes_kd),
            ("quantizer.ema_counts", &self.counts_k),
            ("quantizer.ema_sums", &self.sums_kd),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_codes() -> VectorQuantizer {
        let config = EmaConfig { num_codes: 2, code_dim: 1, decay: 0.5, ..EmaConfig::default() };
        let mut quantizer = VectorQuantizer::new(&config, 0, Kind::Double, Device::Cpu);
        quantizer.set_codes(&Tensor::from_slice(&[0.0f64, 10.0]).view([2, 1]));
        quantizer
    }

    fn statistics(latents_nd: &Tensor, indices_n: &Tensor) -> (Tensor, Tensor) {
        let mut counts_k = Tensor::zeros([2], (Kind::Double, Device::Cpu));
        let mut sums_kd = Tensor::zeros([2, 1], (Kind::Double, Device::Cpu));
        VectorQuantizer::write_statistics(latents_nd, indices_n, &mut counts_k, &mut sums_kd);
        (counts_k, sums_kd)
    }

    /// By hand: code 0 takes {1, 2}, code 1 takes {9, 12}. Counts 0.5*1 + 0.5*2 = 1.5 each, sums
    /// 0.5*0 + 0.5*3 = 1.5 and 0.5*10 + 0.5*21 = 15.5; with S = 3 and eps = 1e-5 the smoothed
    /// count is (1.5 + 1e-5) / (3 + 2e-5) * 3 = 1.5.
    #[test]
    fn one_update_is_the_papers_arithmetic() {
        let mut quantizer = two_codes();
        let batch_nd = Tensor::from_slice(&[1.0f64, 2.0, 9.0, 12.0]).view([4, 1]);
        let indices_n = quantizer.assign(&batch_nd);
        let (counts_k, sums_kd) = statistics(&batch_nd, &indices_n);
        quantizer.update(&counts_k, &sums_kd);
        let codes: Vec<f64> = Vec::try_from(quantizer.codes_kd().flatten(0, 1)).unwrap();
        assert!((codes[0] - 1.0).abs() < 1e-12, "{codes:?}");
        assert!((codes[1] - 15.5 / 1.5).abs() < 1e-12, "{codes:?}");
    }

    /// A code that nothing takes keeps its direction and nearly its length: M and N shrink alike.
    /// By hand, code 1 at 10 unused while code 0 takes 2: N = [1.5, 0.5], S = 2, M_1 = 5;
    /// smoothed (0.5 + eps) / (2 + 2 eps) * 2 = (0.5 + eps) / (1 + eps), so e_1 = 5 (1 + eps) / (0.5 + eps).
    #[test]
    fn an_unused_code_stays_where_it_is() {
        let mut quantizer = two_codes();
        let batch_nd = Tensor::from_slice(&[1.0f64, 2.0]).view([2, 1]);
        let (counts_k, sums_kd) = statistics(&batch_nd, &quantizer.assign(&batch_nd));
        quantizer.update(&counts_k, &sums_kd);
        let eps = 1e-5;
        let expected = 5.0 * (1.0 + eps) / (0.5 + eps);
        assert!((quantizer.codes_kd().double_value(&[1, 0]) - expected).abs() < 1e-12);
    }

    /// The property every multi-rank run rests on.
    #[test]
    fn statistics_of_parts_add_up_to_those_of_the_whole_even_with_an_empty_part() {
        let quantizer = two_codes();
        let batch_nd = Tensor::from_slice(&[1.0f64, 2.0, 9.0, 12.0]).view([4, 1]);
        let indices_n = quantizer.assign(&batch_nd);
        let (counts_k, sums_kd) = statistics(&batch_nd, &indices_n);
        let parts = [(0, 1), (1, 3), (4, 0)].map(|(at, len)| {
            statistics(&batch_nd.narrow(0, at, len), &indices_n.narrow(0, at, len))
        });
        let [a, b, c] = &parts;
        assert_eq!(counts_k, &a.0 + &b.0 + &c.0);
        assert_eq!(sums_kd, &a.1 + &b.1 + &c.1);
    }

    #[test]
    fn codes_come_from_distinct_tokens_where_there_are_enough() {
        let config = EmaConfig { num_codes: 8, code_dim: 1, ..EmaConfig::default() };
        let quantizer = VectorQuantizer::new(&config, 0, Kind::Double, Device::Cpu);
        let mut tokens = quantizer.first_batch_tokens(20).unwrap();
        tokens.sort_unstable();
        tokens.dedup();
        assert_eq!(tokens.len(), 8);
        let few = quantizer.first_batch_tokens(3).unwrap();
        assert_eq!((few.len(), &few[..3]), (8, &few[3..6]));
    }

    #[test]
    fn repeated_codes_are_made_distinct_and_the_first_ones_are_kept() {
        let quantizer = two_codes();
        let codes_kd = Tensor::from_slice(&[3.0f64, 3.0]).view([2, 1]);
        let apart = quantizer.jitter_repeats(&codes_kd, 1);
        assert_eq!(apart.double_value(&[0, 0]), 3.0);
        let moved = (apart.double_value(&[1, 0]) - 3.0).abs();
        assert!(moved > 0.0 && moved <= 0.03, "{moved}");
    }

    /// By hand: counts 8, 0.1, 5.9, 0 have the mean 3.5; below a tenth of it are codes 1 and 3.
    /// The first offer goes to code 1, the second to code 3, each with the mean count; with one
    /// offer, code 3 stays.
    #[test]
    fn dead_codes_take_offers_in_order_and_start_with_the_mean_count() {
        let config = EmaConfig {
            num_codes: 4,
            code_dim: 1,
            replace_every: 1,
            replace_below: 0.1,
            ..EmaConfig::default()
        };
        for (num_offered, expected) in [(2, [1.0, 20.0, 3.0, 30.0]), (1, [1.0, 20.0, 3.0, 4.0])] {
            let mut quantizer = VectorQuantizer::new(&config, 0, Kind::Double, Device::Cpu);
            quantizer.set_codes(&Tensor::from_slice(&[1.0, 2.0, 3.0, 4.0]).view([4, 1]));
            quantizer.counts_k.copy_(&Tensor::from_slice(&[8.0, 0.1, 5.9, 0.0]));
            let offers_rd = Tensor::from_slice(&[20.0, 30.0, 0.0, 0.0]).view([4, 1]);
            quantizer.replace_dead(&offers_rd, num_offered);
            let codes: Vec<f64> = Vec::try_from(quantizer.codes_kd().flatten(0, 1)).unwrap();
            assert_eq!(codes, expected);
            assert_eq!(quantizer.counts_k.double_value(&[1]), 3.5);
            assert_eq!(quantizer.sums_kd.double_value(&[1, 0]), 70.0);
        }
    }

    #[test]
    fn offers_come_when_they_are_due_and_are_distinct() {
        let config = EmaConfig { num_codes: 8, replace_every: 10, ..EmaConfig::default() };
        let quantizer = VectorQuantizer::new(&config, 0, Kind::Double, Device::Cpu);
        assert_eq!(quantizer.offered_tokens(8, 50), None);
        let mut tokens = quantizer.offered_tokens(9, 50).expect("the tenth step");
        tokens.sort_unstable();
        tokens.dedup();
        assert_eq!(tokens.len(), 8);
        assert_eq!(quantizer.offered_tokens(9, 3).expect("few tokens").len(), 3);
    }

    /// Two ranks hold tokens 0..2 and 2..4; the sum of what they lay out is tokens 3, 0, 2.
    #[test]
    fn tokens_laid_out_by_their_owners_add_up() {
        let latents_nd = Tensor::from_slice(&[10.0f64, 11.0, 12.0, 13.0]).view([4, 1]);
        let mut sum = Tensor::zeros([4, 1], (Kind::Double, Device::Cpu));
        for (start, end) in [(0, 2), (2, 4), (4, 4)] {
            let part_nd = latents_nd.narrow(0, start as i64, (end - start) as i64);
            let mut out_rd = Tensor::ones([4, 1], (Kind::Double, Device::Cpu));
            lay_out_tokens(&[3, 0, 2], start..end, &part_nd, &mut out_rd);
            sum += out_rd;
        }
        assert_eq!(Vec::<f64>::try_from(sum.flatten(0, 1)).unwrap(), [13.0, 10.0, 12.0, 0.0]);
    }
}
