//! Takes connections, answers on them, and ends without losing an answer.
//!
//! A stop has three steps. No connection is taken any more, and those that are open get `Connection: close` with their
//! next answer; then idle ones are closed; at the deadline the rest is cut off.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::ServeError;
use crate::app::App;
use crate::inference::Health;
use crate::stream::Patient;

/// Pause after the system refused a connection, as it does when file descriptors run out.
const PAUSE: Duration = Duration::from_millis(50);

/// The server's open connections.
pub(crate) struct Connections {
    app: Arc<App>,
    router: Router,
    open: JoinSet<()>,
    free: Arc<Semaphore>,
    /// Tells connections to close as soon as nothing is on its way.
    closing: watch::Sender<bool>,
}

/// A connection as long as it is open.
struct Open {
    app: Arc<App>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.app.metrics.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connections {
    pub(crate) fn new(app: Arc<App>, router: Router) -> Self {
        let free = Arc::new(Semaphore::new(app.options.connections));
        Self { app, router, open: JoinSet::new(), free, closing: watch::Sender::new(false) }
    }

    /// Takes connections until somebody asks for a stop or the model fails.
    pub(crate) async fn take(&mut self, listener: TcpListener) {
        let mut health = self.app.health.clone();
        let stop = self.app.stop.clone();
        let failed = async {
            // The model's side of the channel goes only after it has told that it failed.
            let _ = health.wait_for(|health| matches!(health, Health::Failed(_))).await;
        };
        let mut ended = std::pin::pin!(async {
            tokio::select! { () = stop.asked() => {}, () = failed => {} }
        });
        loop {
            tokio::select! {
                () = &mut ended => break,
                Some(_) = self.open.join_next(), if !self.open.is_empty() => {}
                (permit, accepted) = accept(&self.free, &listener) => match accepted {
                    Ok(stream) => self.open(stream, permit),
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be taken");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
            }
        }
        self.take_waiting(listener).await;
    }

    /// Takes what the system has accepted in our name: it would be cut off with the listener.
    async fn take_waiting(&mut self, listener: TcpListener) {
        let Ok(listener) = listener.into_std() else { return };
        while let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            let Ok((stream, _)) = listener.accept() else { return };
            let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                self.open(stream, permit);
            }
        }
    }

    /// Waits for all answers; at the deadline, cuts off the rest.
    ///
    /// # Errors
    ///
    /// [`ServeError::Unfinished`] if something was cut off.
    pub(crate) async fn finish(mut self) -> Result<(), ServeError> {
        let options = self.app.options.clone();
        let deadline = tokio::time::Instant::now() + options.stop_timeout;
        let _ =
            tokio::time::timeout(options.linger.min(options.stop_timeout), self.all_closed()).await;
        self.closing.send_replace(true);
        if tokio::time::timeout_at(deadline, self.all_closed()).await.is_err() {
            let (connections, seconds) = (self.open.len(), options.stop_timeout.as_secs());
            self.open.shutdown().await;
            return Err(ServeError::Unfinished { connections, seconds });
        }
        Ok(())
    }

    async fn all_closed(&mut self) {
        while self.open.join_next().await.is_some() {}
    }

    fn open(&mut self, stream: TcpStream, permit: OwnedSemaphorePermit) {
        // Answers are small and whole: waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        self.app.metrics.connections.fetch_add(1, Ordering::Relaxed);
        let open = Open { app: Arc::clone(&self.app), _permit: permit };
        let mut closing = self.closing.subscribe();
        let service = TowerToHyperService::new(self.router.clone());
        let options = &self.app.options;
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(options.header_timeout)
            .max_buf_size(options.header_bytes);
        let io = TokioIo::new(Patient::new(stream, options.write_timeout));
        self.open.spawn(async move {
            let mut connection = std::pin::pin!(builder.serve_connection(io, service));
            let closing = async {
                // The sender goes only after the connections.
                let _ = closing.wait_for(|closing| *closing).await;
            };
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = closing => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection broke off");
            }
            drop(open);
        });
    }
}

/// Waits until there may be one more connection, then takes it.
async fn accept(
    free: &Arc<Semaphore>,
    listener: &TcpListener,
) -> (OwnedSemaphorePermit, io::Result<TcpStream>) {
    let permit = Arc::clone(free).acquire_owned().await.expect("it is never closed");
    let accepted = listener.accept().await.map(|(stream, _)| stream);
    (permit, accepted)
}
