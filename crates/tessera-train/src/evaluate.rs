//! Reconstruction and codebook figures over a whole split, each sample counted exactly once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use tessera_comm::Communicator;
use tessera_control::{Activity, Phase};
use tessera_data::{DataConfig, LoadOptions, Loader, Order, Source, eval_plan};
use tessera_nn::{VqVae, from_vectors, loss, to_vectors};

use crate::batch::batch_images;
use crate::checkpoint;
use crate::coordinator::agree_on;
use crate::error::TrainError;
use crate::metrics::usage::Usage;
use crate::optim::AdamW;
use crate::resolve::Resolved;
use crate::run_folder::RunFolder;
use crate::setup::open_test;
use crate::training::Training;

/// Figures over a whole split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Optimiser steps done.
    pub step: u64,
    /// Name of the split.
    pub split: String,
    /// Samples counted, each once.
    pub samples: u64,
    /// Mean squared error over all pixels, in [0, 1]².
    pub mse: f64,
    /// Peak signal-to-noise ratio of that error, in decibels.
    pub psnr: f64,
    /// Structural similarity, mean over samples.
    pub ssim: f64,
    /// How codes were taken over all tokens of the split.
    #[serde(flatten)]
    pub usage: Usage,
}

impl Evaluation {
    /// Refuses figures that are not finite: the model has made something that is no number of a
    /// sample.
    ///
    /// # Errors
    ///
    /// [`TrainError::NotFinite`].
    pub fn check_finite(&self) -> Result<(), TrainError> {
        let Self { step, split, samples, mse, ssim, .. } = self;
        let found = [("mean squared error", *mse), ("structural similarity", *ssim)];
        match found.into_iter().find(|(_, value)| !value.is_finite()) {
            Some((what, value)) if *samples > 0 => {
                let of = format!(" (evaluated on the split {split})");
                Err(TrainError::NotFinite { what, step: *step, value, of })
            }
            _ => Ok(()),
        }
    }
}

/// Where an evaluation reads its samples.
#[derive(Clone)]
pub struct Split {
    /// Name of the split.
    pub name: String,
    /// Its samples.
    pub source: Arc<dyn Source>,
    /// Samples a batch, over all ranks.
    pub batch: u64,
    /// How they are read.
    pub load: LoadOptions,
}

/// Measures `model` after `step` steps, with the first `num_levels` levels of a residual quantiser.
/// Collective: one all-reduce, at the end; `activity` hears of each batch.
///
/// # Errors
///
/// [`TrainError::Data`] or [`TrainError::Comm`].
pub fn evaluate(
    comm: &dyn Communicator,
    model: &VqVae,
    split: &Split,
    step: u64,
    num_levels: usize,
    activity: &Activity,
) -> Result<Evaluation, TrainError> {
    let _no_grad = tch::no_grad_guard();
    let (kind, device) = (model.kind(), model.device());
    let levels = model.quantizer.num_codes();
    let num_codes = levels.iter().sum::<i64>();
    let options = (Kind::Double, device);
    // Squared error, similarity, samples; then how often each code was taken.
    let sums = Tensor::zeros([3 + num_codes], options);
    let counts_k = sums.narrow(0, 3, num_codes);
    let plan = eval_plan(split.source.num_samples(), split.batch, comm.rank(), comm.world_size());
    let mut loader = Loader::new(Arc::clone(&split.source), Order::Sequential, plan, split.load)?;
    while let Some(batch) = loader.next() {
        let batch = batch?;
        if batch.num_samples() > 0 {
            let images_nchw = batch_images(&batch, kind, device);
            let (outputs_nchw, indices_nl) = reconstruct(model, &images_nchw, num_levels);
            let error = loss::squared_error(&outputs_nchw, &images_nchw).to_kind(Kind::Double);
            let similarity = loss::ssim_sum(&outputs_nchw, &images_nchw);
            let samples = Tensor::from(batch.num_samples() as f64).to(device);
            let _ = sums.narrow(0, 0, 3).g_add_(&Tensor::stack(&[error, similarity, samples], 0));
            let mut first = 0;
            for (level, &len) in levels.iter().enumerate() {
                let indices_n = indices_nl.select(1, level as i64);
                let kept_n = indices_n.masked_select(&indices_n.ge(0));
                let taken_k = kept_n.bincount(None::<Tensor>, len);
                let _ = counts_k.narrow(0, first, len).g_add_(&taken_k);
                first += len;
            }
        }
        loader.recycle(batch);
        activity.part_done();
    }
    let sums: Vec<f64> = Vec::try_from(comm.all_reduce(sums)?.wait()?)?;
    let (samples, counts) = (sums[2], &sums[3..]);
    let mse = sums[0] / (samples * split.source.shape().num_bytes() as f64);
    Ok(Evaluation {
        step,
        split: split.name.clone(),
        samples: samples as u64,
        mse,
        psnr: loss::psnr(mse),
        ssim: sums[1] / samples,
        usage: Usage::of(counts, &levels),
    })
}

