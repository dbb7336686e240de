//! Forward and backward of a part of the batch:
//!
//! 1. encoder and quantisers forward, statistics and offers to dead codes, which are ready to be summed then
//! 2. decoder forward on leaves made from the codes: the estimators cut the graph
//! 3. losses of the outputs; where there is a critic, what it says of them, and its own gradients; where its weight is
//!    adaptive, two gradients at the last layer have to be whole, and where losses are balanced, their gradients' norms
//!    (`weigh.rs`)
//! 4. decoder backward: decoder gradients, ready to be summed then, and the gradients at the cuts
//! 5. where a loss is of the whole batch (entropies of the distribution over codes), what it is made of has to be whole
//! 6. quantisers and encoder backward, from the gradients at the cuts and the quantisers' losses
//!
//! A loss is the part's sum over the *global* count, so sums over parts and ranks are exact means, and parts may be
//! unequal or empty.

use tch::Tensor;
use tessera_nn::parameters::Stage;

use super::weigh::Output;
use super::{Autoencoder, BACKWARD, FORWARD, Part, Phase};
use crate::engine::step::Sums;
use crate::error::TrainError;

/// How often each code was taken.
pub(super) const COUNTS: &str = "counts";
/// Sums of latents, offers to dead codes.
pub(super) const STATISTICS: &str = "statistics";
/// The batch's distribution over codes.
pub(super) const DISTRIBUTION: &str = "distribution";

pub(super) const ENCODE: usize = 0;
const QUANTIZE: usize = 1;
pub(super) const DECODE: usize = 2;
const DECODER_BACKWARD: usize = 3;
const ENCODER_BACKWARD: usize = 4;
pub(super) const JUDGE: usize = 5;

/// What is timed by itself, in the order of the numbers above; the last only where there is a critic.
pub(super) const PHASES: [Phase; 6] = [
    Phase { name: "encoder forward", ends: None },
    Phase { name: "quantiser forward", ends: None },
    Phase { name: "decoder forward, loss", ends: FORWARD },
    Phase { name: "decoder backward", ends: None },
    Phase { name: "encoder, quantiser backward", ends: BACKWARD },
    Phase { name: "critic", ends: None },
];

impl Autoencoder {
    pub(super) fn forward_and_backward(
        &self,
        part: &Part,
        sums: &mut Sums<'_>,
    ) -> Result<Vec<Tensor>, TrainError> {
        let parameters = &self.model.parameters;
        let samples_nc = part.values(self.model.kind());
        let mut levels = self.go_down(&samples_nc, part, sums);
        match self.weighs(part.step) {
            // The distribution leaves with what the losses' weights hang on.
            true => sums.ready(&[COUNTS, STATISTICS])?,
            false => sums.ready(&[COUNTS, STATISTICS, DISTRIBUTION])?,
        }
        sums.lap(QUANTIZE);

        let decoded = self.decode(&levels);
        let is_weighed = self.critic.is_some() || self.balance.is_some();
        let Output { root, mut losses, critics } = match is_weighed {
            true => self.weighed(&decoded, &samples_nc, part, sums)?,
            false => {
                let values_nc = self.model.values(decoded.output());
                let terms = self.objective.terms(decoded.output(), &values_nc, &samples_nc, part);
                sums.lap(DECODE);
                Output { root: terms.sum, losses: terms.each, critics: Vec::new() }
            }
        };
        let (decoders, at_cuts) = self.decoder_backward(decoded, &root, &levels)?;
        levels.add_to_cuts(&at_cuts);
        if parameters.trains(Stage::Decoder) {
            sums.add_gradients(parameters, Stage::Decoder, &decoders);
            sums.ready_gradients(parameters, Stage::Decoder)?;
        }
        sums.lap(DECODER_BACKWARD);

        if levels.has_late_losses() {
            sums.complete()?;
            levels.complete_losses(self, sums);
        }
        losses.insert(1, levels.loss());
        losses.extend(critics);
        if levels.flows() {
            let [at_quantizers, at_encoders] = levels.go_back(self)?;
            for (stage, gradients) in
                [(Stage::Quantizer, at_quantizers), (Stage::Encoder, at_encoders)]
            {
                if !gradients.0.is_empty() {
                    sums.add_gradients(parameters, stage, &gradients.0);
                }
            }
        }
        sums.lap(ENCODER_BACKWARD);
        Ok(losses)
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
