//! A small head on features, trained on the labels of samples: what a model has learned, in one number.
//!
//! The features are the samples themselves, the pictures that a [`View`] shows of sound and film, or what a frozen model
//! makes of them: its latents, or their codes
//! (Alain and Bengio 2016, <https://arxiv.org/abs/1610.01644>). Each channel of them is brought to mean 0 and
//! deviation 1 over the first global batch. The frozen model is part of the task's state, so a checkpoint of a probe is
//! complete; it is no parameter, so it costs no gradient, no moment and no byte of a sum.

mod classifier;
pub(crate) mod config;
mod measure;

use tch::{Device, Kind, Reduction, Tensor};
use tessera_checkpoint::BestMetric;
use tessera_comm::{Piece, Reducer};
use tessera_nn::chain::Block;
use tessera_nn::features::View;
use tessera_nn::parameters::{Declarations, Stage};
use tessera_nn::{Head, Parameters, VqVae};

pub use self::classifier::Classifier;
pub(crate) use self::classifier::check_noted;
pub use self::config::{Features, HeadKind, ProbeConfig};
use self::measure::Classification;
use super::{Asked, Half, Loss, Measure, Part, Phase, Samples, Task, Totals, Updated};
use crate::config::TrainConfig;
use crate::engine::figures::Figure;
use crate::engine::step::Sums;
use crate::error::TrainError;

/// Samples whose class was found, and samples.
const HITS: &str = "hits";
/// Mean of each channel, and of its square.
const MOMENTS: &str = "moments";
/// Least deviation that is divided by.
const TINY: f64 = 1e-6;

const FEATURES: usize = 0;
const FORWARD: usize = 1;
const BACKWARD: usize = 2;
const PHASES: [Phase; 3] = [
    Phase { name: "features", ends: None },
    Phase { name: "head forward, loss", ends: Some(Half::Forward) },
    Phase { name: "head backward", ends: Some(Half::Backward) },
];

/// A head in training.
#[derive(Debug)]
pub struct Probe {
    config: ProbeConfig,
    /// The head's.
    parameters: Parameters,
    head: Head,
    /// What shows sound and film as pictures, where the head reads those.
    view: Option<View>,
    /// What makes the features, where they are not the samples.
    model: Option<VqVae>,
    /// Of each channel of the features, `[C]`.
    mean_c: Tensor,
    /// Of each channel of the features, `[C]`.
    deviation_c: Tensor,
    num_classes: i64,
}

impl Probe {
    /// The probe of a configuration for samples like these, with the initial values that its seed stands for.
    ///
    /// # Errors
    ///
    /// [`TrainError::BadInput`] if samples have no labels.
    pub fn new(config: &TrainConfig, samples: Samples, device: Device) -> Result<Self, TrainError> {
        check(config, &samples).map_err(TrainError::BadInput)?;
        let num_classes = samples.num_classes.unwrap_or(0) as i64;
        let kinds = config.train.precision.kinds();
        let probe = &config.probe;
        let model = probe.needs_model().then(|| {
            let mut model = VqVae::new(&config.model, &samples.signal, config.seed, kinds, device);
            model.parameters.freeze(&model.parameters.stages());
            model
        });
        let view = match probe.features {
            Features::Spectrogram | Features::Frames => {
                let view = View::of(&samples.signal, samples.sample_rate);
                Some(view.map_err(TrainError::BadInput)?)
            }
            Features::Pixels | Features::Latents | Features::Codes => None,
        };
        let (channels, axes) = match (&model, &view) {
            (Some(model), _) => {
                let dims = model.quantizers.iter().map(|quantizer| quantizer.dim());
                (dims.sum(), model.latent_axes().remove(0))
            }
            (None, Some(view)) => (view.shape()[0], view.shape()[1..].to_vec()),
            (None, None) => (samples.signal.channels(), samples.signal.axes()),
        };
        let mut to = Declarations::default();
        let head = Head::new(probe.head(), channels, &axes, num_classes, &mut to)
            .map_err(TrainError::BadInput)?;
        Ok(Self {
            config: probe.clone(),
            parameters: to.allocate(config.seed, kinds, device),
            head,
            view,
            model,
            mean_c: Tensor::zeros([channels], (kinds.master, device)),
            deviation_c: Tensor::ones([channels], (kinds.master, device)),
            num_classes,
        })
    }

