//! `tessera inpaint`: holes in pictures filled by a prior.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tessera_apply::Inpainted;
use tessera_control::ExitCode;

use crate::apply;
use crate::arguments::inpaint::InpaintArguments;

/// Fills holes in pictures.
pub(crate) fn run(arguments: &InpaintArguments, stop: Arc<AtomicBool>) -> ExitCode {
    apply::run(&arguments.compute, stop, |session, watch| {
        let (comm, place) = (session.comm(), arguments.prior.path());
        let prior = tessera_apply::open_prior(comm, &place, session.device())?;
        let tokenizer =
            apply::tokenizer_of(session, (&place, &prior), arguments.tokenizer.as_deref())?;
        let options = arguments.options();
        let filled = tessera_apply::inpaint(comm, &prior, tokenizer.as_ref(), &options, watch)?;
        Ok(Some(apply::told(arguments.compute.json, &filled, &of_filled(&filled))))
    })
}

fn of_filled(filled: &Inpainted) -> String {
    let Inpainted { path, num_pictures, num_draws, num_tokens, mean_drawn, nats_per_token, .. } =
        filled;
    let nats = nats_per_token.map_or(String::new(), |nats| format!(", {nats:.3} nats each"));
    format!(
        "{}  {num_pictures} pictures, {num_draws} draws of each; {mean_drawn:.1} of {num_tokens} codes drawn anew{nats}\n",
        path.display()
    )
}
