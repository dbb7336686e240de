//! Vector quantiser with a codebook, learned by moving average or by gradient.
//!
//! Follows van den Oord et al. 2017 (<https://arxiv.org/abs/1711.00937>): section 3.2 for the
//! gradient codebook, appendix A.1 for the moving average, with Laplace smoothing of the counts.
//! With the cosine distance, latents and codes are on the unit sphere (Yu et al. 2021,
//! <https://arxiv.org/abs/2110.04627>, section 3.2); with `cosine_search` they are only compared
//! there, and the outputs are the codes as they are (DAC, Kumar et al. 2023,
//! <https://arxiv.org/abs/2306.06546>). Optional are the entropy loss (`entropy.rs`),
//! codes drawn at random (`sample.rs`), dead codes replaced (`replace.rs`), and codes kept apart:
//! the mean squared cosine between all pairs (Shin et al. 2021,
//! <https://arxiv.org/abs/2112.00384>, equation 2).
//!
//! Everything that many ranks need is in [`Sums`]; this module never communicates.

use tch::Tensor;

use super::entropy::SoftAssignment;
use super::first_codes::{first_codes, id, num_candidates};
use super::nearest::nearest_code;
use super::replace::{Codes, Replacement, num_offered, num_offers, offered_tokens};
use super::sample::sampled_code;
use super::tokens::lay_out_tokens;
use super::{
    Codebook, Distance, LateLoss, Lens, Place, Quantized, Quantizer, ReplaceWith, Slot, Sums,
    Updated, VectorConfig,
};
use crate::graph::{MIN_LENGTH, Rule};
use crate::parameters::{Declarations, Init, ParameterId, Parameters, Role, Stage};
use crate::random::{Purpose, draws};

