//! `tessera atlas`: what each code of a model stands for.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tessera_apply::{Atlas, agree_on};
use tessera_control::ExitCode;

use crate::apply::{self, data_of, told};
use crate::arguments::atlas::AtlasArguments;

/// Writes the atlas of a model.
pub(crate) fn run(arguments: &AtlasArguments, stop: Arc<AtomicBool>) -> ExitCode {
    apply::run(&arguments.compute, stop, |session, watch| {
        let model = tessera_apply::open(session.comm(), &arguments.model.path(), session.device())?;
        let data = agree_on(session.comm(), data_of(&arguments.data, &model, []))?;
        let options = arguments.options();
        let done = tessera_apply::write_atlas(session.comm(), &model, &data, &options, watch)?;
        Ok(Some(told(arguments.compute.json, &done, &of_written(&done))))
    })
}

fn of_written(done: &Atlas) -> String {
    let mut text = format!("{}  {} samples\n", done.path.display(), done.num_samples);
    for (number, (codes, used)) in done.levels.iter().enumerate() {
        text.push_str(&format!("level {number}  {used} of {codes} codes taken\n"));
    }
    text
}
