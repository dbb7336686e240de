//! What a model learns from the first global batch before the first step: its first codes, and
//! the mean image value as the bias of its output. The same for every number of ranks. Where that
//! step is skipped, the next batch is the first one: everything is set anew.

use tch::Kind;
use tessera_comm::{Communicator, Piece, Reducer};
use tessera_data::Batch;
use tessera_nn::quantize::lay_out_tokens;
use tessera_nn::random::{Purpose, draws};
use tessera_nn::{VqVae, to_vectors};

use crate::batch::{batch_images, place_of};
use crate::error::TrainError;

/// Sets the output's bias, and the first codes where the configuration wants that, from the first
/// global batch. Collective: one sum.
///
/// The output starts at the mean value of each channel instead of at a random one, which a
/// reconstruction would first have to unlearn: the random bias alone decides whether the loss of
/// the first step is 0.13 or 0.26 on the reference workload.
///
/// Which tokens the quantiser gets to see for its first codes depends on the seed and the number
/// of tokens of the global batch; the rank that holds such a token lays its latent into a buffer
/// of zeros, and the sum over ranks holds them all. From there every rank does the same
/// arithmetic, k-means included. A rank without samples joins with zeros.
///
/// # Errors
///
/// [`TrainError::Comm`].
pub fn start_from<M: AsRef<[u8]>>(
    comm: &dyn Communicator,
    model: &mut VqVae,
    batch: &Batch<M>,
    seed: u64,
) -> Result<(), TrainError> {
    let _no_grad = tch::no_grad_guard();
    let (kind, device) = (model.kind(), model.device());
    let place = place_of(model, batch, 0);
    let num_candidates = model.quantizer.num_candidates().min(place.num_tokens);
    let dim = model.quantizer.dim();
    let pieces = vec![
        Piece { name: "means", len: i64::from(batch.shape.channels) },
        Piece { name: "candidates", len: num_candidates as i64 * dim },
    ];
    let mut reducer = Reducer::new(pieces, kind, device);

    let images_nchw = batch_images(batch, kind, device);
    let pixels = (batch.global.end - batch.global.start) as f64
        * f64::from(batch.shape.height * batch.shape.width);
    let sums_c = images_nchw.sum_dim_intlist([0i64, 2, 3].as_slice(), false, Kind::Double);
    reducer.piece("means").copy_(&(sums_c / pixels));
    let mut candidates_cd = reducer.piece("candidates").view([num_candidates as i64, dim]);
    if num_candidates > 0 {
        let tokens =
            draws(seed, Purpose::Codebook, 0, 1).distinct(num_candidates, place.num_tokens);
        let latents_nd = to_vectors(&model.encode(&images_nchw));
        lay_out_tokens(&tokens, place.mine.clone(), &latents_nd, &mut candidates_cd);
    }
    reducer.all_reduce(comm)?;
    model.set_output_bias(&reducer.piece("means"));
    if num_candidates > 0 {
        model.quantizer.initialize(&model.parameters, &candidates_cd, place.num_tokens);
        model.parameters.refresh();
    }
    Ok(())
}
