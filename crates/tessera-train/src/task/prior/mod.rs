//! A model of the tokens that a trained tokeniser made of samples: what a VQ-VAE generates through.
//!
//! The network is [`tessera_nn::prior`]'s. Its loss is a sum over tokens, in nats, divided by what the *global* batch
//! weighs, which every rank knows beforehand: which tokens carry a loss hangs on the configuration, the step and the places
//! of samples in the global batch alone. By those places all draws of a step are keyed.

mod baselines;
mod measure;
mod show;

use std::path::PathBuf;

use tch::{Device, Kind, Tensor};
use tessera_checkpoint::BestMetric;
use tessera_comm::{Piece, Reducer};
use tessera_data::{OnCorrupt, Source};
use tessera_nn::Parameters;
use tessera_nn::parameters::Stage;
use tessera_nn::prior::{Prior, TokenBatch, TrainingDraws};

use self::baselines::Baselines;
use self::measure::Likelihood;
use super::{Asked, Half, Loss, Measure, Part, Phase, Samples, Task, Totals, TrainTokens, Updated};
use crate::config::TrainConfig;
use crate::engine::figures::Figure;
use crate::engine::metrics::picture::Exhibit;
use crate::engine::step::Sums;
use crate::error::TrainError;

/// Of each level the nats of the tokens that carry a loss, and their number.
const NATS: &str = "nats";

const FORWARD: usize = 0;
const BACKWARD: usize = 1;
const PHASES: [Phase; 2] = [
    Phase { name: "prior forward, loss", ends: Some(Half::Forward) },
    Phase { name: "prior backward", ends: Some(Half::Backward) },
];

/// A prior in training.
#[derive(Debug)]
pub struct TokenPrior {
    /// The replica.
    pub model: Prior,
    seed: u64,
    /// Where each token of the prior stands in a sample of the token set, `[T]`.
    order_t: Tensor,
    /// What is known of tokens without a model of them.
    baselines: Baselines,
    /// Values of the sample that a sample's tokens stand for.
    num_values: u64,
    /// The token set, and the hash of the model that made it.
    made_by: (PathBuf, String),
}

impl TokenPrior {
    /// The prior of a configuration for tokens like these, with the initial values that its seed stands for.
    ///
    /// # Errors
    ///
    /// [`TrainError::BadInput`] if it cannot be trained on them.
    pub fn new(
        config: &TrainConfig,
        samples: &Samples,
        device: Device,
    ) -> Result<Self, TrainError> {
        check(config, samples).map_err(TrainError::BadInput)?;
        let tokens = tokens_of(samples).map_err(TrainError::BadInput)?;
        let codes = tokens.codes.of_prior();
        let kinds = config.train.precision.kinds();
        Ok(Self {
            model: Prior::new(&config.prior, &codes, config.seed, kinds, device),
            seed: config.seed,
            order_t: Tensor::from_slice(&tokens.codes.order()).to(device),
            baselines: Baselines::new(tokens, device),
            num_values: tokens.codes.num_values() as u64,
            made_by: (config.data.path.clone(), tokens.codes.tokenizer.clone()),
        })
    }

    /// The tokens of a part as the prior has them, `[N, T]`: of a hierarchy the coarsest level first.
    fn tokens(&self, raw_nt: &Tensor) -> Tensor {
        raw_nt.index_select(1, &self.order_t)
    }

