//! An MLflow server's stand-in that fails, hangs, and dies between taking a batch and answering.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use tessera_control::RunState;

use super::*;
use crate::run::tests::{folder, say};
use crate::{Follower, Options, Outcome, Pauses, Target, TrackError, Tracking};

/// What a server does with one request.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// Takes it and answers.
    Answer,
    /// Answers 503 and takes nothing.
    Refuse,
    /// Takes it, and the connection ends without an answer.
    TakeAndDie,
    /// Neither takes it nor answers, for longer than a client waits.
    Hang,
}

#[derive(Default)]
struct State {
    /// Key, step, value, as they came.
    metrics: Vec<(String, i64, String)>,
    timestamps: BTreeMap<String, (i64, i64)>,
    params: BTreeMap<String, String>,
    artifacts: BTreeMap<String, usize>,
    runs: Vec<String>,
    status: String,
    largest_batch: usize,
    logins: Vec<String>,
    fates: Vec<(&'static str, Fate)>,
}

struct StandIn {
    server: Arc<tiny_http::Server>,
    state: Arc<Mutex<State>>,
    uri: String,
}

impl StandIn {
    fn start() -> Self {
        let server = Arc::new(tiny_http::Server::http("127.0.0.1:0").unwrap());
        let uri = format!("http://{}", server.server_addr());
        let state = Arc::new(Mutex::new(State::default()));
        let (theirs, shared) = (Arc::clone(&server), Arc::clone(&state));
        std::thread::spawn(move || {
            while let Ok(request) = theirs.recv() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(request, &shared));
            }
        });
        Self { server, state, uri }
    }

    /// The next requests of calls of this name fare so, one after another.
    fn fates(&self, call: &'static str, fates: &[Fate]) {
        let fates = fates.iter().rev().map(|fate| (call, *fate));
        self.state.lock().unwrap().fates.extend(fates);
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.server.unblock();
    }
}

fn serve(mut request: tiny_http::Request, state: &Mutex<State>) {
    let mut body = Vec::new();
    request.as_reader().read_to_end(&mut body).unwrap();
    let url = request.url().to_owned();
    let mut state = state.lock().unwrap();
    let fate = state.fates.iter().rposition(|(call, _)| url.contains(call));
    let fate = fate.map_or(Fate::Answer, |at| state.fates.remove(at).1);
    let header = |name: &'static str| {
        let found = request.headers().iter().find(|header| header.field.equiv(name));
        found.map(|header| header.value.to_string()).unwrap_or_default()
    };
    state.logins.push(header("Authorization"));
    let (status, answer) = match fate {
        Fate::Hang => {
            drop(state);
            std::thread::sleep(Duration::from_millis(1300));
            return;
        }
        Fate::Refuse => (503, json!({})),
        Fate::Answer | Fate::TakeAndDie => taken(&mut state, &url, &body),
    };
    drop(state);
    if fate != Fate::TakeAndDie {
        let response = tiny_http::Response::from_string(answer.to_string());
        let _ = request.respond(response.with_status_code(status));
    } else {
        drop(request.into_writer());
    }
}

fn taken(state: &mut State, url: &str, body: &[u8]) -> (u16, Value) {
    let call = url.split('?').next().unwrap().trim_start_matches("/api/2.0/");
    if let Some(path) = call.strip_prefix("mlflow-artifacts/artifacts/") {
        *state.artifacts.entry(path.to_owned()).or_default() += body.len();
        return (200, json!({}));
    }
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
    let run = |state: &State| {
        let metrics = state.timestamps.iter().map(|(key, (step, timestamp))| {
            json!({"key": key, "value": 0.0, "step": step.to_string(), "timestamp": timestamp})
        });
        let metrics: Vec<Value> = metrics.collect();
        let info = json!({"run_id": "r1", "artifact_uri": "mlflow-artifacts:/7/r1/artifacts"});
        json!({"info": info, "data": {"metrics": metrics}})
    };
    match call.trim_start_matches("mlflow/") {
        "experiments/get-by-name" => (404, json!({"error_code": "RESOURCE_DOES_NOT_EXIST"})),
        "experiments/create" => (200, json!({"experiment_id": "7"})),
        "runs/search" => {
            let filter = body["filter"].as_str().unwrap();
            let is_it = |id: &String| filter == format!("tags.`tessera.id` = '{id}'");
            match state.runs.iter().any(is_it) {
                true => (200, json!({"runs": [run(state)]})),
                false => (200, json!({})),
            }
        }
        "runs/create" => {
            let tags = body["tags"].as_array().unwrap();
            let id = tags.iter().find(|tag| tag["key"] == "tessera.id").unwrap();
            state.runs.push(text(&id["value"]));
            (200, json!({"run": run(state)}))
        }
        "runs/get" => (200, json!({"run": run(state)})),
        "runs/update" => {
            state.status = text(&body["status"]);
            (200, json!({}))
        }
        "runs/log-batch" => {
            for param in body["params"].as_array().into_iter().flatten() {
                let (key, value) = (text(&param["key"]), text(&param["value"]));
                if state.params.get(&key).is_some_and(|before| *before != value) {
                    return (400, json!({"error_code": "INVALID_PARAMETER_VALUE"}));
                }
                state.params.insert(key, value);
            }
            let metrics = body["metrics"].as_array().map(Vec::as_slice).unwrap_or_default();
            state.largest_batch = state.largest_batch.max(metrics.len());
            for metric in metrics {
                let (key, step) = (text(&metric["key"]), metric["step"].as_i64().unwrap());
                let latest = (step, metric["timestamp"].as_i64().unwrap());
                let kept = state.timestamps.entry(key.clone()).or_insert(latest);
                *kept = (*kept).max(latest);
                state.metrics.push((key, step, text(&metric["value"])));
            }
            (200, json!({}))
        }
        other => panic!("{other} is not called"),
    }
}

