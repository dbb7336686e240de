//! What the decoder is trained on where the losses of its output are weighed one by one: there is a critic, or a balance.
//!
//! The output is a leaf then. Gradients of the losses at it are added up, each times what it counts, and the decoder's backward
//! pass starts from their sum. What they count may hang on the global batch: on two gradients at the last layer (an
//! adaptive weight) or on the norms of all of them (a balance). That has to be whole before the sum can be made: a survey has
//! seen to it, or it is summed here.

use tch::Tensor;
use tessera_nn::parameters::Stage;

use super::balance::{Balance, NORMS};
use super::decode::Decoded;
use super::judge::{Critic, LAST_LAYER, LOGITS, Taught, Verdict};
use super::pass::{DECODE, JUDGE};
use super::{Autoencoder, Part};
use crate::engine::step::Sums;
use crate::error::TrainError;

/// What the decoder is trained on.
pub(super) struct Output {
    /// What its backward pass begins from.
    pub(super) root: Tensor,
    /// Of the outputs, against samples.
    pub(super) losses: Vec<Tensor>,
    /// The critic's.
    pub(super) critics: Vec<Tensor>,
}

/// Losses of a part's output.
struct Heard {
    /// Those that compare it with samples, each without its weight.
    losses: Vec<Tensor>,
    /// Their gradients at the output: where they are balanced of each that counts, without its weight, else one of their
    /// weighted sum.
    at_output: Vec<Tensor>,
    verdict: Option<Verdict>,
}

impl Heard {
    /// The gradients that are balanced, in order; none where the critic does not count yet.
    fn balanced(&self) -> Vec<Option<&Tensor>> {
        let of_critic = self.verdict.iter().flat_map(|verdict| {
            let all = [Some(&verdict.adversarial), verdict.features.as_ref()];
            all.into_iter().flatten().map(|taught| taught.at_leaf.as_ref())
        });
        self.at_output.iter().map(Some).chain(of_critic).collect()
    }
}

impl Autoencoder {
    /// Adds a part's share to what has to be whole before a pass can end.
    pub(super) fn survey_part(&self, part: &Part, sums: &mut Sums<'_>) -> Result<(), TrainError> {
        let samples_nc = part.values(self.model.kind());
        let levels = self.go_down(&samples_nc, part, sums);
        if !self.weighs(part.step) {
            return Ok(());
        }
        let decoded = self.decode_for_last(&levels);
        tch::with_grad(|| {
            let heard = self.hear(&decoded, &samples_nc, part, sums)?;
            match (&self.balance, &self.critic) {
                (Some(balance), _) => self.add_norms(balance, &heard, part, sums),
                (None, Some(critic)) => {
                    let others = self.others(critic, &heard, part);
                    let adversarial = heard.verdict.and_then(|verdict| verdict.adversarial.at_leaf);
                    let adversarial = adversarial.expect("it counts where it adapts");
                    self.add_last_layer(&decoded, [&others, &adversarial], sums)?;
                }
                (None, None) => {}
            }
            Ok(())
        })
    }

    /// What outputs are trained on; adds the critic's gradients, where there is one.
    pub(super) fn weighed(
        &self,
        decoded: &Decoded,
        samples_nc: &Tensor,
        part: &Part,
        sums: &mut Sums<'_>,
    ) -> Result<Output, TrainError> {
        let mut heard = self.hear(decoded, samples_nc, part, sums)?;
        let mut critic_loss = None;
        if let (Some(critic), Some(verdict)) = (&self.critic, &mut heard.verdict) {
            let parameters = &self.model.parameters;
            let opinions = (std::mem::take(&mut verdict.fake), verdict.real.take());
            let learned = critic.learn(parameters, opinions, samples_nc, part)?;
            let _ = sums.piece(LOGITS).g_add_(&learned.logits);
            sums.add_gradients(parameters, Stage::Critic, &learned.at_leaves);
            sums.ready_gradients(parameters, Stage::Critic)?;
            critic_loss = Some(learned.loss);
        }
        let at_output = match (&self.balance, &self.critic) {
            (Some(balance), critic) => {
                if !sums.is_surveyed() {
                    self.add_norms(balance, &heard, part, sums);
                    sums.complete()?;
                }
                let weights = balance.weights(part.step, critic.as_ref());
                let scales = balance.scales(&sums.whole(NORMS), &weights);
                let mut at_output = decoded.output().detach().zeros_like();
                for (at, gradient) in (0..).zip(heard.balanced()) {
                    let Some(gradient) = gradient else { continue };
                    at_output += gradient * scales.get(at).to_kind(gradient.kind());
                }
                at_output
            }
            (None, Some(critic)) => self.with_critic(critic, decoded, &heard, part, sums)?,
            (None, None) => unreachable!("nothing is weighed without critic and balance"),
        };
        let root = decoded.root(&at_output);
        let mut critics = Vec::new();
        if let (Some(verdict), Some(critic_loss)) = (heard.verdict, critic_loss) {
            critics.extend([verdict.adversarial.loss, critic_loss]);
            critics.extend(verdict.features.map(|features| features.loss));
            sums.lap(JUDGE);
        }
        Ok(Output { root, losses: heard.losses, critics })
    }