    /// What the head reads of a part, `[N, C, ..]`, or the pictures of each sample one after another, `[N M, C, H, W]`, before it
    /// is normalised; without graph.
    fn features(&self, part: &Part) -> Tensor {
        self.features_of(part.values(self.parameters.flat().kind()))
    }

    /// What the head reads of samples `[N, C, ..]`.
    fn features_of(&self, values: Tensor) -> Tensor {
        if let Some(view) = &self.view {
            return view.pictures(&values);
        }
        let Some(model) = &self.model else { return values };
        let _no_grad = tch::no_grad_guard();
        let codes = model.descend(&values, |level, latents| match self.config.features {
            Features::Codes => model.quantize(level, latents).0,
            _ => latents.shallow_clone(),
        });
        model.gather(&codes)
    }

    /// The head's answer to a part: logits `[N, classes]` of the master kind, of several pictures of a sample their mean.
    fn logits(&self, features: &Tensor) -> Tensor {
        let mut shape = vec![1; features.dim()];
        shape[1] = -1;
        let of_channel = |tensor_c: &Tensor| tensor_c.view(shape.as_slice());
        let normal = (features - of_channel(&self.mean_c)) / of_channel(&self.deviation_c);
        let normal = normal.to_kind(self.parameters.compute_kind());
        let logits = self.head.forward(&self.parameters, &normal);
        let logits_mk = logits.to_kind(self.parameters.flat().kind());
        match self.view.map_or(1, |view| view.num_pictures()) {
            1 => logits_mk,
            pictures => {
                let num = logits_mk.size()[0] / pictures;
                let logits_nmk = logits_mk.view([num, pictures, self.num_classes]);
                logits_nmk.mean_dim([1i64].as_slice(), false, logits_mk.kind())
            }
        }
    }
}

/// What is wrong with a probe for samples like these, if anything.
pub(crate) fn check(config: &TrainConfig, samples: &Samples) -> Result<(), String> {
    let probe = &config.probe;
    match samples.num_classes {
        Some(2..) => {}
        Some(num) => {
            return Err(format!(
                "task = \"probe\" needs two classes at least, these data have {num}"
            ));
        }
        None => {
            return Err("task = \"probe\" is trained on labels, and these data have none: docs/data.md tells where \
                        they are read from"
                .to_owned());
        }
    }
    let metric = config.checkpoint.best_metric;
    if config.checkpoint.keep_best > 0
        && !matches!(metric, BestMetric::Accuracy | BestMetric::CrossEntropy)
    {
        return Err("checkpoint.best_metric is none that a probe is measured by: set it to \"accuracy\" or \
                    \"cross_entropy\", or checkpoint.keep_best to 0"
            .to_owned());
    }
    probe.features.check(&samples.signal)?;
    if !probe.needs_model() {
        return Ok(());
    }
    if config.model.init_from.as_os_str().is_empty() {
        return Err("probe.features reads what a trained model makes of samples: set model.init_from to its run \
                    folder, and [model] as it is there, or probe.features = \"pixels\""
            .to_owned());
    }
    config.model.validate(&samples.signal)
}

/// The labels of a part, `[N]` int64.
fn labels(part: &Part) -> &Tensor {
    part.labels.as_ref().expect("the engine reads labels for a task that wants them")
}

impl Task for Probe {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn refresh(&self) {
        self.parameters.refresh();
        if let Some(model) = &self.model {
            model.parameters.refresh();
        }
    }

    fn losses(&self) -> &[Loss] {
        &[Loss { name: "cross_entropy", words: "cross-entropy", weight: 1.0 }]
    }

