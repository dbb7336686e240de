//! Vector quantiser with a codebook, learned by moving average or by gradient.
//!
//! Follows van den Oord et al. 2017 (<https://arxiv.org/abs/1711.00937>): section 3.2 for the
//! gradient codebook, appendix A.1 for the moving average, with Laplace smoothing of the counts.
//! With the cosine distance, latents and codes are on the unit sphere (Yu et al. 2021,
//! <https://arxiv.org/abs/2110.04627>, section 3.2). Optional are the entropy loss (`entropy.rs`),
//! codes drawn at random (`sample.rs`), dead codes replaced (`replace.rs`), and codes kept apart:
//! the mean squared cosine between all pairs (Shin et al. 2021,
//! <https://arxiv.org/abs/2112.00384>, equation 2).
//!
//! Everything that many ranks need is in [`Sums`]; this module never communicates.

use tch::{Kind, Tensor};

use super::entropy::SoftAssignment;
use super::kmeans::k_means;
use super::nearest::nearest_code;
use super::replace::{Codes, Replacement, num_offers, offered_tokens};
use super::sample::sampled_code;
use super::tokens::lay_out_tokens;
use super::{
    Codebook, CodebookInit, Distance, LateLoss, Lens, Place, Quantized, Quantizer, ReplaceWith,
    Slot, Sums, Updated, VectorConfig,
};
use crate::parameters::{Declarations, ParameterId, Parameters, Stage};
use crate::random::{Purpose, draws};

/// Length below which a vector has no direction.
const TINY: f64 = 1e-12;
/// Most latents that k-means looks at, for each centre.
const POINTS_A_CENTER: usize = 64;

/// Vector quantiser with a codebook of K codes.
#[derive(Debug)]
pub struct VectorQuantizer {
    config: VectorConfig,
    slot: Slot,
    /// Moving counts, `[K]`.
    counts_k: Tensor,
    store: Store,
}

/// Where the codes are.
#[derive(Debug)]
enum Store {
    /// Here, with the moving sums that they are made of; both `[K, D]`.
    Average { codes_kd: Tensor, sums_kd: Tensor },
    /// Among the parameters.
    Parameter(ParameterId),
}

impl VectorQuantizer {
    /// A codebook that is uniform in ±sqrt(6 / (K D)), small against latents, with each code
    /// counted once.
    pub fn new(config: &VectorConfig, slot: &Slot, to: &mut Declarations) -> Self {
        let (num_codes, dim) = (config.num_codes, config.code_dim);
        let bound = (6.0 / (num_codes * dim) as f64).sqrt();
        let store = match config.codebook {
            Codebook::Gradient => {
                let name = format!("{}.codebook", slot.name);
                Store::Parameter(to.declare(name, &[num_codes, dim], Stage::Quantizer, bound))
            }
            Codebook::Ema => {
                let mut generator = draws(slot.seed, Purpose::Codebook, 0, id(slot.level, 0));
                let values = generator.uniform(bound, (num_codes * dim) as usize);
                let codes_kd = Tensor::from_slice(&values).view([num_codes, dim]);
                let codes_kd = on_sphere(config, &codes_kd).to_kind(slot.kind).to(slot.device);
                Store::Average { sums_kd: codes_kd.copy(), codes_kd }
            }
        };
        Self {
            config: config.clone(),
            slot: slot.clone(),
            counts_k: Tensor::ones([num_codes], (slot.kind, slot.device)),
            store,
        }
    }

    /// The codes as latents are compared with them, `[K, D]`; with graph for a gradient codebook.
    pub fn codes(&self, parameters: &Parameters) -> Tensor {
        match &self.store {
            Store::Average { codes_kd, .. } => codes_kd.shallow_clone(),
            Store::Parameter(id) => on_sphere(&self.config, parameters.get(*id)),
        }
    }

    /// Replaces all codes `[K, D]`; each is counted `counts_k` times.
    pub fn set_codes(&mut self, parameters: &Parameters, codes_kd: &Tensor, counts_k: &Tensor) {
        self.counts_k.copy_(counts_k);
        match &mut self.store {
            Store::Average { codes_kd: codes, sums_kd: sums } => {
                codes.copy_(codes_kd);
                sums.copy_(&(codes_kd * counts_k.unsqueeze(1)));
            }
            Store::Parameter(id) => parameters.master(*id).copy_(codes_kd),
        }
    }

