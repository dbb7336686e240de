//! One optimiser step; every collective of a step, in order. There is one sum:
//!
//! 1. encoder forward, nearest codes, codebook statistics and offers to dead codes; where the
//!    communicator overlaps (NCCL), statistics and offers **begin to be summed** here
//! 2. decoder forward on a leaf: the straight-through estimator cuts the graph in two
//! 3. decoder backward: decoder gradients, and the gradient at the cut; where the communicator
//!    overlaps, decoder gradients **begin to be summed** here
//! 4. encoder backward from that gradient plus the commitment's, which is 2 beta (z - e) / N
//! 5. **all-reduce** of what is left of statistics, offers, gradients, loss, stop flag and desync
//!    check: over MPI all of it, in one call
//! 6. AdamW on the flat parameters, moving average of the codebook, dead codes replaced
//!
//! A rank's loss is its sum over the *global* count, so sums over ranks are exact means, and
//! parts may be unequal or empty. The reduced scalars of step s are looked at after step s + 1,
//! at the same place on every rank, so no rank waits for them.

use tch::Tensor;
use tessera_comm::Communicator;
use tessera_data::Batch;
use tessera_nn::parameters::Stage;
use tessera_nn::quantize::lay_out_tokens;
use tessera_nn::{VectorQuantizer, from_vectors, loss, to_vectors};

use crate::batch::{tokens_of, upload_images};
use crate::clock::{Clock, Lap};
use crate::error::TrainError;
use crate::scalars;
use crate::training::{StepInput, Training};
use tessera_control::Phase;

impl Training {
    /// Runs one step on this rank's part of a global batch. Returns the reduced scalars and the
    /// gradient's norm, still a tensor: [`crate::read_scalars`] reads them a step later.
    ///
    /// # Errors
    ///
    /// [`TrainError::Comm`]; the run is over then.
    pub fn step(
        &mut self,
        comm: &dyn Communicator,
        batch: &Batch,
        input: StepInput,
        clock: &mut Clock,
    ) -> Result<Tensor, TrainError> {
        let Self { model, optimizer, window, uploads, reducer } = self;
        let kind = reducer.piece("scalars").kind();
        let global = (batch.global.end - batch.global.start) as f64;
        clock.enter(Phase::Compute);
        let images_nchw = upload_images(uploads, batch, kind)?;
        clock.lap(Lap::Input);

        let latents_ndhw = model.encode(&images_nchw);
        clock.lap(Lap::Encode);
        let latents_nd = to_vectors(&latents_ndhw.detach());
        let indices_n = model.quantizer.assign(&latents_nd);
        let codes_nd = model.quantizer.look_up(&indices_n);
        clock.lap(Lap::Quantize);
        let (mut counts_k, sums) = (reducer.piece("counts"), reducer.piece("sums"));
        let mut sums_kd = sums.view(model.quantizer.codes_kd().size().as_slice());
        let statistics = VectorQuantizer::write_statistics;
        statistics(&latents_nd, &indices_n, &mut counts_k, &mut sums_kd);
        let (num_tokens, mine) = tokens_of(model, batch);
        let offered = model.quantizer.offered_tokens(input.step, num_tokens);
        let num_offers = model.quantizer.num_offers();
        let mut offers_rd = reducer.piece("offers").view([num_offers, sums_kd.size()[1]]);
        if let Some(tokens) = &offered {
            lay_out_tokens(tokens, mine, &latents_nd, &mut offers_rd);
        }
        reducer.send_early(comm, reducer.span("counts", "offers"))?;
        clock.lap(Lap::Statistics);

        let cut_ndhw = from_vectors(&codes_nd, &latents_ndhw).set_requires_grad(true);
        let num_pixels = global * batch.shape.num_bytes() as f64;
        let recon = loss::squared_error(&model.decode(&cut_ndhw), &images_nchw) / num_pixels;
        clock.lap(Lap::Decode);
        let mut inputs = model.parameters.leaves_of(Stage::Decoder);
        inputs.push(&cut_ndhw);
        let mut gradients = Tensor::f_run_backward(&[&recon], &inputs, false, false)?;
        let at_cut_ndhw = gradients.pop().expect("one gradient an input");
        let flat = reducer.piece("gradients");
        model.parameters.store_gradients(Stage::Decoder, &gradients, &flat);
        let (first, decoder) = (reducer.span("gradients", "gradients").start, Stage::Decoder);
        let decoder = model.parameters.range_of(decoder);
        reducer.send_early(comm, first + decoder.start..first + decoder.end)?;
        clock.lap(Lap::DecoderBackward);

        let config = model.quantizer.config();
        let weight = config.commitment / (num_tokens as f64 * config.code_dim as f64);
        let passed_nd =
            config.gradient.to_latents(&latents_nd, &codes_nd, &to_vectors(&at_cut_ndhw));
        let error_nd = latents_nd - codes_nd;
        let commitment = error_nd.square().sum(kind) * weight;
        let at_latents_nd = passed_nd + error_nd * (2.0 * weight);
        let root = (&latents_ndhw * from_vectors(&at_latents_nd, &latents_ndhw)).sum(kind);
        let inputs = model.parameters.leaves_of(Stage::Encoder);
        let gradients = Tensor::f_run_backward(&[root], &inputs, false, false)?;
        model.parameters.store_gradients(Stage::Encoder, &gradients, &flat);
        clock.lap(Lap::EncoderBackward);

        clock.enter(Phase::Reduce);
        let layout_hash = reducer.layout_hash();
        let mut scalars = reducer.piece("scalars");
        scalars::write(&mut scalars, model, input, layout_hash, &recon, &commitment);
        reducer.all_reduce(comm)?;
        clock.lap(Lap::Reduce);

        clock.enter(Phase::Compute);
        let mut parameters = model.parameters.flat().shallow_clone();
        let norm = optimizer.step(input.step, input.factor, &mut parameters, &flat);
        model.parameters.refresh();
        clock.lap(Lap::Optimizer);
        model.quantizer.update(&counts_k, &sums_kd);
        if let Some(tokens) = &offered {
            model.quantizer.replace_dead(&offers_rd, tokens.len());
        }
        window.add(&scalars, &norm, &counts_k);
        clock.lap(Lap::CodebookUpdate);
        Ok(scalars::with_norm(&scalars, &norm))
    }
}
