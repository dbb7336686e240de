//! The command that says how good samples are.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tch::{Device, Tensor};
use tessera_apply::{ApplyError, Copies, Judged, Judging, Seen, SetFigures, agree_on};
use tessera_control::ExitCode;
use tessera_model::OpenModel;
use tessera_train::{Classifier, TrainError, open_features};

use crate::apply::{self, data_of, told};
use crate::arguments::judge::JudgeArguments;

/// Judges samples.
pub(crate) fn run(arguments: &JudgeArguments, stop: Arc<AtomicBool>) -> ExitCode {
    apply::run(&arguments.compute, stop, |session, watch| {
        let (comm, device) = (session.comm(), session.device());
        let model = tessera_apply::open(comm, &arguments.model.path(), device)?;
        let data = agree_on(comm, data_of(&arguments.data, &model, None))?;
        let opened = agree_on(comm, open(arguments, &model, device))?;
        let (network, name, classifier) = &opened;
        let classifier = classifier.as_ref().map(Opened::as_classifier);
        let judging = Judging { network, name, classifier };
        let judged =
            tessera_apply::judge(comm, &model, &data, &judging, &arguments.options(), watch)?;
        Ok(Some(told(arguments.compute.json, &judged, &in_words(&judged))))
    })
}

/// The networks that judge.
fn open(
    arguments: &JudgeArguments,
    model: &OpenModel,
    device: Device,
) -> Result<(Seen, String, Option<Opened>), ApplyError> {
    let classifier = open_classifier(arguments.classifier.as_deref(), model, device)?;
    let (signal, sample_rate) = (model.signal(), model.file.autoencoder().shape.sample_rate);
    let features = open_features(&arguments.features(), "features", (&signal, sample_rate), device);
    let (network, name) = features.map_err(as_applied)?;
    Ok((network, name, classifier))
}

/// A classifier that is open.
pub(crate) struct Opened {
    name: String,
    num_classes: i64,
    probabilities: Box<dyn Fn(&Tensor) -> Tensor>,
}

impl Opened {
    /// As whoever uses it wants it.
    pub(crate) fn as_classifier(&self) -> tessera_apply::Classifier<'_> {
        let Self { name, num_classes, probabilities } = self;
        let num_classes = *num_classes;
        tessera_apply::Classifier { probabilities, num_classes, name }
    }
}

/// Opens the classifier of a run, for the samples of a model; none where no run is named.
pub(crate) fn open_classifier(
    run: Option<&Path>,
    model: &OpenModel,
    device: Device,
) -> Result<Option<Opened>, ApplyError> {
    let Some(run) = run else { return Ok(None) };
    let (signal, sample_rate) = (model.signal(), model.file.autoencoder().shape.sample_rate);
    let opened = Classifier::open(run, "--classifier", (&signal, sample_rate), device);
    let classifier = opened.map_err(as_applied)?;
    Ok(Some(Opened {
        name: run.display().to_string(),
        num_classes: classifier.num_classes(),
        probabilities: Box::new(move |samples| classifier.probabilities(samples)),
    }))
}

/// An error of what trainings open, as one of what models are applied to.
fn as_applied(error: TrainError) -> ApplyError {
    ApplyError::Opened { code: error.code(), message: error.to_string() }
}

fn in_words(judged: &Judged) -> String {
    let Judged { path, features, num_samples, num_manifold, sets, copies, .. } = judged;
    let mut text = format!(
        "{}  {num_samples} of each set against as many held-out samples; features: {features}; precision, recall, density and coverage of {num_manifold}\n",
        path.display()
    );
    text.push_str(&format!(
        "{:40} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}\n",
        "", "Frechet", "accuracy", "precision", "recall", "density", "coverage", "diversity"
    ));
    for set in sets {
        let SetFigures { name, frechet, accuracy, precision, recall, density, coverage, diversity } =
            set;
        let accuracy = accuracy.map_or("-".to_owned(), |accuracy| format!("{accuracy:.3}"));
        text.push_str(&format!(
            "{name:40} {frechet:9.3} {accuracy:>9} {precision:9.3} {recall:9.3} {density:9.3} {coverage:9.3} {diversity:9.3}\n"
        ));
    }
    let Copies {
        num_training,
        exact,
        near_by_features,
        near_by_codes,
        codes_apart,
        codes_apart_held_out,
        ..
    } = copies;
    text.push_str(&format!(
        "copies: {exact} samples have the codes of one of {num_training} training samples; {:.1} % are nearer to one than 95 % of \
         held-out samples are by features, {:.1} % by codes (5 % is chance); {codes_apart:.1} codes differ from the nearest, of \
         held-out samples {codes_apart_held_out:.1}\n",
        100.0 * near_by_features,
        100.0 * near_by_codes
    ));
    text
}
