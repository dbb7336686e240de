//! What an autoencoder learns from the first global batch: its first codes, and the mean of each channel as the bias of
//! its output.

use tch::{Kind, Tensor};
use tessera_comm::{Piece, Reducer};
use tessera_nn::parameters::Stage;
use tessera_nn::quantize::lay_out_tokens;
use tessera_nn::random::{Purpose, draws};
use tessera_nn::to_vectors;

use super::Autoencoder;
use crate::task::Part;

/// The mean of each channel.
const MEANS: &str = "means";
/// The mean of all values' squares, where a loss is told by their variance.
const SQUARES: &str = "squares";
/// Latents that may become first codes.
const CANDIDATES: &str = "candidates";

/// The output starts at the mean value of each channel instead of at a random one, which a
/// reconstruction would first have to unlearn: the random bias alone decides whether the loss of
/// the first step is 0.13 or 0.26 on the reference workload.
///
/// Which tokens the quantiser gets to see for its first codes depends on the seed and the number
/// of tokens of the global batch; the rank that holds such a token lays its latent into a buffer
/// of zeros, and the sum over ranks holds them all. From there every rank does the same
/// arithmetic, k-means included.
///
/// Where there are several levels, those below the coarsest see latents that are made of the coarser ones' latents, not of
/// their codes, which there are none of yet.
impl Autoencoder {
    pub(super) fn pieces_of_first(&self, whole: &Part) -> Vec<Piece> {
        let values = (0..self.model.quantizers.len())
            .map(|level| self.num_candidates(level, whole) * self.model.quantizers[level].dim());
        vec![
            Piece { name: MEANS, len: whole.signal.channels() },
            Piece { name: CANDIDATES, len: values.sum() },
            Piece { name: SQUARES, len: i64::from(self.objective.needs_variance()) },
        ]
    }

    pub(super) fn look_at_first(&self, part: &Part, sums: &Reducer) {
        let samples_nc = part.values(self.model.kind());
        let positions: i64 = part.signal.axes().iter().product();
        let along: Vec<i64> = (0..samples_nc.dim() as i64).filter(|axis| *axis != 1).collect();
        let sums_c = samples_nc.sum_dim_intlist(along.as_slice(), false, Kind::Double);
        let mut means_c = sums.piece(MEANS);
        means_c += (sums_c / (part.num_global as f64 * positions as f64)).to_kind(means_c.kind());
        if self.objective.needs_variance() {
            let num_values = part.num_global as f64 * part.signal.num_values() as f64;
            let mut squares = sums.piece(SQUARES);
            let sum = samples_nc.to_kind(Kind::Double).square().sum(Kind::Double);
            squares += (sum / num_values).to_kind(squares.kind());
        }
        let levels = 0..self.model.quantizers.len();
        if levels.clone().all(|level| self.num_candidates(level, part) == 0) {
            return;
        }
        let latents = self.model.latents(&samples_nc);
        for (level, mut candidates_cd) in levels.zip(self.candidates(part, sums)) {
            let (place, wanted) = (self.place(level, part), candidates_cd.size()[0]);
            if wanted > 0 {
                let mut draws = draws(self.seed, Purpose::Codebook, level as u64, 1);
                let tokens = draws.distinct(wanted as usize, place.num_tokens);
                let latents_nd = to_vectors(&latents[level]);
                lay_out_tokens(&tokens, place.mine, &latents_nd, &mut candidates_cd);
            }
        }
    }

    pub(super) fn start_from(&mut self, whole: &Part, sums: &Reducer, taken: &[Stage]) {
        if !taken.contains(&Stage::Decoder) {
            self.model.set_output_mean(&sums.piece(MEANS));
        }
        if self.objective.needs_variance() {
            let mean = sums.piece(MEANS).mean(Kind::Double);
            self.objective.begin(&mean, &sums.piece(SQUARES).get(0).to_kind(Kind::Double));
        }
        if taken.contains(&Stage::Quantizer) {
            return;
        }
        for (level, candidates_cd) in self.candidates(whole, sums).into_iter().enumerate() {
            let num_tokens = self.place(level, whole).num_tokens;
            if candidates_cd.size()[0] > 0 {
                let model = &mut self.model;
                let quantizer = &mut model.quantizers[level];
                quantizer.initialize(&model.parameters, &candidates_cd, num_tokens);
            }
        }
    }

    /// Latents of a level that may become first codes.
    fn num_candidates(&self, level: usize, part: &Part) -> i64 {
        let wanted = self.model.quantizers[level].num_candidates();
        wanted.min(self.place(level, part).num_tokens) as i64
    }

    /// The candidates `[C, D]` of each level.
    fn candidates(&self, part: &Part, sums: &Reducer) -> Vec<Tensor> {
        let (all, mut start) = (sums.piece(CANDIDATES), 0);
        let mut of_levels = Vec::new();
        for (level, quantizer) in self.model.quantizers.iter().enumerate() {
            let (num, dim) = (self.num_candidates(level, part), quantizer.dim());
            of_levels.push(all.narrow(0, start, num * dim).view([num, dim]));
            start += num * dim;
        }
        of_levels
    }
}