/// Images through the whole model, with the first `num_levels` levels of a residual quantiser:
/// outputs clamped to [0, 1], and the indices of each token. An output is NaN where a latent that
/// it was made of is not finite, even though there is a code for it.
pub fn reconstruct(model: &VqVae, images_nchw: &Tensor, num_levels: usize) -> (Tensor, Tensor) {
    let latents_ndhw = model.encode(images_nchw);
    let (quantizer, parameters) = (&model.quantizer, &model.parameters);
    let latents_nd = to_vectors(&latents_ndhw);
    let indices_nl = quantizer.tokenize(parameters, &latents_nd);
    let indices_nl = quantizer.leave_out(&indices_nl, num_levels);
    let is_lost_n1 = latents_nd.isfinite().all_dim(1, true).logical_not();
    let codes_nd = quantizer.look_up(parameters, &indices_nl).masked_fill(&is_lost_n1, f64::NAN);
    (model.decode(&from_vectors(&codes_nd, &latents_ndhw)).clamp(0.0, 1.0), indices_nl)
}

/// Which checkpoint of a run to evaluate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The newest one whose hashes hold.
    Latest,
    /// That of this step.
    Step(u64),
}

impl std::str::FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "latest" => Ok(Self::Latest),
            step => step
                .parse()
                .map(Self::Step)
                .map_err(|_| format!("expected 'latest' or a step, found '{step}'")),
        }
    }
}

/// Evaluates a checkpoint of a run on its test split, or that of one `part` of its mixture, counted
/// from 0, with the first `num_levels` levels of a residual quantiser, or all. Collective.
///
/// # Errors
///
/// [`TrainError::BadInput`] if the folder holds no run or no such checkpoint, there is no test split
/// or no such part, or the quantiser has fewer levels; [`TrainError::NotFinite`] where figures are
/// not.
pub fn evaluate_run(
    comm: &dyn Communicator,
    device: Device,
    run_dir: &Path,
    which: Which,
    num_levels: Option<usize>,
    part: Option<usize>,
    activity: &Activity,
) -> Result<Evaluation, TrainError> {
    let resolved = agree_on(comm, Resolved::of_run(run_dir))?;
    let found = match comm.rank() {
        0 => find(run_dir, which),
        _ => Ok(PathBuf::new()), // the state comes from rank 0
    };
    let checkpoint = agree_on(comm, found)?;
    let config = &resolved.config;
    let source = agree_on(comm, test_of(&config.data, part))?;
    let channels = i64::from(source.shape().channels);
    let kinds = config.train.precision.kinds();
    let model = VqVae::new(&config.model, channels, config.seed, kinds, device);
    let levels = model.quantizer.num_residual_levels();
    let num_levels = num_levels.unwrap_or(levels);
    if !(1..=levels).contains(&num_levels) {
        return Err(TrainError::BadInput(format!(
            "--levels should be from 1 to {levels}, the levels in a row that the run's quantiser \
             has, found {num_levels}"
        )));
    }
    let optimizer = AdamW::new(&config.optimizer, &model.parameters);
    let training = Training::new(model, optimizer);
    let step = checkpoint::restore_all(comm, &checkpoint, &training)?.step;
    let (batch, load) = (config.eval.batch, config.data.load_options());
    let name = part.map_or("test".to_owned(), |part| format!("test of data.mixture.{part}"));
    let split = Split { name, source, batch, load };
    activity.enter(Phase::Evaluate);
    let figures = evaluate(comm, &training.model, &split, step, num_levels, activity)?;
    figures.check_finite()?;
    Ok(figures)
}

/// The split test of a data set, or of a part of it.
fn test_of(data: &DataConfig, part: Option<usize>) -> Result<Arc<dyn Source>, TrainError> {
    let bad = |problem: String| Err(TrainError::BadInput(problem));
    let data = match part {
        None => data,
        Some(_) if data.mixture.is_empty() => {
            return bad("--part is for a mixture, which the data of this run are not".to_owned());
        }
        Some(number) => match data.mixture.get(number) {
            Some(part) => &part.data,
            None => {
                let last = data.mixture.len() - 1;
                return bad(format!("--part should be from 0 to {last}, found {number}"));
            }
        },
    };
    match open_test(data)? {
        Some(source) => Ok(source),
        None => bad("there is nothing to evaluate on: the data have no split test, and \
                     data.holdout is 0"
            .to_owned()),
    }
}

/// The checkpoint to evaluate, every byte of it as it was written.
fn find(run_dir: &Path, which: Which) -> Result<PathBuf, TrainError> {
    let checkpoints = RunFolder { root: run_dir.to_owned() }.checkpoints();
    let is_asked = |step: u64| which == Which::Latest || which == Which::Step(step);
    let (found, refused) =
        tessera_checkpoint::newest_good(&checkpoints, |manifest| is_asked(manifest.step))?;
    for error in &refused {
        tracing::warn!(%error, "checkpoint skipped");
    }
    if let Some(found) = found {
        return Ok(found.path);
    }
    let all = tessera_checkpoint::list(&checkpoints)?;
    // Of one whose manifest is damaged the name is all there is.
    let is_there = all.iter().any(|(step, _)| is_asked(*step));
    if let Some(error) = refused.into_iter().next().filter(|_| is_there) {
        return Err(error.into());
    }
    let steps: Vec<_> = all.iter().map(|(step, _)| step.to_string()).collect();
    Err(TrainError::BadInput(format!(
        "{} has no such checkpoint; there {}",
        checkpoints.display(),
        if steps.is_empty() { "is none".into() } else { format!("are {}", steps.join(", ")) }
    )))
}
