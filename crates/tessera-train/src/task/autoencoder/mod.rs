//! A vector-quantised autoencoder: what its step computes, how it begins, what it is measured by.

mod evaluate;
mod first_codes;
mod fit;
mod grid;
mod pass;
mod pictures;
pub mod usage;

use std::collections::BTreeMap;
use std::ops::Range;

use tch::{Device, Tensor};
use tessera_comm::{Piece, Reducer};
use tessera_data::{OnCorrupt, Source};
use tessera_nn::parameters::Stage;
use tessera_nn::quantize::{self, Lens, Place};
use tessera_nn::{Parameters, Signal, VqVae};

use self::evaluate::Reconstruction;
pub use self::evaluate::reconstruct;
use self::usage::Usage;
use super::{Asked, Half, Loss, Measure, Part, Phase, Task, Totals, Updated};
use crate::config::TrainConfig;
use crate::engine::figures::Figure;
use crate::engine::metrics::picture::EncodedPng;
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
}

impl Autoencoder {
    /// The model of a configuration, for samples of `signal`, with the initial values that its seed stands for.
    pub fn new(config: &TrainConfig, signal: Signal, device: Device) -> Self {
        let kinds = config.train.precision.kinds();
        let mut model = VqVae::new(&config.model, &signal, config.seed, kinds, device);
        let groups = &config.optimizer.groups;
        model.parameters.freeze(&groups.frozen());
        Self {
            model,
            seed: config.seed,
            has_frozen_quantizer: groups.quantizer.frozen,
            recompute: config.train.recompute,
        }
    }

    /// Whether nothing before the decoder is trained: its inputs are data then.
    fn trains_decoder_alone(&self) -> bool {
        self.has_frozen_quantizer && !self.model.parameters.trains(Stage::Encoder)
    }

    /// What of the quantiser's is summed: of a frozen one no statistics, and no distribution where no loss of it moves
    /// an encoder.
    fn lens(&self) -> Lens {
        let lens = self.model.quantizer.lens();
        Lens {
            counts: lens.counts,
            statistics: if self.has_frozen_quantizer { 0 } else { lens.statistics },
            distribution: if self.trains_decoder_alone() { 0 } else { lens.distribution },
        }
    }

    /// Where a part's tokens stand among those of the global batch.
    fn place(&self, part: &Part) -> Place {
        let positions = self.model.num_positions() as usize;
        let Range { start, end } = part.samples;
        let all = part.num_global as usize * positions;
        Place::new(part.step, all, start as usize * positions..end as usize * positions)
    }
}

impl Task for Autoencoder {
    fn parameters(&self) -> &Parameters {
        &self.model.parameters
    }

    fn losses(&self) -> &'static [Loss] {
        &[
            Loss { name: "recon_mse", words: "reconstruction loss" },
            Loss { name: "quantizer_loss", words: "quantiser's loss" },
        ]
    }

    fn phases(&self) -> &'static [Phase] {
        &pass::PHASES
    }

    fn update_phase(&self) -> &'static str {
        "codebook update"
    }

    fn pieces(&self) -> Vec<Piece> {
        let lens = self.lens();
        vec![
            Piece { name: pass::COUNTS, len: lens.counts },
            Piece { name: pass::STATISTICS, len: lens.statistics },
            Piece { name: pass::DISTRIBUTION, len: lens.distribution },
        ]
    }

    fn surveyed(&self) -> &'static [&'static str] {
        match self.lens().distribution {
            0 => &[],
            _ => &[pass::DISTRIBUTION],
        }
    }

    fn survey(&self, part: &Part, sums: &mut Sums<'_>) -> Result<(), TrainError> {
        self.survey_distribution(part, sums);
        Ok(())
    }

    fn pass(&self, part: &Part, sums: &mut Sums<'_>) -> Result<Vec<Tensor>, TrainError> {
        self.forward_and_backward(part, sums)
    }

    fn at_rest(&self, step: u64) -> Vec<Range<i64>> {
        self.model.quantizer.at_rest(step)
    }

    fn update(&mut self, whole: &Part, sums: &Reducer) -> Updated {
        if self.has_frozen_quantizer {
            let vector = sums.piece(pass::COUNTS);
            return Updated { resets: Vec::new(), numbers: vec![None], vector };
        }
        let place = self.place(whole);
        let sums = quantize::Sums {
            counts: sums.piece(pass::COUNTS),
            statistics: sums.piece(pass::STATISTICS),
            distribution: sums.piece(pass::DISTRIBUTION),
        };
        let updated = self.model.quantizer.update(&self.model.parameters, &sums, &place);
        let quantize::Updated { resets, replaced } = updated;
        Updated { resets, numbers: vec![replaced], vector: sums.counts }
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
        self.model.quantizer.state()
    }

    fn totals(&self) -> Totals {
        Totals { numbers: 1, vector: self.model.quantizer.num_codes().iter().sum() }
    }

    fn figures(&self, numbers: &[f64], vector: &[f64]) -> Vec<Figure> {
        let mut figures = Usage::of(vector, &self.model.quantizer.num_codes()).in_training();
        figures.push(Figure::count("codes_replaced", numbers[0] as u64).charted("train"));
        figures
    }

    fn measure(&self, asked: Asked) -> Result<Box<dyn Measure + '_>, TrainError> {
        Ok(Box::new(Reconstruction::new(&self.model, asked)?))
    }

    fn show(
        &self,
        source: &dyn Source,
        on_corrupt: OnCorrupt,
    ) -> Result<Option<EncodedPng>, TrainError> {
        pictures::draw(&self.model, source, on_corrupt)
    }
}

/// The halves that phases end.
const FORWARD: Option<Half> = Some(Half::Forward);
const BACKWARD: Option<Half> = Some(Half::Backward);
