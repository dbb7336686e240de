//! What an autoencoder learns from the first global batch: its first codes, and the mean image value as the bias of its
//! output.

use tch::{Kind, Tensor};
use tessera_comm::{Piece, Reducer};
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
            Piece { name: MEANS, len: i64::from(whole.shape.channels) },
            Piece { name: CANDIDATES, len: num_candidates * self.model.quantizer.dim() },
        ]
    }

    pub(super) fn look_at_first(&self, part: &Part, sums: &Reducer) {
        let images_nchw = self.images(part);
        let pixels = part.num_global as f64 * f64::from(part.shape.height * part.shape.width);
        let sums_c = images_nchw.sum_dim_intlist([0i64, 2, 3].as_slice(), false, Kind::Double);
        let mut means_c = sums.piece(MEANS);
        means_c += (sums_c / pixels).to_kind(means_c.kind());
        let place = self.place(part);
        let num_candidates = self.num_candidates(&place);
        if num_candidates > 0 {
            let mut candidates_cd = self.candidates(sums);
            let tokens = draws(self.seed, Purpose::Codebook, 0, 1)
                .distinct(num_candidates, place.num_tokens);
            let latents_nd = to_vectors(&self.model.encode(&images_nchw));
            lay_out_tokens(&tokens, place.mine, &latents_nd, &mut candidates_cd);
        }
    }

    pub(super) fn start_from(&mut self, whole: &Part, sums: &Reducer) {
        self.model.set_output_mean(&sums.piece(MEANS));
        let place = self.place(whole);
        if self.num_candidates(&place) > 0 {
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