fn options(stand_in: &StandIn) -> Options {
    Options {
        target: Target::Mlflow,
        project: "tests".to_owned(),
        uri: stand_in.uri.clone(),
        is_eager: false,
        out: None,
        timeout: Duration::from_millis(250),
        stop: Arc::new(AtomicBool::new(false)),
    }
}

/// A run of so many steps with a row each of three figures, one of which is not finite in each third step.
fn run(steps: u64) -> tempfile::TempDir {
    let run = folder();
    write_rows(run.path(), steps);
    fs::write(run.path().join("config.toml"), "seed = 7\n[train]\nsteps = 5\n").unwrap();
    fs::create_dir(run.path().join("samples")).unwrap();
    fs::write(run.path().join("samples/step-2.png"), "picture").unwrap();
    run
}

fn write_rows(dir: &Path, steps: u64) {
    let row = |step: u64| {
        let loss = if step.is_multiple_of(3) { "null".to_owned() } else { format!("{step}.5") };
        format!("{{\"step\":{step},\"loss\":{loss},\"grad_norm\":{step},\"step_ms\":10}}\n")
    };
    let rows: String = (1..=steps).map(row).collect();
    fs::write(dir.join("metrics.jsonl"), rows).unwrap();
    say(dir, RunState::Done, steps);
}

/// What a server has to have of such a run: each metric once.
fn expected(steps: i64) -> Vec<(String, i64, String)> {
    let of = |step: i64| {
        let loss = if step % 3 == 0 { "NaN".to_owned() } else { format!("{step}.5") };
        let metric = |key: &str, value: String| (key.to_owned(), step, value);
        [
            metric("speed/step_ms", "10".to_owned()),
            metric("train/grad_norm", step.to_string()),
            metric("train/loss", loss),
        ]
    };
    let mut all: Vec<_> = (1..=steps).flat_map(of).collect();
    all.sort();
    all
}

fn metrics_of(stand_in: &StandIn) -> Vec<(String, i64, String)> {
    let mut metrics = stand_in.state.lock().unwrap().metrics.clone();
    metrics.sort();
    metrics
}

#[test]
fn a_run_has_its_parameters_metrics_pictures_and_end_once() {
    let (stand_in, run) = (StandIn::start(), run(1000));
    fs::create_dir_all(run.path().join("model/tokenizer")).unwrap();
    for name in ["model.safetensors", "tokenizer/config.json"] {
        fs::write(run.path().join("model").join(name), "weights").unwrap();
    }
    for _ in 0..2 {
        let mut tracking = Tracking::open(run.path(), &options(&stand_in)).unwrap();
        tracking.advance().unwrap();
        tracking.close(Some(Ending::Done)).unwrap();
    }
    assert_eq!(metrics_of(&stand_in), expected(1000));
    let state = stand_in.state.lock().unwrap();
    assert!(state.largest_batch <= MOST_METRICS, "{}", state.largest_batch);
    assert_eq!(state.params["seed"], "7");
    assert_eq!(state.params["train.steps"], "5");
    assert_eq!(state.artifacts["7/r1/artifacts/samples/step-2.png"], "picture".len());
    for name in ["config.toml", "model/model.safetensors", "model/tokenizer/config.json"] {
        assert!(state.artifacts.contains_key(&format!("7/r1/artifacts/{name}")), "{name}");
    }
    assert_eq!((state.status.as_str(), state.runs.len()), ("FINISHED", 1));
}

#[test]
fn every_way_in_which_a_request_fails_leaves_each_metric_once() {
    use Fate::{Answer, Hang, Refuse, TakeAndDie};
    let calls = ["experiments/create", "runs/create", "runs/log-batch", "artifacts", "runs/update"];
    std::thread::scope(|scope| {
        for call in calls {
            for fates in [&[Refuse, Hang][..], &[Answer, TakeAndDie], &[TakeAndDie; 3]] {
                scope.spawn(move || fare(call, fates));
            }
        }
    });
}