    /// Codes of an average from its sums and counts: e = M / ((N + eps) / (sum N + K eps) sum N),
    /// or M / |M| on the sphere. N itself stays unsmoothed.
    fn smooth(&mut self) {
        let Store::Average { codes_kd, sums_kd } = &mut self.store else { return };
        let new_kd = match self.config.distance {
            Distance::Euclidean => {
                let VectorConfig { epsilon, num_codes, .. } = self.config;
                let total = self.counts_k.sum(self.counts_k.kind());
                let scale = &total / (&total + num_codes as f64 * epsilon);
                let smoothed_k = (&self.counts_k + epsilon) * scale;
                &*sums_kd / smoothed_k.unsqueeze(1)
            }
            Distance::Cosine => {
                let has_direction_k1 = lengths(sums_kd).gt(TINY);
                unit(sums_kd).where_self(&has_direction_k1, codes_kd)
            }
        };
        codes_kd.copy_(&new_kd);
    }

    /// Whether this step replaces dead codes.
    fn replaces_in(&self, step: u64) -> bool {
        let every = self.config.replace_every;
        every != 0 && (step + 1).is_multiple_of(every)
    }

    fn takes_offers(&self) -> bool {
        self.config.replace_every != 0 && self.config.replace_with != ReplaceWith::Split
    }

    fn offers(&self, statistics: &Tensor) -> Tensor {
        let VectorConfig { num_codes, code_dim, .. } = self.config;
        let len = num_offers(num_codes) * code_dim;
        statistics.narrow(0, statistics.size()[0] - len, len).view([-1, code_dim])
    }

    fn offered(&self, place: &Place) -> Vec<usize> {
        let Slot { seed, level, .. } = self.slot;
        offered_tokens(seed, place.step, level, self.config.num_codes, place.num_tokens)
    }

    /// Counts, sums and offers of this rank's latents.
    fn add_statistics(&self, latents_nd: &Tensor, indices_n: &Tensor, place: &Place, sums: &Sums) {
        let VectorConfig { num_codes, code_dim, .. } = self.config;
        let mut counts_k = sums.counts.shallow_clone();
        let ones_n = indices_n.ones_like().to_kind(counts_k.kind());
        let _ = counts_k.index_add_(0, indices_n, &ones_n);
        if let Store::Average { .. } = self.store {
            let mut sums_kd =
                sums.statistics.narrow(0, 0, num_codes * code_dim).view([num_codes, code_dim]);
            let _ = sums_kd.index_add_(0, indices_n, latents_nd);
        }
        if self.takes_offers() && self.replaces_in(place.step) && place.offers {
            let mut offers_rd = self.offers(&sums.statistics);
            lay_out_tokens(&self.offered(place), place.mine.clone(), latents_nd, &mut offers_rd);
        }
    }

    /// Commitment and the codebook's own losses; with graph.
    fn losses(
        &self,
        latents_nd: &Tensor,
        indices_n: &Tensor,
        codes_kd: &Tensor,
        place: &Place,
    ) -> Tensor {
        let (config, kind) = (&self.config, latents_nd.kind());
        let count = place.num_tokens as f64 * config.code_dim as f64;
        let (mut commitment, mut codebook) = (config.commitment, 1.0);
        if config.legacy_commitment {
            std::mem::swap(&mut commitment, &mut codebook);
        }
        let codes_nd = codes_kd.index_select(0, indices_n);
        let error = (latents_nd - codes_nd.detach()).square().sum(kind);
        let mut loss = error * (commitment / count);
        if let Store::Parameter(_) = self.store {
            let error = (latents_nd.detach() - codes_nd).square().sum(kind);
            loss += error * (codebook / count);
        }
        if config.orthogonality > 0.0 {
            // The sum of squared cosines over all pairs is |E' E|^2, which is D x D.
            let units_kd = unit(codes_kd);
            let pairs = units_kd.tr().matmul(&units_kd).square().sum(kind);
            let num_codes = config.num_codes as f64;
            let mean = pairs / (num_codes * num_codes) - 1.0 / num_codes;
            loss += mean * (config.orthogonality * place.share());
        }
        loss
    }

    fn soft<'a>(&self, latents_nd: &'a Tensor, codes_kd: &'a Tensor) -> SoftAssignment<'a> {
        SoftAssignment { latents_nd, codes_kd, temperature: self.config.entropy_temperature }
    }

