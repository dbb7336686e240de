//! Requests to an object store or a web server, made by one thread with an async runtime of its
//! own; everybody else waits for its answers.
//!
//! A request that fails, takes too long or brings less than was asked for is made again after a
//! growing pause; what the other side says will not change (404, 403) is told at once.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use object_store::aws::AmazonS3Builder;
use object_store::client::{HttpClient, HttpConnector, ReqwestConnector};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path as ObjectPath;
use object_store::{ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, RetryConfig};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::config::RemoteConfig;
use super::url::{shown, split_query};

/// First pause before another attempt, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What the thread is asked for.
enum Request {
    /// Length and identity.
    Head { target: Target, reply: Sender<io::Result<ObjectMeta>> },
    /// Bytes.
    Get { target: Target, range: Option<Range<u64>>, reply: Sender<io::Result<Vec<u8>>> },
    /// Everything below a path.
    List { path: ObjectPath, reply: Sender<io::Result<Vec<String>>> },
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) enum Target {
    /// An object of the bucket.
    Key(ObjectPath),
    /// A whole URL of the web server, sent as it is: what is escaped in it stays so, and what is
    /// behind its question mark may be what lets us read.
    Url(String),
}

/// Where requests go.
enum Place {
    Bucket(Arc<dyn ObjectStore>),
    Web { options: Box<ClientOptions>, connections: Connections },
}

/// Connections that the requests to all URLs share.
#[derive(Debug, Clone)]
struct Connections(HttpClient);

impl HttpConnector for Connections {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.0.clone())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(out, "{key}"),
            Self::Url(url) => write!(out, "{}", shown(Path::new(url)).display()),
        }
    }
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
        let place = place(url, timeout).map_err(|error| error.to_string())?;
        let (requests, incoming) = unbounded_channel();
        let retries = config.retries;
        // Every attempt, every pause, and the work around them.
        let deadline = (timeout + LONGEST_PAUSE) * (retries + 1) + Duration::from_secs(30);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        thread::Builder::new()
            .name("tessera-remote".to_owned())
            .spawn(move || runtime.block_on(serve(place, incoming, retries, timeout)))
            .map_err(|error| error.to_string())?;
        Ok(Self { requests, deadline })
    }

    /// Length and identity of several objects, asked for at the same time.
    pub(super) fn heads(&self, targets: &[Target]) -> Vec<io::Result<ObjectMeta>> {
        let ask =
            |target: &Target| self.ask(|reply| Request::Head { target: target.clone(), reply });
        let replies: Vec<_> = targets.iter().map(ask).collect();
        replies.into_iter().map(|reply| self.wait(&reply)).collect()
    }

    /// Bytes of an object, all of them without a range.
    pub(super) fn get(&self, target: &Target, range: Option<Range<u64>>) -> io::Result<Vec<u8>> {
        self.wait(&self.ask(|reply| Request::Get { target: target.clone(), range, reply }))
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

fn place(url: &str, timeout: Duration) -> object_store::Result<Place> {
    let options = ClientOptions::new()
        .with_timeout(timeout)
        .with_connect_timeout(timeout.min(Duration::from_secs(10)))
        .with_allow_http(true);
    Ok(match url.split_once("://").map_or("", |(scheme, _)| scheme) {
        "s3" => {
            let builder = AmazonS3Builder::from_env().with_url(url).with_retry(once());
            Place::Bucket(Arc::new(builder.with_client_options(options).build()?))
        }
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env().with_url(url).with_retry(once());
            Place::Bucket(Arc::new(builder.with_client_options(options).build()?))
        }
        _ => {
            let connections = Connections(ReqwestConnector::default().connect(&options)?);
            Place::Web { options: Box::new(options), connections }
        }
    })
}

/// Attempts are counted here, where also bodies that end too early are seen.
fn once() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

impl Place {
    /// The store of an object, and the object's path in it.
    fn store(&self, target: &Target) -> object_store::Result<(Arc<dyn ObjectStore>, ObjectPath)> {
        match (self, target) {
            (Self::Bucket(store), Target::Key(key)) => Ok((Arc::clone(store), key.clone())),
            (Self::Web { options, connections }, Target::Url(url)) => {
                // The URL is that of a store of its own, with nothing to add to it.
                let builder = HttpBuilder::new().with_url(url).with_retry(once());
                let builder = builder.with_http_connector(connections.clone());
                let store = builder.with_client_options((**options).clone()).build()?;
                Ok((Arc::new(store), ObjectPath::ROOT))
            }
            _ => unreachable!("a bucket has keys and a web server has URLs"),
        }
    }
}

/// Answers requests, each in a task of its own, until nobody can ask any more.
async fn serve(
    place: Place,
    mut incoming: UnboundedReceiver<Request>,
    retries: u32,
    timeout: Duration,
) {
    let place = Arc::new(place);
    while let Some(request) = incoming.recv().await {
        let patient = Patient { place: Arc::clone(&place), retries, timeout };
        // Whoever asked may have given up; then nobody hears the answer.
        tokio::spawn(async move {
            match request {
                Request::Head { target, reply } => drop(reply.send(patient.head(&target).await)),
                Request::Get { target, range, reply } => {
                    drop(reply.send(patient.get(&target, range).await));
                }
                Request::List { path, reply } => drop(reply.send(patient.list(&path).await)),
            }
        });
    }
}