/// Sends a run to a server whose calls of one name fare so; after each second failure the process is killed and
/// started again.
fn fare(call: &'static str, fates: &[Fate]) {
    let (stand_in, run) = (StandIn::start(), run(450));
    stand_in.fates(call, fates);
    // Long enough for a machine that does much besides.
    let options = Options { timeout: Duration::from_secs(1), ..options(&stand_in) };
    let mut tracking = Tracking::open(run.path(), &options).unwrap();
    let finish = |tracking: &mut Tracking| {
        tracking.advance()?;
        tracking.close(Some(Ending::Done))
    };
    let mut failures = 0;
    while let Err(error) = finish(&mut tracking) {
        assert!(matches!(error, TrackError::Away(_)), "{error}");
        failures += 1;
        if failures % 2 == 1 {
            drop(tracking);
            tracking = Tracking::open(run.path(), &options).unwrap();
        }
    }
    let not_met = stand_in.state.lock().unwrap().fates.len(); // of a call that is made once
    let met = &fates[..fates.len() - not_met];
    assert_eq!(failures, met.iter().filter(|fate| **fate != Fate::Answer).count(), "{call}");
    assert_eq!(metrics_of(&stand_in), expected(450), "{call}");
    assert_eq!(stand_in.state.lock().unwrap().runs.len(), 1, "{call}");
}

#[test]
fn rows_that_came_while_a_batch_was_in_doubt_are_sent_with_it() {
    let (stand_in, run) = (StandIn::start(), run(10));
    stand_in.fates("runs/log-batch", &[Fate::Answer, Fate::TakeAndDie]);
    let mut tracking = Tracking::open(run.path(), &options(&stand_in)).unwrap();
    tracking.advance().unwrap_err();
    write_rows(run.path(), 20);
    tracking.advance().unwrap();
    assert_eq!(metrics_of(&stand_in), expected(20));
}

#[test]
fn a_server_that_comes_late_is_waited_for_and_one_that_refuses_is_not() {
    let (stand_in, run) = (StandIn::start(), run(30));
    stand_in.fates("experiments/get-by-name", &[Fate::Refuse; 4]);
    let options = options(&stand_in);
    let pauses =
        Pauses { looks: [Duration::from_millis(1); 2], tries: [Duration::from_millis(1); 2] };
    let follow = |options: &Options| {
        let tracking = Tracking::open(run.path(), options).unwrap();
        let follower =
            Follower::new(vec![tracking], pauses, Arc::clone(&options.stop), Arc::default());
        follower.run(|_| Some(Ending::Stopped)).unwrap().pop().unwrap().1
    };
    assert!(matches!(follow(&options), Outcome::Sent));
    assert_eq!(metrics_of(&stand_in), expected(30));
    assert_eq!(stand_in.state.lock().unwrap().status, "KILLED");
    let elsewhere = Options { uri: format!("{}/prefix", stand_in.uri), ..options };
    stand_in.fates("prefix", &[Fate::Refuse]);
    let error = Tracking::open(run.path(), &elsewhere).unwrap().advance().unwrap_err();
    assert!(error.to_string().contains("does not answer: 503; is it running?"), "{error}");
}

#[test]
fn somebody_who_asks_for_the_end_does_not_wait_for_a_server_that_hangs() {
    let (stand_in, run) = (StandIn::start(), run(3));
    stand_in.fates("experiments/get-by-name", &[Fate::Hang]);
    let options = Options { timeout: Duration::from_secs(60), ..options(&stand_in) };
    let mut tracking = Tracking::open(run.path(), &options).unwrap();
    let stop = Arc::clone(&options.stop);
    let asks = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        stop.store(true, std::sync::atomic::Ordering::Release);
    });
    let begun = std::time::Instant::now();
    assert!(matches!(tracking.advance(), Err(TrackError::Stopped)));
    assert!(begun.elapsed() < Duration::from_secs(10));
    asks.join().unwrap();
}

#[test]
fn an_address_that_is_none_is_refused_and_a_password_in_one_is_used_and_not_shown() {
    let run = run(1);
    let stand_in = StandIn::start();
    for uri in ["sqlite:///mlflow.db", "mlruns", "databricks", "http://"] {
        let options = Options { uri: uri.to_owned(), ..options(&stand_in) };
        let error = Tracking::open(run.path(), &options).unwrap_err();
        assert!(error.to_string().contains("such as http://127.0.0.1:5000"), "{error}");
    }
    let uri = stand_in.uri.replace("//", "//name:secret@");
    let mut tracking = Tracking::open(run.path(), &Options { uri, ..options(&stand_in) }).unwrap();
    tracking.advance().unwrap();
    assert!(!tracking.cursor().target.contains("secret"), "{}", tracking.cursor().target);
    assert!(!tracking.where_to().contains("secret"));
    // `printf name:secret | base64`
    assert_eq!(stand_in.state.lock().unwrap().logins[0], "Basic bmFtZTpzZWNyZXQ=");
}

#[test]
fn texts_are_cut_at_a_character() {
    assert_eq!(cut("äöü", 2), "äö");
    assert_eq!(cut("ab", 6000), "ab");
}