    /// The entropy loss, once the mean distribution is known.
    fn late(
        &self,
        latents_nd: &Tensor,
        codes_kd: &Tensor,
        place: &Place,
        sums: &Sums,
    ) -> Vec<LateLoss<'_>> {
        let VectorConfig { entropy, diversity, .. } = self.config;
        if entropy == 0.0 {
            return Vec::new();
        }
        let own_k = self.soft(latents_nd, codes_kd).probability_sums();
        let _ = sums.distribution.shallow_clone().g_add_(&own_k);
        let (latents_nd, codes_kd) = (latents_nd.shallow_clone(), codes_kd.shallow_clone());
        let num_tokens = place.num_tokens as f64;
        vec![Box::new(move |sums_k| {
            let loss = self.soft(&latents_nd, &codes_kd).loss(&(sums_k / num_tokens), diversity);
            loss * (entropy / num_tokens)
        })]
    }

    fn replace(&mut self, parameters: &Parameters, sums: &Sums, place: &Place) -> Updated {
        let VectorConfig { decay, replace_below, replace_with, .. } = self.config;
        let codes_kd = self.codes(parameters).detach();
        let codes = Codes { codes_kd, counts_k: self.counts_k.shallow_clone() };
        let Slot { seed, level, .. } = self.slot;
        let mut generator = draws(seed, Purpose::Replacement, place.step, (1 << 32) | level);
        let num_offered = self.offered(place).len() as i64;
        let offers = || self.offers(&sums.statistics).narrow(0, 0, num_offered);
        let Replacement { codes_kd, counts_k, changed_k, num_replaced } = match replace_with {
            ReplaceWith::Samples => codes.with_samples(replace_below, &offers()),
            ReplaceWith::Anchors => {
                // Each code began as counted once; what is left of that is no use.
                let began = decay.powf(place.step as f64 + 1.0);
                let use_k = (&self.counts_k - began).clamp_min(0.0) / place.num_tokens as f64;
                codes.with_anchors(decay, &use_k, &offers(), &mut generator)
            }
            ReplaceWith::Split => codes.with_halves(replace_below, &mut generator),
        };
        let codes_kd = on_sphere(&self.config, &codes_kd);
        self.counts_k.copy_(&counts_k);
        // Anchors move every code a little.
        let moved_k1 = match replace_with {
            ReplaceWith::Anchors => changed_k.ones_like().unsqueeze(1),
            _ => changed_k.unsqueeze(1),
        };
        let mut resets = Vec::new();
        match &mut self.store {
            Store::Average { codes_kd: codes, sums_kd } => {
                let new_kd = &codes_kd * counts_k.unsqueeze(1);
                sums_kd.copy_(&new_kd.where_self(&moved_k1, sums_kd));
                codes.copy_(&codes_kd.where_self(&moved_k1, codes));
            }
            Store::Parameter(id) => {
                let mut master_kd = parameters.master(*id);
                master_kd.copy_(&codes_kd.where_self(&moved_k1, &master_kd));
                resets.push((*id, changed_k));
            }
        }
        Updated { replaced: Some(num_replaced), resets }
    }

    /// Makes repeated codes distinct: adds uniform noise of 1 % of the codes' root mean square to
    /// every code from `first_repeated` on. The same on every rank.
    fn jitter_repeats(&self, codes_kd: &Tensor, first_repeated: i64) -> Tensor {
        let (num_codes, dim) = codes_kd.size2().expect("codes are [K, D]");
        let mut generator = draws(self.slot.seed, Purpose::Codebook, 0, id(self.slot.level, 2));
        let noise = generator.uniform(1.0, (num_codes * dim) as usize);
        let noise_kd = Tensor::from_slice(&noise)
            .view([num_codes, dim])
            .to_kind(codes_kd.kind())
            .to(codes_kd.device());
        let _ = noise_kd.narrow(0, 0, first_repeated.min(num_codes)).zero_();
        let scale = codes_kd.square().mean(codes_kd.kind()).sqrt() * 0.01;
        codes_kd + noise_kd * scale
    }
}

/// Keys of a level's draws for several ends; those of level 0 are 0, 1, 2.
fn id(level: u64, end: u64) -> u64 {
    level * 8 + end
}

fn lengths(rows_nd: &Tensor) -> Tensor {
    rows_nd.square().sum_dim_intlist([1i64].as_slice(), true, rows_nd.kind()).sqrt()
}

/// Rows of length one, with graph; a row of zeros stays.
pub(super) fn unit(rows_nd: &Tensor) -> Tensor {
    let squares = rows_nd.square().sum_dim_intlist([1i64].as_slice(), true, rows_nd.kind());
    rows_nd / squares.clamp_min(TINY * TINY).sqrt()
}

/// Rows as the distance sees them.
fn on_sphere(config: &VectorConfig, rows_nd: &Tensor) -> Tensor {
    match config.distance {
        Distance::Euclidean => rows_nd.shallow_clone(),
        Distance::Cosine => unit(rows_nd),
    }
}

impl Quantizer for VectorQuantizer {
    fn dim(&self) -> i64 {
        self.config.code_dim
    }

    fn num_codes(&self) -> Vec<i64> {
        vec![self.config.num_codes]
    }

    fn lens(&self) -> Lens {
        let VectorConfig { num_codes, code_dim, entropy, .. } = self.config;
        let is_average = matches!(self.store, Store::Average { .. });
        let rows = if is_average { num_codes } else { 0 }
            + if self.takes_offers() { num_offers(num_codes) } else { 0 };
        Lens {
            counts: num_codes,
            statistics: rows * code_dim,
            distribution: if entropy > 0.0 { num_codes } else { 0 },
        }
    }

