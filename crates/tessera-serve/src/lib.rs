//! A trained tokeniser over HTTP: files and tokens, the KServe protocol, a page for people.
//!
//! [`serve`] answers on a listener until it is asked to stop. The model is an [`Engine`], which lives on one thread and
//! sees samples of several requests in one batch; files are read and written by a [`Media`]. This crate knows neither
//! libtorch nor any format of pictures or sound.
//!
//! A request goes this way: `listen` takes its connection, `gate` gives it a name and holds it against the token and the
//! time limit, `body` reads it within limits, `plain` or `kserve` carries it out by way of `workers` and `inference`.
//! Nothing waits without a limit, and whatever waits is counted against one.

mod app;
mod body;
mod description;
mod engine;
mod error;
mod gate;
mod host;
mod inference;
mod kserve;
mod listen;
mod media;
mod metrics;
mod object;
mod openapi;
mod options;
mod page;
mod plain;
mod process;
mod refusal;
mod sample;
mod stop;
mod stream;
mod whole;
mod workers;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;

pub use description::{Description, Layout, Level, Modality};
pub use engine::{Drawing, Engine, Wanted};
pub use error::ServeError;
pub use inference::BuildEngine;
pub use media::{BadInput, Media, Parsed, Rival};
pub use options::Options;
pub use stop::Stop;

use app::App;
use host::Hosts;
use inference::{Health, Inference};
use listen::Connections;
use metrics::Metrics;
use workers::Workers;

/// Threads that talk to clients.
const NUM_IO_THREADS: usize = 2;

/// What is served.
pub struct Service {
    /// What the server tells of the model.
    pub description: Description,
    /// Builds the model, on the thread that will own it.
    pub engine: BuildEngine,
    /// Reads and writes files.
    pub media: Arc<dyn Media>,
    /// Limits and waits.
    pub options: Options,
}

/// Serves on threads of its own until `stop` is asked, and returns when all that was accepted is answered.
///
/// # Errors
///
/// As [`serve`], and [`ServeError::System`] if the threads or the listener cannot be had.
pub fn run(
    listener: std::net::TcpListener,
    service: Service,
    stop: Stop,
) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(NUM_IO_THREADS)
        .max_blocking_threads(service.options.media_threads)
        .thread_name("serve")
        .enable_all()
        .build()
        .map_err(ServeError::system("start the server's threads"))?;
    let served = runtime.block_on(async {
        listener.set_nonblocking(true).map_err(ServeError::system("use the listener"))?;
        let listener = TcpListener::from_std(listener);
        serve(listener.map_err(ServeError::system("use the listener"))?, service, stop).await
    });
    // A file that is still being read belongs to a client that was cut off.
    runtime.shutdown_background();
    served
}

/// Serves until `stop` is asked, and returns when all that was accepted is answered. Needs Tokio's timers and network.
///
/// The listener answers at once; requests for the model are refused with 503 until it is loaded.
///
/// # Errors
///
/// [`ServeError::Option`] and [`ServeError::Description`] before anything starts. [`ServeError::Engine`] if the model
/// cannot be loaded or panics: what is on its way is answered first. [`ServeError::Unfinished`] if requests were cut off
/// at the deadline of the stop.
pub async fn serve(listener: TcpListener, service: Service, stop: Stop) -> Result<(), ServeError> {
    let Service { description, engine, media, options } = service;
    options.validate()?;
    description.validate()?;
    let description = Arc::new(description);
    let metrics = Arc::new(Metrics::default());
    let (inference, ended) = Inference::start(&description, &options, &metrics, engine)?;
    let health = inference.health();
    let app = Arc::new(App {
        health: health.clone(),
        inference,
        media,
        workers: Workers::new(options.media_threads),
        metrics,
        stop,
        free_bytes: Arc::new(Semaphore::new(options.total_body_bytes)),
        page: page::Page::new(),
        openapi: App::document(&description, &options),
        next_request: AtomicU64::new(0),
        hosts: Hosts::of(listener.local_addr().ok(), &options.hosts),
        description,
        options,
    });
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, model = app.description.name, "listening");
    }
    let (stop_timeout, stop) = (app.options.stop_timeout, app.stop.clone());
    let mut connections = Connections::new(Arc::clone(&app), app::router(&app));
    connections.take(listener).await;
    tracing::info!("no connection is taken any more");
    let finished = connections.finish().await;
    drop(app);
    // The thread ends when the queue's last sender is gone, which was in `app`.
    if tokio::time::timeout(stop_timeout, ended).await.is_err() {
        tracing::warn!("the inference thread did not end");
    }
    if let Health::Failed(error) = &*health.borrow() {
        return Err(ServeError::Engine(error.clone()));
    }
    if !stop.is_asked() {
        return Err(ServeError::Engine("the inference thread ended".to_owned()));
    }
    finished
}
