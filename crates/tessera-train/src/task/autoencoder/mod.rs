//! A vector-quantised autoencoder: what its step computes, how it begins, what it is measured by.

mod balance;
mod chains;
mod decode;
mod evaluate;
mod features;
mod first_codes;
pub(crate) mod fit;
mod judge;
mod levels;
mod objective;
mod pass;
mod shown;
mod sound;
pub mod usage;
mod weigh;

use std::collections::BTreeMap;
use std::ops::Range;

use tch::{Device, Tensor};
use tessera_comm::{Piece, Reducer};
use tessera_data::{OnCorrupt, Source};
use tessera_nn::parameters::{Declarations, Stage};
use tessera_nn::quantize::{self, Lens, Place};
use tessera_nn::{Parameters, Signal, VqVae};

use self::balance::Balance;
pub use self::evaluate::reconstruct;
use self::evaluate::{ComparedBy, Reconstruction};
use self::features::Features;
use self::judge::Critic;
use self::objective::Objective;
use self::sound::Sound;
use self::usage::Usage;
use super::{
    Asked, Half, Loss, Measure, Part, Phase, Samples, Sizes, Task, Totals, Updated, networks,
};
use crate::config::TrainConfig;
use crate::engine::figures::Figure;
use crate::engine::metrics::picture::Exhibit;
use crate::engine::step::Sums;
use crate::error::TrainError;

/// Encoder, quantiser and decoder in training.
#[derive(Debug)]
pub struct Autoencoder {
    /// The replica.
    pub model: VqVae,
    seed: u64,
    /// Whether the quantiser stays as it is, codes and statistics included.
    has_frozen_quantizer: bool,
    /// Whether what blocks compute within is computed again for the backward pass.
    recompute: bool,
    objective: Objective,
    critic: Option<Critic>,
    /// Where losses of the output are balanced.
    balance: Option<Balance>,
    losses: Vec<Loss>,
    /// What an evaluation compares outputs and inputs by.
    judged_by: Option<Features>,
    /// The same of sound, by what needs no network.
    sound: Option<Sound>,
}

impl Autoencoder {
    /// The model of a configuration, for such samples, with the initial values that its seed stands for.
    ///
    /// # Errors
    ///
    /// [`TrainError::BadInput`] if it cannot be trained on them.
    pub fn new(
        config: &TrainConfig,
        samples: &Samples,
        device: Device,
    ) -> Result<Self, TrainError> {
        let signal = samples.signal;
        let kinds = config.train.precision.kinds();
        let declare_critic = |to: &mut Declarations| {
            config.loss.has_critic().then(|| config.critic.build(&signal, to))
        };
        let (model, seed) = (&config.model, config.seed);
        let (mut model, critic) =
            VqVae::with_more(model, &signal, seed, kinds, device, declare_critic);
        let groups = &config.optimizer.groups;
        model.parameters.freeze(&groups.frozen());
        let like = model.parameters.flat();
        let objective = Objective::new(config, samples, like)?;
        let critic =
            critic.map(|networks| Critic::new(networks, &config.adversarial, &config.loss, like));
        let all = || objective.losses().into_iter().chain(critic.iter().flat_map(Critic::losses));
        let balance = config.loss.balanced.then(|| Balance::new(&config.balancer, all(), device));
        let judged_by = Features::open(config, (&signal, samples.sample_rate), device)?;
        let sound = Sound::of(&signal, samples.sample_rate, device);
        let mut losses = objective.losses();
        losses.insert(1, Loss::new("quantizer_loss", "quantiser's loss"));
        losses.extend(critic.iter().flat_map(Critic::losses));
        Ok(Self {
            model,
            seed,
            has_frozen_quantizer: groups.quantizer.frozen,
            recompute: config.train.recompute,
            objective,
            critic,
            balance,
            losses,
            judged_by,
            sound,
        })
    }

