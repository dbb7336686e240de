//! What is trained.
//!
//! A [`Task`] knows its network, its losses and its figures, and what of them has to be summed over ranks. It never
//! communicates: the engine hands it a [`Part`] of the global batch and the [`Sums`] to add to, sums those, and hands
//! them back. So a step is the same for every number of ranks and of micro-batches, whatever is trained.

pub mod autoencoder;
mod exhibits;
mod grid;
pub(crate) mod kind;
pub(crate) mod networks;
pub mod prior;
pub mod probe;
mod sizes;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use tch::{Device, Kind, Tensor};
use tessera_comm::{Piece, Reducer};
use tessera_data::tokens::Histograms;
use tessera_data::{DataError, OnCorrupt, Source};
use tessera_model::{CodesFile, signal_of};
use tessera_nn::parameters::{ParameterId, Stage};
use tessera_nn::{Parameters, Signal};

pub use self::kind::TaskKind;
pub use self::sizes::{SampleCost, Sizes};
use crate::config::TrainConfig;
use crate::engine::figures::Figure;
use crate::engine::metrics::picture::Exhibit;
use crate::engine::step::Sums;
use crate::error::TrainError;

/// What a task has to know of a data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    /// What a sample is.
    pub signal: Signal,
    /// Instants a second of sound; 0 of others, and where it is unknown.
    pub sample_rate: u32,
    /// Number of classes; none where samples have no labels, or nobody asks for them.
    pub num_classes: Option<u64>,
    /// Of a prior's samples, what their codes are.
    pub tokens: Option<Arc<TrainTokens>>,
}

/// Codes of a token set.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainTokens {
    /// What they are.
    pub codes: CodesFile,
    /// How often each came in the split `train`.
    pub histograms: Histograms,
}

impl Samples {
    /// What a task of this kind has to know of the split `train`.
    ///
    /// # Errors
    ///
    /// [`DataError`] if the data cannot be read.
    pub fn of(task: TaskKind, train: &dyn Source) -> Result<Self, DataError> {
        let num_classes = if task.wants_labels() { train.num_classes()? } else { None };
        let counted = if task == TaskKind::Prior { train.histograms()? } else { None };
        let tokens = CodesFile::of(train)?.zip(counted);
        let tokens = tokens.map(|(codes, histograms)| Arc::new(TrainTokens { codes, histograms }));
        let shape = train.shape();
        let (signal, sample_rate) = (signal_of(shape), shape.sample_rate);
        Ok(Self { signal, sample_rate, num_classes, tokens })
    }
}

/// Samples on a device, and where they stand in the global batch.
#[derive(Debug)]
pub struct Part {
    /// Optimiser step, from 0.
    pub step: u64,
    /// The samples as they lie in memory, `[N, ..]`; N may be 0.
    pub raw: Tensor,
    /// What they are.
    pub signal: Signal,
    /// The numbers of their classes, `[N]` int64, where the task [wants](TaskKind::wants_labels) them.
    pub labels: Option<Tensor>,
    /// Their places in the global batch, from 0.
    pub samples: Range<u64>,
    /// Samples of the global batch.
    pub num_global: u64,
    /// Samples before the global batch: of the run, or of the split that is evaluated.
    pub first: u64,
}

impl Part {
    /// The samples `[N, C, ..]`, as a model reads them.
    pub fn values(&self, kind: Kind) -> Tensor {
        self.signal.from_raw(&self.raw, kind)
    }

    /// The same samples in parts of at most `most`, of which there is at least one; 0: in one.
    pub(crate) fn split(&self, most: u64) -> Vec<Self> {
        let num = self.samples.end - self.samples.start;
        let most = if most == 0 { num.max(1) } else { most };
        let starts = (0..num.max(1)).step_by(usize::try_from(most).unwrap_or(usize::MAX));
        let part = |start: u64| {
            let len = most.min(num - start);
            let first = self.samples.start + start;
            let narrow = |tensor: &Tensor| tensor.narrow(0, start as i64, len as i64);
            Self {
                raw: narrow(&self.raw),
                labels: self.labels.as_ref().map(narrow),
                samples: first..first + len,
                ..*self
            }
        };
        starts.map(part).collect()
    }
}

