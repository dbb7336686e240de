//! MLflow by its REST interface, each metric once.
//!
//! Metrics go in the order of their steps. What a server has of a batch whose answer never came is asked for before
//! the batch is sent again: of each key it knows the latest step, and all before that has come, too. A run is found
//! by the tag `tessera.id` where the answer to its making was lost. Artifacts go by the server's own proxy
//! (`mlflow-artifacts:`); to send one twice changes nothing.

mod http;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde_json::{Value, json};

pub(crate) use self::http::Login;
use self::http::{Http, Problem};
use crate::TrackError;
use crate::cursor::{Cursor, ServerRun};
use crate::figures::{Figure, figures};
use crate::run::{Ending, Run, flatten};
use crate::source::Entry;
use crate::tracker::Tracker;

// What a server takes at most in one batch, and of one key or value.
const MOST_METRICS: usize = 1000;
const MOST_PARAMS: usize = 100;
const MOST_BYTES: usize = 900_000;
const MOST_KEY: usize = 250;
const MOST_VALUE: usize = 6000;
/// A larger artifact is left out.
const MOST_ARTIFACT: u64 = 256 << 20;

/// An experiment of a server.
#[derive(Debug)]
pub(crate) struct Mlflow {
    http: Http,
    experiment: String,
    /// Whether the server may have more than the cursor says.
    is_in_doubt: bool,
    /// Whether rows come that the run may take back, and others of the same steps then.
    pub(crate) is_eager: bool,
    /// Whether it was said that artifacts cannot be sent.
    has_told_artifacts: bool,
}

struct Metric {
    key: String,
    step: u64,
    timestamp: i64,
    value: Value,
}

