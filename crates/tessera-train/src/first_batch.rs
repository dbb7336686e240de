//! What a model learns from the first global batch before the first step: its first codes, and
//! the mean image value as the bias of its output. The same for every number of ranks.

use tch::Kind;
use tessera_comm::{Communicator, Piece, Reducer};
use tessera_data::Batch;
use tessera_nn::quantize::lay_out_tokens;
use tessera_nn::{VqVae, to_vectors};

use crate::batch::{batch_images, tokens_of};
use crate::error::TrainError;

/// Sets the output's bias, and the codebook where the configuration wants that, from the first
/// global batch. Collective: one sum.
///
/// The output starts at the mean value of each channel instead of at a random one, which a
/// reconstruction would first have to unlearn: the random bias alone decides whether the loss of
/// the first step is 0.13 or 0.26 on the reference workload.
///
/// Which tokens become codes depends on the seed and the number of tokens of the global batch;
/// the rank that holds such a token lays its latent into a buffer of zeros, and the sum over
/// ranks is the codebook. A rank without samples joins with zeros.
///
/// # Errors
///
/// [`TrainError::Comm`].
pub fn start_from(
    comm: &dyn Communicator,
    model: &mut VqVae,
    batch: &Batch,
) -> Result<(), TrainError> {
    let _no_grad = tch::no_grad_guard();
    let (num_tokens, mine) = tokens_of(model, batch);
    let tokens = model.quantizer.first_batch_tokens(num_tokens);
    let codes_kd = model.quantizer.codes_kd();
    let (kind, device) = (codes_kd.kind(), codes_kd.device());
    let (num_codes, dim) = codes_kd.size2().expect("codes are [K, D]");
    let num_offers = if tokens.is_some() { num_codes } else { 0 };
    let pieces = vec![
        Piece { name: "means", len: i64::from(batch.shape.channels) },
        Piece { name: "codes", len: num_offers * dim },
    ];
    let mut reducer = Reducer::new(pieces, kind, device);

    let images_nchw = batch_images(batch, kind, device);
    let pixels = (batch.global.end - batch.global.start) as f64
        * f64::from(batch.shape.height * batch.shape.width);
    let sums_c = images_nchw.sum_dim_intlist([0i64, 2, 3].as_slice(), false, Kind::Double);
    reducer.piece("means").copy_(&(sums_c / pixels));
    let mut codes_kd = reducer.piece("codes").view([num_offers, dim]);
    if let Some(tokens) = &tokens {
        let latents_nd = to_vectors(&model.encode(&images_nchw));
        lay_out_tokens(tokens, mine, &latents_nd, &mut codes_kd);
    }
    reducer.all_reduce(comm)?;
    model.set_output_bias(&reducer.piece("means"));
    if tokens.is_some() {
        let codes_kd = model.quantizer.jitter_repeats(&codes_kd, num_tokens);
        model.quantizer.set_codes(&codes_kd);
    }
    Ok(())
}
