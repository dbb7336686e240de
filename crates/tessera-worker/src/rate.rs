//! `tessera rate-distortion`: a model beside the codecs of today.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tessera_apply::{ApplyError, RateInput, RateModel, RateOptions, Rated, rate_distortion};
use tessera_control::ExitCode;
use tessera_model::ModelPath;

use crate::apply::{self, data_of, place_of, told};
use crate::arguments::rate::RateArguments;
use crate::compress::{coding_of, prior_coder};
use crate::session::Session;

/// Measures, and writes what came of it.
pub(crate) fn run(arguments: &RateArguments, stop: Arc<AtomicBool>) -> ExitCode {
    apply::run(&arguments.compute, stop, |session, watch| {
        if session.comm().world_size() > 1 {
            let problem = "the codecs of today run on one machine: start it without tessera launch";
            return Err(ApplyError::BadInput(problem.to_owned()));
        }
        let mut models = vec![opened(session, &arguments.model.path())?];
        for path in &arguments.also {
            models.push(opened(session, &place_of(path))?);
        }
        if let Some(path) = &arguments.prior {
            let model = &models[0].model;
            let coder = prior_coder(session, path, model)?;
            let coding = coding_of(session, model, &arguments.model.path())?;
            models[0].by_prior = Some(coding.by(coder));
        }
        let input = match &arguments.input {
            Some(path) => RateInput::Files(path.clone()),
            None => RateInput::Data(Box::new(data_of(&arguments.data, &models[0].model, [])?)),
        };
        let options = RateOptions {
            input,
            out: arguments.out.clone(),
            limit: arguments.limit as usize,
            sheet: arguments.sheet,
            force: arguments.force,
        };
        let done = rate_distortion(session.comm(), &models, &options, watch)?;
        Ok(Some(told(arguments.compute.json, &done, &in_words(&done))))
    })
}

fn opened(session: &Session, place: &ModelPath) -> Result<RateModel, ApplyError> {
    let model = tessera_apply::open(session.comm(), place, session.device())?;
    let coding = coding_of(session, &model, place)?;
    Ok(RateModel { name: name_of(place), model, coding, by_prior: None })
}

/// The last word of a path that says something.
pub(crate) fn name_of(place: &ModelPath) -> String {
    let (ModelPath::Run { folder, .. } | ModelPath::Model(folder)) = place;
    let mut words = folder.components().rev().map(|word| word.as_os_str().to_string_lossy());
    let word = words.find(|word| !matches!(&**word, "model" | "." | ".." | "/"));
    word.map_or("model".to_owned(), |word| word.into_owned())
}

fn in_words(done: &Rated) -> String {
    let mut text = String::new();
    for path in &done.files {
        text.push_str(&format!("{}\n", path.display()));
    }
    for (name, reason) in &done.left_out {
        text.push_str(&format!("left out: {name}: {reason}\n"));
    }
    for verdict in &done.verdicts {
        text.push_str(&format!("{verdict}\n"));
    }
    text
}
