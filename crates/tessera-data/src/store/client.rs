//! Requests to an object store or a web server, made by one thread with an async runtime of its
//! own; everybody else waits for its answers.
//!
//! A request that fails, takes too long or brings less than was asked for is made again after a
//! growing pause; what the other side says will not change (404, 403) is told at once.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use object_store::aws::AmazonS3Builder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path as ObjectPath;
use object_store::{ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, RetryConfig};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::RemoteConfig;

/// First pause before another attempt, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What the thread is asked for.
enum Request {
    /// Length and identity.
    Head { path: ObjectPath, reply: Sender<io::Result<ObjectMeta>> },
    /// Bytes.
    Get { path: ObjectPath, range: Option<Range<u64>>, reply: Sender<io::Result<Vec<u8>>> },
    /// Everything below a path.
    List { path: ObjectPath, reply: Sender<io::Result<Vec<String>>> },
}

/// A store at the other end of a network.
#[derive(Debug, Clone)]
pub(super) struct Client {
    requests: UnboundedSender<Request>,
    deadline: Duration,
}

impl Client {
    /// A client for a URL without its last part: `s3://bucket`, `http://host:port`.
    pub(super) fn new(url: &str, config: &RemoteConfig) -> Result<Self, String> {
        let timeout = Duration::from_secs_f64(config.timeout_seconds);
        let store = store(url, timeout).map_err(|error| error.to_string())?;
        let (requests, incoming) = unbounded_channel();
        let retries = config.retries;
        // Every attempt, every pause, and the work around them.
        let deadline = (timeout + LONGEST_PAUSE) * (retries + 1) + Duration::from_secs(30);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        thread::Builder::new()
            .name("tessera-remote".to_owned())
            .spawn(move || runtime.block_on(serve(store, incoming, retries, timeout)))
            .map_err(|error| error.to_string())?;
        Ok(Self { requests, deadline })
    }

    /// Length and identity of several objects, asked for at the same time.
    pub(super) fn heads(&self, paths: &[ObjectPath]) -> Vec<io::Result<ObjectMeta>> {
        let ask = |path: &ObjectPath| self.ask(|reply| Request::Head { path: path.clone(), reply });
        let replies: Vec<_> = paths.iter().map(ask).collect();
        replies.into_iter().map(|reply| self.wait(&reply)).collect()
    }

    /// Bytes of an object, all of them without a range.
    pub(super) fn get(&self, path: &ObjectPath, range: Option<Range<u64>>) -> io::Result<Vec<u8>> {
        self.wait(&self.ask(|reply| Request::Get { path: path.clone(), range, reply }))
    }

    /// Paths of all objects below a path.
    pub(super) fn list(&self, path: &ObjectPath) -> io::Result<Vec<String>> {
        self.wait(&self.ask(|reply| Request::List { path: path.clone(), reply }))
    }

    fn ask<T>(
        &self,
        request: impl FnOnce(Sender<io::Result<T>>) -> Request,
    ) -> Receiver<io::Result<T>> {
        let (reply, answer) = bounded(1);
        // Without a thread to hear it, the answer's other end is gone, which `wait` sees.
        let _ = self.requests.send(request(reply));
        answer
    }

    fn wait<T>(&self, answer: &Receiver<io::Result<T>>) -> io::Result<T> {
        answer.recv_timeout(self.deadline).unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, "the network thread did not answer"))
        })
    }
}

fn store(url: &str, timeout: Duration) -> object_store::Result<Arc<dyn ObjectStore>> {
    let options = ClientOptions::new()
        .with_timeout(timeout)
        .with_connect_timeout(timeout.min(Duration::from_secs(10)))
        .with_allow_http(true);
    // Attempts are counted here, where also bodies that end too early are seen.
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    Ok(match url.split_once("://").map_or("", |(scheme, _)| scheme) {
        "s3" => {
            let builder = AmazonS3Builder::from_env().with_url(url).with_retry(retry);
            Arc::new(builder.with_client_options(options).build()?)
        }
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env().with_url(url).with_retry(retry);
            Arc::new(builder.with_client_options(options).build()?)
        }
        _ => {
            let builder = HttpBuilder::new().with_url(url).with_retry(retry);
            Arc::new(builder.with_client_options(options).build()?)
        }
    })
}