    fn phases(&self) -> &'static [Phase] {
        &PHASES
    }

    fn update_phase(&self) -> &'static str {
        "hits"
    }

    fn pieces(&self) -> Vec<Piece> {
        vec![Piece { name: HITS, len: 2 }]
    }

    fn pass(&self, part: &Part, sums: &mut Sums<'_>) -> Result<Vec<Tensor>, TrainError> {
        let (features, labels_n) = (self.features(part), labels(part));
        sums.lap(FEATURES);
        let logits_nk = self.logits(&features);
        let smoothing = self.config.label_smoothing;
        let loss = logits_nk.cross_entropy_loss(
            labels_n,
            None::<Tensor>,
            Reduction::Sum,
            -100, // no label is left out
            smoothing,
        ) / part.num_global as f64;
        let mut hits = sums.piece(HITS);
        let found = logits_nk.detach().argmax(1, false).eq_tensor(labels_n).sum(hits.kind());
        let seen = Tensor::full_like(&found, labels_n.size()[0] as f64);
        hits += Tensor::stack(&[found, seen], 0);
        sums.ready(&[HITS])?;
        sums.lap(FORWARD);
        let leaves = self.parameters.leaves_of(Stage::Head);
        let gradients = Tensor::f_run_backward(&[&loss], &leaves, false, false)?;
        sums.add_gradients(&self.parameters, Stage::Head, &gradients);
        sums.ready_gradients(&self.parameters, Stage::Head)?;
        sums.lap(BACKWARD);
        Ok(vec![loss])
    }

    fn update(&mut self, _whole: &Part, sums: &Reducer) -> Updated {
        let hits = sums.piece(HITS);
        let numbers = vec![Some(hits.get(0)), Some(hits.get(1))];
        Updated { resets: Vec::new(), numbers, vector: hits.narrow(0, 0, 0) }
    }

    fn first_pieces(&self, _whole: &Part) -> Vec<Piece> {
        vec![Piece { name: MOMENTS, len: 2 * self.mean_c.size()[0] }]
    }

    fn first_look(&self, part: &Part, sums: &Reducer) {
        let features = self.features(part).to_kind(Kind::Double);
        let pictures = self.view.map_or(1, |view| view.num_pictures());
        let positions = pictures * features.size()[2..].iter().product::<i64>();
        let count = part.num_global as f64 * positions as f64;
        let along: Vec<i64> = (0..features.dim() as i64).filter(|axis| *axis != 1).collect();
        let mean = |of: &Tensor| of.sum_dim_intlist(along.as_slice(), false, Kind::Double) / count;
        let mut moments = sums.piece(MOMENTS);
        moments += Tensor::cat(&[mean(&features), mean(&features.square())], 0);
    }

    fn begin(&mut self, _whole: &Part, sums: &Reducer, _taken: &[Stage]) {
        let moments_2c = sums.piece(MOMENTS).view([2, -1]);
        let (mean_c, square_c) = (moments_2c.get(0), moments_2c.get(1));
        self.mean_c.copy_(&mean_c);
        self.deviation_c.copy_(&(square_c - mean_c.square()).clamp_min(TINY * TINY).sqrt());
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = vec![
            ("head.mean".to_owned(), self.mean_c.shallow_clone()),
            ("head.deviation".to_owned(), self.deviation_c.shallow_clone()),
        ];
        if let Some(model) = &self.model {
            let named = model.parameters.named_views();
            state.extend(named.map(|(name, tensor)| (name.to_owned(), tensor)));
            state.extend(model.quantizers.iter().flat_map(|quantizer| quantizer.state()));
        }
        state
    }

    fn totals(&self) -> Totals {
        Totals { numbers: 2, vector: 0 }
    }

    fn figures(&self, numbers: &[f64], _vector: &[f64]) -> Vec<Figure> {
        vec![Figure::number("accuracy", numbers[0] / numbers[1]).charted("train").shown(4)]
    }

    fn measure(&self, asked: Asked) -> Result<Box<dyn Measure + '_>, TrainError> {
        match asked.levels {
            None => Ok(Box::new(Classification { probe: self })),
            Some(_) => Err(TrainError::BadInput(
                "--levels is for an autoencoder: leave it out for a probe".to_owned(),
            )),
        }
    }
}
