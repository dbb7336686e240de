//! Serves a model without learning, for trying clients and for `launch/bench/serve.sh`:
//! `stand_in 127.0.0.1:8000 [picture|sound] [token]`. Ends with 0 after SIGTERM or SIGINT.

mod engine;
mod media;

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;

use engine::StandIn;
use tessera_serve::{Modality, Options, Service, Stop};

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level()).init();
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8000".to_owned());
    let modality = match arguments.next().as_deref() {
        None | Some("picture") => Modality::Picture,
        Some("sound") => Modality::Sound,
        Some(other) => return failed(&format!("expected picture or sound, got {other}")),
    };
    let listener = match TcpListener::bind(&address) {
        Ok(listener) => listener,
        Err(error) => return failed(&format!("cannot listen on {address}: {error}")),
    };
    let stop = Stop::default();
    let asked = stop.clone();
    let signals = signal_hook::iterator::Signals::new([15, 2]);
    let Ok(mut signals) = signals else { return failed("cannot wait for signals") };
    std::thread::spawn(move || {
        for _ in signals.forever() {
            asked.stop();
        }
    });
    let service = Service {
        description: engine::describe(modality),
        engine: Box::new(move || Ok(Box::new(StandIn { modality }))),
        media: Arc::new(media::Files { modality }),
        options: Options { bearer_token: arguments.next(), ..Options::default() },
    };
    match tessera_serve::run(listener, service, stop) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error.to_string()),
    }
}

/// One line for each request would be most of what a load test measures.
fn level() -> tracing::Level {
    if std::env::var_os("STAND_IN_VERBOSE").is_some() {
        tracing::Level::DEBUG
    } else {
        tracing::Level::WARN
    }
}

fn failed(message: &str) -> ExitCode {
    tracing::error!("{message}");
    ExitCode::FAILURE
}
