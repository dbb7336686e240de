//! Forward and backward of a part of the batch:
//!
//! 1. encoder and quantisers forward, statistics and offers to dead codes, which are ready to be summed then
//! 2. decoder forward on leaves made from the codes: the estimators cut the graph
//! 3. losses of the outputs; where there is a critic, what it says of them, and its own gradients; where its weight is
//!    adaptive, two gradients at the last layer have to be whole
//! 4. decoder backward: decoder gradients, ready to be summed then, and the gradients at the cuts
//! 5. where a loss is of the whole batch (entropies of the distribution over codes), what it is made of has to be whole
//! 6. quantisers and encoder backward, from the gradients at the cuts and the quantisers' losses
//!
//! A loss is the part's sum over the *global* count, so sums over parts and ranks are exact means, and parts may be
//! unequal or empty.

use tch::Tensor;
use tessera_nn::parameters::Stage;

use super::decode::Decoded;
use super::judge::{Critic, LAST_LAYER, LOGITS};
use super::objective::Terms;
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
const DECODE: usize = 2;
const DECODER_BACKWARD: usize = 3;
const ENCODER_BACKWARD: usize = 4;
const JUDGE: usize = 5;

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
    /// Adds a part's share to what has to be whole before a pass can end.
    pub(super) fn survey_part(&self, part: &Part, sums: &mut Sums<'_>) -> Result<(), TrainError> {
        let samples_nc = part.values(self.model.kind());
        let levels = self.go_down(&samples_nc, part, sums);
        let Some(critic) = self.critic.as_ref().filter(|critic| critic.adapts(part.step)) else {
            return Ok(());
        };
        let decoded = self.decode_for_last(&levels);
        let last_layer = tch::with_grad(|| {
            let (leaf, values_nc) = self.leaf_of(&decoded);
            let terms = self.objective.terms(&leaf, &values_nc, &samples_nc, part);
            let others = at_leaf(&terms, &leaf)?;
            let made = (&leaf, &values_nc);
            let (.., adversarial) = critic.judge(&self.model.parameters, made, part)?;
            let adversarial = adversarial.expect("it counts where it adapts");
            self.at_last_layer(&decoded, [&others, &adversarial])
        })?;
        let _ = sums.piece(LAST_LAYER).g_add_(&last_layer);
        Ok(())
    }

    pub(super) fn forward_and_backward(
        &self,
        part: &Part,
        sums: &mut Sums<'_>,
    ) -> Result<Vec<Tensor>, TrainError> {
        let parameters = &self.model.parameters;
        let samples_nc = part.values(self.model.kind());
        let mut levels = self.go_down(&samples_nc, part, sums);
        match self.adapts(part.step) {
            // The distribution leaves with the last layer's gradients.
            true => sums.ready(&[COUNTS, STATISTICS])?,
            false => sums.ready(&[COUNTS, STATISTICS, DISTRIBUTION])?,
        }
        sums.lap(QUANTIZE);

        let decoded = self.decode(&levels);
        let Output { root, mut losses, critics } = match &self.critic {
            None => {
                let values_nc = self.model.values(decoded.output());
                let terms = self.objective.terms(decoded.output(), &values_nc, &samples_nc, part);
                sums.lap(DECODE);
                Output { root: terms.sum, losses: terms.each, critics: Vec::new() }
            }
            Some(critic) => self.judged(critic, &decoded, &samples_nc, part, sums)?,
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

    /// What outputs are trained on where a critic judges them; adds the critic's gradients.
    fn judged(
        &self,
        critic: &Critic,
        decoded: &Decoded,
        samples_nc: &Tensor,
        part: &Part,
        sums: &mut Sums<'_>,
    ) -> Result<Output, TrainError> {
        let parameters = &self.model.parameters;
        let (leaf, values_nc) = self.leaf_of(decoded);
        let terms = self.objective.terms(&leaf, &values_nc, samples_nc, part);
        let mut at_output = at_leaf(&terms, &leaf)?;
        sums.lap(DECODE);
        let verdict = critic.verdict(parameters, (&leaf, &values_nc), samples_nc, part)?;
        let _ = sums.piece(LOGITS).g_add_(&verdict.logits);
        sums.add_gradients(parameters, Stage::Critic, &verdict.at_critic);
        sums.ready_gradients(parameters, Stage::Critic)?;
        if let Some(adversarial) = &verdict.at_leaf {
            if critic.adapts(part.step) && !sums.is_surveyed() {
                let last_layer = self.at_last_layer(decoded, [&at_output, adversarial])?;
                let _ = sums.piece(LAST_LAYER).g_add_(&last_layer);
                sums.complete()?;
            }
            let weight = critic.counts(part.step, leaf.device(), || sums.whole(LAST_LAYER));
            at_output += adversarial * weight.to_kind(adversarial.kind());
        }
        sums.lap(JUDGE);
        let root = decoded.root(&at_output);
        let critics = vec![verdict.generator_loss, verdict.critic_loss];
        Ok(Output { root, losses: terms.each, critics })
    }

    /// The decoder's output as a leaf, and the values that it stands for.
    fn leaf_of(&self, decoded: &Decoded) -> (Tensor, Tensor) {
        let leaf = decoded.output().detach().set_requires_grad(true);
        let values_nc = self.model.values(&leaf);
        (leaf, values_nc)
    }
}

/// What the decoder is trained on.
struct Output {
    /// What its backward pass begins from.
    root: Tensor,
    /// Of the outputs, against samples.
    losses: Vec<Tensor>,
    /// The adversarial ones.
    critics: Vec<Tensor>,
}

/// The gradient of losses at the leaf that they were made of; the graph stays.
fn at_leaf(terms: &Terms, leaf: &Tensor) -> Result<Tensor, TrainError> {
    Ok(Tensor::f_run_backward(&[&terms.sum], &[leaf], true, false)?.remove(0))
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