/// Makes requests again that fail for a while.
struct Patient {
    place: Arc<Place>,
    retries: u32,
    timeout: Duration,
}

impl Patient {
    /// A URL that is signed is signed for `GET`, and some servers answer nothing else: then one byte
    /// is asked for, and with it comes the length.
    async fn head(&self, target: &Target) -> io::Result<ObjectMeta> {
        let is_signed = matches!(target, Target::Url(url) if !split_query(url).1.is_empty());
        if !is_signed {
            let head = GetOptions { head: true, ..GetOptions::default() };
            let refused = [io::ErrorKind::PermissionDenied, io::ErrorKind::NotFound];
            match (self.meta(target, head).await, target) {
                // A method that is not allowed looks like a file that is not there.
                (Err(error), Target::Url(_)) if refused.contains(&error.kind()) => {}
                (answer, _) => return answer,
            }
        }
        let byte = GetOptions { range: Some(GetRange::Bounded(0..1)), ..GetOptions::default() };
        match self.meta(target, byte).await {
            // A server that only gives whole files: the rest of its answer is not waited for.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                self.meta(target, GetOptions::default()).await
            }
            answer => answer,
        }
    }

    async fn meta(&self, target: &Target, options: GetOptions) -> io::Result<ObjectMeta> {
        self.attempts(target, || async {
            let (store, path) = self.place.store(target)?;
            Ok(store.get_opts(&path, options.clone()).await?.meta)
        })
        .await
    }

    async fn get(&self, target: &Target, range: Option<Range<u64>>) -> io::Result<Vec<u8>> {
        self.attempts(target, || async {
            let range = range.clone().map(GetRange::Bounded);
            let options = GetOptions { range, ..GetOptions::default() };
            let (store, path) = self.place.store(target)?;
            let result = store.get_opts(&path, options).await?;
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
        let target = Target::Key(path.clone());
        self.attempts(&target, || async {
            let (store, path) = self.place.store(&target)?;
            let found: Vec<ObjectMeta> = store.list(Some(&path)).try_collect().await?;
            Ok(found.into_iter().map(|meta| meta.location.to_string()).collect())
        })
        .await
    }

    async fn attempts<T, F>(&self, target: &Target, attempt: impl Fn() -> F) -> io::Result<T>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let mut pause = FIRST_PAUSE;
        for left in (0..=self.retries).rev() {
            let error = match tokio::time::timeout(self.timeout, attempt()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if is_final(&error) => return Err(told(error, target)),
                Ok(Err(error)) => told(error, target),
                Err(_) => {
                    let late = format!("no answer within {:?}", self.timeout);
                    io::Error::new(io::ErrorKind::TimedOut, late)
                }
            };
            if left == 0 {
                return Err(error);
            }
            tracing::warn!(path = %target, %error, left, "request failed, made again");
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

/// The error in one line, without the secrets of a URL.
fn told(error: object_store::Error, target: &Target) -> io::Error {
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
    if let Target::Url(url) = target {
        words = without_secrets(&words, url);
    }
    io::Error::new(kind, words.replace(['\n', '\r'], " "))
}

/// Words about a URL without what it has before its host and behind its question mark.
fn without_secrets(words: &str, url: &str) -> String {
    let (bare, query) = split_query(url);
    let mut clean = words.to_owned();
    if !query.is_empty() {
        // What a store answers in XML repeats the signature; a query ends at a blank.
        let words = words.split('<').next().unwrap_or(words);
        let mut pieces = words.split('?');
        clean = pieces.next().unwrap_or(words).to_owned();
        for piece in pieces {
            clean.push_str("?...");
            clean.push_str(&piece[piece.find([' ', '"']).unwrap_or(piece.len())..]);
        }
    }
    let host = bare.split_once("://").and_then(|(_, rest)| rest.split('/').next());
    match host.and_then(|host| host.rsplit_once('@')) {
        Some((user, _)) => clean.replace(&format!("{user}@"), ""),
        None => clean,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_do_not_repeat_what_lets_one_read() {
        let url = "http://me:geheim@h/a.tar?X-Amz-Signature=0f0f&x=1";
        let words = "GET http://me:geheim@h/a.tar?X-Amz-Signature=0f0f&x=1 in 3ms: 403 Forbidden: \
                     <Error><SignatureProvided>0f0f</SignatureProvided></Error>";
        let expected = "GET http://h/a.tar?... in 3ms: 403 Forbidden: ";
        assert_eq!(without_secrets(words, url), expected);
        assert_eq!(
            without_secrets("what? (http://h/a.tar)", "http://h/a.tar"),
            "what? (http://h/a.tar)"
        );
    }
}
