//! Requests to an MLflow server, each with a deadline, given up at once when somebody asks for the end.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, StatusCode, Url};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::TrackError;

/// Between two looks whether somebody asks for the end.
const LOOK: Duration = Duration::from_millis(50);
/// An answer of ours is far shorter.
const MOST_BYTES: usize = 64 << 20;

/// Who the requests are from.
#[derive(Clone, Default)]
pub(crate) struct Login {
    pub(crate) token: Option<String>,
    pub(crate) user: Option<(String, String)>,
}

impl Login {
    /// That of the variables that MLflow's own clients read.
    pub(crate) fn of_environment() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let user = variable("MLFLOW_TRACKING_USERNAME");
        let password = variable("MLFLOW_TRACKING_PASSWORD").unwrap_or_default();
        Self { token: variable("MLFLOW_TRACKING_TOKEN"), user: user.map(|user| (user, password)) }
    }
}

/// A server.
pub(super) struct Http {
    runtime: Runtime,
    client: Client,
    base: Url,
    login: Login,
    timeout: Duration,
    stop: Arc<AtomicBool>,
}

impl std::fmt::Debug for Http {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Http({})", self.shown())
    }
}

/// An answer that is no success.
#[derive(Debug)]
pub(super) enum Problem {
    /// The server's own code for it, such as `RESOURCE_ALREADY_EXISTS`.
    Told {
        code: String,
        error: TrackError,
    },
    Other(TrackError),
}

impl From<Problem> for TrackError {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Told { error, .. } | Problem::Other(error) => error,
        }
    }
}

impl Http {
    /// A client of the server at `uri`, whose requests may take so long each; a `stop` that becomes true ends them.
    pub(super) fn new(
        uri: &str,
        login: Login,
        timeout: Duration,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, TrackError> {
        let refused = |what: &str| {
            let should = "should be that of a server, such as http://127.0.0.1:5000";
            TrackError::Refused(format!(
                "MLflow's tracking URI {should}, {what}: set --uri or MLFLOW_TRACKING_URI, and start `mlflow server`"
            ))
        };
        let mut base =
            Url::parse(uri).map_err(|error| refused(&format!("found {uri:?} ({error})")))?;
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            return Err(refused(&format!("found {}:", base.scheme())));
        }
        let mut login = login;
        if let Some(password) = base.password() {
            login.user = Some((base.username().to_owned(), password.to_owned()));
        }
        let _ = base.set_password(None);
        let _ = base.set_username("");
        let system = |error: String| TrackError::Refused(format!("no client for HTTP: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| system(error.to_string()))?;
        let agent = concat!("tessera/", env!("CARGO_PKG_VERSION"));
        // Reading all certificates of a machine takes a while; a redirect would make a GET of a POST.
        let is_secure = base.scheme() == "https";
        let client = Client::builder()
            .user_agent(agent)
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .tls_built_in_root_certs(is_secure)
            .build();
        let client = client.map_err(|error| system(error.to_string()))?;
        Ok(Self { runtime, client, base, login, timeout, stop })
    }

    /// The server as it may be shown: without a password.
    pub(super) fn shown(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }

    /// `GET` of a path of the API with a query.
    pub(super) fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, Problem> {
        self.ask(self.request(Method::GET, path).query(query))
    }

    /// `POST` of a JSON object to a path of the API.
    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value, Problem> {
        let request = self.request(Method::POST, path);
        self.ask(request.header("content-type", "application/json").body(body.to_string()))
    }

    /// `PUT` of bytes to a path of the API.
    pub(super) fn put(&self, path: &str, bytes: Vec<u8>) -> Result<(), Problem> {
        let request = self.request(Method::PUT, path);
        self.ask(request.header("content-type", "application/octet-stream").body(bytes)).map(|_| ())
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut url = self.base.clone();
        let base = self.base.path().trim_end_matches('/');
        url.set_path(&format!("{base}/api/2.0/{path}"));
        let request = self.client.request(method, url);
        match (&self.login.token, &self.login.user) {
            (Some(token), _) => request.bearer_auth(token),
            (None, Some((user, password))) => request.basic_auth(user, Some(password)),
            (None, None) => request,
        }
    }

    fn ask(&self, request: RequestBuilder) -> Result<Value, Problem> {
        let answered = self.until_stop(async {
            let mut answer = request.send().await?;
            let (status, mut bytes) = (answer.status(), Vec::new());
            while let Some(more) = answer.chunk().await? {
                bytes.extend_from_slice(&more);
                if bytes.len() > MOST_BYTES {
                    break;
                }
            }
            Ok::<_, reqwest::Error>((status, bytes))
        });
        let (status, bytes) = answered.map_err(Problem::Other)?.map_err(|error| {
            let seconds = self.timeout.as_secs_f64();
            let why = match (error.is_timeout(), error.is_connect()) {
                (true, _) => format!("nothing within {seconds} s"),
                (_, true) => "no connection".to_owned(),
                _ => innermost(&error),
            };
            self.away(&why)
        })?;
        let value: Option<Value> = serde_json::from_slice(&bytes).ok();
        match status {
            _ if status.is_success() && bytes.is_empty() => Ok(Value::Null),
            _ if status.is_success() => value.ok_or_else(|| self.away("an answer that is no JSON")),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                Err(self.away(status.as_str()))
            }
            _ if status.is_server_error() => Err(self.away(status.as_str())),
            _ => Err(self.refused(status, value.as_ref())),
        }
    }

    fn away(&self, why: &str) -> Problem {
        let line = format!("MLflow at {} does not answer: {why}; is it running?", self.shown());
        Problem::Other(TrackError::Away(line))
    }

    fn refused(&self, status: StatusCode, value: Option<&Value>) -> Problem {
        let text = |key: &str| {
            let found = value.and_then(|value| value.get(key)).and_then(Value::as_str);
            found.unwrap_or_default().lines().next().unwrap_or_default().to_owned()
        };
        let to_do = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                ": set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and _PASSWORD; a server also refuses names \
                 of hosts that --allowed-hosts does not have"
            }
            _ if status.is_redirection() => {
                ": name the address that it is at now, such as https:// for http://"
            }
            StatusCode::NOT_FOUND if value.is_none() => {
                ": is that the address of an MLflow server?"
            }
            _ => "",
        };
        let message: String = text("message").chars().take(300).collect();
        let gap = if message.is_empty() { "" } else { " " };
        let line =
            format!("MLflow at {} answers {}{gap}{message}{to_do}", self.shown(), status.as_str());
        Problem::Told { code: text("error_code"), error: TrackError::Refused(line) }
    }

    fn until_stop<T>(&self, work: impl Future<Output = T>) -> Result<T, TrackError> {
        let asked = async {
            while !self.stop.load(Ordering::Acquire) {
                tokio::time::sleep(LOOK).await;
            }
        };
        self.runtime.block_on(async {
            let (mut work, mut asked) = (std::pin::pin!(work), std::pin::pin!(asked));
            std::future::poll_fn(|context| {
                if let std::task::Poll::Ready(done) = work.as_mut().poll(context) {
                    return std::task::Poll::Ready(Ok(done));
                }
                asked.as_mut().poll(context).map(|()| Err(TrackError::Stopped))
            })
            .await
        })
    }
}

/// The cause that an error has at its end, which says more than the first.
fn innermost(error: &reqwest::Error) -> String {
    let mut error: &dyn std::error::Error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