/// A loss of a task.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loss {
    /// Its key in a row.
    pub name: &'static str,
    /// Its name in a sentence.
    pub words: &'static str,
    /// What it counts in the sum that is trained on; 0: it is told alone, or trains something else.
    pub weight: f64,
}

impl Loss {
    /// A loss that counts as it is.
    pub fn new(name: &'static str, words: &'static str) -> Self {
        Self { name, words, weight: 1.0 }
    }
}

/// A phase of a pass, timed by itself.
#[derive(Debug, Clone, Copy)]
pub struct Phase {
    /// What it does.
    pub name: &'static str,
    /// What of the pass ends with it.
    pub ends: Option<Half>,
}

/// A half of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// From the samples to the losses.
    Forward,
    /// From the losses to the gradients.
    Backward,
}

/// What a task adds up over a logging interval, beside its losses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Single numbers of steps.
    pub numbers: usize,
    /// Length of one vector of them.
    pub vector: i64,
}

/// What an update did beyond moving the state.
#[derive(Debug)]
pub struct Updated {
    /// Rows `[K]` (bool) of parameters that were set anew: their moments should be zero.
    pub resets: Vec<(ParameterId, Tensor)>,
    /// What the step adds to [`Totals::numbers`]; none where that is nothing.
    pub numbers: Vec<Option<Tensor>>,
    /// What the step adds to [`Totals::vector`].
    pub vector: Tensor,
}

/// What an evaluation is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// Levels of codes that take part, from the first; none: all.
    pub levels: Option<usize>,
    /// Samples of the split; 0 where nothing is read yet.
    pub num_samples: u64,
}

/// A model with its losses, as far as the engine has to know them.
///
/// Everything that decides what ranks sum and in which order hangs on the configuration alone.
pub trait Task: Any + Debug + Send {
    /// All trainable tensors.
    fn parameters(&self) -> &Parameters;

    /// How large it is.
    fn sizes(&self) -> Sizes {
        Sizes::of(self.parameters())
    }

    /// Lets layers see what has been written to [parameters](Self::parameters) and [state](Self::state).
    fn refresh(&self) {
        self.parameters().refresh();
    }

    /// Its losses, in the order in which [`Self::pass`] returns them, without their weights. Their weighted sum is what is
    /// trained on.
    fn losses(&self) -> &[Loss];

    /// Phases of [`Self::pass`] in their order.
    fn phases(&self) -> &'static [Phase];

