//! The first codes: latents of the first global batch, the same for every number of ranks.

use tch::Tensor;
use tessera_comm::Communicator;
use tessera_data::Batch;
use tessera_nn::{VqVae, to_vectors};

use crate::error::TrainError;
use crate::step::batch_images;

/// Sets the codebook from the first global batch, where the configuration wants that. Collective.
///
/// Which tokens become codes depends on the seed and the number of tokens of the *global* batch;
/// the rank that holds such a token lays its latent into a buffer of zeros, and the sum over
/// ranks is the codebook. A rank without samples joins with zeros.
///
/// # Errors
///
/// [`TrainError::Comm`].
pub(crate) fn initialize(
    comm: &dyn Communicator,
    model: &mut VqVae,
    batch: &Batch,
    seed: u64,
) -> Result<(), TrainError> {
    let _no_grad = tch::no_grad_guard();
    let shape = batch.shape;
    let positions = model.num_positions(i64::from(shape.height), i64::from(shape.width)) as usize;
    let num_tokens = (batch.global.end - batch.global.start) as usize * positions;
    let Some(tokens) = model.quantizer.first_batch_tokens(seed, num_tokens) else { return Ok(()) };

    let first = (batch.positions.start - batch.global.start) as usize * positions;
    let mine = first..first + batch.num_samples() * positions;
    let codes_kd = model.quantizer.codes_kd().zeros_like();
    let images = batch_images(batch, codes_kd.kind(), codes_kd.device());
    let latents_nd = to_vectors(&model.encode(&images));
    for (code, token) in tokens.iter().enumerate() {
        if mine.contains(token) {
            codes_kd.get(code as i64).copy_(&latents_nd.get((token - first) as i64));
        }
    }
    let codes_kd: Tensor = comm.all_reduce(codes_kd)?.wait()?;
    let codes_kd = model.quantizer.jitter_repeats(seed, &codes_kd, num_tokens);
    model.quantizer.set_codes(&codes_kd);
    Ok(())
}