/// Vector quantiser with a codebook of K codes.
#[derive(Debug)]
pub struct VectorQuantizer {
    config: VectorConfig,
    slot: Slot,
    /// Moving counts, `[K]`.
    counts_k: Tensor,
    /// Moving average of each code's part of all tokens, `[K]`, from zero; for anchors.
    use_k: Option<Tensor>,
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
                Store::Parameter(to.declare(
                    name,
                    &[num_codes, dim],
                    Stage::Quantizer,
                    Role::Codebook,
                    Init::Uniform(bound),
                ))
            }
            Codebook::Ema => {
                let mut generator = draws(slot.seed, Purpose::Codebook, 0, id(slot.level, 0));
                let values = generator.uniform(bound, (num_codes * dim) as usize);
                let codes_kd = Tensor::from_slice(&values).view([num_codes, dim]);
                let codes_kd = on_sphere(config, &codes_kd).to_kind(slot.kind).to(slot.device);
                Store::Average { sums_kd: codes_kd.copy(), codes_kd }
            }
        };
        let counts_k = Tensor::ones([num_codes], (slot.kind, slot.device));
        let has_anchors = config.replace_every != 0 && config.replace_with == ReplaceWith::Anchors;
        Self {
            config: config.clone(),
            slot: slot.clone(),
            use_k: has_anchors.then(|| counts_k.zeros_like()),
            counts_k,
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
        if let Some(use_k) = &mut self.use_k {
            let _ = use_k.zero_();
        }
        match &mut self.store {
            Store::Average { codes_kd: codes, sums_kd: sums } => {
                codes.copy_(codes_kd);
                sums.copy_(&(codes_kd * counts_k.unsqueeze(1)));
            }
            Store::Parameter(id) => parameters.master(*id).copy_(codes_kd),
        }
    }

    /// Codes of an average from its sums and counts: e = M / ((N + eps) / (sum N + K eps) sum N),
    /// or M / |M| on the sphere. N itself stays unsmoothed. A code that no latent of the step took
    /// (`[K]` bool) stays where it is: M and N vanish alike, and what is left of them beside eps is
    /// no mean of anything.
    fn smooth(&mut self, is_taken_k: &Tensor) {
        let Store::Average { codes_kd, sums_kd } = &mut self.store else { return };
        let new_kd = match self.config.distance {
            Distance::Euclidean | Distance::CosineSearch => {
                let VectorConfig { epsilon, num_codes, .. } = self.config;
                let total = self.counts_k.sum(self.counts_k.kind());
                let scale = &total / (&total + num_codes as f64 * epsilon);
                let smoothed_k = (&self.counts_k + epsilon) * scale;
                &*sums_kd / smoothed_k.unsqueeze(1)
            }
            Distance::Cosine => {
                let has_direction_k1 = lengths(sums_kd).gt(MIN_LENGTH);
                unit(sums_kd).where_self(&has_direction_k1, codes_kd)
            }
        };
        codes_kd.copy_(&new_kd.where_self(&is_taken_k.unsqueeze(1), codes_kd));
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
        sums.count(indices_n);
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
        codes_nd: &Tensor,
        codes_kd: &Tensor,
        place: &Place,
    ) -> Tensor {
        let (config, kind) = (&self.config, latents_nd.kind());
        let count = place.num_tokens as f64 * config.code_dim as f64;
        let (mut commitment, mut codebook) = (config.commitment, 1.0);
        if config.legacy_commitment {
            std::mem::swap(&mut commitment, &mut codebook);
        }
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

    /// Rows as the search compares them.
    fn compared(&self, rows_nd: &Tensor) -> Tensor {
        match self.config.distance {
            Distance::CosineSearch => unit(rows_nd),
            Distance::Euclidean | Distance::Cosine => rows_nd.shallow_clone(),
        }
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
        let (latents_nd, codes_kd) = (self.compared(latents_nd), self.compared(codes_kd));
        let own_k = self.soft(&latents_nd, &codes_kd).probability_sums();
        let _ = sums.distribution.shallow_clone().g_add_(&own_k);
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
        let offers = || {
            let num = num_offered(self.config.num_codes, place.num_tokens) as i64;
            self.offers(&sums.statistics).narrow(0, 0, num)
        };
        let Replacement { codes_kd, counts_k, changed_k, num_replaced } = match replace_with {
            ReplaceWith::Samples => codes.with_samples(replace_below, &offers()),
            ReplaceWith::Anchors => {
                let use_k = self.use_k.as_ref().expect("anchors count use");
                codes.with_anchors(decay, use_k, &offers(), &mut generator)
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
}

fn lengths(rows_nd: &Tensor) -> Tensor {
    rows_nd.norm_scalaropt_dim(2, [1i64], true)
}

/// Rows of length one, with graph; a row of zeros stays.
pub(super) fn unit(rows_nd: &Tensor) -> Tensor {
    // The gradient of a product takes fewer passes than that of a quotient.
    let lengths_n1 = lengths(rows_nd).clamp_min(MIN_LENGTH);
    // One over an infinite length would make a row of zeros of what has overflowed.
    rows_nd * lengths_n1.masked_fill(&lengths_n1.isinf(), f64::NAN).reciprocal()
}

/// Rows as the distance sees them.
pub(super) fn on_sphere(config: &VectorConfig, rows_nd: &Tensor) -> Tensor {
    match config.distance {
        Distance::Euclidean | Distance::CosineSearch => rows_nd.shallow_clone(),
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
        let codes_kd = self.codes(parameters).detach();
        nearest_code(&self.compared(&latents_nd), &self.compared(&codes_kd)).unsqueeze(1)
    }

    fn look_up(&self, parameters: &Parameters, indices_nl: &Tensor) -> Tensor {
        self.codes(parameters).detach().index_select(0, &indices_nl.select(1, 0))
    }

    fn rule(&self, parameters: &Parameters) -> Result<Rule, String> {
        let codes_kd = self.codes(parameters).detach();
        let is_unit = self.config.distance != Distance::Euclidean;
        Ok(Rule::Nearest { compared_kd: self.compared(&codes_kd), codes_kd, is_unit })
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
        let still_nd = latents_nd.detach();
        let (seen_nd, seen_kd) = (self.compared(&still_nd), self.compared(&codes_kd.detach()));
        let indices_n = match self.config.sample_temperature {
            0.0 => nearest_code(&seen_nd, &seen_kd),
            temperature => sampled_code(&seen_nd, &seen_kd, temperature, self.slot.seed, place),
        };
        self.add_statistics(&still_nd, &indices_n, place, sums);
        let codes_nd = codes_kd.index_select(0, &indices_n);
        Quantized {
            output_nd: codes_nd.detach(),
            path: self.config.gradient.path(&latents_nd, &codes_nd),
            indices_nl: indices_n.unsqueeze(1),
            loss: self.losses(&latents_nd, &codes_nd, &codes_kd, place),
            late: self.late(&latents_nd, &codes_kd, place, sums),
        }
    }

    /// With decay g, counts n and sums s: N <- gN + (1-g)n, and for an average M <- gM + (1-g)s
    /// and new codes; then dead codes are replaced where the step is one that does.
    fn update(&mut self, parameters: &Parameters, sums: &Sums, place: &Place) -> Updated {
        let VectorConfig { decay, num_codes, code_dim, .. } = self.config;
        let _ = self.counts_k.lerp_(&sums.counts, 1.0 - decay);
        if let Some(use_k) = &mut self.use_k {
            let total = sums.counts.sum(sums.counts.kind()).clamp_min(1.0);
            let _ = use_k.lerp_(&(&sums.counts / total), 1.0 - decay);
        }
        if let Store::Average { sums_kd, .. } = &mut self.store {
            let new_kd = sums.statistics.narrow(0, 0, num_codes * code_dim);
            let _ = sums_kd.lerp_(&new_kd.view([num_codes, code_dim]), 1.0 - decay);
        }
        self.smooth(&sums.counts.gt(0.0));
        if self.replaces_in(place.step) && place.num_tokens > 0 {
            return self.replace(parameters, sums, place);
        }
        Updated::default()
    }

    fn num_candidates(&self) -> usize {
        num_candidates(&self.config, &self.slot)
    }

    fn initialize(&mut self, parameters: &Parameters, candidates_cd: &Tensor, num_tokens: usize) {
        let candidates_cd = on_sphere(&self.config, &candidates_cd.detach());
        let first = first_codes(&self.config, &self.slot, &candidates_cd, num_tokens);
        if let Some((codes_kd, counts_k)) = first {
            self.set_codes(parameters, &codes_kd, &counts_k);
        }
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = vec![("ema_counts", &self.counts_k)];
        state.extend(self.use_k.as_ref().map(|use_k| ("ema_use", use_k)));
        if let Store::Average { codes_kd, sums_kd } = &self.store {
            state.extend([("codebook", codes_kd), ("ema_sums", sums_kd)]);
        }
        let name = |name| format!("{}.{name}", self.slot.name);
        state.into_iter().map(|(end, tensor)| (name(end), tensor.shallow_clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kinds;
    use tch::{Device, Kind};

    fn column(values: &[f64]) -> Tensor {
        Tensor::from_slice(values).view([-1, 1])
    }

    fn built(config: VectorConfig) -> (VectorQuantizer, Parameters) {
        let mut declarations = Declarations::default();
        let slot = Slot::root(0, Kind::Double, Device::Cpu);
        let quantizer = VectorQuantizer::new(&config, &slot, &mut declarations);
        (quantizer, declarations.allocate(0, Kinds::same(Kind::Double), Device::Cpu))
    }

    /// The codes 0 and 10, each counted once, after one step on these latents.
    fn after(latents: &[f64]) -> Vec<f64> {
        let config =
            VectorConfig { num_codes: 2, code_dim: 1, decay: 0.5, ..VectorConfig::default() };
        let (mut quantizer, parameters) = built(config);
        let ones_k = quantizer.counts_k.ones_like();
        quantizer.set_codes(&parameters, &column(&[0.0, 10.0]), &ones_k);
        let sums = Sums::zeros(quantizer.lens(), Kind::Double, Device::Cpu);
        let place = Place::new(0, latents.len(), 0..latents.len());
        drop(quantizer.forward(&parameters, &column(latents), &place, &sums));
        let _ = quantizer.update(&parameters, &sums, &place);
        Vec::try_from(quantizer.codes(&parameters).flatten(0, 1)).unwrap()
    }

    /// By hand: code 0 takes {1, 2}, code 1 takes {9, 12}. Counts 0.5*1 + 0.5*2 = 1.5 each, sums
    /// 0.5*0 + 0.5*3 = 1.5 and 0.5*10 + 0.5*21 = 15.5; with S = 3 and eps = 1e-5 the smoothed
    /// count is (1.5 + 1e-5) / (3 + 2e-5) * 3 = 1.5.
    #[test]
    fn one_update_is_the_papers_arithmetic() {
        let codes = after(&[1.0, 2.0, 9.0, 12.0]);
        assert!((codes[0] - 1.0).abs() < 1e-12, "{codes:?}");
        assert!((codes[1] - 15.5 / 1.5).abs() < 1e-12, "{codes:?}");
    }

    /// Code 1 at 10 is unused while code 0 takes 2; `tests/dead_codes.rs` has many steps of it.
    #[test]
    fn an_unused_code_stays_where_it_is() {
        assert_eq!(after(&[1.0, 2.0])[1], 10.0);
    }

    /// Five codes for two latents: the first two are those, the others lie near one of them.
    #[test]
    fn repeated_first_codes_are_made_distinct() {
        let config = VectorConfig { num_codes: 5, code_dim: 1, ..VectorConfig::default() };
        let (mut quantizer, parameters) = built(config);
        quantizer.initialize(&parameters, &column(&[3.0, -3.0]), 2);
        let codes: Vec<f64> = Vec::try_from(quantizer.codes(&parameters).flatten(0, 1)).unwrap();
        assert_eq!(codes[..2], [3.0, -3.0]);
        for (code, center) in [(codes[2], 3.0), (codes[3], -3.0), (codes[4], 3.0)] {
            assert!(code != center && (code - center).abs() <= 0.03, "{codes:?}");
        }
    }

    /// On the sphere by hand: code (1, 0) takes (0.6, 0.8); M = 0.5 (1, 0) + 0.5 (0.6, 0.8).
    #[test]
    fn codes_on_the_sphere_have_length_one() {
        let config = VectorConfig {
            num_codes: 2,
            code_dim: 2,
            decay: 0.5,
            distance: Distance::Cosine,
            ..VectorConfig::default()
        };
        let (mut quantizer, parameters) = built(config);
        let codes_kd = Tensor::from_slice(&[1.0, 0.0, -1.0, 0.0]).view([2, 2]);
        let ones_k = quantizer.counts_k.ones_like();
        quantizer.set_codes(&parameters, &codes_kd, &ones_k);
        let sums = Sums::zeros(quantizer.lens(), Kind::Double, Device::Cpu);
        let (latents_nd, place) =
            (Tensor::from_slice(&[6.0, 8.0]).view([1, 2]), Place::new(0, 1, 0..1));
        drop(quantizer.forward(&parameters, &latents_nd, &place, &sums));
        let _ = quantizer.update(&parameters, &sums, &place);
        let codes: Vec<f64> = Vec::try_from(quantizer.codes(&parameters).flatten(0, 1)).unwrap();
        let length = (0.8f64 * 0.8 + 0.4 * 0.4).sqrt();
        for (found, expected) in codes.iter().zip([0.8 / length, 0.4 / length, -1.0, 0.0]) {
            assert!((found - expected).abs() < 1e-12, "{codes:?}");
        }
    }
}