impl Mlflow {
    /// The experiment of this name at the server; `timeout` is that of a request.
    pub(crate) fn new(
        uri: &str,
        experiment: &str,
        login: Login,
        timeout: Duration,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, TrackError> {
        let http = Http::new(uri, login, timeout, stop)?;
        let experiment = experiment.to_owned();
        Ok(Self { http, experiment, is_in_doubt: true, is_eager: false, has_told_artifacts: false })
    }

    /// Server and experiment, as the cursor names them.
    pub(crate) fn target(&self) -> String {
        format!("{}, experiment {}", self.http.shown(), self.experiment)
    }

    fn post(&self, call: &str, body: &Value) -> Result<Value, Problem> {
        self.http.post(&format!("mlflow/{call}"), body)
    }

    fn experiment_id(&self) -> Result<String, TrackError> {
        let find = || {
            let query = [("experiment_name", self.experiment.as_str())];
            self.http.get("mlflow/experiments/get-by-name", &query)
        };
        let id = |answer: &Value, at: &str| {
            answer.pointer(at).and_then(Value::as_str).map(str::to_owned).ok_or_else(unexpected)
        };
        match find() {
            Ok(found) => return id(&found, "/experiment/experiment_id"),
            Err(Problem::Told { code, .. }) if code == "RESOURCE_DOES_NOT_EXIST" => {}
            Err(problem) => return Err(problem.into()),
        }
        match self.post("experiments/create", &json!({"name": self.experiment})) {
            Ok(made) => id(&made, "/experiment_id"),
            // Another run has made it just now.
            Err(Problem::Told { code, .. }) if code == "RESOURCE_ALREADY_EXISTS" => {
                id(&find()?, "/experiment/experiment_id")
            }
            Err(problem) => Err(problem.into()),
        }
    }

    /// The run that has the cursor's id, made where there is none.
    fn run(&self, run: &Run, cursor: &Cursor) -> Result<ServerRun, TrackError> {
        let experiment_id = self.experiment_id()?;
        let filter = format!("tags.`tessera.id` = '{}'", cursor.id);
        let search =
            json!({"experiment_ids": [&experiment_id], "filter": filter, "max_results": 1});
        let found = self.post("runs/search", &search)?;
        let found = match found.pointer("/runs/0") {
            Some(found) => found.clone(),
            None => {
                let tag = |key: &str, value: &str| json!({"key": key, "value": value});
                let folder = run.dir.display().to_string();
                let made = json!({
                    "experiment_id": &experiment_id,
                    "run_name": cursor.run_name(&run.name),
                    "start_time": milliseconds(cursor.started),
                    "tags": [
                        tag("tessera.id", &cursor.id),
                        tag("tessera.folder", &folder),
                        tag("mlflow.source.name", "tessera"),
                        tag("mlflow.source.type", "LOCAL"),
                    ],
                });
                self.post("runs/create", &made)?.get("run").cloned().ok_or_else(unexpected)?
            }
        };
        let info = |key: &str| {
            let value = found.pointer("/info").and_then(|info| info.get(key));
            value.and_then(Value::as_str).map(str::to_owned).ok_or_else(unexpected)
        };
        Ok(ServerRun {
            experiment_id,
            run_id: info("run_id")?,
            artifact_uri: info("artifact_uri")?,
        })
    }

    /// The latest step, and its time, of each metric that the server has.
    fn latest(&self, run_id: &str) -> Result<BTreeMap<String, (u64, i64)>, TrackError> {
        let answer = self.http.get("mlflow/runs/get", &[("run_id", run_id)])?;
        let metrics = answer.pointer("/run/data/metrics").and_then(Value::as_array);
        let metrics = metrics.map(Vec::as_slice).unwrap_or_default();
        let latest = metrics.iter().filter_map(|metric| {
            // Numbers of 64 bits may come as text; 0 may be left out.
            let number = |name: &str| match metric.get(name) {
                Some(Value::String(text)) => text.parse().ok(),
                Some(number) => number.as_i64(),
                None => Some(0),
            };
            let step = u64::try_from(number("step")?).ok()?;
            Some((metric.get("key")?.as_str()?.to_owned(), (step, number("timestamp")?)))
        });
        Ok(latest.collect())
    }

    fn log_metrics(&self, run_id: &str, metrics: &[Metric]) -> Result<(), TrackError> {
        let mut rest = metrics;
        while !rest.is_empty() {
            let (mut values, mut bytes) = (Vec::new(), 0);
            for Metric { key, step, timestamp, value } in rest.iter().take(MOST_METRICS) {
                bytes += key.len() + 120;
                if bytes > MOST_BYTES {
                    break;
                }
                values.push(
                    json!({"key": key, "value": value, "timestamp": timestamp, "step": step}),
                );
            }
            rest = &rest[values.len()..];
            self.post("runs/log-batch", &json!({"run_id": run_id, "metrics": values}))?;
        }
        Ok(())
    }

    fn log_params(&self, run_id: &str, config: &Value) -> Result<(), TrackError> {
        let leaves = flatten(config).into_iter();
        let params: Vec<Value> = leaves
            .map(|(key, value)| {
                let text = match value {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                json!({"key": cut(&key, MOST_KEY), "value": cut(&text, MOST_VALUE)})
            })
            .collect();
        for part in params.chunks(MOST_PARAMS) {
            match self.post("runs/log-batch", &json!({"run_id": run_id, "params": part})) {
                // A parameter never changes there: a run that goes on with others keeps those of its start.
                Err(Problem::Told { code, error }) if code == "INVALID_PARAMETER_VALUE" => {
                    tracing::warn!("parameters stay those that MLflow has: {error}");
                }
                answer => {
                    answer?;
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, server: &ServerRun, name: &str, bytes: Vec<u8>) -> Result<(), TrackError> {
        let Some(root) = server.artifact_uri.strip_prefix("mlflow-artifacts:") else {
            if !self.has_told_artifacts {
                self.has_told_artifacts = true;
                tracing::warn!(
                    "pictures and files are not sent: MLflow keeps those of this experiment at {}; a server with \
                     --artifacts-destination takes them",
                    server.artifact_uri
                );
            }
            return Ok(());
        };
        // `mlflow-artifacts:/path` and `mlflow-artifacts://host/path`.
        let root = match root.strip_prefix("//") {
            Some(rest) => rest.split_once('/').map_or("", |(_, path)| path),
            None => root.trim_start_matches('/'),
        };
        let path = format!("mlflow-artifacts/artifacts/{root}/{name}");
        self.http.put(&path, bytes).map_err(TrackError::from)
    }

    fn send_all(&mut self, server: &ServerRun, entries: &[Entry]) -> Result<(), TrackError> {
        let mut metrics: Vec<Metric> = entries.iter().flat_map(metrics).collect();
        if self.is_in_doubt {
            let latest = self.latest(&server.run_id)?;
            // An eager row of a step that is there may be the one that took its place.
            metrics.retain(|metric| {
                latest.get(&metric.key).is_none_or(|(step, timestamp)| {
                    metric.step > *step || (self.is_eager && metric.timestamp > *timestamp)
                })
            });
        }
        self.log_metrics(&server.run_id, &metrics)?;
        for exhibit in entries.iter().flat_map(|entry| &entry.exhibits) {
            let name = format!("{}/{}", exhibit.shows, exhibit.name());
            self.put_file(server, &name, &exhibit.path)?;
        }
        Ok(())
    }

    /// Sends a file as an artifact; one that is gone or too large is left out.
    fn put_file(&mut self, server: &ServerRun, name: &str, path: &Path) -> Result<(), TrackError> {
        let size = path.metadata().map_or(0, |file| file.len());
        match fs::read(path) {
            Ok(bytes) if size <= MOST_ARTIFACT => self.put(server, name, bytes),
            _ => {
                tracing::warn!(file = %path.display(), "gone or too large, and left out");
                Ok(())
            }
        }
    }
}

fn metrics(entry: &Entry) -> Vec<Metric> {
    let timestamp = milliseconds(entry.seconds);
    let value = |figure: Figure| match figure {
        Figure::Number(number) => Some(Value::Number(number)),
        Figure::NotANumber => Some("NaN".into()),
        Figure::Text(_) => None,
    };
    let metric = |(key, figure): (String, Figure)| {
        let key = cut(&key, MOST_KEY).to_owned();
        Some(Metric { key, step: entry.step, timestamp, value: value(figure)? })
    };
    figures(entry).into_iter().filter_map(metric).collect()
}

fn milliseconds(seconds: f64) -> i64 {
    (seconds * 1000.0).round() as i64
}

/// The start of a text, of so many characters at most.
fn cut(text: &str, most: usize) -> &str {
    text.char_indices().nth(most).map_or(text, |(at, _)| &text[..at])
}

fn unexpected() -> TrackError {
    TrackError::Refused("the server's answer is not that of MLflow: check the address".to_owned())
}

impl Tracker for Mlflow {
    fn name(&self) -> &'static str {
        "mlflow"
    }

    fn begin(&mut self, run: &Run, cursor: &mut Cursor) -> Result<(), TrackError> {
        self.is_in_doubt = true;
        let (config, text) = run.config()?;
        let config_sha256 = tessera_checkpoint::sha256_hex(text.as_bytes());
        let server = match &cursor.mlflow {
            Some(server) => server.clone(),
            None => self.run(run, cursor)?,
        };
        if cursor.config_sha256 != config_sha256 && !text.is_empty() {
            self.log_params(&server.run_id, &config)?;
            self.put(&server, "config.toml", text.into_bytes())?;
        }
        if cursor.told_ending.is_some() {
            self.post("runs/update", &json!({"run_id": server.run_id, "status": "RUNNING"}))?;
        }
        (cursor.mlflow, cursor.config_sha256) = (Some(server), config_sha256);
        Ok(())
    }

    fn send(&mut self, cursor: &mut Cursor, entries: &[Entry]) -> Result<(), TrackError> {
        let server = cursor.mlflow.clone().expect("it has begun");
        let sent = self.send_all(&server, entries);
        self.is_in_doubt = sent.is_err();
        sent
    }

    fn close(
        &mut self,
        run: &Run,
        cursor: &mut Cursor,
        ending: Option<Ending>,
    ) -> Result<(), TrackError> {
        let server = &cursor.mlflow.clone().expect("it has begun");
        if ending == Some(Ending::Done) {
            for (name, path) in run.model()? {
                self.put_file(server, &format!("model/{name}"), &path)?;
            }
        }
        let status = match ending {
            Some(Ending::Done) => "FINISHED",
            Some(Ending::Stopped) => "KILLED",
            Some(Ending::Failed) => "FAILED",
            None => return Ok(()),
        };
        let last = cursor.position.moment.map_or(cursor.started, |moment| moment.seconds);
        let end_time = milliseconds(last);
        let body = json!({"run_id": server.run_id, "status": status, "end_time": end_time});
        self.post("runs/update", &body)?;
        Ok(())
    }

    fn where_to(&self, cursor: &Cursor) -> String {
        match &cursor.mlflow {
            Some(run) => format!(
                "{}/#/experiments/{}/runs/{}",
                self.http.shown(),
                run.experiment_id,
                run.run_id
            ),
            None => self.target(),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