    /// The name of [`Self::update`] as a phase.
    fn update_phase(&self) -> &'static str {
        "update"
    }

    /// What it sums over ranks beside gradients and losses, in the order of the buffer.
    fn pieces(&self) -> Vec<Piece> {
        Vec::new()
    }

    /// Pieces that have to be whole before a pass of this step can end ([`Sums::complete`]), side by side in [their order](Self::pieces).
    fn surveyed(&self, _step: u64) -> &'static [&'static str] {
        &[]
    }

    /// Adds a part's share to the [surveyed](Self::surveyed) pieces. Where it needs a graph it makes one by
    /// `tch::with_grad`. Only where ranks pass over their
    /// samples in several parts; in one part a pass does without.
    ///
    /// # Errors
    ///
    /// [`TrainError`] if the device fails.
    fn survey(&self, _part: &Part, _sums: &mut Sums<'_>) -> Result<(), TrainError> {
        Ok(())
    }

    /// Forward and backward over a part of this rank's samples: adds gradients and pieces to `sums`. Returns the part's
    /// share of each loss, divided by counts of the *global* batch.
    ///
    /// # Errors
    ///
    /// [`TrainError`] if the device fails.
    fn pass(&self, part: &Part, sums: &mut Sums<'_>) -> Result<Vec<Tensor>, TrainError>;

    /// Elements of the flat parameters that a step leaves as they are, momentum and decay included, in order.
    fn at_rest(&self, _step: u64) -> Vec<Range<i64>> {
        Vec::new()
    }

    /// Moves what no optimiser moves, from the sums over all ranks, after its step. `whole` is all of this rank's
    /// samples.
    fn update(&mut self, _whole: &Part, _sums: &Reducer) -> Updated {
        let device = self.parameters().flat().device();
        let vector = Tensor::zeros([0], (Kind::Double, device));
        Updated { resets: Vec::new(), numbers: Vec::new(), vector }
    }

    /// What the first global batch has to tell before the first step, as pieces that are summed over ranks.
    fn first_pieces(&self, _whole: &Part) -> Vec<Piece> {
        Vec::new()
    }

    /// Adds a part's share to the [first pieces](Self::first_pieces).
    fn first_look(&self, _part: &Part, _sums: &Reducer) {}

    /// Begins from the summed [first pieces](Self::first_pieces). Stages that are `taken` begin as another training has
    /// left them.
    fn begin(&mut self, _whole: &Part, _sums: &Reducer, _taken: &[Stage]) {}

    /// Makes tensors that another training has saved, by name, fit into this one, where it knows how. What to tell of it.
    fn fit(&self, _saved: &mut BTreeMap<String, Tensor>) -> Vec<String> {
        Vec::new()
    }

    /// Canonical name and tensor of all state that is no parameter, in a fixed order. Writing to the tensors restores
    /// it.
    fn state(&self) -> Vec<(String, Tensor)> {
        Vec::new()
    }

    /// What it adds up over a logging interval.
    fn totals(&self) -> Totals {
        Totals::default()
    }

    /// The figures of a logging interval, from its totals.
    fn figures(&self, _numbers: &[f64], _vector: &[f64]) -> Vec<Figure> {
        Vec::new()
    }

    /// How often each code of each level was taken in a logging interval, from its totals; nothing where there are no codes.
    fn usage<'a>(&self, _vector: &'a [f64]) -> Vec<&'a [f64]> {
        Vec::new()
    }

    /// How the model is measured.
    ///
    /// # Errors
    ///
    /// [`TrainError::BadInput`] where it has not what was asked for.
    fn measure(&self, asked: Asked) -> Result<Box<dyn Measure + '_>, TrainError>;

    /// What the model does with samples of `source`, to look at and to listen to; nothing where there can be nothing.
    ///
    /// # Errors
    ///
    /// [`TrainError`] if samples cannot be read.
    fn show(
        &self,
        _source: &dyn Source,
        _on_corrupt: OnCorrupt,
    ) -> Result<Vec<Exhibit>, TrainError> {
        Ok(Vec::new())
    }
}

/// A model under measurement over a split.
pub trait Measure {
    /// Length of what is summed over the samples of a split and ranks, in float64.
    fn len(&self) -> i64;

    /// Whether nothing is summed.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds the samples of a part, of which there is at least one, to `sums`, without a graph.
    fn add(&self, part: &Part, sums: &Tensor);

    /// The figures of a split of `num_samples`, from its sums.
    fn figures(&self, sums: &[f64], num_samples: u64, signal: Signal) -> Vec<Figure>;

    /// Figures that are no number where the model computes none: name and words.
    fn finite(&self) -> &'static [(&'static str, &'static str)];
}

impl dyn Task {
    /// It as this kind of task, if it is one.
    pub fn of<T: Task>(&self) -> Option<&T> {
        (self as &dyn Any).downcast_ref()
    }
}

/// What is wrong with a configuration for samples like these, if anything.
pub(crate) fn check(config: &TrainConfig, samples: &Samples) -> Result<(), String> {
    match config.task {
        TaskKind::Autoencoder => autoencoder::check(config, samples),
        TaskKind::Probe => probe::check(config, samples),
        TaskKind::Prior => prior::check(config, samples),
    }
}

/// Builds what the configuration trains, for samples like these.
///
/// # Errors
///
/// [`TrainError::BadInput`] if it cannot be trained on them.
pub(crate) fn build(
    config: &TrainConfig,
    samples: Samples,
    device: Device,
) -> Result<Box<dyn Task>, TrainError> {
    Ok(match config.task {
        TaskKind::Autoencoder => Box::new(autoencoder::Autoencoder::new(config, &samples, device)?),
        TaskKind::Probe => Box::new(probe::Probe::new(config, samples, device)?),
        TaskKind::Prior => Box::new(prior::TokenPrior::new(config, &samples, device)?),
    })
}