    fn tokenize(&self, parameters: &Parameters, latents_nd: &Tensor) -> Tensor {
        let latents_nd = on_sphere(&self.config, &latents_nd.detach());
        nearest_code(&latents_nd, &self.codes(parameters).detach()).unsqueeze(1)
    }

    fn look_up(&self, parameters: &Parameters, indices_nl: &Tensor) -> Tensor {
        self.codes(parameters).detach().index_select(0, &indices_nl.select(1, 0))
    }

    fn forward(
        &self,
        parameters: &Parameters,
        latents_nd: &Tensor,
        place: &Place,
        sums: &Sums,
    ) -> Quantized<'_> {
        let latents_nd = on_sphere(&self.config, latents_nd);
        let codes_kd = self.codes(parameters);
        let (still_nd, still_kd) = (latents_nd.detach(), codes_kd.detach());
        let indices_n = match self.config.sample_temperature {
            0.0 => nearest_code(&still_nd, &still_kd),
            temperature => sampled_code(&still_nd, &still_kd, temperature, self.slot.seed, place),
        };
        self.add_statistics(&still_nd, &indices_n, place, sums);
        let loss = self.losses(&latents_nd, &indices_n, &codes_kd, place);
        let codes_nd = still_kd.index_select(0, &indices_n);
        Quantized {
            output_nd: self.config.gradient.apply(&latents_nd, &codes_nd),
            indices_nl: indices_n.unsqueeze(1),
            loss,
            late: self.late(&latents_nd, &codes_kd, place, sums),
        }
    }

    /// With decay g, counts n and sums s: N <- gN + (1-g)n, and for an average M <- gM + (1-g)s
    /// and new codes; then dead codes are replaced where the step is one that does.
    fn update(&mut self, parameters: &Parameters, sums: &Sums, place: &Place) -> Updated {
        let VectorConfig { decay, num_codes, code_dim, .. } = self.config;
        let _ = self.counts_k.lerp_(&sums.counts, 1.0 - decay);
        if let Store::Average { sums_kd, .. } = &mut self.store {
            let new_kd = sums.statistics.narrow(0, 0, num_codes * code_dim);
            let _ = sums_kd.lerp_(&new_kd.view([num_codes, code_dim]), 1.0 - decay);
        }
        self.smooth();
        if self.replaces_in(place.step) {
            return self.replace(parameters, sums, place);
        }
        Updated::default()
    }

    fn num_candidates(&self) -> usize {
        let num_codes = self.config.num_codes as usize;
        match self.config.codebook_init {
            CodebookInit::Uniform => 0,
            CodebookInit::Data => num_codes * (self.slot.level as usize + 1),
            CodebookInit::Kmeans => num_codes * POINTS_A_CENTER,
        }
    }

    fn initialize(&mut self, parameters: &Parameters, candidates_cd: &Tensor, num_tokens: usize) {
        let config = &self.config;
        let candidates_cd = on_sphere(config, &candidates_cd.detach());
        let num_candidates = candidates_cd.size()[0];
        let ones_k = self.counts_k.ones_like();
        let (codes_kd, counts_k) = match config.codebook_init {
            CodebookInit::Uniform => return,
            CodebookInit::Data => {
                // A level takes other tokens than those before it, whose residuals are zero.
                let first = self.slot.level as i64 * config.num_codes;
                let options = (Kind::Int64, candidates_cd.device());
                let rows_k =
                    (Tensor::arange(config.num_codes, options) + first).remainder(num_candidates);
                let codes_kd = candidates_cd.index_select(0, &rows_k);
                let codes_kd = self.jitter_repeats(&codes_kd, num_candidates);
                (on_sphere(config, &codes_kd), ones_k)
            }
            CodebookInit::Kmeans => {
                let mut generator =
                    draws(self.slot.seed, Purpose::Codebook, 1, id(self.slot.level, 0));
                let finish = |centers_kd: &Tensor| on_sphere(config, centers_kd);
                let iterations = config.kmeans_iterations;
                let found =
                    k_means(&candidates_cd, config.num_codes, iterations, finish, &mut generator);
                let tokens_a_candidate = num_tokens as f64 / num_candidates as f64;
                let counts_k = found.counts_k.clamp_min(1.0) * tokens_a_candidate;
                let codes_kd = self.jitter_repeats(&found.centers_kd, num_candidates);
                (on_sphere(config, &codes_kd), counts_k)
            }
        };
        self.set_codes(parameters, &codes_kd, &counts_k);
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = vec![("ema_counts", &self.counts_k)];
        if let Store::Average { codes_kd, sums_kd } = &self.store {
            state.extend([("codebook", codes_kd), ("ema_sums", sums_kd)]);
        }
        let name = |name| format!("{}.{name}", self.slot.name);
        state.into_iter().map(|(end, tensor)| (name(end), tensor.shallow_clone())).collect()
    }
}
