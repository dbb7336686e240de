//! Forward and backward of a part of the batch:
//!
//! 1. encoder and quantiser forward, statistics and offers to dead codes, which are ready to be summed then
//! 2. decoder forward on a leaf made from the codes: the estimator cuts the graph in two
//! 3. decoder backward: decoder gradients, ready to be summed then, and the gradient at the cut
//! 4. where a loss is of the whole batch's distribution over codes (entropies), that distribution has to be whole
//! 5. encoder and quantiser backward, from the gradient at the cut and the quantiser's losses
//!
//! A loss is the part's sum over the *global* count, so sums over parts and ranks are exact means, and parts may be
//! unequal or empty.

use tch::Tensor;
use tessera_nn::parameters::Stage;
use tessera_nn::quantize::{self, Quantized};
use tessera_nn::{from_vectors, loss, to_vectors};

use super::{Autoencoder, BACKWARD, FORWARD, Part, Phase};
use crate::engine::step::Sums;
use crate::error::TrainError;

/// How often each code was taken.
pub(super) const COUNTS: &str = "counts";
/// Sums of latents, offers to dead codes.
pub(super) const STATISTICS: &str = "statistics";
/// The batch's distribution over codes.
pub(super) const DISTRIBUTION: &str = "distribution";

const ENCODE: usize = 0;
const QUANTIZE: usize = 1;
const DECODE: usize = 2;
const DECODER_BACKWARD: usize = 3;
const ENCODER_BACKWARD: usize = 4;

/// What is timed by itself, in the order of the numbers above.
pub(super) const PHASES: [Phase; 5] = [
    Phase { name: "encoder forward", ends: None },
    Phase { name: "quantiser forward", ends: None },
    Phase { name: "decoder forward, loss", ends: FORWARD },
    Phase { name: "decoder backward", ends: None },
    Phase { name: "encoder, quantiser backward", ends: BACKWARD },
];

/// The buffers of a quantiser.
fn buffers(sums: &Sums<'_>) -> quantize::Sums {
    quantize::Sums {
        counts: sums.piece(COUNTS),
        statistics: sums.piece(STATISTICS),
        distribution: sums.piece(DISTRIBUTION),
    }
}

impl Autoencoder {
    pub(super) fn survey_distribution(&self, part: &Part, sums: &mut Sums<'_>) {
        let model = &self.model;
        let latents_nd = to_vectors(&model.encode(&self.images(part)));
        let place = self.place(part);
        drop(model.quantizer.forward(&model.parameters, &latents_nd, &place, &buffers(sums)));
    }

    pub(super) fn forward_and_backward(
        &self,
        part: &Part,
        sums: &mut Sums<'_>,
    ) -> Result<Vec<Tensor>, TrainError> {
        let model = &self.model;
        let images_nchw = self.images(part);
        let latents_ndhw = model.encode(&images_nchw);
        sums.lap(ENCODE);
        let (place, buffers) = (self.place(part), buffers(sums));
        let latents_nd = to_vectors(&latents_ndhw);
        let Quantized { output_nd, path, loss: mut quantizer_loss, late, indices_nl: _ } =
            model.quantizer.forward(&model.parameters, &latents_nd, &place, &buffers);
        // A quantiser may make a plain code of a latent that is not finite.
        quantizer_loss += loss::zero_if_finite(&latents_nd);
        sums.ready(&[COUNTS, STATISTICS, DISTRIBUTION])?;
        sums.lap(QUANTIZE);

        let cut_ndhw = from_vectors(&output_nd, &latents_ndhw).set_requires_grad(true);
        let num_pixels = part.num_global as f64 * part.shape.num_bytes() as f64;
        let recon = loss::squared_error(&model.decode(&cut_ndhw), &images_nchw) / num_pixels;
        sums.lap(DECODE);
        let mut inputs = model.parameters.leaves_of(Stage::Decoder);
        inputs.push(&cut_ndhw);
        let mut gradients = Tensor::f_run_backward(&[&recon], &inputs, false, false)?;
        let at_cut_ndhw = gradients.pop().expect("one gradient an input");
        sums.add_gradients(&model.parameters, Stage::Decoder, &gradients);
        sums.ready_gradients(&model.parameters, Stage::Decoder)?;
        sums.lap(DECODER_BACKWARD);

        if !late.is_empty() {
            let distribution = sums.whole(DISTRIBUTION)?;
            for loss in late {
                quantizer_loss += loss(&distribution);
            }
        }
        let root = path.root(&to_vectors(&at_cut_ndhw)) + &quantizer_loss;
        let quantizers = model.parameters.leaves_of(Stage::Quantizer);
        let encoders = model.parameters.leaves_of(Stage::Encoder);
        let inputs: Vec<&Tensor> = quantizers.iter().chain(&encoders).copied().collect();
        let gradients = Tensor::f_run_backward(&[root], &inputs, false, false)?;
        let (at_quantizer, at_encoder) = gradients.split_at(quantizers.len());
        sums.add_gradients(&model.parameters, Stage::Quantizer, at_quantizer);
        sums.add_gradients(&model.parameters, Stage::Encoder, at_encoder);
        sums.lap(ENCODER_BACKWARD);
        Ok(vec![recon, quantizer_loss])
    }
}
