//! The places that rank 0 reports to: the launcher, JSON lines, TensorBoard.

use std::path::PathBuf;

use tessera_control::{Client, Message};

use super::image_grid::EncodedPng;
use super::jsonl::JsonLines;
use super::replace_file::replace_file;
use super::tensorboard::EventWriter;
use super::usage::Usage;
use super::{MetricSink, MetricsRow};
use crate::error::TrainError;
use crate::evaluate::Evaluation;
use crate::resolve::Resolved;
use crate::run_folder::{RunFolder, Tenure, cut_pictures};

/// Writes `config.toml`, whole or not at all.
///
/// # Errors
///
/// [`TrainError::File`] if it cannot be written.
pub fn write_config(folder: &RunFolder, resolved: &Resolved) -> Result<(), TrainError> {
    let path = folder.config();
    replace_file(&path, resolved.to_toml().as_bytes()).map_err(TrainError::file("write", &path))
}

/// Opens all sinks of a run that goes on after `last_step` steps; what they hold of later steps
/// is moved to `superseded/` in the run folder.
///
/// # Errors
///
/// [`TrainError::File`] if one cannot be opened.
pub fn open<'a>(
    tenure: &Tenure,
    last_step: u64,
    control: Option<&'a Client>,
    steps: u64,
) -> Result<Vec<Box<dyn MetricSink + 'a>>, TrainError> {
    let folder = &tenure.folder;
    let aside = folder.superseded(last_step, &tenure.attempt);
    let lines = |path: PathBuf| {
        let opened = JsonLines::open(&path, Some(last_step), Some(&aside));
        opened.map_err(TrainError::file("open", &path))
    };
    cut_pictures(&folder.reconstructions(), last_step, &aside.join("reconstructions"))?;
    let path = folder.tensorboard();
    let events = EventWriter::open_after(&path, last_step, &aside.join("tensorboard"));
    let events = events.map_err(TrainError::file("open", &path))?;
    let mut sinks: Vec<Box<dyn MetricSink + 'a>> = vec![
        Box::new(Rows {
            metrics: lines(folder.metrics())?,
            evaluations: lines(folder.evaluations())?,
            folder: folder.clone(),
        }),
        Box::new(TensorBoard { events, path }),
    ];
    if let Some(control) = control {
        sinks.push(Box::new(Launcher { control, steps }));
    }
    Ok(sinks)
}

/// `metrics.jsonl` and `eval.jsonl`.
struct Rows {
    metrics: JsonLines,
    evaluations: JsonLines,
    folder: RunFolder,
}

impl MetricSink for Rows {
    fn row(&mut self, row: &MetricsRow) -> Result<(), TrainError> {
        self.metrics.write(row).map_err(TrainError::file("write", &self.folder.metrics()))
    }

    fn evaluation(&mut self, evaluation: &Evaluation) -> Result<(), TrainError> {
        let path = self.folder.evaluations();
        self.evaluations.write(evaluation).map_err(TrainError::file("write", &path))
    }
}

/// The event file.
struct TensorBoard {
    events: EventWriter,
    path: PathBuf,
}

impl TensorBoard {
    fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<(), TrainError> {
        let mut written = Ok(());
        // Of an interval whose steps were all skipped there is no point to draw.
        for (tag, value) in values.iter().filter(|(_, value)| value.is_finite()) {
            written = written.and_then(|()| self.events.scalar(step, tag, *value as f32));
        }
        written.and_then(|()| self.events.flush()).map_err(TrainError::file("write", &self.path))
    }
}

impl MetricSink for TensorBoard {
    fn row(&mut self, row: &MetricsRow) -> Result<(), TrainError> {
        self.scalars(
            row.step,
            &[
                ("train/loss", row.loss),
                ("train/recon_mse", row.recon_mse),
                ("train/quantizer_loss", row.quantizer_loss),
                ("train/perplexity", row.usage.perplexity),
                ("train/codes_used", row.usage.codes_used as f64),
                ("train/bits_per_token", row.usage.bits_per_token),
                ("train/codes_replaced", row.codes_replaced as f64),
                ("train/samples_skipped", row.samples_skipped as f64),
                ("train/learning_rate", row.learning_rate),
                ("train/grad_norm", row.grad_norm),
                ("speed/samples_per_second", row.samples_per_second),
                ("speed/step_ms", row.step_ms),
                ("speed/comm_ms", row.comm_ms),
                ("speed/data_wait_ms", row.data_wait_ms),
            ],
        )
    }

    fn evaluation(&mut self, evaluation: &Evaluation) -> Result<(), TrainError> {
        self.scalars(
            evaluation.step,
            &[
                ("eval/mse", evaluation.mse),
                ("eval/psnr", evaluation.psnr),
                ("eval/ssim", evaluation.ssim),
                ("eval/perplexity", evaluation.usage.perplexity),
                ("eval/codes_used", evaluation.usage.codes_used as f64),
                ("eval/bits_per_token", evaluation.usage.bits_per_token),
            ],
        )
    }

    fn picture(&mut self, step: u64, picture: &EncodedPng) -> Result<(), TrainError> {
        self.events
            .image(step, "reconstructions", picture)
            .and_then(|()| self.events.flush())
            .map_err(TrainError::file("write", &self.path))
    }
}

/// The launcher, which draws the progress bar.
struct Launcher<'a> {
    control: &'a Client,
    steps: u64,
}

impl MetricSink for Launcher<'_> {
    fn row(&mut self, row: &MetricsRow) -> Result<(), TrainError> {
        if !row.loss.is_finite() {
            return Ok(()); // every step was skipped; a line about each has been sent
        }
        self.control.send(Message::Progress {
            step: row.step,
            steps: self.steps,
            loss: row.loss,
            perplexity: row.usage.perplexity,
            samples_per_second: row.samples_per_second,
        });
        Ok(())
    }

    fn evaluation(&mut self, evaluation: &Evaluation) -> Result<(), TrainError> {
        let Evaluation { step, mse, psnr, ssim, usage, .. } = evaluation;
        let Usage { perplexity, codes_used, bits_per_token, .. } = usage;
        self.control.send(Message::Notice {
            text: format!(
                "step {step}: test mse {mse:.5}, psnr {psnr:.2} dB, ssim {ssim:.4}, perplexity \
                 {perplexity:.1}, codes used {codes_used}, {bits_per_token:.2} bits a token"
            ),
        });
        Ok(())
    }
}