    fn compared_by(&self) -> ComparedBy<'_> {
        (self.judged_by.as_ref(), self.sound.as_ref())
    }

    /// Whether two gradients at the last layer are compared in this step.
    fn adapts(&self, step: u64) -> bool {
        self.critic.as_ref().is_some_and(|critic| critic.adapts(step))
    }

    /// Whether what losses of the output count in this step hangs on the global batch.
    fn weighs(&self, step: u64) -> bool {
        self.adapts(step) || self.balance.is_some()
    }

    /// Whether nothing before the decoder is trained: its inputs are data then.
    fn trains_decoder_alone(&self) -> bool {
        self.has_frozen_quantizer && !self.model.parameters.trains(Stage::Encoder)
    }

    /// What of the quantisers' is summed: of frozen ones no statistics, and no distribution where no loss of it moves
    /// an encoder.
    fn lens(&self) -> Lens {
        let lens = self.start_of(self.model.quantizers.len());
        Lens {
            counts: lens.counts,
            statistics: if self.has_frozen_quantizer { 0 } else { lens.statistics },
            distribution: if self.trains_decoder_alone() { 0 } else { lens.distribution },
        }
    }

    /// Where a part's tokens of a level stand among those of the global batch.
    fn place(&self, level: usize, part: &Part) -> Place {
        let positions = self.model.num_positions()[level] as usize;
        let Range { start, end } = part.samples;
        let all = part.num_global as usize * positions;
        Place::new(part.step, all, start as usize * positions..end as usize * positions)
    }
}

/// An autoencoder that is measured, and not trained.
#[derive(Debug)]
pub(crate) struct Judge<'a> {
    model: &'a VqVae,
    judged_by: Option<Features>,
    sound: Option<Sound>,
}

impl<'a> Judge<'a> {
    /// With the features that `[eval.features]` names; `sample_rate` is that of sound, 0 of others.
    ///
    /// # Errors
    ///
    /// [`TrainError::BadInput`] where they cannot be opened.
    pub(crate) fn new(
        model: &'a VqVae,
        config: &TrainConfig,
        sample_rate: u32,
    ) -> Result<Self, TrainError> {
        let judged_by = Features::open(config, (&model.signal, sample_rate), model.device())?;
        let sound = Sound::of(&model.signal, sample_rate, model.device());
        Ok(Self { model, judged_by, sound })
    }

    fn compared_by(&self) -> ComparedBy<'_> {
        (self.judged_by.as_ref(), self.sound.as_ref())
    }

    /// How it is measured, as [`Task::measure`] says of one in training.
    ///
    /// # Errors
    ///
    /// [`TrainError::BadInput`] where it has not what was asked for.
    pub(crate) fn measure(&self, asked: Asked) -> Result<Box<dyn Measure + '_>, TrainError> {
        Ok(Box::new(Reconstruction::new(self.model, self.compared_by(), asked)?))
    }

    /// Samples of a split and what is made of them with so many levels, to look at and to listen to.
    ///
    /// # Errors
    ///
    /// [`TrainError::Data`] where one cannot be read.
    pub(crate) fn show(
        &self,
        source: &dyn Source,
        on_corrupt: OnCorrupt,
        num_levels: Option<usize>,
    ) -> Result<Vec<Exhibit>, TrainError> {
        shown::reconstructions(self.model, source, on_corrupt, num_levels)
    }
}

impl Task for Autoencoder {
    fn parameters(&self) -> &Parameters {
        &self.model.parameters
    }

    fn sizes(&self) -> Sizes {
        let parameters = self.parameters();
        Sizes::of(parameters).with_cost(self.model.cost(), parameters)
    }

    fn losses(&self) -> &[Loss] {
        &self.losses
    }

