//! What an autoencoder learns from the first global batch: its first codes, and the mean of each channel as the bias of
//! its output.

use tch::{Kind, Tensor};
use tessera_comm::{Piece, Reducer};
use tessera_nn::parameters::Stage;
use tessera_nn::quantize::{Place, lay_out_tokens};
use tessera_nn::random::{Purpose, draws};
use tessera_nn::to_vectors;

use super::Autoencoder;
use crate::task::Part;

/// The mean of each channel.
const MEANS: &str = "means";
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
impl Autoencoder {
    pub(super) fn pieces_of_first(&self, whole: &Part) -> Vec<Piece> {
        let num_candidates = self.num_candidates(&self.place(whole)) as i64;
        vec![
            Piece { name: MEANS, len: whole.signal.channels() },
            Piece { name: CANDIDATES, len: num_candidates * self.model.quantizer.dim() },
        ]
    }

    pub(super) fn look_at_first(&self, part: &Part, sums: &Reducer) {
        let samples_nc = part.values(self.model.kind());
        let positions: i64 = part.signal.axes().iter().product();
        let along: Vec<i64> = (0..samples_nc.dim() as i64).filter(|axis| *axis != 1).collect();
        let sums_c = samples_nc.sum_dim_intlist(along.as_slice(), false, Kind::Double);
        let mut means_c = sums.piece(MEANS);
        means_c += (sums_c / (part.num_global as f64 * positions as f64)).to_kind(means_c.kind());
        let place = self.place(part);
        let num_candidates = self.num_candidates(&place);
        if num_candidates > 0 {
            let mut candidates_cd = self.candidates(sums);
            let tokens = draws(self.seed, Purpose::Codebook, 0, 1)
                .distinct(num_candidates, place.num_tokens);
            let latents_nd = to_vectors(&self.model.encode(&samples_nc));
            lay_out_tokens(&tokens, place.mine, &latents_nd, &mut candidates_cd);
        }
    }

    pub(super) fn start_from(&mut self, whole: &Part, sums: &Reducer, taken: &[Stage]) {
        if !taken.contains(&Stage::Decoder) {
            self.model.set_output_mean(&sums.piece(MEANS));
        }
        let place = self.place(whole);
        if self.num_candidates(&place) > 0 && !taken.contains(&Stage::Quantizer) {
            let candidates_cd = self.candidates(sums);
            let model = &mut self.model;
            model.quantizer.initialize(&model.parameters, &candidates_cd, place.num_tokens);
        }
    }

    fn num_candidates(&self, place: &Place) -> usize {
        self.model.quantizer.num_candidates().min(place.num_tokens)
    }

    fn candidates(&self, sums: &Reducer) -> Tensor {
        sums.piece(CANDIDATES).view([-1, self.model.quantizer.dim()])
    }
}