    /// Runs `with` on the tokens of a part and their keys: the places of samples from the first one of `first` on.
    fn with_batch<T>(&self, part: &Part, first: u64, with: impl FnOnce(&TokenBatch<'_>) -> T) -> T {
        let raw_nt = part.values(Kind::Int64).flatten(1, -1);
        let ids: Vec<u64> = part.samples.clone().map(|place| first + place).collect();
        let (tokens_nt, classes_n) = (self.tokens(&raw_nt), part.labels.as_ref());
        with(&TokenBatch { tokens_nt: &tokens_nt, classes_n, ids: &ids })
    }
}

fn tokens_of(samples: &Samples) -> Result<&TrainTokens, String> {
    samples.tokens.as_deref().ok_or_else(|| {
        format!(
            "task = \"prior\" is trained on the codes of a tokeniser, and these data are {}: make a token set of them \
             by `tessera encode`, and set data.kind = \"tokens\" and data.path to its folder",
            samples.signal
        )
    })
}

/// What is wrong with a prior for samples like these, if anything.
pub(crate) fn check(config: &TrainConfig, samples: &Samples) -> Result<(), String> {
    let codes = tokens_of(samples)?.codes.of_prior();
    let checkpoint = &config.checkpoint;
    if checkpoint.keep_best > 0 && checkpoint.best_metric != BestMetric::NatsPerToken {
        return Err("checkpoint.best_metric is none that a prior is measured by: set it to \"nats_per_token\", or \
                    checkpoint.keep_best to 0"
            .to_owned());
    }
    config.prior.validate(&codes)
}

impl Task for TokenPrior {
    fn parameters(&self) -> &Parameters {
        &self.model.parameters
    }

    fn losses(&self) -> &[Loss] {
        const { &[Loss { name: "token_loss", words: "loss of the tokens", weight: 1.0 }] }
    }

    fn phases(&self) -> &'static [Phase] {
        &PHASES
    }

    fn update_phase(&self) -> &'static str {
        "nats"
    }

    fn pieces(&self) -> Vec<Piece> {
        vec![Piece { name: NATS, len: 2 * self.model.codes.levels.len() as i64 }]
    }

    fn pass(&self, part: &Part, sums: &mut Sums<'_>) -> Result<Vec<Tensor>, TrainError> {
        let model = &self.model;
        let by = TrainingDraws { seed: self.seed, step: part.step };
        let whole: Vec<u64> = (0..part.num_global).collect();
        let losses = self.with_batch(part, 0, |batch| model.losses(batch, by));
        let loss = losses.sum / model.weight(&whole, by);
        let mut nats = sums.piece(NATS);
        let num_l: Vec<f64> = losses.num_l.iter().map(|&num| num as f64).collect();
        let num_l = Tensor::from_slice(&num_l).to(nats.device());
        nats += Tensor::cat(&[losses.nats_l, num_l], 0);
        sums.ready(&[NATS])?;
        sums.lap(FORWARD);
        let leaves = model.parameters.leaves_of(Stage::Prior);
        let gradients = Tensor::f_run_backward(&[&loss], &leaves, false, false)?;
        sums.add_gradients(&model.parameters, Stage::Prior, &gradients);
        sums.ready_gradients(&model.parameters, Stage::Prior)?;
        sums.lap(BACKWARD);
        Ok(vec![loss])
    }

    fn update(&mut self, _whole: &Part, sums: &Reducer) -> Updated {
        Updated { resets: Vec::new(), numbers: Vec::new(), vector: sums.piece(NATS) }
    }

    fn totals(&self) -> Totals {
        Totals { numbers: 0, vector: 2 * self.model.codes.levels.len() as i64 }
    }

    fn figures(&self, _numbers: &[f64], vector: &[f64]) -> Vec<Figure> {
        let (nats_l, num_l) = vector.split_at(vector.len() / 2);
        let per_token = nats_l.iter().sum::<f64>() / num_l.iter().sum::<f64>();
        let levels = nats_l.iter().zip(num_l).map(|(nats, num)| nats / num).collect();
        vec![
            Figure::number("nats_per_token", per_token).charted("train").shown(4),
            Figure::numbers("level_nats_per_token", levels),
        ]
    }

    fn measure(&self, asked: Asked) -> Result<Box<dyn Measure + '_>, TrainError> {
        match asked.levels {
            None => Ok(Box::new(Likelihood { prior: self })),
            Some(_) => Err(TrainError::BadInput(
                "--levels is for an autoencoder: leave it out for a prior".to_owned(),
            )),
        }
    }

    fn show(
        &self,
        _source: &dyn Source,
        _on_corrupt: OnCorrupt,
    ) -> Result<Vec<Exhibit>, TrainError> {
        let (data, hash) = &self.made_by;
        match show::tokenizer(data, hash)? {
            Some(tokenizer) => show::draw(self, &tokenizer),
            None => Ok(Vec::new()),
        }
    }
}
