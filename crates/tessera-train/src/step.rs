//! One optimiser step; every collective of a step, in order. There is one sum:
//!
//! 1. encoder and quantiser forward, statistics and offers to dead codes; where the communicator
//!    overlaps (NCCL), these **begin to be summed** here
//! 2. decoder forward on a leaf made from the codes: the estimator cuts the graph in two
//! 3. decoder backward: decoder gradients, and the gradient at the cut; where the communicator
//!    overlaps, decoder gradients **begin to be summed** here
//! 4. where a loss is of the whole batch's distribution over codes (entropies), that distribution
//!    **is summed** here, the one sum that the rest has to wait for
//! 5. encoder and quantiser backward, from the gradient at the cut and the quantiser's losses
//! 6. **all-reduce** of what is left of statistics, gradients, losses, stop flag and desync check:
//!    over MPI all of it, in one call
//! 7. where loss or gradient are not finite, no rank goes on; AdamW on the flat parameters, then the quantiser's own update, dead codes replaced
//!
//! A rank's loss is its sum over the *global* count, so sums over ranks are exact means, and
//! parts may be unequal or empty. The reduced scalars of step s are looked at after step s + 1,
//! at the same place on every rank, so no rank waits for them.

use tch::{Kind, Tensor};
use tessera_comm::{Communicator, HostBytes};
use tessera_data::Batch;
use tessera_nn::parameters::Stage;
use tessera_nn::quantize::Quantized;
use tessera_nn::{from_vectors, loss, to_vectors};

use crate::batch::{place_of, upload_images};
use crate::clock::{Clock, Lap};
use crate::error::TrainError;
use crate::scalars::{self, NotFinite};
use crate::training::{StepInput, Training};
use tessera_control::Phase;

/// What became of a step, the same on every rank.
#[derive(Debug)]
pub enum Stepped {
    /// The reduced scalars and the gradient's norm, still a tensor: [`crate::read_scalars`] reads
    /// them a step later.
    Done(Tensor),
    /// Loss or gradient are not finite, and nothing was changed.
    Skipped(NotFinite),
}

impl Training {
    /// Runs one step on this rank's part of a global batch. A step whose loss or gradient is not
    /// finite changes nothing, where that is to be checked. On a GPU
    /// the batch's memory stays behind, and it gets that of the step before the last.
    ///
    /// # Errors
    ///
    /// [`TrainError::Comm`]; the run is over then.
    pub fn step(
        &mut self,
        comm: &dyn Communicator,
        batch: &mut Batch<HostBytes>,
        input: StepInput,
        clock: &mut Clock,
    ) -> Result<Stepped, TrainError> {
        let Self { model, optimizer, window, uploads, reducer } = self;
        let kind = model.kind();
        clock.enter(Phase::Compute);
        let images_nchw = upload_images(uploads, batch, kind)?;
        clock.lap(Lap::Input);

        let latents_ndhw = model.encode(&images_nchw);
        clock.lap(Lap::Encode);
        let (place, sums) = (place_of(model, batch, input.step), Self::sums(reducer));
        reducer.clear("counts", "distribution");
        let latents_nd = to_vectors(&latents_ndhw);
        let Quantized { output_nd, path, loss: mut quantizer_loss, late, indices_nl: _ } =
            model.quantizer.forward(&model.parameters, &latents_nd, &place, &sums);
        // A quantiser may make a plain code of a latent that is not finite.
        quantizer_loss += loss::zero_if_finite(&latents_nd);
        reducer.send_early(comm, reducer.span("counts", "distribution"))?;
        clock.lap(Lap::Quantize);

        let cut_ndhw = from_vectors(&output_nd, &latents_ndhw).set_requires_grad(true);
        let global = (batch.global.end - batch.global.start) as f64;
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

        if !late.is_empty() {
            clock.enter(Phase::Reduce);
            reducer.finish(comm, "distribution")?;
            clock.lap(Lap::Reduce);
            clock.enter(Phase::Compute);
        }
        for loss in late {
            quantizer_loss += loss(&sums.distribution);
        }
        let root = path.root(&to_vectors(&at_cut_ndhw)) + &quantizer_loss;
        let quantizers = model.parameters.leaves_of(Stage::Quantizer);
        let encoders = model.parameters.leaves_of(Stage::Encoder);
        let inputs: Vec<&Tensor> = quantizers.iter().chain(&encoders).copied().collect();
        let gradients = Tensor::f_run_backward(&[root], &inputs, false, false)?;
        let (at_quantizer, at_encoder) = gradients.split_at(quantizers.len());
        model.parameters.store_gradients(Stage::Quantizer, at_quantizer, &flat);
        model.parameters.store_gradients(Stage::Encoder, at_encoder, &flat);
        clock.lap(Lap::EncoderBackward);

        clock.enter(Phase::Reduce);
        let layout_hash = reducer.layout_hash();
        let mut scalars = reducer.piece("scalars");
        scalars::write(&mut scalars, model, input, layout_hash, &recon, &quantizer_loss);
        match clock.faults.of_sum(input.step) {
            None => reducer.all_reduce(comm)?,
            Some(fault) => fault.sum(reducer, comm)?,
        }
        clock.lap(Lap::Reduce);

        clock.enter(Phase::Compute);
        let norm = flat.norm();
        if input.check_finite
            && let Some(found) = scalars::not_finite(&scalars, &norm, &flat, &model.parameters)
        {
            window.add_skipped(&scalars);
            return Ok(Stepped::Skipped(found));
        }
        let at_rest = model.quantizer.at_rest(input.step);
        optimizer.step(input.factor, model.parameters.flat(), &flat, &norm, &at_rest);
        let norm = norm.to_kind(Kind::Double);
        clock.lap(Lap::Optimizer);
        let updated = model.quantizer.update(&model.parameters, &sums, &place);
        for (id, rows) in &updated.resets {
            optimizer.forget_rows(&model.parameters, *id, rows);
        }
        model.parameters.refresh();
        window.add(&scalars, &norm, &sums.counts, updated.replaced.as_ref());
        clock.lap(Lap::CodebookUpdate);
        Ok(Stepped::Done(scalars::with_norm(&scalars, &norm)))
    }
}
