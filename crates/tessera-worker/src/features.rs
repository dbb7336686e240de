//! `tessera features`: what a model knows of samples, for other programs.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tessera_apply::{FeaturesWritten, agree_on};
use tessera_control::ExitCode;

use crate::apply::{self, data_of, told};
use crate::arguments::features::FeaturesArguments;

/// Writes features of a data set.
pub(crate) fn run(arguments: &FeaturesArguments, stop: Arc<AtomicBool>) -> ExitCode {
    apply::run(&arguments.compute, stop, |session, watch| {
        let model = tessera_apply::open(session.comm(), &arguments.model.path(), session.device())?;
        let data = agree_on(session.comm(), data_of(&arguments.data, &model, []))?;
        let options = arguments.options();
        let done = tessera_apply::write_features(session.comm(), &model, &data, &options, watch)?;
        Ok(Some(told(arguments.compute.json, &done, &of_written(&done))))
    })
}

fn of_written(done: &FeaturesWritten) -> String {
    let line = |(name, split): (&String, &tessera_apply::SplitWritten)| {
        let shape: Vec<String> = split.shape.iter().map(ToString::to_string).collect();
        format!("{}  {name}: features of {}\n", split.files[0].display(), shape.join(" x "))
    };
    done.splits.iter().map(line).collect()
}