    fn phases(&self) -> &'static [Phase] {
        match self.critic {
            Some(_) => &pass::PHASES,
            None => &pass::PHASES[..pass::PHASES.len() - 1],
        }
    }

    fn update_phase(&self) -> &'static str {
        "codebook update"
    }

    fn pieces(&self) -> Vec<Piece> {
        let lens = self.lens();
        let mut pieces = vec![
            Piece { name: pass::COUNTS, len: lens.counts },
            Piece { name: pass::STATISTICS, len: lens.statistics },
            Piece { name: pass::DISTRIBUTION, len: lens.distribution },
        ];
        if let Some(balance) = &self.balance {
            pieces.push(Piece { name: balance::NORMS, len: balance.num_losses() });
        }
        if let Some(critic) = &self.critic {
            let weight = self.model.parameters.get(self.model.backbone.output_weight());
            let len = if critic.config.adaptive { 2 * weight.numel() as i64 } else { 0 };
            pieces.push(Piece { name: judge::LAST_LAYER, len });
            pieces.push(Piece { name: judge::LOGITS, len: critic.num_logits() });
        }
        pieces
    }

    fn surveyed(&self, step: u64) -> &'static [&'static str] {
        let has_distribution = self.lens().distribution > 0;
        match (has_distribution, self.balance.is_some(), self.adapts(step)) {
            (true, true, _) => &[pass::DISTRIBUTION, balance::NORMS],
            (false, true, _) => &[balance::NORMS],
            (true, false, true) => &[pass::DISTRIBUTION, judge::LAST_LAYER],
            (true, false, false) => &[pass::DISTRIBUTION],
            (false, false, true) => &[judge::LAST_LAYER],
            (false, false, false) => &[],
        }
    }

    fn survey(&self, part: &Part, sums: &mut Sums<'_>) -> Result<(), TrainError> {
        self.survey_part(part, sums)
    }

    fn pass(&self, part: &Part, sums: &mut Sums<'_>) -> Result<Vec<Tensor>, TrainError> {
        self.forward_and_backward(part, sums)
    }

    fn at_rest(&self, step: u64) -> Vec<Range<i64>> {
        let quantizers = self.model.quantizers.iter().flat_map(|quantizer| quantizer.at_rest(step));
        let parameters = &self.model.parameters;
        let critic = self.critic.as_ref().and_then(|critic| critic.at_rest(step, parameters));
        quantizers.chain(critic).collect()
    }

    fn update(&mut self, whole: &Part, sums: &Reducer) -> Updated {
        let counts = sums.piece(pass::COUNTS);
        let mut updated = quantize::Updated::default();
        if !self.has_frozen_quantizer {
            let all = quantize::Sums {
                counts: counts.shallow_clone(),
                statistics: sums.piece(pass::STATISTICS),
                distribution: sums.piece(pass::DISTRIBUTION),
            };
            for level in 0..self.model.quantizers.len() {
                let (start, place) = (self.start_of(level), self.place(level, whole));
                let quantizer = &mut self.model.quantizers[level];
                let own = all.part(start, quantizer.lens());
                updated.add(quantizer.update(&self.model.parameters, &own, &place));
            }
        }
        let quantize::Updated { resets, replaced } = updated;
        let mut numbers = vec![replaced];
        let device = self.model.device();
        let step = whole.step;
        let scales = self.balance.as_mut().map(|balance| {
            let weights = balance.weights(step, self.critic.as_ref());
            balance.update(&sums.piece(balance::NORMS), &weights)
        });
        if let Some(critic) = &mut self.critic {
            let counted = match (&self.balance, &scales) {
                (Some(balance), Some(scales)) => balance.adversarial(scales),
                _ => critic.counts(step, device, || sums.piece(judge::LAST_LAYER)),
            };
            numbers.extend(critic.update(step, sums, counted));
        }
        if let (Some(balance), Some(scales)) = (&self.balance, scales) {
            numbers.extend(balance.numbers(&scales));
        }
        Updated { resets, numbers, vector: counts }
    }

    fn first_pieces(&self, whole: &Part) -> Vec<Piece> {
        self.pieces_of_first(whole)
    }

    fn first_look(&self, part: &Part, sums: &Reducer) {
        self.look_at_first(part, sums);
    }

    fn begin(&mut self, whole: &Part, sums: &Reducer, taken: &[Stage]) {
        self.start_from(whole, sums, taken);
    }

    fn fit(&self, saved: &mut BTreeMap<String, Tensor>) -> Vec<String> {
        self.fit_codebooks(saved)
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        let quantizers = self.model.quantizers.iter().flat_map(|quantizer| quantizer.state());
        let critic = self.critic.iter().map(Critic::state);
        let balance = self.balance.iter().map(Balance::state);
        quantizers.chain(self.objective.state()).chain(critic).chain(balance).collect()
    }

    fn totals(&self) -> Totals {
        let of_critic = if self.critic.is_some() { judge::NUM_TOTALS } else { 0 };
        let of_balance = self.balance.as_ref().map_or(0, Balance::num_totals);
        Totals { numbers: 1 + of_critic + of_balance, vector: self.model.num_codes().iter().sum() }
    }

    fn figures(&self, numbers: &[f64], vector: &[f64]) -> Vec<Figure> {
        let mut figures = Usage::of(vector, &self.model.num_codes()).in_training();
        figures.push(Figure::count("codes_replaced", numbers[0] as u64).charted("train"));
        if let Some(critic) = &self.critic {
            figures.extend(critic.figures(&numbers[1..1 + judge::NUM_TOTALS]));
        }
        if let Some(balance) = &self.balance {
            figures.extend(balance.figures(&numbers[numbers.len() - balance.num_totals()..]));
        }
        figures
    }

    fn usage<'a>(&self, vector: &'a [f64]) -> Vec<&'a [f64]> {
        let mut rest = vector;
        let num_codes = self.model.num_codes();
        num_codes
            .iter()
            .map(|&len| rest.split_off(..len as usize).expect("a number each"))
            .collect()
    }

    fn measure(&self, asked: Asked) -> Result<Box<dyn Measure + '_>, TrainError> {
        Ok(Box::new(Reconstruction::new(&self.model, self.compared_by(), asked)?))
    }

    fn show(&self, source: &dyn Source, on_corrupt: OnCorrupt) -> Result<Vec<Exhibit>, TrainError> {
        shown::reconstructions(&self.model, source, on_corrupt, None)
    }
}