    /// The gradient at the output where there is a critic and no balance.
    fn with_critic(
        &self,
        critic: &Critic,
        decoded: &Decoded,
        heard: &Heard,
        part: &Part,
        sums: &mut Sums<'_>,
    ) -> Result<Tensor, TrainError> {
        let mut at_output = self.others(critic, heard, part);
        let verdict = heard.verdict.as_ref().expect("a critic gives one");
        if let Some(adversarial) = &verdict.adversarial.at_leaf {
            if critic.adapts(part.step) && !sums.is_surveyed() {
                self.add_last_layer(decoded, [&at_output, adversarial], sums)?;
                sums.complete()?;
            }
            let device = at_output.device();
            let weight = critic.counts(part.step, device, || sums.whole(LAST_LAYER));
            at_output += adversarial * weight.to_kind(adversarial.kind());
        }
        Ok(at_output)
    }

    /// The gradient at the output of all losses but the adversarial one.
    fn others(&self, critic: &Critic, heard: &Heard, part: &Part) -> Tensor {
        let others = heard.at_output[0].shallow_clone();
        let features = heard.verdict.as_ref().and_then(|verdict| verdict.features.as_ref());
        match features {
            Some(Taught { at_leaf: Some(at_leaf), .. }) => {
                let [_, weight] = critic.weights(part.step);
                others + at_leaf * weight
            }
            _ => others,
        }
    }

    /// The losses of an output and their gradients at it.
    fn hear(
        &self,
        decoded: &Decoded,
        samples_nc: &Tensor,
        part: &Part,
        sums: &mut Sums<'_>,
    ) -> Result<Heard, TrainError> {
        let leaf = decoded.output().detach().set_requires_grad(true);
        let values_nc = self.model.values(&leaf);
        let terms = self.objective.terms(&leaf, &values_nc, samples_nc, part);
        let at_leaf = |loss: &Tensor| -> Result<Tensor, TrainError> {
            Ok(Tensor::f_run_backward(&[loss], &[&leaf], true, false)?.remove(0))
        };
        let at_output = match self.balance.is_some() {
            false => vec![at_leaf(&terms.sum)?],
            true => {
                let all = self.objective.losses();
                let counts = all.iter().zip(&terms.each).filter(|(loss, _)| loss.weight > 0.0);
                counts.map(|(_, term)| at_leaf(term)).collect::<Result<_, _>>()?
            }
        };
        sums.lap(DECODE);
        let judge = |critic: &Critic| {
            critic.judge(&self.model.parameters, (&leaf, &values_nc), samples_nc, part)
        };
        let verdict = self.critic.as_ref().map(judge).transpose()?;
        Ok(Heard { losses: terms.each, at_output, verdict })
    }

    fn add_norms(&self, balance: &Balance, heard: &Heard, part: &Part, sums: &Sums<'_>) {
        let norms = balance.norms(&heard.balanced(), part.num_global);
        let _ = sums.piece(NORMS).g_add_(&norms);
    }

    fn add_last_layer(
        &self,
        decoded: &Decoded,
        both: [&Tensor; 2],
        sums: &Sums<'_>,
    ) -> Result<(), TrainError> {
        let last_layer = self.at_last_layer(decoded, both)?;
        let _ = sums.piece(LAST_LAYER).g_add_(&last_layer);
        Ok(())
    }
}
