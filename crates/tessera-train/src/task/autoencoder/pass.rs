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
use tessera_nn::chain::{Block, Chain};
use tessera_nn::parameters::Stage;
use tessera_nn::quantize::{self, LateLoss, Path, Quantized};
use tessera_nn::recompute::{self, Kept};
use tessera_nn::{Parameters, from_vectors, loss, to_vectors};

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

/// A part's tokens after the quantiser, as a pass goes on with them.
struct Coded<'a> {
    output_nd: Tensor,
    loss: Tensor,
    /// None where nothing before the decoder is trained.
    path: Option<Path>,
    late: Vec<LateLoss<'a>>,
}

impl Autoencoder {
    /// The buffers of the quantiser.
    fn buffers(&self, sums: &Sums<'_>) -> quantize::Sums {
        let statistics = match self.has_frozen_quantizer {
            true => {
                let (kind, device) = (self.model.kind(), self.model.device());
                Tensor::zeros([self.model.quantizer.lens().statistics], (kind, device))
            }
            false => sums.piece(STATISTICS),
        };
        let (counts, distribution) = (sums.piece(COUNTS), sums.piece(DISTRIBUTION));
        quantize::Sums { counts, statistics, distribution }
    }

    /// The quantiser's forward; where it and the encoder are frozen, by the rule of an evaluation.
    fn quantize(&self, latents_nd: &Tensor, part: &Part, sums: &Sums<'_>) -> Coded<'_> {
        let (quantizer, parameters) = (&self.model.quantizer, &self.model.parameters);
        if self.trains_decoder_alone() {
            let indices_nl = quantizer.tokenize(parameters, latents_nd);
            let output_nd = quantizer.look_up(parameters, &indices_nl);
            count(&indices_nl, &quantizer.num_codes(), &sums.piece(COUNTS));
            let loss = Tensor::zeros([], (latents_nd.kind(), latents_nd.device()));
            return Coded { output_nd, loss, path: None, late: Vec::new() };
        }
        let (place, buffers) = (self.place(part), self.buffers(sums));
        let quantized = quantizer.forward(parameters, latents_nd, &place, &buffers);
        let Quantized { output_nd, path, loss, late, indices_nl: _ } = quantized;
        Coded { output_nd, loss, path: Some(path), late }
    }

    pub(super) fn survey_distribution(&self, part: &Part, sums: &mut Sums<'_>) {
        let model = &self.model;
        let latents_nd = to_vectors(&model.encode(&part.values(model.kind())));
        drop(self.quantize(&latents_nd, part, sums));
    }

    pub(super) fn forward_and_backward(
        &self,
        part: &Part,
        sums: &mut Sums<'_>,
    ) -> Result<Vec<Tensor>, TrainError> {
        let (parameters, backbone) = (&self.model.parameters, &self.model.backbone);
        let samples_nc = part.values(self.model.kind());
        let encoders = trained_leaves(parameters, Stage::Encoder);
        let encoded = self.forward(backbone.encoder(), &samples_nc, !encoders.is_empty());
        sums.lap(ENCODE);
        let latents_nd = to_vectors(&encoded.output);
        let Coded { output_nd, path, loss: mut quantizer_loss, late } =
            self.quantize(&latents_nd, part, sums);
        // A quantiser may make a plain code of a latent that is not finite.
        quantizer_loss += loss::zero_if_finite(&latents_nd);
        sums.ready(&[COUNTS, STATISTICS, DISTRIBUTION])?;
        sums.lap(QUANTIZE);

        let cut = from_vectors(&output_nd, &encoded.output).set_requires_grad(path.is_some());
        let num_values = part.num_global as f64 * part.signal.num_values() as f64;
        let decoded = self.forward(backbone.decoder(), &cut, true);
        let recon = loss::squared_error(&decoded.output, &samples_nc) / num_values;
        sums.lap(DECODE);
        let decoders = trained_leaves(parameters, Stage::Decoder);
        let at_cut = path.as_ref().map(|_| &cut);
        let mut gradients =
            self.backward(backbone.decoder(), decoded, &recon, [&[], &decoders], at_cut)?;
        let path = path.map(|path| (path, gradients.pop().expect("one gradient an input")));
        if !decoders.is_empty() {
            sums.add_gradients(parameters, Stage::Decoder, &gradients);
            sums.ready_gradients(parameters, Stage::Decoder)?;
        }
        sums.lap(DECODER_BACKWARD);

        if !late.is_empty() {
            let distribution = sums.whole(DISTRIBUTION)?;
            for loss in late {
                quantizer_loss += loss(&distribution);
            }
        }
        let quantizers = trained_leaves(parameters, Stage::Quantizer);
        if let Some((path, at_cut)) = path
            && !(quantizers.is_empty() && encoders.is_empty())
        {
            let root = path.root(&to_vectors(&at_cut)) + &quantizer_loss;
            let leaves = [&quantizers[..], &encoders];
            let gradients = self.backward(backbone.encoder(), encoded, &root, leaves, None)?;
            let (at_quantizer, at_encoder) = gradients.split_at(quantizers.len());
            for (stage, gradients) in
                [(Stage::Quantizer, at_quantizer), (Stage::Encoder, at_encoder)]
            {
                if !gradients.is_empty() {
                    sums.add_gradients(parameters, stage, gradients);
                }
            }
        }
        sums.lap(ENCODER_BACKWARD);
        Ok(vec![recon, quantizer_loss])
    }

    /// A chain's output in the master kind; `has_graph`: a gradient goes back through it.
    fn forward(&self, chain: &Chain, input: &Tensor, has_graph: bool) -> Passed {
        let (parameters, kind) = (&self.model.parameters, self.model.kind());
        let input = input.to_kind(parameters.compute_kind());
        if !(self.recompute && has_graph) {
            let output = chain.forward(parameters, &input);
            return Passed { output: output.to_kind(kind), kept: None };
        }
        let (output, kept) = recompute::forward(chain, parameters, &input);
        Passed { output: output.to_kind(kind).set_requires_grad(true), kept: Some(kept) }
    }

    /// The gradients of `root` at leaves before the chain or beside it, at leaves of the chain, and at its input where that
    /// is given, in this order.
    fn backward(
        &self,
        chain: &Chain,
        passed: Passed,
        root: &Tensor,
        [beside, inside]: [&[&Tensor]; 2],
        input: Option<&Tensor>,
    ) -> Result<Vec<Tensor>, TrainError> {
        let Passed { output, kept } = passed;
        let Some(kept) = kept else {
            let targets: Vec<&Tensor> = beside.iter().chain(inside).copied().chain(input).collect();
            return Ok(Tensor::f_run_backward(&[root], &targets, false, false)?);
        };
        let targets: Vec<&Tensor> = beside.iter().copied().chain([&output]).collect();
        let mut gradients = Tensor::f_run_backward(&[root], &targets, false, false)?;
        let parameters = &self.model.parameters;
        let at_output = gradients.pop().expect("the output's is the last");
        let at_output = at_output.to_kind(parameters.compute_kind());
        match input {
            None => gradients.extend(kept.backward(chain, parameters, inside, &at_output)),
            Some(input) => {
                let (at_leaves, at_input) =
                    kept.backward_to_input(chain, parameters, inside, &at_output);
                gradients.extend(at_leaves);
                gradients.push(at_input.to_kind(input.kind()));
            }
        }
        Ok(gradients)
    }
}

/// What came out of a chain.
struct Passed {
    /// `[N, ..]`; where it was computed without a graph, a leaf.
    output: Tensor,
    /// What the graph is made of again.
    kept: Option<Kept>,
}

/// The leaves of a stage that have a gradient.
fn trained_leaves(parameters: &Parameters, stage: Stage) -> Vec<&Tensor> {
    match parameters.trains(stage) {
        true => parameters.leaves_of(stage),
        false => Vec::new(),
    }
}

/// Adds to `counts` how often each code of each level was taken.
pub(super) fn count(indices_nl: &Tensor, num_codes: &[i64], counts: &Tensor) {
    let mut first = 0;
    for (level, &len) in (0..).zip(num_codes) {
        let indices_n = indices_nl.select(1, level);
        let kept_n = indices_n.masked_select(&indices_n.ge(0));
        let taken_k = kept_n.bincount(None::<Tensor>, len).to_kind(counts.kind());
        let _ = counts.narrow(0, first, len).g_add_(&taken_k);
        first += len;
    }
}