/// What is wrong with a configuration for samples like these, if anything.
pub(crate) fn check(config: &TrainConfig, samples: &Samples) -> Result<(), String> {
    let (model, signal) = (&config.model, &samples.signal);
    model.validate(signal)?;
    let loss = &config.loss;
    let is_picture = matches!(signal, Signal::Image { .. });
    let is_film = matches!(signal, Signal::Video { .. });
    for (key, weight, words, is_for_them) in [
        ("ssim", loss.ssim, "pictures and film", is_picture || is_film),
        ("ms_ssim", loss.ms_ssim, "pictures and film", is_picture || is_film),
        ("perceptual", loss.perceptual, "pictures and film", is_picture || is_film),
        ("frame_difference", loss.frame_difference, "film", is_film),
    ] {
        if weight > 0.0 && !is_for_them {
            let instead = match (key, signal) {
                ("perceptual", Signal::Audio { .. }) => ", and loss.mel to what it should count",
                _ => "",
            };
            return Err(format!(
                "loss.{key} is for {words}, these data are {signal}: set it to 0{instead}"
            ));
        }
    }
    let (spectral, rate) = (&config.spectral, i64::from(samples.sample_rate));
    for (key, weight) in [("mel", config.loss.mel), ("stft", config.loss.stft)] {
        match *signal {
            _ if weight == 0.0 => {}
            Signal::Audio { samples, .. } if key == "mel" => {
                spectral.scales(samples, rate)?;
            }
            Signal::Audio { samples, .. } => {
                spectral.resolutions(samples)?;
            }
            _ => {
                return Err(format!(
                    "loss.{key} is for sound, these data are {signal}: set it to 0"
                ));
            }
        }
    }
    if config.loss.has_critic() {
        config.critic.validate(signal)?;
    }
    // What is read from files is read here too, so that nothing has begun where it cannot be.
    let read = || {
        let shown = (signal, samples.sample_rate);
        networks::perceptual(config, shown, Device::Cpu)?;
        networks::of_evaluation(config, shown, Device::Cpu)
    };
    read().map(drop).map_err(|error: TrainError| error.to_string())
}

/// The halves that phases end.
const FORWARD: Option<Half> = Some(Half::Forward);
const BACKWARD: Option<Half> = Some(Half::Backward);