/// Answers requests, each in a task of its own, until nobody can ask any more.
async fn serve(
    store: Arc<dyn ObjectStore>,
    mut incoming: UnboundedReceiver<Request>,
    retries: u32,
    timeout: Duration,
) {
    while let Some(request) = incoming.recv().await {
        let patient = Patient { store: Arc::clone(&store), retries, timeout };
        // Whoever asked may have given up; then nobody hears the answer.
        tokio::spawn(async move {
            match request {
                Request::Head { path, reply } => drop(reply.send(patient.head(&path).await)),
                Request::Get { path, range, reply } => {
                    drop(reply.send(patient.get(&path, range).await));
                }
                Request::List { path, reply } => drop(reply.send(patient.list(&path).await)),
            }
        });
    }
}

/// Makes requests again that fail for a while.
struct Patient {
    store: Arc<dyn ObjectStore>,
    retries: u32,
    timeout: Duration,
}

impl Patient {
    async fn head(&self, path: &ObjectPath) -> io::Result<ObjectMeta> {
        self.attempts(path, || async {
            let options = GetOptions { head: true, ..GetOptions::default() };
            Ok(self.store.get_opts(path, options).await?.meta)
        })
        .await
    }

    async fn get(&self, path: &ObjectPath, range: Option<Range<u64>>) -> io::Result<Vec<u8>> {
        self.attempts(path, || async {
            let range = range.clone().map(GetRange::Bounded);
            let options = GetOptions { range, ..GetOptions::default() };
            let result = self.store.get_opts(path, options).await?;
            let expected = result.range.end - result.range.start;
            let bytes = result.bytes().await?;
            if bytes.len() as u64 != expected {
                let found = bytes.len();
                let short = format!("{found} of {expected} bytes came");
                return Err(object_store::Error::Generic { store: "remote", source: short.into() });
            }
            Ok(bytes.to_vec())
        })
        .await
    }

    async fn list(&self, path: &ObjectPath) -> io::Result<Vec<String>> {
        use futures_util::TryStreamExt;
        self.attempts(path, || async {
            let found: Vec<ObjectMeta> = self.store.list(Some(path)).try_collect().await?;
            Ok(found.into_iter().map(|meta| meta.location.to_string()).collect())
        })
        .await
    }

    async fn attempts<T, F>(&self, path: &ObjectPath, attempt: impl Fn() -> F) -> io::Result<T>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let mut pause = FIRST_PAUSE;
        for left in (0..=self.retries).rev() {
            let error = match tokio::time::timeout(self.timeout, attempt()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if is_final(&error) => return Err(told(error)),
                Ok(Err(error)) => told(error),
                Err(_) => {
                    let late = format!("no answer within {:?}", self.timeout);
                    io::Error::new(io::ErrorKind::TimedOut, late)
                }
            };
            if left == 0 {
                return Err(error);
            }
            tracing::warn!(%path, %error, left, "request failed, made again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        unreachable!("the last attempt returns")
    }
}

/// Whether another attempt would end the same.
fn is_final(error: &object_store::Error) -> bool {
    use object_store::Error;
    matches!(
        error,
        Error::NotFound { .. }
            | Error::InvalidPath { .. }
            | Error::NotSupported { .. }
            | Error::NotImplemented { .. }
            | Error::PermissionDenied { .. }
            | Error::Unauthenticated { .. }
            | Error::UnknownConfigurationKey { .. }
    )
}

/// The error in one line.
fn told(error: object_store::Error) -> io::Error {
    let kind = match &error {
        object_store::Error::NotFound { .. } => io::ErrorKind::NotFound,
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => io::ErrorKind::PermissionDenied,
        object_store::Error::NotSupported { .. } => io::ErrorKind::Unsupported,
        _ => io::ErrorKind::Other,
    };
    let mut words = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        let more = inner.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        source = inner.source();
    }
    io::Error::new(kind, words.replace(['\n', '\r'], " "))
}
