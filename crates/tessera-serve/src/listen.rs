//! Takes connections, answers on them, and ends without losing an answer.
//!
//! A stop has three steps. No connection is taken any more, and those that are open get `Connection: close` with their
//! next answer; then idle ones are closed; at the deadline the rest is cut off.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
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
    addresses: Arc<Addresses>,
    /// Tells connections to close as soon as nothing is on its way.
    closing: watch::Sender<bool>,
}

/// A connection as long as it is open.
struct Open {
    app: Arc<App>,
    _permit: OwnedSemaphorePermit,
    _place: Option<Place>,
}

/// Open connections of each other machine.
#[derive(Default)]
struct Addresses(Mutex<HashMap<IpAddr, usize>>);

/// One of an address's connections.
struct Place(Arc<Addresses>, IpAddr);

impl Addresses {
    /// A place for one more connection of an address, none where it has `most`; this machine needs none.
    fn place(self: &Arc<Self>, from: SocketAddr, most: usize) -> Result<Option<Place>, ()> {
        let address = from.ip().to_canonical();
        if address.is_loopback() {
            return Ok(None);
        }
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let num = open.entry(address).or_default();
        if *num >= most {
            return Err(());
        }
        *num += 1;
        Ok(Some(Place(Arc::clone(self), address)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get_mut(&self.1) {
            Some(num) if *num > 1 => *num -= 1,
            _ => drop(open.remove(&self.1)),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.app.metrics.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connections {
    pub(crate) fn new(app: Arc<App>, router: Router) -> Self {
        let free = Arc::new(Semaphore::new(app.options.connections));
        let (open, addresses) = (JoinSet::new(), Arc::default());
        Self { app, router, open, free, addresses, closing: watch::Sender::new(false) }
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
                    Ok((stream, from)) => self.open(stream, from, permit),
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
            let Ok((stream, from)) = listener.accept() else { return };
            let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                self.open(stream, from, permit);
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

    fn open(&mut self, stream: TcpStream, from: SocketAddr, permit: OwnedSemaphorePermit) {
        let most = self.app.options.connections_of_address;
        let Ok(place) = self.addresses.place(from, most) else {
            tracing::debug!(%from, "has as many connections as one machine may have");
            return;
        };
        // Answers are small and whole: waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        self.app.metrics.connections.fetch_add(1, Ordering::Relaxed);
        let open = Open { app: Arc::clone(&self.app), _permit: permit, _place: place };
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
) -> (OwnedSemaphorePermit, io::Result<(TcpStream, SocketAddr)>) {
    let permit = Arc::clone(free).acquire_owned().await.expect("it is never closed");
    (permit, listener.accept().await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_its_places_and_no_more() {
        let addresses = Arc::<Addresses>::default();
        let place = |from: &str| addresses.place(from.parse().unwrap(), 2);
        let first = place("10.0.0.1:5").unwrap();
        let second = place("[::ffff:10.0.0.1]:6").unwrap();
        assert!(place("10.0.0.1:7").is_err() && place("10.0.0.2:7").is_ok());
        assert!(place("127.0.0.1:7").unwrap().is_none() && place("[::1]:7").unwrap().is_none());
        drop(first);
        assert!(place("10.0.0.1:8").is_ok());
        drop(second);
        assert!(addresses.0.lock().unwrap().is_empty());
    }
}
