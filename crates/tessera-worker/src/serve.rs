//! `tessera serve`: a model over HTTP.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tessera_apply::{ApplyError, ServeOptions};
use tessera_control::ExitCode;
use tessera_serve::Stop;

use crate::apply::{self, place_of};
use crate::arguments::serve::ServeArguments;
use crate::rate::name_of;

/// How often a signal is looked for.
const POLL: Duration = Duration::from_millis(20);

/// Serves until a signal comes, or the server fails.
pub(crate) fn run(arguments: &ServeArguments, signal: Arc<AtomicBool>) -> ExitCode {
    let is_asked = Arc::clone(&signal);
    apply::run(&arguments.compute, signal, |session, watch| {
        if session.comm().world_size() > 1 {
            let problem = "one process serves a model: start it without tessera launch, and several servers for several GPUs";
            return Err(ApplyError::BadInput(problem.to_owned()));
        }
        let token = arguments.token_file.as_deref().map(token_of).transpose()?;
        let listener = listener(&arguments.listen)?;
        let model = arguments.model.path();
        let options = ServeOptions {
            tables: model.tables_folder(),
            prior: arguments.prior.as_deref().map(place_of),
            name: arguments.name.clone().unwrap_or_else(|| name_of(&model)),
            model,
            device: session.device(),
            max_pixels: arguments.max_megapixels * 1_000_000,
            max_seconds: arguments.max_seconds,
            limits: arguments.limits(token),
        };
        let stop = Stop::default();
        let asked = stop.clone();
        thread::spawn(move || {
            while !is_asked.load(Ordering::Relaxed) {
                thread::sleep(POLL);
            }
            asked.stop();
        });
        tessera_apply::serve(listener, options, stop, watch.say)?;
        Ok(Some(String::new()))
    })
}

fn listener(address: &str) -> Result<TcpListener, ApplyError> {
    TcpListener::bind(address).map_err(|error| {
        ApplyError::BadInput(format!(
            "cannot listen at {address} ({error}): name an address of this machine and a free port, such as 127.0.0.1:8080"
        ))
    })
}

/// The token in a file, whose last line break is not of it.
fn token_of(path: &Path) -> Result<String, ApplyError> {
    let text = fs::read_to_string(path).map_err(|error| {
        ApplyError::BadInput(format!("the token in {} cannot be read ({error})", path.display()))
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
